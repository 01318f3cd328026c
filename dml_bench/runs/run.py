"""One finished run, read from its sealed folder."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dml_bench.config import Experiment, load
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.digests import digest_of, digests_of
from dml_bench.data.identity import differing_data
from dml_bench.data.images import photo_file
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols import Protocol, protocol_of
from dml_bench.protocols.coarse_metrics import COARSE_OF_OTHERS
from dml_bench.protocols.holdouts import Holdouts
from dml_bench.protocols.metric import measured
from dml_bench.registry import UnknownName, datasets, near_miss
from dml_bench.runs import layout, record_format
from dml_bench.runs.arrays import Embeddings, Logits, read_neighbours
from dml_bench.runs.folder import RunFolder, last_session, read_environment, read_json, read_records
from dml_bench.runs.plain_values import from_plain
from dml_bench.runs.schema import Environment, EpochRecord, PhaseCost, Session, Summary, costs_of
from dml_bench.system.drafts import whole_files
from dml_bench.system.files import read_csv

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ImageFiles",
    "NotFinished",
    "RecordedRun",
    "Run",
    "SplitImage",
    "digest_of_queries",
    "find_run",
    "open_run",
    "read_experiment",
    "read_folder",
    "read_record",
    "run_folders",
]

Value = TypeVar("Value")
FINE_STEPS = 63
"""The last step of a similarity in a record that does not say it."""
UNNAMED = "a class without queries"
"""Such an answer in a record of an earlier version, which lacks its name."""
LOOKED_AT = 8
"""Images, evenly spaced, by which a folder is known for the run's own; each one that is used is
looked at then."""


@dataclass(frozen=True, slots=True)
class SplitImage:
    """One image of a run's data set."""

    path: str
    """Relative to the data set's folder."""
    class_name: str
    part: str
    """`train`, `valid`, `test`, `gallery` for what is only looked up in, or `catalogue`."""
    sha256: str
    """Of the file's bytes; empty in runs of versions that kept none."""
    group: str = ""
    """The group that the split kept whole; empty where there are none, or none were recorded."""


