"""The protocol `precision_drop`: a model of all classes against one that never trained on some of
them, both asked about the same images. From the neighbours of both phases to all that is reported:
numbers, tables and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dml_bench.config import Evaluate, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, holdouts, is_rotated, make_split, phases
from dml_bench.evaluation.drop import Drop
from dml_bench.evaluation.metrics import (
    by_class,
    macro,
    map_at_r,
    micro,
    precision_at_1,
    r_precision,
    vote,
)
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols.base import (
    PhaseOutput,
    Protocol,
    Result,
    predictions,
    register,
)
from dml_bench.protocols.coarse_metrics import (
    coarse_groups,
    coarse_metrics,
    coarse_numbers,
    describe_coarse,
)
from dml_bench.protocols.holdout_metrics import (
    ALL,
    COMPARES,
    COST,
    GROUPS,
    LIMITED,
    NO_DROP_BECAUSE,
    OTHER_CLASSES,
    SAME_CLASSES,
    compares,
    cost_metrics,
    costs_of_holdouts,
    drop_name,
    drops_of,
    logits_accuracy,
    logits_scores,
    mean_drops,
    mean_losses,
    p_at_1_metrics,
)
from dml_bench.protocols.holdout_outcome import (
    cost_table,
    holdouts_table,
    labelled,
    largest_drops,
    points,
    precision_table,
    untrained_table,
)
from dml_bench.protocols.holdouts import Holdouts
from dml_bench.protocols.metric import Column, Metric, by_name, columns_of, measured, value_at
from dml_bench.registry import losses
from dml_bench.system.tables import OutcomeTable, ResultTable, number

__all__ = ["ClassHoldout", "HoldoutResult"]


@dataclass(frozen=True, slots=True)
class PredictedClasses:
    """What the loss's own logits say of the queries."""

    predicted: np.ndarray
    """(query) the likeliest class id."""


