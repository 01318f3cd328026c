"""The image files that a finished run is of: where they lie now, and whether they are still those
that it saw."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment
from dml_bench.data.datasets import open_dataset
from dml_bench.data.digests import digest_of, digests_of
from dml_bench.data.identity import differing_data
from dml_bench.registry import datasets
from dml_bench.system.files import read_csv

__all__ = ["ImageFiles"]

LOOKED_AT = 8
"""Images, evenly spaced, by which a folder is known for the run's own; each one that is used is
looked at then."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of one run, by their index in its data set."""

    folder: Path
    """Of the run, wherever it was moved to."""
    experiment: Experiment
    summary: dict[str, Any]
    data_dir: Path | None = None
    """Where a person says that they lie."""

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """split.csv: `path` relative to the data set's folder, `class`, `part`, and, of newer runs,
        `sha256`."""
        return read_csv(self.folder / "split.csv")

    @property
    def recorded_root(self) -> Path:
        """Where the run found them, by which its galleries name them; not necessarily where they
        lie."""
        return Path(self.summary["dataset"]["root"])

    def recorded(self, image: int) -> str:
        return str(self.recorded_root / self.rows[image]["path"])

    @cached_property
    def root(self) -> Path:
        """The folder in which they lie: the one that a person names, or the recorded one, or what
        lies at its place as seen from the run folder, if both were moved together. Raises
        ValueError where none of these holds the run's images."""
        places = self.places()
        found = [place for place in places if self.is_here(place)]
        if found:
            self.require_old_data(found[0])
            return found[0]
        changed = [
            place
            for place in places
            if any((place / self.rows[image]["path"]).is_file() for image in self.sample())
        ]
        if changed:
            raise ValueError(
                f"{changed[0]} holds other images than {self.folder} is of: give their own folder"
                " with --data-dir DIR"
            )
        raise ValueError(
            f"the images of {self.folder} are not in {' nor in '.join(map(str, places))}: say where"
            " with --data-dir DIR"
        )

    def require(self) -> None:
        """Raises ValueError where they are not to be found; what would take long is then not
        begun."""
        assert self.root

    def places(self) -> list[Path]:
        """Where they may lie, each once."""
        if self.data_dir is not None:
            return [
                self.data_dir,
                self.data_dir / self.recorded_root.name,
            ]  # as CUB is found in the folder above its own
        from_run = self.summary["dataset"].get("root_from_run")
        return list(
            dict.fromkeys(
                [
                    self.recorded_root,
                    *([(self.folder.resolve() / from_run).resolve()] if from_run else []),
                ]
            )
        )

    def sample(self) -> list[int]:
        count = len(self.rows)
        return np.unique(
            np.linspace(0, count - 1, min(LOOKED_AT, count)).round().astype(int)
        ).tolist()

    def is_here(self, root: Path) -> bool:
        return any(self.unchanged(image, root) for image in self.sample())

    def require_old_data(self, root: Path) -> None:
        """Raises ValueError where a person names other data than those of a run that kept no digest
        of each image."""
        if (
            self.data_dir is None
            or self.rows[0].get("sha256")
            or not datasets[self.experiment.data.dataset.name].facts["needs_data_dir"]
        ):
            return
        dataset = replace(open_dataset(self.experiment.data.dataset, root, root), cache_dir=None)
        if other := differing_data(self.summary, self.experiment, dataset):
            raise ValueError(
                f"{self.folder} is of {other}: give their own folder with --data-dir DIR"
            )

    def unchanged(self, image: int, root: Path | None = None) -> bool:
        """Whether the image is there with the bytes that the run saw; of a run that kept no
        digests, whether it is there."""
        file = (root or self.root) / self.rows[image]["path"]
        wanted = self.rows[image].get("sha256")
        return digest_of(file) == wanted if wanted else file.is_file()

    @cached_property
    def known_root(self) -> Path:
        """Where they lie, or, if none is to be found, where they lay. Raises ValueError where a
        person names a folder that is not theirs."""
        try:
            return self.root
        except ValueError:
            if self.data_dir is not None:
                raise
            return self.recorded_root

    def located(self, recorded: str) -> Path:
        """Where an image lies, by the path that galleries have of it."""
        file = Path(recorded)
        return (
            self.known_root / file.relative_to(self.recorded_root)
            if file.is_relative_to(self.recorded_root)
            else file
        )

    @cached_property
    def boxes(self) -> dict[str, np.ndarray]:
        """What the run cut its images to, by path; empty where it took whole images."""
        if not self.experiment.data.dataset.options.get("crop_to_box", False):
            return {}
        dataset = open_dataset(self.experiment.data.dataset, self.root, self.root)
        assert dataset.boxes is not None
        return dict(zip(dataset.paths, dataset.boxes, strict=True))

    def file(self, image: int) -> Path:
        """The file of an image. Raises ValueError where it is gone, or another than the run saw."""
        file = self.root / self.rows[image]["path"]
        if not self.unchanged(image):
            what = "was changed after" if file.is_file() else "is gone since"
            raise ValueError(
                f"{file} {what} {self.folder} was run: put it back, or give the folder of its"
                " images with --data-dir DIR"
            )
        return file

    def changed(self, cache_dir: Path) -> list[str]:
        """Paths of images that are gone or are others than the run saw; digests are remembered in
        `cache_dir`."""
        there = [row for row in self.rows if (self.root / row["path"]).is_file()]
        now = dict(
            zip(
                (row["path"] for row in there),
                digests_of(self.root, [row["path"] for row in there], cache_dir),
                strict=True,
            )
        )
        return [
            row["path"]
            for row in self.rows
            if row["path"] not in now or now[row["path"]] != row.get("sha256", now[row["path"]])
        ]
