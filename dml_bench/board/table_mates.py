"""What a submission has to have in common with the others of its table, and what it must not.

Each of the others is checked by itself elsewhere. Whoever comes later must not get an earlier one
refused: where two sides disagree, those stay that nobody handed in, as they are the repository's
own, and where that decides nothing, both are for review.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from itertools import combinations
from pathlib import Path

import numpy as np

from dml_bench.board.mates import (
    Mate,
    Tables,
    answers_of,
    are_copied,
    of_files,
    short_digest,
)
from dml_bench.board.submission import Finding
from dml_bench.config.experiment import FIRST_SEED
from dml_bench.data.publications import published_as
from dml_bench.registry import datasets
from dml_bench.runs.folder import differing_in_a_row
from dml_bench.runs.record_schema import Record

__all__ = ["answered_alike", "beside_others", "recorded_again"]

SHOWN_SEEDS = 8


def beside_others(path: Path, record: Record, tables: Tables) -> Iterator[Finding]:
    """What is wrong or odd of one submission beside those that are ranked with it."""
    own = Mate(path.absolute(), record)
    others = sorted(tables.mates(own), key=is_handed_in)  # each check says the first that differs
    beside = [mate for mate in others if mate.path.parents[1] == own.path.parents[1]]
    of_name = [mate for mate in others if mate.path.parent.name == own.path.parent.name]
    of_row = [mate for mate in of_name if mate.path.parent == own.path.parent]
    same_seed = [mate for mate in others if mate.record.seed == record.seed]
    division = record.settings["data"]
    divided_alike = [mate for mate in same_seed if mate.record.settings["data"] == division]
    yield from other_settings(record, of_row)
    yield from row_of_others(own, of_name)
    yield from other_case(own, sorted(tables.in_other_case(own), key=is_handed_in))
    of_images = of_fingerprint(record, others)
    of_split = [mate for mate in of_images if split_of(mate) == split_of(own)]
    for name, noun, mates, value_of in (
        ("protocol", "protocol", others, lambda mate: mate.record.protocol),
        ("split kind", "split", others, lambda mate: mate.record.split.kind),
        ("data revision", "fingerprint", unpublished(record, others), fingerprint_of),
        ("data facts", "data set", of_images, data_facts_of),
        ("class count", "number of classes", others, lambda mate: mate.record.dataset.num_classes),
        ("query set", "queries", same_seed, queries_of),
        ("split facts", "split", divided_alike, split_of),
        ("split facts", "division", of_split, division_of),
        ("split facts", "digest of the gallery", readable_answers(own, of_split), gallery_of),
        ("query set", "digest of the queries", asked_alike(own, of_images), classes_of_queries),
        ("query set", "digest of class names", *names_in_common(own, of_images)),
    ):
        yield from disagreement(own, mates, name, noun, value_of)
    yield from chosen_seeds(record.seed, {record.seed, *(mate.record.seed for mate in of_row)})
    for mate in beside if record.trained else others:  # `verify_all` looks at the other tables
        if mate.record.nearest_sha256 == record.nearest_sha256 and not is_again(own, mate):
            yield same_answers(own, mate)
    yield from nearly_same_answers(own, others)


def chosen_seeds(seed: int, of_row: Set[int]) -> Iterator[Finding]:
    """Said of the first seed of a row that doesn't follow the others. The best 3 of 20 look like a
    better method, and nothing in their answers is wrong."""
    wanted = range(FIRST_SEED, FIRST_SEED + len(of_row))
    if seed == min(of_row - set(wanted), default=None):
        yield Finding(
            "review",
            "seeds",
            f"its row has {listed(sorted(of_row))} where {listed(wanted)} should be: submit those,"
            " as the best of many seeds look like a better method",
        )


def listed(seeds: Sequence[int]) -> str:
    """`seed 42`, `seeds 42, 43`; of many the first ones."""
    shown = ", ".join(map(str, seeds[:SHOWN_SEEDS]))
    more = ", ..." if len(seeds) > SHOWN_SEEDS else ""
    return f"seed{'s' if len(seeds) > 1 else ''} {shown}{more}"


def is_handed_in(mate: Mate) -> bool:
    return bool(mate.record.submitted_by)


def is_kept(one: Record, other: Record) -> bool:
    """Whether one is kept and another is not: one came with the repository, and somebody handed the
    other in. When a run began is what it says itself, and decides nothing."""
    return not one.submitted_by and bool(other.submitted_by)


def row_of_others(own: Mate, of_name: Sequence[Mate]) -> Iterator[Finding]:
    """A finding where a row of this name is somebody else's, whose mean its seeds would change; or
    where another folder has one with other settings, or another run of the same seed: a table shows
    one of them."""
    for mate in of_name:
        is_other = mate.record.submitted_by != own.record.submitted_by
        if mate.path.parent != own.path.parent:
            is_other |= bool(differing_in_a_row(mate.record.settings, own.record.settings))
            is_other |= mate.record.seed == own.record.seed and not is_again(own, mate)
        if is_other and not is_kept(own.record, mate.record):
            whose = repr(mate.record.submitted_by) if mate.record.submitted_by else "the repository"
            yield Finding(
                "refused" if is_kept(mate.record, own.record) else "review",
                "place",
                f"{mate.path} is of another row of this name, of {whose}: give it another name",
            )
            return


def other_case(own: Mate, mates: Sequence[Mate]) -> Iterator[Finding]:
    """A finding where a folder has the name of another but for upper and lower case: file systems
    that make no difference hold one of the two."""
    for mate in mates:
        if not is_kept(own.record, mate.record):
            yield Finding(
                "refused" if is_kept(mate.record, own.record) else "review",
                "place",
                f"its folder and {mate.path.parent} differ in upper and lower case alone: give it"
                " another name",
            )
            return


def is_again(own: Mate, mate: Mate) -> bool:
    """Whether one person recorded a run a second time, for another collection of results: such rows
    stand once."""
    return (
        own.path.parents[1] != mate.path.parents[1]
        and own.record.submitted_by == mate.record.submitted_by
        and own.record.settings == mate.record.settings
        and own.record.nearest_sha256 == mate.record.nearest_sha256
    )


def other_settings(record: Record, of_row: Sequence[Mate]) -> Iterator[Finding]:
    """A refusal where another seed of the row has other settings. Of one person's both are refused:
    nobody knows which was meant; those of two people are for review."""
    for other, mate in of_row:
        keys = differing_in_a_row(mate.settings, record.settings)
        if keys and not is_kept(record, mate):
            is_by_another = record.submitted_by != mate.submitted_by
            yield Finding(
                "review" if is_by_another and not is_kept(mate, record) else "refused",
                "settings",
                f"{other.name} of its row has other settings ({', '.join(keys[:4])}): seeds of a"
                " row differ in nothing but the seed, so give it another name",
            )
            return


def disagreement(
    own: Mate,
    mates: Sequence[Mate],
    name: str,
    noun: str,
    value_of: Callable[[Mate], Hashable],
) -> Iterator[Finding]:
    """A refusal where the repository's own records have another value, and none of them this one;
    a review where that decides nothing."""
    value = value_of(own)
    others = [mate for mate in mates if value_of(mate) != value]
    own_side = [mate for mate in mates if value_of(mate) == value]
    is_ours = any(not mate.record.submitted_by for mate in (own, *own_side))
    is_theirs = any(not mate.record.submitted_by for mate in others)
    if others and (is_theirs or not is_ours):
        other = next(mate for mate in others if is_theirs != bool(mate.record.submitted_by))
        yield Finding(
            "review" if is_ours or not is_theirs else "refused",
            name,
            f"its {noun} is {value}, that of others of its table {value_of(other)}",
        )


def fingerprint_of(mate: Mate) -> str:
    return mate.record.dataset.fingerprint[:12]


def queries_of(mate: Mate) -> str:
    return mate.record.queries_sha256[:12]


def split_of(mate: Mate) -> str:
    return mate.record.split.fingerprint[:12]


def division_of(mate: Mate) -> str:
    split = mate.record.split
    parts = f"{split.train_images:,}, {split.valid_images:,} and {split.test_images:,} images"
    return parts if split.gallery_images is None else f"{parts}, gallery {split.gallery_images:,}"


def gallery_of(mate: Mate) -> str:
    return answers_of(mate).gallery


def classes_of_queries(mate: Mate) -> str:
    return answers_of(mate).queries


def names_in_common(
    own: Mate, mates: Sequence[Mate]
) -> tuple[list[Mate], Callable[[Mate], Hashable]]:
    """Those whose answers can be read, and what gives the names of the classes that all have."""
    kept = readable_answers(own, mates)
    named = [set(answers_of(mate).class_names) for mate in kept]
    common = sorted(set.intersection(*named, set(answers_of(own).class_names))) if kept else []

    def names_of(mate: Mate) -> str:
        names = [answers_of(mate).class_names[label] for label in common]
        return short_digest(repr(names).encode())

    return kept, names_of


def readable_answers(own: Mate, mates: Sequence[Mate]) -> list[Mate]:
    """Those whose answers can be read; none where its own can't."""
    if not answers_of(own).can_be_read:
        return []
    return [mate for mate in mates if answers_of(mate).can_be_read]


