"""One submission, opened with suspicion: nothing that it names is imported, and nothing that it
says is believed before it was measured."""

import lzma
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dml_bench.config import load
from dml_bench.runs import record_format, record_schema
from dml_bench.runs.record_description import description_of
from dml_bench.runs.record_schema import Record
from dml_bench.runs.run import RecordedRun
from dml_bench.system.files import UNSEALED

__all__ = ["Finding", "Refused", "Submission", "open_submission", "read_answers", "refused"]

Verdict = Literal["refused", "review", "unchecked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader of a submission has to know."""

    verdict: Verdict
    """`refused`: it does not add up. `review`: a person has to look. `unchecked`: it takes more
    than the file."""
    name: str
    """What it is about, in two or three words."""
    text: str


def refused(name: str, text: str) -> Finding:
    """What may not stand on the board."""
    return Finding("refused", name, text)


class Refused(ValueError):
    """A submission that can't be read far enough to be measured."""

    def __init__(self, name: str, text: str):
        super().__init__(f"{name}: {text}")
        self.finding = refused(name, text)


@dataclass(frozen=True)
class Submission:
    """A record that could be read. Its answers may still be anything."""

    path: Path
    record: Record
    run: RecordedRun

    @property
    def facts(self) -> dict[str, Any]:
        """What the answers' file says besides the answers."""
        return self.run.content.facts

    @cached_property
    def measured(self) -> dict[str, Any]:
        """The JSON that its answers give."""
        return description_of(self.run, self.run, self.record.submitted_by)


def open_submission(path: Path) -> Submission:
    """Raises Refused."""
    require_plain_file(path, record_schema.LARGEST_BYTES)
    try:
        description = record_format.read_description(path)
    except ValueError as problem:
        raise Refused("damaged", str(problem)) from None
    if description["record_version"] != record_format.VERSION:
        raise Refused(
            "earlier version",
            f"record_version must be {record_format.VERSION}, got {description['record_version']}:"
            f" `dml-bench submit {path}` writes it anew",
        )
    try:
        record = record_schema.read(description)
    except ValueError as problem:
        raise Refused("schema", str(problem)) from None
    require_canonical(path, description)
    content = read_answers(path, description)
    try:
        experiment = load(record.configuration)
    except (OverflowError, ValueError) as problem:
        raise Refused("configuration", f"it is no experiment: {problem}") from None
    run = RecordedRun(
        path, experiment, content.facts["summary"], content=content, description=description
    )
    return Submission(path, record, run)


def require_plain_file(file: Path, most: int) -> None:
    """Raises Refused for a link, which may lead to anything on the machine that reads it, for what
    would be read without end, and for more than `most` bytes. A missing file is said elsewhere."""
    if file.is_symlink():
        raise Refused("damaged", f"{file} is a link: put the file itself in its place")
    if file.exists() and not file.is_file():
        raise Refused("damaged", f"{file} is no file: put the file in its place")
    size = file.stat().st_size if file.exists() else 0
    if size > most:
        raise Refused("size", f"{file.name} must have at most {most:,} bytes, got {size:,}")


def require_canonical(path: Path, description: dict[str, Any]) -> None:
    """Raises Refused where the same values would be written otherwise."""
    wanted = record_format.canonical_text(description)
    text, length = path.read_text(encoding="utf-8"), len(UNSEALED)
    start = wanted.index(UNSEALED)
    if (text[:start], text[start + length :]) != (wanted[:start], wanted[start + length :]):
        raise Refused("form", f"`dml-bench submit {path}` writes the same values in another form")


def read_answers(path: Path, description: dict[str, Any]) -> record_format.Content:
    """Raises Refused where the answers are missing, others, or no answers at all."""
    from safetensors import SafetensorError

    require_plain_file(record_format.answers_file(path), record_format.LARGEST_PACKED)
    damages = ValueError, KeyError, TypeError, EOFError, RecursionError, lzma.LZMAError
    try:
        content = record_format.read_content(path, description)
    except (*damages, SafetensorError) as problem:
        raise Refused("answers", str(problem)) from None
    kinds: dict[str, type] = {
        "experiment": dict,
        "summary": dict,
        "records": list,
        "class_names": list,
        "queries": str,
        "leaves_one_out": bool,
        "similarities": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(content.facts.get(key), kind):
            raise Refused("answers", f"{key} must be a {kind.__name__}: record the run again")
    return content
