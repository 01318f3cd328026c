"""The answers on a report's first screen: a question, one sentence, and a small picture.

Each number of a sentence is the value that a table of the same page shows. Short names stand
between backticks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.evaluation.few_shot import RefitCurve
from dml_bench.plots.answers import draw_answers
from dml_bench.plots.canvas import ReportFigure
from dml_bench.report.format import (
    compared,
    cost_points,
    including_zero,
    number,
    percent,
    time_taken,
)
from dml_bench.runs.run import Run
from dml_bench.system.counted import counted
from dml_bench.system.terminal import duration

__all__ = [
    "QUESTIONS",
    "STUDY_QUESTIONS",
    "Answer",
    "answers",
    "classification",
    "enrolment",
    "facts",
    "photo_rate",
    "rarity",
    "recipe",
    "training",
    "unseen_classes",
]

QUESTIONS = (
    "Can it replace my classifier?",
    "What do I lose on new classes?",
    "How many photos does a new class need?",
    "What does it cost?",
)
STUDY_QUESTIONS = (
    "How well do metric-learning methods classify?",
    "Do their embeddings work for classes never trained on?",
    "What are the trade-offs against a classifier, and are they worth it?",
    "Why is a method that dominates face recognition so rare elsewhere?",
)
"""Those of the original study, in the order of the others."""
OF_UNSEEN = "How well does it find classes never trained on?"
OF_LABELS = "How often does the nearest image have the same labels?"

FEW_PHOTOS = 5
SPLITS = {
    "stratified": "random within each class",
    "half": "the first half of the classes trains, the second half is tested",
    "given": "the data set's own",
    "grouped": "no group is on both sides",
    "time": "in each class, the newest images are the queries",
}
FIRST_WEIGHTS = {
    "none": "at random",
    "source": "from other drawn birds",
    "imagenet": "from ImageNet",
}
"""What training begins with, by the name of the weights."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question."""

    question: str
    sentence: str
    figure: ReportFigure | None = None


def answers(study: Study, diagnostics: Mapping[str, Diagnostics]) -> list[Answer]:
    """Those that these runs can give."""
    figures = draw_answers(study, diagnostics)
    if not study.has_drop:
        question = OF_LABELS if study.has_label_sets else OF_UNSEEN
        results = [Answer(question, retrieval(study), figures.accuracy)]
        return [*results, Answer(QUESTIONS[3], training(study), figures.training)]
    replace, lose, need, cost = STUDY_QUESTIONS if study.is_original else QUESTIONS
    results = [Answer(replace, classification(study), figures.accuracy)]
    if study.best_unseen is not None:
        results.append(Answer(lose, unseen_classes(study, study.best_unseen), figures.unseen_cost))
    if figures.enrolment:
        results.append(Answer(need, enrolment(study, diagnostics), figures.enrolment))
    sentence = rarity(study) if study.is_original else training(study)
    return [*results, Answer(cost, sentence, figures.training)]


def of_many(study: Study, line: TableRow, superlative: str) -> str:
    """`X`, best of 15,"""
    if len(study.methods) < 2:
        return f"`{line.short}`"
    return f"`{line.short}`, {superlative} of {len(study.methods)},"


def classification(study: Study) -> str:
    """How many test images the best is right for, beside the classifier's own logits, where there
    is one."""
    best, rival = study.best, study.rival
    if best is None:
        assert rival is not None
        measured = percent(study.measure(rival, "logits"))
        if len(study.finished) == 1:
            return f"These runs have only `{rival.short}`, right for {measured} of test images."
        named = f"`{rival.short}`"
        if len(study.rivals) > 1:
            named += f", of {len(study.rivals)} classifiers the one with the best features,"
        return (
            f"None of these runs is metric learning; {named} is right for {measured} of test"
            f" images{beside_untrained(study, rival)}."
        )
    start = (
        f"{of_many(study, best, 'best')} is right for {percent(study.measure(best, 'known'))} of"
        " test images"
    )
    start += beside_untrained(study, best)
    if rival is None:
        return f"{start}; no classifier is among these runs."
    logits = percent(study.measure(rival, "logits"))
    difference = compared(study.beside_rival(best, "known"))
    return f"{start}, the classifier's logits for {logits}: {difference}."


