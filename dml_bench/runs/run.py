"""One finished run, read from its sealed folder."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment, load
from dml_bench.data.datasets import Dataset
from dml_bench.evaluation.search import Neighbours
from dml_bench.runs.folder import RunFolder, read_json, read_neighbours
from dml_bench.runs.images import ImageFiles
from dml_bench.system.drafts import whole_files
from dml_bench.system.files import read_csv

__all__ = [
    "NotFinished",
    "Run",
    "find_run",
    "progress",
    "read_experiment",
    "read_folder",
    "run_folders",
]


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, read from its sealed folder."""

    folder: Path
    experiment: Experiment
    summary: dict[str, Any]
    data_dir: Path | None = None
    """Where its images lie now, where a person says so."""

    @cached_property
    def images(self) -> ImageFiles:
        """Its image files."""
        return ImageFiles(self.folder, self.experiment, self.summary, self.data_dir)

    @property
    def seed(self) -> int:
        return self.experiment.seed

    @property
    def split(self) -> str:
        return str(self.summary["split"]["fingerprint"])

    @cached_property
    def queries_digest(self) -> str:
        """A digest of the queries: runs are compared query by query only where it is the same."""
        path = self.folder / "split.csv"
        if not path.exists():
            return self.split
        queries = [row["path"] for row in read_csv(path) if row["part"] == "test"]
        return hashlib.sha256("\n".join(queries).encode()).hexdigest()

    @cached_property
    def neighbours(self) -> dict[str, Neighbours]:
        """By phase."""
        return {
            path.parent.name: read_neighbours(path)
            for path in sorted(self.folder.glob("*/neighbours.safetensors"))
        }

    @cached_property
    def class_names(self) -> dict[int, str]:
        """By class id, of the classes that were asked: all of them, or the test classes of protocol
        `class_disjoint`."""
        disjoint = self.experiment.protocol == "class_disjoint"
        table = self.folder / (
            "test_classes_metrics.csv" if disjoint else "all_classes_metrics.csv"
        )
        names = [row["class name"] for row in read_csv(table)]
        labels = (
            np.unique(self.neighbours["disjoint"].query_labels).tolist()
            if disjoint
            else range(len(names))
        )
        return dict(zip(labels, names, strict=True))

    @cached_property
    def held_out(self) -> dict[str, np.ndarray]:
        """Ids of the classes that each phase but `all` never saw."""
        names = np.array(list(self.class_names.values()), object)
        one = [{"phase": "limited", "unseen_classes": self.summary["unseen_classes"]}]
        holdouts = self.summary.get("holdouts", one)
        return {
            held["phase"]: np.flatnonzero(np.isin(names, held["unseen_classes"]))
            for held in holdouts
        }

    @property
    def unseen(self) -> np.ndarray:
        """Ids of the classes that any phase never saw."""
        return np.unique(np.concatenate(list(self.held_out.values())))


def find_run(out: Path, experiment: Experiment, dataset: Dataset) -> Run | None:
    """The run of exactly this experiment in `out`, or None if there is none or it has not ended.

    Raises OtherData if it is there, finished or begun, and of other data than these, and ValueError
    if its files are missing or were changed.
    """
    folder = RunFolder(out, experiment, dataset.name)
    if not (folder.path / "experiment.json").exists() or folder.other_settings():
        return None
    folder.require_data(dataset)
    summary = folder.summary()
    return None if summary is None else Run(folder.path, experiment, summary)


class NotFinished(ValueError):
    """A run that was begun and has not ended."""


def read_folder(path: Path) -> Run:
    """The finished run in a run folder. Raises NotFinished if it has not ended, ValueError where
    files of it are missing or were changed."""
    experiment, folder = read_experiment(path)
    summary = folder.summary()
    if summary is None:
        raise NotFinished(
            f"{path} is not finished ({progress(folder)}): the command that began it goes on"
            " with it"
        )
    return Run(path, experiment, summary)


def read_experiment(path: Path) -> tuple[Experiment, RunFolder]:
    description = path / "experiment.json"
    table = read_json(description)
    try:
        experiment = load(table)
    except ValueError as error:
        raise ValueError(f"{description} can't be read: {error}") from None
    folder = RunFolder(path.parent, experiment, path.parent.name)
    folder.path = path  # wherever it was moved to
    return experiment, folder


def progress(folder: RunFolder) -> str:
    """How far a run came that has no summary. Raises ValueError where its record can't be read."""
    records = folder.records()
    if not records:
        return "stopped before its first epoch ended"
    return (
        f"stopped in phase {records[-1]['phase']} after epoch {records[-1]['epoch']} of"
        f" {folder.experiment.train.epochs}"
    )


def run_folders(path: Path) -> list[Path]:
    """`path` itself if it is a run folder, else those below it, by name."""
    if (path / "experiment.json").is_file():
        return [path]
    return [file.parent for file in whole_files(path) if file.name == "experiment.json"]
