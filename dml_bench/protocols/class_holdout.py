"""From the neighbours of both phases to everything that is reported: numbers, tables and per-query
predictions."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split
from dml_bench.evaluation.drop import Drop, precision_drop
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
from dml_bench.system.files import write_csv
from dml_bench.tracking.wandb_mirror import Table

__all__ = ["HoldoutResult", "predictions"]

GROUPS = ("unseen", "seen", "all")


class HoldoutResult:
    """What an experiment found out. All names are those of the study."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        found: dict[str, Neighbours],
        classified: dict[str, np.ndarray],
    ):
        """`classified` holds, by phase, the class ids that the loss's own logits choose for the
        queries, where it has logits."""
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.held_out = {
            phase.name: phase.held_out_classes for phase in phases if phase.held_out_classes
        }
        self.found = found
        self.classified = classified

    @cached_property
    def drops(self) -> dict[str, Drop]:
        """By the phase that held classes out."""
        everything = self.found["all"]
        return {
            name: precision_drop(everything, self.found[name], unseen, self.dataset.num_classes)
            for name, unseen in self.held_out.items()
        }

    @cached_property
    def ever_unseen(self) -> tuple[int, ...]:
        return tuple(sorted({label for unseen in self.held_out.values() for label in unseen}))

    def unseen_by(self, phase: str) -> tuple[int, ...]:
        """What counts as unseen in the numbers of a phase: for `all`, the classes that any other
        phase held out."""
        return self.held_out.get(phase, self.ever_unseen)

    def summary(self) -> dict[str, Any]:
        return {
            "phases": {
                name: self._phase(name) | self._logits_accuracy(name) for name in self.found
            },
            **self.scalars(),
            "holdouts": [self._holdout(name) for name in self.held_out],
            "largest_drops": self._largest_drops(5),
        }

    def _holdout(self, name: str) -> dict[str, Any]:
        drops = {
            f"precision_drop_{group}_classes": self.drops[name].mean(group) for group in GROUPS
        }
        return {
            "phase": name,
            "unseen_classes": [self.dataset.class_names[label] for label in self.held_out[name]],
            **drops,
        }

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
        """The drops, means over the hold-outs; of several, also what they differ by (standard
        deviation)."""
        found = {}
        for group in GROUPS:
            name, means = (
                f"precision_drop_{group}_classes",
                [drop.mean(group) for drop in self.drops.values()],
            )
            found[name] = float(np.mean(means))
            if len(means) > 1:
                found[f"{name}_between_holdouts"] = float(np.std(means, ddof=1))
        return found

    def highlights(self) -> dict[str, float]:
        """What stands for the whole run: the drops, and P@1 of each phase on the unseen, the seen
        and all classes."""
        told = self.scalars()
        for phase in self.found:
            numbers = self._phase(phase)
            told |= {
                f"{phase}_{name}": value
                for name, value in numbers.items()
                if name.startswith("precision_at_1")
            }
        return told

    def _phase(self, phase: str) -> dict[str, Any]:
        neighbours = self.found[phase]
        is_unseen = np.isin(neighbours.query_labels, self.unseen_by(phase))
        numbers: dict[str, Any] = {}
        for suffix, queries in (
            ("", np.ones_like(is_unseen)),
            ("_seen", ~is_unseen),
            ("_unseen", is_unseen),
        ):
            part = neighbours.of(queries)
            correct = precision_at_1(part)
            numbers[f"precision_at_1_macro{suffix}"] = macro(correct, part.query_labels)
            numbers[f"precision_at_1_micro{suffix}"] = micro(correct)
            for name, metric in (("map_at_r", map_at_r), ("r_precision", r_precision)):
                values = metric(part)
                numbers[f"{name}_macro{suffix}"] = macro(values, part.query_labels)
                numbers[f"{name}_micro{suffix}"] = micro(values)
        for name, weights in (
            ("knn_vote_accuracy", "majority"),
            ("knn_vote_accuracy_distance_weighted", "distance"),
        ):
            numbers[name] = {
                str(k): self._vote_accuracy(neighbours, k, weights)
                for k in self.experiment.evaluate.vote_k
            }
        return numbers

    def _logits_accuracy(self, phase: str) -> dict[str, float]:
        """Top-1 of the loss's own logits on the queries of the classes that it knows."""
        if phase not in self.classified:
            return {}
        labels = self.found[phase].query_labels
        known = ~np.isin(labels, self.held_out.get(phase, ()))
        correct = (self.classified[phase] == labels)[known].astype(float)
        return {
            "logits_accuracy_macro_known": macro(correct, labels[known]),
            "logits_accuracy_micro_known": micro(correct),
        }

    @staticmethod
    def _vote_accuracy(neighbours: Neighbours, k: int, weights: str) -> float:
        elected, _ = vote(neighbours, min(k, neighbours.k), weights=weights)
        return micro((elected == neighbours.query_labels).astype(float))

    def tables(self) -> dict[str, Table]:
        """The per-class tables by the study's names, for the run folder and for W&B."""
        tables = {}
        for phase, neighbours in self.found.items():
            tables[f"{phase}_classes_metrics"] = self._class_metrics(phase, neighbours)
            tables[f"{phase}_classes_classification_report"] = self._classification_report(
                neighbours
            )
        for group in ("unseen", "seen"):
            tables[f"comparison_{group}_classes_metrics"] = self._comparison(group)
        return tables

    def _comparison(self, group: str) -> Table:
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
        return Table(
            ("class name", "P@1 trained on all classes", "P@1 trained without the unseen classes"),
            tuple(rows),
        )

    def _class_metrics(self, phase: str, neighbours: Neighbours) -> Table:
        def count(images: np.ndarray) -> np.ndarray:
            return np.bincount(self.dataset.labels[images], minlength=self.dataset.num_classes)

        tests, trained = count(self.split.test), count(self.split.train)
        trained[list(self.held_out.get(phase, ()))] = 0
        precision = by_class(
            precision_at_1(neighbours), neighbours.query_labels, self.dataset.num_classes
        )
        rows = zip(
            self.dataset.class_names,
            tests.tolist(),
            trained.tolist(),
            precision.tolist(),
            strict=True,
        )
        return Table(("class name", "test samples", "training samples", "precision@1"), tuple(rows))

    def _classification_report(self, neighbours: Neighbours) -> Table:
        """scikit-learn's report with the nearest neighbour's class as the prediction."""
        from sklearn.metrics import classification_report

        names = self.dataset.class_names
        report = classification_report(
            neighbours.query_labels,
            neighbours.labels[:, 0],
            labels=range(len(names)),
            output_dict=True,
            zero_division=0,
        )
        measures = ("precision", "recall", "f1-score", "support")
        means = [name for name in report if name.endswith(" avg")]
        named = [(name, report[str(label)]) for label, name in enumerate(names)] + [
            (name, report[name]) for name in means
        ]
        rows = [(name, *(float(row[measure]) for measure in measures)) for name, row in named]
        return Table(("class name", *measures), tuple(rows))

    def predictions(self) -> Table:
        labels = self.found["all"].query_labels
        return predictions(
            self.dataset, self.split, np.isin(labels, self.ever_unseen), self.found, self.classified
        )

    def write(self, folder: Path) -> None:
        for name, table in {**self.tables(), "predictions": self.predictions()}.items():
            write_csv(folder / f"{name}.csv", table.columns, table.rows)


