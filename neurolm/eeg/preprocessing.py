"""The paper's preprocessing: band-pass, notch and resampling of a whole recording, in the released code's order."""

import warnings
from dataclasses import replace

import mne
import numpy as np

from neurolm.config import config
from neurolm.eeg.recording import Recording, RecordingError


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
    released data makers. A notch at or above the Nyquist frequency has nothing to remove and is left out. Values that
    are not finite are bridged, so that no filter spreads them, and are NaN again in the result.

    Raises:
        RecordingError: the recording is too slow for the band (Nyquist frequency at or below ``low_hz``).
    """
    nyquist_hz = recording.sampling_rate_hz / 2
    if nyquist_hz <= config.low_hz:
        raise RecordingError(
            f"a sampling rate of {recording.sampling_rate_hz:g} Hz is too low for {config.low_hz:g} Hz"
        )
    info = mne.create_info(len(recording.channels), recording.sampling_rate_hz, "eeg", verbose="WARNING")
    raw = mne.io.RawArray(np.array(bridged(recording).signal, dtype=np.float64), info, verbose="WARNING")
    with warnings.catch_warnings():
        # A 0.1-Hz filter is 33 s long; on a shorter recording MNE warns and filters all the same, as the released code.
        warnings.filterwarnings("ignore", message=r"filter_length \(\d+\) is longer than the signal")
        high_hz = config.high_hz if config.high_hz < nyquist_hz else None
        raw.filter(config.low_hz, high_hz, verbose="WARNING")
        if mains_hz is not None and mains_hz + 1 < nyquist_hz:
            raw.notch_filter(mains_hz, verbose="WARNING")
    if recording.sampling_rate_hz != config.sampling_rate_hz:
        raw.resample(config.sampling_rate_hz, verbose="WARNING")
    signal = raw.get_data(verbose="WARNING").astype(np.float32)
    channels, times = np.nonzero(~np.isfinite(recording.signal))
    places = np.round(times * (config.sampling_rate_hz / recording.sampling_rate_hz)).astype(np.int64)
    signal[channels, np.minimum(places, signal.shape[1] - 1)] = np.nan
    return Recording(
        signal=signal,
        sampling_rate_hz=config.sampling_rate_hz,
        channels=recording.channels,
        annotations=recording.annotations,
        left_out=recording.left_out,
    )


def bridged(recording: Recording) -> Recording:
    """The recording with straight lines over values that are not finite; 0 µV in a channel that has no others."""
    missing = ~np.isfinite(recording.signal)
    if not missing.any():
        return recording
    signal = np.array(recording.signal)
    times = np.arange(signal.shape[1])
    for channel, gap in zip(signal, missing, strict=True):
        channel[gap] = 0.0 if gap.all() else np.interp(times[gap], times[~gap], channel[~gap])
    return replace(recording, signal=signal)
