"""What W&B gets of a finished run besides its numbers: figures, evidence, explanation panels and
embeddings."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import diagnose_chosen
from dml_bench.explain.annotations import Annotations
from dml_bench.explain.drawing import Drawing
from dml_bench.explain.images import RunImages, mistaken
from dml_bench.explain.methods import applicable
from dml_bench.explain.models import model_of_phase
from dml_bench.explain.neighbour_panels import answered, panel_of
from dml_bench.gallery.store import open_run
from dml_bench.plots.figures import draw
from dml_bench.runs.arrays import Part
from dml_bench.runs.mirror import MirroredRun
from dml_bench.runs.run import Run
from dml_bench.system.tables import ResultTable
from dml_bench.tracking.wandb_mirror import Mode, mirror_in_wandb

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_EMBEDDINGS", "embeddings_table", "show"]

MOST_EMBEDDINGS = 2000
"""Rows of the table of embeddings; of more, evenly spaced ones are taken."""


def show(
    path: Path,
    mode: Mode,
    *,
    data_dir: Path | None = None,
    evidence: int = 8,
    explained: int = 4,
    warn: "Callable[[str], None]",
) -> list[str]:
    """Hand over everything, and return the names of it. The run goes on under its W&B id; its own
    folder keeps the record."""
    run = open_run(path, data_dir)
    if evidence or explained:
        run.images.require()
    mirrored = MirroredRun(
        experiment=run.experiment, folder=run.folder, run_id=run.wandb_id, warn=warn
    )
    mirror = mirror_in_wandb(mode)(mirrored)
    names = []
    try:
        for name, picture in pictures(run, evidence, explained):
            mirror.picture(name, picture)
            names.append(name)
        for phase in run.neighbours:
            name = f"{phase}_embeddings"
            mirror.tables({name: embeddings_table(run, phase)})
            names.append(name)
    finally:
        mirror.finish(timeout_seconds=120)
    return names


def pictures(run: Run, evidence: int, explained: int) -> Iterator[tuple[str, Image.Image]]:
    [study] = studies_of(collect([run.folder], run.data_dir))
    for drawn in draw(study, diagnose_chosen(study)):
        yield (
            f"figures/{drawn.name.removeprefix(f'{study.slug}-')}",
            Image.open(io.BytesIO(drawn.png)),
        )
    material = RunImages(run)
    try:
        subjects = mistaken(material, max(evidence, explained, 1))
    except ValueError:  # no query is mistaken
        return
    for number, subject in enumerate(subjects[:evidence], start=1):
        yield (
            f"evidence/{number}",
            panel_of(
                material, subject, [answered(material, subject, phase) for phase in run.neighbours]
            ),
        )
    if explained and all(len(run.models(phase)) == 1 for phase in run.neighbours):
        models = [model_of_phase(material, phase, "cpu", "") for phase in run.neighbours]
        names = applicable(models[0].lens)
        drawing = Drawing(
            material=material,
            models=models,
            names=names,
            truth=Annotations(),
            target="class",
            other=None,
        )
        yield from (
            (f"explained/{number}", sheet)
            for number, sheet in enumerate(drawing.panels(subjects[:explained]), start=1)
        )


def embeddings_table(run: Run, phase: str) -> ResultTable:
    """One row per image of gallery and queries, for W&B's projector: what it is, and its
    coordinates."""
    stored, material = run.embeddings(phase), RunImages(run)
    leaves_one_out = run.neighbours[phase].leaves_one_out
    parts: list[Part] = ["query"] if leaves_one_out else ["gallery", "query"]
    images = np.concatenate([stored.images(part) for part in parts])
    part = np.repeat(parts, [len(stored.images(part)) for part in parts])
    vectors = np.concatenate([stored.vectors(part) for part in parts])
    chosen = np.unique(
        np.linspace(0, len(images) - 1, min(len(images), MOST_EMBEDDINGS)).round().astype(int)
    )
    unseen = run.held_out.get(phase, np.array([], int))
    rows = [
        (
            material.paths[images[row]],
            run.class_names[int(material.labels[images[row]])],
            str(part[row]),
            bool(np.isin(material.labels[images[row]], unseen)),
            *vectors[row].astype(float).round(6).tolist(),
        )
        for row in chosen
    ]
    return ResultTable(
        ("image", "class", "part", "unseen", *(f"d{number}" for number in range(vectors.shape[1]))),
        tuple(rows),
    )
