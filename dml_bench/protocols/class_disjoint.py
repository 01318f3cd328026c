"""What the protocol `class_disjoint` reports: retrieval among classes that were never trained on,
as papers on metric learning do."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Split
from dml_bench.evaluation.clustering import normalized_mutual_information
from dml_bench.evaluation.metrics import (
    by_class,
    macro,
    map_at_r,
    micro,
    precision_at_1,
    r_precision,
    recall_at,
)
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols.class_holdout import predictions
from dml_bench.system.files import write_csv
from dml_bench.tracking.wandb_mirror import Table

__all__ = ["RetrievalResult"]


class RetrievalResult:
    """R@k, R-precision and MAP@R over the test images. All are means over queries, as published;
    P@1 also over classes; NMI if asked for."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        found: Neighbours,
        query: np.ndarray | None,
    ):
        """`query` are the (query, dim) unit vectors whose neighbours were found, where NMI is asked
        for."""
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.found = found
        self.query = query

    @cached_property
    def nmi(self) -> dict[str, float]:
        """Empty where it is not asked for."""
        if self.query is None:
            return {}
        return {
            "nmi": normalized_mutual_information(
                self.query, self.found.query_labels, self.experiment.seed
            )
        }

    @cached_property
    def per_query(self) -> dict[str, np.ndarray]:
        recalls = {
            f"recall_at_{k}": recall_at(self.found, min(k, self.found.k))
            for k in self.experiment.evaluate.recall_k
        }
        return recalls | {"r_precision": r_precision(self.found), "map_at_r": map_at_r(self.found)}

    def summary(self) -> dict[str, Any]:
        undefined = int(np.isnan(self.per_query["map_at_r"]).sum())
        return {
            "retrieval": self.scalars()
            | {
                "queries": len(self.found.query_labels),
                "queries_without_relevant_images": undefined,
            }
        }

    def scalars(self) -> dict[str, float]:
        at_1 = {"precision_at_1_macro": macro(precision_at_1(self.found), self.found.query_labels)}
        return {name: micro(values) for name, values in self.per_query.items()} | at_1 | self.nmi

    def highlights(self) -> dict[str, float]:
        """What stands for the whole run."""
        return self.scalars()

    def tables(self) -> dict[str, Table]:
        """P@1 and MAP@R of each class that was asked."""
        labels, classes = self.found.query_labels, np.unique(self.found.query_labels)
        precision, average = (
            by_class(values, labels, self.dataset.num_classes)[classes]
            for values in (precision_at_1(self.found), self.per_query["map_at_r"])
        )
        names = [self.dataset.class_names[label] for label in classes]
        rows = zip(
            names,
            np.bincount(labels)[classes].tolist(),
            precision.tolist(),
            average.tolist(),
            strict=True,
        )
        return {
            "test_classes_metrics": Table(
                ("class name", "test samples", "precision@1", "MAP@R"), tuple(rows)
            )
        }

    def write(self, folder: Path) -> None:
        unseen = np.ones(len(self.split.test), bool)
        told = {
            **self.tables(),
            "predictions": predictions(self.dataset, self.split, unseen, {"disjoint": self.found}),
        }
        for name, table in told.items():
            write_csv(folder / f"{name}.csv", table.columns, table.rows)
