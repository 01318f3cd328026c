"""One experiment, from its data set to its sealed run folder."""

from dml_bench.data.datasets import open_dataset
from dml_bench.model.embedder import build_embedder
from dml_bench.results import RunFolder
from dml_bench.runner.opening import open_readable_pixels, phases_of, split_of
from dml_bench.runner.request import Outcome, Request
from dml_bench.runner.session import Session
from dml_bench.seeding import deterministic
from dml_bench.training.run import choose_device, choose_precision

__all__ = ["run"]


def run(request: Request) -> Outcome:
    """Train and evaluate both phases, or go on where an earlier process stopped. Raises ValueError in words for people."""
    experiment, watch = request.experiment, request.watch
    device = choose_device(request.device)
    precision = choose_precision(experiment.train.precision, device)
    deterministic()
    dataset = open_dataset(experiment.data.dataset, request.data_dir, request.cache_dir, watch.progress)
    phases_of(experiment, dataset, split_of(experiment, dataset))  # what can't be divided as asked leaves no folder behind
    folder = RunFolder(request.out, experiment, dataset.name)
    with folder.lock():
        if request.force:
            folder.clear()
        folder.claim()
        if (summary := folder.summary()) is not None:
            return Outcome(folder.path, summary, already_finished=True)
        build_embedder(experiment)  # weights that can't be had are met here, before the images are decoded
        pixels, dataset = open_readable_pixels(experiment, dataset, request.cache_dir, device, watch)
        split = split_of(experiment, dataset)
        session = Session(request, folder, dataset, split, pixels, device, precision)
        session.begin()
        try:
            for phase in session.phases:
                session.finish_phase(phase)
            summary = session.conclude()
        finally:
            session.mirror.finish()
        return Outcome(folder.path, summary, already_finished=False)
