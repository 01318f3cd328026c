"""The pictures of docs/ that show pages of records: a report, the scoreboard, the documentation.

    python benchmarks/screens.py

Times nothing. Makes the pages anew from results/ and docs/, opens them in Chromium, which has to be
on the PATH, and writes report.png, leaderboard.png and documentation.png below --out (docs/).
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import find_chromium
from PIL import Image

from dml_bench.version import __version__

__all__ = ["SCREENS", "Screen"]

ROOT = Path(__file__).parent.parent
PATIENCE = 300_000
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A page as somebody sees it who opens it."""

    name: str
    command: tuple[str, ...]
    """What makes the page; {out} is a folder."""
    page: str
    """Seen from that folder."""
    windows: tuple[tuple[int, int], ...]
    """Pixels of the windows that stand side by side in the picture."""


SCREENS = (
    Screen(
        "report",
        ("dml_bench", "report", "results/demo", "--out", "{out}"),
        "index.html",
        ((1100, 1260),),
    ),
    Screen(
        "leaderboard",
        ("dml_bench", "leaderboard", "results", "--out", "{out}"),
        "index.html",
        ((1100, 1060),),
    ),
    Screen(
        "documentation",
        ("mkdocs", "build", "--quiet", "--site-dir", "{out}"),
        f"../{__version__}/study.html",
        ((1100, 760), (390, 760)),
    ),
)


def picture(chromium: Any, url: str, screen: Screen) -> Image.Image:
    """What the windows show, side by side."""
    shots = []
    for width, height in screen.windows:
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        page.goto(url, wait_until="load")
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            page.screenshot(path=file.name, animations="disabled")
            shots.append(Image.open(file.name).convert("RGB"))
        page.close()
    gap = 16
    width = sum(shot.width for shot in shots) + gap * (len(shots) - 1)
    joined = Image.new("RGB", (width, max(shot.height for shot in shots)), "#8a8f98")
    left = 0
    for shot in shots:
        joined.paste(shot, (left, 0))
        left += shot.width + gap
    return joined.quantize(128, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures")
    parser.add_argument("--only", choices=[screen.name for screen in SCREENS], action="append")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    browser = find_chromium()
    if browser is None:
        sys.exit("error: no Chromium on the PATH: install the package chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as made:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for screen in SCREENS:
            if options.only and screen.name not in options.only:
                continue
            out = Path(made) / screen.name
            module, *arguments = (part.format(out=out) for part in screen.command)
            subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)
            path = options.out / f"{screen.name}.png"
            picture(chromium, f"file://{out}/{screen.page}", screen).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size // 1024} KiB")
        chromium.close()


if __name__ == "__main__":
    main()
