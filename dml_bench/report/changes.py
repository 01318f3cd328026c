"""What each change does to known and to unseen classes, as sentences, table and numbers; they are
measured by `dml_bench.analysis.ablation`."""

import math
from collections.abc import Sequence

from dml_bench.analysis.ablation import METRICS, UNDETECTED, Ablation
from dml_bench.analysis.compare import Difference
from dml_bench.report.document import Cell, Column, Data, Row, Table, Tone
from dml_bench.report.format import interval_cell

__all__ = ["changes_data", "changes_table", "describe"]

HELPING = (
    "helps both",
    "helps unseen",
    "helps known",
    "helps unseen and hurts known",
    "helps known and hurts unseen",
)
HURTING = ("hurts both", "hurts known", "hurts unseen")


def changes_table(changes: Sequence[Ablation]) -> Table:
    """A row for each change."""
    columns = (
        Column("change", numeric=False),
        Column("to", numeric=False),
        Column("P@1 known"),
        Column("P@1 unseen"),
        Column("drop unseen"),
        Column("verdict", numeric=False),
    )
    return Table("What each change does", columns, tuple(map(change_row, changes)))


def change_row(change: Ablation) -> Row:
    cells = [Cell(change.changed, change.changed), Cell(change.without, change.without)]
    cells += map(difference_cell, (change.seen, change.unseen, change.drop))
    return Row((*cells, Cell(change.verdict, change.verdict, tone_of(change.verdict))))


def tone_of(verdict: str) -> Tone:
    if verdict == UNDETECTED:
        return "soft"
    if "hurts" in verdict:
        return "unsure" if "helps" in verdict else "bad"
    return "good"


def difference_cell(part: Difference) -> Cell:
    difference = part.difference
    if math.isnan(difference.estimate):
        return Cell("-")
    return Cell(interval_cell(difference, is_signed=True), difference.estimate)


def describe(changes: Sequence[Ablation]) -> list[str]:
    """Which changes do what, and how that was tested."""
    sentences = []
    for verdict in HELPING:
        names = [named(change) for change in changes if change.verdict == verdict]
        if names:
            sentences.append(f"{verdict.capitalize()} classes: {', '.join(names)}.")
    hurting = [named(change, change.verdict) for change in changes if change.verdict in HURTING]
    if hurting:
        sentences.append(f"Hurts and helps nowhere: {', '.join(hurting)}.")
    undetected = sum(change.verdict == UNDETECTED for change in changes)
    if undetected == len(changes):
        sentences.append(f"None of the {undetected} changes makes a detectable difference to P@1.")
    elif undetected:
        sentences.append(
            f"{undetected} of {len(changes)} changes make no detectable difference to P@1."
        )
    sentences += hints("known", [(change, change.seen) for change in changes])
    sentences += hints("unseen", [(change, change.unseen) for change in changes])
    return [*sentences, *how_tested(changes)]


def named(change: Ablation, verdict: str = "") -> str:
    return f"{change.changed} ({change.without}{verdict and f', {verdict}'})"


def how_tested(changes: Sequence[Ablation]) -> list[str]:
    sentences = [
        (
            "Each row compares an experiment with the one that it extends, query by query, over"
            " the seeds that both have. Brackets hold 95% intervals."
        ),
        (
            "P@1 is that of the model trained without the unseen classes, mean over classes. Of the"
            " drop, less is better."
        ),
        (
            "A verdict needs p < .05 after Holm's correction for all"
            f" {len(METRICS) * len(changes)} differences."
        ),
    ]
    if any(len(change.to) > 1 for change in changes):
        sentences.append("A change made to several experiments has a row for their mean too.")
    return sentences


def hints(group: str, parts: Sequence[tuple[Ablation, Difference]]) -> list[str]:
    """A sentence on the differences whose own interval leaves zero out though the correction does
    not; none without any."""
    better, worse = [], []
    for change, part in parts:
        name = f"{change.changed} ({change.without_in_short})"
        if part.better == -1 and part.difference.low > 0:
            better.append(name)
        if part.better == -1 and part.difference.high < 0:
            worse.append(name)
    directions = []
    if better:
        directions.append(f"better with {', '.join(better)}")
    if worse:
        directions.append(f"worse with {', '.join(worse)}")
    if not directions:
        return []
    return [
        f"Possible effects on {group} classes: {'; '.join(directions)}. Their own 95% intervals"
        " exclude zero, but the correction for all comparisons does not confirm them."
    ]


def changes_data(changes: Sequence[Ablation]) -> Data:
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
    rows = []
    for change in changes:
        for part in (change.seen, change.unseen, change.drop):
            difference = part.difference
            rows.append(
                [
                    change.name,
                    change.without,
                    part.metric,
                    len(change.seeds),
                    difference.estimate,
                    difference.low,
                    difference.high,
                    part.p,
                    part.p_holm,
                    change.verdict,
                ]
            )
    return Data("changes", heads, rows)
