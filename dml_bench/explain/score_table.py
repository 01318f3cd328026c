"""The scores of maps as a table: by method and network, with intervals over classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.explain.scoring import SCORES, MapScores
from dml_bench.system.files import write_csv
from dml_bench.system.markdown import markdown_row

__all__ = ["ScoreRow", "score_rows", "score_tables", "write_scores"]

RANGES = {"insertion": (-np.inf, np.inf), "deletion": (-np.inf, np.inf), "sanity": (-1.0, 1.0)}
OTHER_RANGE = (0.0, 1.0)
"""The range of all other scores."""
CLASSES = ("all", "seen", "unseen")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One number of the table: a model's mean, or the mean difference of two models on the same
    queries."""

    score: str
    """The key of `SCORES`."""
    method: str
    """The name of the method, or `chance`."""
    model: str
    """A model's name, as `all`, or two of them, as `all - random`."""
    classes: str
    """The classes of the queries: `all`, `seen` or `unseen`, by the model, or by the one of two
    that held classes out."""
    mean: Interval
    """The mean over classes with its interval."""
    queries: int
    """How many queries have the score."""


def score_rows(measured: MapScores, models: Sequence[str]) -> list[ScoreRow]:
    """The mean of each model, the difference of each trained model from the one with random
    weights, and the difference of the first model from each other."""
    keys = dict.fromkeys((score, method) for score, method, _ in measured.values)
    rows: list[ScoreRow] = []
    for score, method in keys:
        for classes in CLASSES:
            rows += [
                score_row(score, method, model, classes, scores)
                for model in models
                if (scores := measured.of(score, method, model, classes))
            ]
            for one, other in compared_models(models):
                first = measured.of(score, method, one, classes, other)
                second = measured.of(score, method, other, classes, one)
                if not first or not second:
                    continue
                difference = first.minus(second)
                if difference and np.isfinite(difference.values).any():
                    rows.append(score_row(score, method, f"{one} - {other}", classes, difference))
    return rows


def compared_models(models: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of models whose difference is in the table."""
    return [
        (one, other)
        for one, other in permutations(models, 2)
        if other == "random" or one == models[0]
    ]


def score_row(score: str, method: str, model: str, classes: str, scores: Scores) -> ScoreRow:
    """The mean of some scores, or of differences, with its interval."""
    low, high = RANGES.get(score, OTHER_RANGE)
    within = (low - high, high - low) if " - " in model else (low, high)
    queries = int(np.isfinite(scores.values).sum())
    return ScoreRow(score, method, model, classes, interval([scores], within=within), queries)


def write_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write the rows as CSV."""
    columns = ("score", "method", "model", "classes", "mean", "low", "high", "level", "queries")
    lines = []
    for row in rows:
        mean = [f"{value:.6f}" for value in (row.mean.estimate, row.mean.low, row.mean.high)]
        key = (row.score, row.method, row.model, row.classes)
        lines.append((*key, *mean, row.mean.level, row.queries))
    write_csv(path, columns, lines)


def score_tables(rows: Sequence[ScoreRow]) -> list[str]:
    """Lines of Markdown: a table for each score, over all classes, of methods by models."""
    text: list[str] = []
    for score, meaning in SCORES.items():
        of_score = [row for row in rows if row.score == score and row.classes == "all"]
        if not of_score:
            continue
        models = list(dict.fromkeys(row.model for row in of_score))
        cells = {(row.method, row.model): cell(row) for row in of_score}
        text += [f"## {score.capitalize()}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
        text += [markdown_row(["method", *models]), f"|---|{'--:|' * len(models)}"]
        for method in dict.fromkeys(row.method for row in of_score):
            values = [cells.get((method, model), "") for model in models]
            text.append(markdown_row([method, *values]))
        text.append("")
    return text


def cell(row: ScoreRow) -> str:
    """A mean with its interval, as text."""
    sign = "+" if " - " in row.model else ""
    mean = f"{row.mean.estimate:{sign}.3f}"
    if np.isnan(row.mean.low):
        return mean
    return f"{mean} ({row.mean.low:{sign}.3f} to {row.mean.high:{sign}.3f})"
