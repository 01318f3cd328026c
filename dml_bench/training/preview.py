"""What an experiment would train on, without training it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dml_bench.config import Component, Experiment
from dml_bench.data.datasets import open_dataset
from dml_bench.data.split import split_of
from dml_bench.protocols import phases_of
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device
from dml_bench.system.seeding import callers_draws_kept
from dml_bench.training.build import build
from dml_bench.training.contact_sheet import contact_sheet
from dml_bench.training.folds import training_jobs
from dml_bench.training.inputs import open_readable_images
from dml_bench.training.training_state import TrainingState

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["first_run", "preview"]


@callers_draws_kept()
def preview(
    experiment: Experiment,
    *,
    data_dir: Path | None,
    cache_dir: Path,
    epoch: int,
    batches: int,
    images: int,
    callback: Callback,
) -> "Image":
    """A contact sheet of the first training of the experiment; where labels are corrected, with
    those of the first epoch.

    Raises ValueError where no images are trained on, or where there is no such epoch.
    """
    trainable = experiment.model.trainable
    if trainable != "all":
        raise ValueError(
            f"{experiment.name} has no batches of images: model.trainable = {trainable} trains on"
            " features computed once"
        )
    if not 1 <= epoch <= experiment.train.epochs:
        raise ValueError(
            f"--epoch {epoch}: {experiment.name} has epochs 1 to {experiment.train.epochs}"
        )
    state = first_run(experiment, data_dir, cache_dir, callback)
    return contact_sheet(state, epoch=epoch, batches=batches, images=images)


def first_run(
    experiment: Experiment, data_dir: Path | None, cache_dir: Path, callback: Callback
) -> TrainingState:
    """The first of the experiment's trainings, on the CPU, with random weights, on which no batch
    depends."""
    untrained = replace(
        experiment,
        model=replace(experiment.model, weights="none"),
        pretrain=None,
        start=Component("none"),
    )
    device = choose_device("cpu")
    dataset = open_dataset(untrained.data.dataset, data_dir, cache_dir, callback.progress)
    pixels, dataset = open_readable_images(untrained, dataset, cache_dir, device, callback)
    split = split_of(untrained, dataset)
    phase = phases_of(untrained, dataset, split)[0]
    first = training_jobs(untrained, phase, dataset, split, Path())[0]
    return build(
        first.experiment,
        first.phase,
        dataset,
        split,
        pixels,
        device=device,
        precision="float32",
        callback=callback,
    )
