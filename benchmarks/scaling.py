"""How the cost grows: with images, batch size, classes, dimension and gallery, each as a line in
log-log axes with its exponent.

    python benchmarks/scaling.py

Writes reports/speed/scaling.json, scaling.md and scaling.svg/.png.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import each_in_turn, facts, options_of, table, write
from contestants import Ours, Setting
from epoch import photographs

from dml_bench.config.experiments import resolve
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs
from dml_bench.data.split import make_split
from dml_bench.evaluation import metrics
from dml_bench.evaluation.search import flat_index, search_leaving_one_out
from dml_bench.evaluation.statistics import Scores, interval
from dml_bench.plots.canvas import with_palette
from dml_bench.registry import losses
from dml_bench.system.devices import choose_precision

Ways = dict[int, Callable[[], Any]]
SIZE, DIM, PER_CLASS = 64, 128, 60

MEASURES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "epoch": ("training epoch, 64 px", "training images", (64, 128, 256, 416)),
    "step": ("training step, 64 px", "batch size", (16, 32, 64, 128, 256)),
    "proxies": ("ProxyNCA, forward and backward", "classes", (200, 2000, 20_000, 100_000)),
    "evaluate": ("search and metrics, 128-d", "images", (2500, 5000, 10_000, 20_000, 40_000)),
    "dimension": ("search and metrics, 10,000 images", "dimension", (32, 128, 512, 2048)),
    "look_up": ("one look-up, exact, 128-d", "gallery images", (1000, 10_000, 100_000, 1_000_000)),
    "interval": ("interval of P@1", "queries", (500, 2000, 8000)),
}
"""What is timed, against what, and where."""


def setting(images: int, batch: int, cache: Path, pixels: Path) -> Setting:
    overrides = [
        *(f"images.size={SIZE}", "augment.random_crop_from=70", f"train.batch_size={batch}"),
        *("model.weights=none", "data.dataset=folder", "data.test_fraction=0.2"),
    ]
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=overrides)
    dataset = open_dataset(
        experiment.data.dataset, photographs(cache / "birds-20x26", 20, 26), cache
    )
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=42)
    device = torch.device("cpu")
    split = type(split)(
        split.train[:images], split.test, split.fingerprint, split.train[:images], split.valid
    )
    return Setting(
        experiment,
        dataset,
        split,
        open_image_inputs(experiment, dataset, pixels, device),
        device,
        0,
    )


def training(sizes: tuple[int, ...], cache: Path, pixels: Path) -> Ways:
    def way(images: int) -> Callable[[], Any]:
        ours = Ours(
            setting(images, 64, cache, pixels), choose_precision("auto", torch.device("cpu"))
        )
        return ours.train

    return {images: way(images) for images in sizes}


def steps(sizes: tuple[int, ...], cache: Path, pixels: Path) -> Ways:
    precision = choose_precision("auto", torch.device("cpu"))
    return {
        batch: Ours(setting(batch, batch, cache, pixels), precision).steps(2) for batch in sizes
    }


def proxies(sizes: tuple[int, ...]) -> Ways:
    def way(classes: int) -> Callable[[], Any]:
        loss = losses["ProxyNCA"].build(classes, DIM)
        embeddings = torch.nn.functional.normalize(torch.randn(128, DIM), dim=1).requires_grad_()
        labels = torch.arange(128) % classes
        return lambda: loss(embeddings, labels).backward()

    return {classes: way(classes) for classes in sizes}


def unit_vectors(images: int, dim: int) -> np.ndarray:
    """(images, dim) around the centres of classes of 60."""
    numbers = np.random.default_rng(0)
    vectors = numbers.standard_normal((images, dim), np.float32)
    vectors += (
        0.5
        * np.repeat(
            numbers.standard_normal((-(-images // PER_CLASS), dim), np.float32), PER_CLASS, 0
        )[:images]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def evaluation(images: int, dim: int) -> Callable[[], Any]:
    vectors, labels = unit_vectors(images, dim), np.arange(images) // PER_CLASS

    def work() -> None:
        neighbours = search_leaving_one_out(vectors, labels, PER_CLASS)
        metrics.map_at_r(neighbours)
        metrics.vote(neighbours, 10)

    return work


def look_ups(sizes: tuple[int, ...]) -> Ways:
    def way(gallery: int) -> Callable[[], Any]:
        index, query = flat_index(unit_vectors(gallery, DIM)), unit_vectors(1, DIM)
        return lambda: index.search(query, 10)

    return {gallery: way(gallery) for gallery in sizes}


def intervals(sizes: tuple[int, ...]) -> Ways:
    def way(queries: int) -> Callable[[], Any]:
        correct = np.random.default_rng(0).random(queries) < 0.7
        scores = [Scores(correct.astype(float), np.arange(queries) % 200)]
        return lambda: interval(scores, within=(0.0, 1.0))

    return {queries: way(queries) for queries in sizes}


def seconds(way: Callable[[], Any]) -> float:
    """Of one call; of several in a row where one is too short to time."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or (time.perf_counter() - start < 0.02 and calls < 200):
        way()
        calls += 1
    return (time.perf_counter() - start) / calls


