"""Subjects and recordings go by keyed hashes; the key stays with the group, outside every store.

Whatever a file's name, header or annotations say is kept out of messages (`told`, `foreign_words`) and out of stores.
"""

import difflib
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from neurolm.config import UserError
from neurolm.eeg.channels import CHANNELS

logger = logging.getLogger(__name__)

KEY_BYTES = 32

_QUOTED = re.compile(r"""(?<![A-Za-z0-9])('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?![A-Za-z0-9])""")
_ELECTRODES = sorted({part for name in CHANNELS for part in name.upper().split("-")})
_TECHNICAL = """
    EEG ECG EKG EOG EMG RESP ROC LOC CHIN REF LE AR AVG GND EDF BDF ANNOTATIONS STATUS STI TRIGGER EVENT MARKER MISC DC
    PHOTIC SPO2 PULSE HEOG VEOG
"""
_called: ContextVar[str] = ContextVar("called", default="the recording")


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


@contextmanager
def recording_called(name: str) -> Iterator[None]:
    """Within the block, readers speak of the recording by this name (see `spoken_name`): its id, never its path."""
    token = _called.set(name)
    try:
        yield
    finally:
        _called.reset(token)


def spoken_name() -> str:
    """What a reader may call the recording that it reads, in logs."""
    return _called.get()


def foreign_words(error: BaseException) -> str:
    """What may be told of an error or a warning of somebody else's code, whose text may quote a header: its kind."""
    kind = type(error).__name__
    return f"{kind}: {error.strerror}" if isinstance(error, OSError) and error.strerror else kind


def told(message: str, names: Iterable[str] = (), instead: str = "") -> str:
    """A message as it may be kept and shown: in one line, without names, and without what it quotes from a file.

    Args:
        message: words of our own, perhaps with names and with quoted texts in them.
        names: paths and parts of paths, each replaced by ``instead``.
        instead: what the recording is called.

    Returns:
        The message. Quoted texts are withheld, but for those that look like channels (``'EEG Fp1'``, ``'ECG'``).
    """
    text = " ".join(message.split())
    for name in sorted({name for name in names if len(name) > 1}, key=len, reverse=True):
        # A long name is found anywhere and in any case; a short one ("S1") only as a word, or it would garble others.
        pattern = re.escape(name) if len(name) > 3 else rf"(?<!\w){re.escape(name)}(?!\w)"
        text = re.sub(pattern, lambda _: instead, text, flags=re.IGNORECASE if len(name) > 3 else 0)
    return _QUOTED.sub(lambda quoted: quoted[0] if _is_channel(quoted[0][1:-1]) else "'(withheld)'", text)


def _is_channel(text: str) -> bool:
    """Whether every word is a technical one, an electrode, or spelt so nearly like one that a hint helps."""
    words = re.findall(r"[^\W_]+", text.upper())
    return bool(words) and all(
        word.rstrip("0123456789") in _TECHNICAL.split() or difflib.get_close_matches(word, _ELECTRODES, 1, 0.75)
        for word in words
    )


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
