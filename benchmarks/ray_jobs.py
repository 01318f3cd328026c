"""What a suite adds to each of many tiny runs: on a Ray cluster of two nodes on this machine, and
in processes without Ray.

    python benchmarks/ray_jobs.py
    python benchmarks/ray_jobs.py --jobs 20 --rounds 1

A run's own work is timed in a process that has imported everything and has carried out a run
before. The rest of a slot's time is what the suite adds: `slots x wall seconds / runs - own work`,
from typing the command to its end, its page included. Writes reports/speed/ray_jobs.json and
ray_jobs.md.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import (
    alone,
    each_in_turn,
    facts,
    in_processes,
    median_spread,
    of_rounds,
    options_of,
    table,
    write,
)

EXPERIMENT = "EPSHN_cosine_resnet18_sgd_aug"
SETTINGS = (
    "data.dataset=demo",
    "data.dataset.classes=8",
    "data.dataset.per_class=10",
    "data.dataset.size=64",
    "unseen=last:2",
    "images.size=32",
    "augment.random_crop_from=36",
    "train.epochs=1",
    "train.batch_size=16",
    "model.backbone=timm:test_resnet",
    "model.weights=none",
    "optimizer.lr=0.05",
)
NODES = 2
"""Each has one core to give."""
OWN_RUNS = 5
RAY, PROCESSES = "Ray, two nodes", "processes"


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, that nobody else can reach."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    from ray.cluster_utils import Cluster

    node = {
        "num_cpus": 1,
        "include_dashboard": False,
        "object_store_memory": 80 * 2**20,
        "node_ip_address": "127.0.0.1",
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def own_work(cache: str) -> None:
    """Print the seconds of a run, the first one left out."""
    from dml_bench.config.experiments import resolve
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest

    seconds = []
    with tempfile.TemporaryDirectory() as out:
        for seed in range(OWN_RUNS + 1):
            experiment = resolve(EXPERIMENT, overrides=[*SETTINGS, f"seed={seed}"])
            start = time.perf_counter()
            execute(
                RunRequest(
                    experiment=experiment, out=Path(out), cache_dir=Path(cache), device="cpu"
                )
            )
            seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))


def suite(jobs: int, cache: str, *more: str) -> dict[str, float]:
    """Seconds of a suite of so many runs: from its start to its end, and of those the ones in
    which runs were carried out."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    seeds = ",".join(map(str, range(jobs)))
    with tempfile.TemporaryDirectory() as out:
        command = ["suite", EXPERIMENT, *settings, "--seeds", seeds, "--device", "cpu"]
        places = ["--out", out, "--cache-dir", cache, "--wandb", "disabled"]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dml_bench", *command, *places, *more],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"the suite failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        [page] = Path(out).glob("suite/*/suite.json")
        [session] = json.loads(page.read_text(encoding="utf-8"))["sessions"]
    assert sum(run["status"] == "finished" for run in session["runs"]) == jobs
    return {"command": seconds, "runs": session["wall_seconds"]}


def main() -> None:
    options = options_of(__doc__, jobs=200)
    jobs = 6 if options.quick else options.jobs
    with tempfile.TemporaryDirectory() as cache, two_nodes() as address:
        os.environ["OMP_NUM_THREADS"] = "1"
        own = in_processes(__file__, {"own work": [cache]}, 1)["own work"][0]
        ways = {
            RAY: lambda: suite(jobs, cache, "--ray", address),
            PROCESSES: lambda: suite(jobs, cache, "--jobs", str(NODES)),
        }
        seconds = each_in_turn(ways, options.rounds)
    alone_seconds = statistics.median(own)
    added: dict[str, list[float]] = {}
    for way, rounds in seconds.items():
        added[way] = [NODES * taken["command"] / jobs - alone_seconds for taken in rounds]
    result = {
        **facts(),
        "rounds": options.rounds,
        "jobs": jobs,
        "own": own,
        "seconds": seconds,
        "added": added,
    }
    rows = []
    for way, rounds in seconds.items():
        command = median_spread([taken["command"] for taken in rounds])
        running = median_spread([taken["runs"] for taken in rounds])
        rows.append([way, command, running, median_spread(added[way])])
    lines = [
        "",
        (
            f"{jobs} runs, {NODES} at a time on one thread each. {of_rounds(options.rounds)}. A"
            f" run's own work: {median_spread(own)} seconds, of {len(own)} in one process that has"
            " imported everything."
        ),
        "",
        *table(["", "command, s", "of it carrying out runs, s", "added to each run, s"], rows),
    ]
    write("ray_jobs", "Many tiny runs", result, lines, options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        own_work(*arguments)
    else:
        main()
