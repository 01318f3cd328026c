"""Whether a submission adds up: what its answers give beside what it says, and what no honest run
can give.

Each check takes a `Submission` and yields what it finds. Those of `FIRST` come before any number is
measured: later checks rely on them.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.board.against_settings import (
    costs_are_possible,
    is_of_the_configured_images,
    trained_as_configured,
)
from dml_bench.board.leaks import (
    answers_are_no_accident,
    gallery_has_no_query,
    phases_are_of_their_training,
)
from dml_bench.board.possible_answers import (
    has_one_value_a_query,
    logits_choose_trained_classes,
    ranking_is_possible,
)
from dml_bench.board.submission import Finding, Submission, refused
from dml_bench.data.datasets import Dataset
from dml_bench.data.publications import PUBLICATIONS
from dml_bench.data.split import Phase, held_out_by, holdouts, phases
from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.protocols.holdout_metrics import (
    drops_of,
    logits_accuracy,
    mean_drops,
    mean_losses,
)
from dml_bench.protocols.metric import value_at
from dml_bench.runs import record_format
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.record import IMAGE_SETS, VOTERS, record_path
from dml_bench.runs.run import RecordedRun
from dml_bench.system.printable import obeyed_character

__all__ = ["CHECKS", "FIRST", "TOLERANCE", "Check"]

Check = Callable[[Submission], Iterator[Finding]]
TOLERANCE = 5e-10
"""What two machines may differ by in the same mean."""
ROUNDED = {"r_precision": 0.5 / (record_format.UNDEFINED_FRACTION - 1)}
"""Metrics of which each query's value is rounded in the answers, and by how much at most."""
LARGEST_GALLERY = 2**26
"""Images: their classes are held in memory, and the counts may come from anybody."""
OF_PHASE = ("nearest", "elected", "similarity", "first_relevant", "at_r", "logits")
"""What the answers may hold of a phase."""
NAMES = {
    "numbers": "metric",
    "intervals": "interval",
    "classes": "single classes",
    "dataset": "data facts",
    "split": "split facts",
    "held_out": "hold-outs",
    "nearest_sha256": "answers",
    "queries_sha256": "query set",
}
"""What a key of the record is called in a refusal; others by themselves."""


# Before anything is measured


def arrays_are_counts(submission: Submission) -> Iterator[Finding]:
    """Classes, steps and counts, of as many images as memory holds."""
    arrays = submission.run.content.arrays
    for name, array in arrays.items():
        if array.dtype.kind != "u":
            yield refused("answers", f"{name} must be unsigned integers, got {array.dtype}")
    if "gallery_counts" in arrays and arrays["gallery_counts"].sum(dtype=float) > LARGEST_GALLERY:
        yield refused("answers", f"a gallery has at most {LARGEST_GALLERY:,} images")


def answers_are_all(submission: Submission) -> Iterator[Finding]:
    """Nothing lies beside the answers, and similarities have steps."""
    arrays, facts = submission.run.content.arrays, submission.facts
    known = {f"{phase}.{name}" for phase in facts["similarities"] for name in OF_PHASE}
    if others := arrays.keys() - known - {"query_labels", "gallery_counts", *IMAGE_SETS}:
        yield refused("answers", f"they hold {min(others)!r}, which is no answer")
    names = [*facts["class_names"], *facts.get("coarse_classes", ())]
    for of_others in ("answered_only", "coarse_of_others"):
        names += facts.get(of_others, {}).values()
    for name in names:
        if character := obeyed_character(name):
            yield refused("answers", f"a class has {character} in its name: give it another")
    last_step = facts.get("last_step", 1)
    if type(last_step) is not int or not 1 <= last_step < 256:
        yield refused("answers", f"last_step must be a number from 1 to 255, got {last_step!r}")


def answers_of_phase(submission: Submission, phase: str) -> list[str]:
    """Those that each query must have; earlier versions have similarities of all phases."""
    main_phase, phases = submission.run.protocol.main_phase, submission.facts["similarities"]
    is_there = f"{phase}.similarity" in submission.run.content.arrays
    if is_there or record_format.keeps_similarities(phase, main_phase, len(phases)):
        return ["nearest", "elected", "similarity"]
    return ["nearest", "elected"]


