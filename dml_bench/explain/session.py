"""From a run folder to panels and a table of scores."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dml_bench.explain.annotations import Annotations, read_annotations
from dml_bench.explain.drawing import Drawing
from dml_bench.explain.images import RunImages, chosen, own_photos, spread_out
from dml_bench.explain.methods import applicable, methods
from dml_bench.explain.models import Model, Target, check_target, model_of_phase
from dml_bench.explain.scored import score
from dml_bench.explain.tables import ScoreRow, lines, markdown, write_lines
from dml_bench.gallery.predict import cuts_to_boxes
from dml_bench.gallery.store import open_run
from dml_bench.system.files import write_atomically, write_json
from dml_bench.system.markdown import code
from dml_bench.system.markdown import markdown as as_markdown
from dml_bench.system.provenance import describe

__all__ = ["ExplainRequest", "Explained", "explain"]

DRAWN = 6
"""Queries that are drawn where none are chosen."""


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainRequest:
    """What is to be explained, as the command line has it."""

    run: Path
    out: Path
    images: tuple[Path, ...] = ()
    class_name: str = ""
    mistakes: int = 0
    other: Path | None = None
    """Another image, which the maps then are about."""
    target: Target = "class"
    chosen: tuple[str, ...] = ()
    """Names of methods; empty for all that the network allows."""
    layer: str = ""
    """Whose map Grad-CAM weighs; empty for the one that the backbone's entry and the size of its
    images choose."""
    scored: int = 40
    """Queries whose maps are scored; 0 for none."""
    device: str = "auto"
    data_dir: Path | None = None
    """Where the run's images lie now, where they were moved."""
    command: tuple[str, ...] = ()
    progress: Callable[[str, int, int], None] = quiet


@dataclass(frozen=True, slots=True)
class Explained:
    panels: tuple[Path, ...]
    lines: tuple[ScoreRow, ...]


def explain(request: ExplainRequest) -> Explained:
    """Write the folder `out`: panels/, scores.csv and scores.md unless nothing is scored, and
    explain.json, which says what they are.

    Raises ValueError where something that was asked for is not there, or the folder holds something
    else.
    """
    start = time.perf_counter()
    if request.out.exists() and (
        not request.out.is_dir()
        or (any(request.out.iterdir()) and not (request.out / "explain.json").exists())
    ):
        raise ValueError(f"{request.out} holds something else: name a new folder with --out")
    run = open_run(request.run, request.data_dir)
    if any(len(run.models(phase)) > 1 for phase in run.neighbours):
        raise ValueError(
            f"{run.folder} answers with several networks in each phase, and a map explains one:"
            " explain a run without --folds"
        )
    check_target(run, request.target)
    material = RunImages(run)
    subjects = chosen(
        material, images=request.images, class_name=request.class_name, mistakes=request.mistakes
    )
    subjects = subjects or spread_out(material, DRAWN)
    other = material.pixels(own_photos(material, [request.other])[0]) if request.other else None
    models = [
        model_of_phase(material, phase, request.device, request.layer) for phase in run.neighbours
    ]
    names = chosen_methods(models[0], request.chosen)
    truth = Annotations() if cuts_to_boxes(run) else read_annotations(material.root)
    begin(request)
    drawing = Drawing(
        material=material,
        models=models,
        names=names,
        truth=truth,
        target=request.target,
        other=other,
    )
    panels = tuple(drawing.write(subjects, request.out / "panels"))
    found: list[ScoreRow] = []
    if request.scored:
        sample = spread_out(material, request.scored)
        measured = score(material, models, names, truth, request.target, sample, request.progress)
        found = lines(measured, [*(model.name for model in models), "random"])
    write_record(request, models, names, panels, found, time.perf_counter() - start)
    return Explained(panels, tuple(found))


def begin(request: ExplainRequest) -> None:
    """A folder that says whose it is, and nothing of panels and scores until all are there."""
    request.out.mkdir(parents=True, exist_ok=True)
    write_json(request.out / "explain.json", {"command": list(request.command), "panels": []})
    for name in ("scores.csv", "scores.md"):
        (request.out / name).unlink(missing_ok=True)
    (request.out / "panels").mkdir(exist_ok=True)


def chosen_methods(model: Model, chosen: Sequence[str]) -> list[str]:
    """Raises UnknownName for a method that does not exist, ValueError for one that the network does
    not allow."""
    there = applicable(model.lens)
    for name in chosen:
        needs = methods[name].facts["needs"]
        if name not in there:
            backbone = model.run.experiment.model.backbone.name
            raise ValueError(
                f"method {name} needs {NEEDS[needs]}, which {backbone} does not have; it allows:"
                f" {', '.join(there)}"
            )
    return [name for name in there if name in chosen] if chosen else there


NEEDS = {
    "map": "a map that is pooled",
    "stage": "stages that make maps",
    "tokens": "attention among patches",
}


def write_record(
    request: ExplainRequest,
    models: Sequence[Model],
    names: Sequence[str],
    panels: Sequence[Path],
    found: Sequence[ScoreRow],
    seconds: float,
) -> None:
    run = models[0].run
    record: dict[str, Any] = {
        "command": list(request.command),
        "experiment": run.experiment.name,
        "dataset": run.experiment.data.dataset.name,
        "seed": run.seed,
        "weights": {model.name: run.weights_digest(model.name) for model in models},
        "layer": models[0].lens.layer,
        "target": request.target,
        "methods": {name: methods[name].source for name in names},
        "panels": [path.name for path in panels],
        "scored": max((line.queries for line in found), default=0),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "environment": describe(),
    }
    if found:
        write_lines(request.out / "scores.csv", found)
        text = "\n".join([*heading(record), *markdown(found)])
        write_atomically(request.out / "scores.md", lambda file: file.write(text.encode()))
    write_json(request.out / "explain.json", record)


def heading(record: dict[str, Any]) -> list[str]:
    environment = record["environment"]
    layer = f" Grad-CAM weighs the maps of {record['layer']}." if record["layer"] else ""
    return [
        f"# Where {as_markdown(record['experiment'])} looks",
        "",
        (
            f"{record['scored']} queries of {as_markdown(record['dataset'])}, spread over its"
            f" classes, seed {record['seed']}.{layer} `random` is the same network with random"
            " weights, `chance` a map of noise."
        ),
        (
            "95% intervals over the classes and queries of this one run; a difference is of the"
            " queries for which both networks have the score."
        ),
        "",
        (
            f"Made by {code(' '.join(record['command']))} in {record['seconds']} s at"
            f" {record['made_at']}: {environment['processor']}, torch"
            f" {environment['packages']['torch']}, commit {environment['commit'] or 'unknown'}."
        ),
        "",
    ]
