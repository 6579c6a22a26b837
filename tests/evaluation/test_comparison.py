"""Paired differences by hand; a model against itself; a test that keeps its promise."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neurolm.evaluation.comparison import ComparisonError, compare, compare_means, exchanges
from neurolm.evaluation.predictions import COLUMNS, Predictions, score


def answers(odds: np.ndarray, **changes: object) -> Predictions:
    """Four windows a subject, two per class, one recording per class; log-odds of the second class are given."""
    n = len(odds)
    columns = {
        "row": np.arange(n),
        "recording": np.array([f"r{index // 2}" for index in range(n)], dtype=object),
        "subject": np.array([f"s{index // 4:02d}" for index in range(n)], dtype=object),
        "start_s": np.arange(n) % 2 * 2.0,
        "label_index": np.arange(n) // 2 % 2,
        "log_likelihoods": np.stack([-odds / 2, odds / 2], axis=1),
        "greedy_valid": np.ones(n, dtype=bool),
    }
    return Predictions(
        task="workload", labels=("rest", "arithmetic"), positive_class=1, split="test", **columns | changes
    )


RIGHT = np.array([-1.0, -2.0, 1.0, 2.0])


def test_one_always_right_one_always_wrong() -> None:
    found = compare(answers(np.tile(-RIGHT, 3)), answers(np.tile(RIGHT, 3)))
    assert (found.num_windows, found.num_subjects, found.num_exchanges) == (12, 3, 8)
    one = found.balanced_accuracy
    assert (one.a, one.b, one.difference, one.difference_ci95) == (0.0, 1.0, 1.0, None)
    # Exchanging k of three subjects gives 1, 1/3, -1/3 or -1: two of eight are as large.
    assert one.p_value == found.smallest_p_value == 2 / 8 and found.all_exchanges
    assert found.auroc is not None and (found.auroc.a, found.auroc.b, found.auroc.p_value) == (0.0, 1.0, 2 / 8)


def test_the_interval_is_paired() -> None:
    # A is right about subjects 0 to 2 of six and wrong about the rest, B is right about one subject more.
    sides = [1, 1, 1, -1, -1, -1]
    a, b = (answers(np.concatenate([side * RIGHT for side in which])) for which in (sides, [1, 1, 1, 1, -1, -1]))
    one = compare(a, b).balanced_accuracy
    assert one.difference == pytest.approx(1 / 6)
    # Each draw's difference is the share of the fourth subject, k/6 with k of Binomial(6, 1/6); alone, either is wide.
    assert one.difference_ci95 == [0.0, pytest.approx(3 / 6)]
    low, high = score(a).balanced_accuracy_ci95
    assert high - low > 0.6
    assert one.p_value == 1.0  # the one subject that differs may go either way


def test_a_model_does_not_differ_from_itself() -> None:
    same = answers(np.random.default_rng(0).normal(size=40))
    found = compare(same, same)
    for one in (found.balanced_accuracy, found.auroc):
        assert one is not None and (one.difference, one.p_value, one.difference_ci95) == (0.0, 1.0, [0.0, 0.0])


def test_sides_can_be_changed() -> None:
    a, b = (answers(np.random.default_rng(seed).normal(size=40) + RIGHT.repeat(10)) for seed in (1, 2))
    there, back = compare(a, b), compare(b, a)
    for name in ("balanced_accuracy", "auroc"):
        one, other = getattr(there, name), getattr(back, name)
        assert one.difference == pytest.approx(-other.difference) and one.p_value == pytest.approx(other.p_value)
        assert one.difference_ci95 == pytest.approx([-end for end in reversed(other.difference_ci95)])


def test_an_exchange_is_really_that() -> None:
    """The AUROC test against windows that are exchanged and ranked anew."""
    rng = np.random.default_rng(3)
    odds = [rng.normal(size=16) + np.tile(RIGHT, 4) * 0.3 for _ in range(2)]
    a, b = (answers(one) for one in odds)
    found = compare(a, b).auroc
    observed = abs(score(b).auroc - score(a).auroc)
    as_large = 0
    for flips in exchanges(4)[0]:
        change = flips.astype(bool)[np.arange(16) // 4]
        one, other = np.where(change, odds[1], odds[0]), np.where(change, odds[0], odds[1])
        difference = roc_auc_score(a.label_index, other) - roc_auc_score(a.label_index, one)
        as_large += abs(difference) >= observed - 1e-12
    assert found.p_value == as_large / 16


def test_many_subjects_are_exchanged_at_random_with_a_fixed_seed() -> None:
    assert exchanges(13)[1] and not exchanges(14)[1] and len(exchanges(14)[0]) == 10_000
    a, b = answers(np.tile(-RIGHT, 20)), answers(np.tile(RIGHT, 20))
    found = compare(a, b, seed=4)
    assert not found.all_exchanges and found.balanced_accuracy.p_value == found.smallest_p_value == 1 / 10_001
    assert found == compare(a, b, seed=4)


def test_equal_models_are_called_different_as_seldom_as_promised() -> None:
    p_values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(size=8).repeat(4)  # subjects differ more than models
        noise = rng.normal(size=(2, 32))
        found = compare(*(answers(np.tile(RIGHT, 8) * (1 + difficulty) / 2 + one) for one in noise))
        p_values.append(found.balanced_accuracy.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.12 and np.mean(np.array(p_values) <= 0.5) <= 0.65


def test_windows_are_paired_whatever_their_order() -> None:
    a, b = answers(np.tile(RIGHT, 6)), answers(np.random.default_rng(0).normal(size=24))
    order = np.random.default_rng(1).permutation(24)
    moved = replace(b, **{name: getattr(b, name)[order] for name in COLUMNS} | {"row": np.arange(24)})
    assert compare(a, moved) == compare(a, b)


def test_other_windows_are_refused_and_counted() -> None:
    a = answers(np.tile(RIGHT, 6))
    shorter = replace(a, **{name: getattr(a, name)[:20] for name in COLUMNS})
    with pytest.raises(ComparisonError, match="20 windows are in both runs, of 24 in A and 20 in B"):
        compare(a, shorter)
    with pytest.raises(ComparisonError, match="22 windows are in both runs, of 24 in A and 24 in B"):
        compare(a, replace(a, start_s=np.where(np.arange(24) < 2, 99.0, a.start_s)))
    with pytest.raises(ComparisonError, match="differ in labels"):
        compare(a, replace(a, labels=("rest", "other")))


def test_without_a_class_there_is_no_auroc_to_compare() -> None:
    one = answers(np.tile(RIGHT, 6), label_index=np.zeros(24, int))
    assert compare(one, one).auroc is None


def test_of_several_seeds_the_means_are_compared() -> None:
    random = np.random.default_rng(3)
    lean = 0.5 * np.tile([-1, -1, 1, 1], 10)
    a = [answers(random.normal(size=40)) for _ in range(3)]
    b = [answers(random.normal(size=40) + lean) for _ in range(2)]
    found = compare_means(a, b)
    assert found.balanced_accuracy.a == pytest.approx(np.mean([score(one).balanced_accuracy for one in a]))
    assert found.balanced_accuracy.b == pytest.approx(np.mean([score(one).balanced_accuracy for one in b]))
    assert found.auroc is not None
    assert found.auroc.a == pytest.approx(np.mean([score(one).auroc for one in a]))
    assert found.auroc.b == pytest.approx(np.mean([score(one).auroc for one in b]))
    # A seed that comes twice says nothing new: neither the difference nor its p-value moves.
    once, twice = compare_means(a[:1], b[:1]), compare_means(a[:1] * 2, b[:1] * 3)
    assert twice.balanced_accuracy.difference == pytest.approx(once.balanced_accuracy.difference)
    assert twice.balanced_accuracy.p_value == once.balanced_accuracy.p_value
    assert twice.balanced_accuracy.difference_ci95 == pytest.approx(once.balanced_accuracy.difference_ci95)
