"""A random split of photos that come in sessions is warned of: once, with what shows more and what
mends it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny import tiny, train

from dml_bench.data.datasets import open_dataset
from dml_bench.suite.plan import Job
from dml_bench.suite.progress import SuiteListener
from dml_bench.suite.run import Suite, SuiteSession
from dml_bench.system.callbacks import Callback
from dml_bench.system.terminal import TerminalCallback

FOLDER = "data.dataset=folder"
WARNING = (
    "the random split puts 100% of test photos beside their own session (chance 31%), so P@1 is too"
    " high. `dml-bench data check folder` shows more; --set data.split=grouped --set"
    " data.group=runs keeps sessions apart"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four classes with three sessions each, in which a camera counts four photos."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for photo in range(48):
        path = folder / f"class{photo // 12}" / f"IMG_{photo + photo // 4:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return folder


class StopsAtPhase(Callback):
    """Hears the warnings of a run, and interrupts it before it trains."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        raise KeyboardInterrupt


def warnings_of_run(photos: Path, folder: Path, *overrides: str) -> list[str]:
    callback = StopsAtPhase()
    with pytest.raises(KeyboardInterrupt):
        train(photos, folder / "cache", folder / "runs", FOLDER, *overrides, callback=callback)
    return callback.warnings


def test_a_run_with_a_random_split_of_sessions_warns_in_one_line(photos, tmp_path):
    assert warnings_of_run(photos, tmp_path) == [WARNING]


def test_a_run_that_keeps_sessions_apart_does_not_warn(photos, tmp_path):
    grouped = ("data.split=grouped", "data.group=runs")
    assert warnings_of_run(photos, tmp_path, *grouped) == []


def test_several_seeds_in_one_terminal_give_the_warning_once():
    printed = io.StringIO()
    warned: set[str] = set()
    for _ in range(2):
        console = Console(file=printed, width=300)
        TerminalCallback(console, warned=warned).warn(WARNING)
    assert printed.getvalue() == f"warning: {WARNING}\n"


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def test_a_suite_warns_once_for_all_its_runs(photos, tmp_path):
    jobs = [Job(tiny(FOLDER, f"seed={seed}")) for seed in (42, 43)]
    component = jobs[0].experiment.data.dataset
    dataset = open_dataset(component, photos, tmp_path / "cache")
    suite = Suite(
        name="small",
        title="small",
        rows=(),
        profile="",
        overrides=(),
        data_dir=photos,
        out=tmp_path,
        cache_dir=tmp_path / "cache",
        report=None,
        wandb="disabled",
        command=(),
    )
    session, screen = SuiteSession(suite, jobs, {repr(component): dataset}), Screen()
    warned = session.warn_of_sessions(screen)
    listener = SuiteListener(screen, jobs, 0, 1, str, warned)
    for job in jobs:
        listener.time_left.on_start(job)
        listener.on_event(job, {"event": "warning", "text": WARNING})
        listener.on_event(job, {"event": "warning", "text": f"no space {job.experiment.seed}"})
    assert screen.lines == [
        f"warning: {WARNING}",
        f"warning: {jobs[0]}: no space 42",
        f"warning: {jobs[1]}: no space 43",
    ]