def split_image(row: dict[str, str]) -> SplitImage:
    """Of one row of the list of images."""
    digest, group = row.get("sha256", ""), row.get("group", "")
    return SplitImage(row["path"], row["class"], row["part"], digest, group)


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, read from its sealed folder. What is read once and is small is
    kept; embeddings are read each time."""

    folder: Path
    experiment: Experiment = field(repr=False)
    summary: Summary = field(repr=False)
    data_dir: Path | None = None
    """Where its images lie now, where a person says so."""

    @property
    def seed(self) -> int:
        return self.experiment.seed

    @property
    def is_complete(self) -> bool:
        """Whether embeddings, weights and names of images are there; a record has none."""
        return True

    @property
    def metrics(self) -> dict[str, float]:
        """Each number of the summary by its name, proportions from 0 to 1; the name of a phase but
        the main one is appended (`precision_at_1_macro_limited`). Where the summary lacks what
        tables show, as that of several hold-outs does, this is measured from the neighbours of the
        queries, with intervals. Drops are then means over classes, as in tables; the summary has
        means over the hold-outs."""
        metrics: dict[str, Any] = dict(self.summary)
        metrics |= self.summary.get("retrieval", {})
        for phase, values in self.summary.get("phases", {}).items():
            suffix = "" if phase == self.protocol.main_phase else f"_{phase}"
            metrics |= {f"{name}{suffix}": value for name, value in values.items()}
        shown = [m for m in self.protocol.metrics(self.experiment).values() if m.column]
        if not all(metric.name in metrics for metric in shown):
            for metric in shown:
                metrics |= measured(metric, self)
        return {name: value for name, value in metrics.items() if isinstance(value, float)}

    @cached_property
    def environment(self) -> Environment:
        """Where, by what versions and on which images it was made."""
        return read_environment(self.folder)

    @property
    def wandb_id(self) -> str:
        """Under which W&B knows it. Raises ValueError where it was not recorded."""
        return str(read_json(self.folder / layout.ENVIRONMENT, {"wandb_id": str})["wandb_id"])

    def last_session(self, *keys: str) -> Session:
        """What the last process that worked on it said of itself: these keys at least. Raises
        ValueError where it did not."""
        return last_session(self.folder, *keys)

    @cached_property
    def records(self) -> list[EpochRecord]:
        """One for each epoch of each phase, in the order in which they happened."""
        return read_records(self.folder)

    @cached_property
    def predictions(self) -> list[dict[str, str]]:
        """One row for each query, by column."""
        return read_csv(self.folder / layout.PREDICTIONS)

    @cached_property
    def split(self) -> tuple[SplitImage, ...]:
        """The images of its data set, in the data set's order."""
        return tuple(map(split_image, read_csv(self.folder / layout.SPLIT)))

    @property
    def costs(self) -> dict[str, PhaseCost]:
        """By phase, what it took."""
        return costs_of(self.summary["cost"])

    @property
    def dataset_name(self) -> str:
        return str(self.summary["dataset"]["name"])

    @property
    def dataset_fingerprint(self) -> str:
        """Of its images and their labels."""
        return str(self.summary["dataset"]["fingerprint"])

    @property
    def split_fingerprint(self) -> str:
        return str(self.summary["split"]["fingerprint"])

    @cached_property
    def queries_digest(self) -> str:
        """A digest of the queries: runs are compared query by query only where it is the same."""
        if not (self.folder / layout.SPLIT).exists():
            return self.split_fingerprint
        return digest_of_queries(image.path for image in self.split if image.part == "test")

    @cached_property
    def images(self) -> "ImageFiles":
        """Its image files."""
        return ImageFiles(self)

    @cached_property
    def neighbours(self) -> dict[str, Neighbours]:
        """By phase, the images that each query is closest to."""
        return {
            path.parent.name: read_neighbours(path)
            for path in sorted(self.folder.glob(f"*/{layout.NEIGHBOURS}"))
        }

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases whose embeddings it kept, by name."""
        suffix = f"/{layout.EMBEDDINGS}"
        names = [name for name in self.summary["files"] if name.endswith(suffix)]
        return tuple(sorted({name.partition("/")[0] for name in names}))

    def embeddings(self, phase: str) -> Embeddings:
        """Of a phase: unit vectors and the images that they are of. Raises UnknownName where the
        run kept none of that name."""
        if not self.has_embeddings(phase):
            self.require_phase(phase, self.phases, "embeddings")
        return Embeddings(self.folder / phase / layout.EMBEDDINGS)

    def has_embeddings(self, phase: str) -> bool:
        return (self.folder / phase / layout.EMBEDDINGS).is_file()

    def logits(self, phase: str) -> Logits:
        """What the loss's own logits say of the queries, where the loss has logits. Raises
        UnknownName where the run has no such phase."""
        if not (self.folder / phase).is_dir():
            self.require_phase(phase, self.phases, "logits")
        return Logits(self.folder / phase / layout.LOGITS)

    def models(self, phase: str) -> list[str]:
        """The models that answer in a phase: the phase itself, or its folds (`all/fold-1`). Raises
        UnknownName where the run has no such phase."""
        files = list(self.summary["files"])
        if f"{phase}/{layout.WEIGHTS}" in files:
            return [phase]
        folds = layout.folds_of(phase, files)
        if not folds and not (self.folder / phase).is_dir():
            self.require_phase(phase, self.phases, "models")
        return folds

    def require_phase(self, phase: str, kept: Sequence[str], what: str) -> None:
        """Raises UnknownName where a phase, or a model of it, is none of those that were kept."""
        if phase not in kept:
            raise UnknownName(
                f"{self.folder} has no {what} of phase {phase!r}{near_miss(phase, list(kept))};"
                f" there are: {', '.join(kept) or 'none'}"
            )

    def _kept_file(self, model: str, name: str, what: str) -> Path:
        path, suffix = self.folder / model / name, f"/{name}"
        if not path.is_file():
            files = [file for file in self.summary["files"] if file.endswith(suffix)]
            self.require_phase(model, sorted(file.removesuffix(suffix) for file in files), what)
        return path

    def weights(self, model: str) -> "dict[str, Tensor]":
        """Of one of `models`. Raises UnknownName where the run kept none of that name."""
        return read_weights(self._kept_file(model, layout.WEIGHTS, "weights"))

    def objective_weights(self, model: str) -> "dict[str, Tensor]":
        """Of the loss that one of `models` was trained with. Raises UnknownName as `weights`."""
        return read_weights(self._kept_file(model, layout.OBJECTIVE, "loss"))

    def weights_digest(self, phase: str) -> str:
        """SHA-256 of a phase's weights; of several models, over theirs."""
        files = self.summary["files"]
        digests = [str(files[f"{model}/{layout.WEIGHTS}"]) for model in self.models(phase)]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def protocol(self) -> Protocol:
        return protocol_of(self.experiment)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """By class id, of the classes of the queries."""
        table = layout.table(self.folder, self.protocol.class_table)
        names = [row["class name"] for row in read_csv(table)]
        labels = np.unique(self.neighbours[self.protocol.main_phase].query_labels)
        return dict(zip(labels.tolist(), names, strict=True))

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """By name, the ids of the classes of the queries."""
        return {name: label for label, name in self.class_names.items()}

    @cached_property
    def class_names_looked_up(self) -> dict[int, str]:
        """By class id, of the classes of the queries and of the gallery, which may have others, as
        where an image has several labels."""
        names, phase = dict(self.class_names), next(iter(self.neighbours))
        images, labels = (
            self.embeddings(phase).gallery_images,
            self.neighbours[phase].gallery_labels,
        )
        for image, label in zip(images.tolist(), labels.tolist(), strict=True):
            names.setdefault(label, self.split[image].class_name)
        return names

    @cached_property
    def coarse_classes(self) -> dict[int, str]:
        """By class id, the coarse class of the classes of the queries; empty where the data set
        has none."""
        table = read_csv(layout.table(self.folder, self.protocol.class_table))
        coarse = [row["coarse class"] for row in table if "coarse class" in row]
        return dict(zip(self.class_names, coarse, strict=True)) if coarse else {}

    @cached_property
    def coarse_of_others(self) -> dict[int, str]:
        """By class id, the coarse class of classes of the gallery that have no queries."""
        table = layout.table(self.folder, COARSE_OF_OTHERS)
        rows = read_csv(table) if table.exists() else []
        return {int(row["class id"]): row["coarse class"] for row in rows}

    @cached_property
    def coarse_groups(self) -> np.ndarray | None:
        """(classes) the number of the coarse class of each class, -1 for a class without queries of
        a run that did not keep it; None where there are none."""
        if not self.coarse_classes:
            return None
        main = self.neighbours[self.protocol.main_phase]
        known = self.coarse_classes | self.coarse_of_others
        most = max(int(main.gallery_labels.max(initial=0)), *known)
        groups = np.full(most + 1, -1)
        groups[list(known)] = np.unique(list(known.values()), return_inverse=True)[1]
        return groups

    @cached_property
    def held_out(self) -> dict[str, np.ndarray]:
        """By phase, the ids of the classes of the queries that it did not train on."""
        labels = np.array(list(self.class_names))
        names = np.array(list(self.class_names.values()), object)
        return {
            phase: labels[np.isin(names, unseen)]
            for phase, unseen in self.protocol.held_out(self.summary).items()
        }

    @cached_property
    def holdouts(self) -> Holdouts:
        """The same beside the queries."""
        return Holdouts(self.neighbours, self.held_out)

    @property
    def unseen(self) -> np.ndarray:
        """Ids of the classes that any phase never saw."""
        return np.unique(np.concatenate(list(self.held_out.values())))


