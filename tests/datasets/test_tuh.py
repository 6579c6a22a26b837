from pathlib import Path

import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.tuh import TUH_CHANNELS, references_of
from neurolm.datasets.tusl import spans_of
from neurolm.eeg.recording import RecordingError
from tests.eeg.edf import write_edf

LE_CHANNELS = [name.replace("-REF", "-LE") for name in TUH_CHANNELS]


@pytest.mark.parametrize("name", ["tuab", "tuev", "tusl", "tueg"])
@pytest.mark.parametrize("others", [[], ["EEG FP1-REF"]])
def test_linked_ears_are_refused_by_their_channels(name: str, others: list[str], tmp_path: Path) -> None:
    """The folder says average reference; the channels do not."""
    path = write_edf(tmp_path / "01_tcp_ar/aaaaaaaa_s001_t000.edf", LE_CHANNELS + others)
    with pytest.raises(RecordingError, match=rf"23 channels against linked ears \(-LE\) and {len(others)} against"):
        LAYOUTS[name].read(SourceFile(path, path.name, "aaaaaaaa"))


def test_a_missing_electrode_is_named(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "aaaaaaaa_s001_t000.edf", [name for name in TUH_CHANNELS if "T2" not in name])
    source = SourceFile(path, path.name, "aaaaaaaa")
    with pytest.raises(RecordingError, match=r"channel 'EEG T2-REF' is missing"):
        LAYOUTS["tuab"].read(source)
    assert len(LAYOUTS["tueg"].read(source).channels) == 22


def test_what_is_no_edf_is_refused_by_the_reader(tmp_path: Path) -> None:
    for content in (b"", b"x" * 100, b"0" * 252 + b"abcd", b" " * 252 + b"9999"):
        (tmp_path / "a.edf").write_bytes(content)
        assert not references_of(tmp_path / "a.edf")
        with pytest.raises(RecordingError, match=r"a\.edf"):
            LAYOUTS["tueg"].read(SourceFile(tmp_path / "a.edf", "a.edf", "a"))


def test_folders_of_the_publisher_are_needed(tmp_path: Path) -> None:
    stray = tmp_path / "edf/train/aaaaaaaa_s001_t000.edf"
    stray.parent.mkdir(parents=True)
    stray.touch()
    with pytest.raises(DataSetError, match="neither below a folder normal nor abnormal"):
        LAYOUTS["tuab"].find(tmp_path)
    stray.unlink()
    (tmp_path / "edf/normal").mkdir()
    (tmp_path / "edf/normal/aaaaaaaa_s001_t000.edf").touch()
    with pytest.raises(DataSetError, match="neither below a folder train nor eval"):
        LAYOUTS["tuab"].find(tmp_path)


def test_spans_of_either_release(tmp_path: Path) -> None:
    edf = tmp_path / "a.edf"
    with pytest.raises(DataSetError, match=r"spans of this recording are missing \(\.tse_agg or \.csv\)"):
        spans_of(edf)
    (tmp_path / "a.csv").write_text(
        "# version = csv_v1.0.0\n#\nchannel,start_time,stop_time,label,confidence\n"
        "FP1-F7,10.0000,20.0000,slow,1.0000\nF7-T3,10.0000,20.0000,slow,1.0000\nF7-T3,0.0,10.0,bckg,1.0\n"
    )
    assert spans_of(edf) == [(0, 10, "bckg"), (10, 20, "slow")]
    (tmp_path / "a.tse_agg").write_text("version = tse_v1.0.0\n\n5.0 15.0 seiz 1.0000\n")
    assert spans_of(edf) == [(5, 15, "seiz")]
    (tmp_path / "a.tse_agg").write_text("version = tse_v1.0.0\n\nsoon later seiz 1.0000\n")
    with pytest.raises(DataSetError, match=r"a\.tse_agg: not a list of spans"):
        spans_of(edf)


@pytest.mark.parametrize("line", ["1,2.0,3.0", "1,2.0,3.0,7", "1,2.0,3.0,0", "1,x,3.0,1", "1,2.0,3.0,1.5"])
def test_events_that_are_none(line: str, tmp_path: Path) -> None:
    path = write_edf(tmp_path / "edf/train/aaaaaaar/aaaaaaar_00000001.edf", TUH_CHANNELS)
    source = LAYOUTS["tuev"].find(tmp_path)[0]
    recording = LAYOUTS["tuev"].read(source)
    with pytest.raises(DataSetError, match=r"aaaaaaar_00000001\.rec: the events of this recording are missing"):
        LAYOUTS["tuev"].windows(source, recording)
    path.with_suffix(".rec").write_text(f"1,2.0,3.0,1\n{line}\n")
    with pytest.raises(DataSetError, match="line 2 is no event"):
        LAYOUTS["tuev"].windows(source, recording)
