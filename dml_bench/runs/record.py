"""Records of runs: written from finished run folders, and found again in place of a run.

A run folder holds weights and embeddings, some 100 MB. Its record holds what every number of a
table, a comparison or a report is made of, in 15 to 40 kilobytes that a repository can keep.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.config import Experiment, as_table
from dml_bench.data.datasets import Dataset
from dml_bench.data.identity import differing_data
from dml_bench.data.images import box_of
from dml_bench.data.split import held_out_by, split_of
from dml_bench.evaluation.metrics import map_at_r, r_precision, vote
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols import phases_of, protocol_of
from dml_bench.runs import layout, record_format
from dml_bench.runs.folder import completed, decisive, differing
from dml_bench.runs.record_description import description_of
from dml_bench.runs.run import RecordedRun, Run, read_record
from dml_bench.runs.schema import Summary
from dml_bench.system.code_digest import code_digest
from dml_bench.system.files import short_name
from dml_bench.system.provenance import describe

__all__ = [
    "IMAGE_SETS",
    "VOTERS",
    "OtherRecord",
    "find_record",
    "is_of_run",
    "is_recorded",
    "record_path",
    "rewrite_record",
    "short_digests",
    "write_record",
]

VOTERS = 10
"""How many neighbours elect the class that a record keeps."""
IMAGE_SETS = ("query_images", "gallery_images")
"""The arrays of short digests."""
FINE_STEPS, COARSE_STEPS = 63, 7
"""The last step of a similarity: of a run with one hold-out, and of one with several, whose record
would be too large. It has similarities of the main phase alone."""
DECIDING_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "pytorch-metric-learning",
    "faiss-cpu",
    "numpy",
    "pillow",
)
"""Packages whose versions decide answers."""
LONGEST_NAME = 200
"""Bytes of a folder's name without its digest; a file system allows 255 with it."""
OF_THIS_MACHINE = ("root", "root_from_run")
"""Facts on the data set that a record leaves out."""


class OtherRecord(ValueError):
    """A record is there that can't be taken for the run, or written over."""


def record_path(results: Path, experiment: Experiment, dataset: str) -> Path:
    """The JSON of the record of a run."""
    division = experiment.data.described_split
    if protocol_of(experiment).takes_unseen:
        division += f"-{experiment.unseen}"
    folder = results / dataset / folder_name(division) / experiment.name
    return folder / f"{layout.seed_name(experiment.seed)}.json"


def folder_name(division: str) -> str:
    """A folder for records of the same division into parts and phases, named by it. Where that
    would leave out signs, as of a pattern, or be too long, it ends with a digest."""
    name = re.sub(r"[^\w.]+", "-", division).strip("-")
    if name == re.sub("[: ]", "-", division) == short_name(name, LONGEST_NAME):
        return name
    digest = hashlib.sha256(division.encode()).hexdigest()[:8]
    return f"{short_name(name, LONGEST_NAME)}-{digest}"


def write_record(
    results: Path,
    run: Run,
    diagnostics: Mapping[str, Any] | None = None,
    *,
    submitted_by: str = "",
    revision: str = "",
) -> Path:
    """Write the record of a finished run, and return the path of its JSON. The record of an earlier
    run in its place is replaced; the same run gives the same bytes.

    Args:
        diagnostics: values of JSON that can't be measured of the answers (`analysis.recording`).
        submitted_by: who hands it in. The record then also holds short digests of the queries and
            of the gallery, by which an image in both is seen.
        revision: of the data, where it is not the usual one: its records have a folder of their
            own.

    Raises OtherRecord where the record there is of other images. One that can't be read is
    replaced: whoever tries to read it is told to record the run again.
    """
    name = f"{run.dataset_name}_{revision}" if revision else run.dataset_name
    path = record_path(results, run.experiment, name)
    before = readable(path) if path.exists() else None
    if before is not None:
        require_same_images(path, before, run, "choose another folder with --results DIR")
    content = content_of(run, diagnostics or {})
    if submitted_by:
        content.arrays.update(image_sets(run))
    summary: Summary = content.facts["summary"]
    recorded = RecordedRun(path, run.experiment, summary, content=content, description={})
    record_format.write_content(path, description_of(run, recorded, submitted_by), content)
    return path


def readable(path: Path) -> dict[str, Any] | None:
    """What a record says; None where it can't be read."""
    try:
        return record_format.read_description(path)
    except ValueError:
        return None


def require_same_images(path: Path, before: Mapping[str, Any], run: Run, remedy: str) -> None:
    """Raises OtherRecord, with the `remedy`, where the record there is of other images."""
    fingerprint = before["dataset"]["fingerprint"]
    if fingerprint != run.dataset_fingerprint:
        raise OtherRecord(
            f"{path} is of other images (fingerprint {fingerprint[:12]}, the run's"
            f" {run.dataset_fingerprint[:12]}): {remedy}"
        )


