"""What is killed: trainings of every kind, suites, changed galleries, and everything else that is
kept or replaced on a disk."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dml_bench.config.experiments import resolve
from dml_bench.registry import UnknownName
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest
from dml_bench.system.drafts import SCRATCH, whole_files

__all__ = ["Scenario", "bits_of", "leftovers", "scenarios"]

SETTINGS = (
    "unseen=last:2",
    "images.size=32",
    "augment.random_crop_from=36",
    "train.epochs=2",
    "train.batch_size=16",
    "model.backbone=timm:test_resnet",
    "model.weights=none",
    "optimizer={name='sgd', lr=0.05}",
)
EASY, SOFTMAX = "EPSHN_cosine_resnet18_sgd_aug", "crossentropy_resnet18_sgd_aug"
ARCFACE, SIMILARITY = "ArcFace_cosine_resnet18_sgd_aug", "MultiSimilarity_cosine_resnet18_sgd_aug"
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": (EASY, ()),
    "corrected": (
        SOFTMAX,
        (
            "labelling=plc",
            "data.label_noise=0.2",
            "data.valid_fraction=0.2",
            "train.checkpoint=valid_loss",
            "train.epochs=3",
        ),
    ),
    "softlabels": (
        SOFTMAX,
        (
            "labelling=softlabels",
            "labelling.folds=2",
            "data.label_noise=0.2",
            "mixing.technique=none",
        ),
    ),
    "folds": (EASY, ("train.folds=2", "evaluate.tta=mirror")),
    "start": (
        ARCFACE,
        ("start=classifier", "start.epochs=2", "start.batch_size=16", "train.epochs=1"),
    ),
    "disjoint": (SIMILARITY, ("protocol=class_disjoint", "data.split=half", "evaluate.nmi=true")),
    "holdouts": (
        EASY,
        (
            "unseen=random:2:1 x 2",
            "mixing.technique=mixup",
            "optimizer={name='ranger', lr=0.05}",
            "schedule=flat_cosine",
            "images.progressive=[24,32]",
        ),
    ),
    "source": (
        EASY,
        (
            "model.weights=source",
            "pretrain.classes=4",
            "pretrain.per_class=6",
            "pretrain.epochs=2",
            "pretrain.batch_size=8",
            "train.epochs=1",
        ),
    ),
    "features": (
        EASY,
        (
            "model.trainable=head",
            "augment.random_crop_from=0",
            "augment.horizontal_flip=0",
            "images.size=32",
        ),
    ),
}
INDEXES = ("ivf:nlist=3", "hnsw", "sq8")
VOLATILE = (
    "second",
    "_ms_",
    "millisecond",
    "peak_memory",
    "started_at",
    "command",
    "digest",
    "files",
    "cost",
    "sessions",
    "made_at",
    "commit",
)
"""Keys, or parts of them, of what differs from one uninterrupted run to the next."""
THERE = (
    "cost.json",
    "complete.json",
    "suite.json",
    "table.md",
    "table.csv",
    "runs.csv",
    "index.html",
    "report.md",
    "embedder.pt",
    "embedder.pt2",
    "expectations.md",
)
"""Files that hold times, or what a process counted, of which it counts that they are there."""
NOT_COMPARED = ("environment.json", ".lock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A command in a place, a folder of its own."""

    name: str
    act: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda place: None
    """What is in the place before."""
    again: Callable[[Path], object] | None = None
    """What a person types after it was killed; None: the same."""
    by_itself: bool = False
    """Whether it needs other processes, or a library that no fork can take over."""
    by_time_only: bool = False
    """Whether it is other processes that do the work."""
    weight: float = 1.0
    """Of its share of the time."""


