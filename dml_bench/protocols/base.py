"""What a protocol is: one object that owns split, phases, evaluation, metrics, columns and words.

Nothing else in the package asks for a protocol by its name. A new one is a module beside this one,
which `dml_bench.protocols` imports, and the experiments that name it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from dml_bench import registry
from dml_bench.config import Evaluate, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split
from dml_bench.evaluation.metrics import by_class, vote
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols.metric import Column, Metric
from dml_bench.system.tables import OutcomeTable, ResultTable

__all__ = [
    "PhaseOutput",
    "Protocol",
    "Result",
    "columns_of_queried_classes",
    "describe_run",
    "phases_of",
    "predictions",
    "protocol_named",
    "protocol_of",
    "register",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseOutput:
    """What the model of one phase gave."""

    neighbours: Neighbours
    predicted: np.ndarray | None
    """(query) the class ids that the loss's own logits choose; None where it has no logits."""
    probabilities: Callable[[], np.ndarray] | None = None
    """Reads what these logits say: (query, trained classes), or (query, labels) where an image has
    several."""
    query_embeddings: Callable[[], np.ndarray]
    """Reads the (query, dim) unit vectors."""


class Result(ABC):
    """What an experiment measured, from the outputs of its phases."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What summary.json has of it."""

    @abstractmethod
    def highlights(self) -> Mapping[str, float | str]:
        """What stands for the whole run in W&B."""

    @abstractmethod
    def tables(self) -> dict[str, ResultTable]:
        """By name, for the run folder and for W&B."""

    @abstractmethod
    def predictions(self) -> ResultTable:
        """One row for each query."""


