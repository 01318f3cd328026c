"""Verbs that show what there is: list, show, doctor, cache."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.api.cache import CACHE_KINDS
from dml_bench.cli import catalogue, options
from dml_bench.system.counted import counted
from dml_bench.system.files import json_text

__all__ = ["app"]
app = typer.Typer()

Kind = StrEnum("Kind", {kind: kind for kind in (*catalogue.KINDS, "all")})  # type: ignore[misc]


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the options of each entry.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of docs/components.md.")
    ] = False,
) -> None:
    """List what can be named in an experiment. Each entry has a summary and a source.

    \b
    Example: dml-bench list losses
    """
    chosen = catalogue.KINDS if kind.value == "all" else (kind.value,)
    records = {kind: catalogue.entries(kind) for kind in chosen}
    if as_json:
        typer.echo(json_text(records if kind.value == "all" else records[kind.value]))
    elif as_markdown:
        typer.echo(catalogue.as_page(records), nl=False)
    else:
        for name, entries in records.items():
            options.terminal().print(catalogue.as_rich(name, entries))


@app.command()
def show(
    name: options.Name,
    demo: options.Demo = False,
    set_: options.Set = [],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print an experiment as it will run, with every value. The output is itself a file that `run`
    takes.

    \b
    Example: dml-bench show EPSHN_cosine_resnet18_sgd_aug > my.toml
    """
    import tomli_w

    from dml_bench.config import as_table

    table = as_table(db.resolve(name, set_, demo=demo))
    typer.echo(json_text(table) if as_json else tomli_w.dumps(table), nl=as_json)


@app.command()
def doctor(
    cache_dir: options.CacheDir = options.DEFAULT_CACHE, data_dir: options.DataDir = None
) -> None:
    """Show what this machine has and can reach. These are versions, devices, weights, data, the
    database and the disk.

    \b
    Example: dml-bench doctor --data-dir CUB_200_2011
    """
    from dml_bench.cli.doctor import examine

    options.terminal().print(examine(cache_dir, data_dir))


CacheKind = StrEnum("CacheKind", {kind: kind for kind in CACHE_KINDS})  # type: ignore[misc]


@app.command()
def cache(
    kinds: Annotated[
        list[CacheKind],
        typer.Argument(
            metavar="[KIND]...", help=f"Any of {', '.join(CACHE_KINDS)}; by default all."
        ),
    ] = [],
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove what is listed. Run folders always stay.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with sizes in bytes.")
    ] = False,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
) -> None:
    """Show or remove what is kept between commands. What is removed is made anew when it is
    needed.

    \b
    Example: dml-bench cache images --clear
    """
    names = [kind.value for kind in kinds]
    entries = (
        db.clear_cache(names, cache_dir=cache_dir)
        if clear
        else db.cached(names, cache_dir=cache_dir)
    )
    if as_json:
        typer.echo(json_text([asdict(entry) | {"path": str(entry.path)} for entry in entries]))
        return
    for entry in entries:
        typer.echo(f"{CACHE_KINDS[entry.kind]}  {entry.num_bytes / 1e6:,.1f} MB  {entry.path}")
    total = sum(entry.num_bytes for entry in entries) / 1e6
    verb = "removed" if clear else "kept"
    typer.echo(f"{verb}: {counted(len(entries), 'entry')}, {total:,.1f} MB in {cache_dir}")
