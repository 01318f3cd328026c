"""The same numbers with every fast path on and off: what is bit-equal, and how far the rest is
apart beside what a seed changes.

    python benchmarks/parity.py

Trains phase `all` of a run from random weights on the drawn birds, once per seed and way. Writes
reports/speed/parity.json and .md.
"""

import hashlib
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import facts, options_of, table, write

from dml_bench.config.experiments import resolve
from dml_bench.evaluation.metrics import map_at_r, micro, precision_at_1
from dml_bench.evaluation.search import search
from dml_bench.models import convolutions
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_precision
from dml_bench.system.seeding import deterministic
from dml_bench.training import loop
from dml_bench.training.build import build
from dml_bench.training.inputs import open_inputs

EXPERIMENT = "EPSHN_cosine_resnet18_scratch_sgd_aug"
WAYS = {
    "all fast paths": {},
    "again": {},
    "oneDNN's weight gradients on small maps": {"largest": 0},
    "float32": {"precision": "float32"},
}


@contextmanager
def largest(positions: int) -> Iterator[None]:
    before, convolutions.LARGEST = convolutions.LARGEST, positions
    try:
        yield
    finally:
        convolutions.LARGEST = before


def trained(way: dict[str, Any], seed: int, cache: Path, epochs: int) -> dict[str, Any]:
    """P@1 and MAP@R of the test images after a training, the embeddings' digest, and the largest
    difference of a metric from another library's."""
    deterministic()
    experiment = resolve(
        EXPERIMENT,
        profile="demo",
        overrides=[f"seed={seed}", f"train.epochs={epochs}", f"evaluate.every={epochs}"],
    )
    device = torch.device("cpu")
    images = open_inputs(experiment, None, cache, device, Callback())
    precision = way.get("precision") or choose_precision("auto", device)
    with largest(way.get("largest", convolutions.LARGEST)):
        run = build(
            *(experiment, images.phases[0], images.dataset, images.split, images.pixels),
            device=device,
            precision=precision,
            callback=Callback(),
        )
        loop.fit(run, lambda run: None)
    gallery, query = run.embed(images.split.gallery), run.embed(images.split.test)
    labels = images.dataset.labels
    known, query_labels = labels[images.split.gallery], labels[images.split.test]
    neighbours = search(gallery, query, known, query_labels, 60)
    ours = {
        "precision_at_1": micro(precision_at_1(neighbours)),
        "map_at_r": micro(map_at_r(neighbours)),
    }
    return {
        **ours,
        "digest": hashlib.sha256(query.tobytes() + gallery.tobytes()).hexdigest(),
        "others": others(gallery, query, known, query_labels),
    }


def others(gallery: Any, query: Any, known: Any, query_labels: Any) -> dict[str, float]:
    """The same metrics by pytorch-metric-learning."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    accuracy = calculator.get_accuracy(
        torch.from_numpy(query),
        torch.from_numpy(query_labels),
        torch.from_numpy(gallery),
        torch.from_numpy(known),
    )
    return {
        "precision_at_1": accuracy["precision_at_1"],
        "map_at_r": accuracy["mean_average_precision_at_r"],
    }


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dml-bench"
    options = options_of(__doc__, seeds=(42, 43, 44), epochs=5, cache_dir=str(cache))
    seeds, epochs = ((42,), 1) if options.quick else (options.seeds, options.epochs)
    by_way: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for seed in seeds:
        for name, way in WAYS.items():
            by_way[name].append(trained(way, seed, Path(options.cache_dir), epochs))
            print(
                f"seed {seed}  {name:<42} P@1 {by_way[name][-1]['precision_at_1']:.4f}", flush=True
            )
    base = by_way["all fast paths"]
    rows = []
    for name, runs in by_way.items():
        equal = all(run["digest"] == other["digest"] for run, other in zip(runs, base, strict=True))
        differences = [
            run["precision_at_1"] - other["precision_at_1"]
            for run, other in zip(runs, base, strict=True)
        ]
        scores = ", ".join(f"{run['precision_at_1']:.3f}" for run in runs)
        rows.append(
            [name, scores, f"{statistics.mean(differences):+.4f}", "yes" if equal else "no"]
        )
    apart = max(
        abs(run[key] - run["others"][key])
        for runs in by_way.values()
        for run in runs
        for key in ("precision_at_1", "map_at_r")
    )
    spread = max(run["precision_at_1"] for run in base) - min(run["precision_at_1"] for run in base)
    lines = [
        *(
            "",
            (
                f"P@1 of phase `all` after {epochs} epochs on the drawn birds, seeds"
                f" {', '.join(map(str, seeds))}, {len(seeds)} runs each way."
            ),
            "",
        ),
        *table(["", "P@1 by seed", "mean difference", "embeddings bit-equal"], rows),
        *(
            "",
            (
                f"Between the seeds P@1 spreads over {spread:.4f}. Ours and"
                " pytorch-metric-learning's P@1 and MAP@R of the same embeddings"
            ),
        ),
        (
            f"differ by {apart:.1e} at most. That cached pixels are those of the usual loop is"
            " asserted before each race (epoch-224.md)."
        ),
    ]
    result = {
        **facts(),
        "experiment": EXPERIMENT,
        "epochs": epochs,
        "found": by_way,
        "spread_of_seeds": spread,
        "largest_difference": apart,
    }
    write("parity", "The same numbers with every fast path on and off", result, lines, options.out)


if __name__ == "__main__":
    main()
