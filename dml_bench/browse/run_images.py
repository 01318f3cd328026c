"""The table of a finished run's images, and of those that were enrolled after it."""

from functools import partial
from pathlib import Path

import numpy as np

from dml_bench.browse.families import coarse_classes_of
from dml_bench.browse.images import (
    ENROLLED,
    GALLERY,
    QUERY,
    BrowseSource,
    BrowseTable,
    phase_columns,
)
from dml_bench.gallery.calibration import current_names
from dml_bench.gallery.predict import USUAL_GOAL, USUAL_SHARES, NoPromise, threshold_of
from dml_bench.gallery.store import GalleryFile, run_gallery
from dml_bench.runs import layout
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import Run

__all__ = ["read_browse_table"]


def read_browse_table(run: Run, gallery: Path | None = None) -> BrowseTable:
    """Everything that a finished run says of its images. `gallery` is the folder of its changed
    galleries, where it is not the run's own. Raises ValueError where that folder has none."""
    embeddings = {phase: run.embeddings(phase) for phase in run.neighbours}
    first = next(iter(run.neighbours))
    neighbours = run.neighbours[first]
    images, labels = embeddings[first].query_images, neighbours.query_labels
    parts = [QUERY] * len(images)
    # Where each image is searched among all others, the queries are the gallery too.
    if not neighbours.leaves_one_out:
        images = np.concatenate([embeddings[first].gallery_images, images])
        labels = np.concatenate([neighbours.gallery_labels, labels])
        parts = [GALLERY] * (len(images) - len(parts)) + parts
    recorded = [run.images.recorded(image) for image in images]
    paths = [str(run.images.located(path)) for path in recorded]
    enrolled = read_enrolled(run, gallery, {*recorded, *paths})
    ids = {name: label for label, name in run.class_names_looked_up.items()}
    for name in dict.fromkeys(name for name, _ in enrolled.values()):
        ids.setdefault(name, max(ids.values()) + 1)
    enrolled_labels = [ids[name] for name, _ in enrolled.values()]
    labels = np.concatenate([labels, np.array(enrolled_labels, np.int64)])
    drops = class_drops(run)
    class_names = {label: name for name, label in ids.items()}
    phases = {}
    for phase in run.neighbours:
        vectors = [by_phase.get(phase) for _, by_phase in enrolled.values()]
        query = embeddings[phase].query
        vectors_of_gallery = query[:0] if neighbours.leaves_one_out else embeddings[phase].gallery
        phases[phase] = phase_columns(
            run.neighbours[phase], vectors_of_gallery, query, vectors, enrolled_labels
        )
    return BrowseTable(
        source=source_of(run, class_names),
        paths=tuple(paths) + tuple(enrolled),
        digests=tuple([run.split[image].sha256 for image in images] + [""] * len(enrolled)),
        labels=labels,
        class_names=class_names,
        part=np.array(parts + [ENROLLED] * len(enrolled), object),
        unseen=np.isin(labels, run.unseen) | ~np.isin(labels, list(run.class_names_looked_up)),
        drop=np.array([drops.get(label, np.nan) for label in labels.tolist()]),
        phases=phases,
    )


def source_of(run: Run, class_names: dict[int, str]) -> BrowseSource:
    """What a table is of that shows a run."""
    protocol, phases = run.protocol, list(run.neighbours)
    limited = [phase for phase in phases if protocol.is_limited(phase)]
    nothing = np.empty(0, np.int64)
    return BrowseSource(
        title=f"{run.experiment.name} on {run.dataset_name}, seed {run.seed}",
        neighbours=run.neighbours,
        phase_titles={phase: protocol.describe_phase(phase, phases) for phase in phases},
        main_phase=protocol.main_phase,
        held_out={phase: run.held_out.get(phase, nothing) for phase in limited},
        gallery_name="train" if protocol.gallery_is_trained_on else "gallery",
        map_files={phase: layout.projection(run.folder, phase) for phase in phases},
        threshold=partial(least_similarity, run),
        coarse_classes=coarse_classes_of(class_names, run.coarse_classes | run.coarse_of_others),
    )


Enrolled = dict[str, tuple[str, dict[str, np.ndarray]]]
"""By path, the class of an image and its embedding in each phase."""


def read_enrolled(run: Run, folder: Path | None, known: set[str]) -> Enrolled:
    """The images that were enrolled into the galleries of a run, or those in another folder;
    without those that are its own. A class of the run that a gallery has renamed has its name in
    the run, as the run's own images of it have."""
    places = [GalleryFile(run, phase, folder) for phase in run.neighbours]
    places = [place for place in places if place.path.exists()]
    if folder is not None and not places:
        raise ValueError(
            f"{folder} holds no gallery of {run.folder}: make it with `dml-bench enrol --gallery`,"
            " or leave --gallery out"
        )
    enrolled: Enrolled = {}
    for place in places:
        gallery = place.read()
        names = current_names(run, gallery, run.embeddings(place.phase).gallery_images)
        in_run = {now: name for name, now in names.items()}
        for entry, vector in zip(gallery.entries, gallery.embeddings, strict=True):
            if entry.origin == "enrolled" and entry.path not in known:
                name = in_run.get(entry.class_name, entry.class_name)
                _, by_phase = enrolled.setdefault(entry.path, (name, {}))
                by_phase[place.phase] = vector
    return enrolled


def least_similarity(run: Run, phase: str) -> float:
    """The threshold below which `predict` answers "unknown"; -1 where it promises nothing."""
    if not run.protocol.gallery_is_trained_on:
        return -1.0
    gallery_file, share = GalleryFile(run, phase), USUAL_SHARES[-1]
    try:
        gallery = run_gallery(run, phase)
        return threshold_of(gallery_file, gallery, precision=USUAL_GOAL, unknown_share=share).value
    except NoPromise:
        return -1.0


def class_drops(run: Run) -> dict[int, float]:
    """By class id, P@1 trained on all classes minus P@1 trained without some. Of several hold-outs,
    the mean over those that held the class out, or over all where none did. Empty for a protocol
    without a second model."""
    metrics = metrics_of(run.experiment)
    drops: dict[int, float] = {}
    for group in ("seen", "unseen"):
        name = f"precision_drop_{group}_classes"
        if name not in metrics:
            continue
        scores = metrics[name].scores(run)
        for label in np.unique(scores.labels):
            drops[int(label)] = float(scores.values[scores.labels == label].mean())
    return drops
