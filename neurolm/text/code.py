"""How a language model writes text: a tokenizer, and the ids that have a meaning of their own.

The text ids of a model are its tokenizer's, then [SEP], then unused ones up to a multiple of 64; EEG codes follow these
in the merged vocabulary. For GPT-2 that is 50257 ids, [SEP] = 50257 and 50304 rows, as in the released code.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

ROWS_MULTIPLE = 64
"""Tables have a multiple of this many rows, which matrix products like."""


@dataclass(frozen=True, eq=False)
class TextCode:
    """Text to ids and back, with every special number of one language model's text."""

    tokenizer: Tokenizer
    """The rules; one text is encoded at a time, so that no thread pool is left behind in a process that may fork."""
    num_ids: int
    """Ids that text can have; an answer is read from these only."""
    end_of_text: int
    """Ends an answer and separates documents; never made from text."""
    answer_end: tuple[int, ...]
    """What is learnt after an answer; the last of them is ``end_of_text``."""

    def __post_init__(self) -> None:
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @property
    def sep(self) -> int:
        """[SEP], between the EEG tokens and the text; the first id after the text's own."""
        return self.num_ids

    @property
    def num_rows(self) -> int:
        """Rows of the text table: text ids, [SEP], and unused ones."""
        return (self.num_ids + 1 + ROWS_MULTIPLE - 1) // ROWS_MULTIPLE * ROWS_MULTIPLE

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` alone; special tokens written in it are plain text and never become their ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special ones included; an id that no text can have raises ``IndexError``."""
        known = list(ids)
        foreign = [one for one in known if not 0 <= one < self.num_ids]
        if foreign:
            raise IndexError(f"ids {foreign} are no text; text ids are 0 to {self.num_ids - 1}")
        return str(self.tokenizer.decode(known, skip_special_tokens=False))

    def as_json(self) -> str:
        """Everything as one file, for model folders."""
        return json.dumps(
            {
                "num_ids": self.num_ids,
                "end_of_text": self.end_of_text,
                "answer_end": self.answer_end,
                "tokenizer": json.loads(self.tokenizer.to_str()),
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "TextCode":
        """Read back what `as_json` wrote."""
        values = json.loads(text)
        return cls(
            tokenizer=Tokenizer.from_str(json.dumps(values["tokenizer"])),
            num_ids=values["num_ids"],
            end_of_text=values["end_of_text"],
            answer_end=tuple(values["answer_end"]),
        )
