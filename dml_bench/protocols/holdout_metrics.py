"""What the protocol of held-out classes measures of a run, one value for each query: P@1, the
precision drop and its parts, and the cost of being unseen."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from dml_bench.evaluation.drop import Drop, drop_of, lost_to
from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.statistics import DIFFERENCE, Scores
from dml_bench.protocols.metric import MeasuredRun, Metric, scores_of_phase

__all__ = [
    "ALL",
    "COMPARES",
    "COST",
    "GROUPS",
    "LIMITED",
    "NO_DROP_BECAUSE",
    "OTHER_CLASSES",
    "SAME_CLASSES",
    "TO_SEEN",
    "TO_UNSEEN",
    "compares",
    "cost_metrics",
    "costs_of_holdouts",
    "drop_name",
    "drops_of",
    "logits_accuracy",
    "logits_scores",
    "mean_drops",
    "mean_losses",
    "p_at_1_metrics",
]

ALL, LIMITED = "all", "limited"
"""The phase that trains on all classes; the one that does not train on the unseen, or the first
part of the name of each where several hold-outs are rotated."""
GROUPS = ("unseen", "seen", "all")

COST = "cost_of_being_unseen"
TO_UNSEEN = "precision_drop_seen_to_unseen_classes"
TO_SEEN = "precision_drop_seen_to_seen_classes"
COMPARES = f"{COST}_compares"
"""The key under which a summary says which of the two estimators its cost is from."""
NO_DROP_BECAUSE = "no_drop_because"
"""The key under which the summary of a run whose features are not trained says so. It has neither
drops nor a cost of being unseen: they would be 0 whatever the features are."""
SAME_CLASSES, OTHER_CLASSES = "same classes", "other classes"


def p_at_1_metrics() -> Iterator[Metric]:
    """P@1 of both phases, on all classes or on a group of them."""
    of_all = partial(scores_of_phase, precision_at_1, ALL)
    yield Metric(
        name="test_accuracy",
        head="P@1 micro",
        description="P@1 on all classes (mean over images)",
        average="micro",
        scores=of_all,
        compared=False,
    )
    yield Metric(
        name="precision_at_1_macro",
        head="P@1",
        description="P@1 on all classes (mean over classes)",
        scores=of_all,
        column="P@1 all",
        ranked=True,
    )
    yield Metric(
        name="precision_at_1_macro_limited",
        head="P@1 limited",
        description="P@1 on all classes, trained without the unseen (mean over classes)",
        scores=partial(limited_scores, "all"),
        column="P@1 limited",
        place=f"phases.{LIMITED}*.precision_at_1_macro",
        compared=False,
        depends_on_holdouts=True,
    )
    yield Metric(
        name="precision_at_1_macro_unseen",
        head="P@1 unseen, trained",
        description="P@1 on the unseen classes, trained on all classes (mean over classes)",
        scores=unseen_scores_of_all,
        compared=False,
        depends_on_holdouts=True,
    )
    for group, classes in (
        ("seen", "the classes trained on"),
        ("unseen", "classes never trained on"),
    ):
        yield Metric(
            name=f"precision_at_1_macro_{group}_limited",
            head=f"P@1 {group}",
            description=f"P@1 on {classes}, trained without the unseen (mean over classes)",
            scores=partial(limited_scores, group),
            column="P@1 unseen" if group == "unseen" else "",
            ranked=group == "unseen",
            depends_on_holdouts=True,
        )


def cost_metrics(compared: str) -> Iterator[Metric]:
    """The headline and its parts; `compared` says with which classes the cost is estimated."""
    label = "" if compared == SAME_CLASSES else f" ({compared})"
    yield Metric(
        name=COST,
        head=f"cost of being unseen{label}",
        description=f"cost of being unseen{label}",
        within=DIFFERENCE,
        lower_is_better=True,
        scores=cost_scores,
        column=f"cost of being unseen{label}",
        ranked=True,
        depends_on_holdouts=True,
        needs_training=True,
    )
    for group in ("unseen", "seen"):
        yield Metric(
            name=drop_name(group),
            head=f"drop {group}",
            description=f"precision drop of the {group} classes",
            within=DIFFERENCE,
            lower_is_better=True,
            scores=partial(drop_scores, group),
            column=f"drop {group}",
            depends_on_holdouts=True,
            needs_training=True,
        )
    for name, group in ((TO_UNSEEN, "unseen"), (TO_SEEN, "seen")):
        yield Metric(
            name=name,
            head=f"drop seen, to {group}",
            description=f"precision of the seen classes lost to images of {group} classes",
            within=DIFFERENCE,
            lower_is_better=True,
            scores=partial(lost_scores, group),
            column=f"drop seen, to {group}",
            compared=False,
            depends_on_holdouts=True,
            needs_training=True,
        )
    yield Metric(
        name=drop_name("all"),
        head="drop all",
        description="precision drop of all classes",
        within=DIFFERENCE,
        lower_is_better=True,
        scores=partial(drop_scores, "all"),
        column="drop all",
        place=drop_name("all"),
        compared=False,
        depends_on_holdouts=True,
        needs_training=True,
    )


def drop_name(group: str) -> str:
    """As the study calls it."""
    return f"precision_drop_{group}_classes"


def logits_scores(run: MeasuredRun) -> Scores:
    """Per query: right by the logits of the model of all classes."""
    labels = run.neighbours[ALL].query_labels
    return Scores((run.logits(ALL).predicted == labels).astype(float), labels)


def logits_accuracy(
    predicted: np.ndarray, labels: np.ndarray, held_out: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """Top-1 of the loss's own logits on the queries of the classes that it knows.

    Args:
        predicted: (query) class ids that the logits choose.
        labels: (query) class ids.
        held_out: ids of the classes that it does not know.
    """
    known = ~np.isin(labels, held_out)
    correct = (predicted == labels)[known].astype(float)
    return {
        "logits_accuracy_macro_known": macro(correct, labels[known]),
        "logits_accuracy_micro_known": micro(correct),
    }


def limited_scores(group: str, run: MeasuredRun) -> Scores:
    """Per query: right by the model without the unseen classes; of several hold-outs, the share of
    those for which the query's class belongs to the group."""
    return of_group(group, run, run.holdouts.right)


