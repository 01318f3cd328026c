"""Drawn data sets on disk, in the layout of CUB-200-2011."""

import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path

from dml_bench.data.synthetic.drawing import PARTS, draw
from dml_bench.data.synthetic.families import Domain, Species, species
from dml_bench.data.synthetic.shapes import Box
from dml_bench.system.drafts import drafted
from dml_bench.system.failures import deaf_to_ctrl_c, named
from dml_bench.system.files import Damaged, digest_of, read_json, write_json
from dml_bench.system.threaded import threaded_map

__all__ = ["EDITION", "cub_counts", "is_as_drawn", "write"]

EDITION = 1
"""To be raised with every change of a drawn pixel, so that birds that were drawn before are not
taken for today's."""

DIGESTS = "drawn.json"
FEW_IMAGES = 200
"""Below this many images `write` draws in its own process: starting others takes longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    bird: Species
    index: int
    seed: int
    size: int
    file: Path


def _drawn(task: _Task) -> tuple[Box, dict[str, Box]]:
    drawing = draw(task.bird, index=task.index, seed=task.seed, size=task.size)
    with named(task.file):
        drawing.image.save(task.file, quality=92)
    return drawing.box, drawing.parts


def write(
    root: Path,
    *,
    counts: Sequence[int],
    size: int,
    seed: int,
    domain: Domain = "benchmark",
    class_names: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draws a data set in CUB-200-2011's layout at `root`, with `counts[i]` images of class i, and
    returns `root`.

    Besides CUB's files there are `parts/part_boxes.txt` ("image part x y width height"), where each
    visible part is, and `drawn.json`, the digests of all other files. `class_names` replaces the
    species' own; "001." is put before names that have no number. The folder appears only when it is
    complete. Raises FileExistsError if `root` exists, ValueError if names and counts don't match.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists already; remove it or choose another folder")
    birds = species(len(counts), seed=seed, domain=domain)
    plain_names = class_names or [bird.name for bird in birds]
    names = [_numbered(i, name) for i, name in enumerate(plain_names)]
    if len(names) != len(counts) or len(set(names)) != len(names):
        raise ValueError(
            f"{len(counts)} classes must have as many different names, got {len(set(names))}"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with drafted(root) as draft:
        files = [
            f"{name}/{name.split('.', 1)[1]}_{k + 1:04d}.jpg"
            for name, count in zip(names, counts, strict=True)
            for k in range(count)
        ]
        for name in names:
            (draft / "images" / name).mkdir(parents=True)
        pairs = [(bird, k) for bird, count in zip(birds, counts, strict=True) for k in range(count)]
        tasks = [
            _Task(bird=bird, index=k, seed=seed, size=size, file=draft / "images" / file)
            for (bird, k), file in zip(pairs, files, strict=True)
        ]
        truth = []
        with closing(_all_drawn(tasks)) as drawings:
            for drawing in drawings:
                truth.append(drawing)
                if progress:
                    progress(1)
        _write_tables(draft, names, counts, files, truth)
        drawn = [path for path in sorted(draft.rglob("*")) if path.is_file()]
        write_json(
            draft / DIGESTS, {path.relative_to(draft).as_posix(): digest_of(path) for path in drawn}
        )
    return root


def is_as_drawn(root: Path) -> bool:
    """Whether a set that `write` drew is there and whole, byte for byte."""
    try:
        digests = read_json(root / DIGESTS, {...: str}, sealed=True)
        return all(threaded_map(lambda name: digest_of(root / name) == digests[name], digests))
    except (OSError, Damaged):
        return False


def _numbered(position: int, name: str) -> str:
    return name if re.match(r"\d{3,}\.", name) else f"{position + 1:03d}.{name}"


def _all_drawn(tasks: Sequence[_Task]) -> Generator[tuple[Box, dict[str, Box]], None, None]:
    """In the order of `tasks`."""
    if len(tasks) < FEW_IMAGES or (os.cpu_count() or 1) == 1:
        yield from map(_drawn, tasks)
        return
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"))
    try:
        with deaf_to_ctrl_c():
            drawings = pool.map(_drawn, tasks, chunksize=16)
        yield from drawings
    finally:
        pool.shutdown(cancel_futures=True)


def _write_tables(
    root: Path,
    names: Sequence[str],
    counts: Sequence[int],
    files: Sequence[str],
    truth: Sequence[tuple[Box, dict[str, Box]]],
) -> None:
    labels = [label for label, count in enumerate(counts, 1) for _ in range(count)]
    part_boxes = [
        f"{image} {PARTS.index(part) + 1} {_written(box)}"
        for image, (_, parts) in enumerate(truth, 1)
        for part, box in parts.items()
    ]
    tables = {
        "images.txt": [f"{i} {file}" for i, file in enumerate(files, 1)],
        "classes.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "image_class_labels.txt": [f"{i} {label}" for i, label in enumerate(labels, 1)],
        "bounding_boxes.txt": [f"{i} {_written(box)}" for i, (box, _) in enumerate(truth, 1)],
        "parts/parts.txt": [f"{i} {part}" for i, part in enumerate(PARTS, 1)],
        "parts/part_boxes.txt": part_boxes,
    }
    (root / "parts").mkdir()
    for name, lines in tables.items():
        with named(root / name):
            (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _written(box: Box) -> str:
    return " ".join(f"{value:.3f}" for value in box)


def cub_counts() -> dict[str, int]:
    """CUB-200-2011's 200 class names ("001.Black_footed_Albatross") and how many images each has,
    in id order."""
    counts: dict[str, int] = json.loads(
        resources.files("dml_bench.data.synthetic").joinpath("cub_counts.json").read_text("utf-8")
    )
    return counts
