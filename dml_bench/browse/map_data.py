"""What the panel with the maps asks FiftyOne's server for: the points, which of them a view holds,
and the nearest images of one. It reads the dataset, from which a person may have deleted samples.
"""

import json
from os.path import commonpath
from typing import Any, TypeAlias

import numpy as np

from dml_bench.browse.decisions import KEPT, LEFT_OUT, RELABELLED
from dml_bench.browse.fields import ANSWER_UNSEEN, COARSE, DOUBT, THUMBNAIL, VERDICTS
from dml_bench.plots.colours import BLUE, GOLD, GREEN, GREY, ORANGE, SKY, distinct

__all__ = [
    "EMBEDDED",
    "MAP",
    "NOTES",
    "SETTINGS",
    "TITLES",
    "chip_of",
    "map_data",
    "nearest_images",
    "rows_of",
]

Dataset: TypeAlias = Any

MAP, EMBEDDED = "umap_", "similarity_"
"""What the keys of maps and of searches by similarity begin with; the phase follows."""
SETTINGS, TITLES, NOTES = "dml_bench_map", "dml_bench_phases", "dml_bench_notes"
"""The keys of the dataset's info for what a person chose in the panel, for what phases are, and for
the lines beside their maps."""
GALLERY_SPLITS = ("train", "gallery", "enrolled")
NEAREST = 10
DIGITS = 4
COLOURS = {
    "unseen": ORANGE,
    "seen": BLUE,
    "train": GREY,
    "gallery": GREY,
    "test": BLUE,
    "enrolled": GREEN,
    "right in both": GREEN,
    "lost": ORANGE,
    "won": SKY,
    "wrong in both": GOLD,
    "right": GREEN,
    "wrong": ORANGE,
    "unknown": GOLD,
    "no query": GREY,
}
"""The colours of values that mean the same in every run."""

_embeddings: dict[tuple[str, str, Any], tuple[list[str], np.ndarray]] = {}


def phases_of(dataset: Dataset) -> list[str]:
    """The phases that have a map, the main one first."""
    return [phase for phase in dataset.info[TITLES] if f"{MAP}{phase}" in dataset.list_brain_runs()]


def map_data(dataset: Dataset) -> dict[str, Any]:
    """The images in the dataset's order, and for each phase their places and what it says of them.

    Classes are places in `classes`, other values are as FiftyOne has them; None stands for none.
    """
    ids, paths, labels = dataset.values(["id", "filepath", "ground_truth.label"])
    phases = [phase_data(dataset, phase, ids) for phase in phases_of(dataset)]
    names = set(labels)
    for phase in phases:
        names |= {name for name in phase["answer"] if name is not None}
    classes = sorted(names)
    number_of = {name: number for number, name in enumerate(classes)}
    for phase in phases:
        for key in ("answer", "vote"):
            phase[key] = [number_of.get(name, -1) for name in phase[key]]
    common = {}
    for field in ("split", "class_group", COARSE, "outcome", "class_drop"):
        if dataset.has_field(field):
            common[field] = rounded(dataset.values(field))
    coarse = sorted({name for name in common.get(COARSE, []) if name is not None})
    shown = paths
    if dataset.has_field(THUMBNAIL):
        copies = dataset.values(THUMBNAIL)
        shown = [copy or path for copy, path in zip(copies, paths, strict=True)]
    root = commonpath(shown) if len(shown) > 1 else ""
    return {
        "ids": ids,
        "root": root,
        "paths": [path[len(root) :] for path in shown],
        "classes": classes,
        "classColours": distinct(len(classes)),
        "colours": COLOURS,
        "coarseColours": dict(zip(coarse, distinct(len(coarse)), strict=True)),
        "verdictColours": VERDICTS,
        "label": [number_of[name] for name in labels],
        "common": common,
        "phases": phases,
        "tags": {"right": KEPT, "leave": LEFT_OUT, "class": RELABELLED},
        "settings": dataset.info.get(SETTINGS, {}),
    }


