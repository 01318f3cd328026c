"""What the JSON of a record says of a run: all of it measured of the recorded answers, or copied
from what the run recorded of itself."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.statistics import interval
from dml_bench.protocols import protocol_of
from dml_bench.runs import layout, record_format, record_schema
from dml_bench.runs.folder import decisive
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import RecordedRun, Run
from dml_bench.system.files import defined

__all__ = [
    "classes_of",
    "code_of_run",
    "configuration_digest",
    "cost_of",
    "description_of",
    "measured_numbers",
    "nearest_digest",
]

OF_EACH_SESSION = ("started_at", "command")
"""What is another for each session."""


def description_of(run: Run, recorded: RecordedRun, submitted_by: str) -> dict[str, Any]:
    """What `record_schema.Record` has but its version and the digest of the answers; `recorded` is
    the run as it can be read from its record."""
    session: dict[str, Any] = dict(run.last_session("started_at", "packages"))
    session.pop("command", None)
    session |= earlier_sessions(run)
    summary = recorded.summary
    numbers, intervals = measured_numbers(recorded)
    configuration: dict[str, Any] = recorded.content.facts["experiment"]
    dataset, split = dict(summary["dataset"]), dict(summary["split"])
    sizes = ("train_images", "valid_images", "test_images", "gallery_images")
    held_out = run.protocol.held_out(summary)
    description: dict[str, Any] = defined(
        {
            "experiment": run.experiment.name,
            "protocol": run.experiment.protocol,
            "profile": run.experiment.profile,
            "seed": run.seed,
            "submitted_by": submitted_by,
            "trained": not run.experiment.no_drop_because,
            "configuration_sha256": configuration_digest(configuration),
            "code_sha256": code_of_run(run),
            "weights": weights_of(run),
            "dataset": {
                key: dataset[key] for key in ("name", "fingerprint", "num_images", "num_classes")
            },
            "split": {
                "kind": run.experiment.data.described_split,
                "fingerprint": split["fingerprint"],
                **{key: split[key] for key in sizes if key in split},
            },
            "unseen": protocol_of(run.experiment).describe_unseen(run.experiment),
            "held_out": {phase: len(names) for phase, names in held_out.items()},
            "queries_sha256": recorded.queries_digest,
            "copies_in_gallery": summary.get("copies", {}).get("queries"),
            "session": session,
            "numbers": numbers,
            "intervals": intervals,
            "classes": classes_of(recorded),
            "cost": record_format.rounded(cost_of(run), 4),
            "configuration": configuration,
            "nearest_sha256": nearest_digest(recorded),
        }
    )
    return description


def earlier_sessions(run: Run) -> dict[str, Any]:
    """Of a run that was gone on with: the number of its `sessions`, and in what `earlier` ones
    differed from the last, each difference once. Nothing of a run of one session; a record repeats
    what it said."""
    *before, last = run.environment["sessions"]
    if not before:
        return {}
    differences: list[dict[str, Any]] = []
    for session in before:
        other = unlike(session, last)
        if other and other not in differences:
            differences.append(other)
    return {"sessions": len(before) + 1, "earlier": differences}


def unlike(session: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What a session has elsewise than the last one; of packages, the versions of those alone."""
    keys = [key for key in session if key not in OF_EACH_SESSION]
    other = {key: session[key] for key in keys if session[key] != last.get(key)}
    if isinstance(other.get("packages"), Mapping):
        other["packages"] = unlike(other["packages"], last.get("packages", {}))
    return other


def configuration_digest(table: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the numbers of an experiment, of its saved table."""
    return hashlib.sha256(json.dumps(decisive(table), sort_keys=True).encode()).hexdigest()


def code_of_run(run: Run) -> str | None:
    """The digest of the code that made a run; None where it is not known, or was not the same in
    all sessions. A record, which has the last session alone, repeats what it said."""
    if isinstance(run, RecordedRun) and "code_sha256" in run.description:
        stated: str | None = run.description["code_sha256"]
        return stated
    codes = {session.get("code") for session in run.environment["sessions"]}
    return codes.pop() if len(codes) == 1 else None


def weights_of(run: Run) -> dict[str, str]:
    """SHA-256 of the weights of each phase whose weights the run kept. A record repeats what it
    said."""
    if isinstance(run, RecordedRun):
        return dict(run.description.get("weights", {}))
    kept: dict[str, str] = {}
    files = run.summary.get("files", {})
    for phase in run.neighbours if files else ():
        models = run.models(phase)
        if models and all(f"{model}/{layout.WEIGHTS}" in files for model in models):
            kept[phase] = run.weights_digest(phase)
    return kept


def cost_of(run: Run) -> dict[str, Any]:
    """What the run took, over all phases; each phase's cost is in the summary."""
    phases = run.costs.values()
    cpu = [dict(phase).get("train_cpu_seconds") for phase in phases]
    return {
        "total_seconds": run.summary["cost"]["total_seconds"],
        "train_seconds": sum(phase["train_seconds"] for phase in phases),
        "train_cpu_seconds": None if None in cpu else sum(cpu),
        "peak_memory_bytes": max(phase.get("peak_memory_bytes", 0) for phase in phases),
    }


def measured_numbers(recorded: RecordedRun) -> tuple[dict[str, float], dict[str, list[float]]]:
    """By name, each metric of the answers; and its 95% interval of this run alone, where there is
    one."""
    numbers, intervals = {}, {}
    for metric in metrics_of(recorded.experiment).values():
        scores = [metric.scores(recorded)]
        measured = interval(scores, average=metric.average, within=metric.within)
        numbers[metric.name] = measured.estimate
        if np.isfinite([measured.low, measured.high]).all():
            intervals[metric.name] = [measured.low, measured.high]
    return numbers, intervals


def classes_of(recorded: RecordedRun) -> dict[str, Any]:
    """Of each class its queries, and how many of them each phase's model got right."""
    phases = recorded.neighbours
    rows = {}
    if len(recorded.class_names) <= record_schema.MOST_CLASSES:
        counts = []
        for neighbours in phases.values():
            right = np.bincount(neighbours.query_labels, precision_at_1(neighbours))
            counts.append(right.astype(int))
        queries = np.bincount(recorded.content.arrays["query_labels"].astype(np.int64))
        for label, name in recorded.class_names.items():
            rows[name] = [int(queries[label]), *(int(right[label]) for right in counts)]
    return {"columns": ["queries", *phases], "rows": rows}


def nearest_digest(recorded: RecordedRun) -> str:
    """SHA-256 over the class of each query, of its nearest image, and of what logits choose, phase
    by phase."""
    arrays = recorded.content.arrays
    state = hashlib.sha256(arrays["query_labels"].astype("<i8").tobytes())
    for phase, neighbours in sorted(recorded.neighbours.items()):
        state.update(phase.encode() + neighbours.labels[:, 0].astype("<i8").tobytes())
        if f"{phase}.logits" in arrays:
            state.update(recorded.logits(phase).predicted.astype("<i8").tobytes())
    return state.hexdigest()
