"""Points of a map in colours, as Plotly's traces."""

from collections.abc import Sequence
from html import escape
from typing import Any

from dml_bench.plots.colours import BLUE, GOLD, GREEN, GREY, ORANGE, SKY, distinct

__all__ = ["NAMED", "traces"]

MOST = 20
"""The most values that have a trace and an entry of the legend each."""
NAMED = {
    "unseen": ORANGE,
    "seen": BLUE,
    "train": GREY,
    "gallery": GREY,
    "test": BLUE,
    "enrolled": GREEN,
    "True": GREEN,
    "False": ORANGE,
    "right in both": GREEN,
    "lost": ORANGE,
    "won": SKY,
    "wrong in both": GOLD,
    "None": GREY,
}
"""The colours of values that mean the same in every run."""
SYMBOLS = {"test": "diamond", "enrolled": "star"}


def traces(
    points: Sequence[Sequence[float]],
    ids: Sequence[str],
    values: Sequence[Any],
    splits: Sequence[str],
) -> list[dict[str, Any]]:
    """Points with the ids that a selection returns: a trace for each value; of many values one
    trace, each with its hue and no legend; of numbers one trace on a scale. Queries are diamonds.
    """
    kinds = sorted({str(value) for value in values})
    if any(isinstance(value, float) for value in values):
        known = [row for row, value in enumerate(values) if value is not None]
        scale = {
            "color": [values[row] for row in known],
            "colorscale": "Viridis",
            "showscale": True,
        }
        return [
            trace(
                "value", known, points, ids, splits, [f"{values[row]:.3g}" for row in known], scale
            )
        ]
    colours = {
        kind: NAMED.get(kind, colour)
        for kind, colour in zip(kinds, distinct(len(kinds)), strict=True)
    }
    rows: dict[str, list[int]] = {kind: [] for kind in kinds}
    for row, value in enumerate(values):
        rows[str(value)].append(row)
    if len(kinds) > MOST:
        every = [row for kind in kinds for row in rows[kind]]
        names = [str(values[row]) for row in every]
        return [
            {
                **trace(
                    "classes",
                    every,
                    points,
                    ids,
                    splits,
                    names,
                    {"color": [colours[name] for name in names]},
                ),
                "showlegend": False,
            }
        ]
    return [
        trace(
            kind,
            rows[kind],
            points,
            ids,
            splits,
            [kind] * len(rows[kind]),
            {"color": colours[kind]},
        )
        for kind in kinds
    ]


def trace(
    name: str,
    rows: Sequence[int],
    points: Sequence[Sequence[float]],
    ids: Sequence[str],
    splits: Sequence[str],
    texts: Sequence[str],
    marker: dict[str, Any],
) -> dict[str, Any]:
    """Plotly reads some HTML in names and texts."""
    return {
        "type": "scattergl",
        "mode": "markers",
        "name": escape(name),
        "x": [float(points[row][0]) for row in rows],
        "y": [float(points[row][1]) for row in rows],
        "ids": [ids[row] for row in rows],
        "text": [escape(f"{text} ({splits[row]})") for text, row in zip(texts, rows, strict=True)],
        "hoverinfo": "text",
        "marker": {
            "size": 6,
            "symbol": [SYMBOLS.get(splits[row], "circle") for row in rows],
            **marker,
        },
    }
