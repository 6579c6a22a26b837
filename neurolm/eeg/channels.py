"""The electrode vocabulary: which row of the spatial embedding a channel's name stands for.

The order is the released model's (LaBraM's list, then bipolar pairs, "pad", I1 and I2), because published weights
index it. T3 and T7, T4 and T8, T5 and P7, T6 and P8 are rows of their own: old and new names are never swapped.
"""

import difflib
import re

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
_REFERENCES = frozenset({"REF", "LE", "AR", "AVG", "AVE", "CAR", "A1A2", "M1M2"}) | _EARS
_CANONICAL = {name.upper(): name for name in CHANNELS if name != PAD}
_INDEX = {name: index for index, name in enumerate(CHANNELS)}
_PREFIX = re.compile(r"^EEG[\s_:-]+")
_SEPARATOR = re.compile(r"[-_/:]")


class UnknownChannelError(UserError):
    """A channel's name that is not in the vocabulary."""


def canonical_name(name: str) -> str:
    """The vocabulary's name of a channel as recording systems write it.

    Case, the prefix "EEG", padding dots and a reference suffix carry no position and are taken off: "EEG FP1-REF",
    "Fp1." and "EEG Fp1" are FP1, "EEG F4-M1" is F4. Two electrodes with a hyphen stay a bipolar channel, known only
    if the pair is in the vocabulary; an ear against the other ear is no position and unknown.

    Raises:
        UnknownChannelError: names the nearest channels of the vocabulary.
    """
    plain = _plain(name)
    if plain in _CANONICAL:
        return _CANONICAL[plain]
    electrode, *suffix = _SEPARATOR.split(plain, maxsplit=1)
    electrode = electrode.strip()
    is_referenced = bool(suffix) and suffix[0].strip() in _REFERENCES
    if is_referenced and electrode in _CANONICAL and not (electrode in _EARS and suffix[0].strip() in _EARS):
        return _CANONICAL[electrode]
    nearest = nearest_names(electrode if is_referenced else plain)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise UnknownChannelError(f"channel {name!r} is not in the electrode vocabulary{hint}; rename it or leave it out")


def channel_index(name: str) -> int:
    """The row of the spatial embedding for a channel's name. Raises UnknownChannelError."""
    return _INDEX[canonical_name(name)]


def nearest_names(name: str) -> list[str]:
    """Up to three channels of the vocabulary that are spelt most like ``name``."""
    found = difflib.get_close_matches(_plain(name), list(_CANONICAL), n=3, cutoff=0.5)
    return [_CANONICAL[key] for key in found]


def _plain(name: str) -> str:
    upper = " ".join(name.upper().split())
    return _PREFIX.sub("", upper).replace(".", "").strip()
