from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from neurolm.config import UserError
from neurolm.text import corpus
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.code import TextCode
from neurolm.text.corpus import CorpusConfig, TextCorpus
from neurolm.text.instructions import TASKS, TaskError, encode_task
from neurolm.text.own_code import own_code
from tests.llama import END, NUM_TOKENS, write_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def code(folder: Path) -> TextCode:
    return own_code(str(folder), None, "llama", NUM_TOKENS)


def test_numbers_follow_the_models_own(code: TextCode) -> None:
    assert (code.num_ids, code.sep, code.num_rows) == (300, 300, 320)
    assert code.end_of_text == 0 and code.answer_end == (0,)


def test_gpt2_has_the_released_numbers() -> None:
    code = gpt2_bpe()
    assert (code.num_ids, code.sep, code.num_rows) == (50257, 50257, 50304)
    assert code.answer_end == (220, 50256)


def test_text_comes_back_and_never_becomes_a_special_id(code: TextCode) -> None:
    text = f"Wörkload {END} Yes"
    assert code.decode(code.encode(text)) == text
    assert code.end_of_text not in code.encode(text)
    assert code.decode([code.end_of_text]) == END
    with pytest.raises(IndexError, match="300"):
        code.decode([300])


def test_a_code_comes_back_from_its_file(code: TextCode) -> None:
    again = TextCode.from_json(code.as_json())
    text = f"Question: Is it? {END} ü"
    assert again.encode(text) == code.encode(text) and again.encode(text) != gpt2_bpe().encode(text)
    assert (again.num_ids, again.end_of_text, again.answer_end) == (300, 0, (0,))


def test_tasks_are_asked_in_the_models_own_ids(code: TextCode) -> None:
    task = encode_task(TASKS["hmc"], code)
    assert task.prompt_ids[0] == code.sep and max(task.prompt_ids[1:]) < code.sep
    assert code.decode(task.prompt_ids[1:]) == TASKS["hmc"].prompt
    text = task.training_text(2)
    assert code.decode(text.ids[1:]) == TASKS["hmc"].prompt + "C)" + END
    assert text.is_target[-3:] == (True, True, True)


def test_answers_written_otherwise_after_the_prompt_are_refused() -> None:
    """A code that puts a mark before every text, as sentencepiece's often do."""
    words = {"▁": 0, **{f"▁{word}": 1 + i for i, word in enumerate(("Yes", "No", "Answer:"))}, "?": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    odd = TextCode(tokenizer, 5, 4, (4,))
    assert odd.encode("Answer: Yes")[-1:] == odd.encode("Yes") == odd.encode(" Yes")
    assert encode_task(TASKS["workload"], odd).answers == ((2,), (1,))  # a word alone
    with pytest.raises(TaskError, match=r"written with other ids after the prompt than alone; reword it"):
        encode_task(TASKS["hmc"], odd)  # "A)" follows a bracket, so no mark stands before it there


def test_a_corpus_is_in_its_codes_ids_also_where_these_are_large(code: TextCode, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Is it workload?\n<|endoftext|>\nIs it not?")
    ours, gpt2 = (TextCorpus(CorpusConfig(path=path), one) for one in (code, gpt2_bpe()))
    ids = [*ours.ids["train"], *ours.ids["val"]]
    assert ids == [*code.encode("Is it workload?"), 0, *code.encode("Is it not?"), 0]
    assert ours.digest != gpt2.digest and gpt2.ids["train"].dtype == np.uint16

    class Large:
        num_ids, end_of_text = 150_000, 149_999

        def encode(self, text: str) -> list[int]:
            return [70_000]

    large = TextCorpus(CorpusConfig(path=path), Large())  # type: ignore[arg-type]
    assert [*large.ids["train"], *large.ids["val"]] == [70_000, 149_999] * 2


def test_the_prose_of_packages_is_kept_for_each_code_apart(code: TextCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "package_documents", lambda: ["Is it high workload?"])
    first, second = TextCode.from_json(code.as_json()), TextCode.from_json(gpt2_bpe().as_json())
    for one in (first, second, first):
        ids = TextCorpus(CorpusConfig(), one).ids
        expected = [*one.encode("Is it high workload?"), one.end_of_text]
        assert [*ids["train"], *ids["val"]] == expected


def test_gpt2s_own_tokenizer_is_the_released_code(tmp_path: Path) -> None:
    saved = PreTrainedTokenizerFast(tokenizer_object=gpt2_bpe().tokenizer, eos_token="<|endoftext|>")
    saved.save_pretrained(tmp_path)
    assert own_code(str(tmp_path), None, "gpt2", 50257) is gpt2_bpe()
    assert own_code(str(tmp_path), None, "llama", 50257) is gpt2_bpe()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_llama(tmp_path / "bare", with_tokenizer=False)
    with pytest.raises(UserError, match=r"bare: no tokenizer .* beside the llama model; save it into the same folder"):
        own_code(str(tmp_path / "bare"), None, "llama", 300)
    assert own_code(str(tmp_path / "bare"), None, "gpt2", 50257) is gpt2_bpe()
    with pytest.raises(UserError, match=r"no tokenizer .* beside the gpt2 model"):  # too few rows for GPT-2's own ids
        own_code(str(tmp_path / "bare"), None, "gpt2", 300)
    write_llama(tmp_path / "endless", end=None)
    with pytest.raises(UserError, match="endless: its tokenizer has no end of text; set its eos_token"):
        own_code(str(tmp_path / "endless"), None, "llama", 300)
