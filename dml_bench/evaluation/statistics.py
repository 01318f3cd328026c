"""How sure a mean over queries is: Student's t on the variance of classes crossed with seeds.

All that is compared is brought to one value per query first: precision@1 of a model; the difference
of two models on the same query; the difference of two drops. Queries of a class resemble each
other, so a class is the unit that counts. Of several seeds each has its own models, and often its
own split. An estimate is the mean over classes and seeds, and its variance is that of a two-way
table with random rows and columns, one cell for each class and seed. The interval is the estimate
and Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin
2:110): nothing is resampled, and the interval and the p-value of a difference can't disagree. That
of a share, as P@1 is, is taken in logits (Brown, Cai and DasGupta 2001, Statistical Science 16:101,
section 4): near 1 its mean is skewed, and with 20 classes at .97 a plain t held the truth in 91%.

One seed says nothing about other seeds, and its interval is about that seed's models alone. Three
seeds say little: by how much they differ is known to within a factor of five. So the experiments of
a table are asked together (`SeedPrior`; Smyth 2004, Statistical Applications in Genetics and
Molecular Biology 3:3): each one's own variance of seeds is drawn towards what is usual in its
table, and has as many more degrees of freedom as the experiments agree on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import numpy as np

__all__ = [
    "DIFFERENCE",
    "PROPORTION",
    "Average",
    "Components",
    "GroupOfClasses",
    "Interval",
    "Scores",
    "SeedPrior",
    "Spread",
    "classes_of",
    "components_of",
    "defined_of",
    "differences",
    "estimate",
    "fit_difference_prior",
    "fit_seed_prior",
    "interval",
    "query_share",
    "seeds_to_detect",
    "share_of_width_kept",
    "smallest_detectable",
]

Average = Literal["macro", "micro"]
"""`macro`: mean over classes of the mean over a class's queries. `micro`: mean over queries."""

EVERYTHING = (-math.inf, math.inf)
PROPORTION = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)
"""The range of a difference of two proportions."""
MOST_SEEDS = 10_000
"""More are never advised."""
FEWEST_ROWS = 4
"""Fewer experiments say too little of what is usual."""
MOST_PRIOR_DEGREES = 20.0
"""What a prior counts at most, however well the experiments agree: that they are alike is an
assumption."""
RARE = 0.3
"""A prior counts less for an experiment whose seeds differ more than those of such a share of
experiments like the others."""
RARE_CLASSES = -1
"""In place of the ids of classes that some seed lacks."""
FAR_ABOVE = 5.0
"""Ratios above so many times their median are taken for so much in the mean: one failed seed must
not widen the intervals of all other experiments."""
LEAST_NOISE = 0.5
"""The least that the mean square of classes is taken for, of the noise of their queries. That of
twenty equal classes is under 0.53 of it in 5% of draws. With all of it, an interval of a small
difference held the truth in up to 98%."""
SMALLEST_RATIO = 1e-9
"""In place of a ratio of 0, as of seeds with other answers and the same mean by chance. Fisher's F
has a pole or nothing at 0 itself, whatever its degrees of freedom are."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One value per query, of one seed."""

    values: np.ndarray
    """(query) float; nan where undefined."""
    labels: np.ndarray
    """(query) int64 class ids."""
    subtracted: np.ndarray | None = None
    """(query) whether the query's class belongs to the group whose mean is subtracted from that of
    the other classes. None where there is one group, which has the mean."""
    are_of_all_seeds: bool = True
    """Whether other seeds have queries of the same classes. Otherwise the classes that some seed
    lacks are taken for one."""

    @staticmethod
    def contrast(first: "Scores", second: "Scores") -> "Scores":
        """The mean of the first minus that of the second, which are of other classes. Raises
        ValueError where a class is in both."""
        if common := set(first.labels.tolist()) & set(second.labels.tolist()):
            raise ValueError(f"the two groups must have different classes, but share {min(common)}")
        return Scores(
            np.concatenate([first.values, second.values]),
            np.concatenate([first.labels, second.labels]),
            np.repeat([False, True], [len(first.labels), len(second.labels)]),
        )

    def minus(self, other: "Scores") -> "Scores":
        """The differences on the same queries. Raises ValueError where the two were asked different
        questions."""
        return replace(self, values=self.values - self.paired(other))

    def paired(self, other: "Scores") -> np.ndarray:
        """The other's values, query by query. Raises ValueError where the two were asked different
        questions."""
        same_classes = np.array_equal(self.labels, other.labels)
        if not same_classes or not np.array_equal(self.sides, other.sides):
            raise ValueError(
                "the two were evaluated on different queries: they can't be compared in pairs"
            )
        return other.values

    @property
    def sides(self) -> np.ndarray:
        """(query) `subtracted`, also where there is one group."""
        if self.subtracted is None:
            return np.zeros(len(self.labels), bool)
        return self.subtracted

    @staticmethod
    def mean(several: Sequence["Scores"]) -> "Scores":
        """The mean on each query. Raises ValueError where they were asked different questions."""
        first = several[0]
        return replace(first, values=np.mean([first.paired(other) for other in several], axis=0))

    def of_classes(self, chosen: Sequence[int] | np.ndarray) -> "Scores":
        """The queries of these classes."""
        return self.where(np.isin(self.labels, chosen))

    def where(self, kept: np.ndarray) -> "Scores":
        """The queries for which (query) `kept` is true."""
        subtracted = None if self.subtracted is None else self.subtracted[kept]
        return replace(
            self, values=self.values[kept], labels=self.labels[kept], subtracted=subtracted
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """How sure an estimate is."""

    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True)
