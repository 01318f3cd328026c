"""Training steps on one thread, on one thread that a spare core helps to the same bits, and on all
of PyTorch's own threads, whose bits are others: ResNet-18 at 48 px, as in the drawn birds' source
weights (batches of 32) and phases (of 128).

    python benchmarks/spare_core.py

Writes reports/speed/spare_core.json and spare_core.md.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import each_in_turn, facts, median_spread, of_rounds, options_of, table, write
from contestants import Ours, Setting

from dml_bench.api.arguments import experiment_of
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs
from dml_bench.data.split import make_split
from dml_bench.system.devices import choose_device, choose_precision, torch_threads
from dml_bench.system.spare_threads import spare_threads

BATCH_SIZES = (32, 128)
ONE, HELPED, ALL = "one thread", "one thread and a spare core", "all threads of PyTorch"


@contextmanager
def threads(way: str, cores: int) -> Iterator[None]:
    """Within, PyTorch computes in that way."""
    with torch_threads(cores if way == ALL else 1), spare_threads(cores if way == HELPED else 0):
        yield


def trained(contestant: Ours, way: str, cores: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    with threads(way, cores):
        contestant.train()
    return len(contestant.run.images) / (time.perf_counter() - start)


def contestant(batch_size: int, steps: int, cache_dir: Path) -> Ours:
    """Our loop on so many steps of drawn birds, warm."""
    experiment = experiment_of(
        "EPSHN_cosine_resnet18_sgd_aug",
        demo=True,
        overrides=[f"train.batch_size={batch_size}", "model.weights=none"],
    )
    dataset = open_dataset(experiment.data.dataset, None, cache_dir)
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    device = choose_device("cpu")
    pixels = open_image_inputs(experiment, dataset, cache_dir, device)
    setting = Setting(experiment, dataset, split, pixels, device, 0)
    ours = Ours(setting, choose_precision("auto", device))
    ours.shorten(min(steps, len(split.train) // batch_size))
    ours.train()
    return ours


def main() -> None:
    """All ways, at both batch sizes."""
    options = options_of(__doc__, steps=40)
    steps, cores = 6 if options.quick else options.steps, len(os.sched_getaffinity(0))
    results, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in BATCH_SIZES:
            ours = contestant(batch_size, steps, Path(folder))
            rates = each_in_turn(
                {
                    way: lambda way=way, ours=ours: trained(ours, way, cores)
                    for way in (ONE, HELPED, ALL)
                },
                options.rounds,
            )
            results[batch_size] = rates
            for way, speeds in rates.items():
                over = [fast / one for fast, one in zip(speeds, rates[ONE], strict=True)]
                rows.append([f"{batch_size}: {way}", median_spread(speeds), median_spread(over)])
    lines = [
        "",
        f"{cores} cores. {of_rounds(options.rounds)}.",
        "",
        *table(["batch size: threads", "images trained on a second", "over one thread"], rows),
    ]
    ratios = {
        size: statistics.median(rates[HELPED]) / statistics.median(rates[ONE])
        for size, rates in results.items()
    }
    result = {**facts(), "results": results, "ratios": ratios}
    write("spare_core", "A core that is left over", result, lines, options.out)


if __name__ == "__main__":
    main()
