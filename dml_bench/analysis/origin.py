"""What runs were made with: data, hardware, versions and dates."""

import json
from collections.abc import Sequence
from typing import Any

from dml_bench.runs.run import Run
from dml_bench.runs.schema import DatasetFacts
from dml_bench.system.counted import counted

__all__ = ["describe_origin", "environments"]

ENVIRONMENT_KEYS = (
    "packages",
    "processor",
    "cores",
    "threads",
    "device",
    "precision",
    "python",
    "dml_bench",
    "commit",
)
PACKAGES = ("torch", "torchvision", "timm", "faiss-cpu", "numpy")


def environments(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The distinct places, versions and settings that the last session of each run had, with the
    number of runs of each."""
    places: dict[str, dict[str, Any]] = {}
    for run in runs:
        place = dict(run.last_session(*ENVIRONMENT_KEYS))
        place.pop("started_at", None)
        place.pop("command", None)
        entry = places.setdefault(json.dumps(place, sort_keys=True), {**place, "runs": 0})
        entry["runs"] += 1
    return list(places.values())


def describe_origin(runs: Sequence[Run]) -> list[str]:
    """Lines for people."""
    datasets = {}
    for run in runs:
        datasets[run.summary["dataset"]["fingerprint"]] = run.summary["dataset"]
    lines = [describe_dataset(dataset) for dataset in datasets.values()]
    lines += [describe_place(place) for place in environments(runs)]
    days = sorted({run.last_session("started_at")["started_at"][:10] for run in runs})
    if len(days) == 1:
        lines.append(f"runs made {days[0]}")
    elif days:
        lines.append(f"runs made {days[0]} to {days[-1]}")
    return lines


def describe_dataset(dataset: DatasetFacts) -> str:
    return (
        f"{dataset['name']}: {dataset['num_images']:,} images of {dataset['num_classes']} classes"
        f" (fingerprint {dataset['fingerprint'][:12]})"
    )


def describe_place(place: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {place['packages'][name]}" for name in PACKAGES)
    return (
        f"{counted(place['runs'], 'run')} on {place['processor']},"
        f" {counted(place['cores'], 'core')}, {counted(place['threads'], 'thread')} a run,"
        f" {place['device']}, {place['precision']}; Python {place['python']}, {packages}, dml-bench"
        f" {place['dml_bench']} (commit {place['commit']})"
    )