def phase_data(dataset: Dataset, phase: str, ids: list[str]) -> dict[str, Any]:
    """The places of the images on a phase's map, and what the phase says of them."""
    results = dataset.load_brain_results(f"{MAP}{phase}")
    place_of = dict(zip(results.sample_ids, results.points.tolist(), strict=True))
    points = [place_of.get(sample) for sample in ids]
    unseen = unseen_in(dataset, phase)
    fields = {
        "answer": f"prediction_{phase}.label",
        "verdict": f"answer_{phase}.verdict",
        "similarity": f"similarity_{phase}",
        "vote": f"vote_{phase}.label",
        "share": f"vote_{phase}.confidence",
        "doubt": f"mistakenness_{phase}",
        "hubness": f"hubness_{phase}",
    }
    values = {key: rounded(dataset.values(path)) for key, path in fields.items()}
    return {
        "name": phase,
        "title": dataset.info[TITLES][phase],
        "notes": dataset.info[NOTES][phase],
        "x": rounded([None if point is None else point[0] for point in points]),
        "y": rounded([None if point is None else point[1] for point in points]),
        "class_group": ["unseen" if sample in unseen else "seen" for sample in ids],
        **values,
    }


def unseen_in(dataset: Dataset, phase: str) -> set[str]:
    """The ids of the images of a phase's unseen classes: a map of their own has them."""
    key = f"{MAP}{phase}_unseen"
    if not dataset.has_brain_run(key):
        return set()
    return set(dataset.load_brain_results(key).sample_ids)


def rounded(values: list[Any]) -> list[Any]:
    """The same with fewer digits, which travel faster."""
    return [round(value, DIGITS) if isinstance(value, float) else value for value in values]


def rows_of(dataset: Dataset, view: Any) -> list[int]:
    """The places in the dataset of a view's samples, in the dataset's order."""
    kept = set(view.values("id"))
    return [row for row, sample in enumerate(dataset.values("id")) if sample in kept]


def chip_of(stages: Any, phases: list[str]) -> str | None:
    """The field that stands on images of a view: of labels to doubt what their neighbours say, of
    outcomes the answer by the model that lacked the class, else that of the view's phase. None
    where it is of no phase or of several."""
    text = json.dumps(stages, default=str).replace("$", "")
    if '"mistakenness_' in text:
        return DOUBT
    if '"outcome"' in text:
        return ANSWER_UNSEEN
    phase = phase_of(stages, phases)
    return None if phase is None else f"answer_{phase}"


def phase_of(stages: Any, phases: list[str]) -> str | None:
    """The phase whose fields a view's stages or filters name; None where they name none or
    for several."""
    text = json.dumps(stages, default=str)
    named = [phase for phase in phases if f'_{phase}"' in text or f"_{phase}." in text]
    return named[0] if len(named) == 1 else None


def embeddings_of(dataset: Dataset, key: str) -> tuple[list[str], np.ndarray]:
    """The ids and (samples, dim) unit vectors of a search; they are read once."""
    made = (dataset.name, key, dataset.get_brain_info(key).timestamp)
    if made not in _embeddings:
        results = dataset.load_brain_results(key)
        ids = [str(sample) for sample in results.sample_ids]
        _embeddings[made] = ids, np.asarray(results.embeddings)
    return _embeddings[made]


def nearest_images(dataset: Dataset, sample: str) -> dict[str, list[tuple[str, float]]]:
    """By phase, the ids of the ten gallery images that are most similar to a sample, and their
    similarities. Where no image is in a gallery alone, all others are searched."""
    gallery = set(dataset.match({"split": {"$in": GALLERY_SPLITS}}).values("id"))
    nearest = {}
    for phase in phases_of(dataset):
        ids, vectors = embeddings_of(dataset, f"{EMBEDDED}{phase}")
        if sample not in ids:
            continue
        similarities = vectors @ vectors[ids.index(sample)]
        of_phase: list[tuple[str, float]] = []
        for row in np.argsort(-similarities, kind="stable"):
            if ids[row] != sample and (not gallery or ids[row] in gallery):
                of_phase.append((ids[row], round(float(similarities[row]), DIGITS)))
            if len(of_phase) == NEAREST:
                break
        nearest[phase] = of_phase
    return nearest
