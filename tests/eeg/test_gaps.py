import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.gaps import BAD, BREAK, continuous_pieces
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.eeg.recording import Recording


@given(st.lists(st.booleans(), max_size=60), st.lists(st.integers(-5, 70), max_size=5))
def test_pieces_are_all_that_is_finite_and_hold_no_break(usable: list[bool], breaks: list[int]) -> None:
    signal = np.where(usable, 1.0, np.nan)[None].repeat(2, axis=0)
    pieces = continuous_pieces(signal, [place / 200 for place in breaks], 200)
    covered = [place for begin, end in pieces for place in range(begin, end)]
    assert covered == np.flatnonzero(usable).tolist()
    for begin, end in pieces:
        assert not any(begin < place < end for place in breaks)


@pytest.mark.parametrize(
    ("text", "is_bad", "is_break"),
    [
        ("BAD_muscle", True, True),
        ("bad", True, True),
        ("BAD boundary", False, True),
        ("EDGE boundary", False, True),
        ("boundary", False, True),
        ("New Segment/", False, True),
        ("T1", False, False),
        ("edges of the bed", False, False),
    ],
)
def test_words_of_gaps(text: str, is_bad: bool, is_break: bool) -> None:
    assert (BAD.match(text) is not None, BREAK.match(text) is not None) == (is_bad, is_break)


@pytest.mark.parametrize("rate_hz", [250, 200])
def test_every_piece_is_filtered_as_if_it_were_alone(rate_hz: int) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 10, (2, 2, 10 * rate_hz)) + np.array([0, 5000])[:, None, None]
    alone = [
        preprocess(Recording(piece, rate_hz, ("FP1", "O2")), PreprocessingConfig(), 50) for piece in (first, second)
    ]
    joined = Recording(np.hstack([first, second]), rate_hz, ("FP1", "O2"), breaks_s=(10.0,))
    result = preprocess(joined, PreprocessingConfig(), 50)
    assert result.breaks_s == (10.0,)
    np.testing.assert_array_equal(result.signal, np.hstack([piece.signal for piece in alone]))


def test_short_pieces_are_given_up() -> None:
    signal = np.random.default_rng(0).normal(0, 10, (1, 2000))
    signal[0, [1000, 1100]] = np.nan
    result = preprocess(Recording(signal, 200, ("FP1",)), PreprocessingConfig(), None)
    assert np.flatnonzero(np.isnan(result.signal[0])).tolist() == list(range(1000, 1101))