@dataclass(frozen=True)
class RecordedLogits(Logits):
    """What the loss's own logits chose; a record keeps no probabilities."""

    chosen: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """(query) the likeliest class id."""
        return self.chosen


@dataclass(frozen=True)
class RecordedRun(Run):
    """A run of which only the record is left (`record_format`): its configuration, its summary, and
    of each query the nearest class in each phase. `folder` is the JSON of the record.

    What needs more raises ValueError: image files, embeddings, weights, and more neighbours than
    the nearest.
    """

    content: record_format.Content = field(kw_only=True, repr=False)
    description: Mapping[str, Any] = field(kw_only=True, repr=False)
    """The JSON."""

    def lacking(self, what: str) -> ValueError:
        """The error that says what a record does not have."""
        return ValueError(
            f"{self.folder} is a record, which has no {what}: name the folder of a run"
        )

    @property
    def is_complete(self) -> bool:
        return False

    @cached_property
    def environment(self) -> Environment:
        return {
            "sessions": [self.description["session"]],
            "dataset": self.summary["dataset"],
            "split": self.summary["split"],
        }

    @property
    def wandb_id(self) -> str:
        raise self.lacking("W&B run")

    def last_session(self, *keys: str) -> Session:
        session: Session = self.description["session"]
        missing = [key for key in keys if key not in session]
        if missing:
            raise self.lacking(f"{missing[0]!r} in its session")
        return session

    @cached_property
    def records(self) -> list[EpochRecord]:
        records: list[EpochRecord] = self.content.facts["records"]
        return records

    @cached_property
    def predictions(self) -> list[dict[str, str]]:
        """One row for each query, without the names of images."""
        only: dict[str, str] = self.content.facts.get("answered_only", {})
        names = {int(label): name for label, name in only.items()} | self.class_names
        labels = self.neighbours[self.protocol.main_phase].query_labels
        columns = {"class": [names[label] for label in labels.tolist()]}
        columns["unseen"] = list(map(str, np.isin(labels, self.unseen).tolist()))
        for phase, neighbours in self.neighbours.items():
            nearest = neighbours.labels[:, 0]
            columns[f"{phase}_predicted"] = [
                names.get(label, UNNAMED) for label in nearest.tolist()
            ]
            columns[f"{phase}_correct"] = list(map(str, (nearest == labels).tolist()))
            similarities = neighbours.similarities[:, 0].astype(float).round(6)
            if not np.isnan(similarities).any():
                columns[f"{phase}_similarity"] = list(map(str, similarities.tolist()))
            elected = self.elected(phase).tolist()
            columns[f"{phase}_vote"] = [names.get(label, UNNAMED) for label in elected]
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @property
    def split(self) -> tuple[SplitImage, ...]:
        raise self.lacking("image files")

    @property
    def queries_digest(self) -> str:
        return str(self.content.facts["queries"])

    @cached_property
    def neighbours(self) -> dict[str, Neighbours]:
        """By phase, the nearest image of each query, as the first gallery image of its class. A
        similarity that the record lacks is NaN."""
        return {phase: self.nearest(phase) for phase in self.content.facts["similarities"]}

    @cached_property
    def gallery_labels(self) -> np.ndarray:
        """(gallery) int64 class ids, ascending; the same in all phases."""
        counts = self.content.arrays["gallery_counts"].astype(np.int64)
        return np.repeat(np.arange(len(counts)), counts)

    def nearest(self, phase: str) -> Neighbours:
        arrays, facts = self.content.arrays, self.content.facts
        counts = arrays["gallery_counts"].astype(np.int64)
        first_of_class = np.cumsum(counts) - counts
        labels = arrays["query_labels"].astype(np.int64)
        classes = record_format.decoded_classes(arrays[f"{phase}.nearest"], labels)
        similarities = np.full(len(labels), np.nan, np.float32)
        if f"{phase}.similarity" in arrays:
            similarities = record_format.decoded_similarities(
                arrays[f"{phase}.similarity"],
                facts["similarities"][phase],
                facts.get("last_step", FINE_STEPS),
            )
        at_r = arrays.get(f"{phase}.at_r")
        first_relevant = arrays.get(f"{phase}.first_relevant")
        return Neighbours(
            indices=first_of_class[classes][:, None],
            similarities=similarities[:, None],
            gallery_labels=self.gallery_labels,
            query_labels=labels,
            leaves_one_out=facts["leaves_one_out"],
            at_r=None if at_r is None else record_format.decoded_fractions(at_r),
            first_relevant=None if first_relevant is None else first_relevant.astype(np.int64),
        )

    def elected(self, phase: str) -> np.ndarray:
        """(query) the class that the ten nearest images elect."""
        self.require_phase(phase, list(self.neighbours), "answers")
        nearest = self.neighbours[phase].labels[:, 0]
        return record_format.decoded_classes(self.content.arrays[f"{phase}.elected"], nearest)

    @property
    def phases(self) -> tuple[str, ...]:
        raise self.lacking("embeddings")

    def has_diagnostic(self, name: str, kind: type[Value]) -> bool:
        """Whether it was measured, as this version of the program measures it."""
        try:
            self.diagnostic(name, kind)
        except ValueError:
            return False
        return True

    def diagnostic(self, name: str, kind: type[Value]) -> Value:
        """What was measured of embeddings and of more neighbours when the run was recorded. Raises
        ValueError where it was not, or not as this version of the program does."""
        try:
            return from_plain(kind, self.content.facts["diagnostics"][name])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self.lacking(f"{name} of this version") from None

    def embeddings(self, phase: str) -> Embeddings:
        raise self.lacking("embeddings")

    def has_embeddings(self, phase: str) -> bool:
        return False

    def logits(self, phase: str) -> Logits:
        self.require_phase(phase, list(self.neighbours), "logits")
        codes = self.content.arrays.get(f"{phase}.logits")
        if codes is None:
            raise self.lacking(f"logits of phase {phase}")
        labels = self.neighbours[phase].query_labels
        return RecordedLogits(self.folder, record_format.decoded_classes(codes, labels))

    def models(self, phase: str) -> list[str]:
        raise self.lacking("weights")

    def weights(self, model: str) -> "dict[str, Tensor]":
        raise self.lacking("weights")

    @cached_property
    def class_names(self) -> dict[int, str]:
        labels = np.unique(self.content.arrays["query_labels"]).tolist()
        return dict(zip(labels, self.content.facts["class_names"], strict=True))

    @cached_property
    def coarse_classes(self) -> dict[int, str]:
        coarse = self.content.facts.get("coarse_classes", ())
        return dict(zip(self.class_names, coarse, strict=True)) if coarse else {}

    @cached_property
    def coarse_of_others(self) -> dict[int, str]:
        kept: dict[str, str] = self.content.facts.get("coarse_of_others", {})
        return {int(label): coarse for label, coarse in kept.items()}