def asked_alike(own: Mate, mates: Sequence[Mate]) -> list[Mate]:
    """Those of the same queries."""
    return readable_answers(own, [mate for mate in mates if queries_of(mate) == queries_of(own)])


def unpublished(record: Record, others: Sequence[Mate]) -> Sequence[Mate]:
    """None where the record is of the published images: those of others are refused for that."""
    return () if published_as(record.dataset.name, record.dataset.fingerprint) else others


def of_fingerprint(record: Record, others: Sequence[Mate]) -> list[Mate]:
    fingerprint = record.dataset.fingerprint
    return [mate for mate in others if mate.record.dataset.fingerprint == fingerprint]


def data_facts_of(mate: Mate) -> str:
    """What one fingerprint decides: numbers of images and classes, and what was drawn."""
    dataset, sizes = mate.record.settings["data"]["dataset"], mate.record.dataset
    facts = f"{sizes.num_images:,} images of {sizes.num_classes:,} classes"
    name = dataset["name"]
    if name not in datasets.names() or datasets[name].facts["needs_data_dir"]:
        return facts
    options = (f"{key} {option}" for key, option in sorted(dataset.items()))
    return f"{facts}, drawn with {', '.join(options)}"


def same_answers(own: Mate, mate: Mate) -> Finding:
    """Two submissions that answer every query alike."""
    name, (path, record), (other, theirs) = mate.name, own, mate
    if not record.trained and not theirs.trained:
        again = is_kept(theirs, record)
        if record.submitted_by == theirs.submitted_by:
            again = (record.seed, str(path)) > (theirs.seed, str(other))
        if again:
            return Finding(
                "refused",
                "submitted once",
                f"without training all seeds give the same answers, and {name} has them already",
            )
        return Finding("review", "submitted once", f"{name} has the same answers")
    if record.submitted_by != theirs.submitted_by:
        people = " and ".join(repr(by) for by in (record.submitted_by, theirs.submitted_by))
        return Finding("review", "same answers", f"{name} has the same ones, by {people}")
    unlike = {
        "other weights": record.weights != theirs.weights,
        "another seed": record.seed != theirs.seed,
        "other settings": record.settings != theirs.settings,
    }
    by = next((noun for noun, differs in unlike.items() if differs), "")
    text = f"{name} has the same ones by {by}" if by else f"{name} is the same run"
    return Finding("review", "same answers", text)


