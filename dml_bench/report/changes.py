"""What each change does to known and to unseen classes, in words and cells; the numbers are
`dml_bench.analysis.ablation`'."""

from collections.abc import Sequence
from typing import Any

from dml_bench.analysis.ablation import METRICS, Ablation
from dml_bench.analysis.compare import Difference

__all__ = ["HEADS", "cells", "changes_csv", "words"]

HEADS = ("change", "to", "P@1 known", "P@1 unseen", "drop unseen", "beyond doubt")


def cells(effect: Ablation) -> list[str]:
    changed = (difference_cell(part) for part in (effect.seen, effect.unseen, effect.drop))
    return [effect.changed, effect.without, *changed, effect.verdict]


def difference_cell(part: Difference) -> str:
    at = part.difference
    return f"{at.estimate:+.3f} [{at.low:+.3f}, {at.high:+.3f}]"


def words(effects: Sequence[Ablation]) -> list[str]:
    """Which changes do what, and how that was tested."""
    helps = (
        "helps both",
        "helps unseen",
        "helps known",
        "helps unseen and hurts known",
        "helps known and hurts unseen",
    )
    by_verdict = {
        verdict: [
            f"{effect.changed} ({effect.without})"
            for effect in effects
            if effect.verdict == verdict
        ]
        for verdict in helps
    }
    told = [
        f"{verdict.capitalize()} classes: {', '.join(names)}."
        for verdict, names in by_verdict.items()
        if names
    ]
    hurt = [
        effect
        for effect in effects
        if effect.verdict in ("hurts both", "hurts known", "hurts unseen")
    ]
    if hurt:
        told.append(
            "Hurt, and help nobody:"
            f" {', '.join(f'{effect.changed} ({effect.without}, {effect.verdict})' for effect in hurt)}."
        )
    open_ = sum(effect.verdict == "can't be told" for effect in effects)
    if open_ == len(effects):
        told.append(
            f"What any of the {open_} changes does to P@1 can't be told beyond doubt from these"
            " runs."
        )
    elif open_:
        told.append(
            f"Of {open_} of {len(effects)} changes it can't be told from these runs whether they do"
            " anything to P@1."
        )
    hinted = [
        hints("known", [(effect, effect.seen) for effect in effects]),
        hints("unseen", [(effect, effect.unseen) for effect in effects]),
    ]
    return [
        *told,
        *filter(None, hinted),
        "Each experiment minus the one that it extends, query by query over the seeds that both"
        " have, with 95% intervals. P@1 of the model that never saw the unseen classes, mean over"
        " classes; of the drop, less is better. Beyond doubt: p < .05 after Holm's correction for"
        f" all {len(METRICS) * len(effects)} differences."
        + (
            " A change made to several experiments has a row for their mean too."
            if any(len(effect.to) > 1 for effect in effects)
            else ""
        ),
    ]


def hints(which: str, parts: Sequence[tuple[Ablation, Difference]]) -> str:
    """The differences whose own interval leaves zero out though the correction does not; empty
    without any."""
    open_ = [(effect, part.difference) for effect, part in parts if part.better == -1]
    found = {
        "better": [effect for effect, at in open_ if at.low > 0],
        "worse": [effect for effect, at in open_ if at.high < 0],
    }
    told = [
        f"{word} with"
        f" {', '.join(f'{effect.changed} ({effect.without_in_short})' for effect in named)}"
        for word, named in found.items()
        if named
    ]
    return (
        f"Hints on {which} classes, each beyond its own 95% interval but not beyond the correction:"
        f" {'; '.join(told)}."
        if told
        else ""
    )


def changes_csv(effects: Sequence[Ablation]) -> tuple[list[str], list[list[Any]]]:
    """Long form: one difference a row."""
    heads = [
        "experiment",
        "without",
        "metric",
        "seeds",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "verdict",
    ]
    rows = [
        [
            effect.name,
            effect.without,
            part.metric,
            len(effect.seeds),
            part.difference.estimate,
            part.difference.low,
            part.difference.high,
            part.p,
            part.p_holm,
            effect.verdict,
        ]
        for effect in effects
        for part in (effect.seen, effect.unseen, effect.drop)
    ]
    return heads, rows
