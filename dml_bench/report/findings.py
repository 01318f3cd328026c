"""The study's four questions in plain sentences, made from the numbers and their intervals. Where
the numbers do not decide, the sentences say so.

Names of experiments and commands stand between backticks, which writers set as code.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.analysis.diagnostics import WANTED_PRECISION, Diagnostics
from dml_bench.analysis.study import Study, certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.registry import protocols
from dml_bench.report.format import (
    compared,
    counted,
    enumerated,
    hundred,
    percent,
    points,
    seeds_of,
)
from dml_bench.runs.run import Run
from dml_bench.runs.schema import PhaseCost
from dml_bench.system.terminal import duration

__all__ = ["QUESTIONS", "Finding", "findings", "verdict"]

QUESTIONS = (
    "How well do metric-learning methods classify?",
    "Do their embeddings work for classes never trained on?",
    "Why is a method that dominates face recognition so rare elsewhere?",
    "What are the trade-offs against a softmax classifier, and are they worth it?",
)
UNDECIDED = "These runs cannot answer this"
NO_CLASSIFIER = (
    "These runs have no softmax classifier to compare with."
    " `dml-bench run crossentropy_resnet18_sgd_aug` adds one."
)
LITTLE = 0.05
"""A loss that lies wholly below this is a small one."""

Measured = dict[str, Diagnostics]
"""By the name of the experiment."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question."""

    question: str
    short: str
    """The answer in a sentence or two."""
    sentences: tuple[str, ...]
    """What it rests on."""


def findings(study: Study, diagnostics: Measured) -> list[Finding]:
    """One for each question. Where metric learning, or a classifier, is not among the runs, it says
    so."""
    best = study.best
    if best is None:
        reason = f"{UNDECIDED}: none of them is a metric-learning experiment."
        return [Finding(question, reason, ()) for question in QUESTIONS]
    answers = HOLDOUT_ANSWERS if study.has_drop else DISJOINT_ANSWERS
    results = []
    for question, answer in zip(QUESTIONS, answers, strict=True):
        short, *sentences = answer(study, best, diagnostics)
        results.append(Finding(question, short, tuple(sentences)))
    return results


def widened(count: int) -> str:
    return f"(intervals widened for {count} comparisons)"


def against(study: Study, quantity: str, rival: TableRow, other: str, of_rival: str = "") -> str:
    """The best method compared with the rival, which is called `other`."""
    value, sign = study.best_against(quantity, rival, of_rival)
    return compared(value, other, len(study.methods), sign)


# 1. How well do they classify?

LEADS = {
    1: "Better than a softmax classifier",
    0: "No detectable difference from a softmax classifier",
    -1: "Worse than a softmax classifier",
}