class GroupOfClasses:
    """The mean squares of one group in the table of classes by seeds."""

    num_classes: int
    between: float
    """Of the classes, times the number of seeds; at least LEAST_NOISE of the noise of queries."""
    rest: float
    """Of what neither a class nor a seed explains; nan with a single seed."""


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of an estimate's variance. A difference of two groups of classes has the classes
    within both, and the seeds' own differences of the two."""

    num_seeds: int
    groups: tuple[GroupOfClasses, ...]
    of_seeds: float
    """Variance of the seeds' estimates; nan with a single seed."""
    seed_degrees_of_freedom: float
    """Of `of_seeds`."""

    @property
    def of_rest(self) -> float:
        """What the seeds' estimates would vary by if no seed had models better than another's: the
        part of `of_seeds` that differs from class to class."""
        return sum(group.rest / group.num_classes for group in self.groups)

    def moderated(self, prior: "SeedPrior") -> "Components":
        """The same with the variance of the seeds drawn towards what is usual; unchanged for a
        single seed, and where every seed has the same answers."""
        if self.num_seeds < 2 or not self.of_rest > 0:
            return self
        own_degrees = self.seed_degrees_of_freedom
        prior_degrees = prior.counts_beside(self.of_seeds / self.of_rest, own_degrees)
        total = prior_degrees * prior.ratio * self.of_rest + own_degrees * self.of_seeds
        degrees = prior_degrees + own_degrees
        return replace(self, of_seeds=total / degrees, seed_degrees_of_freedom=degrees)

    def spread(self) -> Spread:
        """The standard error and its degrees of freedom; nan for a group of a single class.

        With mean squares of a table of C classes by S seeds, variance = (classes + seeds - rest) /
        (C x S), where seeds - rest is not let below 0. Its degrees of freedom are those of the sum
        even then: that the seeds differ by less than the rest is itself uncertain.
        """
        least = min(group.num_classes for group in self.groups) - 1.0
        if least < 1:
            return Spread(math.nan, math.nan)
        variance = doubt = 0.0
        for group in self.groups:
            part = group.between / (self.num_seeds * group.num_classes)
            variance += part
            doubt += part**2 / (group.num_classes - 1)
        if self.num_seeds > 1:
            of_seeds, of_rest = self.of_seeds / self.num_seeds, self.of_rest / self.num_seeds
            variance += max(of_seeds - of_rest, 0.0)
            doubt += of_seeds**2 / self.seed_degrees_of_freedom
            for group in self.groups:
                part = group.rest / (self.num_seeds * group.num_classes)
                doubt += part**2 / ((self.num_seeds - 1) * (group.num_classes - 1))
            least = min(least, self.seed_degrees_of_freedom)
        degrees = max(variance**2 / doubt, least) if doubt > 0 else least
        return Spread(math.sqrt(variance), degrees)

    def with_seeds(self, num_seeds: int) -> "Components":
        """What to expect of so many seeds, when classes and models differ by as much as here."""
        groups = []
        for group in self.groups:
            of_classes = max(group.between - group.rest, 0.0) * num_seeds / self.num_seeds
            groups.append(replace(group, between=group.rest + of_classes))
        added = num_seeds - self.num_seeds
        return Components(
            num_seeds, tuple(groups), self.of_seeds, self.seed_degrees_of_freedom + added
        )


