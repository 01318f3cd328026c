"""An experiment's images: opened, decoded, divided, and the phases that train on them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dml_bench.config import Experiment
from dml_bench.data.cache import UnreadableImages
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.inputs import ImageInputs, open_image_inputs
from dml_bench.data.split import Phase, Split, split_of
from dml_bench.protocols import phases_of
from dml_bench.system.callbacks import Callback

__all__ = ["TrainingInputs", "open_inputs", "open_readable_images"]


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """All that a training of an experiment needs, but no run folder."""

    dataset: Dataset
    pixels: ImageInputs
    split: Split
    phases: tuple[Phase, ...]


def open_inputs(
    experiment: Experiment,
    data_dir: Path | None,
    cache_dir: Path,
    device: torch.device,
    callback: Callback,
) -> TrainingInputs:
    """Raises ValueError in words for people where the images can't be had, read or divided as
    asked."""
    dataset = open_dataset(experiment.data.dataset, data_dir, cache_dir, callback.progress)
    for note in dataset.notes:
        callback.note(note)
    phases_of(
        experiment, dataset, split_of(experiment, dataset)
    )  # what can't be divided is met before the images are decoded
    pixels, dataset = open_readable_images(experiment, dataset, cache_dir, device, callback)
    split = split_of(experiment, dataset)
    return TrainingInputs(
        dataset=dataset, pixels=pixels, split=split, phases=phases_of(experiment, dataset, split)
    )


def open_readable_images(
    experiment: Experiment,
    dataset: Dataset,
    cache_dir: Path,
    device: torch.device,
    callback: Callback,
) -> tuple[ImageInputs, Dataset]:
    """The image caches and the data set they hold, which leaves out what can't be decoded if the
    experiment allows that."""
    try:
        return open_image_inputs(
            experiment, dataset, cache_dir, device, callback.progress, callback.warn
        ), dataset
    except UnreadableImages as problem:
        if not experiment.data.skip_unreadable:
            raise
        callback.warn(f"left out: {problem.finding}")
        dataset = replace(dataset.without(problem.images), opened_fingerprint=dataset.fingerprint)
        return open_image_inputs(
            experiment, dataset, cache_dir, device, callback.progress, callback.warn
        ), dataset
