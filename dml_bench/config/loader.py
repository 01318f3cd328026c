"""The strict way from nested tables to an experiment, and back."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from dml_bench.config.component import Component, read_component
from dml_bench.config.experiment import Experiment
from dml_bench.config.sections import Plugins
from dml_bench.registry import UnknownName, checked, near_miss
from dml_bench.registry.plugins import PLUGGABLE, PluginRecord, import_plugins, require_unchanged

__all__ = ["as_table", "hints_of", "import_components", "load"]

hints_of = cache(get_type_hints)


def load(table: dict[str, Any], wanted: type[Any] = Experiment, where: str = "") -> Any:
    """Build `wanted` from nested tables; no plug-in is imported. Raises ValueError on an unknown
    key, a wrong type or a wrong combination."""
    return _read_section(table, wanted, where, recorded_plugins(table))


def recorded_plugins(table: dict[str, Any]) -> tuple[PluginRecord, ...]:
    """The plug-ins that a run recorded in its experiment."""
    plugins = table.get("plugins")
    return () if plugins is None else _read(plugins, Plugins, "plugins", ()).components


def import_components(table: dict[str, Any]) -> None:
    """Import the plug-ins that an experiment's tables name: for tables that a person wrote. Raises
    ValueError where one can't be imported, or is another than the tables have recorded."""
    plugins = table.get("plugins")
    files: set[str] = set()
    if plugins is not None:
        imports = _read(plugins, Plugins, "plugins", ()).imports
        import_plugins(imports)
        files = {str(Path(name).resolve()) for name in imports if name.endswith(".py")}
    recorded = {(record.kind, record.name): record for record in recorded_plugins(table)}
    for kind, name in _named(table, Experiment):
        registry = PLUGGABLE.get(kind)
        if registry is None:
            continue
        registry.require_one_of(files, name)
        record = recorded.get((kind, name))
        if record is None or not record.file or record.module:
            registry.import_component(name)
        if record is not None:
            require_unchanged(record)


def _named(table: dict[str, Any], wanted: type[Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of each component in nested tables, whatever else may be wrong with them."""
    hints = hints_of(wanted)  # type: ignore[arg-type] # a type can be hashed
    for part in fields(wanted):
        value = table.get(part.name)
        if "registry" in part.metadata:
            name = value.get("name") if isinstance(value, dict) else value
            if isinstance(name, str):
                yield part.metadata["registry"].kind, name
        elif is_dataclass(hints[part.name]) and isinstance(value, dict):
            yield from _named(value, hints[part.name])


def _read_section(
    table: dict[str, Any], wanted: type[Any], where: str, recorded: tuple[PluginRecord, ...]
) -> Any:
    hints = hints_of(wanted)  # type: ignore[arg-type] # a type can be hashed
    known = {f.name: f for f in fields(wanted)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{where}{key}"
        if key not in known:
            raise UnknownName(
                f"unknown key {path}{near_miss(key, list(known))};"
                f" {where.rstrip('.') or 'an experiment'} has: {', '.join(known)}"
            )
        if "registry" in known[key].metadata:
            metadata = known[key].metadata
            values[key] = read_component(
                value, metadata["registry"], path, metadata["default"], recorded
            )
        else:
            values[key] = _read(value, hints[key], path, recorded)
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}{name} is missing")
    return wanted(**values)


def _read(value: Any, hint: Any, path: str, recorded: tuple[PluginRecord, ...]) -> Any:
    options = (
        [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else []
    )
    if options:
        return None if value is None else _read(value, options[0], path, recorded)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{path} must be a table, got {value!r}")
        return _read_section(value, hint, f"{path}.", recorded)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} must be a list of tables, got {value!r}")
        return tuple(_read(item, get_args(hint)[0], path, recorded) for item in value)
    return checked(value, hint, path)


def as_table(experiment: Experiment) -> dict[str, Any]:
    """Nested tables of plain values: `load(as_table(e)) == e`, also after a trip through JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    def flatten(value: Any) -> Any:
        if isinstance(value, Component):
            return {"name": value.name, **plain(value.options)}
        if isinstance(value, tuple) and value and is_dataclass(value[0]):
            return [flatten(item) for item in value]
        if is_dataclass(value):
            return {
                f.name: flatten(getattr(value, f.name))
                for f in fields(value)
                if getattr(value, f.name) is not None
            }
        return plain(value)

    return flatten(experiment)
