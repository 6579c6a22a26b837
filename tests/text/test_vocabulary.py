import pytest

from neurolm.text.vocabulary import Vocabulary


def test_codes_follow_the_text_ids() -> None:
    paper = Vocabulary(codebook_size=8192)
    assert paper.size == 58496
    assert paper.code_class(0) == 50304
    assert paper.code_class(8191) == paper.size - 1


def test_a_code_outside_the_codebook_is_refused() -> None:
    with pytest.raises(IndexError, match="codebook of 4 rows"):
        Vocabulary(codebook_size=4).code_class(4)