class HoldoutResult(Result):
    """All names are those of the study."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        neighbours: dict[str, Neighbours],
        predicted: dict[str, np.ndarray],
    ):
        """`predicted` holds, by phase, the class ids that the loss's own logits choose for the
        queries, where it has logits."""
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.held_out = {
            phase.name: np.array(phase.held_out_classes)
            for phase in phases
            if phase.held_out_classes
        }
        self.neighbours = neighbours
        self.predicted = predicted

    @cached_property
    def holdouts(self) -> Holdouts:
        """The hold-outs beside the queries."""
        return Holdouts(self.neighbours, self.held_out)

    @cached_property
    def drops(self) -> dict[str, Drop]:
        """By the phase that held classes out."""
        return drops_of(self, self.dataset.num_classes)

    @cached_property
    def coarse_groups(self) -> np.ndarray | None:
        """(classes) the number of the coarse class of each class; None where there are none."""
        return coarse_groups(self.dataset)

    def logits(self, phase: str) -> PredictedClasses:
        """Where the loss has logits."""
        return PredictedClasses(self.predicted[phase])

    def summary(self) -> dict[str, Any]:
        phases = {name: self._phase(name) for name in self.neighbours}
        for name, predicted in self.predicted.items():
            labels = self.neighbours[name].query_labels
            phases[name] |= logits_accuracy(predicted, labels, self.held_out.get(name, ()))
        holdouts = [self._holdout(name) for name in self.held_out]
        if self.experiment.no_drop_because:
            without = {NO_DROP_BECAUSE: self.experiment.no_drop_because}
            return {"phases": phases, **without, "holdouts": holdouts}
        return {
            "phases": phases,
            **self.scalars(),
            **self.cost(),
            COMPARES: self.compares,
            "holdouts": holdouts,
            "largest_drops": self._largest_drops(5),
        }

    def _holdout(self, name: str) -> dict[str, Any]:
        holdout: dict[str, Any] = {
            "phase": name,
            "unseen_classes": [self.dataset.class_names[label] for label in self.held_out[name]],
        }
        if not self.experiment.no_drop_because:
            holdout |= {drop_name(group): self.drops[name].mean(group) for group in GROUPS}
        return holdout

    def _largest_drops(self, count: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [
            {
                "class": self.dataset.class_names[i],
                "unseen": bool(drop.unseen[i]),
                "all": float(drop.trained_on_all[i]),
                "limited": float(drop.trained_without[i]),
                "drop": float(drop.per_class[i]),
            }
            for drop in self.drops.values()
            for i in np.flatnonzero(drop.per_class > 0)
        ]
        return sorted(rows, key=lambda row: -row["drop"])[:count]

    def scalars(self) -> dict[str, float]:
        """The drops, see `mean_drops`."""
        return mean_drops(self.drops)

    def cost(self) -> dict[str, float]:
        """The cost of being unseen, and the two parts of the drop of the seen classes: what is lost
        to images of unseen classes, and what to images of seen ones. With 95% intervals, also of
        the drops, which say nothing about other seeds."""
        numbers: dict[str, float] = {}
        for metric in cost_metrics(OTHER_CLASSES):
            if metric.place:
                continue
            of_metric = measured(metric, self)
            if metric.name != COST:
                del of_metric[metric.name]  # the mean over the hold-outs stands for it
            numbers |= of_metric
        by_holdout = list(costs_of_holdouts(self).values())
        if len(by_holdout) > 1:
            numbers[f"{COST}_between_holdouts"] = float(np.std(by_holdout, ddof=1))
        return numbers | mean_losses(self.drops)

    @property
    def compares(self) -> str:
        """With which classes the cost is estimated."""
        return compares(map(list, self.held_out.values()))

    def highlights(self) -> Mapping[str, float | str]:
        """What stands for the whole run: the cost of being unseen, the drops, and P@1 of each phase
        on the unseen, the seen and all classes."""
        highlights: dict[str, float | str]
        if self.experiment.no_drop_because:
            highlights = {NO_DROP_BECAUSE: self.experiment.no_drop_because}
        else:
            highlights = {**self.cost(), COMPARES: self.compares, **self.scalars()}
        for phase in self.neighbours:
            for name, value in self._phase(phase).items():
                if name.startswith("precision_at_1"):
                    highlights[f"{phase}_{name}"] = value
        return highlights

    def _phase(self, phase: str) -> dict[str, Any]:
        neighbours = self.neighbours[phase]
        numbers: dict[str, Any] = {}
        for suffix, queries in self.holdouts.groups(phase).items():
            part = neighbours.of(queries)
            correct = precision_at_1(part)
            numbers[f"precision_at_1_macro{suffix}"] = macro(correct, part.query_labels)
            numbers[f"precision_at_1_micro{suffix}"] = micro(correct)
            for name, metric in (("map_at_r", map_at_r), ("r_precision", r_precision)):
                values = metric(part)
                numbers[f"{name}_macro{suffix}"] = macro(values, part.query_labels)
                numbers[f"{name}_micro{suffix}"] = micro(values)
        numbers |= coarse_numbers(neighbours, self.coarse_groups)
        for name, weights in (
            ("knn_vote_accuracy", "majority"),
            ("knn_vote_accuracy_distance_weighted", "distance"),
        ):
            numbers[name] = {
                str(k): self._vote_accuracy(neighbours, k, weights)
                for k in self.experiment.evaluate.vote_k
            }
        return numbers

    @staticmethod
    def _vote_accuracy(neighbours: Neighbours, k: int, weights: str) -> float:
        elected, _ = vote(neighbours, min(k, neighbours.k), weights=weights)
        return micro((elected == neighbours.query_labels).astype(float))

    def tables(self) -> dict[str, ResultTable]:
        """The per-class tables by the study's names, for the run folder and for W&B."""
        tables = {}
        for phase, neighbours in self.neighbours.items():
            tables[f"{phase}_classes_metrics"] = self._class_metrics(phase, neighbours)
            tables[f"{phase}_classes_classification_report"] = self._classification_report(
                neighbours
            )
        for group in ("unseen", "seen"):
            tables[f"comparison_{group}_classes_metrics"] = self._comparison(group)
        return tables

    def _comparison(self, group: str) -> ResultTable:
        """Both phases side by side for the classes of a group; of several hold-outs, the mean over
        those in which the class is in it."""
        drops = list(self.drops.values())
        chosen = np.stack([drop.unseen if group == "unseen" else ~drop.unseen for drop in drops])
        without = np.stack([drop.trained_without for drop in drops])
        rows = (
            (
                self.dataset.class_names[i],
                float(drops[0].trained_on_all[i]),
                float(without[chosen[:, i], i].mean()),
            )
            for i in np.flatnonzero(chosen.any(0))
        )
        return ResultTable(
            ("class name", "P@1 trained on all classes", "P@1 trained without the unseen classes"),
            tuple(rows),
        )

    def _class_metrics(self, phase: str, neighbours: Neighbours) -> ResultTable:
        def count(images: np.ndarray) -> np.ndarray:
            return np.bincount(self.dataset.labels[images], minlength=self.dataset.num_classes)

        tests, trained = count(self.split.test), count(self.split.train)
        trained[list(self.held_out.get(phase, ()))] = 0
        precision = by_class(
            precision_at_1(neighbours), neighbours.query_labels, self.dataset.num_classes
        )
        columns = {
            "class name": self.dataset.class_names,
            "test samples": tests.tolist(),
            "training samples": trained.tolist(),
            "precision@1": precision.tolist(),
        }
        if self.dataset.coarse_classes is not None:
            columns["coarse class"] = self.dataset.coarse_classes
        return ResultTable.of_columns(columns)

    def _classification_report(self, neighbours: Neighbours) -> ResultTable:
        """scikit-learn's report with the nearest neighbour's class as the prediction; 0 where a
        measure is undefined."""
        labels, predicted = neighbours.query_labels, neighbours.labels[:, 0]
        right, support, answers = (
            np.bincount(classes, minlength=self.dataset.num_classes)
            for classes in (labels[labels == predicted], labels, predicted)
        )
        measures = {
            "precision": share(right, answers),
            "recall": share(right, support),
            "f1-score": share(2 * right, support + answers),
        }
        columns = [values.tolist() for values in (*measures.values(), support.astype(float))]
        rows = list(zip(self.dataset.class_names, *columns, strict=True))
        for name, weights in (("macro avg", None), ("weighted avg", support)):
            means = [float(np.average(values, weights=weights)) for values in measures.values()]
            rows.append((name, *means, float(support.sum())))
        return ResultTable(("class name", *measures, "support"), tuple(rows))

    def predictions(self) -> ResultTable:
        unseen = self.holdouts.unseen(ALL)
        return predictions(self.dataset, self.split, unseen, self.neighbours, self.predicted)


