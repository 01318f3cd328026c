"""When a P@1 says nothing: all embeddings are one point, or images of several classes are exactly
as near."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dml_bench.evaluation.metrics import decided_by_order
from dml_bench.evaluation.search import Neighbours

__all__ = [
    "describe_doubts",
    "describe_together",
    "describe_vectors",
    "doubts",
    "is_no_result",
    "widest_angle",
]

ONE_POINT_DEGREES = 2.0
"""Embeddings all this near their mean are nearly one point; those of trained networks are tens of
degrees wide."""
FEW_TIES = 0.001
"""Part of the queries up to which ties are not worth a word."""
MANY_TIES = 0.01
"""From so many on, what a run reaches is no result of its training."""
DECIDED_BY_ORDER = (
    ", images of several classes are equally near; the order of the gallery decides their P@1"
)


def widest_angle(embeddings: np.ndarray) -> float:
    """Degrees between the mean of (images, dim) unit vectors and the one furthest from it."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length < 0.5:
        return 180.0
    # by the distance of the unit vectors: the arccosine of what is nearly 1 has no digits
    furthest = np.linalg.norm(embeddings - (mean / length), axis=1).max()
    return float(np.degrees(2 * np.arcsin(min(furthest / 2, 1.0))))


def doubts(gallery: np.ndarray, neighbours: Neighbours) -> dict[str, dict[str, float]]:
    """As `doubts`, what a summary says of (gallery, dim) unit vectors and the queries' neighbours
    among them; empty where there is nothing to doubt.

    `widest_angle_degrees` where the gallery is nearly one point; `queries_decided_by_order`, the
    part of the queries whose nearest images are of several classes and exactly as near, where it is
    more than a thousandth.
    """
    reasons = {}
    if (angle := widest_angle(gallery)) < ONE_POINT_DEGREES:
        reasons["widest_angle_degrees"] = angle
    if (tied := float(decided_by_order(neighbours).mean())) > FEW_TIES:
        reasons["queries_decided_by_order"] = tied
    return {"doubts": reasons} if reasons else {}


def doubts_in(summary: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each phase of a run's summary, with the reasons to doubt its P@1."""
    for phase, of_phase in summary.get("phases", {}).items():
        yield phase, of_phase.get("doubts", {})


def describe_doubts(summary: Mapping[str, Any]) -> Iterator[str]:
    """A line for each doubt in the summary of a run."""
    for phase, reasons in doubts_in(summary):
        yield from describe_phase(phase, reasons)


def describe_together(summaries: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """The same of several runs by their seeds, with one line for all ties."""
    most_tied = 0.0
    for seed, summary in summaries.items():
        for phase, reasons in doubts_in(summary):
            others = dict(reasons)
            most_tied = max(most_tied, others.pop("queries_decided_by_order", 0.0))
            for line in describe_phase(phase, others):
                yield f"seed {seed}: {line}"
    if most_tied:
        yield f"for up to {most_tied:.1%} of the queries{DECIDED_BY_ORDER}"


def is_no_result(summary: Mapping[str, Any]) -> bool:
    """Whether the P@1 of some phase says nothing of the training: the embeddings are one point, or
    the order of the gallery decides more than a hundredth of it."""
    return any(
        "widest_angle_degrees" in reasons
        or reasons.get("queries_decided_by_order", 0.0) > MANY_TIES
        for _, reasons in doubts_in(summary)
    )


def describe_phase(phase: str, reasons: dict[str, float]) -> Iterator[str]:
    """A line for each reason to doubt the P@1 of one phase."""
    return describe_vectors(f"phase {phase}", reasons, "try a smaller optimizer.lr")


def describe_vectors(of: str, reasons: Mapping[str, float], remedy: str) -> Iterator[str]:
    """A line for each reason to doubt the P@1 of embeddings, with the remedy where they are one
    point."""
    # An angle of 0 is the surest reason of all, so what counts is whether there is one.
    if (angle := reasons.get("widest_angle_degrees")) is not None:
        yield (
            f"{of}: all embeddings are nearly one point, within {angle:.2g} degrees of"
            f" their mean; its P@1 is no result: {remedy}"
        )
    if (tied := reasons.get("queries_decided_by_order")) is not None:
        yield f"{of}: for {tied:.1%} of the queries{DECIDED_BY_ORDER}"
