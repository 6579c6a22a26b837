"""The quality page of a store: complete, closed, and blind to the test split."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from neurolm.cli import main
from neurolm.config import UserError, build
from neurolm.datasets.ingest import DataConfig, plan_downstream, run_locally, write_store
from neurolm.eeg.channels import CHANNELS, PAD
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.shards import Manifest, ShardWriter, Store, StoredWindow, write_manifest
from neurolm.reports.inspection import inspect_store
from neurolm.reports.store_page import write_store_page
from neurolm.reports.store_statistics import REGIONS, _evenly, recording_flags, region_of, set_statistics
from tests.tiny import write_tiny_store


@pytest.fixture(scope="module")
def store(demo_recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic recordings, judged so strictly that there is something to see."""
    folder = tmp_path_factory.mktemp("paged")
    quality = {"large_uv": 50, "line_noise_share": 0.01, "reject": ["too_large"], "reject_share": 0.5}
    sets = {"demo_<workload>": {"layout": "workload", "folder": "workload"}}
    values = {"root": demo_recordings, "sets": sets, "quality": quality, "privacy": {"key_file": folder / "key"}}
    plans = plan_downstream(build(DataConfig, values, source="test"), folder / "store")
    write_store(plans, folder / "store", run_locally)
    return folder / "store"


class Page(HTMLParser):
    """What a browser would make of it, as far as the tests ask."""

    VOID = ("meta", "rect", "line", "circle", "path", "polyline", "polygon", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_says_what_the_store_holds(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(store), "--page", str(tmp_path / "page.html")])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert not re.search(r"https?://|src=|<script|\$\w", text)  # nothing to fetch or run, nothing left to fill in
    pictures = [attributes for tag, attributes in parsed.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == len(REGIONS) + 1
    assert all(len(picture["aria-label"] or "") > 40 for picture in pictures)
    assert "demo_&lt;workload&gt;" in text and "demo_<workload>" not in text
    found = inspect_store(store)
    assert f"<strong>{found['num_windows']}</strong> windows" in text
    assert sum(found["dropped"].values()) > 0
    assert "too many bad channels (too_large)" in text
    assert "in which 50% of the channels or more were too_large" in text
    for flag in FLAGS:
        assert f"<th scope='row'>{flag}</th>" in text
    (quarantined,) = found["quarantined"]
    assert quarantined in text
    worst = next(one for one in recording_flags(Store.open(store)) if one.flagged["any"])
    assert worst.recording in text


def test_no_test_window_is_read(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noting(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(path: Path, *arguments: Any, **settings: Any) -> Any:
            opened.append(Path(path).name)
            return read(path, *arguments, **settings)

        return reading

    monkeypatch.setattr(pq, "read_table", noting(pq.read_table))
    monkeypatch.setattr(pq, "ParquetFile", noting(pq.ParquetFile))
    write_store_page(tmp_path / "page.html", store, inspect_store(store))
    splits = {name.split("-")[0] for name in opened}
    assert splits == {"train", "val"}
    assert list(store.glob("test-*.parquet"))
    tested = {row for path in store.glob("test-*") for row in pq.read_table(path)["recording"].to_pylist()}
    text = (tmp_path / "page.html").read_text()
    assert not any(recording in text for recording in tested)


def test_a_page_needs_a_folder_and_a_rate(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        write_store_page(tmp_path / "absent" / "page.html", store, inspect_store(store))
    tiny = write_tiny_store(tmp_path, 6)
    with pytest.raises(UserError, match="sampling_rate_hz"):
        write_store_page(tmp_path / "page.html", tiny, inspect_store(tiny))


def tones_store(folder: Path) -> Store:
    """Two training windows and one sealed: 10 Hz of 20 µV at O1, 30 Hz of 2 µV at FP1; one of them flagged."""
    times = np.arange(800) / 200
    signal = np.stack([20 * np.sin(2 * np.pi * 10 * times), 2 * np.sin(2 * np.pi * 30 * times)]).astype(np.float32)
    indices = [CHANNELS.index("O1"), CHANNELS.index("FP1")]
    files = []
    for split, flags in (("test", [[255, 255]]), ("train", [[0, 0], [37, 1]])):
        with ShardWriter(folder / f"{split}-a.parquet") as writer:
            for place, bits in enumerate(flags):
                quality = np.array(bits, dtype=np.uint8)
                writer.write([StoredWindow(signal, indices, "a", "s", f"r{place}", 0.0, None, quality)])
        files.append({"name": f"{split}-a.parquet", "split": split, "num_windows": len(flags), "sha256": ""})
    write_manifest(folder, Manifest(data_digest="d", files=files, counts={"num_windows": 3}))
    return Store.open(folder)


def test_spectra_and_amplitudes_by_hand(tmp_path: Path) -> None:
    statistics = set_statistics(tones_store(tmp_path), "a", 200.0)
    assert statistics is not None
    assert (statistics.num_sampled, statistics.num_windows) == (2, 2)
    assert list(statistics.spectra) == ["frontal", "occipital"]
    for region, peak_hz, power in (("occipital", 10, 200), ("frontal", 30, 2)):
        median = statistics.spectra[region][2]
        assert statistics.frequencies_hz[median.argmax()] == peak_hz
        assert median.sum() * 0.5 == pytest.approx(power, rel=0.02)  # a sine's power is half its amplitude squared
    edges, counts = statistics.amplitude_edges_uv, statistics.amplitude_counts
    assert counts.sum() == 4
    found = [edges[place] for place in np.flatnonzero(counts)]
    assert found[0] < 4 < found[0] * 1.26 and found[1] < 40 < found[1] * 1.26
    assert set_statistics(Store.open(tmp_path), "other", 200.0) is None


def test_flags_of_recordings_by_hand(tmp_path: Path) -> None:
    worst, other = recording_flags(tones_store(tmp_path))
    assert (worst.recording, worst.split, worst.num_windows, worst.num_judged) == ("r1", "train", 1, 2)
    assert worst.flagged == dict.fromkeys(FLAGS, 0) | {"any": 2, "flat": 2, "line_noise": 1, "gap": 1}
    assert (worst.share, other.share) == (1.0, 0.0)
    assert recording_flags(Store.open(write_tiny_store(tmp_path / "unjudged", 6))) == []


def test_every_channel_has_a_region() -> None:
    assert {region_of(channel) for channel in CHANNELS if channel != PAD} == set(REGIONS)
    assert [region_of(name) for name in ("FP1", "FCZ", "T3", "TP9", "P7-O1", "OZ")] == [
        "frontal", "central", "temporal", "temporal", "parietal", "occipital",
    ]  # fmt: skip


def test_a_sample_is_spread_evenly() -> None:
    assert list(_evenly(5, 10)) == [0, 1, 2, 3, 4]
    assert list(_evenly(9, 3)) == [0, 4, 8]
    assert list(_evenly(0, 3)) == []