def scenarios(world: Path) -> dict[str, Scenario]:
    """By name; `world` holds the birds and photos that all of them look at, which are drawn
    here."""
    birds, photos = (
        drawn(world / "birds", [6] * 6, 3),
        drawn(world / "photos", [3] * 2, 77) / "images",
    )
    train = partial(training, birds)
    finished = partial(train, "plain")
    every = [Scenario(name=name, act=partial(train, name)) for name in TRAININGS]
    every += [
        Scenario(
            name="force",
            act=partial(train, "plain", force=True),
            prepare=other_run(train),
            again=plain_or_force(train),
        ),
        Scenario(
            name="suite --jobs 2",
            act=partial(suite, birds),
            by_itself=True,
            by_time_only=True,
            weight=4,
        ),
        Scenario(
            name="enrol",
            act=partial(enrol, photos),
            prepare=lambda place: [finished(place), index(place)],
        ),
        Scenario(name="index", act=index, prepare=finished),
        Scenario(name="umap", act=maps, prepare=finished, by_itself=True, weight=2),
        Scenario(name="browse", act=browse, prepare=finished, by_itself=True, weight=4),
        Scenario(
            name="export",
            act=export,
            prepare=finished,
            again=lambda place: (place / "exported").exists() or export(place),
        ),
        Scenario(name="report", act=report, prepare=lambda place: [finished(place), report(place)]),
        Scenario(name="evidence", act=evidence, prepare=finished),
        Scenario(name="draw", act=draw),
    ]
    return {scenario.name: scenario for scenario in every}


def drawn(root: Path, counts: list[int], seed: int) -> Path:
    from dml_bench.data.synthetic import write

    return root if root.exists() else write(root, counts=counts, size=40, seed=seed)


def training(birds: Path, name: str, place: Path, *more: str, force: bool = False) -> None:
    experiment, overrides = TRAININGS[name]
    execute(
        RunRequest(
            experiment=resolve(experiment, overrides=[*SETTINGS, *overrides, *more]),
            data_dir=birds,
            out=place / "runs",
            cache_dir=place / "cache",
            device="cpu",
            force=force,
        )
    )


def other_run(train: Callable[..., None]) -> Callable[[Path], object]:
    """A finished run of other settings, and beside it what its folder was."""

    def prepare(place: Path) -> None:
        train("plain", place, "optimizer.lr=0.02")
        (place / "before.json").write_text(json.dumps(bits_of(place / "runs")))

    return prepare


def plain_or_force(train: Callable[..., None]) -> Callable[[Path], object]:
    """The command without --force goes on, or it refuses and the old run is as it was."""

    def again(place: Path) -> None:
        try:
            train("plain", place)
        except ValueError as refused:
            assert "another configuration" in str(refused), refused
            assert bits_of(place / "runs") == json.loads((place / "before.json").read_text()), (
                "a part of the old run is gone"
            )
            train("plain", place, force=True)

    return again


def suite(birds: Path, place: Path) -> None:
    from dml_bench.cli.app import app

    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    places = [
        "--data-dir",
        str(birds),
        "--out",
        str(place / "runs"),
        "--cache-dir",
        str(place / "cache"),
        "--report",
        str(place / "page"),
    ]
    code = app(
        [
            "suite",
            EASY,
            SOFTMAX,
            "--jobs",
            "2",
            "--device",
            "cpu",
            "--wandb",
            "disabled",
            *settings,
            *places,
        ],
        standalone_mode=False,
    )
    if code:
        raise SystemExit(code)


def run_folder(place: Path) -> Path:
    (summary,) = (place / "runs").glob("*/*/seed-*/summary.json")
    return summary.parent


def index(place: Path) -> None:
    """What `predict --index` keeps, of each kind."""
    from dml_bench.gallery.calibration import recall_queries
    from dml_bench.gallery.index_store import open_or_build
    from dml_bench.gallery.indexes import parse
    from dml_bench.gallery.store import open_gallery_file

    there = open_gallery_file(run_folder(place), "all", None)
    gallery = there.read()
    for name in INDEXES:
        open_or_build(
            there, gallery, parse(name), partial(recall_queries, there.run, "all", gallery), print
        )


