"""What finished runs measured: any metric by its name, per query, so that it can be averaged,
compared and given an interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dml_bench.config import Experiment
from dml_bench.evaluation import metrics
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import Average, Interval, Scores, interval
from dml_bench.registry import UnknownName, losses, near_miss
from dml_bench.runs.run import Run

__all__ = ["Metric", "difference", "measure", "metric_of", "metrics_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """How a number is read from a run."""

    head: str
    """A short name for tables."""
    words: str
    average: Average
    within: tuple[float, float]
    """The range of the mean."""
    scores: Callable[[Run], Scores]

    @property
    def of_differences(self) -> tuple[float, float]:
        """The range of the difference of two means."""
        width = self.within[1] - self.within[0]
        return -width, width


def scores_of(values: Callable[[Neighbours], np.ndarray], phase: str, run: Run) -> Scores:
    found = run.neighbours[phase]
    return Scores(values(found), found.query_labels)


def recall_scores(k: int, run: Run) -> Scores:
    return scores_of(lambda found: metrics.recall_at(found, min(k, found.k)), "disjoint", run)


def logits_scores(run: Run) -> Scores:
    labels = run.neighbours["all"].query_labels
    predicted = run.logits("all").predicted
    return Scores((predicted == labels).astype(float), labels)


def limited_scores(group: str, run: Run) -> Scores:
    """Per query: right by the model without the unseen classes; of several hold-outs, the share of
    those for which the query's class belongs to the group."""
    everything = scores_of(metrics.precision_at_1, "all", run)
    right = np.stack(
        [scores_of(metrics.precision_at_1, phase, run).values for phase in run.held_out]
    )
    return of_group(group, run, right, everything.labels)


def drop_scores(group: str, run: Run) -> Scores:
    """Per query: right by the model of all classes minus right by the one without the unseen; of
    several hold-outs, the mean over those for which the query's class belongs to the group."""
    everything = scores_of(metrics.precision_at_1, "all", run)
    lost = np.stack(
        [
            everything.minus(scores_of(metrics.precision_at_1, phase, run)).values
            for phase in run.held_out
        ]
    )
    return of_group(group, run, lost, everything.labels)


def of_group(group: str, run: Run, values: np.ndarray, labels: np.ndarray) -> Scores:
    """(hold-outs, query) -> one value per query whose class belongs to the group in some hold-out:
    the mean over those."""
    unseen = np.stack([np.isin(labels, classes) for classes in run.held_out.values()])
    belongs = {"unseen": unseen, "seen": ~unseen, "all": np.ones_like(unseen)}[group]
    asked = belongs.any(0)
    return Scores((values * belongs).sum(0)[asked] / belongs.sum(0)[asked], labels[asked])


def metrics_of(experiment: Experiment) -> dict[str, Metric]:
    """By name, what can be measured of a finished run of this experiment with an interval."""
    return (
        retrieval_metrics(experiment)
        if experiment.protocol == "class_disjoint"
        else drop_metrics(experiment)
    )


def drop_metrics(experiment: Experiment) -> dict[str, Metric]:
    p_at_1 = metrics.precision_at_1
    found = {
        "test_accuracy": share(
            "P@1 micro",
            "P@1 on all classes (mean over images)",
            partial(scores_of, p_at_1, "all"),
            "micro",
        ),
        "precision_at_1_macro": share(
            "P@1", "P@1 on all classes (mean over classes)", partial(scores_of, p_at_1, "all")
        ),
        "precision_at_1_macro_limited": share(
            "P@1 limited",
            "P@1 on all classes, trained without the unseen (mean over classes)",
            partial(limited_scores, "all"),
        ),
    }
    for group, of in (("seen", "the classes trained on"), ("unseen", "classes never trained on")):
        words = f"P@1 on {of}, trained without the unseen (mean over classes)"
        found[f"precision_at_1_macro_{group}_limited"] = share(
            f"P@1 {group}", words, partial(limited_scores, group)
        )
    for group in ("unseen", "seen", "all"):
        found[f"precision_drop_{group}_classes"] = Metric(
            head=f"drop {group}",
            words=(
                f"precision drop of the {group} classes"
                if group != "all"
                else "precision drop of all classes"
            ),
            average="macro",
            within=(-1.0, 1.0),
            scores=partial(drop_scores, group),
        )
    if losses[experiment.loss.name].facts["classifies"]:
        found["logits_accuracy"] = share(
            "logits micro",
            "top-1 of the loss's own logits (mean over images)",
            logits_scores,
            "micro",
        )
    return found


def retrieval_metrics(experiment: Experiment) -> dict[str, Metric]:
    found = {
        f"recall_at_{k}": share(f"R@{k}", f"R@{k}", partial(recall_scores, k), "micro")
        for k in experiment.evaluate.recall_k
    }
    return found | {
        "r_precision": share(
            "R-precision",
            "R-precision",
            partial(scores_of, metrics.r_precision, "disjoint"),
            "micro",
        ),
        "map_at_r": share(
            "MAP@R", "MAP@R", partial(scores_of, metrics.map_at_r, "disjoint"), "micro"
        ),
        "precision_at_1_macro": share(
            "P@1 macro",
            "P@1 (mean over classes)",
            partial(scores_of, metrics.precision_at_1, "disjoint"),
        ),
    }


def share(
    head: str, words: str, scores: Callable[[Run], Scores], average: Average = "macro"
) -> Metric:
    """A metric from 0 to 1."""
    return Metric(head=head, words=words, average=average, within=(0.0, 1.0), scores=scores)


def metric_of(experiment: Experiment, name: str) -> Metric:
    """Raises UnknownName, naming those that runs of this experiment have."""
    known = metrics_of(experiment)
    if name not in known:
        raise UnknownName(
            f"{experiment.name} has no metric {name!r}{near_miss(name, list(known))}; there are:"
            f" {', '.join(known)}"
        )
    return known[name]


def measure(runs: Sequence[Run], name: str) -> Interval:
    """A metric of one experiment over its seeds."""
    metric = metric_of(runs[0].experiment, name)
    return interval(
        [metric.scores(run) for run in runs], average=metric.average, within=metric.within
    )


def difference(runs: Sequence[Run], others: Sequence[Run], name: str) -> Interval:
    """A metric of one experiment minus that of another, query by query. Both in the same order of
    seeds, on the same splits.

    Raises ValueError where they were asked different questions.
    """
    first, second = (metric_of(some[0].experiment, name) for some in (runs, others))
    pairs = zip(runs, others, strict=True)
    return interval(
        [first.scores(a).minus(second.scores(b)) for a, b in pairs],
        average=first.average,
        within=first.of_differences,
    )
