import pytest

from neurolm.config import ConfigError, build
from neurolm.eeg.mixture import MixtureConfig

SIZES = {"tuab": 800, "hmc": 150, "workload": 50}


def test_temperature_lies_between_proportional_and_even() -> None:
    assert MixtureConfig().counts(SIZES) == SIZES
    assert MixtureConfig(temperature=1e9).counts(SIZES) == {"tuab": 334, "hmc": 333, "workload": 333}
    # Square roots 28.28, 12.25 and 7.07 of 47.60.
    assert MixtureConfig(temperature=2).counts(SIZES) == {"tuab": 594, "hmc": 257, "workload": 149}


def test_weights_are_shares() -> None:
    assert MixtureConfig(weights={"tuab": 2, "hmc": 1, "workload": 1}).counts(SIZES) == {
        "tuab": 500,
        "hmc": 250,
        "workload": 250,
    }


def test_weights_name_every_data_set_and_no_other() -> None:
    with pytest.raises(ConfigError, match=r"missing: workload; not read: tuev"):
        MixtureConfig(weights={"tuab": 2, "hmc": 1, "tuev": 1}).counts(SIZES)


def test_no_data_set_is_left_out_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"data set workload has no window among the 1000"):
        MixtureConfig(weights={"tuab": 1e6, "hmc": 1e6, "workload": 1}).counts(SIZES)
    for values in ({"weights": {"tuab": 0}}, {"temperature": 0.5}, {"weights": {"tuab": 1}, "temperature": 2}):
        with pytest.raises(ConfigError):
            build(MixtureConfig, values, source="test")


def test_a_task_stands_for_its_data_set_and_a_data_set_for_itself() -> None:
    tasks = {"eyes": "clinic", "depth": "hmc", "stage": "hmc", "tuab": "tuab"}
    by_task = MixtureConfig(weights={"eyes": 1, "depth": 2, "stage": 3, "tuab": 4})
    assert by_task.by_data_set(tasks) == MixtureConfig(weights={"clinic": 1, "hmc": 5, "tuab": 4})
    same = MixtureConfig(weights={"hmc": 1, "clinic": 2})
    assert same.by_data_set(tasks) is same
    assert MixtureConfig(weights={"eyes": 1}).by_data_set({"eyes": "clinic", "other": "eyes"}).weights == {"eyes": 1}
