"""The merged vocabulary: text ids, [SEP] and EEG codes in one range of classes; every special number is here."""

from neurolm.config import config

SPACE = 220
"""A lone space in GPT-2's byte-pair code; the released code writes it between an answer and its end."""

END_OF_TEXT = 50256
"""GPT-2's ``<|endoftext|>``: ends an answer and separates documents."""

NUM_BPE_IDS = 50257
"""Ids that text can have; an answer is read from these only."""

SEP = 50257
"""[SEP], between the EEG tokens and the text; the first id after GPT-2's own."""

TEXT_VOCABULARY_SIZE = 50304
"""Rows of the text embedding; ids 50258 and up are unused."""


@config
class Vocabulary:
    """The classes a language model predicts: all text ids, then one class per code (paper, section 2.3)."""

    codebook_size: int
    """Number of EEG codes."""

    @property
    def size(self) -> int:
        """Number of classes, 58,496 for the paper's 8,192 codes."""
        return TEXT_VOCABULARY_SIZE + self.codebook_size

    def code_class(self, code: int) -> int:
        """The class of an EEG code."""
        if not 0 <= code < self.codebook_size:
            raise IndexError(f"code {code} is outside the codebook of {self.codebook_size} rows")
        return TEXT_VOCABULARY_SIZE + code
