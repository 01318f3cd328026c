"""One experiment, from its data set to its sealed run folder."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.identity import copies_in_words
from dml_bench.data.split import split_of
from dml_bench.evaluation.collapse import in_words
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.request import Outcome, Request
from dml_bench.runs.session import Session
from dml_bench.system import distributed
from dml_bench.system.callbacks import Watch
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import deterministic
from dml_bench.training.inputs import open_readable_pixels, phases_of
from dml_bench.training.training_state import check_together, choose_device, choose_precision

__all__ = ["execute"]


def execute(request: Request) -> Outcome:
    """Train and evaluate both phases, or go on where an earlier process stopped. Raises ValueError
    in words for people.

    Of the processes that torchrun started, each has to call it; the first writes and tells.
    """
    device = choose_device(request.device)
    distributed.join(device)
    if not distributed.first():
        request = replace(request, watch=Watch(), wandb="disabled")
    experiment, watch = request.experiment, request.watch
    check_together(experiment, device)
    precision = choose_precision(experiment.train.precision, device)
    deterministic()
    keep_freed_memory()
    with distributed.in_turn():
        dataset = open_dataset(
            experiment.data.dataset, request.data_dir, request.cache_dir, watch.progress
        )
    phases_of(
        experiment, dataset, split_of(experiment, dataset)
    )  # what can't be divided as asked leaves no folder behind
    folder = RunFolder(request.out, experiment, dataset.name)
    with folder.lock() if distributed.first() else nullcontext():
        if (
            summary := distributed.told(lambda: claimed(folder, dataset, request.force))
        ) is not None:
            if told := copies_in_words(summary.get("copies", {})):
                watch.warn(told)
            warn_of_doubts(summary, watch)
            return Outcome(folder.path, summary, already_finished=True)
        with distributed.in_turn():
            # Weights that can't be had are met here, before the images are decoded.
            if unwrapped := build_embedder(experiment).unwrapped:
                watch.note(unwrapped)
            pixels, dataset = open_readable_pixels(
                experiment, dataset, request.cache_dir, device, watch
            )
        split = split_of(experiment, dataset)
        session = Session(request, folder, dataset, split, pixels, device, precision)
        session.begin()
        try:
            for phase in session.phases:
                session.finish_phase(phase)
            summary = distributed.told(session.conclude)
        finally:
            session.mirror.finish()
        warn_of_doubts(summary, watch)
        return Outcome(folder.path, summary, already_finished=False)


def warn_of_doubts(summary: dict[str, Any], watch: Watch) -> None:
    for line in in_words(summary):
        watch.warn(line)


def claimed(folder: RunFolder, dataset: Dataset, force: bool) -> dict[str, Any] | None:
    """Make the folder this run's, emptied if asked for; the result if it holds that already, of
    exactly these data."""
    if force:
        folder.clear()
    folder.claim(dataset)
    return folder.summary()