class Protocol(ABC):
    """What is trained on, what is asked, what is measured, and how that is said."""

    name: ClassVar[str]
    """As `protocol` in an experiment has it."""
    summary: ClassVar[str]
    source: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    """The values of `data.split` that it takes."""
    takes_folds: ClassVar[bool] = False
    clusters: ClassVar[bool] = False
    """Whether the test images can be clustered (`evaluate.nmi`)."""
    validates_by_class: ClassVar[bool] = False
    """Whether the validation images are of classes that are not trained on, which have no loss."""
    label_sets: ClassVar[bool] = False
    """Whether an image has several labels, in place of one class."""
    takes_unseen: ClassVar[bool] = True
    """Whether `unseen` says which classes are held out."""
    has_drop: ClassVar[bool] = False
    """Whether a model of all classes is compared with one that did not train on the unseen. Without
    that, all queries must be of classes that were never trained on."""
    measures_ranking: ClassVar[bool] = False
    """Whether its metrics need more of a query than its nearest image."""
    gallery_is_trained_on: ClassVar[bool] = True
    main_phase: ClassVar[str]
    """The phase that trained on all that it may. It answers where only one phase can."""
    class_table: ClassVar[str]
    """The table of the result that lists the classes of the queries, one a row, by their ids."""
    explanation: ClassVar[tuple[str, ...]]
    """Sentences below a table of its numbers."""

    @abstractmethod
    def split(self, experiment: Experiment, dataset: Dataset) -> Split:
        """Who trains and who asks."""

    @abstractmethod
    def phases(self, experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
        """The trainings."""

    @abstractmethod
    def num_neighbours(self, evaluate: Evaluate, split: Split) -> int:
        """How many neighbours its metrics need, besides those at R."""

    @abstractmethod
    def evaluate(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        outputs: dict[str, PhaseOutput],
    ) -> Result:
        """`outputs` are by phase, in the order of `phases`."""

    @abstractmethod
    def metrics(self, experiment: Experiment) -> dict[str, Metric]:
        """By name, what can be measured of a finished run of this experiment with an interval."""

    @abstractmethod
    def columns(self, experiments: Sequence[Experiment]) -> tuple[Column, ...]:
        """What a table shows of runs of these experiments."""

    def held_out(self, summary: Mapping[str, Any]) -> dict[str, list[str]]:
        """By phase, the names of the classes of the queries that it never saw."""
        return {self.main_phase: summary["unseen_classes"]}

    def remarks(self, summary: Mapping[str, Any]) -> dict[str, str]:
        """By name, what a reader of a run's numbers has to know, for tables of runs."""
        return {}

    def is_limited(self, phase: str) -> bool:
        """Whether the model of a phase, or of a fold of it, trained on fewer classes than that of
        `main_phase`."""
        return not phase.startswith(self.main_phase)

    @abstractmethod
    def describe_phase(self, phase: str, phases: Sequence[str]) -> str:
        """Which classes the model of a phase was trained on; `phases` are all of the run."""

    @abstractmethod
    def describe_split(self, experiment: Experiment, split: Mapping[str, Any]) -> str:
        """`split` is what the environment says of it."""

    def describe_unseen(self, experiment: Experiment) -> str:
        """The rule by which classes are unseen."""
        return experiment.unseen

    @abstractmethod
    def headline(self, summary: Mapping[str, Any]) -> str:
        """The most telling numbers of a run, in a few words."""

    @abstractmethod
    def outcome(self, summary: Mapping[str, Any]) -> list[OutcomeTable]:
        """What a person sees when a run ends."""


def register(protocol: type[Protocol]) -> type[Protocol]:
    """Decorator: enter a protocol under its name, with what a configuration has to know of it."""
    enter = registry.protocols.register(
        protocol.name,
        summary=protocol.summary,
        source=protocol.source,
        splits=protocol.splits,
        takes_folds=protocol.takes_folds,
        clusters=protocol.clusters,
        validates_by_class=protocol.validates_by_class,
        label_sets=protocol.label_sets,
        has_drop=protocol.has_drop,
    )
    enter(protocol)
    return protocol


def protocol_named(name: str) -> Protocol:
    """Raises UnknownName."""
    return cast(Protocol, registry.protocols[name].build())


def protocol_of(experiment: Experiment) -> Protocol:
    """The protocol of an experiment."""
    return protocol_named(experiment.protocol)


def phases_of(experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
    """The trainings that the experiment's protocol asks for."""
    return protocol_of(experiment).phases(experiment, dataset, split)


def describe_run(summary: Mapping[str, Any]) -> str:
    """Which run a table is of: experiment, data set, seed, and, where it is known, the kind of
    split."""
    text = f"{summary['experiment']} on {summary['dataset']['name']}, seed {summary['seed']}"
    kind = summary.get("split", {}).get("kind")
    return f"{text}, split {kind}" if kind else text


def predictions(
    dataset: Dataset,
    split: Split,
    unseen: np.ndarray,
    neighbours: Mapping[str, Neighbours],
    predicted: Mapping[str, np.ndarray],
) -> ResultTable:
    """One row per query: the nearest image, its class and similarity, the vote of 10, and what the
    logits say, by each phase's model.

    `unseen` (query) says whether the class of a query is unseen, `predicted` are the class ids that
    logits choose for the queries, by phase.
    """
    names, paths = np.array(dataset.class_names, object), np.array(dataset.paths, object)
    labels = dataset.labels[split.test]
    columns: dict[str, Any] = {"query": paths[split.test], "class": names[labels], "unseen": unseen}
    for phase, nearest in neighbours.items():
        elected, share = vote(nearest, min(10, nearest.k))
        columns |= {
            f"{phase}_nearest": paths[split.gallery[nearest.indices[:, 0]]],
            f"{phase}_predicted": names[nearest.labels[:, 0]],
            f"{phase}_similarity": nearest.similarities[:, 0].astype(float).round(6),
            f"{phase}_correct": nearest.labels[:, 0] == labels,
            f"{phase}_vote": names[elected],
            f"{phase}_vote_share": share.round(6),
        }
        if phase in predicted:
            columns[f"{phase}_logits_predicted"] = names[predicted[phase]]
    return ResultTable.of_columns({name: cells.tolist() for name, cells in columns.items()})


def columns_of_queried_classes(
    dataset: Dataset, neighbours: Neighbours, means: Mapping[str, np.ndarray]
) -> dict[str, Sequence[Any]]:
    """One cell for each class that has queries: its name, their number, and of each of `means`,
    which are (query), the mean over them."""
    labels = neighbours.query_labels
    classes = np.unique(labels)
    columns: dict[str, Sequence[Any]] = {
        "class name": [dataset.class_names[label] for label in classes],
        "test samples": np.bincount(labels)[classes].tolist(),
    }
    for name, values in means.items():
        columns[name] = by_class(values, labels, dataset.num_classes)[classes].tolist()
    if dataset.coarse_classes is not None:
        columns["coarse class"] = [dataset.coarse_classes[label] for label in classes]
    return columns
