"""What a store holds, what was left out and why, from its manifest alone: for programs, and as a table for people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from neurolm.config import UserError
from neurolm.eeg.manifest import MANIFEST
from neurolm.eeg.shards import SPLITS, Store

MOST_QUARANTINED = 10
"""Reasons of quarantine that the table shows; ``--json`` has all."""


def inspect_store(path: Path) -> dict[str, Any]:
    """The account of a store; plain values for JSON. No signal is read, so the test split stays sealed.

    ``hours`` is the length of the recordings that are stored, ``hours_in_windows`` of what windows cover of them.

    Raises:
        UserError: no finished store, or a folder of results that holds one.
    """
    if not (path / MANIFEST).exists() and (inside := sorted(path.glob(f"*/{MANIFEST}"))):
        raise UserError(f"{path}: no store, but it holds {', '.join(str(found.parent) for found in inside)}; name one")
    manifest = Store.open(path).manifest  # compares every shard's number of rows with the manifest
    counts, sets = manifest.counts, manifest.data_sets
    return {
        "store": str(path),
        "digest": manifest.data_digest,
        "dtype": _dtype(path, manifest.files),
        "sampling_rate_hz": manifest.preprocessing.get("sampling_rate_hz"),
        "code_version": manifest.code_version,
        "num_windows": counts["num_windows"],
        "num_recordings": counts.get("num_recordings"),
        "num_subjects": counts.get("num_subjects"),
        "hours": counts.get("hours"),
        "hours_in_windows": round(sum(account["hours"]["stored"] for account in sets.values()), 4),
        "windows_by_split": {split: manifest.windows_by_split.get(split, 0) for split in SPLITS},
        "windows_by_label": _total(manifest.windows_by_label.values()),
        "dropped": manifest.dropped,
        "quarantined": manifest.quarantined,
        "quality": manifest.quality
        | {"flagged_windows": _total(account["flagged_windows"] for account in sets.values())},
        "data_sets": {
            name: {name: value for name, value in account.items() if name != "channels"}
            | {"windows_by_label": manifest.windows_by_label.get(name, {}), "channels": account["channels"]}
            for name, account in sets.items()
        },
    }


def inspection_table(found: Mapping[str, Any]) -> str:
    """The account as text for a terminal."""
    rate = found["sampling_rate_hz"]
    lines = [
        found["store"],
        f"digest {found['digest'][:16]}  {found['dtype']} µV{f' at {rate:g} Hz' if rate else ''}  "
        f"neurolm {found['code_version']}",
        "",
        *aligned([SETS_HEAD, *sets_rows(found)]),
        "",
        f"splits       {listed(found['windows_by_split'])}",
    ]
    for name, account in found["data_sets"].items():
        lines.append(f"classes      {name}: {listed(account['windows_by_label'])}")
        lines.append(f"hours        {name}: {hours_told(account['hours'])}")
    lines.append(f"dropped      {listed(found['dropped']) or 'no window'}")
    flagged = {flag: number for flag, number in found["quality"]["flagged_windows"].items() if number}
    with_any = flagged.pop("any", 0)
    share = with_any / max(found["num_windows"], 1)
    lines.append(f"flagged      {with_any} windows ({share:.1%}) in one channel or more: {listed(flagged) or 'none'}")
    quarantined = list(found["quarantined"].items())
    lines.append(f"quarantined  {len(quarantined) or 'no'} recording{'s' if len(quarantined) != 1 else ''}")
    lines += [f"  {recording}  {reason}" for recording, reason in quarantined[:MOST_QUARANTINED]]
    if len(quarantined) > MOST_QUARANTINED:
        lines.append(f"  and {len(quarantined) - MOST_QUARANTINED} more: --json lists all")
    return "\n".join(lines)


SETS_HEAD = ("data set (stored of found)", "recordings", "subjects", "hours", "windows")


def sets_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of texts a data set: what is stored of what was found. Hours are those in windows."""
    return [
        (
            name,
            *(_of(account[kind]["stored"], account[kind]["in"]) for kind in ("recordings", "subjects")),
            f"{account['hours']['stored']:.2f} of {account['hours']['in']:.2f}",
            _of(account["windows"]["stored"], account["windows"]["in"]),
        )
        for name, account in found["data_sets"].items()
    ]


def hours_told(hours: Mapping[str, Any]) -> str:
    """Where the hours of a data set went, in words."""
    parts = [f"{hours['stored']:.3f} in windows"]
    parts += [f"{value:.3f} {reason}" for reason, value in sorted(hours["left_out"].items())]
    return " + ".join(parts) + f" = {hours['in']:.3f}"


def listed(numbers: Mapping[str, Any]) -> str:
    """``train 1218, val 290``."""
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal columns: the first flush left, the others flush right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _of(stored: int, found: int) -> str:
    return f"{stored} of {found}"


def _dtype(path: Path, files: Sequence[Mapping[str, Any]]) -> str | None:
    """Kind of the stored numbers, which the footer of any shard says."""
    if not files:
        return None
    values = pq.read_schema(path / files[0]["name"]).field("signal").type.value_type
    return np.dtype(values.to_pandas_dtype()).name


def _total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
