"""The scores of maps as a table: by method and network, with intervals over classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.explain.scoring import SCORES
from dml_bench.system.files import write_csv
from dml_bench.system.markdown import markdown_row

__all__ = ["MapScores", "ScoreRow", "lines", "markdown", "write_lines"]

RANGES = {"insertion": (-np.inf, np.inf), "deletion": (-np.inf, np.inf), "sanity": (-1.0, 1.0)}
LIMITS = (0.0, 1.0)
"""Of all other scores."""


@dataclass(frozen=True)
class MapScores:
    """Scores of the maps of some queries."""

    labels: np.ndarray
    """(query) class ids."""
    unseen: np.ndarray
    """Ids of the classes that a phase held out."""
    values: dict[tuple[str, str, str], np.ndarray]
    """(query) values by score, method and model; nan where a score is not defined."""

    def of(self, score: str, method: str, model: str, classes: str) -> Scores | None:
        """The defined values of the queries of `all`, `seen` or `unseen` classes; None where there
        are none."""
        if (score, method, model) not in self.values:
            return None
        held_out = np.isin(self.labels, self.unseen)
        chosen = {"all": np.ones(len(self.labels), bool), "seen": ~held_out, "unseen": held_out}[
            classes
        ]
        found = Scores(self.values[score, method, model][chosen], self.labels[chosen])
        return found if np.isfinite(found.values).any() else None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One number of the table: a model's mean, or the mean difference of two on the same
    queries."""

    score: str
    method: str
    model: str
    """`all`, or `all - random`."""
    classes: str
    mean: Interval
    queries: int


def lines(measured: MapScores, models: Sequence[str]) -> list[ScoreRow]:
    """Means of each model, and differences of each trained one from the one with random weights and
    of the first from the others."""
    keys = dict.fromkeys((score, method) for score, method, _ in measured.values)
    pairs = [
        (one, other)
        for one in models
        for other in models
        if one != other and (other == "random" or one == models[0])
    ]
    found: list[ScoreRow] = []
    for score, method in keys:
        for classes in ("all", "seen", "unseen"):
            by_model = {model: measured.of(score, method, model, classes) for model in models}
            found += [
                line(score, method, model, classes, scores)
                for model, scores in by_model.items()
                if scores
            ]
            for one, other in pairs:
                first, second = by_model[one], by_model[other]
                if (
                    first
                    and second
                    and (difference := first.minus(second))
                    and np.isfinite(difference.values).any()
                ):
                    found.append(line(score, method, f"{one} - {other}", classes, difference))
    return found


def line(score: str, method: str, model: str, classes: str, scores: Scores) -> ScoreRow:
    low, high = RANGES.get(score, LIMITS)
    within = (low - high, high - low) if " - " in model else (low, high)
    return ScoreRow(
        score,
        method,
        model,
        classes,
        interval([scores], within=within),
        int(np.isfinite(scores.values).sum()),
    )


def write_lines(path: Path, found: Sequence[ScoreRow]) -> None:
    columns = ("score", "method", "model", "classes", "mean", "low", "high", "level", "queries")
    rows = [
        (
            each.score,
            each.method,
            each.model,
            each.classes,
            *(f"{value:.6f}" for value in numbers(each.mean)),
            each.mean.level,
            each.queries,
        )
        for each in found
    ]
    write_csv(path, columns, rows)


def numbers(mean: Interval) -> tuple[float, float, float]:
    return mean.estimate, mean.low, mean.high


def markdown(found: Sequence[ScoreRow]) -> list[str]:
    """A table for each score, over all classes: methods by models."""
    text: list[str] = []
    for score, meaning in SCORES.items():
        chosen = [each for each in found if each.score == score and each.classes == "all"]
        models = list(dict.fromkeys(each.model for each in chosen))
        cells = {(each.method, each.model): cell(each) for each in chosen}
        if not chosen:
            continue
        text += [f"## {score.capitalize()}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
        text += [markdown_row(["method", *models]), f"|---|{'--:|' * len(models)}"]
        for method in dict.fromkeys(each.method for each in chosen):
            text.append(
                markdown_row([method, *(cells.get((method, model), "") for model in models)])
            )
        text.append("")
    return text


def cell(each: ScoreRow) -> str:
    sign = "+" if " - " in each.model else ""
    mean, low, high = (f"{value:{sign}.3f}" for value in numbers(each.mean))
    return mean if np.isnan(each.mean.low) else f"{mean} ({low} to {high})"
