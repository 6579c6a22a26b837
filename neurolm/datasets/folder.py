"""Any folder of recordings, declared in YAML: globs find them, their paths and a table say what they are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from neurolm.datasets.dataset import DataSetError, SourceFile
from neurolm.datasets.declared import DeclaredDataSet, Facts
from neurolm.datasets.tables import TableError, column, read_table


@dataclass(frozen=True, kw_only=True)
class FolderDataSet(DeclaredDataSet):
    """Recordings found by globs."""

    def recordings(self, root: Path) -> Iterable[tuple[Path, Facts, tuple[Path, ...]]]:
        """Every file that matches, by path. Raises DataSetError: no row in the table, or not what ``path`` says."""
        excluded = {path for pattern in self.declaration.exclude for path in self._glob(root, pattern)}
        found = {path for pattern in self.declaration.files for path in self._glob(root, pattern)} - excluded
        names = {path: path.relative_to(root) for path in sorted(found)}
        table = self._table(root)
        for path, name in names.items():
            if not path.is_file() or any(part.startswith(".") for part in name.parts):
                continue
            facts = self._facts(name.as_posix())
            if self.declaration.table is not None:
                match = self.declaration.table.match
                row = table.get(self._fact(name.as_posix(), facts, "table.match", match))
                if row is None:
                    raise DataSetError(
                        f"{self.declaration.file}: table: {self.declaration.table.file} has no row for {match} "
                        f"{facts[match]!r} ({name}); add it, or leave the file out with exclude"
                    )
                facts = self._facts(name.as_posix(), row)
            beside = self._events_file(path, facts)
            yield path, facts, () if beside is None else (beside,)

    def events_file(self, source: SourceFile) -> Path | None:
        """The declared table beside the recording."""
        return self._events_file(source.path, self._facts(source.recording))

    def _events_file(self, path: Path, facts: Facts) -> Path | None:
        events = self.declaration.events
        if events is None or events.file is None:
            return None
        try:
            return path.parent / events.file.format_map(facts)
        except KeyError as error:
            raise DataSetError(
                f"{self.declaration.file}: events.file: {error} is unknown; known: {', '.join(facts)}"
            ) from None

    def _facts(self, name: str, row: Facts | None = None) -> dict[str, str]:
        """What a path says by itself, then the row of the table, then the groups of ``path``; the later ones win."""
        path = PurePosixPath(name)
        prefix, _, suffix = path.stem.rpartition("_")
        facts = {
            "path": name,
            "name": path.name,
            "stem": path.stem,
            "prefix": prefix or path.stem,
            "suffix": suffix,
            "folder": path.parent.name,
        } | dict(row or {})
        if self.declaration.path is None:
            return facts
        match = re.fullmatch(f"(?:.*?/)??(?:{self.declaration.path})", name)
        if match is None:
            raise DataSetError(
                f"{self.declaration.file}: path: {name} is found by files, but does not match "
                f"{self.declaration.path!r}; mend one of them, or list the file in exclude"
            )
        return facts | {group: value for group, value in match.groupdict().items() if value is not None}

    def _glob(self, root: Path, pattern: str) -> Iterable[Path]:
        try:
            return list(root.glob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise DataSetError(
                f"{self.declaration.file}: files: {pattern!r} is no glob below {root}: {error}"
            ) from None

    def _table(self, root: Path) -> dict[str, dict[str, str]]:
        settings = self.declaration.table
        if settings is None:
            return {}
        try:
            rows = read_table(root / settings.file)
            keys = column(rows, settings.key)
        except TableError as error:
            raise DataSetError(f"{self.declaration.file}: table: {root / settings.file}: {error}") from None
        if len(set(keys)) < len(keys):
            raise DataSetError(f"{self.declaration.file}: table: {settings.key} of {settings.file} is not unique")
        return dict(zip(keys, rows, strict=True))
