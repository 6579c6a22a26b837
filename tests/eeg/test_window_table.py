import numpy as np
import pyarrow as pa
import pytest

from neurolm.eeg.window_table import SCHEMA, StoredWindow, WindowTable, part_schema, to_table


def windows(dtype: str) -> list[StoredWindow]:
    rng = np.random.default_rng(0)
    return [
        StoredWindow(
            rng.normal(size=(channels, times)).astype(dtype), range(channels), "a", "s", f"r{times}", 1.0, label
        )
        for channels, times, label in ((2, 400, "x"), (3, 200, None), (1, 600, "y"), (2, 200, "x"))
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_windows_come_back_as_views(dtype: str) -> None:
    expected = windows(dtype)
    table = to_table(expected, part_schema(dtype))  # type: ignore[arg-type]
    for chosen, first in ((table, 0), (table.slice(1, 2), 1), (pa.concat_tables([table, table]).slice(4), 0)):
        found = WindowTable(chosen)
        assert len(found) == chosen.num_rows
        for one, other in zip(found, expected[first:], strict=False):
            np.testing.assert_array_equal(one.signal, other.signal)
            assert one.signal.dtype == dtype
            assert not one.signal.flags.owndata
            assert list(one.channel_indices) == list(other.channel_indices)
            assert (one.recording, one.start_s, one.label) == (other.recording, other.start_s, other.label)
    assert WindowTable(table).window(2, row=7).row == 7


def test_non_contiguous_signals_are_flattened_channel_by_channel() -> None:
    long = np.arange(40, dtype=np.float32).reshape(2, 20)
    table = to_table([StoredWindow(long[:, 5:9], (0, 1), "a", "s", "r", 0.0, None)], part_schema())
    assert table["signal"].to_pylist() == [[5, 6, 7, 8, 25, 26, 27, 28]]


def test_no_window_is_a_table_too() -> None:
    table = to_table([], part_schema())
    assert len(WindowTable(table)) == table.num_rows == 0


def test_columns_are_plain() -> None:
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in SCHEMA)
    assert [field.name for field in SCHEMA if field.nullable] == ["label", "quality"]
