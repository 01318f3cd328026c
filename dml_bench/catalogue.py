"""Tables of everything that has a name: for `dml-bench list`, its JSON, and the documentation."""

from typing import TYPE_CHECKING, Any

from dml_bench import experiments, registry

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_rich", "entries"]


def entries(kind: str) -> list[dict[str, Any]]:
    """One record per experiment, or per entry of the registry called `kind`: name, summary, source, options, facts."""
    if kind == "experiments":
        found = [experiments.resolve(name) for name in experiments.names()]
        return [{"name": e.name, "summary": e.summary, "source": "; ".join(sorted({x.source for x in e.expects}))} for e in found]
    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "source": entry.source,
            "options": {name: option.default for name, option in entry.options.items()},
            **entry.facts,
        }
        for entry in getattr(registry, kind)
    ]


def as_rich(kind: str, records: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{len(records)} {kind}", title_justify="left")
    columns = ["name", "summary", "options", "source"] if kind != "experiments" else ["name", "summary"]
    for column in columns:
        table.add_column(column, overflow="fold")
    for record in records:
        options = ", ".join(f"{name}={default}" for name, default in record.get("options", {}).items())
        table.add_row(*({**record, "options": options}[column] for column in columns))
    return table
