"""What W&B gets of a finished run besides its numbers: figures, panels of neighbours and maps, and
embeddings."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import diagnose_chosen
from dml_bench.data.datasets import Progress
from dml_bench.explain.annotations import Annotations
from dml_bench.explain.images import RunImages, mistaken_queries
from dml_bench.explain.methods import applicable
from dml_bench.explain.models import model_of_phase
from dml_bench.explain.neighbour_panels import neighbour_panel, query_neighbours
from dml_bench.explain.panels import MapPanels
from dml_bench.plots.figures import draw
from dml_bench.runs.arrays import Part
from dml_bench.runs.mirror import MirroredRun
from dml_bench.runs.run import Run, open_run
from dml_bench.system.tables import ResultTable
from dml_bench.tracking.wandb_mirror import Mode, NotSent, mirror_in_wandb

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_EMBEDDINGS", "embeddings_table", "show"]

MOST_EMBEDDINGS = 2000
"""The number of rows of the table of embeddings; of more images, evenly spaced ones are taken."""


def show(
    path: Path,
    mode: Mode,
    *,
    data_dir: Path | None = None,
    evidence: int = 8,
    explained: int = 4,
    warn: "Callable[[str], None]",
    progress: Progress = lambda message, done, total: None,
) -> list[str]:
    """Send everything to W&B, and return its names there. The run keeps its W&B id, and its own
    folder stays the record. Raises NotSent, in one line, where W&B fails; that it takes long is a
    warning.
    """
    run = open_run(path, data_dir)
    if evidence or explained:
        run.images.require()
    problems: list[str] = []
    mirrored = MirroredRun(
        experiment=run.experiment,
        folder=run.folder,
        run_id=run.wandb_id,
        warn=problems.append,
        adds=True,
    )
    mirror = mirror_in_wandb(mode)(mirrored)
    names = []
    try:
        for name, picture in pictures(run, evidence, explained, progress):
            mirror.picture(name, picture)
            names.append(name)
            if mirror.problem:
                break
        for phase in run.neighbours:
            name = f"{phase}_embeddings"
            mirror.tables({name: embeddings_table(run, phase)})
            names.append(name)
    finally:
        mirror.finish(timeout_seconds=120)
    if mirror.problem:
        raise NotSent(f"not all of it reached W&B: {mirror.problem}")
    for line in problems:
        warn(line)
    return names


def pictures(
    run: Run, evidence: int, explained: int, progress: Progress
) -> Iterator[tuple[str, Image.Image]]:
    """The figures of the report, and panels of some mistaken queries, with their names in W&B."""
    [study] = studies_of(collect([run.folder], run.data_dir))
    for figure in draw(study, diagnose_chosen(study)):
        name = figure.name.removeprefix(f"{study.slug}-")
        yield f"figures/{name}", Image.open(io.BytesIO(figure.png))
    run_images = RunImages(run)
    try:
        images = mistaken_queries(run_images, max(evidence, explained, 1))
    except ValueError:  # no query is mistaken
        return
    for number, image in enumerate(images[:evidence], start=1):
        by_phase = [query_neighbours(run_images, image, phase) for phase in run.neighbours]
        yield f"evidence/{number}", neighbour_panel(run_images, image, by_phase)
        progress("panels of neighbours", number, len(images[:evidence]))
    is_ensemble = any(len(run.models(phase)) > 1 for phase in run.neighbours)
    if explained and not is_ensemble:
        sheets = map_panels(run_images).panels(images[:explained])
        for number, sheet in enumerate(sheets, start=1):
            yield f"explained/{number}", sheet
            progress("panels of maps", number, len(images[:explained]))


def map_panels(run_images: RunImages) -> MapPanels:
    """What draws the maps of a run's images, by all methods that its network allows."""
    phases = run_images.run.neighbours
    models = [model_of_phase(run_images, phase, "cpu", "") for phase in phases]
    return MapPanels(
        run_images=run_images,
        models=models,
        names=applicable(models[0].network),
        annotations=Annotations(),
        target="class",
        other=None,
    )


def embeddings_table(run: Run, phase: str) -> ResultTable:
    """One row per image of gallery and queries, for W&B's projector: what it is, and its
    coordinates."""
    embeddings, run_images = run.embeddings(phase), RunImages(run)
    leaves_one_out = run.neighbours[phase].leaves_one_out
    parts: list[Part] = ["query"] if leaves_one_out else ["gallery", "query"]
    images = np.concatenate([embeddings.images(part) for part in parts])
    vectors = np.concatenate([embeddings.vectors(part) for part in parts])
    part_of = np.repeat(parts, [len(embeddings.images(part)) for part in parts])
    unseen = run.held_out.get(phase, np.array([], int))
    rows = []
    for row in evenly_spaced(len(images), MOST_EMBEDDINGS):
        index = images[row]
        label = int(run_images.labels[index])
        about = (run_images.paths[index], run_images.class_names[label], str(part_of[row]))
        coordinates = vectors[row].astype(float).round(6).tolist()
        rows.append((*about, bool(np.isin(label, unseen)), *coordinates))
    names = [f"d{number}" for number in range(vectors.shape[1])]
    return ResultTable(("image", "class", "part", "unseen", *names), tuple(rows))


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0 to `count` - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
