"""By how much seeds usually differ in the experiments of one table, metric by metric: what each of
them alone, with three or five seeds, can't know."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from dml_bench.evaluation.statistics import SeedPrior, fit_difference_prior, fit_seed_prior
from dml_bench.runs.metrics import metric_of, metrics_of
from dml_bench.runs.pairing import PairingKey, pairing_key
from dml_bench.runs.run import Run

__all__ = ["SeedPriors", "digest"]

SameQueries = tuple[tuple[PairingKey, ...], tuple[tuple[str, tuple[int, ...]], ...]]
"""The seeds with their queries, and the classes that each phase held out."""


class SeedPriors:
    """The priors of one table. Each is fitted when it is first asked for."""

    def __init__(self, rows: Sequence[Sequence[Run]]):
        """`rows` are the finished runs of each experiment, one for each seed; those of a single
        seed say nothing."""
        self.rows = [runs for runs in rows if len(runs) > 1]
        self._fitted: dict[tuple[str, bool], SeedPrior | None] = {}

    def of(self, metric: str) -> SeedPrior | None:
        """For the mean of an experiment; None where too few have the metric."""
        return self._fit(metric, differences=False)

    def of_differences(self, metric: str) -> SeedPrior | None:
        """For the difference of two experiments on the same queries; None where too few with the
        same seeds have the metric."""
        return self._fit(metric, differences=True)

    def _fit(self, metric: str, *, differences: bool) -> SeedPrior | None:
        key = metric, differences
        if key not in self._fitted:
            rows = [runs for runs in self.rows if metric in metrics_of(runs[0].experiment)]
            if differences:
                rows = largest_comparable(rows)
            self._fitted[key] = fit(rows, metric, differences) if rows else None
        return self._fitted[key]

    def record(self) -> dict[str, Any]:
        """What was fitted so far and to which runs, for JSON."""
        fitted = []
        for (metric, differences), prior in sorted(self._fitted.items()):
            if prior is not None:
                fitted.append(
                    {
                        "metric": metric,
                        "of": "differences" if differences else "experiments",
                        "ratio": prior.ratio,
                        "degrees_of_freedom": prior.degrees_of_freedom,
                        "experiments": prior.num_rows,
                    }
                )
        members = {}
        for runs in self.rows:
            for run in runs:
                members[f"{run.experiment.name}, seed {run.seed}"] = digest(run)
        return {"fitted": fitted, "members": members}


def digest(run: Run) -> str:
    """SHA-256 of its summary, which holds the digests of its files."""
    return hashlib.sha256(json.dumps(run.summary, sort_keys=True).encode()).hexdigest()


def fit(rows: Sequence[Sequence[Run]], name: str, differences: bool) -> SeedPrior | None:
    metric = metric_of(rows[0][0].experiment, name)
    scores = [list(map(metric.scores, runs)) for runs in rows]
    fit_prior = fit_difference_prior if differences else fit_seed_prior
    return fit_prior(scores, average=metric.average)


def largest_comparable(rows: Sequence[Sequence[Run]]) -> list[Sequence[Run]]:
    """The most experiments that share seeds, queries and hold-outs."""
    alike: dict[SameQueries, list[Sequence[Run]]] = {}
    for runs in rows:
        alike.setdefault(same_queries(runs), []).append(runs)
    return max(alike.values(), key=len, default=[])


def same_queries(runs: Sequence[Run]) -> SameQueries:
    held_out = runs[0].held_out.items()
    classes = tuple((phase, tuple(np.asarray(labels).tolist())) for phase, labels in held_out)
    return tuple(map(pairing_key, runs)), classes
