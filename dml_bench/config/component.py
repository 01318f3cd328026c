"""A registered name with its options, as a field of an experiment's sections."""

from dataclasses import dataclass, field
from typing import Any

from dml_bench import registry

__all__ = ["Component", "component", "read_component"]


@dataclass(frozen=True, slots=True)
class Component:
    """A registered name with all of its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


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
    value: Any, kind: registry.Registry, where: str, default: str | None = None
) -> Component:
    """A Component from a name or a table with `name` and options; all options filled in and
    checked."""
    table = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict) and "name" not in table and default is not None:
        table = {"name": default, **table}
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError(
            f"{where} is {value!r}; a {kind.kind}'s name, or a table with a name and options, is"
            " wanted"
        )
    name = table["name"]
    given = {key: option for key, option in table.items() if key != "name"}
    return Component(name, kind[name].resolve(given, where))
