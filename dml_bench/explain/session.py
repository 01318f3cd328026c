"""A run explained: panels of maps and a table of their scores."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dml_bench.explain.annotations import Annotations, read_annotations
from dml_bench.explain.images import RunImages, choose_images, own_photos, spread_over_classes
from dml_bench.explain.methods import applicable, methods
from dml_bench.explain.models import Model, Target, check_target, model_of_phase
from dml_bench.explain.page import ExplainedPage, write_page
from dml_bench.explain.panels import MapPanels
from dml_bench.explain.score_table import ScoreRow, score_rows, score_tables, write_scores
from dml_bench.explain.scoring import score_maps
from dml_bench.gallery.predict import cuts_to_boxes
from dml_bench.runs.run import open_run
from dml_bench.system.files import write_json, write_text
from dml_bench.system.markdown import code
from dml_bench.system.markdown import markdown as as_markdown
from dml_bench.system.provenance import describe

__all__ = ["ExplainRequest", "ExplainResult", "explain"]

DRAWN = 6
"""How many queries are drawn where none are chosen."""


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainRequest:
    """What a person wants explained."""

    run: Path
    """The folder of the run."""
    out: Path
    """The folder to write."""
    images: tuple[Path, ...] = ()
    """The files of the images to explain."""
    class_name: str = ""
    """The class whose queries are explained."""
    mistakes: int = 0
    """How many mistaken queries are explained."""
    other: Path | None = None
    """Another image, which is the target of the maps instead."""
    target: Target = "class"
    """What the maps explain."""
    methods: tuple[str, ...] = ()
    """The names of the methods; empty for all that the network allows."""
    layer: str = ""
    """The layer whose map Grad-CAM weighs; empty for the deepest stage that is large enough."""
    scored: int = 40
    """The number of queries whose maps are scored; 0 for none."""
    device: str = "auto"
    """The device on which the network runs."""
    data_dir: Path | None = None
    """The folder of the run's images, where they were moved."""
    command: tuple[str, ...] = ()
    """The command line, which is recorded."""
    progress: Callable[[str, int, int], None] = quiet
    """Called with what is done, and how much of it."""


@dataclass(frozen=True, slots=True)
class ExplainResult:
    """What has been written."""

    page: Path
    """The page that joins all of it."""
    panels: tuple[Path, ...]
    """The files of the panels."""
    rows: tuple[ScoreRow, ...]
    """The rows of scores.csv; none where nothing is scored."""


def explain(request: ExplainRequest) -> ExplainResult:
    """Write the folder `out`: index.html, panels/, scores.csv and scores.md unless nothing is
    scored, and explain.json, which says what they are.

    Raises ValueError where the run lacks what the request names, or the folder holds something
    else.
    """
    start = time.perf_counter()
    check_folder(request.out)
    run = open_run(request.run, request.data_dir)
    if any(len(run.models(phase)) > 1 for phase in run.neighbours):
        raise ValueError(
            f"{run.folder} has an ensemble of several networks in each phase, and a map explains"
            " one: explain a run without --folds"
        )
    check_target(run, request.target)
    run_images = RunImages(run)
    images = choose_images(
        run_images, images=request.images, class_name=request.class_name, mistakes=request.mistakes
    )
    images = images or spread_over_classes(run_images, DRAWN)
    other = None
    if request.other is not None:
        other = run_images.pixels(own_photos(run_images, [request.other])[0])
    models = [
        model_of_phase(run_images, phase, request.device, request.layer) for phase in run.neighbours
    ]
    names = chosen_methods(models[0], request.methods)
    annotations = Annotations() if cuts_to_boxes(run) else read_annotations(run_images.root)
    begin_folder(request)
    map_panels = MapPanels(
        run_images=run_images,
        models=models,
        names=names,
        annotations=annotations,
        target=request.target,
        other=other,
    )
    tiles = map_panels.rows(images)
    panels = tuple(map_panels.write(images, tiles, request.out / "panels"))
    rows: list[ScoreRow] = []
    scores = None
    if request.scored:
        score = partial(score_maps, run_images, models, names, annotations, request.target)
        queries = spread_over_classes(run_images, request.scored)
        spread = score(queries, request.progress)
        rows = score_rows(spread, [model.name for model in models] + ["random"])
        if other is None:
            scores = score(images, request.progress)
    page = ExplainedPage(
        run_images=run_images,
        models=models,
        names=names,
        images=images,
        rows=tiles,
        about=[map_panels.subject(image) for image in images],
        counterpart=map_panels.counterpart,
        scores=scores,
        overall=rows,
    )
    write_page(request.out / "index.html", page)
    write_record(request, models, names, panels, rows, time.perf_counter() - start)
    return ExplainResult(request.out / "index.html", panels, tuple(rows))


