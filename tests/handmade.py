"""Finished runs written by hand in the format of real ones: which queries each phase's model got
right, and nothing trained; and data sets that are lists of paths."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment, as_table
from dml_bench.config.experiments import resolve
from dml_bench.data.datasets import Dataset
from dml_bench.evaluation.search import Neighbours
from dml_bench.runs.arrays import write_arrays, write_neighbours
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.run import Run
from dml_bench.system.files import write_csv, write_json

BASELINE = "EPSHN_cosine_resnet18_sgd_aug"
COST = {
    "train_seconds": 60.0,
    "train_cpu_seconds": 50.0,
    "train_images_per_second": 100.0,
    "embed_images_per_second": 400.0,
    "peak_memory_bytes": 2**30,
}


def experiment(
    name: str = BASELINE, *, seed: int = 42, profile: str = "", **changes: Any
) -> Experiment:
    return replace(
        resolve(BASELINE, profile=profile, overrides=[f"seed={seed}"]), name=name, **changes
    )


def dataset_of(counts: dict[str, int], *, parts: tuple[str, ...] | None = None) -> Dataset:
    """A data set whose files need not exist: NAME/00.jpg and so on, for each class."""
    rows = sorted(
        (f"{name}/{image:02}.jpg", label)
        for label, (name, count) in enumerate(counts.items())
        for image in range(count)
    )
    return Dataset(
        name="birds",
        root=Path("nowhere"),
        paths=tuple(path for path, _ in rows),
        labels=np.array([label for _, label in rows], dtype=np.int64),
        class_names=tuple(counts),
        parts=parts,
    )


def answered(right: np.ndarray, labels: np.ndarray) -> Neighbours:
    """A search whose nearest image is of the query's class where `right`, else of the next
    class."""
    gallery = np.unique(labels)
    nearest = np.where(right, labels, (labels + 1) % len(gallery))
    other = (nearest + 1) % len(gallery)
    return Neighbours(
        np.stack([nearest, other], 1), np.ones((len(labels), 2), np.float32), gallery, labels
    )


def finish(
    out: Path,
    run: Experiment,
    right: dict[str, list[list[int]]],
    unseen: int = 2,
    split: str = "",
    holdouts: dict[str, list[int]] | None = None,
    names: tuple[str, ...] = (),
    cost: Mapping[str, float] = COST,
) -> Run:
    """Write the run folder of `run`: for each phase and class, which of the class's queries were
    answered right (1) or wrong (0).

    The last `unseen` classes are held out of phase `limited`, or by `holdouts` these classes of
    each of these phases. `cost` is what each phase took.
    """
    folder = RunFolder(out, run, "cub")
    folder.path.mkdir(parents=True)
    names = names or tuple(f"class {i}" for i in range(len(right["all"])))
    labels = np.repeat(np.arange(len(names)), [len(queries) for queries in right["all"]])
    phases, costs = {}, {}
    for phase, classes in right.items():
        neighbours = answered(np.concatenate(classes).astype(bool), labels)
        (folder.path / phase).mkdir()
        write_neighbours(folder.path / phase / "neighbours.safetensors", neighbours)
        phases[phase] = {
            "precision_at_1_macro": float(np.mean([np.mean(queries) for queries in classes]))
        }
        costs[phase] = dict(cost)
    write_csv(folder.path / "all_classes_metrics.csv", ["class name"], [[name] for name in names])
    write_json(folder.path / "experiment.json", as_table(run))
    write_json(folder.path / "environment.json", {"sessions": [SESSION]})
    holdouts = holdouts or {"limited": list(range(len(names)))[-unseen:]}
    drops = [
        np.mean(a) - np.mean(b)
        for a, b in zip(right["all"], right[next(iter(holdouts))], strict=True)
    ]
    held_out = []
    for phase, classes in holdouts.items():
        held_out.append({"phase": phase, "unseen_classes": [names[i] for i in classes]})
    summary = {
        "schema_version": 1,
        "protocol": run.protocol,
        "dataset": {
            "name": "cub",
            "root": "/photos",
            "fingerprint": "d" * 64,
            "num_images": 100,
            "num_classes": len(names),
        },
        "split": {"fingerprint": split or hashlib.sha256(str(run.seed).encode()).hexdigest()},
        "unseen_classes": list(names[-unseen:]),
        "phases": phases,
        "holdouts": held_out,
        "precision_drop_unseen_classes": float(np.mean(drops[-unseen:])),
        "precision_drop_seen_classes": float(np.mean(drops[:-unseen])),
        "precision_drop_all_classes": float(np.mean(drops)),
        "cost": {**costs, "total_seconds": 130.0, "device": "cpu"},
    }
    folder.write_summary(summary)
    return Run(folder.path, run, summary)


def photographed(fingerprint: str = "d" * 64) -> Dataset:
    """A data set of the name and the fingerprint that finished runs are of; it has no files."""
    dataset = Dataset(
        name="cub",
        root=Path("/photos"),
        paths=("a", "b"),
        labels=np.array([0, 1]),
        class_names=("x", "y"),
    )
    dataset.__dict__["fingerprint"] = fingerprint
    return dataset


Vectors = dict[str, list[float]]
"""By class, the images of a part as unit vectors in the plane, in degrees."""


def store(run: Run, phase: str, **parts: Vectors) -> None:
    """Embeddings of a phase, and the list of images that belongs to them, each of which holds its
    own path. `gallery` and `query` have to go with what `finish` was told: one gallery image of
    each class, and each class's queries."""
    part_of_split = {"gallery": "train", "query": "test", "valid": "valid"}
    rows, arrays = [], {}
    for part, classes in parts.items():
        degrees = np.radians([angle for angles in classes.values() for angle in angles])
        arrays[part] = np.stack([np.cos(degrees), np.sin(degrees)], 1).astype(np.float32)
        arrays[f"{part}_images"] = np.arange(len(rows), len(rows) + len(degrees))
        rows += [
            (f"{part}/{name}/{i}.jpg", name, part_of_split[part])
            for name, angles in classes.items()
            for i in range(len(angles))
        ]
    lines = [(path, *about, hashlib.sha256(path.encode()).hexdigest()) for path, *about in rows]
    write_csv(run.folder / "split.csv", ("path", "class", "part", "sha256"), lines)
    write_arrays(run.folder / phase / "embeddings.safetensors", arrays)


SESSION = {
    "started_at": "2026-01-02T03:04:05+00:00",
    "command": ["dml-bench"],
    "dml_bench": "0.1.0",
    "commit": "abc",
    "python": "3.11.7",
    "processor": "a processor",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "precision": "float32",
    "packages": {"torch": "2", "torchvision": "0", "timm": "1", "faiss-cpu": "1", "numpy": "2"},
}
