"""A store as one page of HTML: its account, spectra, amplitudes and flags; it needs no network and no colour."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from neurolm.config import UserError
from neurolm.eeg.quality import FLAGS
from neurolm.eeg.shards import Store
from neurolm.reports import store_charts
from neurolm.reports.inspection import SETS_HEAD, listed, sets_rows
from neurolm.reports.page import table, write_page
from neurolm.reports.store_statistics import RecordingFlags, SetStatistics, recording_flags, set_statistics

MOST_RECORDINGS, MOST_CHANNELS = 20, 20
"""Rows of the tables of the most flagged ones."""
STORE_CACHE_BYTES = 64 * 2**20

MEANINGS = {
    "flat": "as recorded, the channel spans less than {flat_uv:g} µV",
    "clipped": "{clipped_share:.1%} of the window or more at the recording's extremes, three values or more in a row",
    "line_noise": "{line_noise_share:.0%} of the power above 1 Hz or more at the mains frequency and its harmonics",
    "too_large": "filtered, the channel spans more than {large_uv:g} µV",
    "too_small": "filtered, the channel spans less than {small_uv:g} µV",
    "gap": "values that are missing, or one value held for {gap_s:g} s or longer",
}


def write_store_page(path: Path, store_path: Path, found: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        store_path: folder of the store, whose training and validation windows are read.
        found: what `inspection.inspect_store` says about it.

    Raises:
        UserError: the store does not say its sampling rate, or the page's folder is missing.
    """
    rate_hz = found["sampling_rate_hz"]
    if rate_hz is None:
        raise UserError(f"{store_path}: the manifest has no preprocessing.sampling_rate_hz; make the store again")
    if not path.parent.is_dir():
        raise UserError(f"{path}: no folder {path.parent}; make it, or write the page elsewhere")
    store = Store.open(store_path, cache_bytes=STORE_CACHE_BYTES)
    statistics = {name: set_statistics(store, name, rate_hz) for name in found["data_sets"]}
    recordings = recording_flags(store)
    shown = {
        "title": escape(f"Store {Path(found['store']).name}: {', '.join(found['data_sets'])}"),
        "headline": _headline(found),
        "facts": _facts(found),
        "account": _account(found),
        "rejection": _rejection(found),
        "flags": _flags(found),
        "spectra": _per_set(statistics, _spectra),
        "amplitudes": _per_set(statistics, lambda name, one: _amplitudes(name, one, found)),
        "recordings": _recordings(recordings),
        "channels": _channels(found),
        "quarantined": _quarantined(found),
        "origin": f"Data digest <code>{escape(found['digest'])}</code>, neurolm {escape(found['code_version'])}.",
    }
    write_page(path, "store.html", shown)


def _headline(found: Mapping[str, Any]) -> str:
    flagged = found["quality"]["flagged_windows"].get("any", 0)
    return (
        f"<p class='headline'><strong>{found['num_windows']}</strong> windows of {found['num_recordings']} recordings "
        f"of {found['num_subjects']} subjects</p><p>{flagged} of them ({flagged / max(found['num_windows'], 1):.1%}) "
        "have a flag in one channel or more.</p>"
    )


def _facts(found: Mapping[str, Any]) -> str:
    facts = {
        "hours in windows": f"{found['hours_in_windows']:.2f} (overlaps count once)",
        "splits": listed(found["windows_by_split"]),
        "dropped windows": str(sum(found["dropped"].values())),
        "quarantined recordings": str(len(found["quarantined"])),
        "stored as": f"{found['dtype']} µV at {found['sampling_rate_hz']:g} Hz",
    }
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())


def _account(found: Mapping[str, Any]) -> str:
    parts = [table(SETS_HEAD, sets_rows(found))]
    for name, account in found["data_sets"].items():
        hours, windows = account["hours"], account["windows"]
        rows = [("found in readable recordings", f"{windows['in']}", f"{hours['in']:.3f}")]
        reasons = dict.fromkeys([*windows["dropped"], *hours["left_out"]])
        rows += [
            (f"- {reason}", str(windows["dropped"].get(reason, "")), _hours(hours["left_out"].get(reason)))
            for reason in reasons
        ]
        rows.append(("= stored", f"{windows['stored']}", f"{hours['stored']:.3f}"))
        parts.append(f"<h3>{escape(name)}</h3>{table(('', 'windows', 'hours'), rows)}")
        classes = [(label, str(one["in"]), str(one["stored"])) for label, one in account["classes"].items()]
        parts.append(table(("class", "windows cut", "stored"), classes))
    return "".join(parts)


