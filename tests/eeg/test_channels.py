import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm.eeg.channels import (
    CHANNELS,
    PAD,
    SelectionError,
    UnknownChannelError,
    canonical_name,
    channel_index,
    nearest_names,
    select_channels,
)

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
        ("EEGFp1", "FP1"),
        ("EEG C3-A1+A2", "C3"),
        ("Cz-(A1+A2)/2", "CZ"),
        ("Fz-linked ears", "FZ"),
        ("POz - Ref", "POZ"),
        ("EEG F3-CLE", "F3"),
        ("Fp1 - F7", "FP1-F7"),
        ("EEG T7_P7", "T7-P7"),
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
    st.sampled_from([name for name in ELECTRODES if "-" not in name]),
    st.sampled_from(["-REF", "-LE", "-ref", "-AVG", " - Ref1", "_CAR", "-(A1+A2)/2"]),
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


OLD_AND_NEW = [("T3", "T7"), ("T4", "T8"), ("T5", "P7"), ("T6", "P8")]


@given(
    st.sampled_from([pair for names in OLD_AND_NEW for pair in (names, names[::-1])]),
    st.sampled_from(["", "EEG "]),
    st.sampled_from(["", ".", "-REF", "-LE", "-A1"]),
    st.sampled_from([str.upper, str.lower]),
)
def test_old_and_new_names_are_never_taken_for_each_other(
    names: tuple[str, str], prefix: str, suffix: str, case
) -> None:  # type: ignore[no-untyped-def]
    written = f"{prefix}{case(names[0])}{suffix}"
    assert canonical_name(written) == names[0]
    with pytest.raises(SelectionError, match="is missing"):
        select_channels([written], [names[1]])


def test_a_pair_in_old_names_is_unknown_and_shown_in_new_ones() -> None:
    for old, new in [("T3-T5", "T7-P7"), ("EEG F7-T3", "F7-T7"), ("T6-O2", "P8-O2")]:
        with pytest.raises(UnknownChannelError, match=f"nearest: {new}"):
            canonical_name(old)
    assert nearest_names("T9-P7")[0] == "T7-P7"


def test_every_channel_is_picked_or_listed() -> None:
    names = ["EEG Fp1-REF", "EEG Cz-REF", "EOG1", "EKG"]
    selection = select_channels(names, drop=["EOG*", "ekg"])
    assert (selection.names, selection.channels) == (("EEG Fp1-REF", "EEG Cz-REF"), ("FP1", "CZ"))
    assert selection.left_out == ("EOG1", "EKG")
    with pytest.raises(UnknownChannelError, match="'EKG' is not in the electrode vocabulary"):
        select_channels(names, drop=["EOG*"])
    with pytest.raises(SelectionError, match="'EEG Cz-REF' is neither picked nor listed in drop"):
        select_channels(names, ["Fp1"], drop=["EOG1", "EKG"])
    assert select_channels(names, ["Fp1"], drop=["EOG1", "EKG", "Cz"]).channels == ("FP1",)


def test_a_known_channel_goes_only_by_its_name() -> None:
    names = ["Fp1", "EEG A1-REF", "EOG1"]
    assert select_channels(names).channels == ("FP1", "A1")
    assert select_channels(names, drop=["*", "A1"]).channels == ("FP1",)
    assert select_channels(names, drop=["EOG1", "EEG A1-REF"]).channels == ("FP1",)


def test_a_map_says_what_a_channel_is() -> None:
    selection = select_channels(["1", "2", "T7"], {"2": "fp1", "T7": "T3"}, drop=["1"])
    assert (selection.names, selection.channels, selection.left_out) == (("2", "T7"), ("FP1", "T3"), ("1",))
    with pytest.raises(SelectionError, match="'3' is missing"):
        select_channels(["1", "2"], {"3": "FP1"})
    with pytest.raises(SelectionError, match="'1', '2' are the same electrode FP1"):
        select_channels(["1", "2"], {"1": "FP1", "2": "Fp1"})
    with pytest.raises(UnknownChannelError, match="'FPP1'"):
        select_channels(["1"], {"1": "FPP1"})


def test_biosemis_positions_are_no_ears() -> None:
    names = [f"A{number}" for number in range(1, 33)]
    with pytest.raises(SelectionError, match="BioSemi"):
        select_channels(names)
    with pytest.raises(SelectionError, match="BioSemi"):
        select_channels(names, ["A1"])
    assert select_channels(names, {"A1": "Cz"}).channels == ("CZ",)
    assert select_channels(["A1", "A2", "Cz"]).channels == ("A1", "A2", "CZ")


@given(st.lists(st.sampled_from([*ELECTRODES, "EOG", "Status", "x"]), unique=True, min_size=1), st.data())
def test_selected_and_left_out_channels_add_up(names: list[str], data: st.DataObject) -> None:
    picks = data.draw(st.none() | st.lists(st.sampled_from(names), unique=True, min_size=1))
    try:
        selection = select_channels(names, picks)
    except (SelectionError, UnknownChannelError):
        return
    assert sorted(selection.names + selection.left_out) == sorted(names)
    assert len(set(selection.channels)) == len(selection.channels) == len(selection.names)
    assert [canonical_name(name) for name in selection.names] == list(selection.channels)
    assert picks is None or list(selection.names) == picks
