"""Which trials are stopped where, checked by hand."""

from neurolm.distributed.pruning import PruningConfig, look_budgets, looks_of, value_at, verdict

ASHA = PruningConfig(kind="asha", grace=0.25, reduction_factor=2)
MEDIAN = PruningConfig(kind="median", grace=0.5, min_trials=3)


def test_looks_lie_at_budgets() -> None:
    assert look_budgets(ASHA, 1000, 100) == [250, 500]
    assert look_budgets(PruningConfig(grace=0.1, reduction_factor=3), 900, 100) == [90, 270, 810]
    assert look_budgets(PruningConfig(grace=1.0), 900, 100) == []
    assert look_budgets(MEDIAN, 1000, 125) == [500, 625, 750, 875]
    assert look_budgets(MEDIAN, 1001.2, 250.3) == [500, 750]  # whole tokens, so that no validation falls just short
    assert look_budgets(PruningConfig(kind="none"), 1000, 100) == []


def test_a_value_is_the_best_up_to_the_first_validation_there() -> None:
    curve = [(100, 0.5), (210, 0.7), (300, 0.6)]
    assert value_at(curve, 100) == 0.5
    assert value_at(curve, 101) == 0.7  # of the first validation past it
    assert value_at(curve, 300) == 0.7
    assert value_at(curve, 301) is None
    assert looks_of([100, 200, 400], curve) == [(100, 0.5), (200, 0.7)]


def test_asha_keeps_one_in_two() -> None:
    """Six trials come to the look at 250 in this order; of n so far, the better ceil(n / 2) go on."""
    arrivals = [
        (0.50, True),  # alone
        (0.40, False),  # 1 of 2 goes on, and one is better
        (0.45, True),  # 2 of 3 go on, one is better
        (0.60, True),  # the best
        (0.45, True),  # 3 of 5 go on, two are better
        (0.42, False),  # 3 of 6 go on, four are better
    ]
    curves: list[list[tuple[float, float]]] = []
    for value, goes_on in arrivals:
        curve = [(250.0, value)]
        assert (verdict(ASHA, [250, 500], curve, curves) is None) == goes_on
        curves.append(curve)
    reason = verdict(ASHA, [250, 500], [(250, 0.41)], curves)
    assert reason == "ASHA stopped it: 5 of 7 are better, the best 4 go on at 250 instruction tokens"


def test_a_look_is_taken_once_when_the_trial_gets_there() -> None:
    others = [[(250.0, 0.9), (500.0, 0.9)]]
    assert verdict(ASHA, [250, 500], [(120, 0.1)], others) is None  # not there yet
    assert verdict(ASHA, [250, 500], [(120, 0.1), (260, 0.2)], others) is not None
    assert verdict(ASHA, [250, 500], [(260, 0.2), (370, 0.2)], others) is None  # it was looked at before
    assert verdict(ASHA, [250, 500], [(260, 0.2), (520, 0.95)], others) is None
    jump = verdict(ASHA, [250, 500], [(600, 0.2)], [[(250, 0.1)], [(500, 0.5)]])  # both looks at one validation
    assert jump is not None and jump.endswith("at 500 instruction tokens")


def test_who_did_not_get_there_is_no_rival() -> None:
    assert verdict(ASHA, [250, 500], [(500, 0.2)], [[(250, 0.1)], [(250, 0.15)]]) is None


def test_other_budgets_are_not_compared() -> None:
    """A trial of smaller batches validates at other steps, but at the same tokens."""
    early = [(250.0, 0.5), (500.0, 0.8)]
    assert verdict(ASHA, [250], [(251, 0.51)], [early]) is None  # better than 0.5, though worse than 0.8


def test_the_median_rule() -> None:
    others = [[(500.0, value)] for value in (0.3, 0.5, 0.7)]
    assert verdict(MEDIAN, [500], [(500, 0.49)], others[:2]) is None  # too few
    assert verdict(MEDIAN, [500], [(500, 0.49)], others) == (
        "median rule stopped it: worse than the median of 3 others at 500 instruction tokens"
    )
    assert verdict(MEDIAN, [500], [(500, 0.5)], others) is None
    assert verdict(MEDIAN, [500], [(250, 0.6), (500, 0.2)], others) is None  # its best counts, as it is what is kept


def test_rules_in_words() -> None:
    assert ASHA.describe([2500, 5000]) == "ASHA: 1 in 2 goes on at 2,500, 5,000 instruction tokens"
    assert MEDIAN.describe([500]) == "median rule from 500 instruction tokens on, among 3 or more others"
    assert PruningConfig(kind="none").describe([]) == "no trial is stopped early"
