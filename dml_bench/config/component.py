"""A registered name with its options, as a field of an experiment's sections."""

from dataclasses import dataclass, field
from typing import Any

from dml_bench import registry
from dml_bench.registry.plugins import PluginRecord, stand_in
from dml_bench.registry.registries import Entry

__all__ = ["Component", "component", "read_component"]


@dataclass(frozen=True, slots=True)
class Component:
    """A registered name with all of its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    stand_in: Entry | None = field(default=None, compare=False, repr=False)
    """What a run recorded of a plug-in that is not imported; the options are then unchecked."""


def component(kind: registry.Registry, default: str | None = None) -> Any:
    """A field that holds a Component of `kind`; in a file it is a name, or a table of `name` and
    options."""
    metadata = {"registry": kind, "default": default}
    if default is None:
        return field(metadata=metadata)
    return field(
        default_factory=lambda: read_component(default, kind, kind.kind), metadata=metadata
    )


def read_component(
    value: Any,
    kind: registry.Registry,
    where: str,
    default: str | None = None,
    recorded: tuple[PluginRecord, ...] = (),
) -> Component:
    """A Component from a name or a table with `name` and options; all options filled in and
    checked, unless it is one of the plug-ins `recorded` and not imported."""
    table = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict) and "name" not in table and default is not None:
        table = {"name": default, **table}
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError(
            f"{where} must be a {kind.kind}'s name, or a table with a name and options, got"
            f" {value!r}"
        )
    name = table["name"]
    options = {key: option for key, option in table.items() if key != "name"}
    record = next((one for one in recorded if (one.kind, one.name) == (kind.kind, name)), None)
    if record is not None and not is_here(kind, record):
        return Component(name, options, stand_in(record))
    return Component(name, kind[name].resolve(options, where))


def is_here(kind: registry.Registry, record: PluginRecord) -> bool:
    """Whether the name is this program's own, or that very plug-in is imported."""
    kind.names()  # fills the registry
    if kind.is_own(record.name):
        return True
    entry = kind.registered(record.name)
    return entry is not None and entry.origin is not None and entry.origin.sha256 == record.sha256