def predictions(
    dataset: Dataset,
    split: Split,
    unseen: np.ndarray,
    found: dict[str, Neighbours],
    classified: dict[str, np.ndarray] | None = None,
) -> Table:
    """One row per query: the nearest image, its class and similarity, the vote of 10, and what the
    logits say, by each phase's model."""
    names, paths = np.array(dataset.class_names, object), np.array(dataset.paths, object)
    labels = dataset.labels[split.test]
    columns: dict[str, Any] = {"query": paths[split.test], "class": names[labels], "unseen": unseen}
    for phase, neighbours in found.items():
        nearest = neighbours.indices[:, 0]
        elected, share = vote(neighbours, min(10, neighbours.k))
        columns |= {
            f"{phase}_nearest": paths[split.gallery[nearest]],
            f"{phase}_predicted": names[neighbours.labels[:, 0]],
            f"{phase}_similarity": neighbours.similarities[:, 0].astype(float).round(6),
            f"{phase}_correct": neighbours.labels[:, 0] == labels,
            f"{phase}_vote": names[elected],
            f"{phase}_vote_share": share.round(6),
        }
        if classified and phase in classified:
            columns[f"{phase}_logits_predicted"] = names[classified[phase]]
    return Table(
        tuple(columns), tuple(zip(*(column.tolist() for column in columns.values()), strict=True))
    )