@dataclass(frozen=True, slots=True)
class SeedPrior:
    """By how much seeds usually differ in the experiments of a table."""

    ratio: float
    """The mean square of seeds, in units of that of the rest (`of_seeds` over `of_rest`): 1 where
    seeds differ by no more than their answers to single classes explain. In these units it is much
    the same at a P@1 of 0.5 and of 0.97."""
    degrees_of_freedom: float
    """What it counts, beside one less than the number of an experiment's own seeds."""
    num_rows: int
    """How many experiments it is of."""

    def counts_beside(self, ratio: float, degrees_of_freedom: float) -> float:
        """What it counts for an experiment with this ratio of its own: less, the rarer so large a
        ratio is among experiments like the others, so that an unstable one is not taken for a
        usual one."""
        from scipy.special import fdtrc

        if not self.ratio > 0:  # usually, every seed has exactly the same mean
            return 0.0 if ratio > 0 else self.degrees_of_freedom
        rarity = fdtrc(degrees_of_freedom, self.degrees_of_freedom, ratio / self.ratio)
        return self.degrees_of_freedom * min(float(rarity) / RARE, 1.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it would lie with other classes and queries, and with other seeds if there
    were several."""

    estimate: float
    low: float
    """nan where there is no telling: a single class, or queries that all have the same value."""
    high: float
    level: float
    """Wanted coverage, 0.95 for a 95% interval."""
    standard_error: float
    degrees_of_freedom: float
    within: tuple[float, float] = EVERYTHING
    """The range that the mean can take, to which the interval is cut."""
    components: Components | None = None
    """What the standard error is made of."""

    @classmethod
    def around(
        cls,
        estimate: float,
        standard_error: float,
        degrees_of_freedom: float,
        level: float = 0.95,
        within: tuple[float, float] = EVERYTHING,
        components: Components | None = None,
    ) -> "Interval":
        """Student's t, of a share in logits; without bounds where there is no standard error."""
        low = high = math.nan
        if standard_error > 0:
            reach = reach_of(Spread(standard_error, degrees_of_freedom), level)
            if within == PROPORTION and 0 < estimate < 1:
                low, high = share_within(estimate, reach)
            else:
                low = min(max(estimate - reach, within[0]), within[1])
                high = min(max(estimate + reach, within[0]), within[1])
        return cls(
            estimate, low, high, level, standard_error, degrees_of_freedom, within, components
        )

    def at(self, level: float) -> "Interval":
        """The same at another level: `.at(1 - 0.05 / 15)` holds together with 14 others
        (Bonferroni)."""
        return Interval.around(
            self.estimate,
            self.standard_error,
            self.degrees_of_freedom,
            level,
            self.within,
            self.components,
        )

    def negative(self) -> "Interval":
        """Of the difference the other way round."""
        low, high = self.within
        return replace(
            self, estimate=-self.estimate, low=-self.high, high=-self.low, within=(-high, -low)
        )

    def as_table(self) -> dict[str, float]:
        """For JSON."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}

    @property
    def p(self) -> float:
        """Two-sided, of a mean of zero: below 0.05 where the 95% interval leaves zero out. nan
        where there is no interval."""
        from scipy.special import stdtr

        if not self.standard_error > 0:
            return math.nan
        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.estimate) / self.standard_error))


def share_within(share: float, reach: float) -> tuple[float, float]:
    """The bounds of a share that is known to within a small `reach`: as far to both sides in
    logits, so between 0 and 1, and further towards 1/2."""
    from scipy.special import expit, logit

    centre, reach = logit(share), reach / (share * (1 - share))
    return float(expit(centre - reach)), float(expit(centre + reach))


@dataclass(frozen=True, slots=True)
class Cells:
    """The queries of one seed by class."""

    counts: np.ndarray
    """(class) how many queries a class has."""
    means: np.ndarray
    """(class) the mean over a class's queries."""
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
    within: tuple[float, float] = EVERYTHING,
    prior: SeedPrior | None = None,
) -> Interval:
    """The mean of the scores with its interval, cut to the range `within` that the mean can take.

    Args:
        seeds: the same quantity, measured once per seed; the classes must be the same in each.
        level: wanted coverage. Measured in simulations: reports/coverage.
        prior: of the table whose experiment this is; without it the seeds speak for themselves.

    Raises ValueError without scores, or where seeds have other classes.
    """
    tables = tabulate(seeds)
    components = components_in(tables, average)
    if prior is not None:
        components = components.moderated(prior)
    spread = components.spread()
    return Interval.around(
        float(means_of_seeds(tables, average).mean()),
        spread.standard_error,
        spread.degrees_of_freedom,
        level,
        within,
        components,
    )


