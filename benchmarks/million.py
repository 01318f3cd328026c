"""What grows with the number of images, up to a million: opening the cache of decoded images, a
training step, embedding, the search of a thousand queries, and the memory of each.

    python benchmarks/million.py
    python benchmarks/million.py --images 10000 100000

Images are numbers of 64 px in a mapped file, as the cache of decoded images keeps them; a million
take 12.3 GB of disk (--folder says where). Classes have 50 images. Each size is a process of its
own. Memory is the process's own (RssAnon): pages of the mapped file are the system's. Writes
reports/speed/million.json and million.md.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import alone, facts, in_processes, memory_of_this, options_of, table, write

EXPERIMENT = "EPSHN_cosine_resnet18_scratch_sgd_aug"
SIDE, PER_CLASS, STEPS, EMBEDDED, QUERIES = 64, 50, 20, 2000, 1000
BYTES = 3 * SIDE * SIDE


def write_pixels(path: Path, images: int) -> None:
    """A file of noise that differs from image to image."""
    if path.exists() and path.stat().st_size == images * BYTES:
        return
    block = np.random.default_rng(0).integers(0, 255, (1000, BYTES), np.uint8)
    with open(path, "wb") as file:
        for start in range(0, images, len(block)):
            file.write((block + np.uint8(start // len(block) % 251))[: images - start].data)


class Measures:
    """Seconds and own megabytes after each part of the work."""

    def __init__(self) -> None:
        self.result: dict[str, float] = {}

    def timed(self, name: str, work: Callable[[], Any], times: int = 1) -> Any:
        """What `work` returns; its seconds are divided by `times`."""
        start = time.perf_counter()
        value = work()
        self.result[f"{name}_seconds"] = (time.perf_counter() - start) / times
        self.result[f"{name}_megabytes"] = memory_of_this()["RssAnon"] / 1e6
        return value


def measured(pixels: str, count: str) -> dict[str, float]:
    """One size, in a process of its own."""
    import torch

    from dml_bench.config.experiments import resolve
    from dml_bench.data.cache import ImageCache
    from dml_bench.data.datasets import Dataset
    from dml_bench.data.inputs import ImageInputs
    from dml_bench.data.split import Phase, make_split
    from dml_bench.evaluation.search import search
    from dml_bench.system.callbacks import Callback
    from dml_bench.system.devices import choose_precision
    from dml_bench.training import loop
    from dml_bench.training.batches import epoch_batches
    from dml_bench.training.build import build

    images, device, measures = int(count), torch.device("cpu"), Measures()
    settings = [f"images.size={SIDE}", "augment.random_crop_from=0", "train.batch_size=64"]
    experiment = resolve(EXPERIMENT, overrides=settings)

    def opened() -> tuple[Dataset, ImageCache]:
        labels = np.arange(images) // PER_CLASS
        values: dict[str, Any] = {
            "name": "numbers",
            "root": Path(pixels).parent,
            "paths": tuple(f"{label:05}/{image}.jpg" for image, label in enumerate(labels)),
            "labels": labels,
            "class_names": tuple(f"{label:05}" for label in range(labels.max() + 1)),
        }
        sides = np.full(images, SIDE)
        mapped = np.memmap(pixels, np.uint8, "r")
        cache = ImageCache(Path(pixels), mapped, np.arange(images) * BYTES, sides, sides)
        return Dataset(**values), cache

    dataset, cache = measures.timed("open", opened)
    split = measures.timed(
        "split", lambda: make_split(dataset, method="stratified", test_fraction=0.5, seed=42)
    )

    def built() -> Any:
        inputs = ImageInputs(experiment, images, cache, cache, device)
        return build(
            experiment,
            Phase("all"),
            dataset,
            split,
            inputs,
            device=device,
            precision=choose_precision("auto", device),
            callback=Callback(),
        )

    state = measures.timed("build", built)
    batches = measures.timed("epoch_order", lambda: epoch_batches(state, 1))

    def train(steps: slice) -> None:
        for step, batch in enumerate(batches[steps]):
            loop.train_step(state, batch, 1, step)

    state.begin_epoch(1)
    train(slice(0, 3))
    middle = len(batches) // 2
    measures.timed("step", lambda: train(slice(middle, middle + STEPS)), STEPS)
    measures.timed("embed", lambda: state.embed(split.test[-EMBEDDED:]), EMBEDDED)
    numbers = np.random.default_rng(1)
    vectors = numbers.standard_normal((images, 128), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    measures.result["vectors_megabytes"] = vectors.nbytes / 1e6
    labels = dataset.labels
    measures.timed(
        "search", lambda: search(vectors, vectors[:QUERIES], labels, labels[:QUERIES], 10)
    )
    return measures.result


COLUMNS = {
    "open": "opened, s",
    "split": "split, s",
    "build": "built, s",
    "epoch_order": "order of an epoch, s",
    "step": "a step of 64, s",
    "embed": "an embedding, s",
    "search": "1,000 queries, s",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(
            __doc__, rounds=1, images=(10_000, 100_000, 1_000_000), folder=str(folder)
        )
        sizes = (1000, 2000) if options.quick else options.images
        by_size: dict[str, Any] = {}
        for images in sizes:
            pixels = Path(options.folder) / f"{images}.pixels"
            write_pixels(pixels, images)
            way = {f"{images:,} images": [str(pixels), str(images)]}
            by_size |= in_processes(__file__, way, options.rounds)
            pixels.unlink()
    result = {**facts(), "experiment": EXPERIMENT, "rounds": options.rounds, "sizes": by_size}
    times, memory = [], []
    for name, rounds in by_size.items():
        best = pd.DataFrame(rounds).min()
        times.append([name, *(f"{best[f'{part}_seconds']:.3g}" for part in COLUMNS)])
        parts = [f"{best[f'{part}_megabytes']:.0f}" for part in COLUMNS]
        memory.append([name, *parts, f"{best['vectors_megabytes']:.0f}"])
    lines = [
        "",
        f"The least of {options.rounds} rounds.",
        "",
        *table(["", *COLUMNS.values()], times),
        "",
        "Own memory after each part, in MB, and how much of it the vectors are that are searched:",
        "",
        *table(["", *(head.rpartition(",")[0] for head in COLUMNS.values()), "vectors"], memory),
    ]
    write("million", "Up to a million images", result, lines, options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(measured(*arguments)))
    else:
        main()
