"""An experiment's images: opened, decoded, divided, and the phases that train on them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dml_bench.config import Experiment
from dml_bench.data.cache import UnreadableImages
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.inputs import Pixels, open_pixels
from dml_bench.data.split import Phase, Split, disjoint_phases, holdouts, phases, split_of
from dml_bench.system.callbacks import Watch

__all__ = ["Opened", "open_readable_pixels", "opened", "phases_of"]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """All that a training of an experiment needs, but no run folder."""

    dataset: Dataset
    pixels: Pixels
    split: Split
    phases: tuple[Phase, ...]


def opened(
    experiment: Experiment,
    data_dir: Path | None,
    cache_dir: Path,
    device: torch.device,
    watch: Watch,
) -> Opened:
    """Raises ValueError in words for people where the images can't be had, read or divided as
    asked."""
    dataset = open_dataset(experiment.data.dataset, data_dir, cache_dir, watch.progress)
    for note in dataset.notes:
        watch.note(note)
    phases_of(
        experiment, dataset, split_of(experiment, dataset)
    )  # what can't be divided is met before the images are decoded
    pixels, dataset = open_readable_pixels(experiment, dataset, cache_dir, device, watch)
    split = split_of(experiment, dataset)
    return Opened(
        dataset=dataset, pixels=pixels, split=split, phases=phases_of(experiment, dataset, split)
    )


def phases_of(experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
    """The trainings that the experiment's protocol asks for."""
    if experiment.protocol == "class_disjoint":
        return disjoint_phases(dataset, split)
    return phases(holdouts(experiment.unseen, dataset))


def open_readable_pixels(
    experiment: Experiment, dataset: Dataset, cache_dir: Path, device: torch.device, watch: Watch
) -> tuple[Pixels, Dataset]:
    """The image caches and the data set they hold, which leaves out what can't be decoded if the
    experiment allows that."""
    try:
        return open_pixels(
            experiment, dataset, cache_dir, device, watch.progress, watch.warn
        ), dataset
    except UnreadableImages as problem:
        if not experiment.data.skip_unreadable:
            raise
        watch.warn(f"left out: {problem}")
        dataset = replace(dataset.without(problem.images), opened_fingerprint=dataset.fingerprint)
        return open_pixels(
            experiment, dataset, cache_dir, device, watch.progress, watch.warn
        ), dataset
