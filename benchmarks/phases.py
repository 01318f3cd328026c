"""The two phases of a run beside each other, as `dml-bench run` trains them on a CPU, and one after
another on all threads: on a machine that is idle, and beside other programs that never pause.

    python benchmarks/phases.py

Other programs are one busy loop for each core, of the same priority. Each run is of the drawn birds
at 64 px, with its start weights trained already. Writes reports/speed/phases.json and phases.md.
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
from typing import Any

from common import each_in_turn, facts, median_spread, of_rounds, options_of, table, write

EXPERIMENT = "EPSHN_cosine_resnet18_scratch_sgd_aug"
WAYS = {"one after another": 1, "beside each other": 2}


@contextmanager
def other_programs(count: int) -> Iterator[None]:
    """Within, so many processes never pause."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(at_once: int, epochs: int, cache: str) -> dict[str, float]:
    """Seconds of a whole command, and the images a second of both phases together while they
    train."""
    with tempfile.TemporaryDirectory() as out:
        settings = ["--demo", "--set", f"train.epochs={epochs}", "--wandb", "disabled"]
        places = ["--out", out, "--cache-dir", cache, "--device", "cpu"]
        typed = [sys.executable, "-m", "dml_bench", "run", EXPERIMENT, *settings, *places]
        start = time.perf_counter()
        subprocess.run(
            [*typed, "--phases-at-once", str(at_once)], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - start
        [summary] = Path(out).glob("*/*/seed-*/summary.json")
        cost = json.loads(summary.read_text(encoding="utf-8"))["cost"]
    trained = [part["train_seconds"] for part in cost.values() if isinstance(part, dict)]
    images = [
        part["train_seconds"] * part["train_images_per_second"]
        for part in cost.values()
        if isinstance(part, dict)
    ]
    training = max(trained) if at_once > 1 else sum(trained)
    return {"seconds": seconds, "images_per_second": sum(images) / training}


def measured(epochs: int, rounds: int, cache: str) -> dict[str, list[dict[str, float]]]:
    """Of each way the results of all rounds."""
    ways: dict[str, Any] = {
        name: lambda at_once=at_once: run(at_once, epochs, cache) for name, at_once in WAYS.items()
    }
    return each_in_turn(ways, rounds)


def main() -> None:
    """All ways, on both kinds of machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dml-bench"
    options = options_of(__doc__, epochs=8, cache_dir=str(cache))
    epochs = 1 if options.quick else options.epochs
    cores = len(os.sched_getaffinity(0))
    run(1, 1, options.cache_dir)  # draws and decodes the birds
    results = {"idle": measured(epochs, options.rounds, options.cache_dir)}
    with other_programs(cores):
        busy = f"{cores} other programs"
        results[busy] = measured(epochs, options.rounds, options.cache_dir)
    rows, ratios = [], {}
    for machine, ways in results.items():
        rates = {}
        for name, rounds in ways.items():
            speeds = [result["images_per_second"] for result in rounds]
            seconds = [result["seconds"] for result in rounds]
            rates[name] = statistics.median(speeds)
            rows.append([f"{machine}: {name}", median_spread(speeds), median_spread(seconds)])
        ratios[machine] = rates["beside each other"] / rates["one after another"]
    lines = [
        "",
        f"{of_rounds(options.rounds)}.",
        "",
        *table(["phases", "images trained on a second", "seconds of the command"], rows),
        "",
        *(f"- {machine}: {ratio:.2f} times as fast" for machine, ratio in ratios.items()),
    ]
    result = {**facts(), "epochs": epochs, "results": results, "ratios": ratios}
    write("phases", "Phases beside each other", result, lines, options.out)


if __name__ == "__main__":
    main()
