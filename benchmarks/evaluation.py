"""Time and peak memory of scoring embeddings: ours, one exact FAISS search, and the metrics of
other libraries.

    python benchmarks/evaluation.py [--oml DIR]

Each image is asked among all others (the protocol of the papers), 60 images a class. Writes
reports/speed/evaluation.json and .md. open-metric-learning wants other versions of common packages,
so it is taken from a folder of its own: `pip install --no-deps --target DIR
open-metric-learning==4.0.0 validators omegaconf "antlr4-python3-runtime<4.10" gdown`.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    alone,
    facts,
    in_processes,
    median_spread,
    memory_of_this,
    options_of,
    table,
    write,
)

METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
PER_CLASS = 60
WAYS = {
    "ours": "ours: P@1, R@k, R-precision, MAP@R, votes, per class",
    "faiss": "one exact FAISS search, no metric",
    "pml_bin": 'AccuracyCalculator(k="max_bin_count"): P@1, R-precision, MAP@R',
    "pml": "AccuracyCalculator, its default k: P@1, R-precision, MAP@R",
    "oml": "open-metric-learning: CMC@1, precision@R, MAP@R",
}
LARGEST_FOR = {"pml": 12_000, "oml": 12_000}
"""More images would need tens of gigabytes (the default k is all neighbours) or very long."""


def drawn(images: int, dim: int, path: Path) -> None:
    """(images, dim) unit vectors around class centres, of which about two in three have a neighbour
    of their own class."""
    numbers = np.random.default_rng(0)
    centres = numbers.normal(size=(-(-images // PER_CLASS), dim)).astype(np.float32)
    embeddings = (
        np.repeat(centres, PER_CLASS, 0)[:images]
        + numbers.normal(size=(images, dim)).astype(np.float32) * 3
    )
    np.save(path, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def ours(embeddings: np.ndarray, labels: np.ndarray) -> float:
    from dml_bench.evaluation import metrics
    from dml_bench.evaluation.search import search_leaving_one_out

    neighbours = search_leaving_one_out(embeddings, labels, PER_CLASS)
    correct = metrics.precision_at_1(neighbours)
    for k in (1, 2, 4, 8):
        metrics.micro(metrics.recall_at(neighbours, k))
    for values in (metrics.r_precision(neighbours), metrics.map_at_r(neighbours), correct):
        metrics.by_class(values, labels, int(labels.max()) + 1)
    for k in (1, 3, 5, 10):
        for weights in ("majority", "distance"):
            metrics.vote(neighbours, k, weights=weights)
    return metrics.micro(correct)


def faiss(embeddings: np.ndarray, labels: np.ndarray) -> float:
    import faiss

    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    _, indices = index.search(embeddings, PER_CLASS + 1)
    return float((labels[indices[:, 1]] == labels).mean())


def pml(embeddings: np.ndarray, labels: np.ndarray, k: str | None = None) -> float:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=METRICS, k=k, device=torch.device("cpu"))
    return calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))[
        "precision_at_1"
    ]


def oml(embeddings: np.ndarray, labels: np.ndarray) -> float:
    import torch
    from oml.functional.knn import batched_knn
    from oml.functional.metrics import calc_retrieval_metrics

    ids = torch.arange(len(labels))
    _, retrieved, relevant = batched_knn(
        torch.from_numpy(embeddings), ids, ids, top_n=PER_CLASS, labels_gt=torch.from_numpy(labels)
    )
    scores = calc_retrieval_metrics(
        retrieved,
        relevant,
        cmc_top_k=(1,),
        precision_top_k=(PER_CLASS,),
        map_top_k=(PER_CLASS,),
        verbose=False,
    )
    return float(scores["cmc"][1])


def measured(way: str, path: str, more: list[str]) -> dict[str, float]:
    """Seconds, and peak gigabytes above the embeddings and the imports, of one scoring in this
    process."""
    sys.path += more
    embeddings = np.load(path)
    labels = np.arange(len(embeddings)) // PER_CLASS
    works: dict[str, Callable[..., float]] = {"ours": ours, "faiss": faiss, "pml": pml, "oml": oml}
    work, extra = works[way.partition("_")[0]], ("max_bin_count",) if way == "pml_bin" else ()
    work(embeddings[:600], labels[:600], *extra)  # imports, and the threads' start
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_of_this()["VmRSS"]
    start = time.perf_counter()
    score = work(embeddings, labels, *extra)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "gigabytes": (memory_of_this()["VmHWM"] - before) / 1e9,
        "precision_at_1": score,
    }


def main() -> None:
    options = options_of(__doc__, images=(11_800, 60_000), dim=512, oml="")
    sizes = (1_200, 2_400) if options.quick else options.images
    result: dict[str, Any] = {
        **facts(),
        "dim": options.dim,
        "rounds": options.rounds,
        "per_class": PER_CLASS,
        "sizes": {},
    }
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for images in sizes:
            drawn(images, options.dim, path := Path(folder) / f"{images}.npy")
            names = [
                name
                for name in WAYS
                if images <= LARGEST_FOR.get(name, images) and (name != "oml" or options.oml)
            ]
            ways = {
                name: [name, str(path), *([options.oml] if name == "oml" else [])] for name in names
            }
            result["sizes"][str(images)] = measured = in_processes(__file__, ways, options.rounds)
            lines += section(images, options, measured)
    write("evaluation", "Scoring embeddings", result, lines, options.out)


def section(images: int, options: Any, measured: dict[str, list[dict[str, float]]]) -> list[str]:
    base = statistics.median(run["seconds"] for run in measured["faiss"])
    rows = []
    for name, runs in measured.items():
        seconds = [run["seconds"] for run in runs]
        memory = max(run["gigabytes"] for run in runs)
        over = f"{statistics.median(seconds) / base:.2f}"
        rows.append(
            [
                WAYS[name],
                median_spread(seconds),
                over,
                f"{memory:.2f}",
                f"{runs[0]['precision_at_1']:.4f}",
            ]
        )
    title = (
        f"## {images:,} x {options.dim}, medians (least-most) of {options.rounds} rounds in turns,"
        " each in a fresh process"
    )
    head = ["", "seconds", "over one FAISS search", "peak GB above the embeddings", "P@1"]
    left = (
        []
        if "oml" in measured or images > LARGEST_FOR["oml"]
        else ["", "open-metric-learning: not measured (see --oml)."]
    )
    return ["", title, "", *table(head, rows), *left]


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(measured(arguments[0], arguments[1], arguments[2:])))
    else:
        main()