class ImageFiles:
    """The images of one run, by their index in its data set: where they lie now, and whether they
    are still those that it saw."""

    def __init__(self, run: Run):
        self.run = run

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """(images) relative to the data set's folder."""
        return tuple(image.path for image in self.run.split)

    @cached_property
    def labels(self) -> np.ndarray:
        """(images) class ids, -1 for a class that was never asked about."""
        ids = self.run.class_ids
        return np.array([ids.get(image.class_name, -1) for image in self.run.split], np.int64)

    @property
    def recorded_root(self) -> Path:
        """Where the run found them, by which its galleries name them; not necessarily where they
        lie."""
        return Path(self.run.summary["dataset"]["root"])

    def recorded(self, image: int) -> str:
        return str(self.recorded_root / self.paths[image])

    @cached_property
    def root(self) -> Path:
        """The folder in which they lie: the one that a person names, or the recorded one, or what
        lies at its place as seen from the run folder, if both were moved together. Raises
        ValueError where none of these holds the run's images."""
        places = self.places()
        for place in places:
            if self.is_here(place):
                self.require_old_data(place)
                return place
        sample = [self.paths[image] for image in self.sample()]
        for place in places:
            if not any(photo_file(place / path).is_file() for path in sample):
                continue
            raise ValueError(
                f"{place} holds other images than {self.run.folder} is of: give their own"
                " folder with --data-dir DIR"
            )
        raise ValueError(
            f"the images of {self.run.folder} are not in {' nor in '.join(map(str, places))}: say"
            " where with --data-dir DIR"
        )

    def require(self) -> None:
        """Raises ValueError where they are not to be found; what would take long is then not
        begun."""
        assert self.root

    def places(self) -> list[Path]:
        """Where they may lie, each once."""
        if self.run.data_dir is not None:
            return [
                self.run.data_dir,
                self.run.data_dir / self.recorded_root.name,
            ]  # as CUB is found in the folder above its own
        places = [self.recorded_root]
        from_run = self.run.summary["dataset"].get("root_from_run")
        if from_run:
            places.append((self.run.folder.resolve() / from_run).resolve())
        return list(dict.fromkeys(places))

    def sample(self) -> list[int]:
        """Some images, evenly spaced."""
        count = len(self.paths)
        evenly = np.linspace(0, count - 1, min(LOOKED_AT, count)).round().astype(int)
        return [int(image) for image in np.unique(evenly)]

    def is_here(self, root: Path) -> bool:
        return any(self.unchanged(image, root) for image in self.sample())

    def require_old_data(self, root: Path) -> None:
        """Raises ValueError where a person names other data than those of a run that kept no digest
        of each image."""
        if (
            self.run.data_dir is None
            or self.run.split[0].sha256
            or not datasets.of(self.run.experiment.data.dataset).facts["needs_data_dir"]
        ):
            return
        dataset = replace(
            open_dataset(self.run.experiment.data.dataset, root, root), cache_dir=None
        )
        if other := differing_data(self.run.summary, self.run.experiment, dataset):
            raise ValueError(
                f"{self.run.folder} is of {other}: give their own folder with --data-dir DIR"
            )

    def unchanged(self, image: int, root: Path | None = None) -> bool:
        """Whether the image is there with the bytes that the run saw; of a run that kept no
        digests, whether it is there."""
        file = (root or self.root) / self.paths[image]
        wanted = self.run.split[image].sha256
        return digest_of(file) == wanted if wanted else photo_file(file).is_file()

    @cached_property
    def known_root(self) -> Path:
        """Where they lie, or, if none is to be found, where they lay. Raises ValueError where a
        person names a folder that is not theirs."""
        try:
            return self.root
        except ValueError:
            if self.run.data_dir is not None:
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
        if not self.run.experiment.data.dataset.options.get("crop_to_box", False):
            return {}
        dataset = open_dataset(self.run.experiment.data.dataset, self.root, self.root)
        assert dataset.boxes is not None
        return dict(zip(dataset.paths, dataset.boxes, strict=True))

    def file(self, image: int) -> Path:
        """The file of an image. Raises ValueError where it is gone, or another than the run saw."""
        file = self.root / self.paths[image]
        if not self.unchanged(image):
            what = "was changed after" if photo_file(file).is_file() else "is gone since"
            raise ValueError(
                f"{file} {what} {self.run.folder} was run: put it back, or give the folder of its"
                " images with --data-dir DIR"
            )
        return file

    def changed(self, cache_dir: Path) -> list[str]:
        """Paths of images that are gone or are others than the run saw; digests are remembered in
        `cache_dir`."""
        there = [path for path in self.paths if photo_file(self.root / path).is_file()]
        now = dict(zip(there, digests_of(self.root, there, cache_dir), strict=True))
        return [
            image.path
            for image in self.run.split
            if image.path not in now or now[image.path] != (image.sha256 or now[image.path])
        ]


