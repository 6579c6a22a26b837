"""The electrode vocabulary: which row of the spatial embedding a channel's name stands for.

The order is the released model's (LaBraM's list, then bipolar pairs, "pad", I1 and I2), because published weights
index it. T3 and T7, T4 and T8, T5 and P7, T6 and P8 are rows of their own: old and new names are never swapped.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from neurolm.config import UserError

_ROWS = """
    FP1 FPZ FP2
    AF9 AF7 AF5 AF3 AF1 AFZ AF2 AF4 AF6 AF8 AF10
    F9 F7 F5 F3 F1 FZ F2 F4 F6 F8 F10
    FT9 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 FT8 FT10
    T9 T7 C5 C3 C1 CZ C2 C4 C6 T8 T10
    TP9 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 TP10
    P9 P7 P5 P3 P1 PZ P2 P4 P6 P8 P10
    PO9 PO7 PO5 PO3 PO1 POZ PO2 PO4 PO6 PO8 PO10
    O1 OZ O2 O9 CB1 CB2 IZ O10
    T3 T5 T4 T6 M1 M2 A1 A2
    CFC1 CFC2 CFC3 CFC4 CFC5 CFC6 CFC7 CFC8
    CCP1 CCP2 CCP3 CCP4 CCP5 CCP6 CCP7 CCP8
    T1 T2
    FTT9h TTP7h TPP9h FTT10h TPP8h TPP10h
    FP1-F7 F7-T7 T7-P7 P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2
    FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2
    pad
    I1 I2
"""

CHANNELS: tuple[str, ...] = tuple(_ROWS.split())
"""Canonical names; the index is the row of the spatial embedding."""

PAD = "pad"
"""The row of padding tokens; no electrode has this name."""

_EARS = frozenset({"A1", "A2", "M1", "M2"})
_REFERENCE = re.compile(
    r"REF\d?|REFERENCE|C?LE|LER|LINKED ?(EARS?|MASTOIDS?)|AR|AVG?|AVE(RAGE)?|CAR|AA"
    r"|[AM][12]|\(?(A1 ?[+/]? ?A2|M1 ?[+/]? ?M2)\)?( ?/ ?2)?"
)
"""What may follow an electrode's name to say what was subtracted from it."""
_CANONICAL = {name.upper(): name for name in CHANNELS if name != PAD}
_INDEX = {name: index for index, name in enumerate(CHANNELS)}
_PREFIX = re.compile(r"^EEG[\s_:-]*")
_SEPARATOR = re.compile(r"\s*[-_/:]\s*")
_OLD_AND_NEW = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_NEW_AND_OLD = {new: old for old, new in _OLD_AND_NEW.items()}
_BIOSEMI = re.compile(r"A([3-9]|[12]\d|3[0-2])")


class UnknownChannelError(UserError):
    """A channel's name that is not in the vocabulary."""


class SelectionError(UserError):
    """Channels that cannot be taken from a file as asked."""


@dataclass(frozen=True)
class Selection:
    """Which of a file's channels are read, and which are not."""

    names: tuple[str, ...]
    """The file's own names of the channels to read, in the order wanted."""
    channels: tuple[str, ...]
    """What they are called in the vocabulary."""
    left_out: tuple[str, ...]
    """The file's own names of all others."""


def canonical_name(name: str) -> str:
    """The vocabulary's name of a channel as recording systems write it.

    Case, the prefix "EEG", padding dots and a reference behind the electrode carry no position and are taken off:
    "EEG FP1-REF", "Fp1.", "Fp1-(A1+A2)/2" and "EEG Fp1" are FP1, "EEG F4-M1" is F4. Two electrodes with a hyphen stay a
    bipolar channel, known only if the pair is in the vocabulary; an ear against the other ear is no position and
    unknown. Names of the old and the new convention (T3 and T7) are never taken for each other, in pairs neither.

    Raises:
        UnknownChannelError: names the nearest channels of the vocabulary.
    """
    plain = _plain(name)
    if plain in _CANONICAL:
        return _CANONICAL[plain]
    electrode, *rest = _SEPARATOR.split(plain, maxsplit=1)
    suffix = rest[0] if rest else ""
    if f"{electrode}-{suffix}" in _CANONICAL:
        return _CANONICAL[f"{electrode}-{suffix}"]
    is_referenced = _REFERENCE.fullmatch(suffix) is not None
    if is_referenced and electrode in _CANONICAL and not (electrode in _EARS and suffix in _EARS):
        return _CANONICAL[electrode]
    nearest = nearest_names(electrode if is_referenced else plain)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise UnknownChannelError(f"channel {name!r} is not in the electrode vocabulary{hint}; rename it or leave it out")