def nearly_same_answers(own: Mate, others: Sequence[Mate]) -> Iterator[Finding]:
    """A copy of which a few answers were changed, or exchanged among the queries of a class."""
    record = own.record
    if not record.trained:
        return
    trained = [mate for mate in others if mate.record.trained]
    for mate in asked_alike(own, trained):
        ours, theirs = answers_of(own), answers_of(mate)
        is_exact = mate.record.nearest_sha256 == record.nearest_sha256
        if is_exact or ours.nearest.shape != theirs.nearest.shape:
            continue
        if are_copied(ours.nearest, theirs.nearest):
            share = f"{(ours.nearest == theirs.nearest).mean():.2%} of the answers, errors too"
            yield Finding("review", "same answers", f"{mate.name} has {share}")
        elif ours.nearest.any() and np.array_equal(ours.right, theirs.right):
            text = f"{mate.name} has as many right in each class and phase, by other queries"
            yield Finding("review", "same answers", text)


def answered_alike(paths: Sequence[Path]) -> Iterator[tuple[Mate, Mate, bool]]:
    """Both orders of each pair of trained submissions of different experiments that answer every
    query alike, and whether their settings are the same."""
    by_answers: dict[tuple[str, str], list[Mate]] = {}
    for mate in of_files(paths):
        if mate.record.trained:
            key = mate.record.queries_sha256, mate.record.nearest_sha256
            by_answers.setdefault(key, []).append(mate)
    for alike in by_answers.values():
        for one, other in combinations(alike, 2):
            if one.path.parent != other.path.parent:
                same = one.record.settings == other.record.settings
                yield one, other, same
                yield other, one, same


def recorded_again(paths: Sequence[Path]) -> dict[Path, Path]:
    """By the folder of an experiment, the folder of another by the same person that has the same
    settings, gave the same answers with a seed, and has more seeds or an earlier name. Other seeds
    of the two may come from other machines, which give other bits."""
    seeds = Counter(path.parent for path in paths)
    again: dict[Path, Path] = {}
    for one, other, same in answered_alike(paths):
        if same and one.record.submitted_by == other.record.submitted_by:
            folder, first = one.path.parent, other.path.parent
            if (-seeds[first], str(first)) < (-seeds[folder], str(folder)):
                again.setdefault(folder, first)
    return again
