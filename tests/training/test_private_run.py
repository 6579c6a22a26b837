"""A name in headers, an annotation, a comment and a path reaches no store, no log and nothing that tracks a run."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edfio
import numpy as np
import pytest

from neurolm.config import build, override
from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import EEGDataset, SourceFile
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.eeg.manifest import Manifest
from neurolm.eeg.privacy_proof import prove_private
from neurolm.eeg.recording import Recording
from neurolm.eeg.windows import Window, cut
from neurolm.training.runs import TokenizerRun
from neurolm.training.training_run import training_digest, without_raw_places
from neurolm.training.worker import train_locally

NAMES = ("Musterfrau", "Erika", "Klinikum", "KH-4711", "19640812", "12-AUG-1964", "Geburtstag", "Untersucher")
CHANNELS = ("Fp1", "C3", "O1")


@dataclass(frozen=True, kw_only=True)
class Hospital(EEGDataset):
    """A group's own recordings, labelled by annotations through a declared map."""

    name: str = "hospital"
    title: str = "own recordings"
    layout: str = "NAME/NAME.edf"
    mains_hz: float = 50.0
    channels: tuple[str, ...] = CHANNELS
    labels: tuple[str, ...] = ("rest", "arithmetic")
    licence: str = "none"
    citation: str = "none"
    url: str = "https://localhost"

    def find(self, root: Path) -> list[SourceFile]:
        paths = sorted([*root.rglob("*.edf"), *root.rglob("*.vhdr")])
        return [SourceFile(path, path.relative_to(root).as_posix(), path.parent.name) for path in paths]

    def windows(self, source: SourceFile, recording: Recording) -> tuple[list[Window], Counter[str]]:
        windows: list[Window] = []
        dropped: Counter[str] = Counter()
        for mark in recording.annotations:
            label = {"Ruhe": "rest", "Rechnen": "arithmetic"}.get(mark.description.removeprefix("Comment/"))
            if label is None and mark.description.startswith("Label "):
                label = mark.description  # what a careless layout would do
            if label is None:
                dropped[f"annotation {mark.description!r} is no label"] += 1
                continue
            windows += cut(
                recording, duration_s=4, stride_s=2, start_s=mark.onset_s, stop_s=mark.onset_s + 20, label=label
            )
        return windows, dropped


