"""Time one epoch, training and evaluation, of dml-bench, of the usual loop and of a bare loop, on
the same images and the same cores.

    python benchmarks/epoch.py

Writes reports/speed/epoch-SIZE.json and epoch-SIZE.md; then floor-SIZE, of ours and the bare loop
alone in more rounds, for they are close together. What is compared, and how fair that is:
benchmarks/README.md.
"""

import argparse
import gc
import itertools
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # the tester's bars would be drawn between the rows

import numpy as np
import torch
from agreement import check_same
from common import REPORTS, facts, save
from contestants import Bare, Contestant, Ours, Setting, Usual
from page import markdown, show
from PIL import Image
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from rich.console import Console

from dml_bench.config.experiments import resolve
from dml_bench.data import synthetic
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs
from dml_bench.data.split import make_split
from dml_bench.evaluation.metrics import micro, precision_at_1
from dml_bench.evaluation.search import search
from dml_bench.system.devices import choose_device, choose_precision
from dml_bench.training import checkpoint

EXPERIMENT = "EPSHN_cosine_resnet18_sgd_aug"
WIDTH, HEIGHT = 500, 375
"""Pixels of most photographs in CUB-200-2011."""
JPEG_QUALITY, NOISE_LEVELS = 92, 14
"""Together they bring a drawing to the about 95 kB of CUB's mean file, on which the time to decode
it depends."""


