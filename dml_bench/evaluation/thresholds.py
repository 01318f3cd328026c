"""Thresholds with a guarantee: the similarity from which on answers keep a precision on new images.

They come from "learn then test" (Angelopoulos, Bates, Candès, Jordan & Lei
2021, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control"), with a fixed
sequence of tests. Which thresholds are tested, and in which order, depends on similarities and
never on right and wrong:

1. The first is the strictest that answers at least `fewest_answers` calibration images, and at
   least a tenth of them all. Fewer than the former can't prove the goal, even if all of them are
   right. Of many images, a start at the former would fail by one wrong label among the most
   similar.
2. Then come all the others, from strict to loose. Each is tested by the exact lower bound of
   Clopper and Pearson (1934). The last that passes before the first that fails is chosen.

Testing needs no correction, because nothing is tested after a failure. Over draws of calibration
images, the chosen threshold misses its goal in at most 1 - confidence of them.

Images of one session, or of one class that is not enrolled, go wrong together. Then the bound is
that of an effective number of answers (Korn & Graubard 1998, "Confidence intervals for proportions
with small expected number of positive counts estimated from survey data"): the answers over their
design effect, with Student's t for the number of groups. A few groups without a wrong answer say
little of how much groups differ, so the design effect is at least what it would be with one more,
of which half is wrong: about 30 groups that are all right prove .95. A session may run over several
classes, as a shopping trip does; then variances over classes and over sessions are added, and that
over classes in a session is subtracted (Cameron, Gelbach & Miller 2011, "Robust inference with
multiway clustering"). `benchmarks/thresholds.py` simulates it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONFIDENCE",
    "NO_OUTCOMES",
    "GuaranteedThreshold",
    "PrecisionCurve",
    "SearchOutcomes",
    "fewest_answers",
    "guaranteed_threshold",
    "precision_curve",
    "upper_bound",
]

CONFIDENCE = 0.95
"""Of a promise, over draws of calibration images."""
FIRST_SHARE = 0.1
"""The share of the calibration images that the first threshold answers, if they are many.
`benchmarks/thresholds.py` shows what that is worth."""
FEWEST_TO_ESTIMATE = 10
"""Answers by which it is estimated how many images a promise would need."""
MOST_NEEDED = 10**6
"""More images than this are not asked for: then the goal itself is out of reach."""


@dataclass(frozen=True, slots=True)
class SearchOutcomes:
    """Searches for images on which the network was not trained, and whose classes are known."""

    similarity: np.ndarray
    """(searches) the similarity of the nearest image."""
    correct: np.ndarray
    """(searches) bool: whether the nearest image is of the right class."""
    groups: np.ndarray | None = None
    """(searches) ids of groups whose images resemble each other, e.g. sessions of a photographer,
    or classes that are not enrolled. None where each image stands for itself."""
    crossed: np.ndarray | None = None
    """(searches) ids of other groups that run over several of the first, e.g. sessions in which
    several such classes were photographed. None where there are no others."""

    @property
    def num_groups(self) -> int:
        """The number of groups, or of images where there are no groups."""
        return len(self.correct) if self.groups is None else len(np.unique(self.groups))

    @property
    def ways(self) -> tuple[np.ndarray, ...]:
        """(searches) 0, 1, ... by group, or by image where there are no groups; where others cross
        them, also by these, and by both."""
        count = len(self.correct)
        ids = [np.arange(count) if self.groups is None else numbered(self.groups)]
        if self.crossed is not None:
            ids.append(numbered(self.crossed))
            ids.append(numbered(ids[0] * count + ids[1]))
        return tuple(ids)


def numbered(groups: np.ndarray) -> np.ndarray:
    """(searches) 0, 1, ... by group."""
    ids: np.ndarray = np.unique(groups, return_inverse=True)[1]
    return ids


NO_OUTCOMES = SearchOutcomes(np.empty(0, np.float32), np.empty(0, bool))


@dataclass(frozen=True, slots=True)
class PrecisionCurve:
    """What each threshold does with a mix of known and unknown images."""

    similarity: np.ndarray
    """(thresholds) the distinct similarities, falling."""
    answers: np.ndarray
    """(thresholds) the images that are answered, of the largest sample with the wanted mix that the
    images allow; each counts as much as the sample has of its kind."""
    right: np.ndarray
    """(thresholds) those that are answered right."""
    effective: np.ndarray
    """(thresholds) how many independent answers the answers are worth. Fewer than `answers` where
    images are grouped."""
    total: float
    """All images of the sample."""

    @property
    def precision(self) -> np.ndarray:
        """(thresholds) right answers / answers."""
        precision: np.ndarray = self.right / self.answers
        return precision

    @property
    def coverage(self) -> np.ndarray:
        """(thresholds) answers / images."""
        coverage: np.ndarray = self.answers / self.total
        return coverage

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and coverage of a threshold that was chosen on other images. Precision is nan
        where nothing is answered; a threshold of nan answers nothing."""
        if not self.total:
            return np.nan, np.nan
        last = int((self.similarity >= threshold).sum()) - 1
        if last < 0:
            return np.nan, 0.0
        return float(self.precision[last]), float(self.coverage[last])

    def bound(self, confidence: float = CONFIDENCE) -> np.ndarray:
        """(thresholds) the lower bound of the precision on new images, for each threshold by
        itself."""
        return lower_bound(self.precision * self.effective, self.effective, confidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuaranteedThreshold:
    """A similarity from which on answers keep a precision on new images, or what is missing for
    one."""

    value: float
    """The threshold; nan where none can be promised."""
    goal: float
    """The precision that is promised on new images of the same kind and mix."""
    confidence: float
    """Of the promise, over draws of calibration images."""
    unknown_share: float
    """The share of images of classes that are not enrolled, for which the promise holds."""
    bound: float
    """The lower bound of the precision at the threshold; where none can be promised, at the first
    threshold that was tested, and nan where none could be tested."""
    precision: float
    """Right answers / answers on the calibration images; nan where none can be promised."""
    coverage: float
    """Answers / calibration images, in the mix; 0 where none can be promised."""
    known: int
    """Calibration images of classes in the gallery."""
    known_groups: int | None = None
    """The groups of the first, on whose number the promise rests; None where each image stands for
    itself."""
    unknown: int
    """Calibration images of classes that are not."""
    known_needed: int | None
    """About how many of the first would be needed: an estimate from these. None where more images
    would not help, because the answers are not right often enough."""
    unknown_needed: int | None
    """The same for the second."""

    @property
    def promised(self) -> bool:
        """Whether there is a threshold that keeps the goal."""
        return not np.isnan(self.value)


def fewest_answers(goal: float, confidence: float = CONFIDENCE) -> int:
    """How many answers, all of them right, prove a precision: 59 for .95. Raises ValueError unless
    0 < goal < 1."""
    if not 0 < goal < 1:
        raise ValueError(
            f"a precision to keep must be above 0 and below 1, got {goal}: no number of images"
            " proves that no answer is ever wrong"
        )
    return math.ceil(math.log(1 - confidence) / math.log(goal))


def lower_bound(right: np.ndarray, answers: np.ndarray, confidence: float) -> np.ndarray:
    """The exact lower bound of a proportion (Clopper & Pearson 1934), also for weights that are no
    integers; nan without answers."""
    from scipy.special import betaincinv

    right = np.clip(right, 0, answers)
    bound = betaincinv(np.maximum(right, 1e-9), answers - right + 1, 1 - confidence)
    bound = np.where(right > 0, bound, 0.0)
    lower: np.ndarray = np.where(answers > 0, bound, np.nan)
    return lower


def upper_bound(right: float, answers: float, confidence: float = CONFIDENCE) -> float:
    """The exact upper bound of a proportion, as `lower_bound`; 1 without answers."""
    if not answers > 0:
        return 1.0
    wrong = lower_bound(np.array(answers - right), np.array(answers), confidence)
    return 1 - float(wrong)


def precision_curve(
    known: SearchOutcomes, unknown: SearchOutcomes = NO_OUTCOMES, *, unknown_share: float = 0.0
) -> PrecisionCurve:
    """Of a mix in which `unknown_share` of the images are of classes that the gallery lacks, and
    are never right. Empty where there are no images for it. Raises ValueError unless
    0 <= unknown_share < 1."""
    if not 0 <= unknown_share < 1:
        raise ValueError(f"an unknown share must be at least 0 and below 1, got {unknown_share}")
    shares = [(known, 1 - unknown_share)]
    if unknown_share:
        shares.append((unknown, unknown_share))
    total = min(len(outcomes.correct) / share for outcomes, share in shares)
    if not total:
        nothing = np.empty(0)
        return PrecisionCurve(nothing, nothing, nothing, nothing, 0.0)
    similarity = np.concatenate([outcomes.similarity for outcomes, _ in shares])
    thresholds = np.unique(np.asarray(similarity, float))[::-1]
    kinds = []
    for outcomes, share in shares:
        weight = total * share / len(outcomes.correct)
        kinds.append(Accepted.of(outcomes, thresholds, weight, right=outcomes is known))
    answers = np.sum([kind.answers for kind in kinds], axis=0)
    right = np.sum([kind.right for kind in kinds], axis=0)
    grouped = any(outcomes.groups is not None for outcomes, _ in shares)
    effective = effective_answers(kinds, answers, right) if grouped else answers
    return PrecisionCurve(thresholds, answers, right, effective, total)


@dataclass(frozen=True, slots=True)
class GroupSums:
    """How what each threshold accepts varies over groups."""

    answers_squared: np.ndarray
    """(thresholds) over the groups, the sum of the square of a group's answers."""
    right_squared: np.ndarray
    product: np.ndarray
    """(thresholds) over the groups, the sum of right answers times answers."""
    num_groups: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """What each threshold accepts of one kind of images, and how that varies over its groups."""

    weight: float
    """Of each image."""
    answers: np.ndarray
    """(thresholds) sum of the weights of what is accepted; `right` of what is right."""
    right: np.ndarray
    ways: tuple[GroupSums, ...]
    """By each of the `ways` in which the images are grouped."""

    @classmethod
    def of(
        cls, outcomes: SearchOutcomes, thresholds: np.ndarray, weight: float, *, right: bool
    ) -> "Accepted":
        order = np.argsort(-np.asarray(outcomes.similarity, float), kind="stable")
        correct = (outcomes.correct[order] & right).astype(float)
        falling = np.asarray(outcomes.similarity, float)[order]
        accepted = np.searchsorted(-falling, -thresholds, side="right")

        def summed(values: np.ndarray) -> np.ndarray:
            sums: np.ndarray = np.concatenate([[0.0], np.cumsum(values)])[accepted]
            return sums

        ways = []
        for ids in outcomes.ways:
            answers_before = sums_before(ids[order], np.ones(len(ids)))
            right_before = sums_before(ids[order], correct)
            sums = GroupSums(
                # A group's sum a becomes a + 1, and its square grows by 2 a + 1.
                answers_squared=weight**2 * summed(2 * answers_before + 1),
                right_squared=weight**2 * summed(correct * (2 * right_before + 1)),
                product=weight**2 * summed(right_before + correct * (answers_before + 1)),
                num_groups=int(ids.max(initial=-1)) + 1,
            )
            ways.append(sums)
        return cls(weight, weight * accepted, weight * summed(correct), tuple(ways))

    @property
    def num_groups(self) -> int:
        """Of the way with the fewest."""
        return min(way.num_groups for way in self.ways)

    @property
    def answers_squared(self) -> np.ndarray:
        """(thresholds) the largest over the ways."""
        largest: np.ndarray = np.max([way.answers_squared for way in self.ways], axis=0)
        return largest

    def variance(self, precision: np.ndarray) -> np.ndarray:
        """(thresholds) of the sum over groups of right answers - precision * answers."""
        variances = []
        for way in self.ways:
            squares = way.right_squared - 2 * precision * way.product
            squares = squares + precision**2 * way.answers_squared
            sums = self.right - precision * self.answers
            variances.append(corrected(squares, sums, way.num_groups))
        if len(variances) == 1:
            return variances[0]
        groups, crossed, both = variances
        largest: np.ndarray = np.max([groups, crossed, groups + crossed - both], axis=0)
        return largest

    def variance_of_images(self, precision: np.ndarray, num_images: float) -> np.ndarray:
        """(thresholds) the same, if each image were a group."""
        wrong = self.answers - self.right
        squares = self.weight * (self.right * (1 - precision) ** 2 + wrong * precision**2)
        return corrected(squares, self.right - precision * self.answers, num_images)

    def variance_of_bad_group(self, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(thresholds) what one more group of the usual size adds to either variance, if half of
        its answers are wrong; 0 where each image is a group, or none is ever right."""
        nothing = np.zeros(len(precision))
        if self.num_groups * self.weight >= self.answers[-1] - 1e-6 or not self.right[-1]:
            return nothing, nothing
        size = self.answers_squared / self.answers
        of_images = self.weight * size * ((1 - precision) ** 2 + precision**2) / 2
        return (size * (precision - 0.5)) ** 2, of_images


def corrected(squares: np.ndarray, sums: np.ndarray, count: float) -> np.ndarray:
    """The variance of a sum of `count` terms, by the sum of their squares and their sum."""
    if count < 2:
        return np.full(len(squares), np.inf)
    variance: np.ndarray = count / (count - 1) * np.maximum(squares - sums**2 / count, 0)
    return variance


def sums_before(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(images) the sum of the values of the images of the same group that come before."""
    order = np.argsort(ids, kind="stable")
    running = np.cumsum(values[order]) - values[order]
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(ids)))
    sums = np.empty(len(ids))
    sums[order] = running - np.repeat(running[starts], sizes)
    return sums