def share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(classes) counts -> (classes) their quotient; 0 where there are none."""
    return np.where(total > 0, part / np.maximum(total, 1), 0.0)


LOGITS_COLUMN = Column(
    "logits top-1", "logits_accuracy_macro", "phases.all.logits_accuracy_macro_known"
)
"""Of the classes that the model trained on, which is no metric: it has no value for each query."""


@register
class ClassHoldout(Protocol):
    """A model of all classes, and one for each set of classes that are held out."""

    name = "precision_drop"
    summary = "a model of all classes against one without the unseen classes, on the same queries"
    source = "this study"
    splits = ("stratified", "given", "grouped", "time")
    takes_folds = True
    has_drop = True
    main_phase = ALL
    class_table = "all_classes_metrics"
    explanation = (
        (
            "P@1 is precision at 1: the share of test images whose nearest gallery image is of"
            " their class; mean over classes. Queries and gallery hold all classes."
        ),
        (
            "All: trained on all classes. Limited: trained without the unseen classes, with the"
            " same gallery and queries."
        ),
        "Drop: P@1 all minus P@1 limited, mean over the unseen, the seen or all classes.",
        (
            "Cost of being unseen, of rotated hold-outs: P@1 on a class by the models that trained"
            " on it, minus P@1 by the one that did not."
        ),
        (
            "Cost of being unseen, of a single hold-out (other classes): the drop of the unseen"
            " classes minus that of the seen ones."
        ),
        (
            "Logits top-1: the classifier's own prediction without a gallery, trained on all"
            " classes; mean over classes. For rows without training, by class means."
        ),
    )

    def split(self, experiment: Experiment, dataset: Dataset) -> Split:
        data = experiment.data
        return make_split(
            dataset,
            method=data.split,
            test_fraction=data.test_fraction,
            valid_fraction=data.valid_fraction,
            seed=experiment.seed,
            group=data.group,
            time=data.time,
        )

    def phases(self, experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
        return phases(holdouts(experiment.unseen, dataset))

    def num_neighbours(self, evaluate: Evaluate, split: Split) -> int:
        return max(evaluate.vote_k)

    def evaluate(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        outputs: dict[str, PhaseOutput],
    ) -> HoldoutResult:
        neighbours = {phase: output.neighbours for phase, output in outputs.items()}
        predicted = {
            phase: output.predicted
            for phase, output in outputs.items()
            if output.predicted is not None
        }
        return HoldoutResult(experiment, dataset, split, phases, neighbours, predicted)

    def metrics(self, experiment: Experiment) -> dict[str, Metric]:
        compared = SAME_CLASSES if is_rotated(experiment.unseen) else OTHER_CLASSES
        named = by_name(*cost_metrics(compared), *p_at_1_metrics())
        if experiment.no_drop_because:
            named = {name: metric for name, metric in named.items() if not metric.needs_training}
        named |= by_name(*coarse_metrics(experiment, ALL))
        if losses.of(experiment.loss).facts["classifies"]:
            named |= by_name(
                Metric(
                    name="logits_accuracy",
                    head="logits micro",
                    description="top-1 of the loss's own logits (mean over images)",
                    average="micro",
                    scores=logits_scores,
                )
            )
        return named

    def columns(self, experiments: Sequence[Experiment]) -> tuple[Column, ...]:
        named: dict[str, Metric] = {}
        for experiment in experiments:
            named |= self.metrics(experiment)
        trained = [one for one in experiments if not one.no_drop_because]
        if len({is_rotated(one.unseen) for one in trained}) > 1:  # as in a sweep over hold-outs
            named |= by_name(*cost_metrics(f"{SAME_CLASSES} or {OTHER_CLASSES}"))
        return (*columns_of(named), LOGITS_COLUMN)

    def held_out(self, summary: Mapping[str, Any]) -> dict[str, list[str]]:
        # Runs of versions that knew no rotated hold-outs have no such list.
        if "holdouts" not in summary:
            return {LIMITED: summary["unseen_classes"]}
        return {holdout["phase"]: holdout["unseen_classes"] for holdout in summary["holdouts"]}

    def remarks(self, summary: Mapping[str, Any]) -> dict[str, str]:
        if NO_DROP_BECAUSE in summary:
            return {NO_DROP_BECAUSE: summary[NO_DROP_BECAUSE]}
        return {COMPARES: compares(self.held_out(summary).values())}

    def describe_phase(self, phase: str, phases: Sequence[str]) -> str:
        if phase == ALL:
            return "trained on all classes"
        several = len(phases) > 2
        return "trained without the unseen classes" + (f" ({phase})" if several else "")

    def describe_split(self, experiment: Experiment, split: Mapping[str, Any]) -> str:
        validation = f"{split['valid_images']:,} validate, " if split["valid_images"] else ""
        enrolled = "and are the gallery"
        if "gallery_images" in split:
            enrolled = f"and {split['gallery_images']:,} others are the gallery"
        return (
            f"{split['train_images']:,} images train {enrolled},"
            f" {validation}{split['test_images']:,} are queries"
            f" ({experiment.data.described_split})"
        )

    def headline(self, summary: Mapping[str, Any]) -> str:
        both = " ".join(
            f"{phase} {number(value_at(summary, f'phases.{phase}*.precision_at_1_macro'))}"
            for phase in (ALL, LIMITED)
        )
        if NO_DROP_BECAUSE in summary:
            return f"P@1 {both}, {summary[NO_DROP_BECAUSE]}"
        name = labelled("cost of being unseen", self.remarks(summary)[COMPARES])
        return f"P@1 {both}, {name} {points(summary.get(COST))} points"

    def outcome(self, summary: Mapping[str, Any]) -> list[OutcomeTable]:
        mildness = describe_coarse(ALL, summary["phases"][ALL])
        if NO_DROP_BECAUSE in summary:
            untrained = untrained_table(summary)
            return [replace(untrained, caption=untrained.caption + mildness)]
        compared = self.remarks(summary)[COMPARES]
        of_precision = precision_table if len(summary["holdouts"]) == 1 else holdouts_table
        precision = of_precision(summary)
        precision = replace(precision, caption=precision.caption + mildness)
        return [cost_table(summary, compared), precision, largest_drops(summary)]
