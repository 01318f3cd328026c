"""How sure a mean over queries is: a bootstrap clustered by class, over one seed or several.

All that is compared is brought to one value per query first: precision@1 of a model; the difference
of two models on the same query; the difference of two drops. The bootstrap then resamples classes
with replacement and, in each drawn class, its queries with replacement. Taken as it is, that counts
the noise of the queries twice, for a class's mean carries it already (Davison & Hinkley 1997,
section 3.8). So class means are first drawn towards the grand mean, by as much as the noise of
their queries makes them differ (the shrinkage correction of Ng, Grieve & Carpenter 2013, The Stata
Journal 13:141). What is left, too few classes and seeds, is met by stretching the distribution
about the estimate to the standard error of `spread`, and by Student's t in place of the normal
quantile, as the expanded percentile interval does (Hesterberg 2015, The American Statistician
69:371).

Of several seeds each has its own split and its own models. Classes are drawn for all seeds
together, queries in each seed for itself, and the seeds are averaged. Two or three seeds are too
few to resample: what they differ by beyond the noise of their queries is added to the variance
instead (the variance components of a two-way table, classes by seeds), with Satterthwaite's degrees
of freedom. One seed says nothing about other seeds, and its interval is about that seed alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

__all__ = [
    "Average",
    "Interval",
    "Scores",
    "Spread",
    "estimate",
    "interval",
    "resampled_means",
    "spread",
]

Average = Literal["macro", "micro"]
"""`macro`: mean over classes of the mean over a class's queries. `micro`: mean over queries."""

CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Scores:
    """One value per query, of one seed."""

    values: np.ndarray
    """(query) float; nan where undefined."""
    labels: np.ndarray
    """(query) int64 class ids."""

    def minus(self, other: "Scores") -> "Scores":
        """The differences on the same queries. Raises ValueError where the two were asked different
        questions."""
        return Scores(self.values - self.paired(other), self.labels)

    def paired(self, other: "Scores") -> np.ndarray:
        """The other's values, query by query. Raises ValueError where the two were asked different
        questions."""
        if not np.array_equal(self.labels, other.labels):
            raise ValueError(
                "the two were evaluated on different queries: they can't be compared in pairs"
            )
        return other.values

    @staticmethod
    def mean(several: Sequence["Scores"]) -> "Scores":
        """The mean on each query. Raises ValueError where they were asked different questions."""
        first = several[0]
        return Scores(np.mean([first.paired(other) for other in several], axis=0), first.labels)

    def of_classes(self, chosen: Sequence[int] | np.ndarray) -> "Scores":
        """The queries of these classes."""
        kept = np.isin(self.labels, chosen)
        return Scores(self.values[kept], self.labels[kept])


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it would lie with other classes and queries, and with other seeds if there
    were several."""

    estimate: float
    low: float
    """nan where there is no telling: a single class, or queries that all have the same value."""
    high: float
    level: float
    resamples: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How sure an estimate is."""

    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True)
class Cells:
    """The queries of one seed by class."""

    counts: np.ndarray
    """(class) how many queries a class has."""
    means: np.ndarray
    """(class) the mean over a class's queries."""
    values: np.ndarray
    """(class, distinct) the distinct values of a class, in its last columns; zeros before them."""
    shares: np.ndarray
    """(class, distinct) how often each occurs among the class's queries; zero where `values` is
    filled up."""
    squares: float
    """Sum of squared deviations of the queries from their class's mean."""

    def weights(self, average: Average) -> np.ndarray:
        """(class) what a class counts in the mean, 1 on average."""
        return self.counts / self.counts.mean() if average == "micro" else np.ones(len(self.counts))


def interval(
    seeds: Sequence[Scores],
    *,
    average: Average = "macro",
    level: float = 0.95,
    resamples: int = 10_000,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """The mean of the scores with its interval, cut to the range `within` that the mean can take.

    Args:
        seeds: the same quantity, measured once per seed; the classes must be the same in each.
        level: wanted coverage. Measured in simulations: tests/evaluation/test_statistics.py.

    The same scores always give the same interval. Raises ValueError without scores, or where seeds
    have other classes.
    """
    from scipy import special

    mean, error = estimate(seeds, average=average), spread(seeds, average=average)
    if not error.standard_error > 0:
        return Interval(mean, np.nan, np.nan, level, resamples)
    deviations = resampled_means(seeds, average=average, resamples=resamples) - mean
    normal, student = (
        special.ndtri((1 + level) / 2),
        special.stdtrit(error.degrees_of_freedom, (1 + level) / 2),
    )
    stretch = error.standard_error / deviations.std() * student / normal
    low, high = np.clip(
        mean + stretch * np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2]), *within
    )
    return Interval(mean, float(low), float(high), level, resamples)


def estimate(seeds: Sequence[Scores], *, average: Average = "macro") -> float:
    """The mean over seeds of each seed's mean."""
    return float(
        np.mean([(cells.weights(average) * cells.means).mean() for cells in tabulate(seeds)])
    )


def spread(seeds: Sequence[Scores], *, average: Average = "macro") -> Spread:
    """The standard error of `estimate`, with classes and seeds as random effects; nan for a single
    class.

    With mean squares of the classes by seeds table, variance = (classes + seeds - rest) / (classes
    x seeds), where seeds - rest is not let below 0 nor classes below the noise of the queries, so
    that equal class means of noisy queries aren't taken for certain.
    """
    table = tabulate(seeds)
    y = centred(table, average)
    num_seeds, num_classes = y.shape
    if num_classes < 2:
        return Spread(np.nan, np.nan)
    of_classes = max(num_seeds * y.mean(0).var(ddof=1), noise_of(table, average))
    of_seeds = rest = 0.0
    if num_seeds > 1:
        of_seeds = num_classes * y.mean(1).var(ddof=1)
        residuals = y - y.mean(0) - y.mean(1)[:, None] + y.mean()
        rest = (residuals**2).sum() / ((num_seeds - 1) * (num_classes - 1))
    total, doubt, least = of_classes, of_classes**2 / (num_classes - 1), num_classes - 1
    if of_seeds > rest:
        total += of_seeds - rest
        doubt += of_seeds**2 / (num_seeds - 1) + rest**2 / ((num_seeds - 1) * (num_classes - 1))
        least = min(least, num_seeds - 1)
    degrees = max(total**2 / doubt, least) if doubt > 0 else least
    return Spread(float(np.sqrt(total / (num_seeds * num_classes))), float(degrees))