def unseen_scores_of_all(run: MeasuredRun) -> Scores:
    """Per query of a class that some hold-out does not train on: right by the model that did."""
    of_all = precision_at_1(run.neighbours[ALL])
    return of_group("unseen", run, np.stack([of_all for _ in run.held_out]))


def drop_scores(group: str, run: MeasuredRun) -> Scores:
    """Per query: right by the model of all classes minus right by the one without the unseen; of
    several hold-outs, the mean over those for which the query's class belongs to the group."""
    return of_group(group, run, precision_at_1(run.neighbours[ALL]) - run.holdouts.right)


def lost_scores(group: str, run: MeasuredRun) -> Scores:
    """Per query of a seen class: the part of the drop that went to images of unseen or of seen
    classes (`evaluation.drop.lost_to`). For each query the two parts add up to the drop."""
    of_all = run.neighbours[ALL]
    lost = [
        lost_to(of_all, run.neighbours[phase], unseen) for phase, unseen in run.held_out.items()
    ]
    to_unseen = of_group("seen", run, np.stack(lost))
    return to_unseen if group == "unseen" else drop_scores("seen", run).minus(to_unseen)


def cost_scores(run: MeasuredRun) -> Scores:
    """The cost of being unseen: what P@1 a class loses because the model did not train on it, and
    not because the model trained on less.

    With several hold-outs it is estimated on the same classes. Per query of a class that some
    hold-outs left out and others did not: the share of the limited models that trained on the class
    and are right, minus the share of those that did not and are right. All of them trained on
    equally many classes. Where every class is left out once, a model that is better on all classes
    counts as much on one side as on the other.

    A single hold-out has only other classes to compare with. The cost is then the drop of the
    unseen classes minus that of the seen ones, which may be harder or easier: a class that almost
    all models get right can't lose much.

    Both count what seen classes lose to images of unseen ones as part of training on less. See
    `lost_scores` for how much that is.
    """
    right, unseen = run.holdouts.right, run.holdouts.never_trained_on
    labels = run.neighbours[ALL].query_labels
    both = unseen.any(0) & ~unseen.all(0)
    if not both.any():
        return Scores.contrast(drop_scores("unseen", run), drop_scores("seen", run))
    trained, untrained = mean_where(right, ~unseen), mean_where(right, unseen)
    return Scores(trained[both] - untrained[both], labels[both])


