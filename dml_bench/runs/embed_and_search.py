"""A trained model answers the queries: embeddings, neighbours and what they cost, written to a
folder; several models answer together."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.nn import functional

from dml_bench.config import Evaluate, Experiment
from dml_bench.data.cache import view_of
from dml_bench.data.datasets import Dataset
from dml_bench.data.images import Unreadable, decode
from dml_bench.data.inputs import tta_views
from dml_bench.data.split import Split
from dml_bench.evaluation.attacks import fgsm, pgd
from dml_bench.evaluation.metrics import shortened
from dml_bench.evaluation.search import (
    ENTRIES,
    Neighbours,
    flat_index,
    in_parts,
    queries_at_a_time,
    search,
    search_views,
    without_itself,
)
from dml_bench.protocols import protocol_of
from dml_bench.runs import arrays, layout
from dml_bench.runs import folder as run_folder
from dml_bench.runs.record_format import COST_DIGITS, rounded
from dml_bench.runs.schema import EpochRecord, PhaseCost
from dml_bench.system import distributed, provenance
from dml_bench.system.files import write_atomically, write_csv, write_json
from dml_bench.training.training_state import TrainingState, unit

__all__ = ["evaluate_ensemble", "evaluate_phase", "labelling_cost"]

SHALLOWEST = 10
"""Neighbours that a report shows and lets vote."""
LATENCIES, WARM_UP = 50, 3
"""Images that are looked up one at a time to measure latency, and those before them that don't
count."""
PHOTOS = 32
"""Image files that are decoded and embedded together to measure what enrolling takes."""


def evaluate_phase(
    run: TrainingState,
    split: Split,
    folder: Path,
    photo_rates: dict[str, float],
    labelling: dict[str, float],
) -> None:
    """Gallery, queries, validation images and catalogue embedded once, searched once with the most
    neighbours that any metric needs. Of several processes, which must all call it, the first has
    the answers and writes them. How many photos a second can be enrolled is measured where
    `photo_rates` has nothing yet: all phases have the same layers. `labelling` is the phase's
    `labelling_cost`.
    """
    start = time.perf_counter()
    views = embed_views(run, split.test)
    weights = weights_of_views(run.experiment.evaluate)
    embeddings = {"query": mean_of_views(views, weights)}
    embeddings["gallery"] = (
        embeddings["query"]
        if split.leaves_one_out
        else mean_of_views(embed_views(run, split.gallery), weights)
    )
    if run.experiment.evaluate.tta_by == "max":
        embeddings["query_views"] = np.stack([unit(view) for view in views])
    embed_seconds = time.perf_counter() - start
    embedded = len(split.test) + len(split.gallery) * (not split.leaves_one_out)
    if len(split.valid):
        embeddings |= {"valid": mean_of_views(embed_views(run, split.valid), weights)}
    if len(split.catalogue):
        embeddings |= {"catalogue": mean_of_views(embed_views(run, split.catalogue), weights)}
    of_wrong_labels = memorised(run) if run.experiment.data.label_noise else {}
    if not distributed.is_main_process():
        return
    start = time.perf_counter()
    neighbours = look_up(run.experiment, run.dataset, split, embeddings)
    search_seconds = time.perf_counter() - start
    trained = sum(record["train_images"] for record in run.records)
    train_seconds = sum(record["train_seconds"] for record in run.records)
    train_seconds += run.fitted.get("seconds", 0.0)
    if not photo_rates:
        photo_rates |= photo_rate(run, split.gallery)
    cost: dict[str, Any] = {
        "train_seconds": train_seconds,
        **train_cpu_seconds(run),
        **start_cost(run.experiment, folder),
        **labelling,
        "watch_seconds": sum(record.get("evaluate_seconds", 0.0) for record in run.records),
        "embed_seconds": embed_seconds,
        "search_seconds": search_seconds,
        **({"train_images_per_second": trained / train_seconds} if trained else {}),
        "embed_images_per_second": embedded / embed_seconds,
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "gallery_bytes": embeddings["gallery"].nbytes,
        "parameter_bytes": sum(tensor.nbytes for tensor in run.embedder.parameters()),
        **latency(run, embeddings["gallery"], split.test),
        **photo_rates,
    }
    if run.device.type == "cuda":
        cost["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(run.device)
    write_state(folder / layout.WEIGHTS, run.embedder)
    write_state(folder / layout.OBJECTIVE, run.objective)
    if run.objective.classifies and not split.leaves_one_out:
        arrays.write_logits(folder / layout.LOGITS, run.answers, probabilities(run, views))
    write_training(run, folder, of_wrong_labels)
    if run.experiment.evaluate.attack_epsilon:
        write_json(folder / layout.ATTACKED, attacked(run, split.test))
    write_answers(folder, split, embeddings, neighbours, cast(PhaseCost, cost))


def train_cpu_seconds(run: TrainingState) -> dict[str, float]:
    """Of epochs, or of what was fitted at once. Nothing where an older version did not count it."""
    if "cpu_seconds" in run.fitted:
        return {"train_cpu_seconds": run.fitted["cpu_seconds"]}
    return cpu_seconds_of(run.records, "train_cpu_seconds")


def cpu_seconds_of(records: Sequence[EpochRecord], name: str) -> dict[str, float]:
    """Of these epochs, under a name; nothing where one of them did not count it."""
    counted = [record["train_cpu_seconds"] for record in records if "train_cpu_seconds" in record]
    if not counted or len(counted) < len(records):
        return {}
    return {name: sum(counted)}


def embed_views(run: TrainingState, images: np.ndarray) -> list[Tensor]:
    """(images) indices -> for each view that the experiment looks at, (images, dim) before
    normalisation."""
    evaluate = run.experiment.evaluate
    return [run.outputs(images, view) for view in tta_views(evaluate.tta, evaluate.tta_draws)]


def weights_of_views(evaluate: Evaluate) -> list[float] | None:
    """What part each view has in a mean; None where all have the same."""
    if evaluate.tta != "random":
        return None
    rest = (1 - evaluate.tta_plain_weight) / evaluate.tta_draws
    return [evaluate.tta_plain_weight, *[rest] * evaluate.tta_draws]


def mean_of_views(views: Sequence[Tensor], weights: Sequence[float] | None = None) -> np.ndarray:
    """(images, dim) of each view, before normalisation -> (images, dim) the mean of their unit
    vectors, at unit length."""
    if len(views) == 1:
        return unit(views[0])
    directions = torch.stack([functional.normalize(view, dim=1) for view in views])
    if weights is None:
        return unit(directions.mean(0))
    return unit((directions * torch.tensor(weights).view(-1, 1, 1)).sum(0))


def probabilities(run: TrainingState, views: Sequence[Tensor]) -> np.ndarray:
    """(images, dim) of each view, before normalisation -> (images, trained classes), which sum to
    1, or, of images with several labels, (images, labels)."""
    of_views = np.stack([run.probabilities(view) for view in views])
    if run.experiment.evaluate.tta_by == "max":
        highest: np.ndarray = of_views.max(axis=0)
        several = run.dataset.label_sets is not None
        of_images: np.ndarray = highest if several else highest / highest.sum(axis=1, keepdims=True)
    else:
        of_images = np.average(
            of_views, axis=0, weights=weights_of_views(run.experiment.evaluate)
        ).astype(of_views.dtype)
    return of_images


def evaluate_ensemble(
    folders: Sequence[Path], experiment: Experiment, dataset: Dataset, split: Split, folder: Path
) -> None:
    """The mean of the models' similarities, and of their probabilities.

    The mean of inner products of unit vectors is one inner product, that of all embeddings side by
    side over the square root of their number; so the ensemble is an embedding like any other.
    """
    stored = [arrays.read_arrays(model / layout.EMBEDDINGS) for model in folders]
    scale = np.float32(len(stored) ** -0.5)
    names = ("query", "query_views", "gallery", "valid", "catalogue")
    parts = [name for name in names if name in stored[0]]
    embeddings = {}
    for part in parts:
        side_by_side = np.concatenate([model[part] for model in stored], axis=-1)
        embeddings[part] = side_by_side * scale
    start = time.perf_counter()
    neighbours = look_up(experiment, dataset, split, embeddings)
    seconds = time.perf_counter() - start
    costs: list[PhaseCost] = [run_folder.read_json(model / layout.COST) for model in folders]
    cost = total(costs)
    cost["search_seconds"] = seconds
    cost["gallery_bytes"] = embeddings["gallery"].nbytes
    # The ensemble looks up once, among vectors as long as those of all its models together.
    cost |= cast(PhaseCost, look_up_latency(embeddings["gallery"], embeddings["query"]))
    paths = [model / layout.LOGITS for model in folders]
    logits = [arrays.Logits(path) for path in paths if path.exists()]
    if logits:
        probabilities = np.mean([model.probabilities for model in logits], axis=0)
        arrays.write_logits(folder / layout.LOGITS, logits[0].classes, probabilities)
    write_answers(folder, split, embeddings, neighbours, cost)


def look_up(
    experiment: Experiment, dataset: Dataset, split: Split, embeddings: dict[str, np.ndarray]
) -> Neighbours:
    """The neighbours of all queries, as many as any metric needs."""
    gallery_labels, query_labels = dataset.labels[split.gallery], dataset.labels[split.test]
    deepest = int(np.bincount(gallery_labels).max())
    gallery, query = embeddings["gallery"], embeddings["query"]
    views = embeddings.get("query_views")
    shallow = max(protocol_of(experiment).num_neighbours(experiment.evaluate, split), SHALLOWEST)
    needed = max(shallow, deepest) + split.leaves_one_out
    kept = max(shallow, ENTRIES // len(query_labels))

    def searched(rows: slice) -> Neighbours:
        labels = query_labels[rows]
        if views is None:
            neighbours = search(gallery, query[rows], gallery_labels, labels, needed)
        else:
            neighbours = search_views(views[:, rows], gallery, gallery_labels, labels, needed)
        if split.leaves_one_out:
            neighbours = without_itself(neighbours, rows.start)
        return shortened(neighbours, kept)

    size = queries_at_a_time(needed * (1 if views is None else len(views)))
    return in_parts(len(query_labels), size, searched)


def write_answers(
    folder: Path,
    split: Split,
    embeddings: dict[str, np.ndarray],
    neighbours: Neighbours,
    cost: PhaseCost,
) -> None:
    images: dict[arrays.Part, np.ndarray] = {"gallery": split.gallery, "query": split.test}
    if len(split.valid):
        images["valid"] = split.valid
    if len(split.catalogue):
        images["catalogue"] = split.catalogue
    arrays.write_embeddings(folder / layout.EMBEDDINGS, embeddings, images)
    arrays.write_neighbours(folder / layout.NEIGHBOURS, neighbours)
    write_json(folder / layout.COST, rounded(cost, COST_DIGITS))


def attacked(run: TrainingState, test: np.ndarray) -> dict[str, Any]:
    """Accuracy of the logits, mean over images, on the test images of trained classes: as they are,
    after FGSM and after PGD; computed in float32. `right` has the same image by image: a text for
    each class, with a 1 for each image whose class was chosen, else a 0."""
    evaluate = run.experiment.evaluate
    images = run.phase.of_trained_classes(run.dataset, test)
    run.embedder.eval()
    run.objective.eval()

    def logits(pixels: Tensor) -> Tensor:
        return run.objective.logits(run.embedder(pixels))

    right: dict[str, list[np.ndarray]] = {"clean": [], "fgsm": [], "pgd": []}
    for start in range(0, len(images), run.embedded_at_a_time):
        batch = images[start : start + run.embedded_at_a_time]
        classes = np.searchsorted(run.trained, run.dataset.labels[batch])
        labels = torch.from_numpy(classes).to(run.device)
        pixels = run.source.view(batch).float()
        against = {
            "clean": pixels,
            "fgsm": fgsm(logits, pixels, labels, evaluate.attack_epsilon),
            "pgd": pgd(logits, pixels, labels, evaluate.attack_epsilon, evaluate.attack_steps),
        }
        with torch.no_grad():
            for name, changed in against.items():
                chosen = logits(changed).argmax(dim=1)
                right[name].append((chosen == labels).cpu().numpy())
    of_images = {name: np.concatenate(batches) for name, batches in right.items()}
    labels_of_images = run.dataset.labels[images]
    return {
        "epsilon": evaluate.attack_epsilon,
        "steps": evaluate.attack_steps,
        **{f"logits_accuracy_{name}": float(values.mean()) for name, values in of_images.items()},
        "right": {
            name: class_by_class(values, labels_of_images) for name, values in of_images.items()
        },
    }


def class_by_class(right: np.ndarray, labels: np.ndarray) -> list[str]:
    """(images) bool, and their classes -> a text of 1 and 0 for each class, in the order of ids."""
    digits = np.where(right, "1", "0")
    return ["".join(digits[labels == label]) for label in np.unique(labels)]


@torch.no_grad()
def memorised(run: TrainingState) -> dict[str, float]:
    """Of the training images with a wrong label: the part whose wrong label the logits choose, and
    the part whose true class they choose (Zhang et al. 2018, mixup, table 2)."""
    labels = run.labels
    wrong = run.images[labels.initial[run.images] != labels.clean[run.images]]
    if not run.objective.classifies or not len(wrong):
        return {}
    chosen = run.classify(run.outputs(wrong))
    return {
        "memorised": float((chosen == labels.initial[wrong]).mean()),
        "seen_through": float((chosen == labels.clean[wrong]).mean()),
    }


def write_training(run: TrainingState, folder: Path, of_wrong_labels: dict[str, float]) -> None:
    """What was fitted at once, which epoch was kept, and what became of the labels, where the
    experiment asks for these."""
    if run.fitted:
        write_json(folder / layout.FITTED, run.fitted)
    if run.best is not None:
        write_json(
            folder / layout.CHOSEN_EPOCH,
            {"epoch": run.best["epoch"], run.experiment.train.checkpoint: run.best["value"]},
        )
    if run.experiment.data.label_noise or run.experiment.labelling.name != "given":
        summary = run.labels.summary(run.images)
        write_json(folder / layout.LABELS, summary | of_wrong_labels)
        paths, names = run.dataset.paths, run.dataset.class_names
        rows = (
            (
                paths[c.image],
                names[c.before],
                names[c.after],
                c.epoch,
                round(c.margin, 6),
                names[run.labels.clean[c.image]],
            )
            for c in run.labels.corrections
        )
        write_csv(
            folder / layout.CORRECTIONS,
            ("image", "from", "to", "epoch", "margin", "class in the data set"),
            rows,
        )


def start_cost(experiment: Experiment, folder: Path) -> dict[str, float]:
    """Training of the phase's own start, whether it was trained now or found; weights from
    elsewhere, as ImageNet's, cost nothing."""
    if experiment.start.name == "none":
        return {"start_seconds": 0.0}
    records = start_records(folder)
    seconds = sum(record["train_seconds"] for record in records)
    return {"start_seconds": seconds, **cpu_seconds_of(records, "start_cpu_seconds")}


