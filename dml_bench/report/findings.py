"""The study's four questions in plain sentences, made from the numbers and their intervals, or said
to be beyond them.

Names of experiments and commands stand between backticks, which the page and the Markdown set as
code.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dml_bench.analysis.diagnostics import WANTED_PRECISION, Diagnostics
from dml_bench.analysis.study import Study, certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.registry import protocols
from dml_bench.report.format import (
    compared,
    counted,
    hundred,
    named,
    percent,
    points,
    seeds_of,
)
from dml_bench.runs.run import Run
from dml_bench.system.terminal import duration

__all__ = ["QUESTIONS", "Finding", "findings", "verdict"]

QUESTIONS = (
    "How well do metric-learning methods classify?",
    "Do their embeddings hold for classes never trained on?",
    "Why is a method that rules face recognition so rare elsewhere?",
    "What are the trade-offs against a softmax classifier, and are they worth it?",
)
UNTOLD = "This can't be told from these runs"
CLASSIFIER = "`dml-bench run crossentropy_resnet18_sgd_aug` makes one"
LITTLE = 0.05
"""A loss that lies wholly below this is a small one."""

Looks = dict[str, Diagnostics]
"""By the name of the experiment."""


@dataclass(frozen=True, slots=True)
class Finding:
    question: str
    short: str
    """The answer in a sentence."""
    sentences: tuple[str, ...]
    """What it rests on."""


def findings(section: Study, looks: Looks) -> list[Finding]:
    """One for each question. Where metric learning, or a classifier, is not among the runs, it says
    so."""
    best = section.best
    if best is None:
        return [
            Finding(question, f"{UNTOLD}: none of them is a metric-learning experiment.", ())
            for question in QUESTIONS
        ]
    parts = DROP if section.has_drop else DISJOINT
    told = [list(part(section, best, looks)) for part in parts]
    return [
        Finding(question, short, tuple(rest))
        for question, (short, *rest) in zip(QUESTIONS, told, strict=True)
    ]


def widened(count: int) -> str:
    return f"(intervals widened for {count} comparisons)"


# 1. How well do they classify?


def classification(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    measured, rival = percent(section.measure(best, "known")), section.rival
    if rival is None:
        yield (
            f"The best here is right for {measured} of the test images. Whether a softmax"
            " classifier does better can't be told from these runs."
        )
        yield from accuracy_of_methods(section, best)
        yield f"There is no softmax classifier among these runs to compare with; {CLASSIFIER}."
        return
    theirs, (_, sign) = (
        percent(section.measure(rival, "logits")),
        section.best_against("known", rival, "logits"),
    )
    lead = {1: "Better than a", 0: "No difference can be told from a", -1: "Worse than a"}[
        sign or 0
    ]
    yield (
        f"{lead} softmax classifier: the best is right for {measured} of the test images, the"
        f" classifier for {theirs}."
    )
    yield from accuracy_of_methods(section, best)
    yield (
        f"The classifier `{rival.name}` names the right class for {theirs} by its own logits:"
        f" `{best.name}` {against(section, 'known', rival, 'logits')}."
    )
    features = against(section, "known", rival)
    yield (
        "Looked up in the same gallery, the classifier's features reach"
        f" {percent(section.measure(rival, 'known'))}: `{best.name}` {features}."
    )
    yield from against_logits(section, rival)


def against(
    section: Study, quantity: str, rival: TableRow, of_rival: str = "", what: str = "that"
) -> str:
    """The best compared with the rival."""
    value, sign = section.best_against(quantity, rival, of_rival)
    return compared(value, what, len(section.methods), sign)


def accuracy_of_methods(section: Study, best: TableRow) -> Iterable[str]:
    methods, worst, baseline = section.methods, section.worst, section.baseline
    assert worst is not None
    told = (
        f"for {percent(section.measure(best, 'known'))} of the test images the nearest gallery"
        f" image is of the right class (P@1, mean over {counted(num_classes(section), 'class')},"
        f" {seeds_of(best)})"
    )
    if len(methods) == 1:
        yield f"The one metric-learning experiment is `{best.name}`: {told}."
        return
    last = f"`{worst.name}` is last with {percent(section.measure(worst, 'known'))}"
    yield (
        f"Of {len(methods)} metric-learning experiments, `{best.name}` classifies best: {told}."
        f" {last}."
    )
    if baseline is not None and baseline is not best:
        yield (
            f"Being picked as the best of {len(methods)} flatters it a little. The baseline"
            f" `{baseline.name}` reaches {percent(section.measure(baseline, 'known'))}:"
            f" `{best.name}` {compared(section.difference(best, 'known', baseline), 'that')}."
        )


def against_logits(section: Study, rival: TableRow) -> Iterable[str]:
    """How many of the methods differ from the classifier's logits."""
    count = len(section.methods)
    if count < 2:
        return
    signs = [
        certain_sign(section.difference(line, "known", rival, "logits", count))
        for line in section.methods
    ]
    yield (
        f"Of all {count}: {signs.count(1)} above the classifier's logits, {signs.count(-1)} below,"
        f" and {signs.count(0)} that can't be told from them {widened(count)}."
    )


