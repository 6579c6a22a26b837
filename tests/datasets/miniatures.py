"""A miniature of every published set in its real layout: at least three subjects, the first recording readable.

Only the first recording of a set has signal of its own; the others are links to it, so that a tree is made quickly.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import scipy.io

from neurolm.datasets import LAYOUTS
from neurolm.datasets.tuh import TUH_CHANNELS
from tests.eeg.cnt import write_cnt
from tests.eeg.edf import write_edf


@dataclass
class Miniature:
    """What is to be found in a tree."""

    recordings: int
    subjects: list[str]
    labels: list[str | None]
    """Labels of the first recording's windows, in order."""
    window_s: float
    dropped: dict[str, int] = field(default_factory=dict)
    num_channels: int | None = None
    """Where it is not the declared number."""


def link(target: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def noise(num_channels: int, num_times: int, scale: float = 10.0) -> np.ndarray:
    return np.random.default_rng(1).normal(0, scale, (num_channels, num_times))


def tuab(root: Path) -> Miniature:
    """Release 3 and, for one subject, the folders of release 2."""
    train = root / "edf" / "train"
    first = write_edf(
        train / "abnormal/01_tcp_ar/aaaaaaaa_s001_t000.edf", [*TUH_CHANNELS, "EEG EKG1-REF", "IBI"], duration_s=25
    )
    link(
        first,
        train / "normal/01_tcp_ar/aaaaaaab_s002_t000.edf",
        train / "normal/01_tcp_ar/000/00000021/s004_2013_08_15/00000021_s004_t000.edf",
        root / "edf/eval/abnormal/01_tcp_ar/aaaaaaac_s001_t000.edf",
        root / "edf/eval/normal/01_tcp_ar/aaaaaaad_s001_t001.edf",
    )
    subjects = ["00000021", "aaaaaaaa", "aaaaaaab", "aaaaaaac", "aaaaaaad"]
    return Miniature(5, subjects, ["abnormal", "abnormal"], 10)


def tuev(root: Path) -> Miniature:
    first = write_edf(root / "edf/eval/000/bckg_000_a_.edf", TUH_CHANNELS, duration_s=12)
    rows = ["0,5.0,6.0,6", "3,5.0,6.0,1", "3,0.5,1.5,4", "7,11.0,12.0,2", "7,3.0,5.0,2", "7,14.0,15.0,3"]
    first.with_suffix(".rec").write_text("\n".join(rows) + "\n")
    link(
        first,
        root / "edf/train/aaaaaaar/aaaaaaar_00000001.edf",
        root / "edf/train/aaaaaaas/aaaaaaas_00000001.edf",
        root / "edf/eval/001/gped_001_a_1.edf",
    )
    labels = ["bckg", "spsw", "eyem", "gped"]
    dropped = {"event not 1 s long": 1, "event beyond the end of the recording": 1}
    return Miniature(4, ["000", "001", "aaaaaaar", "aaaaaaas"], labels, 5, dropped)


def tusl(root: Path) -> Miniature:
    first = write_edf(root / "edf/aaaaaaju/s005_2010/01_tcp_ar/aaaaaaju_s005_t000.edf", TUH_CHANNELS, duration_s=45)
    spans = [
        "0.0 10.0 bckg 1.0",
        "10.0 20.0 seiz 1.0",
        "22.0 31.0 slow 1.0",
        "33.0 43.0 slow 1.0",
        "40.0 50.0 seiz 1.0",
    ]
    first.with_suffix(".tse_agg").write_text("version = tse_v1.0.0\n\n" + "\n".join(spans) + "\n")
    link(
        first,
        root / "edf/aaaaaajv/s001_2011/02_tcp_le/aaaaaajv_s001_t001.edf",
        root / "edf/01_tcp_ar/000/00000077/s001_2003/00000077_s001_t000.edf",
    )
    dropped = {"span not 10 s long": 1, "span beyond the end of the recording": 1}
    return Miniature(3, ["00000077", "aaaaaaju", "aaaaaajv"], ["bckg", "seiz", "slow"], 10, dropped)


def hmc(root: Path) -> Miniature:
    names = ["EEG C4-M1", "EEG F4-M1", "EEG O2-M1", "EEG C3-M2", "EMG chin", "ECG"]
    first = write_edf(root / "recordings/SN001.edf", names, duration_s=70, sampling_rate_hz=256)
    stages = "".join(f"d, t, {30 * place}, 30, Sleep stage {stage},\n" for place, stage in enumerate(("W", "N2", "R")))
    first.with_name("SN001_sleepscoring.txt").write_text(
        "Date, Time, Recording onset, Duration, Annotation, Linked channel\n" + stages
    )
    link(first, root / "recordings/SN002.edf", root / "recordings/SN004.edf")
    return Miniature(3, ["SN001", "SN002", "SN004"], ["W", "N2"], 30, {"epoch beyond the end of the recording": 1})


def workload(root: Path) -> Miniature:
    names = [*LAYOUTS["workload"].channels, "EEG A2-A1", "ECG ECG"]
    first = write_edf(root / "Subject00_1.edf", names, duration_s=62, sampling_rate_hz=500)
    others = [root / f"Subject0{subject}_{part}.edf" for subject in range(4) for part in (1, 2)]
    link(first, *others[1:])
    return Miniature(8, [f"Subject0{subject}" for subject in range(4)], ["rest"] * 29, 4)


def seed_file(path: Path, duration_s: int) -> Path:
    names = list(LAYOUTS["seed"].channels)
    return write_cnt(path, [*names[:23], "M1", *names[23:33], "M2", *names[33:], "HEO", "VEO"], duration_s=duration_s)


def seed(root: Path) -> Miniature:
    first = seed_file(root / "SEED_RAW_EEG/1_1.cnt", 33)
    link(first, *(root / f"SEED_RAW_EEG/{name}.cnt" for name in ("1_2", "2_1", "10_1")))
    return Miniature(4, ["1", "10", "2"], ["positive"] * 2, 4, {"clip beyond the end of the recording": 853})


def seed_iv(root: Path) -> Miniature:
    arrays = {f"cz_eeg{trial}": noise(62, 3400 if trial == 1 else 10) for trial in range(1, 25)}
    first = root / "eeg_raw_data/1/1_20160518.mat"
    first.parent.mkdir(parents=True)
    scipy.io.savemat(first, arrays)
    link(first, root / "eeg_raw_data/2/2_20150915.mat", root / "eeg_raw_data/3/15_20150508.mat")
    link(first, root / "eeg_feature_smooth/1/1_20160518.mat")
    return Miniature(3 * 24, ["1", "15", "2"], [None], 16)


def seed_v(root: Path) -> Miniature:
    first = seed_file(root / "EEG_raw/1_1_20180804.cnt", 17)
    link(first, root / "EEG_raw/7_1_20180411.cnt", root / "EEG_raw/16_3_20180805.cnt")
    return Miniature(3, ["1", "16", "7"], [None], 16)


def seed_abroad(root: Path) -> Miniature:
    first = seed_file(root / "country/01-EEG-raw/1_1.cnt", 17)
    link(first, root / "country/01-EEG-raw/2_1.cnt", root / "country/01-EEG-raw/8_3.cnt")
    return Miniature(3, ["1", "2", "8"], [None], 16)


def tueg(root: Path) -> Miniature:
    """Both generations of folders; 19 electrodes fill 53 s, and the last 10 s are not used."""
    names = [name for name in TUH_CHANNELS if name.split("-")[0][4:] not in ("A1", "A2", "T1", "T2")]
    first = write_edf(
        root / "edf/000/aaaaaaaa/s001_2015_12_30/03_tcp_ar_a/aaaaaaaa_s001_t000.edf",
        [*names, "EEG EKG1-REF", "PHOTIC-REF"],
        duration_s=70,
    )
    link(
        first,
        root / "edf/01_tcp_ar/099/00009932/s004_2014_09_30/00009932_s004_t013.edf",
        root / "edf/01_tcp_ar/027/00002729/s001_2006_04_12/00002729_s001.edf",
    )
    return Miniature(3, ["00002729", "00009932", "aaaaaaaa"], [None], 53, num_channels=19)


def bci_competition(root: Path) -> Miniature:
    layout = LAYOUTS["bci_competition_iv_1"]
    clab = np.array([[name] for name in layout.channels], dtype=object).reshape(1, -1)
    first = root / "BCICIV_1calib_1000Hz_mat/BCICIV_calib_ds1a_1000Hz.mat"
    first.parent.mkdir(parents=True)
    scipy.io.savemat(first, {"cnt": noise(18_000, 59, 100).astype(np.int16), "nfo": {"fs": 1000, "clab": clab}})
    link(
        first,
        root / "BCICIV_1calib_1000Hz_mat/BCICIV_calib_ds1b_1000Hz.mat",
        root / "BCICIV_1eval_1000Hz_mat/BCICIV_eval_ds1g_1000Hz.mat",
    )
    return Miniature(3, ["a", "b", "g"], [None], 17)


def write_bdf(path: Path, names: list[str], duration_s: int, rate_hz: int) -> Path:
    signals = [
        edfio.BdfSignal(values, rate_hz, label=name, physical_dimension="uV", physical_range=(-262144, 262143))
        for name, values in zip(names, noise(len(names), duration_s * rate_hz) + 4_300, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Bdf(signals).write(path)
    return path


def biosemi(root: Path, layout: str, names: list[str], subjects: list[str], duration_s: int) -> Miniature:
    data_set = LAYOUTS[layout]
    cap = [*LAYOUTS["resting_state"].channels, "EXG1", "EXG2"]
    assert data_set.sampling_rate_hz is not None
    first = write_bdf(root / names[0], cap, duration_s, int(data_set.sampling_rate_hz))
    link(first, *(root / name for name in names[1:]))
    return Miniature(len(names), subjects, [None], 1024 // len(data_set.channels))


def emobrain(root: Path) -> Miniature:
    names = ["Part1_IAPS_SES1_EEG_fNIRS_03082006.bdf", "Part2_IAPS_SES1_EEG_fNIRS_04082006.bdf"]
    names += ["PART5_IAPS_SES3_EEG_fNIRS_07082006.bdf"]
    found = biosemi(root, "emobrain", [f"Data/EEG/{name}" for name in names], ["1", "2", "5"], 19)
    (root / "Data/EEG/Part1_IAPS_SES1_EEG_fNIRS_03082006.bdf.mrk").touch()
    return found


def raw_eeg_data(root: Path) -> Miniature:
    names = [f"EEG_Cat_Study4_{name}.bdf" for name in ("II_II_S1", "II_RBII_S2", "II_II_S10")]
    return biosemi(root, "raw_eeg_data", names, ["1", "10", "2"], 17)


def resting_state(root: Path) -> Miniature:
    found = biosemi(root, "resting_state", [f"EEG_Cat_Study4_Resting_S{n}.bdf" for n in (1, 2, 3)], ["1", "2", "3"], 17)
    (root / "EEG_Cat_Study4_II_II_S1.bdf").touch()  # of the other set
    return found


def grasp_and_lift(root: Path) -> Miniature:
    columns = LAYOUTS["grasp_and_lift"].channels
    values = noise(32, 500 * 33, 100).T.round().astype(int)
    rows = (f"subj1_series1_{place}," + ",".join(map(str, row)) for place, row in enumerate(values))
    first = root / "train/subj1_series1_data.csv"
    first.parent.mkdir(parents=True)
    first.write_text("id," + ",".join(columns) + "\n" + "\n".join(rows) + "\n")
    (root / "train/subj1_series1_events.csv").touch()
    link(first, root / "train/subj2_series3_data.csv", root / "test/subj12_series9_data.csv")
    return Miniature(3, ["subj1", "subj12", "subj2"], [None], 32)


def inria_bci(root: Path) -> Miniature:
    columns = [name.replace("PO8", "P08") for name in LAYOUTS["inria_bci"].channels]
    rows = (
        f"{place / 200}," + ",".join(f"{x:.3f}" for x in row) + ",1.0,0" for place, row in enumerate(noise(56, 3700).T)
    )
    first = root / "train/Data_S02_Sess01.csv"
    first.parent.mkdir(parents=True)
    first.write_text("Time," + ",".join(columns) + ",EOG,FeedBackEvent\n" + "\n".join(rows) + "\n")
    (root / "TrainLabels.csv").touch()
    link(first, root / "train/Data_S06_Sess05.csv", root / "test/Data_S01_Sess01.csv")
    return Miniature(3, ["S01", "S02", "S06"], [None], 18)


def motor_imagery(root: Path) -> Miniature:
    first = write_edf(root / "S001/S001R01.edf", LAYOUTS["motor_imagery"].channels, duration_s=33, sampling_rate_hz=160)
    (root / "S001/S001R01.edf.event").touch()
    link(first, root / "S002/S002R14.edf", root / "S109/S109R03.edf")
    return Miniature(3, ["S001", "S002", "S109"], [None, None], 16)


def siena(root: Path) -> Miniature:
    names = [*(name.replace("Fc", "FC") for name in LAYOUTS["siena"].channels), "EKG EKG", "SPO2"]
    first = write_edf(root / "PN00/PN00-1.edf", names, duration_s=36, sampling_rate_hz=512)
    (root / "PN00/Seizures-list-PN00.txt").touch()
    link(first, root / "PN10/PN10-4.5.6.edf", root / "PN17/PN17-2.edf")
    return Miniature(3, ["PN00", "PN10", "PN17"], [None], 35)


def spis(root: Path) -> Miniature:
    first = root / "Pre-SART EEG/S02_restingPre_EC.mat"
    first.parent.mkdir(parents=True)
    scipy.io.savemat(first, {"dataRest": noise(68, 256 * 17, 10_000)})
    link(
        first,
        *(first.with_name(f"{name}.mat") for name in ("S02_restingPre_EO", "S03_restingPre_EC", "S11_restingPre_EO")),
    )
    return Miniature(4, ["S02", "S03", "S11"], [None], 16)


def target_nontarget(root: Path) -> Miniature:
    table = np.column_stack([np.arange(512 * 33) / 512, noise(32, 512 * 33).T, np.zeros((512 * 33, 2))])
    first = root / "subject_01/subject_01_session_01.mat"
    first.parent.mkdir(parents=True)
    scipy.io.savemat(first, {"DATA": table})
    first.with_suffix(".csv").touch()  # the same session once more
    link(first, root / "subject_02/subject_02_session_03.mat", root / "subject_43/subject_43_session_02.mat")
    return Miniature(3, ["subject_01", "subject_02", "subject_43"], [None], 32)


def sample(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pickle.dump(content, file)


def tuab_pickles(root: Path) -> Miniature:
    for number in (0, 1, 10):
        sample(root / f"train/aaaaaaaa_s001_t000_{number}.pkl", {"X": noise(23, 2000), "y": 1})
    for name in ("val/aaaaaaab_s001_t000_0.pkl", "test/00000021_s004_t000_0.pkl"):
        sample(root / name, {"X": noise(23, 2000), "y": 0})
    return Miniature(3, ["00000021", "aaaaaaaa", "aaaaaaab"], ["normal"], 10)


def tuev_pickles(root: Path) -> Miniature:
    for name, code in (("eval/aaaaaaar_00000001-0", 2), ("test/bckg_000_a_-4", 6), ("train/aaaaaaas_00000002-0", 1)):
        content = {"signal": noise(23, 1000), "offending_channel": np.array([3.0]), "label": np.array([float(code)])}
        sample(root / f"processed_{name}.pkl", content)
    return Miniature(3, ["000", "aaaaaaar", "aaaaaaas"], ["gped"], 5)


def array_pickles(layout: str, recordings: list[str], num_times: int, code: int | None) -> Callable[[Path], Miniature]:
    def make(root: Path) -> Miniature:
        data_set = LAYOUTS[layout]
        names = [name.split("-")[0].removeprefix("EEG ").upper() for name in data_set.channels]
        for folder, recording in zip(("eval", "test", "train"), recordings, strict=True):
            for number in (0, 1):
                content: dict[str, Any] = {"X": noise(len(names), num_times), "ch_names": names}
                if code is None:
                    content = {"data": content["X"], "ch_names": names}
                else:
                    content["y"] = np.array([float(code)])
                sample(root / folder / f"{recording}-{number}.pkl", content)
        subjects = sorted(recording.split("_")[0] for recording in recordings)
        label = None if code is None else data_set.labels[code]
        return Miniature(3, subjects, [label, label], num_times / 200)

    return make


MINIATURES: dict[str, Callable[[Path], Miniature]] = {
    "tuab": tuab, "tuev": tuev, "tusl": tusl, "seed": seed, "hmc": hmc, "workload": workload, "tueg": tueg,
    "seed_iv": seed_iv, "seed_v": seed_v, "seed_ger": seed_abroad, "seed_fra": seed_abroad,
    "bci_competition_iv_1": bci_competition, "emobrain": emobrain, "grasp_and_lift": grasp_and_lift,
    "inria_bci": inria_bci, "motor_imagery": motor_imagery, "raw_eeg_data": raw_eeg_data,
    "resting_state": resting_state, "siena": siena, "spis": spis, "target_nontarget": target_nontarget,
    "tuab_pickles": tuab_pickles, "tuev_pickles": tuev_pickles,
    "tusl_pickles": array_pickles("tusl_pickles", [f"aaaaaa{x}_s001_t000" for x in ("ab", "ac", "ad")], 2000, 2),
    "hmc_pickles": array_pickles("hmc_pickles", ["SN001", "SN101", "SN130"], 6000, 4),
    "workload_pickles": array_pickles("workload_pickles", ["Subject00_1", "Subject26_1", "Subject35_2"], 800, 0),
    "tueg_pickles": array_pickles("tueg_pickles", [f"aaaaaa{x}_s001_t000" for x in ("ab", "ac", "ad")], 8800, None),
}  # fmt: skip