def answers_fit(submission: Submission) -> Iterator[Finding]:
    """One answer for each query in each phase, each a class that is in the gallery."""
    arrays, facts = submission.run.content.arrays, submission.facts
    if not {"query_labels", "gallery_counts"} <= arrays.keys() or not facts["similarities"]:
        yield refused("answers", "they must have query_labels, gallery_counts and a phase")
        return
    labels, counts = arrays["query_labels"].astype(np.int64), arrays["gallery_counts"]
    if labels.ndim != 1 or counts.ndim != 1 or not len(labels) or labels.max() >= len(counts):
        yield refused("answers", "each query must be of a class of the gallery's list")
        return
    if len(np.unique(labels)) != len(set(facts["class_names"])):
        yield refused(
            "class count",
            f"queries are of {len(np.unique(labels))} classes, and"
            f" {len(set(facts['class_names']))} classes have a name",
        )
    phases = facts["similarities"]
    for phase, ends in phases.items():
        for name in answers_of_phase(submission, phase):
            answers = arrays.get(f"{phase}.{name}")
            if answers is None or answers.shape != labels.shape:
                have = "none" if answers is None else f"{len(answers):,}"
                yield refused(
                    "query set",
                    f"phase {phase} must answer the same {len(labels):,} queries as the others"
                    f" ({name}), got {have}",
                )
                return
        if not (len(ends) == 2 and -1.0001 <= ends[0] <= ends[1] <= 1.0001):
            yield refused("answers", f"similarities of phase {phase} must lie between -1 and 1")
        nearest = record_format.decoded_classes(arrays[f"{phase}.nearest"], labels)
        elected = record_format.decoded_classes(arrays[f"{phase}.elected"], nearest)
        for classes in (nearest, elected):
            if classes.min() < 0 or classes.max() >= len(counts) or not counts[classes].all():
                yield refused("answers", f"phase {phase} answers a class without gallery images")
                return
    yield from has_one_value_a_query(submission)


FIRST: tuple[Check, ...] = (arrays_are_counts, answers_are_all, answers_fit)


# What it says beside what its answers give


def says_what_its_answers_give(submission: Submission) -> Iterator[Finding]:
    """Every key of the JSON that can be measured of the answers, or is a digest of another key."""
    description = submission.run.description
    for key, value in submission.measured.items():
        if key in ("session", "weights", "code_sha256"):
            continue  # nothing else says them
        for place, stated, expected in differences(description.get(key), value, ""):
            name = NAMES.get(key, key.replace("_", " "))
            where = place.removeprefix(".") or key
            yield refused(name, f"{where} is {stated}, the answers give {expected}")


