"""Every kind of file that is read back: how it comes to be, and what is made of it when it is read.
For tests and for benchmarks/crash.py.

A kind lies in a place, a folder that `make` fills; `use` reads it there and returns bytes that have
to be the same whatever happened to the file. It is refused in one line that names it, or healed.
"""

import functools
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny import StopsAfter, tiny, train

from dml_bench.browse import projection
from dml_bench.config import Component, as_table
from dml_bench.data.cache import View, open_caches
from dml_bench.data.datasets import open_dataset
from dml_bench.data.sessions import estimate_sessions
from dml_bench.gallery import index_store
from dml_bench.gallery.index_recall import sample_of_gallery
from dml_bench.gallery.indexes import parse
from dml_bench.gallery.store import GalleryFile, open_gallery_file
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.runs.record import write_record
from dml_bench.runs.run import read_folder
from dml_bench.suite import record
from dml_bench.system.files import write_json
from dml_bench.training.tuning import read_search

Bits = dict[str, bytes]

ROW = "EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
SHORT = ("train.epochs=1", "evaluate.recall_k=[1]")
START = (*SHORT, "start={name='classifier', epochs=2, batch_size=16, lr=0.05}")
FOLDS = (*SHORT, "train.folds=2")
JUDGES = (*SHORT, "labelling={name='softlabels', folds=2}")
FROZEN = (*SHORT, "model.trainable=head", "augment.random_crop_from=0", "augment.horizontal_flip=0")
EMBEDDINGS = np.eye(5, dtype=np.float32)


@dataclass(frozen=True)
class Kind:
    make: Callable[[Path, Path], None]
    """Fills a place, given a folder of birds."""
    use: Callable[[Path, Path], Bits]
    """Reads what is there, given the same birds."""
    file: str
    """A pattern for the one file of this kind in the place."""
    heals: bool = False

    def path(self, place: Path) -> Path:
        [path] = place.glob(self.file)
        return path

    def __str__(self) -> str:
        return f"{self.file.removeprefix(f'runs/{ROW}/')}, {self.make.__name__}"


def go(place: Path, birds: Path, *overrides: str, epochs: int = 0) -> None:
    """Train in a place, until so many epochs are done where that is given."""
    callback = {"callback": StopsAfter(epochs)} if epochs else {}
    with suppress(KeyboardInterrupt):
        train(birds, place / "cache", place / "runs", *overrides, **callback)


def bits(place: Path) -> Bits:
    """Of a finished run, what has to be the same on each machine's every try."""
    files = [*(place / "runs").rglob("*.safetensors"), *(place / "runs").rglob("*.csv")]
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(files)
        if path.parent.name != "gallery"
    }


@functools.cache
def trained(*overrides: str) -> Callable[[Path, Path], Bits]:
    """One function for all kinds of a run, so that it is trained once without damage."""

    def use(place: Path, birds: Path) -> Bits:
        go(place, birds, *overrides)
        return bits(place)

    return use


# Runs


def half_finished(place: Path, birds: Path) -> None:
    go(place, birds, "train.epochs=2", epochs=3)


def half_folded(place: Path, birds: Path) -> None:
    go(place, birds, *FOLDS, epochs=2)


def half_judged(place: Path, birds: Path) -> None:
    go(place, birds, *JUDGES, epochs=2)


def finished(place: Path, birds: Path) -> None:
    go(place, birds, *SHORT)


def read_back(place: Path, birds: Path) -> Bits:
    run = read_folder(place / "runs" / ROW)
    return {"precision": run.last_session("precision")["precision"].encode(), **bits(place)}


HALF = [
    Kind(half_finished, trained("train.epochs=2"), f"runs/{ROW}/{name}")
    for name in (
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "limited/state.pt",
        "all/complete.json",
        "all/cost.json",
        "all/weights.safetensors",
        "all/embeddings.safetensors",
        "all/neighbours.safetensors",
    )
]
PARTS = [
    Kind(half_folded, trained(*FOLDS), f"runs/{ROW}/all/fold-1/complete.json"),
    Kind(half_folded, trained(*FOLDS), f"runs/{ROW}/all/fold-1/embeddings.safetensors"),
    Kind(half_judged, trained(*JUDGES), f"runs/{ROW}/all/judge-1/judged.safetensors"),
]
FINISHED = [
    Kind(finished, read_back, f"runs/{ROW}/{name}")
    for name in (
        "summary.json",
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "split.csv",
        "predictions.csv",
        "all_classes_metrics.csv",
        "limited/complete.json",
        "limited/cost.json",
        "limited/weights.safetensors",
        "limited/neighbours.safetensors",
    )
]


# Caches


def started(place: Path, birds: Path) -> None:
    """A stage that is trained, and nothing that began with it."""
    go(place, birds, *START, epochs=3)
    forget_runs(place)


def half_started(place: Path, birds: Path) -> None:
    go(place, birds, *START, epochs=1)
    forget_runs(place)


def frozen(place: Path, birds: Path) -> None:
    go(place, birds, *FROZEN)
    forget_runs(place)


def forget_runs(place: Path) -> None:
    shutil.rmtree(place / "runs")


def drawn(place: Path, birds: Path) -> None:
    draw(place)


def draw(place: Path) -> Bits:
    data = open_dataset(
        Component("demo", {"classes": 2, "per_class": 2, "size": 16, "seed": 7}),
        None,
        place / "cache",
    )
    return {
        "fingerprint": data.fingerprint.encode(),
        "names": repr((data.paths, data.class_names, data.labels.tolist())).encode(),
    }


def decoded(place: Path, birds: Path) -> None:
    decode(place, birds)