def query_noise(weights: np.ndarray, cells: Cells) -> float:
    """The same of one seed, from the variance of queries within their classes, taken as equal in
    all."""
    spare = int((cells.counts - 1).sum())
    return float(cells.squares / spare * (weights**2 / cells.counts).mean()) if spare else 0.0


def resampled_means(
    seeds: Sequence[Scores], *, average: Average = "macro", resamples: int = 10_000
) -> np.ndarray:
    """(resamples) means of the two-stage bootstrap with its shrinkage correction: classes, then
    queries within them.

    A class that was drawn m times contributes m times its number of queries, drawn with
    replacement: how often each of its distinct values comes up is one multinomial draw, so no query
    is ever gathered.
    """
    table = shrunk(tabulate(seeds), average)
    num_classes = len(table[0].counts)
    rng = np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.sha256(b"bootstrap").digest()[:16], "little"))
    )
    means = []
    for start in range(0, resamples, CHUNK):
        drawn = rng.multinomial(
            num_classes, np.full(num_classes, 1 / num_classes), size=min(CHUNK, resamples - start)
        )
        means.append(
            np.mean([resampled_mean(rng, drawn, cells, average) for cells in table], axis=0)
        )
    return np.concatenate(means) if means else np.empty(0)


def resampled_mean(
    rng: np.random.Generator, drawn: np.ndarray, cells: Cells, average: Average
) -> np.ndarray:
    """(resamples) means of one seed, where (resamples, class) `drawn` says how often each class was
    drawn."""
    occurrences = rng.multinomial(drawn * cells.counts, cells.shares)
    sums = np.einsum("bcv,cv->bc", occurrences, cells.values)
    if average == "macro":
        return (sums / cells.counts).sum(1) / drawn.sum(1)
    return sums.sum(1) / (drawn * cells.counts).sum(1)


def shrunk(table: list[Cells], average: Average) -> list[Cells]:
    """The cells with class means drawn towards the grand mean, so that what is left of their
    variance is not noise of their queries, and with deviations of queries widened by sqrt(n / (n -
    1)), as many as a class has, so that resampling gives their variance."""
    weighted = centred(table, average)
    of_classes, noise = len(table) * weighted.mean(0).var(), noise_of(table, average)
    kept = np.sqrt(max(of_classes - noise, 0.0) / of_classes) if of_classes > 0 else 0.0
    corrected = []
    for cells in table:
        mean = (cells.weights(average) * cells.means).mean()
        centres = mean + kept * (cells.means - mean)
        widened = np.sqrt(cells.counts / np.maximum(cells.counts - 1, 1))
        values = centres[:, None] + widened[:, None] * (cells.values - cells.means[:, None])
        corrected.append(replace(cells, values=values))
    return corrected


def centred(table: list[Cells], average: Average) -> np.ndarray:
    """(seed, class) what each class adds to its seed's mean: their mean over classes is the mean
    itself."""
    weights = [cells.weights(average) for cells in table]
    means = [(w * cells.means).mean() for w, cells in zip(weights, table, strict=True)]
    return np.stack(
        [
            mean + w * (cells.means - mean)
            for mean, w, cells in zip(means, weights, table, strict=True)
        ]
    )


def noise_of(table: list[Cells], average: Average) -> float:
    """The variance between such classes that their queries alone explain; 0 where every class has
    one query."""
    return float(np.mean([query_noise(cells.weights(average), cells) for cells in table]))


def tabulate(seeds: Sequence[Scores]) -> list[Cells]:
    """Each seed's defined values by class. Raises ValueError without any, or where seeds have other
    classes."""
    defined = [
        Scores(s.values[kept], s.labels[kept]) for s in seeds for kept in [~np.isnan(s.values)]
    ]
    if not defined or not all(len(s.values) for s in defined):
        raise ValueError("there are no scores to average")
    if any(not np.array_equal(np.unique(s.labels), np.unique(defined[0].labels)) for s in defined):
        raise ValueError("the seeds were evaluated on different classes: they can't be averaged")
    return [by_class(s) for s in defined]


def by_class(scores: Scores) -> Cells:
    classes, rows = np.unique(scores.labels, return_inverse=True)
    values, columns = np.unique(scores.values, return_inverse=True)
    counts = np.bincount(rows)
    means = np.bincount(rows, weights=scores.values) / counts
    occurring, occurrences = np.unique(rows * len(values) + columns, return_counts=True)
    row, column = np.divmod(occurring, len(values))
    distinct = np.bincount(row, minlength=len(classes))
    # The last column must be a real one: multinomial() gives the last what rounding left over.
    place = distinct.max() - distinct[row] + np.arange(len(row)) - np.searchsorted(row, row)
    padded, shares = (
        np.zeros((len(classes), distinct.max())),
        np.zeros((len(classes), distinct.max())),
    )
    padded[row, place] = values[column]
    shares[row, place] = occurrences / counts[row]
    return Cells(counts, means, padded, shares, float(((scores.values - means[rows]) ** 2).sum()))