def check_folder(folder: Path) -> None:
    """Raises ValueError where a folder holds something that was not written here."""
    if not folder.exists():
        return
    ours = folder.is_dir() and ((folder / "explain.json").exists() or not any(folder.iterdir()))
    if not ours:
        raise ValueError(f"{folder} holds something else: name a new folder with --out")


def begin_folder(request: ExplainRequest) -> None:
    """Make the folder, with an explain.json that marks it as ours and promises no panel yet."""
    request.out.mkdir(parents=True, exist_ok=True)
    write_json(request.out / "explain.json", {"command": list(request.command), "panels": []})
    for name in ("index.html", "scores.csv", "scores.md"):
        (request.out / name).unlink(missing_ok=True)
    folder = request.out / "panels"
    folder.mkdir(exist_ok=True)
    for earlier in folder.glob("[0-9][0-9][0-9]*-*.png"):  # of other images, perhaps
        earlier.unlink()


def chosen_methods(model: Model, chosen: Sequence[str]) -> list[str]:
    """The methods to draw, in the order of a panel. Raises UnknownName for a method that does not
    exist, ValueError for one that the network does not allow."""
    allowed = applicable(model.network)
    for name in chosen:
        needs = methods[name].facts["needs"]
        if name not in allowed:
            backbone = model.run.experiment.model.backbone.name
            raise ValueError(
                f"method {name} needs {NEED_DESCRIPTIONS[needs]}, which {backbone} does not have;"
                f" it allows: {', '.join(allowed)}"
            )
    if not chosen:
        return allowed
    return [name for name in allowed if name in chosen]


NEED_DESCRIPTIONS = {
    "map": "a map that is pooled",
    "stage": "stages that make maps",
    "tokens": "attention among patches",
}


def write_record(
    request: ExplainRequest,
    models: Sequence[Model],
    names: Sequence[str],
    panels: Sequence[Path],
    rows: Sequence[ScoreRow],
    seconds: float,
) -> None:
    """Write the scores, and explain.json last."""
    run = models[0].run
    record: dict[str, Any] = {
        "command": list(request.command),
        "experiment": run.experiment.name,
        "dataset": run.experiment.data.dataset.name,
        "seed": run.seed,
        "weights": {model.name: run.weights_digest(model.name) for model in models},
        "layer": models[0].network.layer,
        "target": request.target,
        "methods": {name: methods[name].source for name in names},
        "panels": [path.name for path in panels],
        "scored": max((row.queries for row in rows), default=0),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "environment": describe(),
    }
    if rows:
        write_scores(request.out / "scores.csv", rows)
        text = "\n".join(heading(record) + score_tables(rows))
        write_text(request.out / "scores.md", text)
    write_json(request.out / "explain.json", record)


def heading(record: dict[str, Any]) -> list[str]:
    """The first lines of scores.md."""
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
            "Intervals are 95%, over the classes and queries of this one run. A difference is over"
            " the queries for which both networks have the score."
        ),
        "",
        (
            f"Made by {code(' '.join(record['command']))} in {record['seconds']} s at"
            f" {record['made_at']}: {environment['processor']}, torch"
            f" {environment['packages']['torch']}, commit {environment['commit'] or 'unknown'}."
        ),
        "",
    ]