def beside_untrained(study: Study, best: TableRow) -> str:
    """`, no training for 48.1%`, by the nearest image; nothing where all is trained."""
    line = study.no_training
    if line is None or line is best:
        return ""
    return f", no training for {percent(study.measure(line, 'known'))}"


def unseen_classes(study: Study, line: TableRow) -> str:
    """How many images of classes that it never trained on a method is right for, what that costs,
    and what no training finds."""
    cost, untrained = study.measure(line, "cost"), study.no_training
    accuracy = percent(study.measure(line, "unseen_limited"))
    sentence = f"{of_many(study, line, 'best')} is right for {accuracy} of images of new classes"
    if cost is not None:
        sentence += f"; that costs {cost_points(cost)}{including_zero(cost)}"
    if untrained is not None and untrained is not line:
        sentence += f"; no training finds {percent(study.measure(untrained, 'unseen_limited'))}"
    return f"{sentence}."


def enrolment(study: Study, diagnostics: Mapping[str, Diagnostics]) -> str:
    """At a few images, and at all, which is what the run measured; of the first of its picture,
    as runs without embeddings have no curve."""
    chosen = (study.best_unseen, study.baseline, study.rival)
    lines = [line for line in chosen if line is not None and line.name in diagnostics]
    line = next(line for line in lines if diagnostics[line.name].enrolment)
    curve = diagnostics[line.name].enrolment["images"]
    mean, low, high = curve.band("unseen")
    last = len(curve.ks) - 1
    few = next((place for place, k in enumerate(curve.ks) if k >= FEW_PHOTOS), last)
    sentence = f"Of a new class, `{line.short}` finds"
    if few < last:
        draws = " to ".join(number(float(end[few]), is_signed=False) for end in (low, high))
        sentence += (
            f" {percent(float(mean[few]))} with {curve.ks[few]} images enrolled (95% of draws:"
            f" {draws}),"
        )
    of_all = study.measure(line, "unseen_limited")
    if of_all is not None and line is study.best_unseen:
        share = percent(of_all.estimate)  # the answer before has its interval
    else:
        share = percent(of_all)
    sentence += f" {share} with all, at most {curve.ks[last]}"
    if study.rival is None or line is study.rival:
        return f"{sentence}."
    refit = diagnostics[study.rival.name].enrolment.get("refit")
    if not isinstance(refit, RefitCurve):
        return f"{sentence}; a classifier's logits find none."
    few = min(few, len(refit.ks) - 1)
    share = percent(float(refit.unseen[few].mean()))
    return (
        f"{sentence}; a classifier refitted with {refit.ks[few]} finds {share}"
        f" ({time_taken(refit.seconds[few].mean())})."
    )


def training(study: Study) -> str:
    """The time of the best, beside the classifier's where the two can be compared."""
    best, rival = study.best or study.rival or study.finished[0], study.rival
    named = f"`{best.short}` ({percent(study.measure(best, 'known'))})"
    if rival is None or rival is best:
        sentence = f"{named} trained for {took(best)}"
    elif best.cpu_seconds is None or rival.cpu_seconds is None:
        sentence = f"The training times of {named} and the classifier are not comparable"
    else:
        sentence = f"{named} trained for {took(best)}, the classifier for {took(rival)}"
    photo = photo_time(best)
    return f"{sentence}; enrolling a photo takes {photo}." if photo else f"{sentence}."


def rarity(study: Study) -> str:
    """What these runs can say of it."""
    best, rival = study.best, study.rival
    if best is None or rival is None:
        return f"These runs don't say: they lack a classifier. {training(study)}"
    named = f"`{best.short}` ({percent(study.measure(best, 'known'))})"
    times = best.times_the_training_of(rival)
    if times is None:
        part = f"the training times of {named} and the classifier are not comparable"
    else:
        part = f"{named} needs {times:.1f} times the classifier's CPU time"
    return f"Only a part: {part}; other fields were not measured."


def retrieval(study: Study) -> str:
    """Where no class of the test images is trained on, or images have several labels."""
    best = study.best or study.finished[0]
    accuracy = percent(study.measure(best, "known"))
    if study.has_label_sets:
        return (
            f"{of_many(study, best, 'best')} finds an image of exactly the same labels first for"
            f" {accuracy} of the test images, the mean over combinations of labels."
        )
    return (
        f"{of_many(study, best, 'best')} finds an image of the right class first for {accuracy} of"
        " the test images, all of classes that it never trained on."
    )