def start_records(folder: Path) -> list[EpochRecord]:
    """The epochs of the start of a model."""
    records: list[EpochRecord] = run_folder.read_json(folder / layout.START)["records"]
    return records


def labelling_cost(
    experiment: Experiment, records: Sequence[EpochRecord], folders: Sequence[Path]
) -> dict[str, float]:
    """Training of the models that only labelled images for a phase, from their epochs and folders,
    with their starts; nothing where there are none."""
    if not folders:
        return {}
    epochs = list(records)
    if experiment.start.name != "none":
        for folder in folders:
            epochs += start_records(folder)
    seconds = sum(record["train_seconds"] for record in epochs)
    return {"labelling_seconds": seconds, **cpu_seconds_of(epochs, "labelling_cpu_seconds")}


def write_state(path: Path, module: torch.nn.Module) -> None:
    data = to_safetensors(
        {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    )
    write_atomically(path, lambda file: file.write(data))


def total(costs: Sequence[PhaseCost]) -> PhaseCost:
    """The cost of several models one after another; their rates are those of the whole."""
    highest = ("peak_memory_bytes", "peak_gpu_memory_bytes")
    parts: list[dict[str, Any]] = [dict(cost) for cost in costs]
    summed: dict[str, Any] = {}
    for key in parts[0]:
        if key == "photos_per_second" or not all(key in part for part in parts):
            continue
        values = [part[key] for part in parts]
        summed[key] = max(values) if key in highest else sum(values)
    if all("photos_per_second" in part for part in parts):
        summed["photos_per_second"] = 1 / sum(1 / part["photos_per_second"] for part in parts)
    for what in ("train", "embed"):
        images = sum(part[f"{what}_images_per_second"] * part[f"{what}_seconds"] for part in parts)
        summed[f"{what}_images_per_second"] = images / summed[f"{what}_seconds"]
    summed["embed_images_per_second"] /= len(costs)  # each image goes through all of them
    return cast(PhaseCost, summed)


def photo_rate(run: TrainingState, images: np.ndarray) -> dict[str, float]:
    """Photos a second from the file to the embedding, backbone included, as enrolling them takes,
    and without a GPU the CPU time of each, which other work on the machine does not lengthen; empty
    where the files are gone."""
    view = view_of(run.experiment.images)
    root, paths, boxes = run.dataset.root, run.dataset.paths, run.dataset.boxes
    run.embedder.eval()
    try:
        for chosen in (images[:WARM_UP], images[:PHOTOS]):  # the first ones don't count
            start, cpu_start = time.perf_counter(), time.process_time()
            pixels = np.stack(
                [
                    view.apply(decode(root / paths[image], None if boxes is None else boxes[image]))
                    for image in chosen
                ]
            )
            with torch.no_grad(), run.autocast():
                run.embedder(torch.from_numpy(pixels).to(run.device)).float().cpu()
    except Unreadable:
        return {}
    rates = {"photos_per_second": len(chosen) / (time.perf_counter() - start)}
    if run.device.type == "cpu":
        rates["photo_cpu_seconds"] = (time.process_time() - cpu_start) / len(chosen)
    return rates


def latency(run: TrainingState, gallery: np.ndarray, query: np.ndarray) -> dict[str, float]:
    """Milliseconds that one image alone takes in this process, decoded already: through the
    network, and in the look-up of its 10 nearest."""
    index, embedding, look_up = flat_index(gallery), [], []
    for image in query[: WARM_UP + LATENCIES]:
        start = time.perf_counter()
        vector = mean_of_views(embed_views(run, np.array([image])))
        embedding.append(time.perf_counter() - start)
        look_up.append(seconds_of_look_up(index, vector))
    return {**median_and_p95("embed_ms", embedding), **median_and_p95("look_up_ms", look_up)}


def look_up_latency(gallery: np.ndarray, query: np.ndarray) -> dict[str, float]:
    """Of that the look-up, of (query, dim) unit vectors that are there already."""
    index, few = flat_index(gallery), query[: WARM_UP + LATENCIES]
    return median_and_p95("look_up_ms", [seconds_of_look_up(index, row[None]) for row in few])


def seconds_of_look_up(index: Any, vector: np.ndarray) -> float:
    """For the 10 nearest of a (1, dim) vector."""
    start = time.perf_counter()
    index.search(vector, min(10, index.ntotal))
    return time.perf_counter() - start


def median_and_p95(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds, without the warm-up where there is more."""
    warm = np.array(seconds[WARM_UP:] or seconds) * 1000
    return {
        f"{name}_median": float(np.median(warm)),
        f"{name}_p95": float(np.quantile(warm, 0.95)),
    }