def _rejection(found: Mapping[str, Any]) -> str:
    thresholds = found["quality"].get("thresholds", {})
    if not thresholds.get("reject"):
        return "Flags dropped no window of this store (<code>data.quality.reject</code> is empty)."
    flags = ", ".join(thresholds["reject"])
    return (
        f"Windows were dropped in which {thresholds['reject_share']:.0%} of the channels or more were "
        f"{escape(flags)} (<code>data.quality.reject</code>)."
    )


def _flags(found: Mapping[str, Any]) -> str:
    thresholds = found["quality"].get("thresholds", {})
    sets = found["data_sets"]
    channels = {name: _all_channels(account) for name, account in sets.items()}
    rows = [
        (
            flag,
            MEANINGS[flag].format(**thresholds) if thresholds else "",
            *(_count(one["flagged_windows"].get(flag, 0), one["windows"]["stored"]) for one in sets.values()),
            *(_share(counts.get(flag, 0), counts.get("windows", 0)) for counts in channels.values()),
        )
        for flag in FLAGS
    ]  # fmt: skip
    head = ("flag", "meaning", *(f"{name}: windows" for name in sets), *(f"{name}: of all channels" for name in sets))
    return table(head, rows, words=1)


def _per_set(statistics: Mapping[str, SetStatistics | None], shown: Any) -> str:
    return "".join(
        f"<h3>{escape(name)}</h3>" + (shown(name, one) if one else "<p>No window but sealed ones: nothing is read.</p>")
        for name, one in statistics.items()
    )


def _spectra(name: str, statistics: SetStatistics) -> str:
    charts = "".join(f"<div>{svg}</div>" for svg in store_charts.spectra(name, statistics))
    return (
        f"<figure class='grid-of-charts'>{charts}</figure><p class='note'>{statistics.num_sampled} of "
        f"{statistics.num_windows} training and validation windows.</p>"
    )


def _amplitudes(name: str, statistics: SetStatistics, found: Mapping[str, Any]) -> str:
    thresholds = found["quality"].get("thresholds", {})
    limits = thresholds.get("small_uv", 0.0), thresholds.get("large_uv", 0.0)
    return f"<figure>{store_charts.amplitudes(name, statistics, limits)}</figure>"


def _recordings(recordings: Sequence[RecordingFlags]) -> str:
    flagged = [one for one in recordings if one.flagged["any"]]
    if not flagged:
        return "<p>No training or validation recording has a flag.</p>"
    rows = [
        (
            one.recording, one.data_set, one.split, str(one.num_windows), _share(one.flagged["any"], one.num_judged),
            *(_share(one.flagged[flag], one.num_judged) for flag in FLAGS),
        )
        for one in flagged[:MOST_RECORDINGS]
    ]  # fmt: skip
    return (
        f"<p class='note'>{min(len(flagged), MOST_RECORDINGS)} of {len(flagged)} with flags, of {len(recordings)} "
        "training and validation recordings, by keyed id; shares are of all channels of all windows. The private map "
        "beside the store says which file an id is.</p>"
        + table(("recording", "data set", "split", "windows", "any flag", *FLAGS), rows)
    )


def _channels(found: Mapping[str, Any]) -> str:
    parts = []
    for name, account in found["data_sets"].items():
        ranked = sorted(account["channels"].items(), key=lambda item: -sum(item[1].get(flag, 0) for flag in FLAGS))
        flagged = [item for item in ranked if any(item[1].get(flag) for flag in FLAGS)]
        parts.append(f"<h3>{escape(name)}</h3>")
        if not flagged:
            parts.append(f"<p>None of {len(ranked)} channels has a flag.</p>")
            continue
        rows = [
            (channel, str(counts["windows"]), *(_share(counts.get(flag, 0), counts["windows"]) for flag in FLAGS))
            for channel, counts in flagged[:MOST_CHANNELS]
        ]
        parts.append(table(("channel", "windows", *FLAGS), rows))
        told = f"{len(rows)} of {len(flagged)} channels with flags, of {len(ranked)}; shares of their windows"
        parts.append(f"<p class='note'>{told}, all splits.</p>")
    return "".join(parts)


def _quarantined(found: Mapping[str, Any]) -> str:
    if not found["quarantined"]:
        return "<p>None.</p>"
    return table(("recording", "reason"), list(found["quarantined"].items()), words=1)


def _all_channels(account: Mapping[str, Any]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in account["channels"].values():
        for name, number in counts.items():
            total[name] = total.get(name, 0) + number
    return total


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part else "0"


def _count(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def _hours(hours: float | None) -> str:
    return "" if hours is None else f"{hours:.3f}"