def effective_answers(
    kinds: Sequence[Accepted], answers: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """(thresholds) how many independent answers the answers of grouped images are worth."""
    from scipy.special import stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        precision = right / answers
        variances = np.stack([kind.variance(precision) for kind in kinds])
        of_images = np.zeros(len(answers))
        with_bad_groups, their_images = variances.sum(0), np.zeros(len(answers))
        for kind in kinds:
            of_images += kind.variance_of_images(precision, kind.answers[-1] / kind.weight)
            of_group, of_its_images = kind.variance_of_bad_group(precision)
            with_bad_groups += of_group
            their_images += of_its_images
        design_effect = np.nan_to_num(variances.sum(0) / of_images, nan=1.0, posinf=np.inf)
        # Bad sessions may be too rare to be among these few: as if there were one more.
        with_bad_groups /= of_images + their_images
        design_effect = np.maximum(design_effect, np.nan_to_num(with_bad_groups, nan=1.0))
        # Where no answer is wrong, nothing varies: the correlation inside groups is then that of
        # all images, at the loosest threshold.
        images = np.sum([kind.answers / kind.weight for kind in kinds], axis=0)
        squares = np.sum([kind.answers_squared / kind.weight**2 for kind in kinds], axis=0)
        answers_of_a_group = squares / images
        correlation = (design_effect[-1] - 1) / max(answers_of_a_group[-1] - 1, 1e-9)
        expected = 1 + (answers_of_a_group - 1) * np.clip(correlation, 0, 1)
        freedom = np.array([kind.num_groups - 1.0 for kind in kinds])
        satterthwaite = variances.sum(0) ** 2 / (variances**2 / freedom[:, None]).sum(0)
        degrees = np.where(variances.sum(0) > 0, satterthwaite, freedom.sum())
        small_sample = stdtrit(answers - 1, CONFIDENCE) / stdtrit(degrees, CONFIDENCE)
        effective = answers / np.maximum(np.maximum(design_effect, expected), 1)
        effective = effective * np.minimum(small_sample, 1) ** 2
    worth: np.ndarray = np.nan_to_num(effective, nan=0.0)
    return worth


def guaranteed_threshold(
    known: SearchOutcomes,
    goal: float,
    *,
    unknown: SearchOutcomes = NO_OUTCOMES,
    unknown_share: float = 0.0,
    confidence: float = CONFIDENCE,
) -> GuaranteedThreshold:
    """The loosest threshold that keeps a precision on new images, with a confidence, where the
    images are a random sample of those to come, or their groups are.

    `unknown` are images of classes that the gallery lacks, of which `unknown_share` are to come.
    Raises ValueError unless 0 < goal < 1 and 0 <= unknown_share < 1.
    """
    fewest = fewest_answers(goal, confidence)
    curve = precision_curve(known, unknown, unknown_share=unknown_share)
    bound = curve.bound(confidence)
    enough = (curve.effective >= fewest - 1e-6) & (curve.coverage >= FIRST_SHARE)
    first = int(np.argmax(enough)) if enough.any() else len(bound)
    failing = np.flatnonzero(~(bound[first:] >= goal))
    last = (first + int(failing[0]) if len(failing) else len(bound)) - 1
    promised = first <= last
    shown = last if promised else first
    needed = curve.total if promised else answers_needed(curve, goal, confidence)
    if needed is None and curve.total < fewest / (1 - unknown_share):
        needed = fewest / (1 - unknown_share)
    return GuaranteedThreshold(
        value=float(curve.similarity[last]) if promised else np.nan,
        goal=goal,
        confidence=confidence,
        unknown_share=unknown_share,
        bound=float(bound[shown]) if shown < len(bound) else np.nan,
        precision=float(curve.precision[last]) if promised else np.nan,
        coverage=float(curve.coverage[last]) if promised else 0.0,
        known=len(known.correct),
        known_groups=None if known.groups is None else known.num_groups,
        unknown=len(unknown.correct) if unknown_share else 0,
        known_needed=None if needed is None else math.ceil(needed * (1 - unknown_share) - 1e-6),
        unknown_needed=None if needed is None else math.ceil(needed * unknown_share - 1e-6),
    )


def answers_needed(curve: PrecisionCurve, goal: float, confidence: float) -> float | None:
    """About how large a sample would have to be for a promise, if its precision and coverage at
    each threshold were those of this one. None where more images would not help: answers are not
    right often enough."""
    fewest = fewest_answers(goal, confidence)
    estimates = [np.inf]
    if len(curve.answers):
        counted = curve.effective >= min(FEWEST_TO_ESTIMATE, curve.effective.max())
        above = np.flatnonzero(counted & (curve.effective > 0) & (curve.precision > goal))
        precision = curve.precision[above]
        coverage = curve.effective[above] / curve.total
        too_few = np.full(len(above), fewest - 1.0)
        enough = np.full(len(above), float(MOST_NEEDED))
        while (enough - too_few > 1).any():
            middle = np.floor((too_few + enough) / 2)
            proves = lower_bound(precision * middle, middle, confidence) >= goal
            too_few, enough = np.where(proves, too_few, middle), np.where(proves, middle, enough)
        estimates += list(enough / coverage)
    needed = float(min(estimates))
    return needed if curve.total < needed < MOST_NEEDED else None
