"""Fresh seeds: means, paired differences by hand, and words that promise no more than the numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from neurolm.reports.confirmation import Confirmation, ConfirmationError, paired, summary
from tests.reports.sweeps import confirmed


def test_a_summary_by_hand() -> None:
    found = summary([0.5, 0.6, 0.7])
    assert found is not None and (found.number, found.mean) == (3, pytest.approx(0.6))
    assert found.sd == pytest.approx(0.1)
    one = summary([0.5])
    assert one is not None and one.sd is None
    assert summary([]) is None


def test_a_paired_difference_by_hand() -> None:
    found = paired({1: 0.01, 2: 0.02, 3: 0.03})
    assert (found.mean, found.sd) == (pytest.approx(0.02), pytest.approx(0.01))
    assert found.ci95 == pytest.approx((0.02 - 4.303 * 0.01 / 3**0.5, 0.02 + 4.303 * 0.01 / 3**0.5), abs=1e-5)
    # of 8 sign flips, all plus and all minus have a mean as large
    assert (found.p_value, found.smallest_p_value) == (0.25, 0.25)
    assert paired({1: 0.01, 2: -0.01}).p_value == 1.0
    one = paired({7: 0.3})
    assert one.ci95 is None and one.sd is None and one.p_value == 1.0


def test_five_even_differences_can_be_told_from_none() -> None:
    found = paired(dict(enumerate([0.02, 0.021, 0.019, 0.02, 0.02])))
    assert found.p_value == 2 / 32 and found.ci95 is not None and found.ci95[0] > 0


@pytest.mark.parametrize(
    ("best", "paper", "changes", "said"),
    [
        ([0.64, 0.65, 0.66], [0.60, 0.61, 0.62], {}, "better than the paper's setting on 3 of 3 seeds, by +0.040"),
        ([0.64, 0.65, 0.66], [0.60, 0.61, 0.62], {}, "excludes no difference"),
        ([0.64, 0.60, 0.66], [0.60, 0.65, 0.62], {}, "the sweep has not shown a gain"),
        ([0.60, 0.61, 0.62], [0.64, 0.65, 0.66], {}, "on fresh seeds it is worse. Use the paper's setting"),
        ([0.60, 0.61, 0.62], [0.64, 0.65, 0.66], {"larger_is_better": False}, "on 3 of 3 seeds, by +0.040"),
        ([0.64], [0.60], {}, "one seed says little"),
        ([None, None], [0.6, 0.6], {}, "No seed has a score for both"),
        ([0.6, 0.6], [], {"is_same": True}, "nothing to compare"),
    ],
)
def test_the_verdict_says_what_the_seeds_say(
    best: list[float | None], paper: list[float | None], changes: dict[str, object], said: str
) -> None:
    assert said in confirmed(best, paper, **changes).verdict


def test_only_seeds_with_both_scores_are_paired() -> None:
    found = confirmed([0.64, None, 0.66], [0.60, 0.61, None])
    assert found.difference is not None and list(found.difference.differences) == [1]
    assert not found.is_complete and confirmed([0.6], [0.5]).is_complete
    assert confirmed([0.6], [], is_same=True).is_complete


def test_the_kept_run_has_the_best_validation_score() -> None:
    found = confirmed([0.64, None, 0.66], [0.7, 0.7, 0.7])
    assert found.chosen is not None and found.chosen.seed == 3
    low = replace(found, larger_is_better=False)
    assert low.chosen is not None and low.chosen.seed == 1
    assert confirmed([None], [0.7]).chosen is None


def test_the_reference_is_chosen_only_where_it_can_be_told_to_be_better() -> None:
    worse = confirmed([0.60, 0.61, 0.62], [0.64, 0.66, 0.65])
    assert worse.is_worse and worse.chosen == worse.reference_runs[1]
    assert not replace(worse, larger_is_better=False).is_worse
    unclear = confirmed([0.64, 0.60, 0.60], [0.60, 0.65, 0.62])
    assert not unclear.is_worse and unclear.chosen == unclear.best_runs[0]
    assert not confirmed([0.5], [0.9]).is_worse  # one seed says little


def test_a_confirmation_survives_the_disk(tmp_path: Path) -> None:
    found = confirmed([0.64, None], [0.60, 0.61], kept_seed=1)
    found.save(tmp_path / "confirmation.json")
    assert Confirmation.load(tmp_path / "confirmation.json") == found


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 2}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "confirmation.json").write_text(text)
    with pytest.raises(ConfirmationError, match=r"confirmation\.json.*delete it"):
        Confirmation.load(tmp_path / "confirmation.json")
