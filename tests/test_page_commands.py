"""Every `dml-bench` line of README.md and docs/ is one that the real command line takes: it is
parsed, its experiments and settings are resolved, and its suite is planned. test_typed_lines types
it."""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from test_documents import GUIDES, ROOT

import dml_bench as db
from dml_bench.cli import options
from dml_bench.cli.app import app
from dml_bench.config.tables import tables_over_data

PLACEHOLDERS = {"NAME", "EXPERIMENT"}
"""What stands in a page for the name of an experiment; a .toml is a file of the reader."""


def blocks(page: Path) -> list[str]:
    """The lines of a page's blocks of code."""
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in code for line in block.splitlines()]


def in_sentences(page: Path) -> list[str]:
    """The code between single backticks of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def typed(line: str) -> list[str]:
    """The words after `dml-bench`, without what the shell takes: pipes, files, comments."""
    return shlex.split(re.split(r" [>|] ", line)[0], comments=True)[1:]


def commands(lines: list[str]) -> list[list[str]]:
    return [typed(line) for line in lines if re.match(r"dml-bench [a-z]", line)]


TYPED = [(page, arguments) for page in GUIDES for arguments in commands(blocks(ROOT / page))]
MENTIONED = [
    (page, arguments) for page in GUIDES for arguments in commands(in_sentences(ROOT / page))
]
WITH_OPTIONS = [(page, arguments) for page, arguments in MENTIONED if "--" in " ".join(arguments)]
EVERY = [*TYPED, *WITH_OPTIONS]


def spelled(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def verb_of(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words name, and the words after its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, f"no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def parsed(arguments: list[str]) -> tuple[click.Command, dict[str, Any]]:
    """The verb and its parameters. Raises click.UsageError where the command line would refuse."""
    command, rest = verb_of(arguments)
    return command, command.make_context(command.name, list(rest)).params


def overrides_of(parameters: dict[str, Any]) -> list[str]:
    """The options of a verb that change values of an experiment."""
    return options.overrides_of(
        parameters.get("demo", False),
        parameters.get("dataset", ""),
        parameters.get("skip_unreadable", False),
        parameters.get("holdouts", ""),
        parameters.get("set_", []),
    )


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch, cache_dir) -> None:
    """An empty folder in which the lines are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DML_BENCH_CACHE", str(cache_dir))


@pytest.mark.parametrize(("page", "arguments"), EVERY, ids=spelled)
def test_every_line_is_one_that_the_command_line_takes(page, arguments):
    command, parameters = parsed(arguments)
    experiments = [parameters.get("name"), *parameters.get("names", [])]
    written = {name for name in experiments if name and name.endswith(".toml")}
    names = [name for name in experiments if name and name not in PLACEHOLDERS | written]
    if command.name == "suite":
        names = []  # planned by another test
    for name in names:
        settings = overrides_of(parameters)
        db.resolve(name, settings, demo=parameters.get("demo", False))


def test_a_line_with_an_unknown_option_value_or_setting_is_refused():
    for line in ("run X --sedes 42", "run X --wandb sometimes", "predict", "suite --jobs many"):
        with pytest.raises(Exception, match=r"sedes|sometimes|Missing parameter|valid integer"):
            parsed(shlex.split(line))
    with pytest.raises(AssertionError, match="no command trian"):
        parsed(["trian", "X"])


@pytest.mark.parametrize(("page", "arguments"), MENTIONED, ids=spelled)
def test_every_command_that_a_sentence_mentions_exists(page, arguments):
    verb_of(arguments)


@cache
def suites_over_data(table):
    """It is planned by the settings of all records, and several pages type it."""
    return db.plan_suites(table, results="results").suites


SUITES = [
    (page, arguments) for page, arguments in EVERY if arguments[0] == "suite" and len(arguments) > 1
]


@pytest.mark.parametrize(("page", "arguments"), SUITES, ids=spelled)
def test_every_suite_of_the_guides_has_rows(page, arguments):
    _, parameters = parsed(arguments)
    if parameters["table"] in tables_over_data():
        assert suites_over_data(parameters["table"])
        return
    planned = db.plan_suite(
        parameters["names"],
        table=parameters["table"],
        only=parameters["only"],
        demo=parameters["demo"],
        data_dir=parameters["data_dir"],
        overrides=overrides_of(parameters),
        seeds=options.split_seeds(parameters["seeds"]),
        sweeps=parameters["sweep"],
    )
    assert planned.rows


@pytest.mark.parametrize("page", GUIDES, ids=str)
def test_other_lines_name_targets_scripts_and_extras_that_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(pyproject["project"]["optional-dependencies"])
    text = "\n".join([*blocks(ROOT / page), *in_sentences(ROOT / page)])
    assert set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) <= targets
    for names in re.findall(r"(?:dml-bench|\.)\[([\w,]+)\]", text):
        assert set(names.split(",")) <= extras
    for script in re.findall(r"^(?:python )?(benchmarks/\w+\.py)", text, re.MULTILINE):
        assert (ROOT / script).is_file()
    for line in re.findall(r"^torchrun .* -m dml_bench (.*)$", text, re.MULTILINE):
        parsed(shlex.split(line))