def select_channels(
    names: Sequence[str],
    picks: Sequence[str] | Mapping[str, str] | None = None,
    drop: Sequence[str] = ("*",),
) -> Selection:
    """Map a file's channels to the vocabulary.

    Args:
        names: the file's own names.
        picks: channels in the order wanted, by the file's own or by any spelling of their names; or the file's own
            names and what each of them is (``{"EEG 1": "FP1"}``); None takes every channel of the vocabulary.
        drop: names of channels to leave out, or patterns with * and ? for channels that may be left out where they are
            not picked and, without picks, not in the vocabulary. Any other channel that is left is an error.

    Raises:
        SelectionError: a pick is missing or could be several channels, two channels are one electrode, or a channel
            is neither picked nor listed in ``drop``.
        UnknownChannelError: a name that has to be understood is not in the vocabulary.
    """
    if picks is None:
        listed = {pattern.upper() for pattern in drop}
        known = {name: channel for name in names if (channel := known_name(name))}
        chosen = {name: channel for name, channel in known.items() if not {name.upper(), channel.upper()} & listed}
    elif isinstance(picks, Mapping):
        chosen = {_own_name(names, name): canonical_name(channel) for name, channel in picks.items()}
    else:
        found = [_own_name(names, pick) for pick in picks]
        chosen = {name: canonical_name(name) for name in found}
        if len(chosen) < len(found):
            raise SelectionError(f"{_listed(found)}: a channel is picked twice")
    if not isinstance(picks, Mapping):
        _refuse_biosemi(names, chosen)
    for channel, count in Counter(chosen.values()).items():
        if count > 1:
            same = _listed([name for name, known in chosen.items() if known == channel])
            raise SelectionError(f"{same} are the same electrode {channel}; pick one of them")
    left_out = tuple(name for name in names if name not in chosen)
    for name in left_out:
        if not _matches(name, drop) and not _matches(known_name(name) or name, drop):
            canonical_name(name)  # an unknown name says which known ones are near
            raise SelectionError(f"channel {name!r} is neither picked nor listed in drop; add it to one of them")
    if not chosen:
        raise SelectionError(f"no channel is in the electrode vocabulary; the file has {_listed(names)}; rename them")
    return Selection(tuple(chosen), tuple(chosen.values()), left_out)


def known_name(name: str) -> str | None:
    """`canonical_name`, or None for a channel that is not in the vocabulary."""
    try:
        return canonical_name(name)
    except UnknownChannelError:
        return None


def channel_index(name: str) -> int:
    """The row of the spatial embedding for a channel's name. Raises UnknownChannelError."""
    return _INDEX[canonical_name(name)]


def nearest_names(name: str) -> list[str]:
    """Up to three channels of the vocabulary that are spelt most like ``name``; the other convention's name first."""
    plain = _plain(name)
    parts = _SEPARATOR.split(plain)
    renamed = ("-".join(table.get(part, part) for part in parts) for table in (_OLD_AND_NEW, _NEW_AND_OLD))
    convention = [other for other in renamed if other != plain and other in _CANONICAL]
    close = difflib.get_close_matches(plain, list(_CANONICAL), n=3, cutoff=0.5)
    return [_CANONICAL[key] for key in dict.fromkeys(convention + close)][:3]


def _own_name(names: Sequence[str], pick: str) -> str:
    """The file's own name of a wanted channel."""
    if pick in names:
        return pick
    wanted = known_name(pick)
    if wanted is None:
        hint = f"; nearest: {', '.join(near)}" if (near := nearest_names(pick)) else ""
        raise SelectionError(
            f"channel {pick!r} is missing and not in the electrode vocabulary{hint}; the file has {_listed(names)}"
        )
    matches = [name for name in names if known_name(name) == wanted]
    if not matches:
        raise SelectionError(f"channel {pick!r} is missing; the file has {_listed(names)}")
    if len(matches) > 1:
        raise SelectionError(f"channel {pick!r} could be {_listed(matches)}; give the file's own name")
    return matches[0]


def _refuse_biosemi(names: Sequence[str], chosen: Mapping[str, str]) -> None:
    """BioSemi calls places on the scalp A1 to A32: its A1 and A2 are no ears."""
    others = [name for name in names if _BIOSEMI.fullmatch(_plain(name))]
    ears = [name for name, channel in chosen.items() if channel in ("A1", "A2")]
    if len(others) > 1 and ears:
        raise SelectionError(
            f"{_listed(ears)} beside {_listed(others[:2])} are BioSemi's positions, not the ears A1 and A2; "
            "say which electrode each of them is"
        )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)


def _plain(name: str) -> str:
    upper = " ".join(name.upper().split())
    return _PREFIX.sub("", upper).replace(".", "").strip()