def enrol(photos: Path, place: Path) -> None:
    """A class less and two more, and what the indexes then are."""
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import GalleryChanges, change_gallery, photos_by_class
    from dml_bench.gallery.store import open_gallery_file

    there = open_gallery_file(run_folder(place), "all", None)
    removed = sorted(
        path.name for path in (Path(there.run.summary["dataset"]["root"]) / "images").iterdir()
    )[0]
    with suppress(UnknownName):  # it was removed before the kill, and all else with it
        change_gallery(
            there,
            GalleryChanges(remove=(removed,), photos=photos_by_class(photos)),
            lambda: GalleryEmbedder(there.run, "all", "cpu"),
        )
    index(place)


def maps(place: Path) -> None:
    from dml_bench.browse.run_images import read_browse_table
    from dml_bench.runs.run import read_folder

    read_browse_table(read_folder(run_folder(place))).maps()


def browse(place: Path) -> None:
    """The dataset that FiftyOne gets, and beside it what that holds."""
    from dml_bench.browse import fiftyone_app, session
    from dml_bench.browse.browsable import BrowsedRun
    from dml_bench.browse.database import serve_database
    from dml_bench.runs.run import read_folder

    run = BrowsedRun(read_folder(run_folder(place)))
    request = session.BrowseRequest(browsable=run, cache_dir=place / "cache")
    there, name = session.database_folder(run, request.cache_dir), run.name
    with there.lock(), serve_database(there) as uri, fiftyone_app.connected(uri):
        session.prepare(request)
        import fiftyone

        dataset = fiftyone.load_dataset(name)
        fields = [
            field
            for field in dataset.get_field_schema()
            if field not in ("id", "created_at", "last_modified_at")
        ]
        values = {
            field: hashlib.sha256(repr(dataset.values(field)).encode()).hexdigest()
            for field in fields
            if field in ("filepath", "tags", "split")
        }
        held = {
            "values": values,
            "fields": fields,
            "views": dataset.list_saved_views(),
            "maps": sorted(dataset.list_brain_runs()),
        }
    (place / "held.json").write_text(json.dumps(held))


def export(place: Path) -> None:
    from dml_bench.gallery.export import export as write
    from dml_bench.gallery.store import run_gallery
    from dml_bench.runs.run import read_folder

    finished = read_folder(run_folder(place))
    write(finished, "all", run_gallery(finished, "all"), place / "exported")


def report(place: Path) -> None:
    from dml_bench.report.compose import report as write

    write([place / "runs"], place / "report", ["dml-bench", "report"])


def evidence(place: Path) -> None:
    from dml_bench.explain.neighbour_panels import write_neighbour_panels as write

    write(run_folder(place), place / "evidence", mistakes=3)


def draw(place: Path) -> None:
    from dml_bench.config import Component
    from dml_bench.data.datasets import open_dataset

    open_dataset(
        Component("demo", {"classes": 4, "per_class": 4, "size": 32, "seed": 7}),
        None,
        place / "cache",
    )


def bits_of(place: Path) -> dict[str, str]:
    """What counts of each file, by its path."""
    digests = {}
    for path in whole_files(place):
        name = path.relative_to(place).as_posix()
        if path.name.endswith(NOT_COMPARED) or name.startswith(
            ("cache/browse", "cache/digests", "before", "runs/suite")
        ):
            continue
        digests[name] = "there" if path.name in THERE else content(path)
    return digests


def content(path: Path) -> str:
    if path.suffix == ".jsonl":
        return json.dumps([lasting(json.loads(line)) for line in path.read_text().splitlines()])
    if path.suffix == ".json":
        return json.dumps(lasting(json.loads(path.read_text())), sort_keys=True)
    data = path.read_bytes()
    if path.suffix == ".safetensors":  # whose library writes metadata in any order
        start = 8 + int.from_bytes(data[:8], "little")
        data = json.dumps(json.loads(data[8:start]), sort_keys=True).encode() + data[start:]
    return hashlib.sha256(data).hexdigest()


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {}
        for key, part in value.items():
            if not any(word in key for word in VOLATILE):
                kept[key] = lasting(part)
        return kept
    return [lasting(part) for part in value] if isinstance(value, list) else value


def leftovers(place: Path) -> list[str]:
    """Drafts that nobody is at work on any more."""
    return [
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if SCRATCH.fullmatch(path.name)
    ]