def digest_of_queries(paths: Iterable[str]) -> str:
    """SHA-256 of the paths of queries, in their order."""
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()


def find_run(out: Path, experiment: Experiment, dataset: Dataset) -> Run | None:
    """The run of exactly this experiment in `out`, or None if there is none or it has not ended.

    Raises OtherData if it is there, finished or begun, and of other data than these, and ValueError
    if its files are missing or were changed.
    """
    folder = RunFolder(out, experiment, dataset.name)
    if not (folder.path / layout.EXPERIMENT).exists() or folder.other_settings():
        return None
    folder.require_data(dataset)
    summary = folder.summary()
    return None if summary is None else Run(folder.path, experiment, summary)


class NotFinished(ValueError):
    """A run that was begun and has not ended."""


def read_folder(path: Path) -> Run:
    """The finished run in a run folder, or of the JSON of a record. Raises NotFinished if it has
    not ended, ValueError where files of it are missing or were changed."""
    if record_format.is_record(path):
        return read_record(path)
    experiment, folder = read_experiment(path)
    summary = folder.summary()
    if summary is None:
        raise NotFinished(
            f"{path} is not finished ({how_far(folder)}): the command that began it goes on with it"
        )
    return Run(path, experiment, summary)


def open_run(path: Path, data_dir: Path | None = None) -> Run:
    """The finished run in a folder, or the only one below an experiment's folder, or of a record;
    `data_dir` is where its images lie now.

    Raises ValueError where there is none, more than one, or one that has not ended or was changed
    since.
    """
    if record_format.is_record(path):
        return read_record(path)
    if not path.is_dir():
        raise ValueError(
            f"{path} {'is not a folder' if path.exists() else 'does not exist'}: give the folder of"
            " a finished run"
        )
    is_run = (path / layout.EXPERIMENT).exists()
    folders = [path] if is_run else layout.runs_below(path) or run_folders(path)
    if not folders:
        raise ValueError(
            f"{path} holds no run: give the folder that `dml-bench run` named, e.g."
            " runs/EXPERIMENT/DATASET/seed-42"
        )
    if len(folders) > 1:
        raise ValueError(f"{path} holds {len(folders)} runs: name one of them, e.g. {folders[0]}")
    return replace(read_folder(folders[0]), data_dir=data_dir)


