"""Phases that train beside each other give what they give one after another."""

import json
import signal
import subprocess
import time

import psutil
import pytest
import torch
from forked import fork_workers, still_running
from safetensors.torch import load_file
from tiny import SETTINGS, StopsAfter, command, tiny, train

from dml_bench.data.split import Phase
from dml_bench.runs.beside import phases_at_once
from dml_bench.system.callbacks import Callback

TWO = [Phase("all"), Phase("limited", held_out_classes=(1,))]
CPU = torch.device("cpu")
HEAD = ("model.trainable=head", "augment.random_crop_from=0", "augment.horizontal_flip=0")


class Hears(Callback):
    def __init__(self):
        self.beside, self.units, self.left = [], 0.0, []

    def on_epoch_beside(self, name, epochs, record):
        self.beside.append((name, record["epoch"], epochs))

    def on_work_beside(self, units):
        self.units += units

    def on_work(self, units):
        self.left.append(units)


@pytest.fixture
def forks(monkeypatch):
    fork_workers(monkeypatch)


def weights(folder):
    return {
        phase: load_file(folder / phase / "weights.safetensors") for phase in ("all", "limited")
    }


def same(first, second):
    return all(
        torch.equal(first[phase][name], second[phase][name])
        for phase in first
        for name in first[phase]
    )


def test_phases_beside_each_other_have_the_bits_of_phases_one_after_another(
    birds, cache_dir, tmp_path, forks, trained
):
    heard = Hears()
    apart = trained()
    beside = train(birds, cache_dir, tmp_path / "beside", phases_at_once=2, callback=heard)
    assert same(weights(apart.folder), weights(beside.folder))
    assert (apart.folder / "predictions.csv").read_text() == (
        beside.folder / "predictions.csv"
    ).read_text()
    lines = (beside.folder / "metrics.jsonl").read_text().splitlines()
    epochs = [(json.loads(line)["phase"], json.loads(line)["epoch"]) for line in lines]
    assert epochs == [(phase, epoch) for phase in ("all", "limited") for epoch in (1, 2, 3)]
    assert heard.beside == [("limited", epoch, 3) for epoch in (1, 2, 3)]
    assert heard.units > 0
    assert apart.summary["cost"].get("phases_at_once") is None
    assert beside.summary["cost"]["phases_at_once"] == 2
    # Nothing is left beside the run folder but its lock.
    assert {path.name for path in beside.folder.parent.iterdir()} <= {"seed-42", ".seed-42.lock"}


def test_a_run_goes_on_with_phases_beside_each_other_to_the_same_bits(
    birds, cache_dir, tmp_path, forks, trained
):
    with pytest.raises(KeyboardInterrupt):
        train(birds, cache_dir, tmp_path / "a", phases_at_once=2, callback=StopsAfter(2))
    beside = train(birds, cache_dir, tmp_path / "a", phases_at_once=2)
    assert same(weights(trained().folder), weights(beside.folder))


class StopsInLimited(Callback):
    """Someone who interrupts the run in the second epoch of `limited`, whose first one is kept."""

    def on_epoch_beside(self, name, epochs, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt


def test_what_goes_wrong_in_another_process_is_one_line_here(birds, cache_dir, tmp_path, forks):
    with pytest.raises(KeyboardInterrupt):
        train(birds, cache_dir, tmp_path, phases_at_once=2, callback=StopsInLimited())
    [state] = tmp_path.glob("*/*/seed-42/limited/state.pt")
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(ValueError, match="delete it to train phase limited anew"):
        train(birds, cache_dir, tmp_path, phases_at_once=2)


@pytest.mark.parametrize(
    ("settings", "images", "threads", "expected"),
    [
        ((), 100_000, 2, 2),
        ((), 100_000, 16, 2),
        ((), 100_000, 1, 1),
        ((), 10, 2, 1),  # its process would cost more than it saves
        (HEAD, 100_000, 2, 1),
    ],
)
def test_the_program_chooses_by_the_experiment_and_the_threads(
    settings, images, threads, expected, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert phases_at_once(0, tiny(*settings), TWO, images, CPU) == expected


def test_phases_on_a_gpu_are_not_trained_beside_each_other():
    assert phases_at_once(0, tiny(), TWO, 100_000, torch.device("cuda")) == 1
    with pytest.raises(ValueError, match="phases at once must be 1, got 2: .* one after another"):
        phases_at_once(2, tiny(), TWO, 100_000, torch.device("cuda"))


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on_to_the_same_bits(birds, cache_dir, tmp_path):
    out = tmp_path / "runs"
    more = ("--phases-at-once", "2", "--set", "train.epochs=12", "--set", "name=killed")
    typed = command(birds, cache_dir, out, *more)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(typed, stdout=log, stderr=log)
    deadline = time.monotonic() + 500
    while not list(out.glob("*/*/seed-42/limited/state.pt")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    others = psutil.Process(process.pid).children(recursive=True)
    assert any("beside_worker" in " ".join(other.cmdline()) for other in others)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert still_running(others, seconds=60) == []
    subprocess.run(typed, check=True, capture_output=True)
    settings = [*SETTINGS, "train.epochs=12"]
    apart = train(birds, cache_dir, tmp_path / "apart", *settings, phases_at_once=1)
    [folder] = (path.parent for path in out.glob("*/*/seed-42/summary.json"))
    assert same(weights(apart.folder), weights(folder))
