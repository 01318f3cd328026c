"""Tables of everything that has a name: for `dml-bench list`, its JSON, and the documentation."""

from typing import TYPE_CHECKING, Any

from dml_bench import registry
from dml_bench.config import experiments

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["KINDS", "as_page", "as_rich", "entries"]

KINDS = (
    "experiments",
    "datasets",
    "backbones",
    "poolings",
    "heads",
    "losses",
    "miners",
    "samplers",
    "starts",
    "optimizers",
    "schedules",
    "mixings",
    "labellings",
    "indexes",
)


def entries(kind: str) -> list[dict[str, Any]]:
    """One record per experiment, or per entry of the registry called `kind`: name, summary, source,
    options, facts."""
    if kind == "experiments":
        found = [experiments.resolve(name) for name in experiments.names()]
        return [
            {
                "name": e.name,
                "summary": e.summary,
                "source": "; ".join(sorted({x.source for x in e.expects})),
            }
            for e in found
        ]
    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "source": entry.source,
            "options": {name: option.default for name, option in entry.options.items()},
            **{
                name: fact
                for name, fact in entry.facts.items()
                if not callable(fact) and fact is not None
            },
        }
        for entry in getattr(registry, kind)
    ]


def cells(kind: str, record: dict[str, Any]) -> dict[str, str]:
    """What a table shows of a record: facts that are plain yes or no become one column of words."""
    if kind == "experiments":
        return {"name": record["name"], "summary": record["summary"]}
    options = ", ".join(f"{name}={default}" for name, default in record["options"].items())
    facts = ", ".join(name.replace("_", " ") for name, value in record.items() if value is True)
    shown = {
        "name": record["name"],
        "summary": record["summary"],
        "options": options,
        "facts": facts,
        "source": record["source"],
    }
    return (
        shown if kind == "losses" else {key: text for key, text in shown.items() if key != "facts"}
    )


def as_rich(kind: str, records: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{len(records)} {kind}", title_justify="left")
    rows = [cells(kind, record) for record in records]
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table


def as_page(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a section with a table for each kind."""
    return "\n".join(
        [
            "# Everything that has a name",
            "",
            *(line for kind in found for line in section(kind, found[kind])),
        ]
    )


def section(kind: str, records: list[dict[str, Any]]) -> list[str]:
    rows = [cells(kind, record) for record in records]
    lines = [
        f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row.values())} |"
        for row in rows
    ]
    return [
        f"## {kind.capitalize()}",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *lines,
        "",
    ]
