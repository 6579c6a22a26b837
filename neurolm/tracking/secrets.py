"""What must not be recorded: secrets, known by their names, and passwords in addresses."""

import logging
import re
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

RUN_KEY_TAG = "neurolm.run_key"
"""Tag that finds a run again; its name only looks secret."""


def without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values whose names look like no secret, passwords in addresses blanked; says by name what is left out."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name != RUN_KEY_TAG and is_secret(name, value):
            log.info("%s looks like a secret and is not recorded", name)
        elif isinstance(value, Mapping):
            kept[name] = without_secrets(value)
        elif isinstance(value, list | tuple):
            kept[name] = [without_secrets({name: item})[name] for item in value]
        elif isinstance(value, str):
            kept[name] = re.sub(r"(?<=://)[^/@\s]+@", "***@", value)
        else:
            kept[name] = value
    return kept


EEG_TOKEN_SETTINGS = ("data.tokens", "data.token_store", "data.pretraining_token_store")
"""Settings whose names only look as if they told a secret."""


def is_secret(name: str, value: Any = "") -> bool:
    """Whether a setting's name says secret: a word ending in token, key, secret, password or the like, anywhere in it.

    ``tokenizer.hidden_size`` is none, nor is a *number* of tokens, nor where EEG tokens lie.
    """
    if name in EEG_TOKEN_SETTINGS:
        return False
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    is_count = value is None or isinstance(value, bool | int | float)
    endings = ("key", "secret", "password", "passwd", "passphrase", "credential") + (() if is_count else ("token",))
    return any(word.removesuffix("s").endswith(endings) for word in words)
