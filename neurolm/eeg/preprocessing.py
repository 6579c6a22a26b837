"""The paper's preprocessing: band-pass, notch and resampling of a whole recording, in the released code's order."""

from dataclasses import replace

import numpy as np

from neurolm.config import config
from neurolm.eeg.filtering import band_pass, filtered, notch
from neurolm.eeg.gaps import MIN_PIECE_S, continuous_pieces
from neurolm.eeg.recording import Recording, RecordingError
from neurolm.eeg.resampling import resample, resampled_size
from neurolm.eeg.scratch import ScratchArray, release


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

    Filters are MNE's default zero-phase FIR ("firwin", Hamming) and the resampler MNE's FFT resampler, as in the
    released data makers, value for value. A notch at or above the Nyquist frequency has nothing to remove and is left
    out. A recording that is shorter than a filter (0.1 Hz: 33 s) is filtered all the same, as in the released code; one
    that is preprocessed already comes back unfiltered.

    One channel after another, so that a day of many channels takes memory for one; its result lies on disk
    (`scratch.ScratchArray`).

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
    rate_hz = recording.sampling_rate_hz
    filters = [band_pass(rate_hz, config.low_hz, config.high_hz if config.high_hz < nyquist_hz else None)]
    if mains_hz is not None and mains_hz + 1 < nyquist_hz:
        filters.append(notch(rate_hz, mains_hz))
    num_times = resampled_size(recording.signal.shape[1], rate_hz, config.sampling_rate_hz)
    result = ScratchArray(len(recording.channels), num_times, np.float32)
    for row in range(len(recording.channels)):
        channel = np.asarray(recording.signal[row], dtype=np.float64)
        for taps in filters:
            channel = filtered(taps, channel)
        release(recording.signal)
        result.write(row, 0, resample(channel, rate_hz, config.sampling_rate_hz)[np.newaxis])
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
        signal = preprocess(piece, config, mains_hz).signal
        first = round(begin * ratio)
        last = min(first + signal.shape[1], round(end * ratio))
        result.write(0, first, signal[:, : last - first])
    return replace(recording, signal=result.array(), sampling_rate_hz=config.sampling_rate_hz)
