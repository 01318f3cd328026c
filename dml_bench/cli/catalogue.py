"""Tables of everything that has a name: for `dml-bench list`, its JSON, and the documentation."""

from typing import TYPE_CHECKING, Any

from dml_bench import registry
from dml_bench.config import experiments
from dml_bench.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["KINDS", "as_page", "as_rich", "entries"]

KINDS = (
    "experiments",
    "protocols",
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
        return [experiment_entry(name) for name in experiments.names()]
    registered = getattr(registry, kind)
    for name in registered.plug_in_names():
        registered.import_component(name)
    return [component_entry(entry) for entry in registered]


def experiment_entry(name: str) -> dict[str, Any]:
    """The record of a named experiment."""
    experiment = experiments.resolve(name)
    sources = {claim.source for claim in experiment.expects}
    return {"name": name, "summary": experiment.summary, "source": "; ".join(sorted(sources))}


def component_entry(entry: registry.Entry) -> dict[str, Any]:
    """The record of a registered component."""
    plain_facts = {
        name: fact for name, fact in entry.facts.items() if not callable(fact) and fact is not None
    }
    return {
        "name": entry.name,
        "summary": entry.summary,
        "source": entry.source,
        "from": entry.origin.describe() if entry.origin else f"dml-bench {__version__}",
        "options": {name: option.default for name, option in entry.options.items()},
        **plain_facts,
    }


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
    if kind != "losses":
        del shown["facts"]
    return shown


def rows_of(kind: str, records: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows of a table. Where some record is a plug-in's, a column says where each is from."""
    rows = [cells(kind, record) for record in records]
    origins = [record.get("from", "") for record in records]
    if len(set(origins)) > 1:
        for row, origin in zip(rows, origins, strict=True):
            row["from"] = origin
    return rows


def as_rich(kind: str, records: list[dict[str, Any]]) -> "Table":
    """The records as a table for a terminal."""
    from rich.table import Table

    table = Table(title=f"{len(records)} {kind}", title_justify="left")
    rows = rows_of(kind, records)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table


def as_page(records: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a section with a table for each kind."""
    lines = ["# Everything that has a name", ""]
    for kind, of_kind in records.items():
        lines += section(kind, of_kind)
    return "\n".join(lines)


def section(kind: str, records: list[dict[str, Any]]) -> list[str]:
    rows = rows_of(kind, records)
    lines = []
    for row in rows:
        cells = [text.replace("|", "\\|") for text in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        f"## {kind.capitalize()}",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *lines,
        "",
    ]
