"""suite.json: how a suite was made, over all the sessions that it took."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dml_bench.analysis.origin import describe_origin
from dml_bench.runs.run import Run
from dml_bench.suite.executor import JobResult, Slots
from dml_bench.system.counted import counted
from dml_bench.system.files import Damaged, Shape, read_json, write_json
from dml_bench.system.terminal import duration

__all__ = ["SuiteRecord", "scalars"]

SCHEMA_VERSION = 1
RUN_SHAPE: Shape = {"experiment": str, "seconds": int | float}
SHAPE: Shape = {
    "schema_version": int,
    "sessions": [{"wall_seconds": int | float, "jobs": int, "runs": [RUN_SHAPE]}],
}


class SuiteRecord:
    """The sessions of a suite: each call that ran something. A call for which everything was
    finished leaves no trace."""

    def __init__(self, path: Path, command: Sequence[str]):
        self.path = path
        self.before = read(path)
        self.session: dict[str, Any] = {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": 0.0,
            "command": list(command),
            "ended": "stopped",
            "runs": [],
        }

    def begin(self, slots: Slots) -> None:
        """Record what the runs of this session are carried out on."""
        self.session |= {
            "jobs": slots.jobs,
            "devices": list(slots.devices),
            "threads": slots.threads,
        }
        if slots.where:
            self.session["where"] = slots.where

    def add(self, result: JobResult) -> None:
        """Record how a run ended."""
        experiment = result.job.experiment
        run = {
            "experiment": experiment.name,
            "seed": experiment.seed,
            "status": result.status,
            "seconds": round(result.seconds, 3),
        }
        if result.reason:
            run["reason"] = result.reason
        self.session["runs"].append(run)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """All sessions that ran something, this one last."""
        if self.session["wall_seconds"]:
            return [*self.before, self.session]
        return list(self.before)

    def write(self, facts: dict[str, Any], seconds: float, ended: str) -> None:
        """Write suite.json; `seconds` is this session's time, 0 where it had nothing to run."""
        self.session |= {"wall_seconds": round(seconds, 3), "ended": ended}
        seconds_per_row: dict[str, float] = {}
        for session in self.sessions:
            for run in session["runs"]:
                name = run["experiment"]
                seconds_per_row[name] = round(seconds_per_row.get(name, 0.0) + run["seconds"], 3)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        wall = round(sum(session["wall_seconds"] for session in self.sessions), 3)
        write_json(
            self.path,
            {
                "schema_version": SCHEMA_VERSION,
                **facts,
                "wall_seconds": wall,
                "seconds_per_row": seconds_per_row,
                "sessions": self.sessions,
            },
        )


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        content = read_json(path, SHAPE)
        if content["schema_version"] != SCHEMA_VERSION:
            raise Damaged(
                path,
                f"it has schema version {content['schema_version']}, this program reads"
                f" {SCHEMA_VERSION}",
            )
        return list(content["sessions"])
    except Damaged as problem:
        raise ValueError(
            f"{problem}; move it away, or choose another folder with --report DIR"
        ) from None
    except OSError as problem:
        raise ValueError(
            f"{path} can't be read: {problem.strerror}; move it away, or choose another folder with"
            " --report DIR"
        ) from None


def made_with(runs: Sequence[Run], sessions: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for people: data, hardware, versions, dates and time."""
    lines = describe_origin(runs)
    if sessions:
        wall = sum(session["wall_seconds"] for session in sessions)
        jobs = sorted({session["jobs"] for session in sessions})
        at_a_time = " or ".join(map(str, jobs)) + (" run" if jobs == [1] else " runs")
        lines.append(
            f"{duration(wall)} in {counted(len(sessions), 'session')}, {at_a_time} at a time"
        )
    return lines


def scalars(value: Any, prefix: str = "") -> dict[str, Any]:
    """All numbers and texts of a nested summary by their dotted names; lists, file digests and
    folders of this machine are left out."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and key != "files":
            flat |= scalars(inner, f"{prefix}{key}.")
        elif isinstance(inner, str | int | float) and key != "root":
            flat[f"{prefix}{key}"] = inner
    return flat
