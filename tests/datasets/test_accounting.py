"""The sums close for whatever goes in, and by hand for one small case."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.datasets.accounting import RecordingAccount, ShardAccount, by_data_set
from neurolm.datasets.ledger import NOT_USED, QUARANTINED, STORED, Entry
from neurolm.eeg.channels import channel_index
from neurolm.eeg.quality import FLAGS


def account(name: str = "train-a-all.parquet", data_set: str = "a") -> ShardAccount:
    return ShardAccount(name, name.split("-")[0], data_set, "", 0, parts=[], fingerprints_sha256="", digests=[])


def settle(shard: ShardAccount, entry: Entry, recording: str, error: str | None = None) -> None:
    """What `make_part` and `assemble` do with a recording."""
    stored = 0 if error is not None else len(entry.spans.get(STORED, []))
    part = RecordingAccount(
        recording,
        entry.subject,
        origin="",
        hours=entry.duration_s / 3600,
        num_windows=stored,
        windows_by_label={"rest": stored} if stored else {},
        dropped=dict(entry.dropped),
        quarantined=error,
    )
    part.ledger.add(entry, is_quarantined=error is not None)
    shard.parts.append(part)
    shard.digests.extend([""] * stored)


def test_one_recording_by_hand() -> None:
    shard = account()
    entry = Entry("s1", duration_s=100.0, not_cut=Counter({"no stage": 2}))
    for start_s, reason in ((0, None), (10, None), (15, "constant"), (40, "not finite"), (50, "constant")):
        entry.cut("rest", start_s, 20, reason)
    entry.cut("rest", 90, 10.001, None)  # rounding may put a window's end behind the recording's
    entry.channels = [channel_index("FP1"), channel_index("O2")]
    entry.flags = [np.array(flags, dtype=np.uint8) for flags in ([0, 0], [1, 33], [0, 32])]
    settle(shard, entry, "r1")
    settle(shard, Entry("s1", duration_s=36.0), "r2", "too short")
    settle(shard, Entry("s2"), "r3", "cannot be read")
    found = by_data_set([shard], {"a": ("rest", "task")})["a"]
    assert found["recordings"] == {"in": 3, "stored": 1, "quarantined": 2}
    assert found["subjects"] == {"in": 2, "stored": 1}
    assert found["windows"] == {"in": 8, "stored": 3, "dropped": {"no stage": 2, "constant": 2, "not finite": 1}}
    assert found["classes"] == {"rest": {"in": 6, "stored": 3}, "task": {"in": 0, "stored": 0}}
    # Stored: 0 to 30 and 90 to 100. Constant: 30 to 35 and 50 to 70, of which 50 to 60 was first lost as not finite.
    hours = {name: value * 3600 for name, value in found["hours"]["left_out"].items()}
    lost = hours.pop("constant") + hours.pop("not finite")
    assert hours == {NOT_USED: pytest.approx(25, abs=0.01), QUARANTINED: pytest.approx(36, abs=0.01)}
    assert lost == pytest.approx(35, abs=0.01)
    assert found["hours"]["stored"] * 3600 == pytest.approx(40, abs=0.01)
    assert found["hours"]["in"] * 3600 == pytest.approx(136, abs=0.01)
    none = dict.fromkeys(FLAGS, 0)
    assert found["flagged_windows"] == none | {"any": 2, "flat": 1, "gap": 2}
    assert found["channels"]["FP1"] == none | {"windows": 3, "flat": 1}
    assert found["channels"]["O2"] == none | {"windows": 3, "flat": 1, "gap": 2}


Member = tuple[float, list[tuple[float, float, str | None]], str | None, str]
"""Duration, windows (two ends as shares of the duration, and why dropped), why quarantined, subject."""
recordings = st.builds(
    lambda duration_s, windows, error, subject: (duration_s, windows, error, subject),
    st.floats(0.1, 500),
    st.lists(
        st.tuples(
            st.floats(0, 1), st.floats(0, 1), st.sampled_from([None, None, "constant", "not finite", "bad channels"])
        ),
        max_size=12,
    ),
    st.sampled_from([None, None, "too short", "unreadable"]),
    st.sampled_from("xyz"),
)


@given(shards=st.lists(st.tuples(st.sampled_from("ab"), st.lists(recordings, max_size=6)), max_size=5))
def test_the_sums_close(shards: list[tuple[str, list[Member]]]) -> None:
    accounts = []
    for number, (data_set, members) in enumerate(shards):
        shard = account(f"train-{data_set}-{number:05d}.parquet", data_set)
        for place, (duration_s, windows, error, subject) in enumerate(members):
            entry = Entry(subject, duration_s=0.0 if error == "unreadable" else duration_s)
            if error is None:
                for begin, end, reason in windows:
                    entry.cut("rest", min(begin, end) * duration_s, abs(begin - end) * duration_s, reason)
            settle(shard, entry, f"{number}/{place}", error)
        accounts.append(shard)
    found = by_data_set(accounts, {})  # asserts the sums itself, too
    assert sum(one["recordings"]["in"] for one in found.values()) == sum(len(members) for _, members in shards)
    for name, one in found.items():
        members = [member for data_set, members in shards if data_set == name for member in members]
        cut = [window for _, windows, error, _ in members if error is None for window in windows]
        assert one["recordings"]["quarantined"] == sum(error is not None for _, _, error, _ in members)
        assert one["windows"]["in"] == len(cut) == one["windows"]["stored"] + sum(one["windows"]["dropped"].values())
        assert one["subjects"]["in"] == len({subject for *_, subject in members})
        hours_in = sum(duration_s for duration_s, _, error, _ in members if error != "unreadable") / 3600
        assert one["hours"]["in"] == pytest.approx(hours_in, abs=1e-5)
        assert one["hours"]["stored"] + sum(one["hours"]["left_out"].values()) == pytest.approx(hours_in, abs=1e-4)
        assert all(hours >= 0 for hours in one["hours"]["left_out"].values())


def test_sums_that_do_not_close_are_refused() -> None:
    shard = account()
    entry = Entry("s", duration_s=10.0)
    entry.cut("rest", 0, 4, None)
    settle(shard, entry, "r")
    shard.digests.append("")
    with pytest.raises(AssertionError):
        by_data_set([shard], {})
