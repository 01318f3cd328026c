"""An experiment that trains in about a second, its run as a process of its own or interrupted, and
commands typed in this process."""

import sys
from pathlib import Path

import pytest
from forked import ForkedCommand

from dml_bench.cli.app import main
from dml_bench.config import Experiment
from dml_bench.config.experiments import read_overrides, replaces, resolve
from dml_bench.runs.execute import execute
from dml_bench.runs.request import Outcome, RunRequest
from dml_bench.system.callbacks import Callback

SETTINGS = (  # about a second on two cores
    "unseen=last:2",
    "images.size=32",
    "augment.random_crop_from=36",
    "train.epochs=3",
    "train.batch_size=16",
    "model.backbone=timm:test_resnet",
    "model.weights=none",
    "optimizer.lr=0.05",
)

RECIPE_SETTINGS = (  # the same for a recipe of disjoint classes
    "images.size=32",
    "images.crop_from=0",
    "augment.random_crop_from=36",
    "train.epochs=1",
    "train.head_epochs=0",
    "train.batch_size=16",
    "model.backbone=timm:test_resnet",
    "model.weights=none",
    "optimizer.lr=0.01",
)


def tiny(*overrides: str) -> Experiment:
    """With the settings above, but for those of a component that is replaced."""
    changes = read_overrides(overrides)
    kept = [setting for setting in SETTINGS if not lost(setting.partition("=")[0], changes)]
    return resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[*kept, *overrides])


def lost(key: str, changes: list[tuple[str, object]]) -> bool:
    return any(replaces(component, value, key) for component, value in changes)


def train(birds: Path, cache_dir: Path, out: Path, *overrides: str, **request: object) -> Outcome:
    options = {"data_dir": birds, "device": "cpu"} | request
    return execute(RunRequest(experiment=tiny(*overrides), cache_dir=cache_dir, out=out, **options))


def places(birds: Path, cache_dir: Path, out: Path) -> list[str]:
    """The options that say what a command of the tests reads, where it writes, and on what."""
    return [
        *("--data-dir", str(birds)),
        *("--cache-dir", str(cache_dir)),
        *("--out", str(out)),
        *("--device", "cpu"),
        *("--wandb", "disabled"),
    ]


def command(birds: Path, cache_dir: Path, out: Path, *more: str) -> list[str]:
    """The command of the run that `train` makes, under the same name."""
    named = (*SETTINGS, "name=EPSHN_cosine_resnet18_sgd_aug")
    settings = [part for setting in named for part in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "dml_bench",
        "run",
        "EPSHN_cosine_resnet18_sgd_aug",
        *settings,
        *places(birds, cache_dir, out),
        *more,
    ]


def start(birds: Path, cache_dir: Path, out: Path, *more: str) -> ForkedCommand:
    return ForkedCommand(command(birds, cache_dir, out, *more)[3:])


class StopsAfter(Callback):
    """Someone who interrupts the run after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def on_epoch(self, record: dict[str, object]) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def dml_bench(monkeypatch, *arguments: object) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["dml-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def refusal(monkeypatch, capsys, *arguments: object) -> str:
    assert dml_bench(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
