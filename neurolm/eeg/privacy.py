"""Subjects and recordings go by keyed hashes; the key stays with the group, outside every store."""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from pathlib import Path

from neurolm.config import UserError

logger = logging.getLogger(__name__)

KEY_BYTES = 32


class PrivacyKeyError(UserError):
    """A key file that cannot be used."""


def home() -> Path:
    """The private folder of keys and ledgers: NEUROLM_HOME or ~/.neurolm, made with mode 0700."""
    path = Path(os.environ.get("NEUROLM_HOME") or Path.home() / ".neurolm").expanduser()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def load_key(path: Path | None) -> bytes:
    """The group's secret key of 32 bytes; None is ``privacy.key`` in `home`.

    A missing file is made with mode 0600, whole or not at all, so that workers which start together agree on one key.

    Raises:
        PrivacyKeyError: the file holds anything but 32 bytes, or its folder is missing.
    """
    path = home() / "privacy.key" if path is None else Path(path).expanduser()
    if not path.parent.is_dir():
        raise PrivacyKeyError(f"{path}: the folder of the key file does not exist; make it or choose another")
    if not path.exists():
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise PrivacyKeyError(
            f"{path}: a key has {KEY_BYTES} bytes, this file {len(key)}; restore it, or remove it to make a new key "
            "(all ids change)"
        )
    if path.stat().st_mode & 0o077:
        logger.warning("%s can be read by others; protect it with: chmod 600 %s", path, path)
    return key


def keyed_id(key: bytes, kind: str, text: str) -> str:
    """16 hexadecimal digits of HMAC-SHA256; ``kind`` ("subject", "recording") keeps equal texts apart."""
    return hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:16]


def key_fingerprint(key: bytes) -> str:
    """Says whether two stores were made with one key, and nothing about the key."""
    return keyed_id(key, "fingerprint", "")


def _make_key(path: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes files with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass  # another process was first; its key counts
    finally:
        os.unlink(name)
