"""What a submission has to have in common with the others of its table, and what it must not.

Each of the others is checked by itself elsewhere. Whoever comes later must not get an earlier one
refused: where two sides disagree, those stay that nobody handed in, as they are the repository's
own, and where that decides nothing, both are for review.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from functools import cache
from itertools import combinations
from pathlib import Path
from stat import S_ISLNK

import numpy as np

from dml_bench.board.submission import Finding, Refused, read_answers
from dml_bench.config.experiment import FIRST_SEED
from dml_bench.data.publications import published_as
from dml_bench.registry import datasets
from dml_bench.runs import record_format, record_schema
from dml_bench.runs.folder import differing_in_a_row
from dml_bench.runs.layout import records_below
from dml_bench.runs.record_schema import Record

__all__ = ["Mate", "answered_alike", "beside_others", "readable", "recorded_again"]

Mate = tuple[Path, Record]
SHOWN_SEEDS = 8
COPIED, COPIED_ERRORS = 0.99, 0.9
"""Shares of all answers, and of those where one of two is wrong, from which one is taken for a copy
of the other: trained rows of a table have at most .96 in common, as other seeds have."""


def beside_others(
    path: Path, record: Record, read_table: Callable[[Path], list[Mate]]
) -> Iterator[Finding]:
    """What is wrong or odd of one submission beside those of its table, which `read_table`
    reads."""
    own = path.absolute()
    others = [mate for mate in read_table(own.parent.parent) if mate[0] != own]
    of_row = [mate for mate in others if mate[0].parent == own.parent]
    same_seed = [mate for mate in others if mate[1].seed == record.seed]
    division = record.settings["data"]
    divided_alike = [mate for mate in same_seed if mate[1].settings["data"] == division]
    yield from other_settings(record, of_row)
    for name, noun, mates, value_of in (
        ("protocol", "protocol", others, lambda mate: mate.protocol),
        ("split kind", "split", others, lambda mate: mate.split.kind),
        ("data revision", "fingerprint", unpublished(record, others), fingerprint_of),
        ("data facts", "data set", of_fingerprint(record, others), data_facts_of),
        ("class count", "number of classes", others, lambda mate: mate.dataset.num_classes),
        ("query set", "queries", same_seed, lambda mate: mate.queries_sha256[:12]),
        ("split facts", "split", divided_alike, lambda mate: mate.split.fingerprint[:12]),
    ):
        yield from disagreement(record, mates, name, noun, value_of)
    yield from chosen_seeds(record.seed, {record.seed, *(mate.seed for _, mate in of_row)})
    for other, mate in others:
        if mate.nearest_sha256 == record.nearest_sha256:
            yield same_answers(path, record, other, mate)
    yield from nearly_same_answers(own, record, others)


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


def came_first(one: Record, other: Record) -> bool:
    """Whether one is kept and another by somebody else is not: nobody handed it in, or it was run
    earlier."""
    first, second = (
        (bool(record.submitted_by), record.session.started_at) for record in (one, other)
    )
    return one.submitted_by != other.submitted_by and first < second


def other_settings(record: Record, of_row: Sequence[Mate]) -> Iterator[Finding]:
    """A refusal where another seed of the row has other settings. Of one person's both are refused:
    nobody knows which was meant."""
    for other, mate in of_row:
        keys = differing_in_a_row(mate.settings, record.settings)
        if keys and not came_first(record, mate):
            yield Finding(
                "refused",
                "settings",
                f"{other.name} of its row has other settings ({', '.join(keys[:4])}): seeds of a"
                " row differ in nothing but the seed, so give it another name",
            )
            return


def disagreement(
    record: Record,
    mates: Sequence[Mate],
    name: str,
    noun: str,
    value_of: Callable[[Record], Hashable],
) -> Iterator[Finding]:
    """A refusal where the repository's own records have another value, and none of them this one;
    a review where that decides nothing."""
    value = value_of(record)
    others = [mate for _, mate in mates if value_of(mate) != value]
    own_side = [mate for _, mate in mates if value_of(mate) == value]
    is_ours = any(not mate.submitted_by for mate in (record, *own_side))
    is_theirs = any(not mate.submitted_by for mate in others)
    if others and (is_theirs or not is_ours):
        other = next(mate for mate in others if is_theirs != bool(mate.submitted_by))
        yield Finding(
            "review" if is_ours or not is_theirs else "refused",
            name,
            f"its {noun} is {value}, that of others of its table {value_of(other)}",
        )


def fingerprint_of(mate: Record) -> str:
    return mate.dataset.fingerprint[:12]


def unpublished(record: Record, others: Sequence[Mate]) -> Sequence[Mate]:
    """None where the record is of the published images: those of others are refused for that."""
    return () if published_as(record.dataset.name, record.dataset.fingerprint) else others


def of_fingerprint(record: Record, others: Sequence[Mate]) -> list[Mate]:
    fingerprint = record.dataset.fingerprint
    return [mate for mate in others if mate[1].dataset.fingerprint == fingerprint]


def data_facts_of(mate: Record) -> str:
    """What one fingerprint decides: numbers of images and classes, and what was drawn."""
    dataset = mate.settings["data"]["dataset"]
    facts = f"{mate.dataset.num_images:,} images of {mate.dataset.num_classes:,} classes"
    name = dataset["name"]
    if name not in datasets.names() or datasets[name].facts["needs_data_dir"]:
        return facts
    options = (f"{key} {option}" for key, option in sorted(dataset.items()))
    return f"{facts}, drawn with {', '.join(options)}"


def same_answers(path: Path, record: Record, other: Path, mate: Record) -> Finding:
    """Two submissions that answer every query alike."""
    name = f"{other.parent.name}/{other.name}"
    if not record.trained and not mate.trained:
        again = came_first(mate, record)
        if record.submitted_by == mate.submitted_by:
            again = (record.seed, str(path.absolute())) > (mate.seed, str(other))
        if again:
            return Finding(
                "refused",
                "submitted once",
                f"without training all seeds give the same answers, and {name} has them already",
            )
        return Finding("review", "submitted once", f"{name} has the same answers")
    if record.submitted_by != mate.submitted_by:
        people = " and ".join(repr(by) for by in (record.submitted_by, mate.submitted_by))
        return Finding("review", "same answers", f"{name} has the same ones, by {people}")
    unlike = {
        "other weights": record.weights != mate.weights,
        "another seed": record.seed != mate.seed,
        "other settings": record.settings != mate.settings,
    }
    by = next((noun for noun, differs in unlike.items() if differs), "")
    text = f"{name} has the same ones by {by}" if by else f"{name} is the same run"
    return Finding("review", "same answers", text)


def nearly_same_answers(path: Path, record: Record, others: Sequence[Mate]) -> Iterator[Finding]:
    """A copy of which a few answers were changed."""
    if not record.trained:
        return
    alike = [
        (other, mate)
        for other, mate in others
        if mate.trained
        and mate.queries_sha256 == record.queries_sha256
        and mate.nearest_sha256 != record.nearest_sha256
    ]
    answers = nearest_of(path, record.answers_sha256) if alike else None
    for other, mate in alike:
        theirs = nearest_of(other, mate.answers_sha256)
        if answers is None or theirs is None or answers.shape != theirs.shape:
            continue
        same, wrong = answers == theirs, (answers != 0) | (theirs != 0)
        if wrong.any() and same.mean() >= COPIED and same[wrong].mean() >= COPIED_ERRORS:
            name = f"{other.parent.name}/{other.name}"
            share = f"{same.mean():.2%} of the answers, errors too"
            yield Finding("review", "same answers", f"{name} has {share}")


@cache
def nearest_of(path: Path, answers_sha256: str) -> np.ndarray | None:
    """What was answered to each query in each phase; None where it can't be read."""
    if record_format.answers_file(path).is_symlink():
        return None
    try:
        # The answers alone are read: of which configuration they are has no part in them.
        said = {"answers_sha256": answers_sha256, "configuration": {}}
        arrays = read_answers(path, said).arrays
        names = sorted(name for name in arrays if name.endswith(".nearest"))
        return np.concatenate([arrays[name].ravel() for name in names])
    except (Refused, ValueError):
        return None