def read_record(path: Path) -> RecordedRun:
    """The run that a record is of, by the JSON of the record. Raises ValueError where one of its
    two files was changed, or can't be read."""
    description = record_format.read_description(path)
    content = record_format.read_content(path, description)
    try:
        experiment = load(content.facts["experiment"])
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {error}") from None
    summary: Summary = content.facts["summary"]
    return RecordedRun(path, experiment, summary, content=content, description=description)


def read_experiment(path: Path) -> tuple[Experiment, RunFolder]:
    description = path / layout.EXPERIMENT
    table = read_json(description)
    try:
        experiment = load(table)
    except ValueError as error:
        raise ValueError(f"{description} can't be read: {error}") from None
    folder = RunFolder(path.parent, experiment, path.parent.name)
    folder.path = path  # wherever it was moved to
    return experiment, folder


def how_far(folder: RunFolder) -> str:
    """How far a run came that has no summary. Raises ValueError where its record can't be read."""
    records = folder.records()
    if not records:
        return "stopped before its first epoch ended"
    return (
        f"stopped in phase {records[-1]['phase']} after epoch {records[-1]['epoch']} of"
        f" {folder.experiment.train.epochs}"
    )


def run_folders(path: Path) -> list[Path]:
    """`path` itself if it is a run folder or a record, else those below it, by name."""
    if (path / layout.EXPERIMENT).is_file() or record_format.is_record(path):
        return [path]
    folders = []
    for file in whole_files(path):
        if file.name == layout.EXPERIMENT:
            folders.append(file.parent)
        elif record_format.is_record(file):
            folders.append(file)
    return folders


def read_weights(path: Path) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    return load_file(path)