def photographs(root: Path, classes: int, per_class: int) -> Path:
    """A folder per class of drawn birds with the size and weight of CUB's photographs; drawn only
    if it is not there."""
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        drawn = synthetic.write(
            Path(folder) / "drawn", counts=[per_class] * classes, size=WIDTH, seed=7
        )
        for file in sorted((drawn / "images").glob("*/*.jpg")):
            with Image.open(file) as image:
                pixels = np.asarray(image)[(WIDTH - HEIGHT) // 2 :][:HEIGHT]
            grain = noise.normal(0, NOISE_LEVELS, pixels.shape)
            target = Path(folder) / "photographs" / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(
                target, quality=JPEG_QUALITY
            )
        (Path(folder) / "photographs").rename(root)
    return root


def prepare(options: argparse.Namespace, pixels_dir: Path) -> tuple[Setting, float]:
    """What both loops are given, and how many seconds it took to decode the images once into
    `pixels_dir`."""
    overrides = [
        f"images.size={options.size}",
        f"augment.random_crop_from={round(options.size * 246 / 224)}",
        f"train.batch_size={options.batch_size}",
        "model.weights=none",
        "data.dataset=folder",
    ]
    experiment = resolve(EXPERIMENT, overrides=overrides)
    root = photographs(
        options.cache_dir / f"birds-{options.classes}x{options.per_class}",
        options.classes,
        options.per_class,
    )
    dataset = open_dataset(experiment.data.dataset, root, options.cache_dir)
    split = make_split(
        dataset,
        method="stratified",
        test_fraction=experiment.data.test_fraction,
        seed=experiment.seed,
    )
    assert dataset.fingerprint  # reads every file, so that both loops find them in memory
    device = choose_device(options.device)
    start = time.perf_counter()
    pixels = open_image_inputs(experiment, dataset, pixels_dir, device)
    return (
        Setting(experiment, dataset, split, pixels, device, options.workers),
        time.perf_counter() - start,
    )


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds and CPU seconds (of this process and of the workers that have ended)."""
    gc.collect()
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def warm_up(contestants: Sequence[Contestant]) -> None:
    """Two batches of training and of evaluation each, not timed."""
    for contestant in contestants:
        restore = contestant.shorten(2)
        contestant.train()
        contestant.evaluate()
        restore()


def race(
    contestants: list[Contestant], rounds: int, console: Console
) -> dict[str, dict[str, list[float]]]:
    """Whole epochs in turns; who begins changes from round to round."""
    seconds: dict[str, dict[str, list[float]]] = {
        c.name: {"train": [], "evaluate": [], "epoch": [], "epoch_cpu": []} for c in contestants
    }
    for number in range(rounds):
        for contestant in contestants[:: 1 if number % 2 == 0 else -1]:
            train, train_cpu = timed(contestant.train)
            evaluate, evaluate_cpu = timed(contestant.evaluate)
            took = {
                "train": train,
                "evaluate": evaluate,
                "epoch": train + evaluate,
                "epoch_cpu": train_cpu + evaluate_cpu,
            }
            for what, value in took.items():
                seconds[contestant.name][what].append(value)
            console.print(
                f"round {number + 1}/{rounds}  {contestant.name:<14} {train:7.2f} s training"
                f" {evaluate:7.2f} s evaluation"
            )
    return seconds


def input_rate(contestant: Contestant, passes: int, ahead: int) -> float:
    """Images per second of the input pipeline alone, counted from when the first `ahead` batches
    have come: workers run."""
    batches = contestant.inputs(passes)
    for _ in range(ahead):
        next(batches)
    start, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def parts(
    contestants: list[Contestant], setting: Setting, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Images per second of the input pipeline alone and of the training step alone, in turns."""
    rates: dict[str, dict[str, list[float]]] = {
        c.name: {"input": [], "step": []} for c in contestants
    }
    few = setting.experiment.train.batch_size
    passes = max(2, -(-12 * few // len(setting.split.train)))
    steps = {contestant.name: contestant.steps(2) for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants[:: 1 if number % 2 == 0 else -1]:
            rates[contestant.name]["input"].append(
                input_rate(contestant, passes, max(1, setting.workers))
            )
            rates[contestant.name]["step"].append(2 * few / timed(steps[contestant.name])[0])
    return rates


def scoring(setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Seconds to score embeddings that are already there: our search and P@1; the calculator's P@1;
    all its default metrics."""
    dims = np.random.default_rng(0)
    labels = setting.dataset.labels
    gallery, query = (
        dims.normal(size=(len(part), 128)).astype(np.float32)
        for part in (setting.split.train, setting.split.test)
    )
    gallery, query = (
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (gallery, query)
    )
    own, other = labels[setting.split.train], labels[setting.split.test]
    one, default = AccuracyCalculator(include=("precision_at_1",), k=1), AccuracyCalculator()
    ways: dict[str, Callable[[], Any]] = {
        "ours_precision_at_1": lambda: micro(
            precision_at_1(search(gallery, query, own, other, k=1))
        ),
        "usual_precision_at_1": lambda: one.get_accuracy(query, other, gallery, own, False),
        "usual_default_metrics": lambda: default.get_accuracy(query, other, gallery, own, False),
    }
    for way in ways.values():
        way()
    seconds = {}
    for name, way in ways.items():
        seconds[name] = [timed(way)[0] for _ in range(rounds)]
    return seconds


def saving(ours: Ours, rounds: int) -> list[float]:
    """Seconds to write the resumable state, as ours does after each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            timed(lambda: checkpoint.save(ours.run, Path(folder) / "state.pt"))[0]
            for _ in range(rounds)
        ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dml-bench" / "benchmark"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[224, 64],
        help="sides in pixels that the network sees",
    )
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=26)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--workers", type=int, default=2, help="the usual loop's DataLoader workers"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--only", choices=("ours", "usual", "floor", "all"), default="all")
    parser.add_argument("--float32", action="store_true", help="also time ours in float32")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument(
        "--cache-dir", type=Path, default=cache, help="where the drawn images are kept"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few images and one round: shows that it works, not how fast it is",
    )
    options = parser.parse_args()
    if options.quick:
        options.classes, options.per_class, options.rounds, options.batch_size = 4, 10, 1, 8
    return options


def contestants_of(options: argparse.Namespace, setting: Setting) -> list[Contestant]:
    contestants: list[Contestant] = []
    if options.only != "usual":
        contestants.append(Ours(setting, choose_precision("auto", setting.device)))
        if options.float32:
            contestants.append(Ours(setting, "float32", "ours, float32"))
    if options.only == "floor":
        return [*contestants, Bare(setting, choose_precision("auto", setting.device))]
    if options.only != "ours":
        contestants.append(Usual(setting))
    if options.only == "all":
        contestants += [
            Usual(setting, "usual, in memory", in_memory=True),
            Usual(setting, "usual, two lines", two_lines=True),
            Usual(setting, "usual, both", two_lines=True, in_memory=True),
        ]
    return contestants


def measure(options: argparse.Namespace, console: Console, pixels_dir: Path) -> dict[str, Any]:
    """Everything that is timed, and what it was timed on."""
    console.print(
        f"drawing {options.classes} x {options.per_class} images unless they are there, decoding"
        " them, comparing the loops"
    )
    setting, cache_seconds = prepare(options, pixels_dir)
    same = check_same(setting) if options.only == "all" else None
    contestants = contestants_of(options, setting)
    warm_up(contestants)
    rounds = options.rounds if options.only != "floor" else 2 * options.rounds + 1
    seconds = race(contestants, rounds, console)
    rates = parts(contestants, setting, rounds)
    for name in seconds:
        seconds[name] |= rates[name]
    ours = [contestant for contestant in contestants if isinstance(contestant, Ours)]
    return {
        **about(options, setting),
        "rounds": rounds,
        "precision": (
            dict.fromkeys(("usual", "usual, in memory"), "float32")
            | dict.fromkeys(("usual, two lines", "usual, both"), "bfloat16")
            | {"floor": choose_precision("auto", setting.device)}
            | {contestant.name: contestant.run.precision for contestant in ours}
        ),
        "load_average_end": os.getloadavg()[0],
        "values": seconds,
        "cache_seconds": cache_seconds,
        "scoring_seconds": scoring(setting, options.rounds),
        "save_state_seconds": saving(ours[0], options.rounds) if ours else [],
        "same": same,
    }


def about(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Command, machine and data."""
    files = [setting.dataset.root / path for path in setting.dataset.paths]
    return {
        **facts(),
        "device": (
            torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else "cpu"
        ),
        "workers": options.workers,
        "experiment": EXPERIMENT,
        "size": options.size,
        "batch_size": options.batch_size,
        "train_images": len(setting.split.train),
        "test_images": len(setting.split.test),
        "image_pixels": [WIDTH, HEIGHT],
        "mean_file_kilobytes": statistics.mean(file.stat().st_size for file in files) / 1e3,
    }


def main() -> None:
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    options.cache_dir.mkdir(parents=True, exist_ok=True)
    races = ("all", "floor") if options.only == "all" else (options.only,)
    for size, only in itertools.product(options.sizes, races):
        options.size, options.only = size, only
        with tempfile.TemporaryDirectory(prefix="pixels-", dir=options.cache_dir) as pixels_dir:
            result = measure(options, console, Path(pixels_dir))
        show(result, console)
        name = "floor" if only == "floor" else "epoch"
        save(f"{name}-{size}", result, markdown(result), options.out)


if __name__ == "__main__":
    main()
