"""What a server answered, one line of JSON for each photo, beside the gallery, and no photo:
<phase>.answers.jsonl, and in <phase>.answers.old.jsonl the lines before. A file that was begun
after another has a first line with the number of answers before it."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dml_bench.gallery.store import GalleryFile
from dml_bench.system.callbacks import LOGGER
from dml_bench.system.failures import describe_error

__all__ = [
    "AnswerLog",
    "LoggedAnswer",
    "answers_gone",
    "log_file",
    "read_answers",
    "timestamp",
]

LARGEST = 64_000_000
"""Bytes of a file, some 300,000 answers; then another is begun, and the one before the last
goes."""
BEFORE = "answers_before"
"""In the first line of a file, where there were some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedAnswer:
    """The answer to one photo."""

    time: str
    """UTC, ISO 8601."""
    similarity: float
    """Of the closest image."""
    known: bool
    """Whether the similarity reached the threshold."""
    class_name: str
    """Of the closest image."""
    threshold: float | None
    """null where there was none: every photo was answered, or none where there is a precision,
    which could then not be promised."""
    precision: float | None
    """The precision that the server was asked to keep."""
    unknown_share: float
    """The share of unknown photos for which it was."""
    images: int
    """The images that the gallery had."""
    embedder: str = ""
    """The digest of the model that answered; empty in logs of earlier versions."""


class AnswerLog:
    """The log of one server, which holds the gallery's lock: no other writes to it."""

    def __init__(self, gallery_file: GalleryFile):
        self.path = log_file(gallery_file)
        self._lock = threading.Lock()
        self._begin()
        self._is_torn = self.path.stat().st_size > 0 and not ends_a_line(self.path)

    def add(self, answers: Sequence[LoggedAnswer]) -> None:
        """Append answers. Where the disk refuses them, a warning says so, and answering goes on."""
        lines = "".join(json.dumps(asdict(answer)) + "\n" for answer in answers)
        with self._lock:
            try:
                self._append(lines.encode())
            except OSError as problem:
                self._is_torn = True
                LOGGER.warning(
                    "%d answers are given but not logged, and `dml-bench monitor` lacks them: %s",
                    len(answers),
                    describe_error(problem),
                )

    def _append(self, lines: bytes) -> None:
        with open(self.path, "ab") as file:
            if self._is_torn:  # the damaged line ends, and the next is not
                file.write(b"\n")
            file.write(lines)
            size = file.tell()
        self._is_torn = False
        if size > LARGEST:
            self.path.replace(old_log_file(self.path))
            self._begin()

    def _begin(self) -> None:
        """Make the file where it is not there, with the number of answers before it."""
        self.path.touch()
        old = old_log_file(self.path)
        if self.path.stat().st_size or not old.exists():
            return
        before = answers_before(old)
        with open(old, "rb") as file:
            lines = sum(1 for _ in file) - (before > 0)
        self.path.write_text(json.dumps({BEFORE: before + lines}) + "\n", encoding="utf-8")


def timestamp() -> str:
    """Now, as the log has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def log_file(gallery_file: GalleryFile) -> Path:
    """The log beside a gallery."""
    return gallery_file.path.with_suffix(".answers.jsonl")


def old_log_file(path: Path) -> Path:
    """The file with the lines before those of a log."""
    return path.with_suffix(".old.jsonl")


def ends_a_line(path: Path) -> bool:
    """Whether the last byte of a file ends a line."""
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def answers_before(path: Path) -> int:
    """What the first line of a file says of the answers before it."""
    with open(path, "rb") as file:
        try:
            return int(json.loads(file.readline())[BEFORE])
        except (ValueError, TypeError, KeyError):
            return 0


def answers_gone(gallery_file: GalleryFile) -> int:
    """The number of answers before those that are read, whose lines are gone."""
    current = log_file(gallery_file)
    files = [path for path in (old_log_file(current), current) if path.exists()]
    return answers_before(files[0]) if files else 0


def read_answers(gallery_file: GalleryFile) -> Iterator[LoggedAnswer]:
    """The answers in the order in which they were given. Lines that a crash has damaged are left
    out."""
    current = log_file(gallery_file)
    for path in (old_log_file(current), current):
        if not path.exists():
            continue
        with open(path, "rb") as file:
            for line in file:
                try:
                    yield LoggedAnswer(**json.loads(line))
                except (ValueError, TypeError):
                    continue
