"""The command line: thin verbs over the library, a module for each family. Heavy imports stay
inside the verbs, so that --help is instant."""

from typing import Annotated

import typer

from dml_bench.cli import (
    analyse,
    board,
    data,
    discover,
    explore,
    gallery,
    inspect,
    serve,
    train,
)
from dml_bench.system import distributed, failures
from dml_bench.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    help=(
        "Deep metric learning benchmark: what an embedding and a nearest-neighbour look-up can do,"
        " and what they lose on unseen classes."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (train, analyse, board, gallery, serve, discover, explore, data, inspect):
    app.add_typer(family.app)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"dml-bench {__version__}")
        raise typer.Exit
    if distributed.torchrun_rank().size > 1 and context.invoked_subcommand != "run":
        raise ValueError(
            "torchrun starts several processes, which only `run` can use; start dml-bench"
            f" {context.invoked_subcommand} without it"
        )


def main() -> None:
    """Entry point: what people can mend is one line and exit code 2."""
    with distributed.main_process_output():
        failures.carry_out(app)