def classification(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    measured, rival = percent(study.measure(best, "known")), study.rival
    if rival is None:
        yield f"The best method is right for {measured} of the test images."
        yield from accuracy_of_methods(study, best)
        yield NO_CLASSIFIER
        return
    of_logits = percent(study.measure(rival, "logits"))
    _, sign = study.best_against("known", rival, "logits")
    yield (
        f"{LEADS[sign or 0]}: the best method is right for {measured} of the test images, the"
        f" classifier for {of_logits}."
    )
    yield from accuracy_of_methods(study, best)
    yield (
        f"By its own logits, the classifier `{rival.name}` is right for {of_logits}. `{best.name}`"
        f" {against(study, 'known', rival, 'these logits', 'logits')}."
    )
    yield (
        "Searched in the same gallery, the classifier's features are right for"
        f" {percent(study.measure(rival, 'known'))}. `{best.name}`"
        f" {against(study, 'known', rival, 'these features')}."
    )
    yield from against_logits(study, rival)


def accuracy_of_methods(study: Study, best: TableRow) -> Iterator[str]:
    methods, worst, baseline = study.methods, study.worst, study.baseline
    assert worst is not None
    accuracy = (
        f"{percent(study.measure(best, 'known'))} P@1 (mean over"
        f" {counted(num_classes(study), 'class')}, {seeds_of(best)})"
    )
    if len(methods) == 1:
        yield f"The only metric-learning experiment is `{best.name}`, with {accuracy}."
    else:
        yield (
            f"Of {len(methods)} metric-learning experiments, `{best.name}` has the highest"
            f" accuracy: {accuracy}. `{worst.name}` has the lowest:"
            f" {percent(study.measure(worst, 'known'))}."
        )
    yield "P@1 is the share of test images whose nearest gallery image is of the right class."
    if baseline is not None and baseline is not best:
        difference = study.difference(best, "known", baseline)
        yield (
            f"The best of {len(methods)} was picked by its result, which makes it look slightly"
            f" better than it is. The baseline `{baseline.name}` reaches"
            f" {percent(study.measure(baseline, 'known'))}. `{best.name}`"
            f" {compared(difference, 'the baseline')}."
        )


def against_logits(study: Study, rival: TableRow) -> Iterator[str]:
    """How many of the methods differ from the classifier's logits."""
    count = len(study.methods)
    if count < 2:
        return
    differences = [
        study.difference(line, "known", rival, "logits", count) for line in study.methods
    ]
    signs = list(map(certain_sign, differences))
    yield (
        f"Of all {count} methods, {signs.count(1)} are above the classifier's logits,"
        f" {signs.count(-1)} are below, and {signs.count(0)} show no detectable difference"
        f" {widened(count)}."
    )


def num_classes(study: Study) -> int:
    return int(study.first.summary["dataset"]["num_classes"])


# 2. Do they work for classes never trained on?


def unseen_classes(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    yield held_or_not(study, best)
    lines = {line.name: line for line in (best, study.baseline) if line is not None}
    for line in lines.values():
        yield drop_of(study, line)
    yield from drops_of_all(study)
    yield from drops_against_baseline(study)
    if len(study.holdouts) > 1:
        yield between_holdouts(study, list(lines.values()))
    else:
        unseen = counted(len(study.first.summary["unseen_classes"]), "unseen class")
        yield f"All this is for one choice of {unseen}. Other classes may be easier or harder."


def held_or_not(study: Study, best: TableRow) -> str:
    """The answer in short: of all experiments together where there are several, since one alone has
    few unseen classes."""
    accuracy, chance = study.measure(best, "unseen_limited"), 1 / num_classes(study)
    pooled = study.pooled("drop_unseen") if len(study.methods) > 1 else None
    loss = pooled or study.measure(best, "drop_unseen")
    assert accuracy is not None and loss is not None
    accuracies = (
        f"the best method is right for {percent(accuracy)} of the unseen classes' test images;"
        f" chance is {percent(chance)}"
    )
    average = ""
    if pooled:
        average = f", on average over {len(study.methods)} metric-learning experiments"
    if math.isnan(accuracy.low) or accuracy.low <= chance:
        return f"Not detectably: {accuracies}."
    if certain_sign(loss) > 0:
        return (
            f"In part: {accuracies}. Training without these classes costs {points(loss)}{average}."
        )
    if not math.isnan(loss.high) and loss.high <= LITTLE:
        return (
            f"Yes: {accuracies}. Training without these classes costs little:"
            f" {points(loss)}{average}."
        )
    return (
        f"They are useful there: {accuracies}. No loss of precision is detectable:"
        f" {points(loss)}{average}."
    )


CERTAIN = {1: "a loss beyond noise", 0: "within noise", -1: "a gain beyond noise"}


def drop_of(study: Study, line: TableRow) -> str:
    loss, seen = study.measure(line, "drop_unseen"), study.measure(line, "drop_seen")
    before = percent(study.measure(line, "unseen_all"))
    after = percent(study.measure(line, "unseen_limited"))
    sentences = (
        f"On the unseen classes, `{line.name}` is right for {before} if it trained on them, and for"
        f" {after} if not. This is a drop of {points(loss)}, {CERTAIN[certain_sign(loss)]}. Their"
        f" images are in the gallery both times. On the seen classes the drop is {points(seen)}."
    )
    if certain_sign(seen) > 0:
        sentences += (
            " So fewer training images, or more confusion in the gallery, explain part of the loss."
        )
    return sentences


def between_holdouts(study: Study, lines: Sequence[TableRow]) -> str:
    """What the drop owes to the choice of the classes held out."""
    ranges = []
    for line in lines:
        drops = study.holdout_drops(line).mean(1)
        ranges.append(
            f"For `{line.name}` they range from {hundred(min(drops))} to {hundred(max(drops))}"
            f" points, with a standard deviation of {hundred(drops.std(ddof=1))} points."
        )
    return f"The drops are means over {len(study.holdouts)} rotated hold-outs. {' '.join(ranges)}"


def drops_of_all(study: Study) -> Iterator[str]:
    """How many lose, and the smallest and largest drop."""
    lines = study.finished
    if len(lines) < 2:
        return
    losing = [study.loses(line, len(lines)) for line in lines].count(1)
    verb = "loses" if losing <= 1 else "lose"
    yield (
        f"Tested one by one, {losing or 'none'} of {len(lines)} experiments {verb} precision on the"
        f" unseen classes beyond noise {widened(len(lines))}."
    )

    def size(line: TableRow) -> float:
        drop = study.measure(line, "drop_unseen")
        return drop.estimate if drop else math.nan

    smallest, *_, largest = sorted(lines, key=size)
    yield (
        f"`{smallest.name}` has the smallest drop,"
        f" {points(study.measure(smallest, 'drop_unseen'))}. `{largest.name}` has the largest,"
        f" {points(study.measure(largest, 'drop_unseen'))}."
    )


def drops_against_baseline(study: Study) -> Iterator[str]:
    """Which drops differ from the baseline's."""
    baseline = study.baseline
    others = [line for line in study.finished if line is not baseline]
    if baseline is None or not others:
        return
    count = len(others)
    more, less = [], []
    for line in others:
        difference = study.difference(line, "drop_unseen", baseline, comparisons=count)
        if certain_sign(difference) > 0:
            more.append(line)
        if certain_sign(difference) < 0:
            less.append(line)
    if not more and not less:
        yield (
            f"Compared query by query, none of the {counted(count, 'other drop')} differs"
            f" detectably from that of the baseline `{baseline.name}` {widened(count)}. These runs"
            " do not show which method drops least."
        )
        return
    directions = []
    for lines, direction in ((more, "more"), (less, "less")):
        if lines:
            verb = "drops" if len(lines) == 1 else "drop"
            directions.append(f"{enumerated(lines)} {verb} {direction}")
    undetected = count - len(more) - len(less)
    rest = f" The other {undetected} show no detectable difference." if undetected else ""
    yield (
        f"Compared query by query with the baseline `{baseline.name}`, {' and '.join(directions)}"
        f" {widened(count)}.{rest}"
    )


# 3. Why so rare?


def rarity(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    rival = study.rival
    yield (
        "These numbers answer only part of this: what metric learning costs and what it brings."
        " Habits, tools and the data of other fields were not measured."
    )
    if rival is None:
        yield (
            f"`{best.name}` took {duration(training_seconds(best))} of training (all phases, mean"
            f" over seeds) and {memory(best)} of memory."
        )
        yield NO_CLASSIFIER
    else:
        if study.has_drop:
            yield brings(study, best, rival)
        yield from cost_against(best, rival)
    yield from gallery_cost(best)
    if len(study.methods) > 2 and study.worst is not None:
        width = hundred(study.accuracy(best) - study.accuracy(study.worst))
        yield (
            f"The recipe matters: the best and the worst of {len(study.methods)} experiments"
            f" differ by {width} points of P@1."
        )
    if study.has_drop:
        yield (
            "Its promise is new classes without training. Not training on them costs"
            f" `{best.name}` {points(study.measure(best, 'drop_unseen'))}."
        )


BRINGS = {1: "it brings accuracy", 0: "it brings no detectable accuracy", -1: "it costs accuracy"}


def brings(study: Study, best: TableRow, rival: TableRow) -> str:
    _, sign = study.best_against("known", rival, "logits")
    comparison = against(study, "known", rival, "the classifier's logits", "logits")
    return f"Where the classes are fixed, {BRINGS[sign or 0]}. `{best.name}` {comparison}."


def parts_of_cost(line: TableRow) -> list[list[PhaseCost]]:
    """By seed, the cost of each phase."""
    return [list(run.costs.values()) for run in line.runs]


def seconds_of(part: PhaseCost) -> float:
    """Of a phase's training, with what its pretraining took."""
    return part["train_seconds"] + part.get("start_seconds", 0.0)


def training_seconds(line: TableRow) -> float:
    """Of all phases, mean over seeds."""
    seconds = [sum(map(seconds_of, parts)) for parts in parts_of_cost(line)]
    return sum(seconds) / len(seconds)


def memory(line: TableRow) -> str:
    """The most of all seeds."""
    peaks = [part["peak_memory_bytes"] for parts in parts_of_cost(line) for part in parts]
    return f"{max(peaks) / 2**30:.1f} GiB"


def cost_against(best: TableRow, rival: TableRow) -> Iterator[str]:
    of_best, of_rival = training_seconds(best), training_seconds(rival)
    yield (
        f"Training `{best.name}` took {duration(of_best)} and the classifier {duration(of_rival)},"
        f" {of_best / of_rival:.2f} times as long (all phases, mean over seeds). Runs may have"
        f" shared a machine. Peak memory was {memory(best)} and {memory(rival)}."
    )


def gallery_cost(line: TableRow) -> Iterator[str]:
    """What has to be kept and searched."""
    run = line.runs[0]
    phase = run.protocol.main_phase
    parts = [part for seed in parts_of_cost(line) for part in seed]
    seconds = [part["search_seconds"] for part in parts if "search_seconds" in part]
    neighbours = run.neighbours[phase]
    images, gallery_bytes = len(neighbours.gallery_labels), run.costs[phase].get("gallery_bytes")
    if not gallery_bytes or not seconds:
        return
    dim = gallery_bytes // images // 4  # of float32
    per_query = 1000 * sum(seconds) / len(seconds) / len(neighbours.query_labels)
    yield (
        f"It needs a gallery: {images:,} embeddings of {dim} numbers,"
        f" {gallery_bytes / 1024:,.0f} KiB. A classifier keeps one vector for each of"
        f" {len(np.unique(neighbours.gallery_labels))} classes. Exact search took"
        f" {per_query:.3f} ms for a query."
    )


# 4. Trade-offs


def trade_offs(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    rival = study.rival
    if rival is None:
        yield f"{UNDECIDED}: no softmax classifier is among them."
        yield NO_CLASSIFIER
    else:
        _, on_known = study.best_against("known", rival, "logits")
        _, on_unseen = study.best_against("unseen_limited", rival)
        yield verdict(on_known, on_unseen)
        comparison = against(study, "known", rival, "the classifier's logits", "logits")
        yield f"Known classes: `{best.name}` {comparison}."
        yield (
            "Unseen classes: a classifier's logits cannot name a class that it was not trained on,"
            f" so they are right for 0%. `{best.name}` is right for"
            f" {percent(study.measure(best, 'unseen_limited'))}, by its gallery."
        )
        yield (
            "The classifier has features too. Searched in the same gallery, they are right for"
            f" {percent(study.measure(rival, 'unseen_limited'))}. `{best.name}`"
            f" {against(study, 'unseen_limited', rival, 'these features')}."
        )
        yield from cost_of_a_class(best, rival)
    if best.name in diagnostics:
        yield from describe_enrolment(diagnostics[best.name])
        yield from describe_unknowns(diagnostics[best.name])


RATHER = {1: "more often than", 0: "not detectably more often than", -1: "less often than"}


def verdict(on_known: int | None, on_unseen: int | None) -> str:
    """In short, from the signs of the differences to the classifier's logits on known and to its
    features on unseen classes."""
    if on_known is None or on_unseen is None:
        return f"{UNDECIDED}: the best method and the classifier have no seed and split in common."
    of_unseen = (
        f"Unseen classes are found {RATHER[on_unseen]} by searching with the classifier's own"
        " features."
    )
    if on_unseen > 0 and on_known >= 0:
        return f"Worth it by these numbers. {of_unseen} Known classes show no detectable loss."
    if on_unseen > 0:
        return (
            f"It depends. {of_unseen} But accuracy on known classes is lost. It is worth it where"
            " new classes keep arriving, not where they are fixed."
        )
    if on_known > 0:
        return f"Yes for known classes, where accuracy is gained. {of_unseen}"
    if on_known < 0 or on_unseen < 0:
        known = "accuracy on known classes is lost"
        if on_known == 0:
            known = "no accuracy is gained on known classes"
        return f"Not by these numbers: {known}. {of_unseen}"
    return (
        "Not decided by these numbers: on known and on unseen classes, the best method shows no"
        " detectable difference from the classifier. The classifier's features can also add a class"
        " without training."
    )


def cost_of_a_class(best: TableRow, rival: TableRow) -> Iterator[str]:
    """Training anew against enrolling, both measured."""
    main_phase = rival.runs[0].protocol.main_phase
    seconds = [seconds_of(run.costs[main_phase]) for run in rival.runs]
    retrain = sum(seconds) / len(seconds)
    rates = [photo_rate(run) for run in best.runs]
    gallery = best.runs[0].neighbours[main_phase].gallery_labels
    images = len(gallery) / len(np.unique(gallery))
    sentence = (
        f"Adding a class by training the classifier again takes {duration(retrain)} (measured, with"
        " all classes)."
    )
    if not all(rates):
        yield (
            f"{sentence} These runs trained a head on stored features, so the time to embed a photo"
            " was not measured."
        )
        return
    rate = sum(filter(None, rates)) / len(rates)
    yield (
        f"{sentence} Enrolling the {images:.0f} images of an average class takes"
        f" {images / rate:.2f} s, {retrain * rate / images:,.0f} times less. This uses the measured"
        f" rate of {rate:.0f} photos/s, from file to embedding."
    )


def photo_rate(run: Run) -> float | None:
    """Photos a second. Earlier runs measured images that were decoded already, or, of a head alone,
    features, which says nothing."""
    cost = run.costs.get(run.protocol.main_phase)
    if cost is None:
        return None
    if "photos_per_second" in cost or run.experiment.model.trainable == "head":
        return cost.get("photos_per_second")
    return cost.get("embed_images_per_second")


def describe_enrolment(measured: Diagnostics) -> Iterator[str]:
    """Accuracy by the number of images that are enrolled."""
    if not measured.enrolment:
        return
    curve = measured.enrolment["images"]
    mean, low, high = curve.band("unseen")
    last = len(curve.ks) - 1
    five = next((place for place, k in enumerate(curve.ks) if k >= 5), last)
    accuracies = []
    for place in sorted({1, five, last}):
        interval = band(low[place], high[place]) if place < last else ""
        accuracies.append(
            f"{percent(float(mean[place]))}{interval} with {enrolled_images(curve.ks, place)}"
        )
    old = curve.band("seen")[0]
    yield (
        f"How many images a new class needs: `{measured.line.name}`, not trained on the new"
        f" classes, is right for {', '.join(accuracies)}. Brackets hold 95% of the random choices"
        f" of images. On the old classes it goes from {percent(float(old[0]))} to"
        f" {percent(float(old[-1]))}."
    )


def enrolled_images(ks: Sequence[int], place: int) -> str:
    if place == len(ks) - 1:
        return f"all (up to {ks[place]})"
    return "one image of each class" if ks[place] == 1 else str(ks[place])


def band(low: float, high: float) -> str:
    return "" if high - low < 0.0005 else f" [{hundred(low)}, {hundred(high)}]"


def describe_unknowns(measured: Diagnostics) -> Iterator[str]:
    """How well similarity separates unknown from known queries, and what a threshold does."""
    if not measured.open_set:
        return
    threshold = measured.summary_of(WANTED_PRECISION, 0.0)
    outcome = f"No similarity promises {percent(WANTED_PRECISION)} precision"
    if threshold.promised:
        outcome = (
            f"In {threshold.promised} of {counted(threshold.models, 'model')}, a threshold promises"
            f" {percent(WANTED_PRECISION)} precision on known classes"
        )
    outcome += f", chosen on {measured.chosen_on}"
    if not math.isnan(threshold.precision):
        outcome += (
            f"; on the other queries, it answers {percent(threshold.coverage)}, of which"
            f" {percent(threshold.precision)} are right"
        )
    yield (
        f"While the new classes are not enrolled, `{measured.line.name}` ranks a known query above"
        f" an unknown one with probability {measured.mean('auroc'):.2f}, by the nearest similarity"
        f" (AUROC; .5 is chance). {outcome}."
    )


# Where no class of the test images is trained on


def disjoint_classification(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    yield (
        f"{UNDECIDED}: in this protocol no test class is trained on, so there are no known classes"
        " to classify."
    )


def disjoint_unseen(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    yield (
        f"The best method, `{best.name}`, has {percent(study.measure(best, 'known'))} P@1 on"
        f" classes never trained on (mean over classes, {seeds_of(best)})."
    )
    with_drop = " or ".join(f"`{entry.name}`" for entry in protocols if entry.facts["has_drop"])
    yield (
        "These runs cannot show the cost of not training on these classes: no model here saw these"
        f" classes. Experiments with protocol {with_drop} measure it."
    )


def disjoint_trade_offs(study: Study, best: TableRow, diagnostics: Measured) -> Iterator[str]:
    rival = study.rival
    if rival is None:
        yield f"{UNDECIDED}: no softmax classifier is among them."
        return
    features = f"the features of the classifier `{rival.name}`"
    yield (
        f"On classes never trained on, `{best.name}` {against(study, 'known', rival, features)}."
    )
    yield "The cost on known classes is not measured: this protocol has no known classes."


Answer = Callable[[Study, TableRow, Measured], Iterator[str]]

HOLDOUT_ANSWERS: tuple[Answer, ...] = (classification, unseen_classes, rarity, trade_offs)
DISJOINT_ANSWERS: tuple[Answer, ...] = (
    disjoint_classification,
    disjoint_unseen,
    rarity,
    disjoint_trade_offs,
)
