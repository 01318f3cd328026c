"""A command that is killed leaves nothing that the next one mistakes, and a cache of another user
is used as it is."""

import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import ForkedProgram, in_fork
from tiny import tiny, train

from dml_bench.data.datasets import open_dataset
from dml_bench.runs.folder import RunFolder
from dml_bench.system.drafts import scratch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOBODY = 65534


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A run folder with two sealed phases."""
    run = RunFolder(tmp_path, tiny(), "cub")
    for name in (
        "all/complete.json",
        "limited/complete.json",
        "experiment.json",
        "metrics.jsonl",
        "summary.json",
    ):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    return run


OPERATIONS = ("mkdir", "rename", "unlink", "rmdir")


@pytest.mark.parametrize("number", range(1, 20))
def test_a_run_folder_that_is_cleared_is_whole_or_empty_wherever_that_is_killed(folder, number):
    before = sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*"))

    def clear() -> None:
        count = 0

        def dying(operation: Callable[..., object]) -> Callable[..., object]:
            def act(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **options)

            return act

        for name in OPERATIONS:
            setattr(os, name, dying(getattr(os, name)))
        folder.clear()

    assert in_fork(clear) in (-signal.SIGKILL, 0)
    left = sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*"))
    assert left in (before, [])
    with folder.lock():
        assert [path.name for path in folder.path.parent.iterdir()] in (
            ["seed-42"],
            [".seed-42.lock", "seed-42"],
            ["seed-42", ".seed-42.lock"],
        )


def test_what_dead_processes_left_anywhere_in_a_cache_is_removed_when_a_data_set_is_opened(
    birds, tmp_path
):
    for name in ("", "images", "pretrained", "features", "digests"):

        def die(place: Path) -> None:
            place.mkdir(exist_ok=True, parents=True)
            with scratch(place) as folder:
                (folder / "pixels.u8").write_bytes(bytes(1000))
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_fork(partial(die, tmp_path / name)) == -signal.SIGKILL
    assert len(list(tmp_path.rglob("pixels.u8"))) == 5
    open_dataset(tiny().data.dataset, birds, tmp_path)
    assert list(tmp_path.rglob("pixels.u8")) == list(tmp_path.rglob(".dml-*")) == []


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can read."""
    place = Path(tempfile.mkdtemp(prefix="shared-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
def test_a_cache_that_only_another_user_may_write_is_used_where_all_is_there(birds, shared):
    settings = (
        "model.weights=source",
        "model.trainable=head",
        "augment.random_crop_from=0",
        "augment.horizontal_flip=0",
        "train.epochs=1",
    )
    settings += (
        "pretrain.classes=4",
        "pretrain.per_class=6",
        "pretrain.epochs=1",
        "pretrain.batch_size=8",
    )
    images = Path(shutil.copytree(birds, shared / "birds"))
    mine = train(images, shared / "cache", shared / "mine", *settings).summary
    (shared / "theirs").mkdir()
    os.chown(shared / "theirs", NOBODY, NOBODY)
    kept = {path: path.stat().st_mtime_ns for path in (shared / "cache").rglob("*")}
    assert {path.parent.name for path in kept if path.is_file()} > {"pretrained", "features"}

    def as_another_user() -> None:
        import torch

        torch.set_num_threads(1)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        train(images, shared / "cache", shared / "theirs", *settings)

    assert in_fork(as_another_user) == 0
    (theirs,) = (shared / "theirs").glob("*/*/seed-42/summary.json")
    assert json.loads(theirs.read_text())["phases"] == mine["phases"]
    assert {path: path.stat().st_mtime_ns for path in (shared / "cache").rglob("*")} == kept


def campaign(out: Path, *options: str) -> dict[str, Any]:
    """What benchmarks/crash.py wrote; it fails where a command ended in other bits."""
    script = str(BENCHMARKS / "crash.py")

    def program() -> None:
        sys.path.insert(0, str(BENCHMARKS))
        sys.argv = [script, *options, "--out", str(out)]
        runpy.run_path(script, run_name="__main__")

    running = ForkedProgram(program, variables={"OMP_NUM_THREADS": "1"})
    printed, errors = running.communicate()
    assert running.returncode == 0, printed[-3000:] + errors[-3000:]
    report: dict[str, Any] = json.loads((out / "crash" / "crash.json").read_text())
    return report


@pytest.mark.slow
def test_twenty_kills_end_in_the_bits_of_undisturbed_runs(tmp_path):
    """The quick form of benchmarks/crash.py, whose report is in reports/crash."""
    scenarios = campaign(tmp_path, "--quick")["scenarios"]
    assert sum(scenario["kills"] for scenario in scenarios.values()) >= 20
    assert {name for name, scenario in scenarios.items() if scenario["cases"]} == {
        "force",
        "enrol",
        "draw",
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_in_every_scenario_and_flipped_bits_end_in_the_bits_of_undisturbed_runs(tmp_path):
    scenarios = campaign(tmp_path, "--seconds", "120", "--seed", "14")["scenarios"]
    assert all(scenario["cases"] for scenario in scenarios.values())
