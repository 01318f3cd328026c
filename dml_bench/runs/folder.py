"""The run folder: what is written, read back and checked. Everything else only reads it.

`layout` names its files. summary.json is written last: a folder without it is not a result.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dml_bench.config import Experiment, as_table, load
from dml_bench.data.datasets import Dataset
from dml_bench.data.identity import DataFacts, OtherData, differing_data
from dml_bench.runs import layout
from dml_bench.runs.schema import BegunEnvironment, Environment, EpochRecord, Session, Summary
from dml_bench.system.drafts import remove, sweep, whole_files
from dml_bench.system.files import (
    Damaged,
    Shape,
    defined,
    sha256_of,
    write_json,
    write_json_lines,
)
from dml_bench.system.files import read_json as read_whole
from dml_bench.system.files import read_json_lines as read_whole_lines
from dml_bench.system.locks import held

__all__ = ["SCHEMA_VERSION", "Occupied", "RunFolder"]

SCHEMA_VERSION = 1
REMEDY = "--force redoes the run"
SUMMARY: Shape = {
    "files": {...: str},
    "dataset": {"name": str, "root": str, "fingerprint": str},
    "split": {"fingerprint": str},
    "cost": dict,
}
BEGUN: Shape = {
    "dataset": {"fingerprint": str},
    "split": {"fingerprint": str},
    "wandb_id": str,
    "sessions": [dict],
}
RECORD: Shape = {"phase": str, "epoch": int}


class Occupied(ValueError):
    """Another process works in the run folder."""


class RunFolder:
    """The record of one experiment on one data set with one seed."""

    def __init__(self, out: Path, experiment: Experiment, dataset: str):
        self.path = layout.run_folder(out, experiment.name, dataset, experiment.seed)
        self.experiment = experiment

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process writes here; freed by the system when the process ends, however it
        ends. It lies beside the folder, which `clear` takes away as a whole. What a dead process
        left half made is removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        busy = (
            f"another process is working in {self.path}; wait for it, or choose another folder"
            " with --out"
        )
        with held(self.path.with_name(f".{self.path.name}.lock"), busy, Occupied):
            sweep(self.path.parent)
            for folder, _, _ in os.walk(self.path):
                sweep(Path(folder))
            yield

    def claim(self, dataset: Dataset) -> None:
        """Make the folder this experiment's on these data. Raises ValueError if it holds a run of
        another configuration, OtherData if of other data, that has trained at all."""
        keys, other = self.other_settings(), self.other_data(dataset)
        changed = [key.removeprefix("plugins.") for key in keys if key.startswith("plugins.")]
        if self.has_trained and changed and len(changed) == len(keys):
            raise ValueError(
                f"{self.path} holds a run with {changed[0]} as it was before its code was changed:"
                " restore the code; --force replaces the run, --out DIR keeps both"
            )
        if self.has_trained and keys:
            raise ValueError(
                f"{self.path} holds a run of another configuration (differs in"
                f" {', '.join(keys[:4])}); --force replaces it, --out DIR keeps both"
            )
        self.require_data(dataset)
        if keys or other:
            self.clear()
        if not (self.path / layout.EXPERIMENT).exists():
            write_json(self.path / layout.EXPERIMENT, as_table(self.experiment))

    def other_settings(self) -> list[str]:
        """Dotted keys in which the folder's experiment differs from this one; empty where it holds
        none."""
        path = self.path / layout.EXPERIMENT
        return (
            differing(decisive(completed(read_json(path))), decisive(as_table(self.experiment)))
            if path.exists()
            else []
        )

    def other_data(self, dataset: Dataset) -> str:
        """How the data of the folder's run differ from these, in words; empty where they don't, or
        it has got to no data yet."""
        path = self.path / layout.SUMMARY
        recorded: DataFacts | None = read_json(path, SUMMARY) if path.exists() else self.begun
        return differing_data(recorded, self.experiment, dataset) if recorded else ""

    def require_data(self, dataset: Dataset) -> None:
        """Raises OtherData where the folder holds a run that has trained, on other data than
        these."""
        if self.has_trained and (other := self.other_data(dataset)):
            raise OtherData(
                f"{self.path} holds a run on {other}: give its own folder with --data-dir; `run"
                " --force` replaces it, --out DIR keeps both"
            )

    @property
    def has_trained(self) -> bool:
        """Whether anything would be lost with the folder."""
        names = {path.name for path in whole_files(self.path)}
        return bool(self.records()) or not names.isdisjoint((layout.CHECKPOINT, layout.SUMMARY))

    def clear(self) -> None:
        """Empty the folder in one step: no phase of an old run is ever beside a new one's."""
        remove(self.path)
        self.path.mkdir()

    @property
    def environment(self) -> Environment:
        """Without a session where the run has not begun."""
        path = self.path / layout.ENVIRONMENT
        if not path.exists():
            return {"sessions": []}
        return read_environment(self.path)

    @property
    def begun(self) -> BegunEnvironment | None:
        """The environment of a run that is to go on: with its images, its split and its W&B id;
        None where it has not begun."""
        path = self.path / layout.ENVIRONMENT
        if not path.exists():
            return None
        environment: BegunEnvironment = read_json(path, BEGUN)
        return environment

    def write_environment(self, environment: BegunEnvironment) -> None:
        write_json(self.path / layout.ENVIRONMENT, environment)

    def write_records(self, records: Sequence[EpochRecord]) -> None:
        """metrics.jsonl anew: one line per epoch of each phase, in the order they happened."""
        write_json_lines(self.path / layout.RECORDS, records)

    def records(self) -> list[EpochRecord]:
        return read_records(self.path)

    @property
    def records_lock(self) -> Path:
        """What processes lock that train phases of one run beside each other, while one of them
        writes its records between those of others."""
        return self.path.with_name(f".{self.path.name}.records.lock")

    def phase(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def summary(self) -> Summary | None:
        """The result, or None if the run has not ended. Raises ValueError if files of it are
        missing or were changed."""
        path = self.path / layout.SUMMARY
        if not path.exists():
            return None
        version = read_json(path).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION};"
                f" {REMEDY}"
            )
        summary: Summary = read_json(path, SUMMARY)
        check_digests(self.path, summary["files"])
        return summary

    def write_summary(self, summary: Mapping[str, Any]) -> Summary:
        """Seal the run: the summary with the SHA-256 of every file that belongs to it, which is
        returned as it is read back."""
        kept = [
            path
            for path in visible(self.path)
            if layout.WANDB not in path.relative_to(self.path).parts
        ]
        files = digests(
            self.path,
            [path for path in kept if path.name not in (layout.SUMMARY, layout.ENVIRONMENT)],
        )
        sealed: Summary = defined({**summary, "files": files})
        write_json(self.path / layout.SUMMARY, sealed)
        return sealed


