"""The paper's preprocessing: band-pass, notch and resampling of a whole recording, in the released code's order."""

import warnings
from collections.abc import Iterator
from dataclasses import replace

import mne
import numpy as np
from numpy.typing import NDArray

from neurolm.config import config
from neurolm.eeg.gaps import MIN_PIECE_S, continuous_pieces
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.resampling import resample, resampled_size
from neurolm.eeg.scratch import ScratchArray, release

GROUP_BYTES = 64 * 2**20
"""Channels are filtered together up to this size; filters are designed once a group."""


@config
class PreprocessingConfig:
    """How every recording is filtered before it is cut into windows."""

    low_hz: float = 0.1
    """Lower edge of the band-pass in Hz (paper: 0.1)."""
    high_hz: float = 75.0
    """Upper edge of the band-pass in Hz (paper: 75); not applied where it is not below the Nyquist frequency."""
    sampling_rate_hz: float = 200.0
    """Rate after resampling in Hz; the model's patches are 200 time points (paper: 200)."""


def preprocess(recording: Recording, config: PreprocessingConfig, mains_hz: float | None) -> Recording:
    """Band-pass at the native rate, notch at ``mains_hz``, then resample; float32 µV.

    Channels are filtered a few at a time, which changes no value: what a day of many channels needs in memory is about
    six copies of one channel in float64, and its result lies on disk (`scratch.ScratchArray`).

    Filters are MNE's default zero-phase FIR ("firwin", Hamming) and the resampler MNE's FFT resampler, as in the
    released data makers. A notch at or above the Nyquist frequency has nothing to remove and is left out. A recording
    that is preprocessed already comes back unfiltered.

    A recording with gaps or breaks is filtered piece by piece, so that no filter runs across one; what lies between the
    pieces, and pieces shorter than `MIN_PIECE_S`, are NaN.

    Raises:
        RecordingError: the recording is too slow for the band (Nyquist frequency at or below ``low_hz``), or was
            preprocessed to another rate.
    """
    if recording.is_preprocessed:
        if recording.sampling_rate_hz != config.sampling_rate_hz:
            raise RecordingError(
                f"preprocessed before to {recording.sampling_rate_hz:g} Hz, expected {config.sampling_rate_hz:g} Hz"
            )
        return replace(recording, signal=recording.signal.astype(np.float32))
    nyquist_hz = recording.sampling_rate_hz / 2
    if nyquist_hz <= config.low_hz:
        raise RecordingError(
            f"a sampling rate of {recording.sampling_rate_hz:g} Hz is too low for {config.low_hz:g} Hz"
        )
    pieces = continuous_pieces(recording.signal, recording.breaks_s, recording.sampling_rate_hz)
    if pieces != [(0, recording.signal.shape[1])]:
        return _preprocess_pieces(recording, pieces, config, mains_hz)
    num_times = resampled_size(recording.signal.shape[1], recording.sampling_rate_hz, config.sampling_rate_hz)
    result = ScratchArray(len(recording.channels), num_times, np.float32)
    group_size = max(1, GROUP_BYTES // (8 * recording.signal.shape[1]))
    for first in range(0, len(recording.channels), group_size):
        group = np.array(recording.signal[first : first + group_size], dtype=np.float64)
        release(recording.signal)
        for row, channel in enumerate(_filtered(group, recording.sampling_rate_hz, config, mains_hz)):
            result.write(first + row, 0, channel[np.newaxis])
    return replace(recording, signal=result.array(), sampling_rate_hz=config.sampling_rate_hz)


def _preprocess_pieces(
    recording: Recording, pieces: list[tuple[int, int]], config: PreprocessingConfig, mains_hz: float | None
) -> Recording:
    ratio = config.sampling_rate_hz / recording.sampling_rate_hz
    num_times = round(recording.signal.shape[1] * ratio)
    result = ScratchArray(len(recording.channels), num_times, np.float32)
    for row in range(len(recording.channels)):
        result.write(row, 0, np.full((1, num_times), np.nan, np.float32))
    for begin, end in pieces:
        if end - begin < MIN_PIECE_S * recording.sampling_rate_hz:
            continue
        piece = replace(recording, signal=recording.signal[:, begin:end], breaks_s=())
        filtered = preprocess(piece, config, mains_hz).signal
        first = round(begin * ratio)
        last = min(first + filtered.shape[1], round(end * ratio))
        result.write(0, first, filtered[:, : last - first])
    return replace(recording, signal=result.array(), sampling_rate_hz=config.sampling_rate_hz)


def _filtered(
    group: NDArray[np.float64], rate_hz: float, config: PreprocessingConfig, mains_hz: float | None
) -> Iterator[NDArray[np.float64]]:
    """Each channel of a group, filtered in place and at its new rate."""
    nyquist_hz = rate_hz / 2
    with warnings.catch_warnings():
        # A 0.1-Hz filter is 33 s long; on a shorter recording MNE warns and filters all the same, as the released code.
        warnings.filterwarnings("ignore", message=r"filter_length \(\d+\) is longer than the signal")
        high_hz = config.high_hz if config.high_hz < nyquist_hz else None
        mne.filter.filter_data(group, rate_hz, config.low_hz, high_hz, copy=False, verbose="WARNING")
        if mains_hz is not None and mains_hz + 1 < nyquist_hz:
            mne.filter.notch_filter(group, rate_hz, mains_hz, copy=False, verbose="WARNING")
    for channel in group:
        yield resample(channel, rate_hz, config.sampling_rate_hz)
