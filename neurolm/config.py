"""One YAML file plus dotted overrides becomes one frozen, validated config object; nothing here is about EEG.

A dotted name such as ``optimizer.learning_rate`` is the path in the YAML file, the override on the command line, the
key in a sweep's search space and the parameter in MLflow. Three keys are read here:

- ``base: data.yaml`` takes the settings of another file (relative to this one); this file's own settings win;
- ``quick: {epochs: 2}`` holds dotted settings that apply when ``budget`` is ``quick``;
- ``declaration: mine.yaml`` puts the settings of another file there (relative to this one, in an override relative to
  the working directory), and the file's name as its ``file``.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform, get_args, get_origin

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

C = TypeVar("C")


def _location(value: Any) -> Any:
    """A folder or file as users write it: a path, or a file:// URI."""
    text = str(value)
    if "://" not in text:
        return value
    scheme, _, rest = text.partition("://")
    if scheme != "file":
        raise ValueError(f"{scheme}:// is not supported; mount the bucket and give the folder it is mounted at")
    return Path("/" + rest.lstrip("/"))


Location = Annotated[Path, BeforeValidator(_location)]
"""A path or a file:// URI."""


class UserError(ValueError):
    """Something the user can mend: the message says where, what was found, what was expected and what to do."""


class ConfigError(UserError):
    """A config that cannot be used; the message names the file, the setting and what would be accepted."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field, dataclasses.field))
def config(cls: type[C]) -> type[C]:
    """Make a class a frozen, keyword-only dataclass that validates its fields and refuses unknown ones."""
    settings = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return cast(type[C], dataclass(frozen=True, kw_only=True, config=settings)(cls))


def load(cls: type[C], path: str | Path, overrides: Mapping[str, Any] | None = None) -> C:
    """Read a YAML file, apply dotted overrides and build a ``cls``. Raises ConfigError."""
    return build(cls, read(path, overrides), source=str(path))


def read(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plain settings of a YAML file: base files merged, the budget's settings and the overrides applied."""
    values = _read_with_base(Path(path), ())
    overrides = dict(overrides or {})
    quick = values.pop("quick", None) or {}
    if overrides.get("budget", values.get("budget")) == "quick":
        _assign_all(values, quick)
    _assign_all(values, overrides)
    return values


def override(instance: C, overrides: Mapping[str, Any]) -> C:
    """A copy of a config with dotted settings replaced and validated again; how a trial becomes a config."""
    values = as_dict(instance)
    _assign_all(values, overrides)
    return build(type(instance), values, source="override")


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Parse ``["optimizer.learning_rate=3e-4"]`` from a command line into dotted names and values."""
    overrides = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise ConfigError(f"override {argument!r} has no value; write it as dotted.name=VALUE")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {argument!r} is not valid YAML: {error}") from None
    return overrides


def as_dict(instance: Any) -> dict[str, Any]:
    """The config as plain values, as saved beside every checkpoint."""
    values: dict[str, Any] = TypeAdapter(type(instance)).dump_python(instance, mode="json")
    return values


def as_yaml(instance: Any) -> str:
    """The config as the YAML text that builds it again."""
    return yaml.safe_dump(as_dict(instance), sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optimizer": {"epochs": 1}}`` to ``{"optimizer.epochs": 1}``; the names MLflow shows."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def digest(values: Any) -> str:
    """A short SHA-256 of a config or of plain values, independent of the order of keys."""
    plain = as_dict(values) if dataclasses.is_dataclass(values) else values
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted ``name`` in nested plain settings; a mapping, or another ``kind``, replaces what was there."""
    *sections, leaf = name.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    if leaf == "kind" and values.get("kind", value) != value:
        values.clear()  # the settings of a deepspeed engine mean nothing to a torch engine
    values[leaf] = _with_declarations({leaf: value}, Path())[leaf]


def _assign_all(values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Set dotted settings, sections before their contents and kinds first: the order given does not matter."""
    for name in sorted(settings, key=lambda name: (name.count("."), not name.endswith(".kind"))):
        assign(values, name, settings[name])


def build(cls: type[C], values: Mapping[str, Any], source: str) -> C:
    """Build a ``cls`` from plain settings; ``source`` names their origin in errors."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, source, detail) for detail in error.errors())) from None


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: a file cannot be its own base ({' -> '.join(map(str, seen))})")
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings (name: value), found {type(values).__name__}")
    values = _with_declarations(values, path.parent)
    base = values.pop("base", None)
    if base is None:
        return values
    return _merge(_read_with_base(path.parent / base, (*seen, path.resolve())), values)


def _with_declarations(values: Any, folder: Path) -> Any:
    """Put what a ``declaration`` names in its place; then it can be overridden, saved and sent like other settings."""
    if not isinstance(values, dict):
        return values
    found = {}
    for name, value in values.items():
        if str(name).split(".")[-1] == "declaration" and isinstance(value, str):
            found[name] = _read_with_base(folder / value, ()) | {"file": str(folder / value)}
        else:
            found[name] = _with_declarations(value, folder)
    return found


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        merged[name] = _merge(merged[name], value) if _is_same_kind(merged.get(name), value) else value
    return merged


def _is_same_kind(under: Any, over: Any) -> bool:
    """Whether a section adds to one it lies over: another ``kind`` of engine, or another ``file``, replaces it."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return False
    return all(key not in over or under.get(key) == over[key] for key in ("kind", "file"))


def _explain(cls: type, source: str, error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    name = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        known = _settings_at(cls, path[:-1])
        guess = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {guess[0]!r}?" if guess else f"known settings: {', '.join(known)}"
        return f"{source}: {name}: no such setting; {hint}"
    if error["type"] == "missing_argument" or error["type"] == "missing":
        return f"{source}: {name}: this setting is required and missing"
    message = error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(error["input"], Mapping) else f" (found {error['input']!r})"
    return f"{source}: {name}: {message}{found}" if name else f"{source}: {message}"


def _settings_at(cls: Any, path: list[str]) -> list[str]:
    """Setting names of the section at ``path``; a union such as ``engine`` is searched by its ``kind``."""
    for name in path:
        sections = _sections(cls)
        by_name = {field.name: field.type for section in sections for field in dataclasses.fields(section)}
        by_kind = {
            field.default: section
            for section in sections
            for field in dataclasses.fields(section)
            if field.name == "kind"
        }
        if name in by_name:
            cls = by_name[name]
        elif name in by_kind:
            cls = by_kind[name]
        elif get_origin(cls) is dict:
            cls = get_args(cls)[1]
    return [field.name for section in _sections(cls) for field in dataclasses.fields(section)]


def _sections(cls: Any) -> list[Any]:
    """The dataclasses an annotation may hold."""
    if get_origin(cls) is Annotated:
        return _sections(get_args(cls)[0])
    options = [cls] if isinstance(cls, type) else list(get_args(cls))
    is_section: Callable[[Any], bool] = lambda option: isinstance(option, type) and dataclasses.is_dataclass(option)  # noqa: E731
    return [option for option in options if is_section(option)]
