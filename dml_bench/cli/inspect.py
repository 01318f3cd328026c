"""Verbs that show what there is: list, show, doctor."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dml_bench.cli import catalogue, options
from dml_bench.config import experiments
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
    """List what can be named in an experiment, with summaries and sources.

    \b
    Example: dml-bench list losses
    """
    chosen = catalogue.KINDS if kind.value == "all" else (kind.value,)
    found = {kind: catalogue.entries(kind) for kind in chosen}
    if as_json:
        typer.echo(json_text(found if kind.value == "all" else found[kind.value]))
    elif as_markdown:
        typer.echo(catalogue.as_page(found), nl=False)
    else:
        for name, entries in found.items():
            options.terminal().print(catalogue.as_rich(name, entries))


@app.command()
def show(
    name: options.Name,
    demo: options.Demo = False,
    set_: options.Set = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print an experiment as it will run, with every value; the output is itself a file that `run`
    takes.

    \b
    Example: dml-bench show EPSHN_cosine_resnet18_sgd_aug > my.toml
    """
    import tomli_w

    from dml_bench.config import as_table

    table = as_table(experiments.resolve(name, profile="demo" if demo else "", overrides=set_))
    typer.echo(json_text(table) if as_json else tomli_w.dumps(table), nl=as_json)


@app.command("bench")
def bench_(
    names: Annotated[
        list[str],
        typer.Argument(metavar="[NAME]...", help="Which benchmarks; all where none is named."),
    ] = [],  # noqa: B006
    show_list: Annotated[
        bool, typer.Option("--list", help="Say what there is, and run nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: shows that they work, not how fast it is.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("reports/speed"),
) -> None:
    """Time this program against named baselines on this machine, in a clone of its repository, and
    hold the goals against the results.

    \b
    Example: dml-bench bench epoch evaluation
    """
    from dml_bench import bench

    benchmarks = bench.chosen(names)
    if show_list:
        width = max(len(benchmark.name) for benchmark in benchmarks)
        typer.echo(
            "\n".join(f"{benchmark.name:<{width}}  {benchmark.summary}" for benchmark in benchmarks)
        )
        return
    try:
        failed = bench.run(benchmarks, out, quick, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped; the benchmarks that ended have written their tables", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise ValueError(f"these benchmarks failed (see above): {', '.join(failed)}")


@app.command()
def doctor(
    cache_dir: options.CacheDir = options.DEFAULT_CACHE, data_dir: options.DataDir = None
) -> None:
    """Show versions, device, and which weights, data, database and disk can be reached.

    \b
    Example: dml-bench doctor --data-dir CUB_200_2011
    """
    from dml_bench.cli.doctor import examine

    options.terminal().print(examine(cache_dir, data_dir))