def exponent(points: dict[int, float]) -> tuple[float, float]:
    """Slope in log-log axes over all points, and over the two largest: small ones are governed by
    what is constant."""
    x, y = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def label(axis: Any, values: list[float]) -> None:
    """Name these values and no others, in round numbers."""
    from matplotlib.ticker import NullFormatter

    names = [
        f"{value / 1000:g}k" if value >= 1000 else f"{value:.2g}" if value < 100 else f"{value:g}"
        for value in values
    ]
    axis.set_ticks(values, [name.replace("1000k", "1M") for name in names])
    axis.set_minor_formatter(NullFormatter())


def figure(curves: dict[str, dict[int, float]], out: Path) -> None:
    import matplotlib.pyplot as plt

    picture, panels = plt.subplots(2, 4, figsize=(14, 6.4), layout="constrained")
    for panel, (name, points) in zip(panels.flat, curves.items(), strict=False):
        title, axis, _ = MEASURES[name]
        panel.loglog(list(points), list(points.values()), "o-", color="#0072b2")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(axis)
        label(panel.xaxis, list(points))
        label(panel.yaxis, [min(points.values()), max(points.values())])
        panel.set_ylabel("seconds")
        panel.grid(True, which="major", alpha=0.3)
        panel.text(
            0.05,
            0.9,
            "exponent {:.2f}, last {:.2f}".format(*exponent(points)),
            transform=panel.transAxes,
        )
    for panel in panels.flat[len(curves) :]:
        panel.axis("off")
    picture.savefig(out / "scaling.svg", dpi=110)
    png = io.BytesIO()
    picture.savefig(png, format="png", dpi=110)
    (out / "scaling.png").write_bytes(with_palette(png.getvalue()))


def ways_of(name: str, sizes: tuple[int, ...], cache: Path, pixels: Path) -> Ways:
    made: dict[str, Callable[[], Ways]] = {
        "epoch": lambda: training(sizes, cache, pixels),
        "step": lambda: steps(sizes, cache, pixels),
        "proxies": lambda: proxies(sizes),
        "evaluate": lambda: {images: evaluation(images, DIM) for images in sizes},
        "dimension": lambda: {dim: evaluation(10_000, dim) for dim in sizes},
        "look_up": lambda: look_ups(sizes),
        "interval": lambda: intervals(sizes),
    }
    return made[name]()


def main() -> None:
    cache = Path.home() / ".cache" / "dml-bench" / "benchmark"
    options = options_of(__doc__, cache_dir=str(cache))
    curves: dict[str, dict[int, float]] = {}
    raw: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as pixels:
        for name, (title, _, sizes) in MEASURES.items():
            print(title, flush=True)
            ways = ways_of(
                name, sizes[:2] if options.quick else sizes, Path(options.cache_dir), Path(pixels)
            )
            for way in ways.values():
                way()
            timed = {str(size): lambda way=way: seconds(way) for size, way in ways.items()}
            raw[name] = each_in_turn(timed, options.rounds)
            curves[name] = {
                int(size): statistics.median(taken) for size, taken in raw[name].items()
            }
    options.out.mkdir(parents=True, exist_ok=True)
    figure(curves, options.out)
    rows = []
    for name, points in curves.items():
        title, axis, _ = MEASURES[name]
        cost = ", ".join(f"{size:,}: {taken:.3g} s" for size, taken in points.items())
        rows.append(
            [f"{title}, against {axis}", *(f"{slope:.2f}" for slope in exponent(points)), cost]
        )
    lines = [
        *(
            "",
            (
                f"Medians of {options.rounds} rounds in turns. An exponent of 1 is proportional, 2"
                " is quadratic; the last one is that between the two"
            ),
        ),
        *("largest sizes, where constant costs weigh least.", "", "![](scaling.png)", ""),
        *table(["", "exponent", "last", "seconds"], rows),
    ]
    write(
        "scaling",
        "How the cost grows",
        {**facts(), "rounds": options.rounds, "seconds": raw},
        lines,
        options.out,
    )


if __name__ == "__main__":
    main()