def query_share(scores: Scores) -> float:
    """From 0 to 1: the part of the variance between class means that the queries of the classes
    alone explain. More queries of the same classes take away this part, and no more. nan where all
    classes have the same mean, or there is one. Raises ValueError without scores."""
    (table,) = tabulate([scores])
    between = mean_squares(table, "macro").between
    return min(noise_of(table, "macro") / between, 1.0) if between > 0 else math.nan


def estimate(seeds: Sequence[Scores], *, average: Average = "macro") -> float:
    """The mean over seeds of each seed's mean, or of its difference of two groups of classes."""
    return float(means_of_seeds(tabulate(seeds), average).mean())


def components_of(seeds: Sequence[Scores], *, average: Average = "macro") -> Components:
    """The parts of the variance of `estimate`. Classes and seeds are random effects.

    The mean square of the classes is not let below half the noise of the queries, so that equal
    class means of noisy queries aren't taken for certain.
    """
    return components_in(tabulate(seeds), average)


def components_in(tables: list[list[Cells]], average: Average) -> Components:
    num_seeds = len(tables[0])
    of_seeds = math.nan
    if num_seeds > 1:
        of_seeds = float(means_of_seeds(tables, average).var(ddof=1))
    groups = tuple(mean_squares(table, average) for table in tables)
    return Components(num_seeds, groups, of_seeds, num_seeds - 1.0)


def fit_seed_prior(
    rows: Sequence[Sequence[Scores]], *, average: Average = "macro"
) -> SeedPrior | None:
    """What is usual among the experiments of a table, from the scores of each by seed. None where
    fewer than FEWEST_ROWS have several seeds with different answers.

    The ratio is the mean over the experiments, of which none counts more than FAR_ABOVE times the
    median. How far they agree, by the likelihood of Fisher's F distribution, is what it counts; at
    most as much as all others' seeds, and MOST_PRIOR_DEGREES.
    """
    ratios: list[float] = []
    degrees: list[float] = []
    for seeds in rows:
        components = components_of(seeds, average=average)
        if components.num_seeds > 1 and components.of_rest > 0:
            ratios.append(components.of_seeds / components.of_rest)
            degrees.append(components.seed_degrees_of_freedom)
    if len(ratios) < FEWEST_ROWS:
        return None
    most = min(sum(degrees) - max(degrees), MOST_PRIOR_DEGREES)
    bounded = np.minimum(ratios, FAR_ABOVE * np.median(ratios))
    ratio = float(np.average(bounded, weights=degrees))
    agreement = agreed_degrees(np.array(ratios), np.array(degrees), ratio, most)
    return SeedPrior(ratio, agreement, len(ratios))


def fit_difference_prior(
    rows: Sequence[Sequence[Scores]], *, average: Average = "macro"
) -> SeedPrior | None:
    """The same for differences between experiments with the same seeds and queries.

    It is fitted on each experiment minus the mean of all, query by query. So what a seed's split
    does to all alike is left out, as differences leave it out; and the noise of an experiment that
    many others are compared with is counted once, not in each difference anew.
    """
    means = [Scores.mean(of_seed) for of_seed in zip(*rows, strict=True)]
    return fit_seed_prior([differences(seeds, means) for seeds in rows], average=average)


