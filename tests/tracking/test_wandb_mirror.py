"""The W&B mirror: what is logged arrives, and no fault of wandb reaches the run. wandb is real, run
in other processes."""

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from wandb_records import of_type, read_back, sealed_environment

from dml_bench.system.tables import ResultTable
from dml_bench.tracking import wandb_mirror
from dml_bench.tracking.wandb_mirror import WandbMirror

BEGIN = """
import json, os, sys, time
from pathlib import Path
from dml_bench.system.tables import ResultTable
from dml_bench.tracking import wandb_mirror as tracking

directory, warnings = Path(sys.argv[1]), []

def begin(mode, **changes):
    arguments = dict(
        directory=directory,
        run_id="run1",
        name="first",
        group="cub",
        config={},
        warn=warnings.append,
    )
    return tracking.start(mode, **arguments | changes)

def report(**facts):
    print(json.dumps(facts | {"warnings": warnings}), flush=True)
"""

MIRROR_ONE_RUN_TWICE = """
hooks = sys.exit, sys.excepthook
mirror = begin("offline", config={"optimizer": {"lr": 0.01}, "train": ["a", "b"]})
for epoch in (1, 2):
    mirror.log({"epoch": epoch, "phase": "head", "train_loss": 1 / epoch})
from PIL import Image
mirror.picture("training_batch", Image.new("RGB", (20, 10), "red"))
rows = ("wren", 0.5), ("crow", "undefined")
mirror.tables({"per_class": ResultTable(("class", "accuracy"), rows)})
mirror.log({"epoch": 3, "phase": "all", "train_loss": 0.125, "test_accuracy": 0.75})
mirror.summary({"precision_drop": 0.0625})
mirror.finish()
mirror.log({"epoch": 4})
again = begin("offline")
again.log({"epoch": 4, "train_loss": 0.0625})
again.finish(failed=True)
report(hooks_kept=hooks == (sys.exit, sys.excepthook))
"""


class ProcessResult(NamedTuple):
    facts: dict[str, Any]
    returncode: int
    stderr: str


def run_script(
    body: str, home: Path, *, stdin: int | None = None, **environment: str
) -> ProcessResult:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body, str(home / "run")],
        env=sealed_environment(home, **environment),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stdin is None else stdin,
        text=True,
        check=False,
    )
    facts = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return ProcessResult(facts, done.returncode, done.stderr or "")