def differences(stated: Any, expected: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """The places at which two values of JSON differ, with both."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in stated if key not in expected)]:
            yield from differences(stated.get(key), expected.get(key), f"{place}.{key}")
    elif isinstance(stated, list | tuple) and isinstance(expected, list | tuple):
        if len(stated) != len(expected):
            yield place, stated, expected
            return
        for part, other in zip(stated, expected, strict=True):
            yield from differences(part, other, place)
    elif not equal(stated, expected):
        yield place, stated, expected


def equal(stated: Any, expected: Any) -> bool:
    """Numbers within the tolerance; all else the same."""
    numbers = (int, float)
    if isinstance(stated, bool) or isinstance(expected, bool):
        return stated is expected
    if isinstance(stated, numbers) and isinstance(expected, numbers):
        return math.isclose(stated, expected, rel_tol=1e-12, abs_tol=TOLERANCE)
    return bool(stated == expected)


def measured_of_phases(run: RecordedRun) -> dict[str, dict[str, float]]:
    """What the summary says of each phase and its answers give: P@1 of the groups of classes, votes
    and the accuracy of logits."""
    measured = {}
    for phase, neighbours in run.neighbours.items():
        labels, right = neighbours.query_labels, precision_at_1(neighbours)
        votes = float((run.elected(phase) == labels).mean())
        numbers = {"recall_at_1": micro(right), f"knn_vote_accuracy.{VOTERS}": votes}
        for suffix, queries in run.holdouts.groups(phase).items():
            if queries.any():
                numbers[f"precision_at_1_macro{suffix}"] = macro(right[queries], labels[queries])
                numbers[f"precision_at_1_micro{suffix}"] = micro(right[queries])
        if f"{phase}.logits" in run.content.arrays:
            predicted = run.logits(phase).predicted
            numbers |= logits_accuracy(predicted, labels, run.held_out.get(phase, ()))
        measured[phase] = numbers
    return measured


def summary_agrees(submission: Submission) -> Iterator[Finding]:
    """The summary that the run wrote at its end has the P@1, the votes and the accuracy of logits
    that the answers give."""
    run = submission.run
    phases: dict[str, Any] = dict(run.summary.get("phases", {}))
    if not run.protocol.has_drop:
        phases = {run.protocol.main_phase: run.summary.get("retrieval", {})}
    for phase, measured in measured_of_phases(run).items():
        stated = phases.get(phase, {})
        if "logits_accuracy_macro_known" in stated.keys() - measured.keys():
            yield refused("summary", f"{phase} has an accuracy of logits, its answers have none")
        for place, value in measured.items():
            shown, name = value_at(stated, place), place.replace(".", " of ")
            if shown is None and run.protocol.has_drop and place.startswith("precision_at_1"):
                yield refused("summary", f"{phase} has no {name} in it, which every run writes")
            elif shown is not None and not equal(shown, value):
                yield refused("summary", f"{phase} {name} is {shown} in it, not {value}")


def measured_drops(run: RecordedRun) -> dict[str, float]:
    """The drops, as the summary of a trained run has them: means over the hold-outs."""
    if not run.protocol.has_drop:
        return {}
    drops = drops_of(run, len(run.content.arrays["gallery_counts"]))
    return mean_drops(drops) | mean_losses(drops)


def shown_numbers_agree(submission: Submission) -> Iterator[Finding]:
    """`load_runs` and some tables show metrics and their intervals as the summary has them."""
    run = submission.run
    measured = measured_drops(run)
    written = set(measured) if submission.record.trained else set()
    numbers = submission.measured["numbers"]
    for metric in metrics_of(run.experiment).values():
        value = numbers[metric.name]
        measured.setdefault(metric.place or metric.name, math.nan if value is None else value)
    for place, value in measured.items():
        shown = value_at(run.summary, place)
        tolerance = ROUNDED.get(place.rpartition(".")[2], TOLERANCE)
        if shown is None and place in written:
            yield refused("summary", f"it has no {place}, which every trained run writes")
        elif shown is not None and not math.isclose(shown, value, abs_tol=tolerance):
            yield refused("summary", f"{place} is {shown} in it, not {value}")
    for name, ends in submission.measured["intervals"].items():
        for place, value in zip((f"{name}_low", f"{name}_high"), ends, strict=True):
            shown = value_at(run.summary, place)
            if shown is not None and not equal(shown, value):
                yield refused("summary", f"{place} is {shown} in it, not {value}")


# What no honest run can give


def counts_are_possible(submission: Submission) -> Iterator[Finding]:
    """Queries, gallery and classes are as many as the split and the data set have."""
    record, run = submission.record, submission.run
    counts = run.content.arrays["gallery_counts"].astype(np.int64)
    labels = run.content.arrays["query_labels"]
    split, protocol = record.split, run.protocol
    if unknown := record.weights.keys() - run.neighbours.keys():
        yield refused("weights", f"it has no phase {min(unknown)!r}, whose weights it names")
    if len(labels) != split.test_images:
        yield refused(
            "query set",
            f"the split has {split.test_images:,} queries, {len(labels):,} are answered",
        )
    in_gallery = int((counts > 0).sum())
    if protocol.has_drop and in_gallery != record.dataset.num_classes:
        yield refused(
            "class count",
            f"the data set has {record.dataset.num_classes} classes, the gallery {in_gallery}",
        )
    if len(np.unique(labels)) > record.dataset.num_classes:
        yield refused(
            "class count",
            f"the data set has {record.dataset.num_classes} classes, the queries"
            f" {len(np.unique(labels))}",
        )


def holdouts_are_possible(submission: Submission) -> Iterator[Finding]:
    """Every class that is held out has a name and is held out once of a phase; the phases and their
    classes are those that the rule draws."""
    run = submission.run
    names = set(submission.facts["class_names"])
    for phase, held_out in run.protocol.held_out(run.summary).items():
        if len(set(held_out)) != len(held_out) or not set(held_out) <= names:
            yield refused("hold-outs", f"phase {phase} holds out a class twice, or an unknown one")
        if phase not in run.neighbours:
            yield refused("hold-outs", f"phase {phase} has hold-outs and no answers")
    if run.protocol.takes_unseen:
        yield from rule_draws(submission)


def rule_draws(submission: Submission) -> Iterator[Finding]:
    """A rule draws from the list of the classes, and takes no image. An easier class, or a hold-out
    that went badly and was left out, would change the cost of being unseen."""
    run = submission.run
    stated = {phase: set(labels.tolist()) for phase, labels in run.held_out.items()}
    for phase in phases_by_rule(submission, run.experiment.unseen):
        if set(phase.held_out_classes) != stated.pop(phase.name, set()):
            yield refused(
                "hold-outs",
                f"phase {phase.name} must hold out the classes that {run.experiment.unseen} draws",
            )
    for name in stated:
        yield refused("hold-outs", f"{run.experiment.unseen} has no phase {name}")


def phases_by_rule(submission: Submission, rule: str) -> tuple[Phase, ...]:
    """The phases that a rule of hold-outs gives."""
    names = submission.run.class_names
    ids = range(len(submission.run.content.arrays["gallery_counts"]))
    classes = Dataset(
        name=submission.record.dataset.name,
        root=Path(),
        paths=(),
        labels=np.empty(0, np.int64),
        class_names=tuple(names.get(label, "") for label in ids),
    )
    return phases(holdouts(rule, classes))


def search_saw_nothing_of_it(submission: Submission) -> Iterator[Finding]:
    """The search that chose the settings knew no query and no class that is held out."""
    run = submission.run
    tuned = run.experiment.tuned
    if tuned is None:
        return
    if tuned.split != submission.record.split.fingerprint:
        yield refused(
            "settings",
            f"the search of {tuned.by} used another split, whose training images are partly queries"
            " of this one",
        )
    if run.protocol.takes_unseen:
        allowed = held_out_by(phases_by_rule(submission, tuned.unseen))
        if seen := set(run.unseen.tolist()) - allowed:
            yield refused(
                "settings",
                f"the search of {tuned.by} knew {len(seen)} of the classes that are held out",
            )


# Where it stands


def stands_in_its_table(submission: Submission) -> Iterator[Finding]:
    """Its folder says data set, split, hold-outs, experiment and seed."""
    path, name = submission.path.absolute(), submission.record.dataset.name
    if len(path.parents) < 5:
        yield refused("place", f"put it in a folder of results: results/{name}/...")
        return
    folder = path.parents[2].name
    wanted = record_path(path.parents[3], submission.run.experiment, folder)
    if wanted != path:
        yield refused(
            "place",
            f"its table is {wanted.relative_to(path.parents[3])} by protocol, split, hold-outs and"
            " seed: move it there, with its answers",
        )
    if folder != name and not folder.startswith(f"{name}_"):
        yield refused(
            "place", f"it is of {name}: its folder must be {name}, or {name}_REVISION, not {folder}"
        )


def is_of_the_published_images(submission: Submission) -> Iterator[Finding]:
    """A data set of which a publication is known has its fingerprint, or a folder of its own; where
    no fingerprint is known, as many images and classes."""
    dataset = submission.record.dataset
    publication = PUBLICATIONS.get(dataset.name)
    if publication is None:
        return
    folder = submission.path.absolute().parent.parent.parent.name
    published = publication.fingerprint
    stated, expected = (
        f"revision {one.fingerprint[:12]}"
        if published
        else f"{one.num_images:,} images of {one.num_classes:,} classes"
        for one in (dataset, publication)
    )
    if folder == dataset.name and stated != expected:
        yield refused(
            "data revision",
            f"it is of {stated}, the published {dataset.name} of {expected}: run it on that, or"
            " submit it with --revision NAME",
        )
    if folder != dataset.name and dataset.fingerprint == published:
        yield refused(
            "data revision",
            f"it is of the published images, which have the folder {dataset.name}, not {folder}",
        )


CHECKS: tuple[Check, ...] = (
    says_what_its_answers_give,
    summary_agrees,
    shown_numbers_agree,
    costs_are_possible,
    trained_as_configured,
    is_of_the_configured_images,
    counts_are_possible,
    gallery_has_no_query,
    answers_are_no_accident,
    phases_are_of_their_training,
    logits_choose_trained_classes,
    ranking_is_possible,
    holdouts_are_possible,
    search_saw_nothing_of_it,
    stands_in_its_table,
    is_of_the_published_images,
)