def answered_alike(paths: Sequence[Path]) -> Iterator[tuple[Path, Path, bool]]:
    """Both orders of each pair of trained submissions of different experiments that answer every
    query alike, and whether their settings are the same."""
    by_answers: dict[tuple[str, str], list[Mate]] = {}
    for path, record in of_files(paths):
        if record.trained:
            key = record.queries_sha256, record.nearest_sha256
            by_answers.setdefault(key, []).append((path, record))
    for alike in by_answers.values():
        for (one, record), (other, mate) in combinations(alike, 2):
            if one.parent != other.parent:
                same = record.settings == mate.settings
                yield one, other, same
                yield other, one, same


def recorded_again(paths: Sequence[Path]) -> dict[Path, Path]:
    """By the folder of an experiment, the folder of another by the same person that has the same
    settings, gave the same answers with a seed, and has more seeds or an earlier name. Other seeds
    of the two may come from other machines, which give other bits."""
    seeds = Counter(path.parent for path in paths)
    again: dict[Path, Path] = {}
    for path, other, same in answered_alike(paths):
        if same and submitter(path) == submitter(other):
            folder, first = path.parent, other.parent
            if (-seeds[first], str(first)) < (-seeds[folder], str(folder)):
                again.setdefault(folder, first)
    return again


def submitter(path: Path) -> str:
    [(_, record)] = of_files([path])
    return record.submitted_by


def readable(folder: Path) -> list[Mate]:
    """The submissions of a table that can be read; what can't is refused by itself."""
    return of_files(records_below(folder))


def of_files(paths: Sequence[Path]) -> list[Mate]:
    mates = []
    for path in paths:
        stat = path.lstat()
        if S_ISLNK(stat.st_mode):
            continue
        record = read_once(path, stat.st_mtime_ns, stat.st_size)
        if record is not None:
            mates.append((path, record))
    return mates


@cache
def read_once(path: Path, modified: int, size: int) -> Record | None:
    """None where it can't be read. A table of 40 files would else be read 40 times."""
    if size > record_schema.LARGEST_BYTES:
        return None
    try:
        record = record_schema.read(record_format.read_description(path))
        return record if record.settings else None
    except (OverflowError, ValueError):
        return None
