"""What `neurolm inspect` says of a store, against what is in its shards."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from neurolm.cli import main
from neurolm.config import build
from neurolm.datasets.ingest import DataConfig, plan_downstream, plan_pretraining, run_locally, write_store
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.shards import count_openings
from neurolm.reports.inspection import aligned, inspect_store, inspection_table
from tests.tiny import write_tiny_store


@pytest.fixture(scope="module")
def store(demo_recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects of two synthetic data sets and one broken recording."""
    folder = tmp_path_factory.mktemp("inspected")
    sets = {
        "demo_workload": {"layout": "workload", "folder": "workload"},
        "sleep": {"layout": "hmc", "folder": "sleep"},
    }
    values = {"root": demo_recordings, "sets": sets, "privacy": {"key_file": folder / "key"}}
    plans = plan_downstream(build(DataConfig, values, source="test"), folder / "store")
    write_store(plans, folder / "store", run_locally)
    return folder / "store"


def rows_of(store: Path) -> list[dict[str, Any]]:
    """Every row but its signal, with its split."""
    columns = ["data_set", "subject", "recording", "label", "quality"]
    return [
        row | {"split": path.name.split("-")[0]}
        for path in sorted(store.glob("*.parquet"))
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def test_the_account_is_what_the_shards_hold(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(store), "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = rows_of(store)
    assert found["num_windows"] == len(rows)
    assert found["num_recordings"] == len({row["recording"] for row in rows}) == 12 + 6
    assert found["num_subjects"] == len({row["subject"] for row in rows})
    for key, name in (("windows_by_label", "label"), ("windows_by_split", "split")):
        assert found[key] == {value: sum(row[name] == value for row in rows) for value in found[key]}
        assert sum(found[key].values()) == len(rows)
    assert found["dropped"] == {}
    assert len(found["quarantined"]) == 1
    assert found["dtype"] == "float32"
    assert found["hours"] == pytest.approx((12 * 62 + 6 * 600) / 3600, abs=1e-3)
    assert found["hours_in_windows"] == pytest.approx((12 * 60 + 6 * 600) / 3600, abs=1e-3)
    flagged = found["quality"]["flagged_windows"]
    assert flagged["any"] == sum(any(row["quality"]) for row in rows)
    for flag, bit in FLAGS.items():
        assert flagged[flag] == sum(any(bits & bit for bits in row["quality"]) for row in rows)
    assert set(found["data_sets"]) == {"demo_workload", "sleep"}
    sleep = found["data_sets"]["sleep"]
    assert sum(sleep["windows_by_label"].values()) == sum(row["data_set"] == "sleep" for row in rows)
    assert count_openings(found["digest"]) == 0


def test_the_table_says_it_in_words(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(store)])
    said = capsys.readouterr().out
    assert "demo_workload 12 of 13 6 of 7 0.20 of 0.21 348 of 348" in " ".join(said.split())
    assert "0.200 in windows + 0.007 left out by the data set's rule = 0.207" in said
    assert "classes      demo_workload: arithmetic 174, rest 174" in said
    assert "quarantined  1 recording\n" in said
    assert "RecordingError" in said and "truncated" in said
    assert "Subject" not in said


def test_many_quarantined_recordings_are_not_all_told(store: Path) -> None:
    found = inspect_store(store) | {"quarantined": {f"{number:016x}": "broken" for number in range(25)}}
    said = inspection_table(found)
    assert said.count("broken") == 10
    assert "and 15 more: --json lists all" in said


def test_a_store_without_an_account_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    found = inspect_store(write_tiny_store(tmp_path, 6))
    assert (found["num_windows"], found["num_recordings"], found["data_sets"]) == (10, None, {})
    assert "train 6, val 4, test 0" in inspection_table(found)


def test_what_is_no_store_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["inspect", str(tmp_path / "absent")], ["inspect", str(tmp_path), "--json"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "this store" in capsys.readouterr().err


def test_a_folder_of_results_is_not_taken_for_a_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", str(store.parent)])
    assert f"{store.parent}: no store, but it holds {store}; name one" in capsys.readouterr().err


def test_columns_are_aligned() -> None:
    assert aligned([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc   d"]


@pytest.mark.parametrize("name", ["eegmat", "eegmmidb"])
def test_sums_close_on_real_recordings(name: str, test_data: Path, tmp_path: Path) -> None:
    root = tmp_path / name
    for path in sorted((test_data / name).rglob("*.edf"))[:8]:
        copy = root / path.relative_to(test_data / name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    broken = sorted(root.rglob("*.edf"))[0]
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:30_000])
    config = build(DataConfig, {"root": root, "pretraining_root": root}, source="test")
    plan = plan_downstream if name == "eegmat" else plan_pretraining
    write_store(plan(config, tmp_path / "store"), tmp_path / "store", run_locally)
    found = inspect_store(tmp_path / "store")
    (account,) = found["data_sets"].values()
    assert account["recordings"] == {"in": 8, "stored": 7, "quarantined": 1}
    assert found["num_recordings"] == 7 and len(found["quarantined"]) == 1
    windows, hours = account["windows"], account["hours"]
    assert windows["in"] == windows["stored"] + sum(windows["dropped"].values()) == found["num_windows"]
    assert hours["in"] == pytest.approx(hours["stored"] + sum(hours["left_out"].values()), abs=1e-5)
    assert hours["in"] == pytest.approx(found["hours"], abs=1e-3)
    assert sum(found["windows_by_label"].values()) == found["num_windows"]