def decisive(table: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a saved experiment that decides its numbers: without what people say about it and
    expect of it."""
    kept = {
        key: value for key, value in table.items() if key not in ("summary", "expects", "plugins")
    }
    for record in table.get("plugins", {}).get("components", []):
        kept.setdefault("plugins", {})[f"{record['kind']} {record['name']}"] = record["sha256"]
    return kept


def completed(table: dict[str, Any]) -> dict[str, Any]:
    """A saved experiment with the settings that came after it at their defaults; as it is, if this
    program can't read it."""
    try:
        return as_table(load(table))
    except ValueError:
        return table


def differing(theirs: dict[str, Any], mine: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys with different values."""
    keys = []
    for key in sorted(theirs.keys() | mine.keys()):
        old, new = theirs.get(key), mine.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            keys += differing(old, new, f"{prefix}{key}.")
        elif old != new:
            keys.append(f"{prefix}{key}")
    return keys


def differing_in_a_row(theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """Dotted keys with different values in two seeds of a row, but for those in which they may
    differ."""
    free = free_for_a_seed(theirs) & free_for_a_seed(mine)
    return [key for key in differing(theirs, mine) if key not in free]


def free_for_a_seed(settings: dict[str, Any]) -> set[str]:
    """The seed. Where the split depends on it, so do the search for settings, what it chose and how
    that was judged."""
    searched = settings.get("tuned")
    if not searched:
        return {"seed"}
    judged = {f"tuned.{key}" for key in ("score", "own_score", "split", "study")}
    return {"seed", *searched["settings"], *judged}


@contextmanager
def remedied(path: Path) -> Iterator[None]:
    """What can't be read of a run is said with what to do about it."""
    try:
        yield
    except Damaged as problem:
        raise ValueError(f"{problem}; {REMEDY}") from None
    except OSError as problem:
        raise ValueError(f"{path} can't be read: {problem.strerror}; {REMEDY}") from None


def read_json(path: Path, shape: Shape = dict) -> Any:
    """A file of JSON in a run folder. Raises ValueError where it is not what was written, or not of
    the shape."""
    with remedied(path):
        return read_whole(path, shape)


def read_environment(folder: Path, *keys: str) -> Environment:
    """environment.json, each of whose sessions has these keys at least."""
    shape: Shape = {"sessions": [dict.fromkeys(keys, object)]}
    environment: Environment = read_json(folder / layout.ENVIRONMENT, shape)
    return environment


def read_records(folder: Path) -> list[EpochRecord]:
    """One for each epoch of each phase, in the order in which they happened."""
    path = folder / layout.RECORDS
    if not path.exists():
        return []
    with remedied(path):
        return read_whole_lines(path, RECORD)


def last_session(folder: Path, *keys: str) -> Session:
    """What the last process that worked on a run said of itself: these keys at least. Raises
    ValueError where it did not."""
    sessions = read_environment(folder, *keys)["sessions"]
    if not sessions:
        raise ValueError(f"{folder / layout.ENVIRONMENT} tells of no session; {REMEDY}")
    return sessions[-1]


def digests(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, by POSIX path relative to `root`."""
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in paths}


def check_digests(root: Path, wanted: dict[str, str]) -> None:
    for name, digest in wanted.items():
        path = root / name
        if not path.is_file() or digests(root, [path])[name] != digest:
            raise ValueError(f"{path} is missing or was changed after the run; {REMEDY}")


def visible(folder: Path) -> list[Path]:
    return [path for path in whole_files(folder) if not path.name.startswith(".")]


def seal_phase(folder: Path) -> None:
    """Mark a phase as complete: its files with their SHA-256, written last; without the training's
    state, which is thrown away."""
    passing = (folder / layout.SEAL, folder / layout.CHECKPOINT)
    write_json(
        folder / layout.SEAL,
        digests(folder, [path for path in visible(folder) if path not in passing]),
    )


def is_sealed(folder: Path) -> bool:
    """Whether the phase is complete. Raises ValueError if it was, and its files have changed
    since."""
    if not (folder / layout.SEAL).exists():
        return False
    wanted = read_json(folder / layout.SEAL, {...: str})
    if not wanted:
        raise ValueError(f"{folder / layout.SEAL} names no file; {REMEDY}")
    check_digests(folder, wanted)
    return True