def write_recording(
    path: Path, seed: int, marks: tuple[str, ...] = ("Ruhe",), channels: tuple[str, ...] = CHANNELS
) -> None:
    """An EDF+ that tells about its subject wherever it can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    signals = [
        edfio.EdfSignal(
            rng.normal(0, 12, 6000).clip(-99, 99), 200, label=name, physical_dimension="uV", physical_range=(-100, 100)
        )
        for name in channels
    ]
    edfio.Edf(
        signals,
        patient=edfio.Patient(code="KH-4711", name="Erika_Musterfrau", additional=["Geburtstag_12-AUG-1964"]),
        recording=edfio.Recording(equipment_code="Klinikum", additional=["Untersucher_Musterfrau"]),
        annotations=[
            edfio.EdfAnnotation(0, 1, "Erika Musterfrau, Geburtstag 19640812"),
            edfio.EdfAnnotation(500, 1, "beyond the end, which MNE warns about"),
            *(edfio.EdfAnnotation(2, 20, mark) for mark in marks),
        ],
    ).write(path)


def write_brainvision(folder: Path) -> None:
    folder.mkdir()
    np.random.default_rng(9).normal(0, 100, (6000, 3)).astype("<i2").tofile(folder / "Erika_Musterfrau.eeg")
    (folder / "Erika_Musterfrau.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        "DataFile=Erika_Musterfrau.eeg\nMarkerFile=Erika_Musterfrau.vmrk\nDataFormat=BINARY\n"
        "DataOrientation=MULTIPLEXED\nNumberOfChannels=3\nSamplingInterval=5000\n[Binary Infos]\n"
        "BinaryFormat=INT_16\n[Channel Infos]\n"
        + "".join(f"Ch{place}={name},,0.1,µV\n" for place, name in enumerate(CHANNELS, start=1))
        + "[Comment]\nErika Musterfrau, KH-4711, Klinikum\n",
        encoding="utf-8",
    )
    (folder / "Erika_Musterfrau.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        "DataFile=Erika_Musterfrau.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0,19640812120000000000\n"
        "Mk2=Comment,Erika Musterfrau,100,1,0\nMk3=Comment,Ruhe,400,1,0\n",
        encoding="utf-8",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Good and broken recordings of people whose names are everywhere."""
    root = tmp_path / "Klinikum Erika Musterfrau"
    for seed, who in enumerate(("A", "B", "C")):
        write_recording(root / f"Musterfrau_{who}" / f"Erika_{who}_19640812.edf", seed, ("Ruhe",))
    broken = root / "Musterfrau_A"
    whole = (broken / "Erika_A_19640812.edf").read_bytes()
    (broken / "Erika_truncated.edf").write_bytes(whole[: len(whole) // 2])
    (broken / "Erika_header.edf").write_bytes(whole[:236] + b"Erika Musterfrau" + whole[252:])
    (broken / "Erika_empty.edf").write_bytes(b"Erika Musterfrau")
    write_recording(broken / "Erika_channels.edf", 5, channels=("Fp1", "C3", "Musterfrau"))
    write_recording(broken / "Erika_label.edf", 6, ("Label Musterfrau",))
    write_brainvision(root / "Musterfrau_D")
    (root / "Musterfrau_E").mkdir()
    (root / "Musterfrau_E" / "Erika_Musterfrau.vhdr").write_text("no header of Erika Musterfrau")
    return root


@pytest.fixture
def config(root: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    monkeypatch.setitem(LAYOUTS, "hospital", Hospital())
    values = {"root": root.parent, "sets": {"hospital": {"layout": "hospital", "folder": root.name}}}
    return build(DataConfig, values | {"split": {"counts": [3, 1, 1]}}, source="test")


def everything_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b""


def test_a_planted_name_stays_where_it_was(
    config: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        manifest = write_store(plan_downstream(config, out / "store"), out / "store", run_locally)
        prove_private(out / "store", NAMES)
        _see_that_it_says_enough(manifest)
        values = {
            "out": out,
            "data": config,
            "epochs": 1,
            "validations": 1,
            "batch": {"size": 4, "text_size": 0},
            "optimizer": {"learning_rate": 1e-3},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "codebook_size": 16, "codebook_dim": 8},
            "tracking": {"uri": f"sqlite:///{out / 'mlflow.db'}"},
        }
        run = build(TokenizerRun, values, source="test")
        train_locally(run, show_progress=False)
    assert (out / "mlflow.db").stat().st_size > 0 and (out / "tokenizer" / "tracking.jsonl").stat().st_size > 0
    said = caplog.text + "".join(capfd.readouterr())
    assert "MNE warns (RuntimeWarning)" in said
    for name in NAMES:
        assert name not in said
        for path, content in everything_below(out):
            if path.split(os.sep)[0] != "private":
                assert name not in path and name.encode() not in content, path
    assert "Musterfrau" in (out / "private" / "recordings.json").read_text()  # for the group's own eyes


def _see_that_it_says_enough(manifest: Manifest) -> None:
    """Names are gone, reasons are not."""
    assert manifest.counts["num_recordings"] == 4  # three EDF, one BrainVision
    assert manifest.windows_by_label == {"hospital": {"rest": 4 * 9}}
    assert manifest.dropped["annotation '(withheld)' is no label"] >= 4
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in manifest.quarantined)
    reasons = " | ".join(manifest.quarantined.values())
    assert len(manifest.quarantined) == 6
    for words in ("truncated: the header promises", "channel 'O1' is missing; the file has 'Fp1', 'C3', '(withheld)'",
                  "a label that own recordings does not declare", "MNE cannot read this file ("):  # fmt: skip
        assert words in reasons


def test_only_published_file_names_are_shown(tmp_path: Path) -> None:
    names = {"workload": "Subject05_1.edf", "hmc": "SN001.edf", "motor_imagery": "S001R04.edf"}
    assert not [name for name, layout in LAYOUTS.items() if layout.published_name and name not in names]
    for name, published in names.items():
        layout = LAYOUTS[name]
        for path, shown in ((published, published), ("Erika.edf", "id"), (f"Erika_{published}", "id")):
            source = SourceFile(tmp_path / "Musterfrau" / path, f"Musterfrau/{path}", "s")
            assert layout.shown_name(source, "id") == shown
    assert Hospital().shown_name(SourceFile(tmp_path / "x.edf", "x.edf", "s"), "id") == "id"


def test_a_shared_config_has_no_place_of_recordings_and_trains_the_same(config: DataConfig, tmp_path: Path) -> None:
    values = {"out": tmp_path, "data": config, "epochs": 1, "batch": {"size": 4, "text_size": 0}}
    run = build(TokenizerRun, {**values, "optimizer": {"learning_rate": 1e-3}}, source="test")
    for one in (run, override(run, {"data.pretraining_root": str(tmp_path / "Musterfrau")})):
        shared = without_raw_places(one)
        assert "Musterfrau" not in str(shared)
        assert (shared.training_store, shared.store) == (one.training_store, one.store)
        assert training_digest(shared) == training_digest(one)
