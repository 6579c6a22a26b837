"""Tokens as Arrow columns: every bit comes back, and pyarrow alone can read them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neurolm.eeg.tokens import StoredTokens, token_columns, tokens_in

BIT_PATTERNS = arrays(np.uint16, st.tuples(st.integers(1, 7), st.integers(1, 5)))


def bits_of(values: torch.Tensor) -> np.ndarray:
    return values.view(torch.uint16).numpy()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=st.lists(BIT_PATTERNS, min_size=1, max_size=4))
def test_every_bit_pattern_of_bfloat16_survives(features: list[np.ndarray], tmp_path: Path) -> None:
    """Also infinities, subnormal numbers and every NaN."""
    stored = [StoredTokens(one, np.arange(65535, 65535 - len(one), -1, dtype=np.uint16)) for one in features]
    pq.write_table(pa.table(token_columns(stored)), tmp_path / "tokens.parquet")
    for found, expected in zip(tokens_in(pq.read_table(tmp_path / "tokens.parquet")), stored, strict=True):
        assert found is not None and found.dtype == "bfloat16"
        np.testing.assert_array_equal(found.features, expected.features)
        np.testing.assert_array_equal(found.codes, expected.codes)
        as_torch = torch.from_numpy(found.features.copy()).view(torch.bfloat16)
        np.testing.assert_array_equal(bits_of(as_torch), expected.features)


@given(bits=arrays(np.uint16, st.integers(1, 50)))
def test_numpy_alone_reads_bit_patterns_as_torch_does(bits: np.ndarray) -> None:
    by_numpy = (bits.astype("<u4") << 16).view("<f4")
    by_torch = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(by_numpy, by_torch)  # NaN equals NaN


def test_windows_without_tokens_have_no_such_columns() -> None:
    assert token_columns([]) == {}
    assert tokens_in(pa.table({"row": [1, 2]})) == [None, None]


def test_a_slice_of_a_table_has_its_own_rows() -> None:
    rng = np.random.default_rng(0)
    stored = [
        StoredTokens(rng.standard_normal((size, 3)).astype(np.float32), np.arange(size, dtype=np.uint16))
        for size in (2, 4, 3)
    ]
    found = tokens_in(pa.table(token_columns(stored)).slice(1, 2))
    for one, expected in zip(found, stored[1:], strict=True):
        assert one is not None and one.dtype == "float32"
        np.testing.assert_array_equal(one.features, expected.features)
        np.testing.assert_array_equal(one.codes, expected.codes)
