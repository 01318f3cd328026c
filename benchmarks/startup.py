"""Time from typing a command to its first answer: help, list, and the first training step on images
that are decoded already.

    python benchmarks/startup.py

Writes reports/speed/startup.json and startup.md.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import alone, each_in_turn, facts, median_spread, of_rounds, options_of, table, write

EXPERIMENT = "EPSHN_cosine_resnet18_scratch_sgd_aug"
COMMANDS = {
    f"dml-bench {line}": line.split()
    for line in ("--help", "run --help", "list losses", "list experiments", "list all")
}


def answers(arguments: list[str]) -> float:
    """Seconds of a whole command."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dml_bench", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def first_step(cache: str) -> float:
    """Seconds from starting the process to the end of the first training step of a run on the drawn
    birds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--alone", cache], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    line = process.stdout.readline()
    took = time.perf_counter() - start
    process.wait()
    if line.strip() != "first step":
        raise SystemExit("the run ended before its first step")
    return took


def run_to_first_step(cache: str) -> None:
    """What `dml-bench run --demo` does, until its first step is done."""
    import dml_bench.cli.app  # noqa: F401 - the command line's own imports
    from dml_bench.config.experiments import resolve
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest
    from dml_bench.system.callbacks import Callback

    class FirstStep(Callback):
        def on_step(self, images: int, loss: Any) -> None:
            print("first step", flush=True)
            os._exit(0)

    with tempfile.TemporaryDirectory() as out:
        execute(
            RunRequest(
                experiment=resolve(EXPERIMENT, profile="demo"),
                out=Path(out),
                cache_dir=Path(cache),
                callback=FirstStep(),
            )
        )


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dml-bench"
    options = options_of(__doc__, rounds=5, cache_dir=str(cache))
    ways: dict[str, Any] = {
        name: lambda arguments=arguments: answers(arguments) for name, arguments in COMMANDS.items()
    }
    ways["first training step, cached images"] = lambda: first_step(options.cache_dir)
    for way in ways.values():  # files are read once, images are drawn and decoded once
        way()
    seconds = each_in_turn(ways, options.rounds)
    result = {**facts(), "rounds": options.rounds, "experiment": EXPERIMENT, "seconds": seconds}
    rows = [[name, median_spread(taken)] for name, taken in seconds.items()]
    lines = [
        "",
        f"{of_rounds(options.rounds)}.",
        "",
        *table(["", "seconds"], rows),
    ]
    write("startup", "Starting", result, lines, options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        run_to_first_step(*arguments)
    else:
        main()