def took(line: TableRow) -> str:
    """`4:53 of CPU time`; where that is not known, `7:30 by the clock`, which nothing is compared
    with."""
    if line.cpu_seconds is not None:
        return f"{time_taken(line.cpu_seconds)} of CPU time"
    return "an unknown time" if line.cost[0] is None else f"{duration(line.cost[0])} by the clock"


def photo_time(line: TableRow) -> str:
    """`18 ms of CPU time`, the mean of the seeds that counted it; else `27 ms by the clock`, which
    other work on the machine only lengthens, so of the fastest; empty where it was not measured."""
    costs = [run.costs.get(run.protocol.main_phase) for run in line.runs]
    counted = [cost["photo_cpu_seconds"] for cost in costs if cost and "photo_cpu_seconds" in cost]
    if counted:
        return f"{1000 * sum(counted) / len(counted):.0f} ms of CPU time"
    rates = [photo_rate(run) or 0.0 for run in line.runs]
    return f"{1000 / max(rates):.0f} ms by the clock" if all(rates) else ""


def photo_rate(run: Run) -> float | None:
    """Photos a second. Earlier runs measured images that were decoded already, or, of a part of the
    network, features, which says nothing."""
    cost = run.costs.get(run.protocol.main_phase)
    if cost is None:
        return None
    if "photos_per_second" in cost or run.experiment.model.trainable != "all":
        return cost.get("photos_per_second")
    return cost.get("embed_images_per_second")


# What it is all about


def facts(study: Study) -> Iterator[tuple[str, str]]:
    """Data, split, unseen classes, training and runs, each in a few words."""
    run = study.first
    dataset, experiment = run.summary["dataset"], run.experiment
    yield (
        "Data",
        f"{dataset['name']}, {dataset['num_images']:,} images of"
        f" {counted(dataset['num_classes'], 'class')}",
    )
    split = experiment.data.split
    described = experiment.data.described_split
    if split in SPLITS:
        described += f": {SPLITS[split]}"
    if split == "stratified" and not study.group.profile:
        described += "; similar photos may leak"
    yield "Split", described
    if study.has_drop:
        yield "Unseen", unseen_rule(study)
    yield "Training", recipe(study)
    yield "Runs", f"{counted(len(study.finished), 'experiment')}, {seed_counts(study)}"


def unseen_rule(study: Study) -> str:
    counts = {len(classes) for classes in study.first.held_out.values()}
    classes = "about " if len(counts) > 1 else ""
    classes += counted(max(counts), "class")
    rule = study.first.experiment.unseen
    if len(study.holdouts) > 1:
        return f"{classes} in each of {len(study.holdouts)} rotated hold-outs ({rule})"
    return f"{classes} ({rule})"


def recipe(study: Study) -> str:
    """What most experiments that train have in common, or all where none does."""
    experiments = [line.runs[0].experiment for line in study.finished]
    recipes = []
    for experiment in experiments:
        train, model, size = experiment.train, experiment.model, experiment.images.size
        recipes.append((model.backbone.name, model.weights, train.epochs, size))
    recipes = [one for one in recipes if one[2] > 0] or recipes
    backbone, weights, epochs, size = max(recipes, key=recipes.count)
    first = FIRST_WEIGHTS.get(weights, weights)
    others = sorted({one[2] for one in recipes} - {epochs})
    of_some = f" ({', '.join(map(str, others))} of some)" if others else ""
    sentence = f"{backbone}, weights {first}; {epochs} epochs{of_some} at {size} pixels"
    profile = study.group.profile
    return f"{sentence}; profile {profile}: changes listed below" if profile else sentence


def seed_counts(study: Study) -> str:
    counts = [len(line.runs) for line in study.finished]
    seeds = f"{min(counts)} to {max(counts)} seeds" if min(counts) < max(counts) else ""
    seeds = seeds or counted(max(counts), "seed")
    sentence = f"{seeds}; brackets, lines: 95% intervals, no verdicts"
    if min(counts) < FEWEST_SEEDS:
        sentence += "; under 3 seeds: of these networks only"
    return sentence
