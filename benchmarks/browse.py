"""Time until FiftyOne shows 1,000, 12,000 and 50,000 images: at the first opening, and later.

    python benchmarks/browse.py
    python benchmarks/browse.py --images 1000

The images are drawn small in 200 classes. Two files hold an embedding of each, as two models would
make them, one without some classes: nothing is trained here. Where there is a Chromium, it also
says how soon the maps are drawn, and how soon a saved view is. Writes reports/speed/browse.json and
.md.
"""

import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import facts, find_chromium, median_spread, options_of, table, write
from PIL import Image

SIDE, CLASSES, UNSEEN, DIM = 40, 200, 40, 128
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
PATIENCE = 300_000


def photographs(images: int, folder: Path) -> list[str]:
    """`images` JPEGs in 200 classes: a colour and a wave of the class, and noise. Their paths."""
    numbers = np.random.default_rng(0)
    waves = numbers.uniform(0.05, 1.2, (CLASSES, 2))
    colours = numbers.uniform(40, 215, (CLASSES, 3))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    paths = []
    for image in range(images):
        label = image % CLASSES
        wave = 40 * np.sin(
            waves[label, 0] * rows + waves[label, 1] * columns + numbers.uniform(0, 6)
        )
        pixels = colours[label] + wave[..., None] + numbers.normal(0, 20, (SIDE, SIDE, 3))
        path = folder / f"{label + 1:03}.class" / f"{image:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=85)
        paths.append(str(path.relative_to(folder)))
    return paths


def embedded(paths: list[str], folder: Path) -> list[str]:
    """What `browse` is given: embeddings around the means of classes, those of the second file
    wider around the last classes. Every second image is a query."""
    numbers = np.random.default_rng(1)
    labels = np.array([int(path[:3]) - 1 for path in paths])
    means = numbers.normal(size=(CLASSES, DIM))
    rows = ["path,class,split"]
    for image, path in enumerate(paths):
        rows.append(
            f"{path},{path.partition('/')[0]},{'gallery' if image // CLASSES % 2 else 'query'}"
        )
    (folder / "labels.csv").write_text("\n".join(rows))
    for name, width in (("all", 0.8), ("limited", 1.6)):
        is_unseen = labels >= CLASSES - UNSEEN
        noise = numbers.normal(size=(len(paths), DIM)) * np.where(is_unseen, width, 0.8)[:, None]
        vectors = (means[labels] + noise).astype(np.float32)
        np.savez(folder / f"{name}.npz", embeddings=vectors, paths=np.array(paths))
    files = [str(folder / name) for name in ("all.npz", "limited.npz")]
    return [*files, "--labels", str(folder / "labels.csv"), "--unseen", f"last:{UNSEEN}"]


@contextmanager
def opened(browsable: list[str], cache: Path) -> Iterator[tuple[str, float]]:
    """The app's address, and the seconds until it was printed; the app is then closed."""
    command = [sys.executable, "-m", "dml_bench", "browse", *browsable]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--no-open", "--cache-dir", str(cache)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    ) as app:
        assert app.stdout
        try:
            url = ""
            for line in app.stdout:
                if match := re.search(r"http://127\.0\.0\.1:\S+", line):
                    url = match[0]
                    break
            if not url:
                raise SystemExit("the app ended before it was there")
            yield url, time.perf_counter() - start
        finally:
            # A shell that starts things by `&` makes them deaf to SIGINT.
            app.send_signal(signal.SIGTERM)


def opening(browsable: list[str], cache: Path) -> float:
    """Seconds from the command to the page's first byte."""
    with opened(browsable, cache) as (url, seconds):
        start = time.perf_counter()
        keeping_the_token = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with keeping_the_token.open(url, timeout=60):
            return seconds + time.perf_counter() - start


def processor_seconds() -> float:
    """What processes have used that were started here and have ended: other work on the machine
    does not lengthen it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def responses(browsable: list[str], cache: Path, images: int, chromium: str) -> dict[str, float]:
    """Seconds until the maps show all points in a browser, and until they show a saved view."""
    from playwright.sync_api import sync_playwright

    with opened(browsable, cache) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        start = time.perf_counter()
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function(f"window.dmlMaps?.panes?.every((pane) => pane.drawn == {images})")
        seconds = {"maps drawn": time.perf_counter() - start}
        page.locator("[data-cy=saved-views-selection]").first.click()
        page.get_by_text("unseen classes", exact=True).first.click()
        start = time.perf_counter()
        page.wait_for_function(f"dmlMaps.panes.every((pane) => pane.drawn < {images})")
        seconds["saved view"] = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    options = options_of(__doc__, images=(1_000, 12_000, 50_000))
    sizes = [400] if options.quick else list(options.images)
    chromium = find_chromium()
    seconds: dict[str, dict[str, list[float]]] = {}
    for images in sizes:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            browsable = embedded(photographs(images, root), root)
            before = processor_seconds()
            times = {"first opening": [opening(browsable, root / "cache")]}
            times["of processors"] = [processor_seconds() - before]
            times["later"] = [opening(browsable, root / "cache") for _ in range(options.rounds)]
            if chromium is not None:
                for what, value in responses(browsable, root / "cache", images, chromium).items():
                    times[what] = [value]
        seconds[f"{images:,}"] = times
        print(f"{images:,} images: {times}", flush=True)
    heads = list(next(iter(seconds.values())))
    rows = []
    for images_text, times in seconds.items():
        rows.append([images_text, *(median_spread(times[head]) for head in heads)])
    lines = [
        "",
        "Seconds from the command to the page's first byte: with two maps made by UMAP, what"
        " processors spent on that, and with maps that are kept. Then seconds from the page's"
        " address to maps of all images, and from the click on a saved view to its points, in a"
        " Chromium without a graphics card.",
        "",
        *table(["images", *heads], rows),
    ]
    # The goals are about as many images as CUB-200-2011 has.
    of_cub = seconds.get("12,000", seconds[f"{sizes[-1]:,}"])
    result = {**facts(), "seconds": of_cub, "seconds_by_images": seconds}
    write("browse", "Opening images in FiftyOne", result, lines, options.out)


if __name__ == "__main__":
    main()