class Mirrored(NamedTuple):
    ended: ProcessResult
    folders: list[Path]
    first: list[dict[str, Any]]
    second: list[dict[str, Any]]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Mirrored:
    """A run and its resumption, mirrored offline under an environment that asks for something
    else."""
    home = tmp_path_factory.mktemp("home")
    ended = run_script(
        MIRROR_ONE_RUN_TWICE,
        home,
        WANDB_MODE="disabled",
        WANDB_PROJECT="other",
        WANDB_DIR=str(home / "other"),
    )
    folders = sorted(
        (home / "run" / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_ctime_ns
    )
    first, second = sorted((read_back(folder, home) for folder in folders), key=len, reverse=True)
    return Mirrored(ended, folders, first, second)


def test_a_healthy_mirror_is_silent_and_leaves_the_process_as_it_was(mirrored: Mirrored) -> None:
    assert mirrored.ended.facts == {"hooks_kept": True, "warnings": []}
    assert mirrored.ended.returncode == 0
    assert mirrored.ended.stderr == ""


def test_the_run_arrives_under_its_names_with_its_config(mirrored: Mirrored) -> None:
    (run,) = of_type(mirrored.first, "run")
    assert (run["run_id"], run["display_name"], run["run_group"], run["project"]) == (
        "run1",
        "first",
        "cub",
        "dml_bench",
    )
    assert run["config"]["update"]["optimizer"] == {"lr": 0.01}
    assert run["config"]["update"]["train"] == ["a", "b"]


def test_the_scalars_of_each_epoch_arrive_under_their_names(mirrored: Mirrored) -> None:
    rows = [row["item"] for row in of_type(mirrored.first, "history")]
    losses = [
        (row["epoch"], row["phase"], row["train_loss"]) for row in rows if "train_loss" in row
    ]
    assert losses == [(1, "head", 1.0), (2, "head", 0.5), (3, "all", 0.125)]
    assert [row["test_accuracy"] for row in rows if "test_accuracy" in row] == [0.75]


def test_metrics_are_plotted_over_our_epoch(mirrored: Mirrored) -> None:
    metrics = of_type(mirrored.first, "metric")
    assert [metric["step_metric"] for metric in metrics if metric.get("glob_name") == "*"] == [
        "epoch"
    ]


def test_the_summary_arrives(mirrored: Mirrored) -> None:
    updates = [summary["update"] for summary in of_type(mirrored.first, "summary")]
    assert [update["precision_drop"] for update in updates if "precision_drop" in update] == [
        0.0625
    ]


def test_a_table_arrives_whole_even_with_mixed_cells(mirrored: Mirrored) -> None:
    (file,) = [
        file for folder in mirrored.folders for file in folder.glob("files/media/table/*.json")
    ]
    assert json.loads(file.read_text()) == {
        "columns": ["class", "accuracy"],
        "data": [["wren", 0.5], ["crow", "undefined"]],
    }


def test_a_picture_arrives_as_it_is(mirrored: Mirrored) -> None:
    (file,) = [
        file
        for folder in mirrored.folders
        for file in folder.glob("files/media/images/training_batch*.png")
    ]
    with Image.open(file) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((20, 10), (255, 0, 0))


def test_a_resumed_run_keeps_its_id_and_begins_a_folder_at_step_0(mirrored: Mirrored) -> None:
    assert len(mirrored.folders) == 2
    assert [run["run_id"] for run in of_type(mirrored.second, "run")] == ["run1"]
    (row,) = of_type(mirrored.second, "history")
    assert (row["item"]["_step"], row["item"]["epoch"], row["item"]["train_loss"]) == (0, 4, 0.0625)


def test_a_run_that_goes_on_offline_replaces_what_was_sent_and_pictures_are_added(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    """wandb appends the folder of a run that it may resume: earlier epochs stood there twice."""
    assert run_script('begin("offline", adds=True).finish()\nreport()\n', tmp_path).returncode == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    of_sessions = (mirrored.first, mirrored.second, read_back(folder, tmp_path))
    headers = [of_type(records, "run")[0] for records in of_sessions]
    assert [header.get("resume", False) for header in headers] == [False, False, True]


def test_a_failed_run_is_marked_as_failed(mirrored: Mirrored) -> None:
    assert [end.get("exit_code", 0) for end in of_type(mirrored.first, "exit")] == [0]
    assert [end.get("exit_code", 0) for end in of_type(mirrored.second, "exit")] == [1]


def test_a_disabled_mirror_imports_no_wandb_and_starts_no_thread(tmp_path: Path) -> None:
    ended = run_script(
        """
import threading
mirror = begin("disabled")
mirror.log({"epoch": 1}); mirror.tables({}); mirror.summary({}); mirror.finish()
report(wandb="wandb" in sys.modules, threads=threading.active_count())
""",
        tmp_path,
    )
    assert ended.facts == {"wandb": False, "threads": 1, "warnings": []}
    assert not (tmp_path / "run").exists()


def test_without_wandb_there_is_one_warning_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    warnings: list[str] = []
    mirror = wandb_mirror.start(
        "online",
        directory=tmp_path,
        run_id="a",
        name="a",
        group="a",
        config={},
        warn=warnings.append,
    )
    mirror.log({"epoch": 1})
    mirror.tables({"empty": ResultTable((), ())})
    mirror.finish()
    mirror.finish()
    (warning,) = warnings
    assert "`pip install wandb`" in warning
    assert warning.endswith(f"the run goes on, results are in {tmp_path}")


def test_a_warning_that_can_not_be_given_does_not_escape_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(message: str) -> None:
        raise OSError("the disk is full")

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb_mirror.start(
        "offline", directory=tmp_path, run_id="a", name="a", group="a", config={}, warn=refuse
    ).finish()


def test_a_failure_after_the_wait_was_given_up_is_not_a_second_warning(tmp_path: Path) -> None:
    go_on = threading.Event()

    def connect() -> None:
        go_on.wait()
        raise RuntimeError("too late")

    warnings: list[str] = []
    mirror = WandbMirror(connect, directory=tmp_path, warn=warnings.append)
    mirror.finish(timeout_seconds=0.01)
    go_on.set()
    mirror._thread.join()
    assert [warning.split(" (")[0] for warning in warnings] == ["W&B: not done after 0.01 s"]


def test_even_an_attempt_to_exit_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    WandbMirror(lambda: sys.exit(3), directory=tmp_path, warn=warnings.append).finish()
    assert warnings == [f"W&B: SystemExit: 3; the run goes on, results are in {tmp_path}"]


def test_a_mirror_listens_until_it_fails_or_ends(tmp_path: Path) -> None:
    class Broken:
        def log(self, row: dict[str, Any]) -> None:
            raise RuntimeError("broken")

        def finish(self, exit_code: int) -> None:
            pass

    assert not WandbMirror(None, directory=tmp_path, warn=print).listening
    mirror = WandbMirror(Broken, directory=tmp_path, warn=lambda text: None)
    assert mirror.listening
    mirror.log({"epoch": 1})
    mirror._thread.join()
    assert not mirror.listening
    ended = WandbMirror(Broken, directory=tmp_path, warn=lambda text: None)
    ended.finish()
    assert not ended.listening


def test_a_failing_log_gives_one_warning(tmp_path: Path) -> None:
    ended = run_script(
        """
import wandb
def fail(self, *arguments, **keywords): raise RuntimeError("broken pipe\\nand more")
wandb.Run.log = fail
mirror = begin("offline")
for epoch in (1, 2, 3):
    mirror.log({"epoch": epoch})
mirror.summary({"accuracy": 1.0})
mirror.finish()
mirror.log({"epoch": 4})
report()
""",
        tmp_path,
    )
    assert ended.facts["warnings"] == [
        f"W&B: RuntimeError: broken pipe; the run goes on, results are in {tmp_path / 'run'}"
    ]
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_hanging_init_stops_neither_the_run_nor_its_exit(tmp_path: Path) -> None:
    ended = run_script(
        """
import threading
import wandb
tracking.EXIT_GRACE_SECONDS = 0.25
begun = threading.Event()
def hang(**options):
    begun.set()
    threading.Event().wait()
wandb.init = hang
mirror = begin("offline")
begun.wait()
mirror.log({"epoch": 1})
join, waits = mirror._thread.join, []
mirror._thread.join = lambda seconds: (waits.append(seconds), join(seconds))
mirror.finish(timeout_seconds=0.5)
report(waits=waits, hangs=mirror._thread.is_alive())
""",
        tmp_path,
    )
    assert (ended.facts["waits"], ended.facts["hangs"]) == ([0.5], True)
    (warning,) = ended.facts["warnings"]
    assert "not done after 0.5 s" in warning
    assert ended.returncode == 0


def test_a_service_that_stands_still_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    ended = run_script(
        """
import psutil
tracking.EXIT_GRACE_SECONDS = 0.25
mirror = begin("offline")
while not list(directory.glob("wandb/offline-run-*/run-*.wandb")):
    time.sleep(0.05)
(service,) = [one for one in psutil.Process().children() if one.name().startswith("wandb-core")]
service.suspend()
mirror.log({"epoch": 1})
mirror.finish(timeout_seconds=0.5)
report()
""",
        tmp_path,
    )
    (warning,) = ended.facts["warnings"]
    assert "not done after 0.5 s" in warning
    assert ended.returncode == 0


def test_online_without_a_key_says_what_to_do_and_never_asks(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        ended = run_script(
            'mirror = begin("online")\nmirror.log({"epoch": 1})\nmirror.finish()\nreport()',
            tmp_path,
            stdin=theirs,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    (warning,) = ended.facts["warnings"]
    assert warning.startswith("W&B: no API key; run `wandb login`, or use `--wandb offline`;")
    assert ended.returncode == 0


def test_ctrl_c_reaches_the_main_thread(tmp_path: Path) -> None:
    ended = run_script(
        """
import signal
mirror = begin("offline")
while not list(directory.glob("wandb/offline-run-*/run-*.wandb")):
    time.sleep(0.05)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    mirror.finish(failed=True)
    report(interrupted=True)
""",
        tmp_path,
    )
    assert ended.facts == {"interrupted": True, "warnings": []}
