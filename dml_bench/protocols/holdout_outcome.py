"""What a person sees at the end of a run with held-out classes. Precisions are proportions, and
differences of them are in points (hundredths)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dml_bench.protocols.base import describe_run
from dml_bench.protocols.holdout_metrics import (
    ALL,
    COST,
    GROUPS,
    LIMITED,
    NO_DROP_BECAUSE,
    SAME_CLASSES,
    TO_SEEN,
    TO_UNSEEN,
    drop_name,
)
from dml_bench.protocols.metric import value_at
from dml_bench.system.tables import OutcomeTable, number

__all__ = [
    "cost_table",
    "holdouts_table",
    "labelled",
    "largest_drops",
    "points",
    "precision_table",
    "untrained_table",
]

HOW_THE_COST_IS_ESTIMATED = {
    True: (
        "Cost: P@1 of the limited models that trained on a class, minus P@1 of the one that did"
        " not."
    ),
    False: (
        "Cost: the drop of the unseen classes minus that of the seen ones, which may be harder or"
        " easier. --holdouts 'random:N x R' compares the same classes."
    ),
}
"""By whether it is estimated on the same classes."""


def points(value: float | None, form: str = "+.1f") -> str:
    """A difference of two precisions, in hundredths."""
    return number(None if value is None else 100 * value, form)


def labelled(text: str, compared: str) -> str:
    """The text with a remark where the cost is not estimated on the same classes."""
    return text if compared == SAME_CLASSES else f"{text} ({compared})"


def cost_table(summary: Mapping[str, Any], compared: str) -> OutcomeTable:
    """The headline, and what it is made of."""
    num_unseen = len(summary["unseen_classes"])
    num_seen = summary["dataset"]["num_classes"] - num_unseen
    several = compared == SAME_CLASSES
    seen = "seen classes" if several else f"{num_seen} seen classes"
    names = {
        labelled("cost of being unseen", compared): COST,
        f"drop of {num_unseen} unseen classes": drop_name("unseen"),
        f"drop of {seen}": drop_name("seen"),
        "  lost to images of unseen classes": TO_UNSEEN,
        "  lost to images of seen classes": TO_SEEN,
    }
    rows = [(text, *numbers_of(summary, name)) for text, name in names.items()]
    heads = ["", "points", "95% interval"]
    if several:
        heads.append("between\nhold-outs")
    return OutcomeTable(
        title=describe_run(summary),
        heads=tuple(heads),
        rows=tuple(row[: len(heads)] for row in rows),
        caption=(
            f"{HOW_THE_COST_IS_ESTIMATED[several]} Drop: P@1 of {ALL} minus P@1 of {LIMITED}. An"
            " interval is of these networks only: other seeds may differ more."
        ),
        num_text_columns=1,
    )


def numbers_of(summary: Mapping[str, Any], name: str) -> Iterator[str]:
    """The value, its interval, and the standard deviation between hold-outs; a dash for what is not
    there."""
    yield points(summary.get(name))
    low, high = summary.get(f"{name}_low"), summary.get(f"{name}_high")
    yield "-" if low is None else f"{points(low)} to {points(high)}"
    yield points(summary.get(f"{name}_between_holdouts"), ".1f")


def precision_table(summary: Mapping[str, Any]) -> OutcomeTable:
    """P@1 of both models on the seen, the unseen and all classes."""
    means, phases = ("macro", "micro"), [summary["phases"][name] for name in (ALL, LIMITED)]
    unseen = len(summary["unseen_classes"])
    seen = summary["dataset"]["num_classes"] - unseen
    rows = []
    for group, count in (("seen", seen), ("unseen", unseen), ("all", seen + unseen)):
        suffix = "" if group == "all" else f"_{group}"
        precision = [
            number(phase[f"precision_at_1_{mean}{suffix}"]) for phase in phases for mean in means
        ]
        rows.append((f"{count} {group}", *precision))
    if all("logits_accuracy_macro_known" in phase for phase in phases):
        accuracy = [
            number(phase[f"logits_accuracy_{mean}_known"]) for phase in phases for mean in means
        ]
        rows.append(("known, by logits", *accuracy))
    return OutcomeTable(
        title="P@1",
        heads=(
            "classes",
            *(f"{phase}\n{mean}" for phase in (ALL, LIMITED) for mean in means),
        ),
        rows=tuple(rows),
        caption=(
            f"{ALL}: trained on all classes. {LIMITED}: trained without the unseen. Same queries,"
            " same gallery of all classes."
        ),
        num_text_columns=1,
    )


def untrained_table(summary: Mapping[str, Any]) -> OutcomeTable:
    """P@1 of features that no phase trained; on the unseen classes it is that of one that did not
    see them too."""
    of_all = summary["phases"][ALL]
    of_limited = "phases." + LIMITED + "*.{}"
    places = {
        "all, by nearest image": ("precision_at_1_macro", "precision_at_1_micro"),
        "unseen, by nearest image": ("precision_at_1_macro_unseen", "precision_at_1_micro_unseen"),
        "all, by last layer": ("logits_accuracy_macro_known", "logits_accuracy_micro_known"),
    }
    rows = []
    for text, names in places.items():
        rows.append((text, *(number(of_all.get(name)) for name in names)))
    known = [value_at(summary, of_limited.format(name)) for name in places["all, by last layer"]]
    rows.append((f"known to {LIMITED}, by last layer", *map(number, known)))
    reason = summary[NO_DROP_BECAUSE]
    rows.append(("cost of being unseen", reason, ""))
    return OutcomeTable(
        title=f"{describe_run(summary)}: P@1",
        heads=("classes", "macro", "micro"),
        rows=tuple(rows),
        caption=(
            "The features are the same in both phases, so nothing is lost by not training on a"
            f" class. {LAST_LAYERS[reason]}"
        ),
        num_text_columns=1,
    )


LAST_LAYERS = {
    "no training": "Last layer: the class means of the training images.",
    "features not trained": "Last layer: logistic regression, which knows its training classes.",
}
"""What answers beside the nearest image, by why there is no drop."""


def holdouts_table(summary: Mapping[str, Any]) -> OutcomeTable:
    """The drops of each hold-out, in points."""
    names = [drop_name(group) for group in GROUPS]
    rows = []
    drops = []
    for holdout in summary["holdouts"]:
        drops.append([holdout[name] for name in names])
        cells = map(points, drops[-1])
        rows.append((holdout["phase"], str(len(holdout["unseen_classes"])), *cells))
    means = map(points, np.mean(drops, axis=0))
    deviations = [points(summary[f"{name}_between_holdouts"], ".1f") for name in names]
    of_all = number(summary["phases"][ALL]["precision_at_1_macro"])
    of_unseen = number(value_at(summary, f"phases.{LIMITED}*.precision_at_1_macro_unseen"))
    return OutcomeTable(
        title="Each hold-out",
        heads=("held out", "classes", *(f"drop {group}\npoints" for group in GROUPS)),
        rows=tuple(rows),
        totals=(("mean", "", *means), ("deviation", "", *deviations)),
        caption=(
            f"P@1 macro of the model trained on all classes: {of_all}. Of the limited models on"
            f" classes that they never saw: {of_unseen}. This mean is over the hold-outs. The"
            " drops in the first table are means over classes."
        ),
        num_text_columns=1,
    )


def largest_drops(summary: Mapping[str, Any]) -> OutcomeTable:
    """The classes that lose most."""
    if not summary["largest_drops"]:
        return OutcomeTable(title="No class loses precision.")
    rows = []
    for loss in summary["largest_drops"]:
        group = "unseen" if loss["unseen"] else "seen"
        precision = [number(loss[phase]) for phase in (ALL, LIMITED)]
        rows.append((loss["class"], group, *precision, points(loss["drop"])))
    return OutcomeTable(
        title="The five classes that lose most",
        heads=("class", "", ALL, LIMITED, "drop\npoints"),
        rows=tuple(rows),
        num_text_columns=2,
    )