def differences(seeds: Sequence[Scores], others: Sequence[Scores]) -> list[Scores]:
    """Seed by seed, on the same queries."""
    return [own.minus(other) for own, other in zip(seeds, others, strict=True)]


def agreed_degrees(ratios: np.ndarray, degrees: np.ndarray, ratio: float, most: float) -> float:
    """The degrees of freedom, up to `most`, under which these ratios are likeliest: they are
    Fisher's F, scaled to have this mean."""
    from scipy.optimize import minimize_scalar
    from scipy.stats import f

    ratios = np.maximum(ratios, SMALLEST_RATIO)

    def unlikeliness(logarithm: float) -> float:
        prior_degrees = math.exp(logarithm)
        scale = ratio * (prior_degrees - 2) / prior_degrees
        likelihoods = f.logpdf(ratios / scale, degrees, prior_degrees) - math.log(scale)
        return -float(likelihoods.sum())

    if not ratio > 0:
        return most
    bounds = math.log(2.01), math.log(most)
    best = minimize_scalar(unlikeliness, bounds=bounds, method="bounded")
    return most if unlikeliness(bounds[1]) <= best.fun else math.exp(best.x)


def mean_squares(table: list[Cells], average: Average) -> GroupOfClasses:
    """Of one group of classes."""
    y = centred(table, average)
    num_seeds, num_classes = y.shape
    if num_classes < 2:
        return GroupOfClasses(num_classes, math.nan, math.nan)
    least = LEAST_NOISE * noise_of(table, average)
    between = max(float(num_seeds * y.mean(0).var(ddof=1)), least)
    rest = math.nan
    if num_seeds > 1:
        # From the first seed: so nothing at all is left where every seed has the same answers.
        y = y - y[0]
        residuals = y - y.mean(0) - y.mean(1)[:, None] + y.mean()
        rest = float((residuals**2).sum() / ((num_seeds - 1) * (num_classes - 1)))
    return GroupOfClasses(num_classes, between, rest)


def smallest_detectable(
    measured: Interval, *, level: float | None = None, power: float = 0.8
) -> float:
    """The true difference from zero that an experiment like this would find in the share `power`
    of its repetitions: an interval of this `level`, that of `measured` if None, would leave out
    zero. nan where there is no interval."""
    return detectable(
        Spread(measured.standard_error, measured.degrees_of_freedom),
        measured.level if level is None else level,
        power,
    )


def detectable(spread: Spread, level: float, power: float) -> float:
    """By Student's noncentral t. Its other tail is left out: it holds under 0.01% at a power of
    50% or more."""
    from scipy.special import nctdtrinc, stdtrit

    if not spread.standard_error > 0:
        return math.nan
    degrees = spread.degrees_of_freedom
    critical = stdtrit(degrees, (1 + level) / 2)
    return float(nctdtrinc(degrees, 1 - power, critical)) * spread.standard_error


def seeds_to_detect(
    measured: Interval,
    difference: float = 0.02,
    *,
    level: float | None = None,
    power: float = 0.8,
) -> float:
    """How many seeds would find a true difference of this size, as `smallest_detectable` means it.

    inf where no number of seeds would: then it takes more classes. nan where it can't be known: a
    single seed, or no interval.
    """
    components = measured.components
    if components is None or components.num_seeds < 2 or not measured.standard_error > 0:
        return math.nan
    level = measured.level if level is None else level

    def enough(num_seeds: int) -> bool:
        expected = components.with_seeds(num_seeds).spread()
        return not detectable(expected, level, power) > difference

    if not enough(MOST_SEEDS):
        return math.inf
    too_few, many = 1, MOST_SEEDS
    while many - too_few > 1:
        middle = (too_few + many) // 2
        if enough(middle):
            many = middle
        else:
            too_few = middle
    return float(many)