def decode(place: Path, birds: Path) -> Bits:
    data = open_dataset(Component("cub"), birds, place / "cache")
    [cache] = open_caches(data, View("crop", 16), cache_dir=place / "cache")
    return {"pixels": b"".join(cache[image].tobytes() for image in range(len(data)))}


def estimated(place: Path, birds: Path) -> None:
    estimate(place, birds)


def estimate(place: Path, birds: Path) -> Bits:
    data = open_dataset(Component("cub"), birds, place / "cache")
    return {"sessions": repr(estimate_sessions(data, 0.2)).encode()}


CACHES = [
    Kind(estimated, estimate, "cache/sessions/*.json", heals=True),
    *(
        Kind(decoded, decode, f"cache/images/*/{name}", heals=True)
        for name in ("manifest.json", "index.npy", "pixels.u8")
    ),
    Kind(started, trained(*START), "cache/pretrained/*.safetensors", heals=True),
    Kind(started, trained(*START), "cache/pretrained/*.json", heals=True),
    Kind(half_started, trained(*START), "cache/pretrained/*.state.pt", heals=True),
    Kind(frozen, trained(*FROZEN), "cache/features/*.safetensors", heals=True),
    *(
        Kind(drawn, lambda place, birds: draw(place), f"cache/demo*/{name}", heals=True)
        for name in ("images.txt", "classes.txt", "drawn.json", "images/001*/*_0001.jpg")
    ),
]


# Beside runs


def place_of(place: Path) -> GalleryFile:
    return open_gallery_file(place / "runs" / ROW, "all", place / "mine")


def enrolled(place: Path, birds: Path) -> None:
    finished(place, birds)
    changed = place_of(place)
    changed.path.parent.mkdir()
    changed.write(changed.read(new=True))


def read_gallery(place: Path, birds: Path) -> Bits:
    gallery = place_of(place).read()
    return {"entries": repr(gallery.entries).encode(), "embeddings": gallery.embeddings.tobytes()}


def indexed(place: Path, birds: Path) -> None:
    finished(place, birds)
    look_up(place, birds)


def look_up(place: Path, birds: Path) -> Bits:
    gallery = place_of(place).read(new=True)
    look = index_store.open_or_build(
        place_of(place),
        gallery,
        parse("sq8"),
        functools.partial(sample_of_gallery, gallery.embeddings),
        lambda text: None,
    )
    similarities, rows = look.find(gallery.embeddings, 2)
    assert look.measured
    return {
        "similarities": similarities.tobytes(),
        "rows": rows.tobytes(),
        "recall": str(look.measured.recall_at_1).encode(),
    }


def mapped(place: Path, birds: Path) -> None:
    """A map as umap would make it, which takes a minute to compile."""
    place.mkdir(parents=True, exist_ok=True)
    facts = {
        "fitted": embeddings_digest(EMBEDDINGS),
        "put into it": embeddings_digest(EMBEDDINGS[:0]),
    }
    projection.write(place / "map.safetensors", EMBEDDINGS[:, :2], facts)


def look_at_map(place: Path, birds: Path) -> Bits:
    """The kept map where it is taken, else one made anew."""
    points, facts = projection.read(place / "map.safetensors")
    if facts.get("fitted") != embeddings_digest(EMBEDDINGS):
        mapped(place, birds)
        points, _ = projection.read(place / "map.safetensors")
    return {"points": points.tobytes()}


def recorded(place: Path, birds: Path) -> None:
    session = record.SuiteRecord(place / "suite.json", ["dml-bench", "suite"])
    session.session |= {"jobs": 1, "devices": ["cpu"], "threads": 1}
    session.write({"title": "a suite"}, 1.5, "finished")


def searched(place: Path, birds: Path) -> None:
    """A search of one trial, which no training made."""
    trial = {"settings": {"optimizer.lr": 0.1}, "score": 0.5, "state": "complete", "reported": {}}
    content = {
        "schema_version": 1,
        "experiment": as_table(tiny()),
        "space": {"name": "mine", "digest": "0", "shared": False},
        "dataset": {"name": "cub", "fingerprint": "0"},
        "split": "0",
        "validation_classes": ["a", "b"],
        "trials": [trial],
    }
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "search.json", content)


def read_searched(place: Path, birds: Path) -> Bits:
    return {"study": repr(read_search(place / "search.json").tuned()).encode()}


def run_recorded(place: Path, birds: Path) -> None:
    finished(place, birds)
    write_record(place / "results", read_folder(place / "runs" / ROW))


def read_run_record(place: Path, birds: Path) -> Bits:
    [path] = (place / "results").rglob("seed-*.json")
    run = read_folder(path)
    return {"metrics": repr(run.metrics).encode(), "answers": repr(run.predictions).encode()}


def read_record(place: Path, birds: Path) -> Bits:
    return {"sessions": repr(record.read(place / "suite.json")).encode()}


BESIDE = [
    Kind(enrolled, read_gallery, "mine/all.safetensors"),
    Kind(indexed, look_up, "mine/all.index/*.faiss", heals=True),
    Kind(indexed, look_up, "mine/all.index/*.json", heals=True),
    Kind(mapped, look_at_map, "map.safetensors", heals=True),
    Kind(recorded, read_record, "suite.json"),
    Kind(searched, read_searched, "search.json"),
    Kind(run_recorded, read_run_record, "results/cub/*/*/seed-42.json"),
    Kind(run_recorded, read_run_record, "results/cub/*/*/seed-42.safetensors.xz"),
]

KINDS = [*HALF, *PARTS, *FINISHED, *CACHES, *BESIDE]
