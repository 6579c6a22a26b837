import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurolm.config import as_dict
from neurolm.eeg.shards import Store
from neurolm.text.bpe import gpt2_bpe
from neurolm.text.instructions import TASKS, Task, TaskError
from neurolm.training.tasks import encoded_tasks, refuse_unanswerable, tasks_of_model, warn_of_shared_words
from tests.tiny import write_tiny_store

EYES = Task(
    data_set="workload", question="Are the eyes closed?", answers={"rest": "No", "arithmetic": "Yes"}, positive="rest"
)


def test_a_task_of_your_own_has_its_name_from_its_place() -> None:
    tasks = encoded_tasks(["workload", "eyes"], {"eyes": EYES}, gpt2_bpe())
    assert list(tasks) == ["workload", "eyes"] and tasks["eyes"].name == "eyes"
    assert tasks["eyes"].task.prompt == "Question: Are the eyes closed? Answer:"
    again = tasks_of_model({"own_tasks": {"eyes": as_dict(EYES)}}, ["eyes"], gpt2_bpe())
    assert again["eyes"] == tasks["eyes"]


def test_unknown_and_hidden_names_are_refused() -> None:
    with pytest.raises(TaskError, match=r"eye not known, did you mean eyes\?"):
        encoded_tasks(["eye"], {"eyes": EYES}, gpt2_bpe())
    with pytest.raises(TaskError, match="workload is defined by neurolm"):
        encoded_tasks(["workload"], {"workload": TASKS["workload"]}, gpt2_bpe())


def test_tasks_whose_answers_begin_alike_are_named(caplog: pytest.LogCaptureFixture) -> None:
    own = {"eyes": EYES, "words": replace(EYES, answers={"rest": "Open", "arithmetic": "Closed"})}
    with caplog.at_level(logging.WARNING):
        warn_of_shared_words(encoded_tasks(["workload", "words", "hmc"], own, gpt2_bpe()))
    assert not caplog.messages
    warn_of_shared_words(encoded_tasks(["workload", "words", "eyes"], own, gpt2_bpe()))
    assert "the tasks eyes, workload begin alike" in caplog.text


def test_labels_and_positions_are_checked_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = Store.open(write_tiny_store(tmp_path, 6)).index("train")  # all of them at rest, 2 s
    tasks = encoded_tasks(["eyes"], {"eyes": EYES}, gpt2_bpe())
    with caplog.at_level(logging.WARNING):
        refuse_unanswerable(index, tasks, context=64)
    assert "task eyes: no train window is labelled arithmetic" in caplog.text
    length = max(len(tasks["eyes"].training_text(place).ids) for place in range(2))
    refuse_unanswerable(index, tasks, context=2 + length)
    with pytest.raises(TaskError, match=rf"need {2 + length} positions, the language model has {1 + length}"):
        refuse_unanswerable(index, tasks, context=1 + length)
    index.label[:2] = "asleep"
    with pytest.raises(TaskError, match=r"no answer for the label asleep \(2 windows\) of data set workload"):
        refuse_unanswerable(index, tasks, context=64)
    assert np.sum(index.label == "asleep") == 2


def test_windows_left_out_by_a_label_map_are_counted_and_need_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = Store.open(write_tiny_store(tmp_path, 6, labels=("rest", "calm", "noise"))).index("train")
    mapped = replace(EYES, label_map={"calm": "rest", "noise": None})
    tasks = encoded_tasks(["eyes"], {"eyes": mapped}, gpt2_bpe())
    with caplog.at_level(logging.INFO):
        refuse_unanswerable(index, tasks, context=64, split="val")
    assert "task eyes: val windows left out by label_map: noise (2)" in caplog.text
    with pytest.raises(TaskError, match=r"no answer for the label noise \(2 windows\).*label_map: \{noise: null\}"):
        refuse_unanswerable(index, encoded_tasks(["eyes"], {"eyes": replace(EYES, label_map={"calm": "rest"})},
                                                 gpt2_bpe()), context=64)  # fmt: skip


def test_the_longest_paraphrase_must_fit(tmp_path: Path) -> None:
    index = Store.open(write_tiny_store(tmp_path, 6)).index("train")
    wordy = replace(EYES, paraphrases=("Does the person in this EEG segment keep the eyes closed?",))
    plain, long = (encoded_tasks(["eyes"], {"eyes": task}, gpt2_bpe()) for task in (EYES, wordy))
    fits = 2 + plain["eyes"].longest_text
    refuse_unanswerable(index, plain, context=fits)
    with pytest.raises(TaskError, match=f"the language model has {fits}"):
        refuse_unanswerable(index, long, context=fits)
