"""The tutorials are followed from their first line to their last: files are written as the page
says, commands are typed, code is run. Images, networks and epochs are tiny here."""

import json
import math
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import ForkedCommand
from tiny import SETTINGS, dml_bench

import dml_bench as db

pytestmark = pytest.mark.slow
"""They are followed by `make tutorials`, which CI runs, and by `make test-all`."""

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"Save this as\s+`([\w.]+)`")
EXPERIMENT = "EPSHN_cosine_resnet18_sgd_aug"


def steps(page: str) -> Iterator[tuple[str, str]]:
    """The blocks of a page: the name of the file that one is saved as, else its language, and its
    text."""
    text, end = (DOCS / page).read_text(encoding="utf-8"), 0
    for block in BLOCK.finditer(text):
        saved = FILE.search(text, end, block.start())
        end = block.end()
        yield (saved[1] if saved else block[1]), block[2]


def python_of(page: str) -> str:
    return "\n".join(text for kind, text in steps(page) if kind == "python")


def follow(page: str, type_line: Callable[[str], None]) -> None:
    """Write the files of a page, and type its commands."""
    for kind, text in steps(page):
        if "." in kind:
            Path(kind).write_text(text, encoding="utf-8")
        elif not kind:
            for line in text.splitlines():
                type_line(line)


@pytest.fixture
def desk(tmp_path, monkeypatch, cache_dir, plugins_removed) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DML_BENCH_CACHE", str(cache_dir))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_notebook_reads_a_run(desk, trained, capsys):
    text = python_of("tutorial_notebook.md")
    rival = trained("name=other", "train.epochs=1")
    for name, run in ((EXPERIMENT, trained()), ("crossentropy_resnet18_sgd_aug", rival)):
        call = f'db.run("{name}", demo=True)'
        assert call in text
        text = text.replace(call, f"db.load_run({str(run.folder)!r})")
    exec(compile(text, "<notebook>", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "cost_of_being_unseen" in printed
    assert "first - second" in printed
    assert (desk / "drops.png").stat().st_size > 1000


def test_a_loss_is_written_run_compared_and_submitted(
    desk, birds, blank_figures, monkeypatch, capsys
):
    small = [part for setting in SETTINGS for part in ("--set", setting)]
    places = ["--data-dir", str(birds), "--device", "cpu", "--wandb", "disabled"]

    def type_line(line: str) -> None:
        arguments = shlex.split(line)[1:]
        if arguments[0] == "run":  # one tiny seed of each, under the experiment's own name
            arguments = arguments[: arguments.index("--demo")]
            name = arguments[1].removesuffix(".toml")
            arguments += [*small, "--set", f"name={name}", *places]
        if arguments[0] == "submit":
            arguments = [part for part in arguments if "*" not in part]
            arguments += [*map(str, desk.glob("runs/softpull/cub/seed-*")), "--revision", "tiny"]
        arguments = [part.replace("/demo", "/cub") for part in arguments]
        assert dml_bench(monkeypatch, *arguments) == 0, capsys.readouterr().err

    follow("tutorial_loss.md", type_line)
    run = db.load_run(next(desk.glob("runs/softpull/cub/seed-*")))
    assert run.experiment.loss.name == "SoftPull_loss"
    losses = [record["train_loss"] for record in run.records if "train_loss" in record]
    assert losses and all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert "SoftPull" in (desk / "report" / "index.html").read_text(encoding="utf-8")
    assert len(list(desk.glob("results/**/softpull/seed-*.json"))) == 1


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens there, for a minute at most."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("nothing listens")


@pytest.fixture
def one_row(monkeypatch):
    """A decision between the ways to answer of a row without training, for one seed."""
    from dml_bench.decision import rows

    monkeypatch.setattr("dml_bench.decision.rows.ROWS", rows.ROWS[:1])
    monkeypatch.setattr("dml_bench.decision.rows.SEEDS", (42,))


def test_photos_lead_to_a_decision_and_a_new_class_is_enrolled(desk, one_row, monkeypatch, capsys):
    small = ("images.size=96",)
    answers: list[str] = []
    port = free_port()
    servers = []

    def type_line(line: str) -> None:
        if not line.startswith("dml-bench "):
            line = line.replace(":8000", f":{port}")
            shell = subprocess.run(line, shell=True, check=True, capture_output=True, text=True)
            answers.append(shell.stdout)
            return
        verb, *arguments = shlex.split(line)[1:]
        if verb == "decide":
            arguments = [arguments[0], "--minutes", "5000", "--device", "cpu"]
            arguments += [part for setting in small for part in ("--set", setting)]
        named = "decision/runs/frozen_efficientnet_lite0/development/seed-42"
        if named in arguments:
            (run,) = desk.glob("decision/runs/*/development/seed-42")
            arguments[arguments.index(named)] = str(run)
        if verb == "serve":
            servers.append(ForkedCommand([verb, *arguments, "--port", str(port)]))
            wait_for(port)
            return
        capsys.readouterr()
        assert dml_bench(monkeypatch, verb, *arguments) == 0, capsys.readouterr().err
        answers.append(capsys.readouterr().out)

    try:
        follow("tutorial_photos.md", type_line)
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
            server.communicate()
    *_, before, enrolled, after, served, _ = answers
    assert len(json.loads(served)["answers"]) == 1
    assert " 012.Chestnut" not in before
    assert "(1 new: 012." in enrolled
    assert " 012.Chestnut" in after
    assert (desk / "decision" / "index.html").is_file()
    assert (desk / "model" / "README.md").is_file()
