"""What it costs that no cached pixel is believed before it was compared with its digest, and that
damage is found.

    python benchmarks/trusted_pixels.py

A cache of CUB's size (11,788 images, random crops from 246 px) is built of a few drawn photographs
under many names. Timed are: opening it in a fresh process, reading all of it for the first and for
the second time, and the comparing in a first training epoch of some of its images. Then bits are
flipped in other images each, and pages zeroed, as a power cut leaves them, and all is read again.
Takes 3 GB on the disk meanwhile. Writes reports/speed/trusted_pixels.json and trusted_pixels.md.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from common import alone, facts, in_processes, median_spread, options_of, table, write
from PIL import Image

EXPERIMENT = "EPSHN_cosine_resnet18_sgd_aug"
IMAGES, CLASSES = 11_788, 200
SHAPE = (375, 500)
DIFFERENT = 16
"""Photographs that are really different."""
PAGE = 4096


def photographs(folder: Path, images: int) -> Path:
    """Files of CUB's size, in class folders; smooth colours with grain, so that they take about as
    long to decode as photographs."""
    numbers = np.random.default_rng(0)
    drawn = []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(numbers.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            SHAPE[::-1], Image.Resampling.BICUBIC
        )
        grain = numbers.normal(0, 8, (*SHAPE, 3))
        path = folder / f"{len(drawn)}.jpg"
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(
            path, quality=90
        )
        drawn.append(path)
    for image in range(images):
        path = folder / "photographs" / f"class-{image * CLASSES // images:03}" / f"{image:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(drawn[image % DIFFERENT], path)
    return folder / "photographs"


def setting(root: Path, cache_dir: Path) -> tuple[Any, Any]:
    from dml_bench.config.experiments import resolve
    from dml_bench.data.datasets import open_dataset

    experiment = resolve(
        EXPERIMENT, overrides=["data.dataset=folder", "model.weights=none", "train.batch_size=64"]
    )
    return experiment, open_dataset(experiment.data.dataset, root, cache_dir)


def caches(root: Path, cache_dir: Path, warn: Callable[[str], None] = print) -> tuple[Any, float]:
    """Of training crops and of views, and how many seconds it took to open them, the fingerprint
    being known."""
    import torch

    from dml_bench.data.inputs import open_image_inputs

    experiment, dataset = setting(root, cache_dir)
    assert dataset.fingerprint
    start = time.perf_counter()
    pixels = open_image_inputs(experiment, dataset, cache_dir, torch.device("cpu"), warn=warn)
    return pixels, time.perf_counter() - start


def opened(root: str, cache_dir: str) -> dict[str, float]:
    """Seconds to open the caches, then to read all of the larger one for the first and the second
    time."""
    pixels, seconds = caches(Path(root), Path(cache_dir))
    cache, times = pixels.train_cache, []
    for _ in range(3):
        start = time.perf_counter()
        for image in range(len(cache.offsets)):
            int(cache[image][::8, ::8].sum())
        times.append(time.perf_counter() - start)
    return {
        "open": seconds,
        "gigabytes": len(cache.pixels) / 1e9,
        "first": times[0],
        "second": min(times[1:]),
    }


def first_epoch(root: str, cache_dir: str, images: str) -> dict[str, float]:
    """Seconds of a first training epoch of so many images, and of them those that the comparing
    took."""
    import torch
    from contestants import Ours, Setting

    from dml_bench.data.cache import Guard
    from dml_bench.data.split import make_split
    from dml_bench.system.devices import choose_precision

    experiment, dataset = setting(Path(root), Path(cache_dir))
    pixels, _ = caches(Path(root), Path(cache_dir))
    split = make_split(
        dataset,
        method="stratified",
        test_fraction=experiment.data.test_fraction,
        seed=experiment.seed,
    )
    device = torch.device("cpu")
    ours = Ours(
        Setting(experiment, dataset, split, pixels, device, 0), choose_precision("auto", device)
    )
    ours.run.images = ours.run.images[: int(images)]
    check, spent, seen = Guard.check, [0.0], [0]

    def timed(self: Guard, image: int, values: np.ndarray) -> None:
        start = time.perf_counter()
        seen[0] += self.unread[image]
        check(self, image, values)
        spent[0] += time.perf_counter() - start

    Guard.check = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    ours.train()
    return {"epoch": time.perf_counter() - start, "comparing": spent[0], "compared": float(seen[0])}


def damaged(root: Path, cache_dir: Path, bits: int, pages: int) -> dict[str, Any]:
    """Flips as many bits and zeroes as many pages of the larger cache, each in another image, and
    reads everything."""
    said: list[str] = []
    pixels, _ = caches(root, cache_dir, said.append)
    cache, numbers = pixels.train_cache, np.random.default_rng(1)
    file = cache.folder / "pixels.u8"
    before = xxhash.xxh3_128_hexdigest(cache.pixels.data)
    chosen = numbers.permutation(len(cache.offsets) - 1)[: bits + pages]
    ends = np.append(cache.offsets[1:], len(cache.pixels))
    with open(file, "r+b") as out:
        for row, image in enumerate(chosen):
            first, last = int(cache.offsets[image]), int(ends[image])
            at = int(numbers.integers(first, last - (PAGE if row >= bits else 1)))
            out.seek(at)
            out.write(
                bytes(PAGE)
                if row >= bits
                else bytes([int(cache.pixels[at]) ^ (1 << int(numbers.integers(8)))])
            )
    silent = before == xxhash.xxh3_128_hexdigest(cache.pixels.data)
    start = time.perf_counter()
    after = xxhash.xxh3_128_hexdigest(cache.checked().data)
    return {
        "bits": bits,
        "pages": pages,
        "found": len(said),
        "seconds": time.perf_counter() - start,
        "whole_again": after == before and not silent,
    }


def main() -> None:
    options = options_of(
        __doc__,
        rounds=1,
        images=IMAGES,
        epoch_images=192,
        bits=1000,
        pages=100,
        folder=Path(tempfile.gettempdir()),
    )
    images, bits, pages = (
        (400, 40, 10) if options.quick else (options.images, options.bits, options.pages)
    )
    epoch_images = 96 if options.quick else options.epoch_images
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root, cache_dir = photographs(Path(folder), images), Path(folder) / "cache"
        start = time.perf_counter()
        caches(root, cache_dir)
        built = time.perf_counter() - start
        ways = {
            "opening": ["opened", str(root), str(cache_dir)],
            "first epoch": ["first_epoch", str(root), str(cache_dir), str(epoch_images)],
        }
        values = in_processes(__file__, ways, options.rounds)
        damage = damaged(root, cache_dir, bits, pages)
    result = {
        **facts(),
        "experiment": EXPERIMENT,
        "rounds": options.rounds,
        "images": images,
        "build_seconds": built,
        "values": values,
        "damage": damage,
    }
    write("trusted_pixels", "Pixels compared with their digests", result, page(result), options.out)


def page(result: dict[str, Any]) -> list[str]:
    opening, epoch, damage = (
        result["values"]["opening"],
        result["values"]["first epoch"],
        result["damage"],
    )
    per_image = [1e6 * (run["first"] - run["second"]) / result["images"] for run in opening]
    rows = [
        ["opening the caches, seconds", median_spread([run["open"] for run in opening])],
        [
            "reading all of it the first time, seconds",
            median_spread([run["first"] for run in opening]),
        ],
        ["again, seconds", median_spread([run["second"] for run in opening])],
        ["so comparing takes, microseconds an image", median_spread(per_image)],
        [
            "a first training epoch at 224 px, seconds",
            median_spread([run["epoch"] for run in epoch]),
        ],
        [
            "of it comparing, percent",
            median_spread([100 * run["comparing"] / run["epoch"] for run in epoch]),
        ],
    ]
    return [
        "",
        (
            f"{result['images']:,} images, {opening[0]['gigabytes']:.2f} GB for random crops; built"
            f" in {result['build_seconds']:.0f} s."
        ),
        f"The epoch is one of {int(epoch[0]['compared'])} images.",
        "",
        *table(["", "median (least-most)"], rows),
        "",
        (
            f"{damage['bits']:,} flipped bits and {damage['pages']:,} zeroed pages, each in another"
            f" image: {damage['found']:,} of {damage['bits'] + damage['pages']:,} found and decoded"
            f" again in {damage['seconds']:.0f} s. Every byte is"
            f" {'as before' if damage['whole_again'] else '**not** as before'}."
        ),
    ]


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(globals()[arguments[0]](*arguments[1:])))
    else:
        main()