def is_recorded(results: Path, run: Run) -> bool:
    """Whether there is a record of this very run."""
    path = record_path(results, run.experiment, run.dataset_name)
    if not path.exists():
        return False
    return is_of_run(record_format.read_description(path), run)


def is_of_run(description: Mapping[str, Any], run: Run) -> bool:
    """Whether a record is of this very run: of its images, and begun when it was."""
    started = run.last_session("started_at")["started_at"]
    of_record = (description["dataset"]["fingerprint"], description["session"].get("started_at"))
    return of_record == (run.dataset_fingerprint, started)


def rewrite_record(path: Path, submitted_by: str | None = None) -> None:
    """Write a record anew from its answers, as this version does: what an earlier one left out is
    added, and intervals are this version's. None keeps who handed it in."""
    recorded = read_record(path)
    name = recorded.description.get("submitted_by", "") if submitted_by is None else submitted_by
    description = description_of(recorded, recorded, name)
    summary = recorded.content.facts["summary"]
    for metric, ends in description["intervals"].items():
        for place, value in zip((f"{metric}_low", f"{metric}_high"), ends, strict=True):
            if place in summary:
                summary[place] = value
    record_format.write_content(path, description, recorded.content)


def content_of(run: Run, diagnostics: Mapping[str, Any]) -> record_format.Content:
    """The answers of a run, and all that is known of it."""
    main = run.neighbours[run.protocol.main_phase]
    labels = np.concatenate([main.gallery_labels, main.query_labels])  # some may be in one alone
    num_classes = int(labels.max(initial=0)) + 1
    arrays = {
        "query_labels": small(main.query_labels),
        "gallery_counts": small(np.bincount(main.gallery_labels, minlength=num_classes)),
    }
    similarities, last_step = {}, FINE_STEPS if len(run.neighbours) <= 2 else COARSE_STEPS
    for phase, neighbours in run.neighbours.items():
        assert np.array_equal(neighbours.query_labels, main.query_labels)
        of_phase, similarities[phase] = answers_of(
            neighbours, last_step, measures_ranking=run.protocol.measures_ranking
        )
        if not record_format.keeps_similarities(
            phase, run.protocol.main_phase, len(run.neighbours)
        ):
            del of_phase["similarity"]
        logits = run.logits(phase)
        if logits.path.is_file():
            of_phase["logits"] = record_format.encoded_classes(
                logits.predicted, neighbours.query_labels
            )
        arrays |= {f"{phase}.{name}": array for name, array in of_phase.items()}
    facts = {
        "experiment": without_files(as_table(run.experiment)),
        "summary": summary_of(run),
        "records": record_format.rounded(run.records, 4),
        "class_names": list(run.class_names.values()),
        "queries": run.queries_digest,
        "leaves_one_out": main.leaves_one_out,
        "similarities": similarities,
        "last_step": last_step,
        "diagnostics": dict(diagnostics),
    }
    if run.coarse_classes:
        facts["coarse_classes"] = list(run.coarse_classes.values())
    if run.coarse_of_others:
        of_others = run.coarse_of_others.items()
        facts["coarse_of_others"] = {str(label): coarse for label, coarse in of_others}
    if names := answered_only(run, arrays):
        facts["answered_only"] = names
    return record_format.Content(facts, arrays)


