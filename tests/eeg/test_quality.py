"""Every flag by a case that can be checked by hand, and what must hold for any signal."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurolm.config import ConfigError, build
from neurolm.datasets.motor_imagery import MotorImagery
from neurolm.datasets.workload import Workload
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.quality import FLAGS, QualityConfig, _line_noise_share, _runs, judge, names_of, rejection
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut

CHANNELS = ("FP1", "FP2", "O1", "O2")
RATE = 200
TIMES = np.arange(20 * RATE) / RATE
ALPHA = 20 * np.sin(2 * np.pi * 9.87 * TIMES) + 5 * np.sin(2 * np.pi * 3.21 * TIMES)


def tone(frequency_hz: float, amplitude_uv: float) -> NDArray[np.float64]:
    return amplitude_uv * np.sin(2 * np.pi * frequency_hz * TIMES)


def held(signal: NDArray[np.float64], start_s: float, duration_s: float) -> NDArray[np.float64]:
    held = signal.copy()
    begin = round(start_s * RATE)
    held[begin : begin + round(duration_s * RATE)] = held[begin]
    return held


def flags_of(
    signal: NDArray[np.float64],
    *,
    filtered: NDArray[np.float64] | None = None,
    mains_hz: float | None = 50,
    window_s: float = 4,
    **thresholds: object,
) -> list[list[str]]:
    """The flags of the windows of one channel."""
    recording = Recording(signal[None], RATE, CHANNELS[:1])
    seen = signal if filtered is None else filtered
    windows = cut(Recording(seen[None].astype(np.float32), RATE, CHANNELS[:1]), duration_s=window_s, stride_s=window_s)
    config = build(QualityConfig, thresholds, source="test")
    judged = judge(recording, windows, config, window_rate_hz=RATE, mains_hz=mains_hz)
    return [sorted(names_of(int(flags[0]))) for flags in judged]


def test_good_signal_has_no_flag() -> None:
    assert flags_of(ALPHA) == [[]] * 5
    assert flags_of(ALPHA + 40_000) == [[]] * 5  # an amplifier's offset is no objection
    assert flags_of(ALPHA + 30 * TIMES) == [[]] * 5


def test_flat_is_what_moves_less_than_the_threshold() -> None:
    nearly = np.where(np.arange(len(TIMES)) % 2, 0.2, -0.2)
    assert flags_of(nearly, filtered=ALPHA) == [["flat"]] * 5
    assert flags_of(nearly * 2, filtered=ALPHA) == [[]] * 5
    assert flags_of(nearly, filtered=ALPHA, flat_uv=0.39) == [[]] * 5
    assert flags_of(np.zeros_like(TIMES)) == [["flat", "too_small"]] * 5  # not also clipped or a gap


def test_clipped_is_a_share_of_the_window_at_the_recordings_extremes() -> None:
    assert flags_of(np.clip(3 * ALPHA, -50, 50)) == [["clipped"]] * 5
    assert flags_of(np.clip(3 * ALPHA, -50, np.inf)) == [["clipped"]] * 5
    peaks = ALPHA.copy()
    peaks[100:108] = 100  # 8 of the 800 time points of the first window: 1 %
    assert flags_of(peaks) == [["clipped"], [], [], [], []]
    peaks[107] = 99
    assert flags_of(peaks) == [[]] * 5
    pairs = ALPHA.copy()
    pairs[np.r_[0:800:4, 1:800:4]] = 100  # half of the window, but never three in a row
    assert flags_of(pairs, mains_hz=None) == [[]] * 5


def test_line_noise_is_a_share_of_the_power_as_recorded() -> None:
    for other, expected in ((9.8, []), (10.2, ["line_noise"])):  # power goes with the square: half at 10
        assert flags_of(tone(10, 10) + tone(50, other), filtered=ALPHA) == [expected] * 5
    both = tone(10, 10) + tone(30, 8) + tone(60, 8)
    assert flags_of(both, filtered=ALPHA, mains_hz=30) == [["line_noise"]] * 5  # 60 Hz is a harmonic of 30 Hz
    assert flags_of(both, filtered=ALPHA, mains_hz=60) == [[]] * 5
    assert flags_of(tone(50, 10), filtered=ALPHA, mains_hz=None) == [[]] * 5
    assert flags_of(tone(50, 10), filtered=ALPHA, mains_hz=100) == [[]] * 5  # at the Nyquist frequency: unjudged
    assert (
        flags_of(tone(50.4, 12) + tone(10, 10) + 200 * TIMES, filtered=ALPHA) == [["line_noise"]] * 5
    )  # no drift hides it


def test_amplitude_is_judged_on_the_filtered_window() -> None:
    assert flags_of(ALPHA, filtered=tone(10, 401)) == [["too_large"]] * 5
    assert flags_of(ALPHA, filtered=tone(10, 399)) == [[]] * 5
    assert flags_of(ALPHA, filtered=tone(10, 1.4)) == [["too_small"]] * 5
    assert flags_of(1000 * ALPHA, filtered=ALPHA) == [[]] * 5


def test_gap_is_a_value_held_or_missing() -> None:
    assert flags_of(held(ALPHA, 5, 0.1)) == [[], ["gap"], [], [], []]
    assert flags_of(held(ALPHA, 5, 0.09)) == [[]] * 5
    assert flags_of(held(ALPHA, 7.9, 0.2)) == [[], ["gap"], ["gap"], [], []]
    for value in (np.nan, np.inf):
        missing = ALPHA.copy()
        missing[1000] = value
        assert flags_of(missing, filtered=ALPHA) == [[], ["gap"], [], [], []]
    top = ALPHA.copy()
    top[1000:1040] = 100
    assert flags_of(top) == [[], ["clipped"], [], [], []]  # held at the extreme is clipped, not a gap


def test_windows_are_found_in_a_recording_of_another_rate() -> None:
    times = np.arange(20 * 500) / 500
    raw = np.stack([20 * np.sin(2 * np.pi * 9.87 * times), 20 * np.sin(2 * np.pi * 3.21 * times)])
    raw[1, 2600:2660] = raw[1, 2600]  # 5.2 to 5.32 s
    windows = cut(Recording(np.stack([ALPHA, ALPHA]), RATE, CHANNELS[:2]), duration_s=2, stride_s=1)
    flags = judge(Recording(raw, 500, CHANNELS[:2]), windows, QualityConfig(), window_rate_hz=RATE, mains_hz=60)
    starts = [window.start_s for window, found in zip(windows, flags, strict=True) if list(found) == [0, FLAGS["gap"]]]
    assert starts == [4, 5]


def test_no_windows_no_flags() -> None:
    recording = Recording(ALPHA[None], RATE, CHANNELS[:1])
    assert list(judge(recording, [], QualityConfig(), window_rate_hz=RATE, mains_hz=50)) == []


def test_bits_are_distinct_and_fit_a_byte() -> None:
    assert list(FLAGS) == ["flat", "clipped", "line_noise", "too_large", "too_small", "gap"]
    assert list(FLAGS.values()) == [1, 2, 4, 8, 16, 32]
    assert names_of(37) == ["flat", "line_noise", "gap"]


def test_flags_drop_a_window_only_if_the_config_says_so() -> None:
    flags = np.array([1, 3, 0, 4], dtype=np.uint8)
    assert rejection(flags, QualityConfig()) is None
    assert rejection(flags, QualityConfig(reject=("flat",))) == "too many bad channels (flat)"
    assert rejection(flags, QualityConfig(reject=("clipped", "flat"))) == "too many bad channels (flat, clipped)"
    assert rejection(flags, QualityConfig(reject=("line_noise",))) is None  # one of four channels
    assert rejection(flags, QualityConfig(reject=("line_noise",), reject_share=0.25)) is not None
    assert rejection(flags, QualityConfig(reject=("gap",))) is None


def test_a_misspelt_flag_is_refused() -> None:
    assert build(QualityConfig, {"reject": ["flat", "gap"]}, source="data.yaml").reject == ("flat", "gap")
    with pytest.raises(ConfigError, match=r"data\.yaml: reject\.0: Input should be 'flat', 'clipped'.*found 'flt'"):
        build(QualityConfig, {"reject": ["flt"]}, source="data.yaml")


small_signals = st.lists(
    st.lists(st.integers(-2, 2), min_size=12, max_size=12), min_size=1, max_size=4
).map(lambda rows: np.array(rows, dtype=np.float64))  # fmt: skip


@given(signal=small_signals, gap_run=st.integers(3, 6))
def test_runs_are_those_that_are_found_one_by_one(signal: NDArray[np.float64], gap_run: int) -> None:
    low, high = signal.min(axis=1), signal.max(axis=1)
    clipped, is_held = _runs(signal, low, high, gap_run)
    for place, row in enumerate(signal):
        runs = [(value, len(list(run))) for value, run in groupby(row)]
        at_extreme = [length for value, length in runs if value in (low[place], high[place])]
        others = [length for value, length in runs if value not in (low[place], high[place])]
        assert clipped[place] * 12 == pytest.approx(sum(length for length in at_extreme if length >= 3))
        assert is_held[place] == any(length >= gap_run for length in others)


@given(
    seed=st.integers(0, 2**32 - 1),
    num_times=st.integers(200, 3000),
    rate_hz=st.sampled_from([100.0, 128.0, 160.0, 500.0]),
    scale=st.floats(1e-2, 1e3),
)
def test_share_of_line_noise_is_a_share_and_knows_no_unit(
    seed: int, num_times: int, rate_hz: float, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, 10, (3, num_times))
    signal[1] += 100 * np.sin(2 * np.pi * 45 * np.arange(num_times) / rate_hz)
    share = _line_noise_share(signal, rate_hz, 45.0)
    assert ((share >= 0) & (share <= 1 + 1e-6)).all()
    is_judged = 45 + max(1, 2 * rate_hz / num_times) < rate_hz / 2
    assert (share[1] > 0.9) == is_judged
    np.testing.assert_allclose(_line_noise_share(scale * signal, rate_hz, 45.0), share, rtol=1e-3, atol=1e-6)


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_a_channel_is_judged_by_itself(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = [ALPHA, np.clip(3 * ALPHA, -50, 50), held(ALPHA, rng.uniform(0, 19), 0.5), np.full_like(ALPHA, 3.0)]
    signal = np.stack(rows) + rng.normal(0, 1000, (4, 1))
    recording = Recording(signal, RATE, CHANNELS)
    windows = cut(Recording(signal.astype(np.float32), RATE, CHANNELS), duration_s=2, stride_s=1)
    shuffled = Recording(signal[order], RATE, tuple(CHANNELS[place] for place in order))
    moved = [Window(window.signal[order], (), window.start_s, None) for window in reversed(windows)]
    first = judge(recording, windows, QualityConfig(), window_rate_hz=RATE, mains_hz=50)
    other = judge(shuffled, moved, QualityConfig(), window_rate_hz=RATE, mains_hz=50)
    for found, expected in zip(reversed(list(other)), first, strict=True):
        np.testing.assert_array_equal(found, expected[order])


def test_eegmat_ends_in_a_second_that_was_never_recorded(test_data: Path) -> None:
    """The last data record of its files is filled up with the last value."""
    workload = Workload()
    for source in workload.find(test_data / "eegmat")[:4]:
        recording = workload.read(source)
        windows, _ = workload.windows(source, preprocess(recording, PreprocessingConfig(), workload.mains_hz))
        judged = list(judge(recording, windows, QualityConfig(), window_rate_hz=200, mains_hz=workload.mains_hz))
        assert (judged[-1] == FLAGS["gap"]).all()
        assert not np.any(judged[:-1])


def test_eegmmidb_has_electrodes_with_more_mains_than_brain(test_data: Path) -> None:
    motor = MotorImagery()
    sources = {source.recording: source for source in motor.find(test_data / "eegmmidb")}
    found = np.zeros(len(motor.channels), dtype=np.uint8)
    for name in ("S001/S001R04.edf", "S015/S015R04.edf", "S042/S042R04.edf"):
        recording = motor.read(sources[name])
        windows, _ = motor.windows(sources[name], preprocess(recording, PreprocessingConfig(), motor.mains_hz))
        for flags in judge(recording, windows, QualityConfig(), window_rate_hz=200, mains_hz=motor.mains_hz):
            found |= flags
    assert (found & FLAGS["line_noise"]).any()
    assert not (found & (FLAGS["flat"] | FLAGS["too_small"])).any()
