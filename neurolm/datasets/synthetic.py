"""Invented recordings with learnable classes, written as real EDF files in the published sets' layouts.

The demo and the tests read them by exactly the code path of real recordings. A recording is 1/f background plus
rhythms, each with its own scalp topography; classes change the strength of rhythms, subjects differ in everything:
amplitude, peak frequency, slope of the background, and how strongly a class shows.
"""

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurolm.config import UserError
from neurolm.datasets.hmc import HMC
from neurolm.datasets.workload import Workload
from neurolm.eeg.channels import canonical_name

Signal = NDArray[np.float64]

GENERATOR_VERSION = 1
MARKER = ".synthetic.json"
WORKLOAD_RATE_HZ, WORKLOAD_S = 500, 62
SLEEP_RATE_HZ, EPOCH_S, EPOCHS_PER_STAGE = 256, 30, 4
PHYSICAL_RANGE_UV = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Rhythm:
    """A narrow band of activity and where on the scalp it is strong."""

    peak_hz: float
    width_hz: float
    topography: Mapping[str, float]
    """Relative amplitude by the letters of an electrode's name; "" is everywhere else."""


POSTERIOR = {"O": 1.0, "P": 0.8, "T": 0.5, "C": 0.4, "": 0.2}
FRONTAL = {"F": 1.0, "FP": 0.7, "C": 0.6, "": 0.2}
EVERYWHERE = {"": 1.0}

WORKLOAD_RHYTHMS = {
    "theta": Rhythm(6.0, 1.0, FRONTAL),
    "alpha": Rhythm(10.0, 1.0, POSTERIOR),
    "beta": Rhythm(20.0, 4.0, {"F": 1.0, "C": 1.0, "T": 0.8, "": 0.5}),
}
WORKLOAD_UV = {"background": 7.0, "theta": 3.0, "alpha": 8.0, "beta": 2.5}
"""Typical amplitudes (standard deviations in µV) at rest."""
ARITHMETIC = {"background": (1.0, 1.0), "theta": (1.5, 2.4), "alpha": (0.3, 0.6), "beta": (1.2, 1.7)}
"""By what arithmetic multiplies an amplitude; every subject draws a factor from this range."""

SLEEP_RHYTHMS = {
    "delta": Rhythm(1.3, 0.6, {"F": 1.0, "C": 0.9, "O": 0.7, "": 0.7}),
    "theta": Rhythm(5.5, 1.0, EVERYWHERE),
    "alpha": Rhythm(10.0, 0.9, POSTERIOR),
    "sigma": Rhythm(13.5, 0.7, {"C": 1.0, "F": 0.8, "O": 0.4, "": 0.4}),
    "beta": Rhythm(21.0, 4.0, {"F": 1.0, "C": 0.9, "O": 0.7, "": 0.7}),
}
SLEEP_UV = {
    "W": {"background": 7.0, "delta": 4.0, "theta": 4.0, "alpha": 14.0, "sigma": 1.5, "beta": 5.0},
    "N1": {"background": 7.0, "delta": 6.0, "theta": 10.0, "alpha": 4.0, "sigma": 1.5, "beta": 2.5},
    "N2": {"background": 7.0, "delta": 13.0, "theta": 8.0, "alpha": 2.5, "sigma": 9.0, "beta": 1.5},
    "N3": {"background": 8.0, "delta": 38.0, "theta": 8.0, "alpha": 2.0, "sigma": 3.0, "beta": 1.0},
    "R": {"background": 7.0, "delta": 4.0, "theta": 6.0, "alpha": 3.0, "sigma": 1.0, "beta": 5.0},
}


