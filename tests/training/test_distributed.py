"""Training by two processes, started as people start them, beside the same training by one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import two_processes
from forked import ForkedProgram, ForkedPython
from safetensors.torch import load_file
from tiny import command, tiny, train
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main as torchrun
from two_processes import OWN_STATISTICS, RUNS

from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_json_lines

CLOSE = 1e-2
"""Of numbers around 1 after some epochs: float32 sums in another order, and a ReLU near zero may
turn over, on one processor and not on the next."""
PHASES = ("all", "limited")


def start(*arguments: str) -> ForkedProgram:
    """torchrun and the two that it starts are forks of this process, without the seconds in which
    each program imports PyTorch."""

    def torchrun_of_forks(options: list[str]) -> None:
        subprocess_handler.Popen = ForkedPython
        torchrun(options)

    return start_with(torchrun_of_forks, arguments)


def start_programs(*arguments: str) -> ForkedProgram:
    """The two that torchrun starts are programs of their own."""
    return start_with(torchrun, arguments)


def start_with(run: Callable[[list[str]], None], arguments: tuple[str, ...]) -> ForkedProgram:
    options = ["--standalone", "--nproc-per-node", "2", *arguments]  # at a port that torchrun takes
    return ForkedProgram(partial(run, options), variables={"OMP_NUM_THREADS": "1"})


class Stops(Callback):
    """Ctrl-C after the first epoch."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def two(birds: Path, cache_dir: Path, made_once) -> Path:
    """What `compute` of two_processes.py left."""

    def compute(out: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            train(birds, cache_dir, out / "begun", *RUNS["pairs"], callback=Stops())
        running = start(two_processes.__file__, "compute", *map(str, (birds, cache_dir, out)))
        printed, errors = running.communicate()
        assert running.returncode == 0, (printed, errors[-3000:])

    return made_once("two processes", compute)


@pytest.fixture(scope="module")
def single(trained) -> dict[str, Path]:
    """The folders of the same runs by one process, with as many threads as each of the two: weights
    to start from are made for a number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: trained(*settings).folder for name, settings in RUNS.items()}
    finally:
        torch.set_num_threads(threads)


def folder_in(place: Path) -> Path:
    (summary,) = place.rglob("summary.json")
    return summary.parent


def reports_of(two: Path) -> list[dict[str, Any]]:
    return [json.loads((two / f"told by {rank}.json").read_text()) for rank in (0, 1)]


def records(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(folder / "metrics.jsonl")


def trained(record: dict[str, Any]) -> dict[str, Any]:
    """What rounding can't turn over: no times, and no accuracies, in which two images as near to a
    query as each other may change places."""
    return {
        key: value
        for key, value in record.items()
        if not key.endswith("_seconds") and "accuracy" not in key
    }


def sessions(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "environment.json").read_text())["sessions"]


def apart(folder: Path, other: Path, phase: str) -> float:
    """How far the weights are from those of the other run, over how far training moved those."""
    mine, theirs = (load_file(path / phase / "weights.safetensors") for path in (folder, other))
    untrained = build_embedder(tiny()).state_dict()
    assert mine.keys() == theirs.keys() == untrained.keys()
    return distance(mine, theirs) / distance(theirs, untrained)


def distance(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return (
        sum(
            float((weights[name].double() - others[name].double()).square().sum())
            for name in weights
        )
        ** 0.5
    )


def assert_same_result(folder: Path, other: Path) -> None:
    for mine, theirs in zip(records(folder), records(other), strict=True):
        assert trained(mine) == pytest.approx(trained(theirs), abs=CLOSE)
    for phase in PHASES:
        assert apart(folder, other, phase) < 0.2
        for file in ("objective", "embeddings"):
            mine, theirs = (
                load_file(path / phase / f"{file}.safetensors") for path in (folder, other)
            )
            assert mine.keys() == theirs.keys()
            assert all(
                torch.allclose(mine[name].float(), theirs[name].float(), atol=CLOSE)
                for name in mine
            )
        mine, theirs = (
            read_neighbours(path / phase / "neighbours.safetensors") for path in (folder, other)
        )
        assert np.allclose(mine.similarities, theirs.similarities, atol=CLOSE)
        decided = mine.similarities[:, 0] - mine.similarities[:, 1] > 1e-5
        assert decided.mean() > 0.5
        assert (mine.labels[decided, 0] == theirs.labels[decided, 0]).all()


# What comes out


@pytest.mark.parametrize("name", list(RUNS))
def test_two_processes_train_what_one_would(name, two, single):
    assert_same_result(folder_in(two / name), single[name])


def test_the_comparison_would_see_another_training(two, single):
    with pytest.raises(AssertionError):
        assert_same_result(folder_in(two / "labels"), single["proxies"])
    assert apart(single["views"], single["pairs"], "all") > 0.5
    assert apart(single["pairs"], single["pairs"], "limited") == 0


def test_labels_are_corrected_alike(two, single):
    mine, theirs = (
        (folder / "all" / "corrections.csv").read_text()
        for folder in (folder_in(two / "labels"), single["labels"])
    )
    assert mine == theirs
    assert len(mine.splitlines()) > 3


def test_there_is_one_run_folder_with_the_files_of_a_single_process_and_one_record_of_each_epoch(
    two, single
):
    folder = folder_in(two / "pairs")

    def files(run: Path) -> list[str]:
        return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())

    assert files(folder) == files(single["pairs"])
    assert [(record["phase"], record["epoch"]) for record in records(folder)] == [
        (phase, epoch) for phase in PHASES for epoch in (1, 2, 3, 4)
    ]
    assert [session["processes"] for session in sessions(folder)] == [2]
    assert [session["processes"] for session in sessions(single["pairs"])] == [1]


def test_each_process_has_its_own_batch_statistics_and_the_first_one_s_are_kept_for_all(
    birds, cache_dir, two
):
    folder, experiment = folder_in(two / "own statistics"), tiny(*OWN_STATISTICS)
    embedder = build_embedder(experiment).eval()
    embedder.load_state_dict(load_file(folder / "all" / "weights.safetensors"))
    dataset = open_dataset(experiment.data.dataset, birds, cache_dir)
    pixels = open_image_inputs(experiment, dataset, cache_dir, torch.device("cpu"))
    arrays = read_arrays(folder / "all" / "embeddings.safetensors")
    assert np.allclose(
        arrays["gallery"], embedder.embed(pixels.view(arrays["gallery_images"])).numpy(), atol=1e-5
    )


# Going on


def test_a_run_that_one_process_began_is_finished_by_two(two, single):
    assert [session["processes"] for session in sessions(folder_in(two / "begun"))] == [1, 2]
    assert_same_result(folder_in(two / "begun"), single["pairs"])


@pytest.mark.parametrize("begin", [start, pytest.param(start_programs, marks=pytest.mark.slow)])
def test_a_run_that_two_processes_began_goes_on_in_one_after_ctrl_c(
    begin, birds, cache_dir, tmp_path, single
):
    settings = [part for setting in RUNS["pairs"] for part in ("--set", setting)]
    running = begin(*command(birds, cache_dir, tmp_path, *settings)[1:])
    while not any(tmp_path.glob("*/*/seed-*/metrics.jsonl")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    printed, errors = running.communicate()
    assert running.returncode != 0
    assert (
        "stopped; finished epochs are kept" in errors and errors.count("Traceback") == 1
    )  # torchrun's own
    assert printed.count("phase limited") == 1 and "2 processes" in printed
    assert not any(tmp_path.rglob("summary.json"))
    folder = train(birds, cache_dir, tmp_path, *RUNS["pairs"]).folder
    assert [session["processes"] for session in sessions(folder)] == [2, 1]
    assert_same_result(folder, single["pairs"])


# What the processes tell each other


def test_a_batch_is_shared_out_in_order_and_whole_where_it_is_too_small(two):
    assert reports_of(two)[0]["parts"] == [
        "[slice(0, 3, None), slice(0, 3, None)]",
        "[slice(0, 2, None), slice(2, 4, None)]",
        "[slice(0, 3, None), slice(3, 7, None)]",
    ]


def test_gathered_values_are_the_joint_ones_and_gradients_are_those_of_the_own_part_times_two(two):
    first, second = (report["gathered"] for report in reports_of(two))
    assert first["joint"] == second["joint"] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert first["gradient"] == [0, 4, 0, 0, 0, 100, 144, 0, 0, 0]
    assert second["gradient"] == [0, 0, 16, 36, 64, 0, 0, 196, 256, 324]


def test_dropout_draws_for_each_process_and_leaves_the_common_generator_alone(two):
    first, second = (report["drawn"] for report in reports_of(two))
    assert first["own"] != second["own"]
    torch.manual_seed(1)
    assert first["common"] == second["common"] == float(torch.rand(()))


# What is refused, and failures


def test_what_two_processes_can_t_do_is_refused_in_one_line_that_says_the_way_out(two):
    first, second = (report["refused"] for report in reports_of(two))
    assert first == second
    assert first["inside"].endswith("start one process, or --set mixing.technique=mixup")
    assert first["sync_bn"].endswith("start one process, or --set train.sync_bn=false")


def test_what_is_wrong_is_said_once(tmp_path):
    running = start("-m", "dml_bench", "run", "nonsense", "--out", str(tmp_path))
    _, errors = running.communicate()
    assert running.returncode != 0
    assert errors.startswith("error: unknown experiment 'nonsense'")
    assert errors.count("error: unknown") == 1
    assert (
        "traceback : unknown experiment 'nonsense'" in errors
    )  # where torchrun says what it knows


def test_a_process_that_fails_alone_ends_all_and_is_heard(tmp_path):
    running = start(two_processes.__file__, "fail", *[str(tmp_path)] * 3)
    _, errors = running.communicate()
    assert running.returncode != 0
    assert errors.count("MemoryError: no room in the second process") == 1
    assert errors.count("Traceback") == 2  # its own, and torchrun's


@pytest.mark.parametrize(
    "stray",
    [
        {"RANK": "3"},
        {"RANK": "1", "WORLD_SIZE": "4"},
        {"LOCAL_RANK": "1"},
        {"RANK": "", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    ],
)
def test_stray_variables_of_a_cluster_start_nothing(stray, monkeypatch):
    for name, value in stray.items():
        monkeypatch.setenv(name, value)
    assert distributed.torchrun_rank() == distributed.Rank(rank=0, local_rank=0, size=1)


def test_only_run_is_started_by_torchrun():
    place = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dml_bench", "list", "losses"],
        capture_output=True,
        text=True,
        env=os.environ | place,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: torchrun starts several processes, which only `run` can use; start dml-bench"
        " list without it\n"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("model.batch_norm=frozen",),
            "train.sync_bn has no effect with model.batch_norm = frozen",
        ),
        (("model.trainable=head",), "train.sync_bn has no effect with model.trainable = head"),
        (("model.trainable=last:1",), "sync_bn has no effect .* trains a part of the network"),
    ],
)
def test_shared_statistics_of_what_stays_as_it_is_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny("train.sync_bn=true", *settings)


def test_one_process_has_the_statistics_of_the_joint_batch_anyway(birds, cache_dir, tmp_path):
    plain, synced = (
        train(birds, cache_dir, tmp_path / value, "train.epochs=1", f"train.sync_bn={value}").folder
        for value in ("false", "true")
    )
    for phase in PHASES:
        assert (plain / phase / "weights.safetensors").read_bytes() == (
            synced / phase / "weights.safetensors"
        ).read_bytes()
