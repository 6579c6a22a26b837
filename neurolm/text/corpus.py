"""Plain text for the language side of every stage: documents as one row of ids, and random crops of it.

Without a text of the user's own, the prose in the docstrings of the scientific packages that neurolm needs anyway is
read: about a megabyte of English on signals, statistics and numerics, there without a download. It changes a little
between versions of those packages; ``TextCorpus.digest`` says which text a run saw.
"""

import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt
from pydantic import Field

from neurolm.config import Location, UserError, config
from neurolm.text.code import TextCode

PROSE_PACKAGES = ("mne", "numpy", "scipy", "sklearn", "matplotlib")
"""Packages whose docstrings are read when no text is given; all are dependencies, all have BSD-like licences."""

DOCUMENT_MARK = "<|endoftext|>"

_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_ROLE = re.compile(r":\w+(?::\w+)?:`[~!]?(?:\w+\.)*([^`<]*?)(?: *<[^>]*>)?`")
_MARKUP = (">>>", "---", " : ", "::", ".. ", "%(")
_MIN_CHARACTERS = 80
_MIN_LETTERS = 0.93


class CorpusError(UserError):
    """A text that cannot be trained on; the message names the file or the packages."""


@config
class CorpusConfig:
    """Where the text of the text batches comes from."""

    path: Location | None = None
    """A UTF-8 text file; a line ``<|endoftext|>`` separates documents. None: prose of installed packages."""
    val_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Part of the ids, at the end of the text, that is kept for validation."""
    held_out_crops: int | None = Field(default=None, ge=0)
    """Crops of the validation part on which stages 2 and 3 measure the language before and after; null: 16 where the
    run reads text, else none."""


class TextCorpus:
    """Documents as one row of a text code's ids, each ended; the last part of the row is for validation."""

    def __init__(self, settings: CorpusConfig, code: TextCode) -> None:
        """Read and encode the text of a config. Raises CorpusError."""
        ids = _package_ids(code) if settings.path is None else encode_documents(read_documents(settings.path), code)
        self._code = code
        num_train = len(ids) - max(1, int(len(ids) * settings.val_fraction))
        self.ids: dict[str, UInt[np.ndarray, " ids"]] = {"train": ids[:num_train], "val": ids[num_train:]}

    @property
    def digest(self) -> str:
        """A short SHA-256 of the ids and of how they are split."""
        whole = hashlib.sha256()
        for split, ids in self.ids.items():
            whole.update(split.encode() + ids.astype(ids.dtype.newbyteorder("<")).tobytes())
        return whole.hexdigest()[:16]

    def batch(
        self, step: int, batch_size: int, length: int, seed: int, split: Literal["train", "val"] = "train"
    ) -> Int64[np.ndarray, "batch length_and_one"]:
        """The random crops of a step's global batch, a function of these arguments alone.

        A crop has ``length`` ids to read and one more, so that each of them has a next id to predict. Raises
        CorpusError where the split is too short for one crop.
        """
        ids = self.ids[split]
        if len(ids) < length + 1:
            raise CorpusError(
                f"the {split} part of the text has {len(ids)} ids, fewer than the {length + 1} of one crop; give a "
                "longer text or crops of fewer ids"
            )
        randomness = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, batch_size, length])))
        starts = randomness.integers(0, len(ids) - length, size=batch_size)
        return ids[starts[:, None] + np.arange(length + 1)].astype(np.int64)

    def held_out(self, num_crops: int, length: int) -> tuple[Int64[np.ndarray, "crops length_and_one"], int]:
        """The first crops of the validation part, one after another, and the bytes of UTF-8 that they have to predict.

        There are fewer crops, or one shorter crop, where that part is short. Ends of text are predicted and have no
        bytes. Raises CorpusError where there is nothing to predict.
        """
        ids = self.ids["val"]
        length = min(length, len(ids) - 1)
        if length < 1:
            raise CorpusError(f"the val part of the text has {len(ids)} ids; give a longer text, or held_out_crops: 0")
        number = min(num_crops, (len(ids) - 1) // length)
        crops = ids[length * np.arange(number)[:, None] + np.arange(length + 1)].astype(np.int64)
        predicted = [one for one in ids[1 : number * length + 1].tolist() if one != self._code.end_of_text]
        return crops, max(1, len(self._code.decode(predicted).encode()))


def read_documents(path: Path) -> list[str]:
    """The documents of a text file. Raises CorpusError naming the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such text file; set corpus.path to a UTF-8 text, or leave it out") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    documents = [document.strip() for document in text.split(DOCUMENT_MARK)]
    documents = [document for document in documents if document]
    if not documents:
        raise CorpusError(f"{path}: the file has no text")
    return documents


def encode_documents(documents: Iterable[str], code: TextCode) -> UInt[np.ndarray, " ids"]:
    """All documents in one row of ids, each followed by the end of text."""
    ids: list[int] = []
    for document in documents:
        ids += [*code.encode(document), code.end_of_text]
    return np.array(ids, dtype=np.uint16 if code.num_ids <= 2**16 else np.uint32)


def package_documents(packages: Iterable[str] = PROSE_PACKAGES) -> list[str]:
    """The prose in the docstrings of installed packages, a document per source file. Raises CorpusError.

    The documents come in the order of their digests, so that the validation part holds some of every package.
    """
    seen: set[str] = set()
    documents = []
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise CorpusError(f"the package {package} is not installed; install it or set corpus.path to a text file")
        root = Path(found.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            if "tests" in path.relative_to(root).parts:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            paragraphs = [one for one in prose_paragraphs(text) if one not in seen]
            seen.update(paragraphs)
            if paragraphs:
                documents.append("\n\n".join(paragraphs))
    return sorted(documents, key=lambda document: hashlib.sha256(document.encode()).digest())


def prose_paragraphs(source: str) -> Iterator[str]:
    """The paragraphs of a source file's docstrings that are sentences: no code, no lists, no tables, no markup."""
    for docstring in _DOCSTRING.findall(source):
        for paragraph in re.split(r"\n\s*\n", docstring):
            lines = paragraph.strip("\n").split("\n")
            indents = {len(line) - len(line.lstrip()) for line in lines[1:]}
            text = " ".join(line.strip() for line in lines).strip()
            if len(text) < _MIN_CHARACTERS or not text[0].isupper() or not text.endswith(".") or len(indents) > 1:
                continue
            letters = sum(character.isalpha() or character == " " for character in text)
            if letters < _MIN_LETTERS * len(text) or any(mark in text for mark in _MARKUP):
                continue
            yield _ROLE.sub(r"\1", text).replace("`", "").replace("**", "")


@functools.cache
def _package_ids(code: TextCode) -> UInt[np.ndarray, " ids"]:
    return encode_documents(package_documents(), code)