def num_classes(section: Study) -> int:
    return int(section.first.summary["dataset"]["num_classes"])


# 2. Do they hold for classes never trained on?


def unseen_classes(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    yield held_or_not(section, best)
    closer = {line.name: line for line in (best, section.baseline) if line is not None}
    for line in closer.values():
        yield drop_of(section, line)
    yield from drops_of_all(section)
    yield from drops_against_baseline(section)
    if len(section.holdouts) > 1:
        yield between_holdouts(section, list(closer.values()))
    else:
        unseen = counted(len(section.first.summary["unseen_classes"]), "unseen class")
        yield f"All this is for one choice of {unseen}; others may be easier or harder."


def held_or_not(section: Study, best: TableRow) -> str:
    """The answer in a sentence: of all experiments together where there are several, since one
    alone has few unseen classes."""
    found, chance = section.measure(best, "unseen_limited"), 1 / num_classes(section)
    together = section.pooled("drop_unseen") if len(section.methods) > 1 else None
    loss = together or section.measure(best, "drop_unseen")
    assert found is not None and loss is not None
    finds = (
        f"the best finds {percent(found)} of the unseen classes' test images, where chance finds"
        f" {percent(chance)}"
    )
    average = (
        f"on average over {len(section.methods)} metric-learning experiments " if together else ""
    )
    if math.isnan(found.low) or found.low <= chance:
        return f"Not that it could be told: {finds}."
    if certain_sign(loss) > 0:
        return (
            f"In part: {finds}; but {average or 'it '}{'they lose' if average else 'loses'}"
            f" {points(loss)} there against training on them."
        )
    if not math.isnan(loss.high) and loss.high <= LITTLE:
        return (
            f"Yes: {finds}, and the loss against training on them is small:"
            f" {average}{points(loss)}."
        )
    return (
        f"They are of use there, for {finds}; but whether precision is lost can't be told:"
        f" {average}{points(loss)}."
    )


CERTAIN = {1: "a loss beyond noise", 0: "which can't be told from none", -1: "a gain beyond noise"}


def drop_of(section: Study, line: TableRow) -> str:
    loss, seen = section.measure(line, "drop_unseen"), section.measure(line, "drop_seen")
    before, after = (
        percent(section.measure(line, quantity)) for quantity in ("unseen_all", "unseen_limited")
    )
    also = (
        ", so part of the loss comes from training on fewer images, or from the gallery's confusing"
        " more"
        if certain_sign(seen) > 0
        else ""
    )
    return (
        f"`{line.name}` finds {before} of the unseen classes' test images if it trained on these"
        f" classes, and {after} if it did not (their images are in the gallery either way): a drop"
        f" of {points(loss)}, {CERTAIN[certain_sign(loss)]}. On the classes that both models"
        f" trained on, the drop is {points(seen)}{also}."
    )


def between_holdouts(section: Study, lines: Sequence[TableRow]) -> str:
    """What the drop owes to the choice of the classes held out."""
    told = []
    for line in lines:
        each = section.holdout_drops(line).mean(1)
        told.append(
            f"of `{line.name}` they lie from {hundred(min(each))} to {hundred(max(each))} points,"
            f" with a standard deviation of {hundred(each.std(ddof=1))} points"
        )
    return f"The drops are means over {len(section.holdouts)} rotated hold-outs: {'; '.join(told)}."


def drops_of_all(section: Study) -> Iterable[str]:
    """How many lose, and the smallest and largest drop."""
    lines = section.finished
    if len(lines) < 2:
        return
    drops = {line.name: section.measure(line, "drop_unseen") for line in lines}
    signs = [section.loses(line, len(lines)) for line in lines]
    lose = str(signs.count(1)) if any(signs) else "none"
    yield (
        f"Taken one by one, {lose} of {len(lines)} experiments"
        f" lose{'s' if lose in ('1', 'none') else ''} precision on the unseen classes beyond noise"
        f" {widened(len(lines))}."
    )
    order = sorted(
        lines, key=lambda line: drop.estimate if (drop := drops[line.name]) else math.nan
    )
    low, high = (f"`{line.name}`, {points(drops[line.name])}" for line in (order[0], order[-1]))
    yield f"The smallest drop is that of {low}; the largest that of {high}."


def drops_against_baseline(section: Study) -> Iterable[str]:
    """Which drops differ from the baseline's."""
    baseline = section.baseline
    others = [line for line in section.finished if line is not baseline]
    if baseline is None or not others:
        return
    count = len(others)
    signs = {
        line.name: certain_sign(
            section.difference(line, "drop_unseen", baseline, comparisons=count)
        )
        for line in others
    }
    more, less = ([line for line in others if signs[line.name] == sign] for sign in (1, -1))
    if not more and not less:
        yield (
            f"Query by query, none of the {counted(count, 'other drop')} can be told from that of"
            f" the baseline `{baseline.name}` {widened(count)}: these runs don't decide which"
            " method drops least."
        )
        return
    told = [
        f"{named(lines)} drop{'s' if len(lines) == 1 else ''} {how}"
        for lines, how in ((more, "more"), (less, "less"))
        if lines
    ]
    yield (
        f"Query by query against the baseline `{baseline.name}`, {' and '.join(told)}; the other"
        f" {count - len(more) - len(less)} can't be told from it {widened(count)}."
    )


# 3. Why so rare?


def rarity(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    rival = section.rival
    yield (
        "Numbers give only part of an answer: habits, tools, and what the data of other fields look"
        " like were not measured. What these runs can say is what it costs and what it brings."
    )
    if rival is None:
        yield (
            f"{UNTOLD.replace('This', 'Whether it pays')}: without a softmax classifier among them"
            f" there is nothing to hold its cost and gain against; {CLASSIFIER}."
        )
        yield (
            f"`{best.name}` took {duration(training_seconds(best))} of training (all phases, mean"
            f" over seeds) and {memory(best)} of memory."
        )
    else:
        if section.has_drop:
            told = against(section, "known", rival, "logits", "the logits of the classifier")
            yield (
                "Where the classes are fixed:"
                f" {BRINGS[section.best_against('known', rival, 'logits')[1] or 0]} `{best.name}`"
                f" {told}."
            )
        yield from cost_against(best, rival)
    yield from gallery_cost(best)
    if len(section.methods) > 2 and section.worst is not None:
        width = hundred(section.accuracy(best) - section.accuracy(section.worst))
        yield (
            f"The recipe decides much: between the best and the worst of {len(section.methods)}"
            f" experiments lie {width} points of P@1."
        )
    if section.has_drop:
        yield (
            "Its own promise, new classes without training, is kept at a discount:"
            f" {points(section.measure(best, 'drop_unseen'))} for `{best.name}`."
        )


BRINGS = {
    1: "it brings accuracy.",
    0: "it brings no accuracy that could be told from noise.",
    -1: "it costs accuracy.",
}


def parts_of_cost(line: TableRow) -> list[list[dict[str, float]]]:
    """By seed, the cost of each phase."""
    return [
        [part for part in run.summary["cost"].values() if isinstance(part, dict)]
        for run in line.runs
    ]


def training_seconds(line: TableRow) -> float:
    """Of all phases with what their own starts took, mean over seeds."""
    sums = [
        sum(part["train_seconds"] + part.get("start_seconds", 0.0) for part in parts)
        for parts in parts_of_cost(line)
    ]
    return sum(sums) / len(sums)


def memory(line: TableRow) -> str:
    """The most of all seeds."""
    return f"{max(part['peak_memory_bytes'] for parts in parts_of_cost(line) for part in parts) / 2**30:.1f} GiB"


def cost_against(best: TableRow, rival: TableRow) -> Iterable[str]:
    mine, theirs = training_seconds(best), training_seconds(rival)
    yield (
        f"Training `{best.name}` took {duration(mine)} and the classifier {duration(theirs)},"
        f" {mine / theirs:.2f} times as long (all phases, mean over seeds; wall-clock time of runs"
        f" that may have shared a machine), with at most {memory(best)} against {memory(rival)} of"
        " memory."
    )


def gallery_cost(line: TableRow) -> Iterable[str]:
    """What has to be kept and searched."""
    run = line.runs[0]
    phase = run.protocol.main_phase
    seconds = [
        part["search_seconds"]
        for parts in parts_of_cost(line)
        for part in parts
        if "search_seconds" in part
    ]
    if not run.has_embeddings(phase) or not seconds:
        return
    images, dim = run.embeddings(phase).gallery.shape
    found = run.neighbours[phase]
    per_query = 1000 * sum(seconds) / len(seconds) / len(found.query_labels)
    yield (
        f"It has to keep a gallery: {images:,} embeddings of {dim} numbers,"
        f" {images * dim * 4 / 1024:,.0f} KiB, where a classifier keeps one vector for each of"
        f" {len(set(found.gallery_labels.tolist()))} classes. The exact look-up of a query took"
        f" {per_query:.3f} ms."
    )


# 4. Trade-offs


def trade_offs(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    rival = section.rival
    if rival is None:
        yield f"{UNTOLD}: no softmax classifier is among them; {CLASSIFIER}."
    else:
        yield verdict(
            section.best_against("known", rival, "logits")[1],
            section.best_against("unseen_limited", rival)[1],
        )
        yield (
            f"Known classes: `{best.name}`"
            f" {against(section, 'known', rival, 'logits', 'the logits of the classifier')}."
        )
        yield (
            "Unseen classes: a classifier's logits can't name a class that it was not trained on,"
            f" so they are right for 0%. `{best.name}` finds"
            f" {percent(section.measure(best, 'unseen_limited'))} of their test images in the"
            " gallery."
        )
        yield (
            "But the classifier has features too. Looked up in the same way, they find"
            f" {percent(section.measure(rival, 'unseen_limited'))}: `{best.name}`"
            f" {against(section, 'unseen_limited', rival)}."
        )
        yield from cost_of_a_class(best, rival)
    if best.name in looks:
        yield from enrolment_in_words(looks[best.name])
        yield from unknowns_in_words(looks[best.name])


def verdict(on_known: int | None, on_unseen: int | None) -> str:
    """In a sentence, from the signs of the differences to the classifier's logits on known and to
    its features on unseen classes."""
    if on_known is None or on_unseen is None:
        return f"{UNTOLD}: the best method and the classifier have no seed and split in common."
    if on_unseen > 0 and on_known >= 0:
        return (
            "Worth it by these numbers: no loss of accuracy on known classes can be told, and"
            " unseen classes are found more often than by the classifier's own features."
        )
    if on_unseen > 0:
        return (
            "It depends: unseen classes are found more often than by the classifier's own features,"
            " at the price of accuracy on known classes. Worth it where classes keep arriving, not"
            " where they are fixed."
        )
    rather = "less often than" if on_unseen < 0 else "no more often, as far as can be told, than"
    if on_known > 0:
        return (
            f"For known classes, where accuracy is gained, yes; unseen classes are found {rather}"
            " by the classifier's own features."
        )
    if on_known < 0 or on_unseen < 0:
        lost = (
            "accuracy on known classes is lost"
            if on_known < 0
            else "no accuracy is gained on known classes"
        )
        return (
            f"Not by these numbers: {lost}, and unseen classes are found {rather} by looking up the"
            " classifier's own features."
        )
    return (
        "Not decided by these numbers: neither on known nor on unseen classes can the best method"
        " be told from a classifier and its features. What it offers, adding a class without"
        " training, those features offer as well."
    )


def cost_of_a_class(best: TableRow, rival: TableRow) -> Iterable[str]:
    """Training anew against enrolling, both measured."""
    theirs = [run.summary["cost"].get("all", {}) for run in rival.runs]
    retrain = sum(part["train_seconds"] + part.get("start_seconds", 0.0) for part in theirs) / len(
        theirs
    )
    rates = [photo_rate(run) for run in best.runs]
    gallery = best.runs[0].neighbours["all"].gallery_labels
    images = len(gallery) / len(set(gallery.tolist()))
    anew = (
        f"Adding a class: training the classifier anew takes {duration(retrain)} (measured, with"
        " all classes)."
    )
    if not all(rates):
        yield (
            f"{anew} How fast photos are embedded was not measured by these runs, which trained a"
            " head on features computed once."
        )
        return
    rate = sum(filter(None, rates)) / len(rates)
    yield (
        f"{anew} Enrolling the {images:.0f} images of an average class takes {images / rate:.2f} s"
        f" at the {rate:.0f} photos/s, from the file to the embedding, that were measured:"
        f" {retrain * rate / images:,.0f} times less."
    )


def photo_rate(run: Run) -> float | None:
    """Photos a second. Earlier runs measured images that were decoded already, or, of a head alone,
    features, which says nothing."""
    cost = run.summary["cost"].get("all", {})
    if "photos_per_second" in cost or run.experiment.model.trainable == "head":
        return cost.get("photos_per_second")
    return cost.get("embed_images_per_second")


def enrolment_in_words(look: Diagnostics) -> Iterable[str]:
    if not look.enrolment:
        return
    curve = look.enrolment["images"]
    mean, low, high = curve.band("unseen")
    last = len(curve.ks) - 1
    five = next((i for i, k in enumerate(curve.ks) if k >= 5), last)
    told = [
        f"{percent(float(mean[i]))}{band(low[i], high[i]) if i < last else ''} with"
        f" {enrolled_images(curve.ks, i)}"
        for i in sorted({1, five, last})
    ]
    old = curve.band("seen")[0]
    yield (
        f"How many images a new class needs: `{look.line.name}`, not trained on them, finds"
        f" {', '.join(told)} (in brackets, 95% of the random choices of images). The old classes go"
        f" from {percent(float(old[0]))} to {percent(float(old[-1]))} meanwhile."
    )


def enrolled_images(ks: Sequence[int], i: int) -> str:
    if i == len(ks) - 1:
        return f"all (up to {ks[i]})"
    return "one image of each class" if ks[i] == 1 else str(ks[i])


def band(low: float, high: float) -> str:
    return "" if high - low < 0.0005 else f" [{hundred(low)}, {hundred(high)}]"


def unknowns_in_words(look: Diagnostics) -> Iterable[str]:
    if not look.open_set:
        return
    precision, coverage = look.answered
    if math.isnan(precision):
        answered = "answers none of the queries"
    else:
        answered = (
            f"answers {percent(coverage)} of all queries and is right for {percent(precision)} of"
            " those"
        )
    yield (
        f"While the new classes are not enrolled, the nearest similarity of `{look.line.name}`"
        f" ranks a known query above an unknown one with probability {look.mean('auroc'):.2f}"
        f" (AUROC; .5 is chance). A threshold chosen for {percent(WANTED_PRECISION)} precision on"
        f" {look.chosen_on} {answered}."
    )


# Where no class of the test images is trained on


def retrieval(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    yield (
        f"{UNTOLD}: in this protocol no class of the test images is trained on, so there are no"
        " known classes to classify."
    )


def disjoint_unseen(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    yield (
        f"The best, `{best.name}`, finds an image of the right class first for"
        f" {percent(section.measure(best, 'known'))} of the queries, all of classes never trained"
        f" on (P@1, mean over classes, {seeds_of(best)})."
    )
    with_drop = " or ".join(f"`{entry.name}`" for entry in protocols if entry.facts["has_drop"])
    yield (
        "How much less that is than with training on them can't be told from these runs: no model"
        f" here saw these classes. Experiments with protocol {with_drop} tell."
    )


def disjoint_trade(section: Study, best: TableRow, looks: Looks) -> Iterable[str]:
    if (rival := section.rival) is None:
        yield f"{UNTOLD}: no softmax classifier is among them."
        return
    difference = against(
        section, "known", rival, what=f"the features of the classifier `{rival.name}`"
    )
    yield f"On classes never trained on, `{best.name}` {difference}."
    yield (
        "What it costs on known classes can't be told from these runs: the protocol asks about"
        " none."
    )


DROP = (classification, unseen_classes, rarity, trade_offs)
DISJOINT = (retrieval, disjoint_unseen, rarity, disjoint_trade)
