"""Answers for many photos in one file. A journal beside it holds those that are there already, so
that a command that was stopped goes on, and a folder can be watched."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dml_bench.data.images import MEGAPIXELS, most_megapixels, photo_file
from dml_bench.gallery.format import count, prediction_json, threshold_json
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.lookup import LookupOptions, PhotoLookup
from dml_bench.gallery.store import GalleryFile
from dml_bench.gallery.stores.base import require_package
from dml_bench.gallery.vector_stores import OpenStore, named_store
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.system.drafts import drafted
from dml_bench.system.files import json_line, json_text, writable, write_csv, write_text
from dml_bench.system.locks import held

__all__ = [
    "AnswerFile",
    "AnswerJob",
    "BatchAnswers",
    "FollowedGallery",
    "answer_file",
    "answer_folder",
]

PART = 256
"""The number of photos that are looked up at a time; a command that is stopped loses no more."""
COLUMNS = (
    *("image", "answer", "class", "similarity", "vote_class", "vote_share"),
    *("nearest_class", "nearest_image", "reason"),
)
"""Of CSV and Parquet: `answer` is class, unknown or unreadable, and `reason` says why."""


@dataclass(frozen=True, slots=True)
class BatchAnswers:
    """What has become of many photos."""

    out: Path
    """The file of answers."""
    answered: int
    """The number of photos that have a class."""
    unknown: int
    """The number of photos that are not similar enough."""
    unreadable: int
    """The number of files that can't be read."""
    resumed: int
    """The number of these that an earlier command has looked up."""

    @property
    def unknown_share(self) -> float:
        """The share of readable photos that are unknown; 0 where there are none."""
        return self.unknown / max(self.answered + self.unknown, 1)

    def describe(self) -> str:
        """All of it in a sentence."""
        total = self.answered + self.unknown + self.unreadable
        text = (
            f"{self.out}: {count(total, 'photo')}, {self.answered:,} answered, {self.unknown:,}"
            f" unknown ({self.unknown_share:.1%}), {self.unreadable:,} unreadable"
        )
        return f"{text}; {self.resumed:,} were there already" if self.resumed else text

    def exit_code(self, max_unknown: float | None = None) -> int:
        """As the function `exit_code`."""
        return exit_code(self.unknown_share, max_unknown, self.unreadable)


def exit_code(unknown_share: float, max_unknown: float | None, unreadable: int) -> int:
    """3 where more than a share of the photos is unknown, 1 where a file can't be read, else 0."""
    if max_unknown is not None and unknown_share > max_unknown:
        return 3
    return 1 if unreadable else 0


