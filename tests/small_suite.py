"""A suite of experiments that each train in about a second, as a command."""

import sys
import time
from pathlib import Path
from subprocess import Popen

import pytest
from forked import ForkedCommand
from handmade import BASELINE
from tiny import SETTINGS, places

from dml_bench.cli import app

Running = ForkedCommand | Popen[str]

TINY = [setting for setting in SETTINGS if not setting.startswith(("optimizer", "train.epochs"))]


def write_files(folder: Path) -> Path:
    """An experiment that trains, one whose loss is soon not finite, and one that takes longer."""
    claim = '[[expects]]\nmetric = "test_accuracy"\nsource = "a guess"\n'
    (folder / "fine.toml").write_text(
        f'extends = "{BASELINE}"\noptimizer = {{ name = "sgd", lr = 0.05 }}\ntrain = {{ epochs = 1'
        f' }}\n{claim}value = 0.5\n{claim}change = 0.1\nversus = "diverges"\n'
    )
    (folder / "diverges.toml").write_text(
        'extends = "fine.toml"\noptimizer = { name = "sgd", lr = 1e38 }\n'
    )
    (folder / "longer.toml").write_text('extends = "fine.toml"\ntrain = { epochs = 12 }\n')
    return folder


def command(files: Path, birds: Path, cache_dir: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in TINY for part in ("--set", setting)]
    return [
        "suite",
        *(str(files / name) if name.endswith(".toml") else name for name in more),
        *settings,
        *places(birds, cache_dir, out),
    ]


def call(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["dml-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(ended.value.code or 0)


def start(arguments: list[str]) -> ForkedCommand:
    return ForkedCommand(arguments, new_session=True)


def wait_for_epochs(out: Path, suite: Running, count: int = 1) -> None:
    deadline = time.monotonic() + 240
    while (
        sum(len(path.read_text().splitlines()) for path in out.glob("*/*/seed-*/metrics.jsonl"))
        < count
    ):
        if suite.poll() is not None or time.monotonic() > deadline:
            suite.kill()
            pytest.fail(f"no epoch came; the suite said: {suite.communicate()}")
        time.sleep(0.02)


def same_bits(one: Path, other: Path) -> None:
    """Of two run folders: what was trained, embedded and answered."""
    names = [
        "split.csv",
        "predictions.csv",
        *(
            f"{phase}/{name}"
            for phase in ("all", "limited")
            for name in ("weights.safetensors", "embeddings.safetensors", "neighbours.safetensors")
        ),
    ]
    different = [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    assert different == []