def write_demo_recordings(root: Path, *, num_subjects: int, seed: int = 0) -> None:
    """Write ``root/workload`` (eegmat's layout) and ``root/sleep`` (HMC's layout) with ``num_subjects`` each.

    One more workload file, ``Subject00_1.edf``, is cut off in the middle, as interrupted copies are. A finished folder
    of the same numbers is left as it is; one of other numbers, or an unfinished one, is written anew.

    Raises:
        UserError: the folder holds something else, or edfio is not installed.
    """
    wanted = {"generator": GENERATOR_VERSION, "num_subjects": num_subjects, "seed": seed}
    marker = root / MARKER
    if marker.exists() and json.loads(marker.read_text()) == wanted | {"finished": True}:
        return
    folders = [root / "workload", root / "sleep"]
    if not marker.exists() and any(folder.exists() for folder in folders):
        raise UserError(f"{root}: holds recordings that are not synthetic; choose another folder for the demo")
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(wanted | {"finished": False}))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    workload, recordings = folders[0], folders[1] / "recordings"
    workload.mkdir()
    recordings.mkdir(parents=True)
    for subject in range(1, num_subjects + 1):
        _write_workload_subject(workload, subject, np.random.default_rng([seed, 0, subject]))
        _write_sleep_subject(recordings, subject, np.random.default_rng([seed, 1, subject]))
    whole = (workload / "Subject01_1.edf").read_bytes()
    (workload / "Subject00_1.edf").write_bytes(whole[: len(whole) // 2])
    marker.write_text(json.dumps(wanted | {"finished": True}))


def _write_workload_subject(folder: Path, number: int, rng: np.random.Generator) -> None:
    channels = Workload().channels
    brain = _Subject(rng, WORKLOAD_RHYTHMS, channels, WORKLOAD_RATE_HZ)
    at_rest = {name: amplitude * _lognormal(rng, 0.2) for name, amplitude in WORKLOAD_UV.items()}
    effect = {name: rng.uniform(*factors) for name, factors in ARITHMETIC.items()}
    num_times = WORKLOAD_RATE_HZ * WORKLOAD_S
    for suffix, factors in (("1", dict.fromkeys(effect, 1.0)), ("2", effect)):
        amplitudes = {name: np.full(num_times, at_rest[name] * factors[name]) for name in at_rest}
        eeg = brain.signal(amplitudes, num_times)
        others = {
            "EEG A2-A1": _coloured(rng, (num_times,), WORKLOAD_RATE_HZ, 1.0) * 4,
            "ECG ECG": _heartbeats(rng, num_times, WORKLOAD_RATE_HZ),
        }
        _write_edf(folder / f"Subject{number:02d}_{suffix}.edf", dict(zip(channels, eeg, strict=True)) | others, 500)


def _write_sleep_subject(folder: Path, number: int, rng: np.random.Generator) -> None:
    channels = HMC().channels
    brain = _Subject(rng, SLEEP_RHYTHMS, channels, SLEEP_RATE_HZ)
    stages = _hypnogram(rng)
    epoch_times = SLEEP_RATE_HZ * EPOCH_S
    num_times = epoch_times * len(stages)
    amplitudes = {}
    for name in SLEEP_UV["W"]:
        own = _lognormal(rng, 0.2)
        steps = np.repeat([SLEEP_UV[stage][name] * own * _lognormal(rng, 0.15) for stage in stages], epoch_times)
        amplitudes[name] = steps
    eeg = brain.signal(amplitudes, num_times)
    muscle = np.repeat([{"W": 12.0, "R": 1.5}.get(stage, 5.0) for stage in stages], epoch_times)
    eyes = _coloured(rng, (num_times,), SLEEP_RATE_HZ, 1.5) * 15
    others = {
        "EMG chin": muscle * rng.normal(size=num_times),
        "EOG E1-M2": eyes + rng.normal(0, 3, num_times),
        "EOG E2-M2": -eyes + rng.normal(0, 3, num_times),
        "ECG": _heartbeats(rng, num_times, SLEEP_RATE_HZ),
    }
    name = f"SN{number:03d}"
    _write_edf(folder / f"{name}.edf", dict(zip(channels, eeg, strict=True)) | others, SLEEP_RATE_HZ)
    rows = ["Date, Time, Recording onset, Duration, Annotation, Linked channel"]
    rows.append("2000-01-01, 00:00:00, 0, 0, Lights off@@EEG F4-A1,")
    for place, stage in enumerate(stages):
        minutes, seconds = divmod(EPOCH_S * place, 60)
        rows.append(f"2000-01-01, 00:{minutes:02d}:{seconds:02d}, {EPOCH_S * place}, {EPOCH_S}, Sleep stage {stage},")
    (folder / f"{name}_sleepscoring.txt").write_text("\n".join(rows) + "\n")


class _Subject:
    """One head: fixed topographies, peaks and background; draws any number of signals."""

    def __init__(
        self, rng: np.random.Generator, rhythms: Mapping[str, Rhythm], channels: Sequence[str], rate_hz: float
    ) -> None:
        self._rng, self._rate_hz = rng, rate_hz
        self._slope = rng.normal(1.1, 0.12)
        self._gain = _lognormal(rng, 0.15) * np.array([_lognormal(rng, 0.1) for _ in channels])
        self._rhythms = {}
        for name, rhythm in rhythms.items():
            peak_hz = rhythm.peak_hz * _lognormal(rng, 0.06)
            strength = np.array([_at(rhythm.topography, channel) for channel in channels])
            # Two sources seen by all channels with varying sign and size, as fields of real sources are.
            mixing = rng.normal(1.0, 0.4, (2, len(channels))) * strength / np.sqrt(2)
            self._rhythms[name] = (peak_hz, rhythm.width_hz, mixing)

    def signal(self, amplitudes: Mapping[str, Signal], num_times: int) -> Signal:
        """[channels times] in µV, with the amplitudes over time of the background and of every rhythm."""
        rng, num_channels = self._rng, len(self._gain)
        common = _coloured(rng, (1, num_times), self._rate_hz, self._slope)
        own = _coloured(rng, (num_channels, num_times), self._rate_hz, self._slope)
        signal = amplitudes["background"] * (0.6 * common + 0.8 * own)
        for name, (peak_hz, width_hz, mixing) in self._rhythms.items():
            sources = _narrow(rng, (len(mixing), num_times), self._rate_hz, peak_hz, width_hz)
            waxing = np.exp(0.25 * _narrow(rng, (num_times,), self._rate_hz, 0.1, 0.1))
            signal += amplitudes[name] * waxing * (mixing.T @ sources)
        signal += rng.normal(0, 0.7, signal.shape)  # amplifier
        mains = np.sin(2 * np.pi * 50 * np.arange(num_times) / self._rate_hz)
        return np.asarray(self._gain[:, None] * signal + rng.uniform(0, 4, (num_channels, 1)) * mains)


def _at(topography: Mapping[str, float], channel: str) -> float:
    letters = canonical_name(channel).rstrip("0123456789Z")
    return topography.get(letters, topography.get(letters[:1], topography[""]))


def _coloured(rng: np.random.Generator, shape: tuple[int, ...], rate_hz: float, slope: float) -> Signal:
    """Noise of unit variance whose power falls as 1/f^slope above 0.5 Hz."""
    frequencies = np.fft.rfftfreq(shape[-1], 1 / rate_hz)
    return _shaped(rng, shape, np.maximum(frequencies, 0.5) ** (-slope / 2))


def _narrow(
    rng: np.random.Generator, shape: tuple[int, ...], rate_hz: float, peak_hz: float, width_hz: float
) -> Signal:
    """Noise of unit variance in a Gaussian band."""
    frequencies = np.fft.rfftfreq(shape[-1], 1 / rate_hz)
    return _shaped(rng, shape, np.exp(-0.5 * ((frequencies - peak_hz) / width_hz) ** 2))


def _shaped(rng: np.random.Generator, shape: tuple[int, ...], gain: Signal) -> Signal:
    signal = np.fft.irfft(np.fft.rfft(rng.normal(size=shape)) * gain, n=shape[-1])
    return np.asarray(signal / signal.std(axis=-1, keepdims=True))


def _heartbeats(rng: np.random.Generator, num_times: int, rate_hz: float) -> Signal:
    times = np.arange(num_times) / rate_hz
    beat_s = rng.uniform(0.75, 1.1)
    return np.asarray(400 * np.exp(-0.5 * ((times % beat_s - 0.3) / 0.012) ** 2))


def _hypnogram(rng: np.random.Generator) -> list[str]:
    """Two cycles through the stages; every stage as often as any other."""
    first = {stage: int(rng.integers(1, EPOCHS_PER_STAGE)) for stage in SLEEP_UV}
    cycles = (first, {stage: EPOCHS_PER_STAGE - count for stage, count in first.items()})
    return [stage for cycle in cycles for stage, count in cycle.items() for _ in range(count)]


def _lognormal(rng: np.random.Generator, spread: float) -> float:
    return float(np.exp(rng.normal(0, spread)))


def _write_edf(path: Path, signals: Mapping[str, Signal], rate_hz: float) -> None:
    try:
        edfio: Any = importlib.import_module("edfio")
    except ModuleNotFoundError:
        raise UserError("synthetic recordings need edfio; install it with: pip install 'neurolm[demo]'") from None
    edf_signals = [
        edfio.EdfSignal(
            np.clip(signal, *PHYSICAL_RANGE_UV),
            rate_hz,
            label=name,
            physical_dimension="uV",
            physical_range=PHYSICAL_RANGE_UV,
        )
        for name, signal in signals.items()
    ]
    edfio.Edf(edf_signals, data_record_duration=1).write(path)
