"""Predictions survive the disk bit for bit, join in one order, and are scored as the public format says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurolm.evaluation.predictions import Predictions, PredictionsError, concatenate, score


def predictions(num_subjects: int = 6, **changes: object) -> Predictions:
    """Four windows a subject, two per class; subject 0 has one window wrong, the rest are right."""
    n = 4 * num_subjects
    label_index = np.tile([0, 0, 1, 1], num_subjects)
    margin = np.where(label_index == 1, 1.5, -1.5)
    margin[0] = 1.0
    columns = {
        "row": np.arange(n),
        "recording": np.array([f"r{index // 2}" for index in range(n)], dtype=object),
        "subject": np.array([f"s{index // 4}" for index in range(n)], dtype=object),
        "start_s": np.arange(n) * 2.0,
        "label_index": label_index,
        "log_likelihoods": np.stack([-3.0 - margin / 2, -3.0 + margin / 2], axis=1),
        "greedy_valid": np.arange(n) != 3,
    }
    return Predictions(
        task="workload", labels=("rest", "arithmetic"), positive_class=1, split="test", **(columns | changes)
    )


def three_classes(labels: list[int], answers: list[list[float]]) -> Predictions:
    n = len(labels)
    same = {"recording": ["r"] * n, "subject": ["s"] * n, "start_s": np.zeros(n), "greedy_valid": [True] * n}
    return Predictions(
        task="sleep", labels=("W", "N1", "N2"), positive_class=None, split="val", row=np.arange(n),
        label_index=np.array(labels), log_likelihoods=np.array(answers), **same,
    )  # fmt: skip


def equal(a: Predictions, b: Predictions) -> bool:
    names = ("row", "recording", "subject", "start_s", "label_index", "log_likelihoods", "greedy_valid")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_probabilities_are_those_among_the_allowed_answers() -> None:
    answers = predictions(log_likelihoods=np.log([[0.1, 0.3]] * 23 + [[0.2, 0.2]]))
    assert np.allclose(answers.probabilities[:23], [0.25, 0.75])
    assert answers.predicted.tolist() == [1] * 23 + [0]
    far = predictions(log_likelihoods=np.array([[-2000.0, -1000.0]] * 24))
    assert np.array_equal(far.probabilities[0], [0.0, 1.0])


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "workload.parquet"
    before = predictions(log_likelihoods=np.random.default_rng(0).normal(size=(24, 2)) - 7)
    before.save(path)
    after = Predictions.load(path)
    assert equal(before, after)
    assert (after.task, after.labels, after.positive_class, after.split) == (
        "workload",
        ("rest", "arithmetic"),
        1,
        "test",
    )
    assert [file.name for file in path.parent.iterdir()] == ["workload.parquet"]
    assert pq.read_table(path)["label"].to_pylist()[:3] == ["rest", "rest", "arithmetic"]


def test_no_windows_survive_the_disk_too(tmp_path: Path) -> None:
    none = concatenate([replace(predictions(), **{name: getattr(predictions(), name)[:0] for name in (
        "row", "recording", "subject", "start_s", "label_index", "log_likelihoods", "greedy_valid")})])  # fmt: skip
    none.save(tmp_path / "none.parquet")
    assert len(Predictions.load(tmp_path / "none.parquet")) == 0
    with pytest.raises(ValueError, match="no window"):
        score(none)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(PredictionsError, match=r"text\.parquet"):
        Predictions.load(tmp_path / "text.parquet")
    table = pq.read_table(_saved(tmp_path)).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(PredictionsError, match="schema None"):
        Predictions.load(tmp_path / "other.parquet")
    saved = pq.read_table(_saved(tmp_path))
    pq.write_table(saved.drop_columns(["subject", "row"]), tmp_path / "fewer.parquet")
    with pytest.raises(PredictionsError, match="columns are missing: row, subject"):
        Predictions.load(tmp_path / "fewer.parquet")
    nine = saved.set_column(saved.schema.get_field_index("label_index"), "label_index", [[9] * 24])
    pq.write_table(nine, tmp_path / "nine.parquet")
    with pytest.raises(PredictionsError, match=r"nine\.parquet: workload: a label index is outside"):
        Predictions.load(tmp_path / "nine.parquet")


def _saved(tmp_path: Path) -> Path:
    predictions().save(tmp_path / "saved.parquet")
    return tmp_path / "saved.parquet"


def test_workers_parts_join_in_the_order_of_rows() -> None:
    whole = predictions()
    names = ("row", "recording", "subject", "start_s", "label_index", "log_likelihoods", "greedy_valid")
    odd, even = (replace(whole, **{name: getattr(whole, name)[part::2] for name in names}) for part in (1, 0))
    assert equal(concatenate([odd, even]), whole)
    with pytest.raises(ValueError, match="twice"):
        concatenate([whole, odd])
    with pytest.raises(ValueError, match="split"):
        concatenate([odd, replace(even, split="val")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_likelihoods": np.full((24, 2), np.nan)}, "24 of 24"),
        ({"log_likelihoods": np.full((24, 2), -np.inf)}, "24 of 24"),
        ({"log_likelihoods": np.zeros((24, 3))}, "classes"),
        ({"label_index": np.full(24, 2)}, "outside"),
        ({"row": np.arange(23)}, "lengths"),
    ],
)
def test_what_cannot_be_scored_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictions(**changes)


def test_score_of_a_binary_task() -> None:
    result = score(predictions())
    assert (result.split, result.num_windows, result.num_recordings, result.num_subjects) == ("test", 24, 12, 6)
    assert result.balanced_accuracy == pytest.approx((11 / 12 + 1) / 2)
    assert result.auroc == pytest.approx(1.0)  # 1.0 < 1.5: the wrong window still ranks below every positive one
    assert result.auc_pr == pytest.approx(1.0)
    assert result.invalid_answer_rate == pytest.approx(1 / 24)
    low, high = result.balanced_accuracy_ci95
    assert low < result.balanced_accuracy < high == 1.0
    assert list(result.as_dict()) == [
        "split", "num_windows", "num_recordings", "num_subjects", "balanced_accuracy", "balanced_accuracy_ci95",
        "auroc", "auc_pr", "cohen_kappa", "weighted_f1", "invalid_answer_rate",
    ]  # fmt: skip
    assert result.as_dict()["balanced_accuracy_ci95"] == [low, high]


def test_ranks_follow_the_positive_class_and_do_not_saturate() -> None:
    margin = np.where(np.tile([0, 0, 1, 1], 6) == 1, 200.0, 100.0)  # both probabilities round to 1
    answers = predictions(log_likelihoods=np.stack([-margin, np.zeros(24)], axis=1))
    assert score(answers).auroc == 1.0 and score(answers).balanced_accuracy == 0.5
    assert score(replace(answers, positive_class=0)).auroc == 1.0
    assert score(replace(answers, positive_class=None)).auc_pr is None


def test_score_of_several_classes() -> None:
    result = score(three_classes([0, 1, 2, 2], [[0, -1, -2], [-1, 0, -2], [-2, -1, 0], [0, -1, -2]]))
    assert result.balanced_accuracy == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert result.auroc is not None and result.auc_pr is None and result.balanced_accuracy_ci95 is None


def test_a_missing_class_neither_crashes_nor_warns() -> None:
    result = score(three_classes([0, 0, 1], [[0, -1, -2], [-2, -1, 0], [-1, 0, -2]]))
    assert result.auroc is None and result.balanced_accuracy == pytest.approx(3 / 4)
    one_class = score(predictions(label_index=np.ones(24, dtype=int)))
    assert one_class.auroc is None and one_class.auc_pr is None and one_class.cohen_kappa == 0.0


def test_released_answers_are_kept_where_they_were_asked_for(tmp_path: Path) -> None:
    answers = np.array([-1, 0, 1, 1] * 6)
    asked = predictions(
        released_answer=answers, released_text=np.array([" Maybe <|", " No", " Yes", " Yes"] * 6, object)
    )
    asked.save(tmp_path / "asked.parquet")
    after = Predictions.load(tmp_path / "asked.parquet")
    assert after.released_answer.tolist() == answers.tolist() and after.released_text[0] == " Maybe <|"
    assert concatenate([after]).released_answer.tolist() == answers.tolist()
    predictions().save(tmp_path / "plain.parquet")
    plain = Predictions.load(tmp_path / "plain.parquet")
    assert plain.released_answer is None and plain.released_text is None
    with pytest.raises(ValueError, match="columns"):
        concatenate([after, plain])
