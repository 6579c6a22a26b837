import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.channels import CHANNELS, PAD, UnknownChannelError, canonical_name, channel_index

ELECTRODES = [name for name in CHANNELS if name != PAD]


def test_vocabulary_is_the_released_models(golden: Path) -> None:
    recorded = json.loads((golden / "channel_vocab.json").read_text())
    assert [[index, name] for index, name in enumerate(CHANNELS)] == recorded


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("EEG FP1-REF", "FP1"),
        ("EEG FP1-LE", "FP1"),
        ("Fp1.", "FP1"),
        ("EEG Fp1", "FP1"),
        ("EEG F4-M1", "F4"),
        ("EEG C3-M2", "C3"),
        ("C3..", "C3"),
        ("T10.", "T10"),
        ("EEG A1-REF", "A1"),
        ("FTT9h", "FTT9h"),
        ("fp1-f7", "FP1-F7"),
        ("EEG FP1-F7", "FP1-F7"),
        ("  eeg   cz ", "CZ"),
        ("T3", "T3"),
        ("T7", "T7"),
    ],
)
def test_names_as_recording_systems_write_them(written: str, canonical: str) -> None:
    assert canonical_name(written) == canonical


def test_old_and_new_temporal_names_are_different_rows() -> None:
    assert [channel_index(name) for name in ("T3", "T7", "T4", "T8", "T5", "P7", "T6", "P8")] == [
        88, 37, 90, 45, 89, 59, 91, 67,
    ]  # fmt: skip


def test_rows_of_the_papers_data_sets() -> None:
    names = "Fp1 Fp2 F3 F4 F7 F8 T3 T4 C3 C4 T5 T6 P3 P4 O1 O2 Fz Cz Pz"
    expected = [0, 2, 17, 21, 15, 23, 88, 90, 39, 43, 89, 91, 61, 65, 80, 82, 19, 41, 63]
    assert [channel_index(f"EEG {name}") for name in names.split()] == expected
    assert [channel_index(name) for name in ("EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EEG C3-M2")] == [21, 43, 82, 39]


@pytest.mark.parametrize(
    "name",
    ["ECG ECG", "EEG A2-A1", "EOG E1-M2", "EMG chin", "C3-CZ", "EEG 20-REF", "pad", "", "-", "EEG Pz-Oz"],
)
def test_other_signals_are_unknown(name: str) -> None:
    with pytest.raises(UnknownChannelError):
        canonical_name(name)


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownChannelError, match=r"'EEG FPP1-REF'.*nearest: FP1"):
        canonical_name("EEG FPP1-REF")


@given(
    st.sampled_from(ELECTRODES),
    st.sampled_from(["", "EEG ", "eeg_", "EEG  ", "EEG-"]),
    st.sampled_from(["", ".", ".."]),
    st.sampled_from(["", " "]),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_spelling_does_not_change_the_electrode(name: str, prefix: str, dots: str, blank: str, case) -> None:  # type: ignore[no-untyped-def]
    assert canonical_name(f"{prefix}{case(name)}{dots}{blank}") == name


@given(
    st.sampled_from([name for name in ELECTRODES if "-" not in name]), st.sampled_from(["-REF", "-LE", "-ref", "-AVG"])
)
def test_reference_suffix_does_not_change_the_electrode(name: str, suffix: str) -> None:
    assert canonical_name(f"EEG {name}{suffix}") == name


@given(st.text(max_size=12))
def test_any_text_is_a_known_channel_or_a_clear_error(text: str) -> None:
    try:
        name = canonical_name(text)
    except UnknownChannelError as error:
        assert repr(text) in str(error)
    else:
        assert name in ELECTRODES
        assert canonical_name(name) == name
