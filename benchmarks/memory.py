"""Peak memory of a training against the number of epochs and of images: flat in the one, bounded in
the other.

    python benchmarks/memory.py

What counts is memory of the process's own (RssAnon): decoded images are mapped from the cache, and
the system takes their pages back when it wants them. The whole resident peak is told beside it.
Writes reports/speed/memory.json and memory.md.
"""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import alone, facts, in_processes, memory_of_this, options_of, table, write
from PIL import Image

EXPERIMENT = "EPSHN_cosine_resnet18_scratch_sgd_aug"
SIDE = 40


def noise(images: int, folder: Path) -> None:
    """`images` JPEGs of noise in classes of 40."""
    numbers = np.random.default_rng(0)
    for image in range(images):
        path = folder / f"class-{image // 40:04}" / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path, quality=70)


class Sampler(threading.Thread):
    """Highest RssAnon and VmRSS of this process, in megabytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = {"RssAnon": 0.0, "VmRSS": 0.0}

    def run(self) -> None:
        while True:
            now = memory_of_this()
            self.peak = {name: max(most, now[name] / 1e6) for name, most in self.peak.items()}
            time.sleep(0.05)


def measured(folder: str, epochs: str, cache: str) -> dict[str, float]:
    from dml_bench.config.experiments import resolve
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest

    overrides = [
        *(
            "data.dataset=folder",
            "images.size=32",
            "augment.random_crop_from=36",
            "train.batch_size=64",
            f"train.epochs={epochs}",
        ),
        *("unseen=last:2", "evaluate.every=4"),
    ]
    sampler = Sampler()
    sampler.start()
    with tempfile.TemporaryDirectory() as out:
        execute(
            RunRequest(
                experiment=resolve(EXPERIMENT, overrides=overrides),
                data_dir=Path(folder),
                out=Path(out),
                cache_dir=Path(cache),
            )
        )
    return {"own_megabytes": sampler.peak["RssAnon"], "resident_megabytes": sampler.peak["VmRSS"]}


def main() -> None:
    options = options_of(__doc__, rounds=1, images=(1000, 4000, 16_000), epochs=(1, 4, 16))
    images, epochs = ((200, 400), (1, 2)) if options.quick else (options.images, options.epochs)
    by_way: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for count in images:
            noise(count, Path(root) / f"{count}")
        pairs = [(images[0], count) for count in epochs] + [(count, 1) for count in images[1:]]
        ways = {
            f"{count} images, {many} epochs": [f"{root}/{count}", str(many), f"{root}/cache"]
            for count, many in pairs
        }
        by_way = in_processes(__file__, ways, options.rounds)
    result = {**facts(), "experiment": EXPERIMENT, "rounds": options.rounds, "peak": by_way}
    rows = []
    for name, runs in by_way.items():
        own = max(run["own_megabytes"] for run in runs)
        resident = max(run["resident_megabytes"] for run in runs)
        rows.append([name, f"{own:.0f}", f"{resident:.0f}"])
    lines = [
        "",
        "Both phases of a run at 32 px, batches of 64.",
        "",
        *table(["", "own memory at most, MB", "resident at most, MB"], rows),
    ]
    write("memory", "Peak memory", result, lines, options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(measured(*arguments)))
    else:
        main()
