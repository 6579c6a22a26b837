from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut, unusable


def ramp(num_times: int, rate_hz: float = 200) -> Recording:
    times = np.arange(num_times, dtype=np.float32)
    return Recording(np.stack([times, -times]), rate_hz, ("FP1", "O2"))


def test_windows_hold_the_right_times_in_the_right_order() -> None:
    windows = cut(ramp(2000), duration_s=4, stride_s=2, start_s=1, label="rest")
    assert [window.start_s for window in windows] == [1, 3, 5]
    for window in windows:
        assert window.signal.shape == (2, 800)
        assert window.signal.dtype == np.float32
        assert window.signal[0, 0] == window.start_s * 200
        assert window.channel_indices == (0, 82)
        assert window.label == "rest"


def test_stop_and_short_rest() -> None:
    assert len(cut(ramp(2000), duration_s=4, stride_s=4)) == 2
    assert len(cut(ramp(2000), duration_s=4, stride_s=4, stop_s=7.9)) == 1
    assert cut(ramp(700), duration_s=4, stride_s=4) == []


@given(
    num_times=st.integers(0, 3000), duration_s=st.integers(1, 5), stride_s=st.integers(1, 5), start_s=st.integers(0, 5)
)
def test_every_window_is_whole_and_none_is_missing(
    num_times: int, duration_s: int, stride_s: int, start_s: int
) -> None:
    windows = cut(ramp(num_times), duration_s=duration_s, stride_s=stride_s, start_s=start_s)
    expected = [start for start in range(start_s, 20, stride_s) if (start + duration_s) * 200 <= num_times]
    assert [window.start_s for window in windows] == expected
    assert all(window.signal.shape == (2, duration_s * 200) for window in windows)


def test_no_window_crosses_a_break() -> None:
    recording = replace(ramp(2000), breaks_s=(4.0, 7.1))
    windows = cut(recording, duration_s=2, stride_s=1)
    assert [window.start_s for window in windows if unusable(window)] == [3, 6, 7]
    assert [window.start_s for window in windows if unusable(window) is None] == [0, 1, 2, 4, 5, 8]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="time point"):
        cut(ramp(2000), duration_s=4, stride_s=0)
    with pytest.raises(ValueError, match="begin"):
        cut(ramp(2000), duration_s=4, stride_s=1, start_s=-1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda signal: None, None),
        (lambda signal: signal.__setitem__((0, 5), np.nan), "not finite"),
        (lambda signal: signal.__setitem__((1, 7), np.inf), "not finite"),
        (lambda signal: signal.__setitem__(0, 3.0), None),  # one flat channel can be trained on
        (lambda signal: signal.__setitem__(slice(None), [[3.0], [4.0]]), "constant"),
    ],
)
def test_unusable(change, reason: str | None) -> None:  # type: ignore[no-untyped-def]
    signal = np.random.default_rng(0).normal(0, 10, (2, 800)).astype(np.float32)
    change(signal)
    assert unusable(Window(signal, (0, 1), 0.0, None)) == reason
