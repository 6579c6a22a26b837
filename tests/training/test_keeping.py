"""Ranks and fronts by hand; what a run would keep, validation by validation."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.training.keeping import Keeper, mean_ranks, pareto_front

TABLE = np.array([[0.5, 0.9], [0.7, 0.7], [0.6, 0.6], [0.9, 0.5]])


def test_ranks_and_front_by_hand() -> None:
    assert mean_ranks(TABLE).tolist() == [2.5, 2.0, 3.0, 2.5]
    assert pareto_front(TABLE) == [0, 1, 3]
    assert pareto_front(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.4]])) == [0]
    assert mean_ranks(np.array([[0.5], [0.5], [0.4]])).tolist() == [1.5, 1.5, 3.0]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_best_mean_rank_is_always_on_the_front(rows: list[tuple[int, int, int]]) -> None:
    scores = np.array(rows, dtype=float)
    front, ranks = pareto_front(scores), mean_ranks(scores)
    assert min(ranks[front]) == min(ranks)
    beaten = set(range(len(rows))) - set(front)
    assert all(any((scores[one] >= scores[row]).all() for one in front) for row in beaten)


def feed(keeper: Keeper, table: np.ndarray, first: int = 1) -> list[int]:
    """Steps of the run's model after each validation; wanted weights are a file that holds their step."""
    kept = []
    for step, scores in enumerate(table.tolist(), start=first):
        by_task = dict(zip("ab", scores, strict=True))
        if keeper.hears(step, {"score": float(np.mean(scores))}, by_task):
            keeper.place(step).mkdir(parents=True, exist_ok=True)
            (keeper.place(step) / "manifest.json").write_text(str(step))
        keeper.settle(is_first=True)
        kept.append(int((keeper._folder / "model" / "manifest.json").read_text()))
    return kept


@pytest.mark.parametrize(
    ("keep", "expected"),
    # By ranks: of the first two each leads one task, and the first stays; then the second is second in both at worst.
    [("best", [1, 1, 1, 1]), ("final", [1, 2, 3, 4]), ("ranks", [1, 1, 2, 2])],
)
def test_what_is_kept(tmp_path: Path, keep: str, expected: list[int]) -> None:
    best: dict[str, float] = {}
    keeper = Keeper(tmp_path, keep, None, "ab", best)  # type: ignore[arg-type]
    assert feed(keeper, TABLE) == expected
    assert best["step"] == expected[-1]
    front = sorted(path.name for path in tmp_path.glob("pareto/*"))
    assert front == (["step-00000001", "step-00000002", "step-00000004"] if keep == "ranks" else [])
    keeper.write()
    told = json.loads((tmp_path / "validations.json").read_text())
    assert [one["is_on_front"] for one in told] == [True, True, False, True]
    assert [one["step"] for one in told if one["is_kept"]] == expected[-1:]


def test_a_resumed_run_keeps_what_an_uninterrupted_one_keeps(tmp_path: Path) -> None:
    best: dict[str, float] = {}
    first = Keeper(tmp_path, "ranks", None, "ab", best)
    feed(first, TABLE[:2])
    second = Keeper(tmp_path, "ranks", None, "ab", best)
    second.resume(first.validations)
    assert feed(second, TABLE[2:], first=3) == [2, 2]


def test_weights_that_were_lost_are_not_chosen(tmp_path: Path) -> None:
    best: dict[str, float] = {"step": 1.0, "score": 0.7}
    keeper = Keeper(tmp_path, "ranks", None, "ab", best)
    keeper.resume([{"step": 1, "scores": {"a": 0.9, "b": 0.9}, "metrics": {"score": 0.9, "step": 1.0}}])
    assert feed(keeper, np.array([[0.1, 0.2]]), first=2) == [2], "the only weights there are"


def test_patience_counts_validations_without_a_better_one(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, "best", 2, "ab", {})
    over = []
    for step, score in enumerate([0.5, 0.4, 0.6, 0.6, 0.1], start=1):
        keeper.hears(step, {"score": score}, {"a": score, "b": score})
        over.append(keeper.is_over)
    assert over == [False, False, False, False, True]