def costs_of_holdouts(run: MeasuredRun) -> dict[str, float]:
    """By phase, the cost of being unseen of the classes that it held out; only of several
    hold-outs, and of classes that another limited model trained on."""
    right, unseen = run.holdouts.right, run.holdouts.never_trained_on
    labels = run.neighbours[ALL].query_labels
    trained = mean_where(right, ~unseen)
    costs = {}
    for row, phase in enumerate(run.held_out):
        chosen = unseen[row] & ~unseen.all(0)
        if chosen.any():
            costs[phase] = macro((trained - right[row])[chosen], labels[chosen])
    return costs


def compares(held_out: Iterable[Collection[Hashable]]) -> str:
    """With which classes the cost of the classes of these hold-outs is estimated."""
    several = [set(classes) for classes in held_out]
    return SAME_CLASSES if set.union(*several) - set.intersection(*several) else OTHER_CLASSES


def drops_of(run: MeasuredRun, num_classes: int) -> dict[str, Drop]:
    """By the phase that held classes out; the data set has `num_classes`."""
    of_all = run.neighbours[ALL]
    return {
        phase: drop_of(of_all, run.neighbours[phase], unseen, num_classes)
        for phase, unseen in run.held_out.items()
    }


def mean_drops(drops: Mapping[str, Drop]) -> dict[str, float]:
    """The drops, as a summary has them: means over the hold-outs; of several, also what they differ
    by (standard deviation)."""
    numbers: dict[str, float] = {}
    for group in GROUPS:
        numbers |= over_holdouts(drop_name(group), [drop.mean(group) for drop in drops.values()])
    return numbers


def mean_losses(drops: Mapping[str, Drop]) -> dict[str, float]:
    """The same of the two parts of the drop of the seen classes: what is lost to images of unseen
    classes, and what to images of seen ones."""
    to_unseen = [drop.mean_to_unseen() for drop in drops.values()]
    to_seen = [drop.mean("seen") - drop.mean_to_unseen() for drop in drops.values()]
    return over_holdouts(TO_UNSEEN, to_unseen) | over_holdouts(TO_SEEN, to_seen)


def over_holdouts(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean over the hold-outs; of several, also their standard deviation."""
    numbers = {name: float(np.mean(values))}
    if len(values) > 1:
        numbers[f"{name}_between_holdouts"] = float(np.std(values, ddof=1))
    return numbers


def mean_where(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(hold-outs, query) -> (query) the mean over the hold-outs that are chosen for the query; nan
    where none is."""
    count = chosen.sum(0)
    means = np.full(len(count), np.nan)
    np.divide((values * chosen).sum(0), count, out=means, where=count > 0)
    return means


def of_group(group: str, run: MeasuredRun, values: np.ndarray) -> Scores:
    """(hold-outs, query) -> one value per query whose class belongs to the group in some hold-out:
    the mean over those."""
    unseen = run.holdouts.never_trained_on
    belongs = {"unseen": unseen, "seen": ~unseen, "all": np.ones_like(unseen)}[group]
    chosen = belongs.any(0)
    labels = run.neighbours[ALL].query_labels
    return Scores(mean_where(values, belongs)[chosen], labels[chosen])