class AnswerFile:
    """The answers so far. Each line of the journal OUT.part is one photo with its answer, after a
    line that says what was opened to look it up, and those that follow."""

    def __init__(self, out: Path, identity: str):
        self.out = out
        self.identity = identity
        self.journal = out.with_name(f"{out.name}.part")
        self.places: dict[str, int] = {}
        self.states: dict[str, list[int]] = {}
        self.resumed = 0
        if self.journal.exists():
            self._read()
        else:
            write_text(self.journal, json_line({"identity": identity}))

    def _read(self) -> None:
        """What an earlier command has written, up to its last whole line."""
        end = 0
        last_identity: str | None = self.identity
        with open(self.journal, "r+b") as file:
            for line in file:
                values = parsed(line)
                if values is None:
                    break
                if end == 0 or "identity" in values:
                    last_identity = values.get("identity")
                else:
                    self._note(values, end)
                end += len(line)
            if last_identity != self.identity:
                raise ValueError(
                    f"{self.journal} has answers of another gallery, model or options: give"
                    " the same ones to go on, or remove it to begin anew"
                )
            file.truncate(end)
        self.resumed = len(self.places)

    def _note(self, values: dict[str, Any], place: int) -> None:
        self.places[values["path"]] = place
        self.states[values["path"]] = values["state"]

    def follow(self, identity: str) -> None:
        """Answers from here on are of another gallery; it is on the disk at the end."""
        with open(self.journal, "ab") as file:
            file.write(json_line({"identity": identity}).encode())
            file.flush()
            os.fsync(file.fileno())
        self.identity = identity

    def lacking(self, files: Sequence[Path]) -> list[Path]:
        """The photos that have no answer, or have changed since."""
        return [file for file in files if self.states.get(str(file)) != state_of(file)]

    def add(self, rows: Sequence[tuple[Path, list[int], dict[str, Any]]]) -> None:
        """Keep answers of photos that were in these states; they are on the disk at the end."""
        with open(self.journal, "ab") as file:
            for path, state, answer in rows:
                values = {"path": str(path), "state": state, "answer": answer}
                place = file.tell()
                file.write(json_line(values).encode())
                self._note(values, place)
            file.flush()
            os.fsync(file.fileno())

    def answers(self, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
        """The answers in the order of some photos."""
        with open(self.journal, "rb") as journal:
            for file in files:
                journal.seek(self.places[str(file)])
                yield json.loads(journal.readline())["answer"]

    def write(self, files: Sequence[Path], threshold: dict[str, Any]) -> BatchAnswers:
        """Write the file of answers as a whole, in the order of some photos."""
        WRITERS[self.out.suffix.lower()](self.out, lambda: self.answers(files), threshold)
        numbers = {"class": 0, "unknown": 0, "unreadable": 0}
        for answer in self.answers(files):
            numbers[kind_of(answer)] += 1
        return BatchAnswers(
            self.out, numbers["class"], numbers["unknown"], numbers["unreadable"], self.resumed
        )

    def close(self) -> None:
        """Remove the journal, as the file of answers has all."""
        self.journal.unlink()


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the journal; None for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def state_of(file: Path) -> list[int]:
    """Size and times of a file, which tell a changed photo, and one whose permissions were mended;
    empty where it is gone."""
    try:
        status = photo_file(file).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def kind_of(answer: dict[str, Any]) -> str:
    """class, unknown or unreadable"""
    if "reason" in answer:
        return "unreadable"
    return "unknown" if answer["class"] is None else "class"


def row_of(answer: dict[str, Any]) -> tuple[Any, ...]:
    """The columns of an answer."""
    if "reason" in answer:
        return (answer["image"], "unreadable", *[None] * 6, answer["reason"])
    nearest = answer["closest"][0]
    return (
        place_of(answer),
        kind_of(answer),
        answer["class"],
        answer["similarity"],
        answer["vote"]["class"],
        answer["vote"]["share"],
        answer["closest_class"],
        nearest["path"],
        None,
    )


def place_of(answer: dict[str, Any]) -> str:
    """The photo, with the box that was looked up in it."""
    box = answer.get("box")
    return answer["image"] + (f"#{','.join(map(str, box))}" if box else "")


AnswerSource = Callable[[], Iterator[dict[str, Any]]]


def write_table(out: Path, answers: AnswerSource, threshold: dict[str, Any]) -> None:
    """CSV."""
    write_csv(out, COLUMNS, (row_of(answer) for answer in answers()))


def write_object(out: Path, answers: AnswerSource, threshold: dict[str, Any]) -> None:
    """JSON, as `predict --json` prints it, with all closest images."""
    values = {
        "threshold": threshold,
        "answers": [answer for answer in answers() if "reason" not in answer],
        "unreadable": [answer for answer in answers() if "reason" in answer],
    }
    write_text(out, json_text(values))


def as_arrow(cell: Any) -> Any:
    return writable(cell) if isinstance(cell, str) else cell


def write_parquet(out: Path, answers: AnswerSource, threshold: dict[str, Any]) -> None:
    """Parquet, with the columns of CSV."""
    import pyarrow
    from pyarrow import parquet

    numbers = ("similarity", "vote_share")
    schema = pyarrow.schema(
        [(name, pyarrow.float64() if name in numbers else pyarrow.string()) for name in COLUMNS]
    )
    rows = [dict(zip(COLUMNS, map(as_arrow, row_of(answer)), strict=True)) for answer in answers()]
    with drafted(out) as draft:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), str(draft))


WRITERS = {".csv": write_table, ".json": write_object, ".parquet": write_parquet}


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """What looks photos up, and where the answers go."""

    lookup: PhotoLookup
    answers: AnswerFile
    progress: Callable[[int, int], None]
    """Is called with the number of photos that are done and the number of all."""

    def run(self, files: Sequence[Path], earlier: Sequence[Path] = ()) -> BatchAnswers:
        """Look up what has no answer yet, and write all, after those of photos that were there
        earlier."""
        lacking = self.answers.lacking(files)
        done = len(files) - len(lacking)
        for first in range(0, len(lacking), PART):
            part = lacking[first : first + PART]
            states = {file: state_of(file) for file in part}
            before = done + first
            _, predictions = self.lookup.predict(
                part, partial(self._looked_up, before, before + len(part), len(files))
            )
            rows = [
                (prediction.path, states[prediction.path], prediction_json(prediction))
                for prediction in predictions.predictions
            ]
            for problem in predictions.unreadable:
                answer = {"image": str(problem.path), "reason": problem.reason}
                rows.append((problem.path, states[problem.path], answer))
            self.answers.add(rows)
            self.progress(before + len(part), len(files))
        listed = list(dict.fromkeys([*earlier, *files]))
        return self.answers.write(listed, threshold_json(self.lookup.threshold))

    def _looked_up(self, before: int, kept: int, total: int, done: int) -> None:
        """Of a part, whose last image is done when its answers are kept."""
        if before + done < kept:
            self.progress(before + done, total)


