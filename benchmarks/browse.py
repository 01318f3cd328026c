"""Time until FiftyOne shows 1,000, 12,000 and 50,000 images: at the first opening, and later.

    python benchmarks/browse.py
    python benchmarks/browse.py --images 1000

The images are drawn small in 200 classes, the runs train one epoch. Writes
reports/speed/browse.json and .md.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from common import facts, median_spread, options_of, table, write
from PIL import Image

from dml_bench.config.experiments import resolve
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest

SIDE, CLASSES = 40, 200


def photographs(images: int, folder: Path) -> None:
    """`images` JPEGs in 200 classes: a colour and a wave of the class, and noise."""
    numbers = np.random.default_rng(0)
    waves = numbers.uniform(0.05, 1.2, (CLASSES, 2))
    colours = numbers.uniform(40, 215, (CLASSES, 3))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image in range(images):
        label = image % CLASSES
        wave = 40 * np.sin(
            waves[label, 0] * rows + waves[label, 1] * columns + numbers.uniform(0, 6)
        )
        pixels = colours[label] + wave[..., None] + numbers.normal(0, 20, (SIDE, SIDE, 3))
        path = folder / f"{label + 1:03}.class" / f"{image:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=85)


def trained(folder: Path, root: Path) -> Path:
    overrides = [
        *(
            "data.dataset=folder",
            "images.size=32",
            "augment.random_crop_from=36",
            "train.epochs=1",
            "model.weights=none",
        ),
        "evaluate.vote_k=[1, 10]",
    ]
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=overrides)
    request = RunRequest(
        experiment=experiment,
        data_dir=folder,
        out=root / "runs",
        cache_dir=root / "cache",
    )
    return execute(request).folder


def opening(folder: Path, cache: Path) -> float:
    """Seconds from the command to the page's first byte; the app is then closed."""
    command = [
        sys.executable,
        "-m",
        "dml_bench",
        "browse",
        str(folder),
        "--no-open",
        "--cache-dir",
        str(cache),
    ]
    start = time.perf_counter()
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as app:
        assert app.stdout
        try:
            url = next(
                (
                    match[0]
                    for line in app.stdout
                    if (match := re.search(r"http://127\.0\.0\.1:\S+", line))
                ),
                "",
            )
            if not url:
                raise SystemExit("the app ended before it was there")
            keeping_the_token = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with keeping_the_token.open(url, timeout=60):
                return time.perf_counter() - start
        finally:
            app.send_signal(
                signal.SIGTERM
            )  # a shell that starts things by `&` makes them deaf to SIGINT


def main() -> None:
    options = options_of(__doc__, images=(1_000, 12_000, 50_000))
    sizes = [400] if options.quick else list(options.images)
    seconds: dict[str, dict[str, list[float]]] = {}
    for images in sizes:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            photographs(images, root / "images")
            folder = trained(root / "images", root)
            first = opening(folder, root / "cache")
            later = [opening(folder, root / "cache") for _ in range(options.rounds)]
        seconds[f"{images:,}"] = {"first opening": [first], "later": later}
    rows = []
    for images_text, times in seconds.items():
        rows.append([images_text, *(median_spread(times[kind]) for kind in times)])
    lines = [
        "",
        "Seconds from the command to the page's first byte.",
        "",
        *table(["images", "first opening", "later"], rows),
    ]
    # The goals are about as many images as CUB-200-2011 has.
    of_cub = seconds.get("12,000", seconds[f"{sizes[-1]:,}"])
    result = {**facts(), "seconds": of_cub, "seconds_by_images": seconds}
    write("browse", "Opening a run in FiftyOne", result, lines, options.out)


if __name__ == "__main__":
    main()
