"""Where data sets are had from: the open ones from PhysioNet, the others on application; and their lists of files."""

import difflib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from neurolm.config import UserError

SUMS = "SHA256SUMS.txt"
"""PhysioNet's list of a set's files: a SHA-256 and a path a line."""

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]?(\S.*)")


class SourceError(UserError):
    """A data set that cannot be had as asked for, or a list of files that cannot be trusted."""


@dataclass(frozen=True)
class OpenSet:
    """A data set that anybody may download from PhysioNet."""

    title: str
    slug: str
    version: str
    subject: re.Pattern[str]
    """Finds the subject in a file's path; files without one belong to all."""
    size_gb: float
    """About how large the whole set is, in GB of 10^9 bytes."""
    licence: str
    use: str
    """How a config names the folder; ``{folder}`` is put in."""

    @property
    def page(self) -> str:
        """The page that describes it."""
        return f"https://physionet.org/content/{self.slug}/{self.version}/"


@dataclass(frozen=True)
class RestrictedSet:
    """A data set whose owners want to know who uses it."""

    title: str
    apply: str
    layout: str
    """How the files must lie in the folder, as they are published."""


_TUH = (
    "ask for access at https://isip.piconepress.com/projects/nedc/html/tuh_eeg/ (a signed form, free of charge); "
    "the answer names the server that rsync copies from"
)
_SEED = "apply at https://bcmi.sjtu.edu.cn/home/seed/ (a signed licence agreement, free of charge for research)"

OPEN_SETS = {
    "workload": OpenSet(
        title="EEG During Mental Arithmetic Tasks (eegmat)",
        slug="eegmat",
        version="1.0.0",
        subject=re.compile(r"(?:^|/)(Subject\d+)_"),
        size_gb=0.2,
        licence="ODC-BY 1.0",
        use="data.root={folder}",
    ),
    "eegmmidb": OpenSet(
        title="EEG Motor Movement/Imagery Dataset",
        slug="eegmmidb",
        version="1.0.0",
        subject=re.compile(r"(?:^|/)(S\d{3})R\d{2}\."),
        size_gb=3.5,
        licence="ODC-BY 1.0",
        use="data.pretraining_root={folder}",
    ),
    "hmc": OpenSet(
        title="Haaglanden Medisch Centrum sleep staging database",
        slug="hmc-sleep-staging",
        version="1.1",
        subject=re.compile(r"(?:^|/)(SN\d{3})[._]"),
        size_gb=16,
        licence="CC BY 4.0",
        use="data.root={folder} data.sets='{{hmc: {{layout: hmc}}}}'",
    ),
    "siena": OpenSet(
        title="Siena Scalp EEG Database",
        slug="siena-scalp-eeg",
        version="1.0.0",
        subject=re.compile(r"(PN\d{2})"),
        size_gb=20.5,
        licence="CC BY 4.0",
        use="{folder}, laid out as published: PNxx/PNxx-k.edf",
    ),
}
"""By the name on the command line."""

RESTRICTED_SETS = {
    "tuab": RestrictedSet("TUH Abnormal EEG Corpus", _TUH, "edf/{train,eval}/{normal,abnormal}/01_tcp_ar/*.edf"),
    "tuev": RestrictedSet(
        "TUH EEG Events Corpus", _TUH, "edf/{train,eval}/<subject>/*.edf, each with a .rec file of the same name"
    ),
    "tusl": RestrictedSet("TUH EEG Slowing Corpus", _TUH, "edf/**/*.edf, each with a .tse_agg file of the same name"),
    "tueg": RestrictedSet("TUH EEG Corpus", _TUH, "edf/**/*.edf, montage folders (01_tcp_ar, 02_tcp_le, ...) included"),
    "seed": RestrictedSet("SEED", _SEED, "SEED_RAW_EEG/<subject>_<session>.cnt, 45 files"),
}
"""By the name on the command line."""


def open_set(name: str) -> OpenSet:
    """The set of this name.

    Raises:
        SourceError: it is given out on application only (the message says where, and how to lay it out), or unknown.
    """
    if name in OPEN_SETS:
        return OPEN_SETS[name]
    if name in RESTRICTED_SETS:
        restricted = RESTRICTED_SETS[name]
        raise SourceError(
            f"{name}: {restricted.title} is given out on application only.\n"
            f"  where:  {restricted.apply}\n"
            f"  layout: leave the files as they are published: {restricted.layout}\n"
            "  then:   give that folder as data.root"
        )
    names = [*OPEN_SETS, *RESTRICTED_SETS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SourceError(f"{name}: no such data set{hint} (downloaded: {', '.join(OPEN_SETS)}; "
                      f"on application: {', '.join(RESTRICTED_SETS)})")  # fmt: skip


def parse_sums(text: str, source: str) -> dict[str, str]:
    """Paths and their SHA-256 (lower case) of a list as ``sha256sum`` and PhysioNet write it.

    Raises:
        SourceError: a line is none, a path leaves the folder, or a path is listed with two sums.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise SourceError(f"{source}: line {number} is {line[:60]!r}; expected a SHA-256 and a path")
        sha256, path = match[1].lower(), match[2]
        if not _stays_inside(path):
            raise SourceError(
                f"{source}: line {number}: the path {path[:60]!r} leads out of the folder; nothing was fetched"
            )
        if sums.setdefault(path, sha256) != sha256:
            raise SourceError(f"{source}: line {number}: {path} is listed before with another SHA-256")
    if not sums:
        raise SourceError(f"{source}: lists no file; expected a SHA-256 and a path on every line")
    return sums


def of_first_subjects(sums: dict[str, str], source: OpenSet, num_subjects: int) -> dict[str, str]:
    """The files of the first subjects by name, and those that belong to no subject."""
    subjects = {path: match[1] for path in sums if (match := source.subject.search(path))}
    wanted = set(sorted(set(subjects.values()))[:num_subjects])
    return {path: sha256 for path, sha256 in sums.items() if subjects.get(path) is None or subjects[path] in wanted}


def _stays_inside(path: str) -> bool:
    """Whether a listed path is plain and relative, on every system."""
    parts = PurePosixPath(path).parts
    return not (
        path.startswith("/") or ".." in parts or "\\" in path or ":" in path or not parts or not path.isprintable()
    )