def answered_only(run: Run, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """By id, the names of classes that answer a query and have no queries themselves, as other
    images of a gallery may be of; from the record's arrays."""
    names: dict[str, str] = {}
    for phase, neighbours in run.neighbours.items():
        nearest = neighbours.labels[:, 0]
        elected = record_format.decoded_classes(arrays[f"{phase}.elected"], nearest)
        for classes, column in ((nearest, "predicted"), (elected, "vote")):
            for place in np.flatnonzero(~np.isin(classes, neighbours.query_labels)).tolist():
                names[str(classes[place])] = run.predictions[place][f"{phase}_{column}"]
    return names


def image_sets(run: Run) -> dict[str, np.ndarray]:
    """Short digests of the queries and of the gallery; nothing where a run kept no digests, or
    looks each query up among the others."""
    if run.neighbours[run.protocol.main_phase].leaves_one_out or not run.split[0].sha256:
        return {}
    parts: dict[str, list[str]] = {}
    for image in run.split:
        text = f"{image.sha256} {box_of(image.path) or ''}"  # parts of a photo are other images
        parts.setdefault(image.part, []).append(text)
    own_gallery = "gallery_images" in run.summary["split"]
    gallery = parts.get("gallery" if own_gallery else "train", [])
    sets = zip(IMAGE_SETS, (parts.get("test", []), gallery), strict=True)
    return {name: short_digests(texts) for name, texts in sets}


def short_digests(texts: Sequence[str]) -> np.ndarray:
    """(images) ascending 32 bits of each: of two sets of 5,000 images, one pair in 170 such sets
    is alike by chance."""
    digests = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
    return np.sort(np.frombuffer(b"".join(digests), "<u4"))


def answers_of(
    neighbours: Neighbours, last_step: int, *, measures_ranking: bool
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The arrays of one phase, and the ends of its similarities."""
    labels, nearest = neighbours.query_labels, neighbours.labels[:, 0]
    elected, _ = vote(neighbours, min(VOTERS, neighbours.k))
    steps, ends = record_format.encoded_similarities(neighbours.similarities[:, 0], last_step)
    arrays = {
        "nearest": record_format.encoded_classes(nearest, labels),
        "elected": record_format.encoded_classes(elected, nearest),
        "similarity": steps,
    }
    if measures_ranking:
        relevant = neighbours.labels == labels[:, None]
        place = np.where(relevant.any(1), relevant.argmax(1) + 1, 0)
        at_r = np.stack([r_precision(neighbours), map_at_r(neighbours)], axis=1)
        arrays["first_relevant"] = small(place)
        arrays["at_r"] = record_format.encoded_fractions(at_r)
    return arrays, ends


def small(values: np.ndarray) -> np.ndarray:
    """The same in the smallest unsigned integers that hold them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def summary_of(run: Run) -> dict[str, Any]:
    """The summary without digests of files, paths of a machine, and the scatter of embeddings,
    which would lengthen a record by a third. Runs of earlier versions measured costs to a
    femtosecond."""
    cost = record_format.rounded(run.summary["cost"], record_format.COST_DIGITS)
    summary: dict[str, Any] = {**run.summary, "cost": cost}
    if "phases" in summary:
        phases = {}
        for phase, values in summary["phases"].items():
            phases[phase] = {key: values[key] for key in values if key != "scatter"}
        summary["phases"] = phases
    dataset = {key: run.summary["dataset"].get(key) for key in run.summary["dataset"]}
    for key in OF_THIS_MACHINE:
        dataset.pop(key, None)
    return {**summary, "dataset": {**dataset, "root": ""}, "files": {}}


def without_files(table: dict[str, Any]) -> dict[str, Any]:
    """A saved experiment whose plug-ins have no paths of a machine."""
    for record in table.get("plugins", {}).get("components", []):
        record["file"] = Path(record.get("file", "")).name
    return table


def find_record(
    results: Path, experiment: Experiment, dataset: Dataset, *, any_code: bool = False
) -> RecordedRun | None:
    """The recorded run of exactly this experiment on these data, made by the code and the packages
    that are here now, or by `any_code`; None where there is no record.

    Raises OtherRecord, with the reason, where there is one that is not of the same, and ValueError
    where its files were changed.
    """
    path = record_path(results, experiment, dataset.name)
    if not path.exists():
        return None
    run = read_record(path)
    reason = why_other(run, experiment, dataset)
    if not reason and not any_code:
        reason = why_other_code(run)
    if reason:
        raise OtherRecord(f"{path} is of {reason}")
    return run


def why_other(run: RecordedRun, experiment: Experiment, dataset: Dataset) -> str:
    """Why a record is not of this experiment on these data; empty where it is."""
    theirs = decisive(completed(as_table(run.experiment)))
    if keys := differing(theirs, decisive(as_table(experiment))):
        return f"another configuration (differs in {', '.join(keys[:4])})"
    summary: Any = run.summary
    if other := differing_data(summary, experiment, dataset):
        return other
    if not summary["dataset"].get("left_out"):
        split = split_of(experiment, dataset)
        phases = phases_of(experiment, dataset, split)
        # classes that validate, or that only the gallery has, are in no list of unseen classes
        of_queries = set(dataset.labels[split.test].tolist())
        never = {dataset.class_names[label] for label in held_out_by(phases) & of_queries}
        if split.fingerprint != summary["split"]["fingerprint"]:
            return "another division of the images"
        if never and never != set(summary["unseen_classes"]):
            return "other classes held out"
    return ""


def why_other_code(run: RecordedRun) -> str:
    """Whether other code made a record, or which packages changed since; empty where none has."""
    if run.description["code_sha256"] != code_digest():
        return "other code"
    session = run.description["session"]
    for versions in (session, *session.get("earlier", [])):
        if other := other_packages(session.get("packages", {}) | versions.get("packages", {})):
            return other
    return ""


def other_packages(packages: Mapping[str, str | None]) -> str:
    """Packages that decide answers and have another version here; empty where none has."""
    here = describe()["packages"]
    changed = []
    for name in DECIDING_PACKAGES:
        before, now = (public_version(versions.get(name)) for versions in (packages, here))
        if before != now:
            changed.append(f"{name} {before}, here {now}")
    return ", ".join(changed)


def public_version(version: str | None) -> str:
    """Without what says how it was built: 2.15.0 of 2.15.0+cpu."""
    return (version or "none").partition("+")[0]
