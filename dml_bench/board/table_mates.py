"""What a submission has to have in common with the others of its table, and what it must not.

Only their JSON is read: each of them is checked by itself elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from functools import cache
from itertools import combinations
from pathlib import Path
from stat import S_ISLNK
from typing import Any

from dml_bench.board.submission import Finding
from dml_bench.config.experiment import FIRST_SEED
from dml_bench.runs import record_format, record_schema
from dml_bench.runs.folder import completed, decisive
from dml_bench.runs.layout import records_below
from dml_bench.runs.record_schema import Record

__all__ = ["Mate", "answered_alike", "beside_others", "readable", "recorded_again"]

Mate = tuple[Path, Record]
SHOWN_SEEDS = 8


def beside_others(
    path: Path, record: Record, read_table: Callable[[Path], list[Mate]]
) -> Iterator[Finding]:
    """What is wrong or odd of one submission beside those of its table, which `read_table`
    reads."""
    own = path.absolute()
    others = [mate for mate in read_table(own.parent.parent) if mate[0] != own]
    of_row = [mate for other, mate in others if other.parent == own.parent]
    same_seed = [mate for mate in others if mate[1].seed == record.seed]
    yield from unlike_most(record, others, "protocol", "protocol", lambda mate: mate.protocol)
    yield from unlike_most(record, others, "split kind", "split", lambda mate: mate.split.kind)
    yield from unlike_most(
        record, others, "data revision", "fingerprint", lambda mate: mate.dataset.fingerprint[:12]
    )
    yield from unlike_most(
        record, same_seed, "query set", "queries", lambda mate: mate.queries_sha256[:12]
    )
    yield from unlike_most(
        record, others, "class count", "classes", lambda mate: mate.dataset.num_classes
    )
    yield from unlike_most(
        record, same_seed, "split facts", "split", lambda mate: mate.split.fingerprint[:12]
    )
    yield from chosen_seeds(record.seed, {record.seed, *(mate.seed for mate in of_row)})
    for other, mate in others:
        if mate.nearest_sha256 == record.nearest_sha256:
            yield same_answers(path, record, other, mate)


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


def unlike_most(
    record: Record,
    others: Sequence[Mate],
    name: str,
    noun: str,
    of: Callable[[Record], Hashable],
) -> Iterator[Finding]:
    """A refusal where most of the others have another value."""
    values = Counter(of(mate) for _, mate in others)
    values[of(record)] += 1
    (usual, count), *_ = values.most_common(1)
    if of(record) != usual and values[of(record)] < count:
        yield Finding("refused", name, f"its {noun} is {of(record)}, that of its table is {usual}")


def same_answers(path: Path, record: Record, other: Path, mate: Record) -> Finding:
    """Two submissions that answer every query alike."""
    name = f"{other.parent.name}/{other.name}"
    if not record.trained and not mate.trained:
        if (record.seed, str(path.absolute())) > (mate.seed, str(other)):
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
        "other settings": settings_of(record) != settings_of(mate),
    }
    by = next((noun for noun, differs in unlike.items() if differs), "")
    text = f"{name} has the same ones by {by}" if by else f"{name} is the same run"
    return Finding("review", "same answers", text)


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
                same = settings_of(record) == settings_of(mate)
                yield one, other, same
                yield other, one, same


def settings_of(record: Record) -> dict[str, Any]:
    """All that decides the answers, under whatever name."""
    settings = decisive(completed(record.configuration))
    del settings["name"]
    return settings


def recorded_again(paths: Sequence[Path]) -> dict[Path, Path]:
    """By the folder of an experiment, the folder of another that has the same settings and gave
    the same answers with each of its seeds, and with more of them or an earlier name."""
    shared_with: dict[tuple[Path, Path], set[Path]] = {}
    for path, other, same in answered_alike(paths):
        if same and submitter(path) == submitter(other):
            shared_with.setdefault((path.parent, other.parent), set()).add(path)
    seeds = Counter(path.parent for path in paths)
    again: dict[Path, Path] = {}
    for (folder, other), shared in shared_with.items():
        is_first = (-seeds[other], str(other)) < (-seeds[folder], str(folder))
        if is_first and len(shared) == seeds[folder]:
            again.setdefault(folder, other)
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
        return record_schema.read(record_format.read_description(path))
    except ValueError:
        return None