def share_of_width_kept(measured: Interval) -> float:
    """The part of an interval's width that would stay with endless seeds: what comes of the classes
    and of their queries. nan where it can't be known: a single seed, or no interval."""
    components = measured.components
    if components is None or components.num_seeds < 2 or not measured.standard_error > 0:
        return math.nan
    with_seeds = components.with_seeds(MOST_SEEDS).spread()
    return reach_of(with_seeds, measured.level) / reach_of(components.spread(), measured.level)


def reach_of(spread: Spread, level: float) -> float:
    """By Student's t, half the width of an interval of this level."""
    from scipy.special import stdtrit

    return float(stdtrit(spread.degrees_of_freedom, (1 + level) / 2)) * spread.standard_error


def centred(table: list[Cells], average: Average) -> np.ndarray:
    """(seed, class) what each class adds to its seed's mean: their mean over classes is the mean
    itself."""
    rows = []
    for cells in table:
        weights = cells.weights(average)
        mean = (weights * cells.means).mean()
        rows.append(mean + weights * (cells.means - mean))
    return np.stack(rows)


def means_of_seeds(tables: list[list[Cells]], average: Average) -> np.ndarray:
    """(seed) the mean, or the difference of the means of two groups."""
    first, *second = (centred(table, average).mean(1) for table in tables)
    return first - second[0] if second else first


def noise_of(table: list[Cells], average: Average) -> float:
    """The variance between such classes that their queries alone explain; 0 where every class has
    one query."""
    return float(np.mean([query_noise(cells.weights(average), cells) for cells in table]))


def query_noise(weights: np.ndarray, cells: Cells) -> float:
    """The same of one seed, from the variance of queries within their classes, taken as equal in
    all."""
    spare = int((cells.counts - 1).sum())
    return float(cells.squares / spare * (weights**2 / cells.counts).mean()) if spare else 0.0


def tabulate(seeds: Sequence[Scores]) -> list[list[Cells]]:
    """Each seed's defined values by class, for one group of classes or for two. Raises ValueError
    without any, or where seeds have other classes."""
    defined = defined_of(seeds)
    if not defined or not all(len(scores.values) for scores in defined):
        raise ValueError("there are no scores to average")
    if defined[0].subtracted is None:
        return [by_class(defined)]
    tables = []
    for subtracted in (False, True):
        group = [scores.where(scores.sides == subtracted) for scores in defined]
        if not all(len(scores.values) for scores in group):
            raise ValueError("one of the two groups of classes has no scores to average")
        tables.append(by_class(group))
    return tables


def defined_of(seeds: Sequence[Scores]) -> list[Scores]:
    """The scores that are defined, of classes that all seeds have as far as that can be."""
    defined = [scores.where(~np.isnan(scores.values)) for scores in seeds]
    if all(scores.are_of_all_seeds for scores in defined):
        return defined
    return rare_classes_as_one(defined)


def rare_classes_as_one(seeds: Sequence[Scores]) -> list[Scores]:
    """The same with one class in place of those that some seed lacks; where a seed lacks none, the
    others' queries of such classes are left out."""
    common = reduce(np.intersect1d, [scores.labels for scores in seeds])
    merged = []
    for scores in seeds:
        labels = np.where(np.isin(scores.labels, common), scores.labels, RARE_CLASSES)
        merged.append(replace(scores, labels=labels))
    if all((scores.labels == RARE_CLASSES).any() for scores in merged):
        return merged
    return [scores.where(scores.labels != RARE_CLASSES) for scores in merged]


def classes_of(seeds: Sequence[Scores]) -> np.ndarray:
    """Ascending class ids. Raises ValueError where seeds have other ones."""
    first, *others = (np.unique(scores.labels) for scores in seeds)
    if not all(np.array_equal(first, classes) for classes in others):
        raise ValueError("the seeds were evaluated on different classes: they can't be averaged")
    return first


def by_class(seeds: Sequence[Scores]) -> list[Cells]:
    classes, table = classes_of(seeds), []
    for scores in seeds:
        rows = np.searchsorted(classes, scores.labels)
        counts = np.bincount(rows)
        means = np.bincount(rows, weights=scores.values) / counts
        table.append(Cells(counts, means, float(((scores.values - means[rows]) ** 2).sum())))
    return table
