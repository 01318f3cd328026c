"""The strict way from nested tables to an experiment, and back."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from dml_bench.config.component import Component, read_component
from dml_bench.config.experiment import Experiment
from dml_bench.registry import UnknownName, checked, near_miss

__all__ = ["as_table", "load"]


def load(table: dict[str, Any], wanted: type[Any] = Experiment, where: str = "") -> Any:
    """Build `wanted` from nested tables. Raises ValueError on an unknown key, a wrong type or a
    wrong combination."""
    hints = get_type_hints(wanted)
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
            values[key] = read_component(
                value, known[key].metadata["registry"], path, known[key].metadata["default"]
            )
        else:
            values[key] = _read(value, hints[key], path)
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}{name} is missing")
    return wanted(**values)


def _read(value: Any, hint: Any, path: str) -> Any:
    options = (
        [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else []
    )
    if options:
        return None if value is None else _read(value, options[0], path)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{path} is {value!r}; a table is wanted")
        return load(value, hint, f"{path}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} is {value!r}; a list of tables is wanted")
        return tuple(_read(item, get_args(hint)[0], path) for item in value)
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