@contextmanager
def answer_file(
    gallery_file: GalleryFile, lookup: PhotoLookup, options: LookupOptions, out: Path
) -> Iterator[AnswerFile]:
    """The answers so far of a command that writes to `out`, for this command alone. Raises
    ValueError where another has them, where the file is there and nothing is to be gone on with, or
    where it has another suffix."""
    suffix = out.suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(
            f"{out}: answers are written as {', '.join(WRITERS)}: give --out one of these suffixes"
        )
    if suffix == ".parquet":
        require_package("pyarrow", "a Parquet file")
    if out.exists() and not out.with_name(f"{out.name}.part").exists():
        raise ValueError(f"{out} exists already: remove it, or name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Each of two would lose its place in the journal.
    busy = f"another command writes {out}: wait for it, or name another file with --out"
    with held(out.with_name(f".{out.name}.lock"), busy, file_stays=False):
        yield AnswerFile(out, identity_of(gallery_file, lookup, options))


def identity_of(gallery_file: GalleryFile, lookup: PhotoLookup, options: LookupOptions) -> str:
    """A digest of all that an answer depends on, but for the photo."""
    gallery = lookup.gallery
    parts: dict[str, Any] = asdict(replace(options, index=options.index.partition("#")[0]))
    parts["embedder"] = embedder_digest(gallery_file.run, gallery_file.phase)
    parts["value"] = lookup.threshold.value if math.isfinite(lookup.threshold.value) else None
    if isinstance(lookup.open_index, OpenStore):
        parts["store"] = asdict(lookup.open_index.record)
    if (megapixels := most_megapixels()) != MEGAPIXELS:
        parts["megapixels"] = megapixels  # photos above it are unreadable
    if gallery is not None:
        parts["gallery"] = embeddings_digest(gallery.embeddings)
        parts["classes"] = [entry.class_name for entry in gallery.entries]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class FollowedGallery:
    """A gallery that others change while a folder is watched. `open_lookup` opens it anew, and
    `say` is called with a line where another one answers from now on."""

    def __init__(
        self,
        gallery_file: GalleryFile,
        options: LookupOptions,
        open_lookup: Callable[[], PhotoLookup],
        say: Callable[[str], None],
    ):
        self.file = gallery_file
        self.options = options
        self.open_lookup = open_lookup
        self.say = say
        self._state: object = None

    def open(self) -> PhotoLookup:
        """The gallery as it is now."""
        self._state = self._state_now()  # before it is read, so that no later change is missed
        return self.open_lookup()

    def _state_now(self) -> object:
        """What a change of the gallery changes, at the cost of a look at its files."""
        store = named_store(self.options.index)
        if store is not None:
            return store.record()
        return [state_of(self.file.path), state_of(self.file.journal_path)]

    def current(self, job: AnswerJob) -> AnswerJob:
        """The job, by the gallery as it is now. Raises ValueError where that can't be opened, or a
        precision can't be promised any more."""
        if self._state_now() == self._state:
            return job
        opened = self.open()
        identity = identity_of(self.file, opened, self.options)
        if identity == job.answers.identity:
            return job
        job.answers.follow(identity)
        self.say(
            "the gallery was changed: new photos are answered by it as it is now;"
            f" {count(len(job.answers.places), 'answer')} from before stay, and to look all up"
            f" anew, stop and remove {job.answers.journal}"
        )
        return replace(job, lookup=opened)


def answer_folder(
    job: AnswerJob,
    photos: Callable[[], list[Path]],
    wait: Callable[[], bool],
    say: Callable[[str], None],
    current: Callable[[AnswerJob], AnswerJob] = lambda job: job,
) -> BatchAnswers:
    """Look photos up as they come, by the `current` job, until `wait` returns False: those that two
    looks in a row have seen in the same state, so that none is still being written. The journal
    stays, so that the next command goes on."""
    before: dict[Path, list[int]] = {}
    answers = job.run([], [Path(name) for name in job.answers.places])
    while True:
        now = {file: state_of(file) for file in photos()}
        settled = [file for file, state in now.items() if before.get(file) == state]
        if job.answers.lacking(settled):
            job = current(job)
            earlier = [Path(name) for name in job.answers.places]
            answers = job.run(settled, earlier)
            say(answers.describe())
        before = now
        if not wait():
            return answers
