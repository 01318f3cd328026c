"""One experiment, from its data set to its sealed run folder."""

from contextlib import nullcontext
from dataclasses import replace

import torch

from dml_bench.config import Experiment, as_table, load
from dml_bench.config.experiment import components_of
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.identity import describe_copies
from dml_bench.data.split import Split, held_out_by, split_of
from dml_bench.evaluation.collapse import describe_doubts
from dml_bench.models.embedder import Numerics, build_embedder, fold_where_it_pays
from dml_bench.models.precision import network_precision
from dml_bench.protocols import phases_of
from dml_bench.registry.plugins import import_recorded, remember
from dml_bench.runs.beside import BesidePhases, phases_at_once
from dml_bench.runs.first_weights import require_unseen_by_weights
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.mirror import no_mirror
from dml_bench.runs.request import Outcome, RunRequest
from dml_bench.runs.schema import Summary
from dml_bench.runs.session import RunSession
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device, torch_threads
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import callers_draws_kept, deterministic
from dml_bench.training.build import check_distributed
from dml_bench.training.inputs import open_readable_images

__all__ = ["execute", "open_images", "open_session"]


@callers_draws_kept()
def execute(request: RunRequest) -> Outcome:
    """Train and evaluate both phases, or go on where an earlier process stopped. Raises ValueError
    in words for people.

    Of the processes that torchrun started, each has to call it; the first writes and tells.
    """
    device = choose_device(request.device)
    distributed.init(device)
    if not distributed.is_main_process():
        request = replace(request, callback=Callback(), mirror=no_mirror)
    experiment, callback = with_plugins(request.experiment), request.callback
    request = replace(request, experiment=experiment)
    remember_plugins(experiment, callback)
    check_distributed(experiment, device)
    dataset = open_images(request)
    split = split_of(experiment, dataset)
    # What can't be divided as asked leaves no folder behind.
    phases = phases_of(experiment, dataset, split)
    require_unseen_by_weights(experiment, dataset, split, phases)
    if name := distributed.broadcast_object(lambda: variant_of(request, dataset)):
        experiment = replace(experiment, name=name)
    at_once = phases_at_once(request.phases_at_once, experiment, phases, len(split.train), device)
    threads = torch.get_num_threads()
    request = replace(request, experiment=experiment, phases_at_once=at_once)
    folder = RunFolder(request.out, experiment, dataset.name)
    with (
        folder.lock() if distributed.is_main_process() else nullcontext(),
        torch_threads(max(1, threads // at_once)),
    ):
        if (
            summary := distributed.broadcast_object(lambda: claimed(folder, dataset, request.force))
        ) is not None:
            for copies in describe_copies(summary.get("copies")):
                callback.warn(copies)
            warn_of_doubts(summary, callback)
            return Outcome(folder.path, summary, already_finished=True)
        if at_once > 1:
            request = replace(request, callback=BesidePhases(callback))
        session = open_session(request, folder, dataset, device)
        require_unseen_by_search(experiment, session.dataset, session.split)
        session.begin()
        try:
            finish_phases(session)
            summary = distributed.broadcast_object(session.conclude)
        finally:
            session.mirror.finish()
        warn_of_doubts(summary, callback)
        return Outcome(folder.path, summary, already_finished=False)


def require_unseen_by_search(experiment: Experiment, dataset: Dataset, split: Split) -> None:
    """Raises ValueError where the search that chose the settings may have seen a test image, or an
    image of a class that a phase holds out."""
    tuned = experiment.tuned
    if tuned is None:
        return
    again = "dml-bench tune searches anew with the run's data and hold-outs"
    if tuned.split != split.fingerprint:
        raise ValueError(
            f"the search of {tuned.by} used another split of {dataset.name}, whose training images"
            f" are partly queries now: {again}"
        )
    searched = replace(experiment, unseen=tuned.unseen, tuned=None)
    allowed = held_out_by(phases_of(searched, dataset, split))
    seen = held_out_by(phases_of(experiment, dataset, split)) - allowed
    if seen:
        first = dataset.class_names[min(seen)]
        raise ValueError(
            f"the search of {tuned.by} knew {len(seen)} of the classes that are held out, e.g."
            f" {first}: {again}, or --set unseen={tuned.unseen}"
        )


def open_images(request: RunRequest) -> Dataset:
    """The data set of a run, in a process that computes the same bits each time."""
    deterministic()
    keep_freed_memory()
    with distributed.main_process_first():
        return open_dataset(
            request.experiment.data.dataset,
            request.data_dir,
            request.cache_dir,
            request.callback.progress,
        )


def open_session(
    request: RunRequest, folder: RunFolder, dataset: Dataset, device: torch.device
) -> RunSession:
    """What trains phases of a run: its images are decoded, and its network can be built."""
    experiment, callback = request.experiment, request.callback
    with distributed.main_process_first():
        # Weights that can't be had are met here, before the images are decoded.
        embedder = build_embedder(experiment)
        for remark in filter(None, embedder.remarks):
            callback.note(remark)
        pixels, dataset = open_readable_images(
            experiment, dataset, request.cache_dir, device, callback
        )
    split = split_of(experiment, dataset)
    precision = network_precision(experiment.train.precision, device, embedder)
    folded = fold_where_it_pays(embedder, experiment, device, precision)
    numerics = Numerics(precision, folded)
    session = RunSession(request, folder, dataset, split, pixels, device, numerics)
    session.untrained = embedder
    return session


def finish_phases(session: RunSession) -> None:
    """Train and seal all phases: here, or some in processes beside this one."""
    beside = session.callback
    if not isinstance(beside, BesidePhases):
        for phase in session.phases:
            session.finish_phase(phase)
        return
    at_once = session.request.phases_at_once
    with torch_threads(at_once * torch.get_num_threads()):  # no phase trains yet
        session.make_source_weights()
    unsealed = [phase for phase in session.phases if not session.is_sealed(phase)]
    try:
        beside.start(session, [unsealed[place::at_once] for place in range(1, at_once)])
        for phase in unsealed[::at_once]:
            session.finish_phase(phase)
        for phase in session.phases:
            beside.wait_for(phase.name)
            session.finish_phase(phase)
        beside.finish()
    finally:
        beside.stop()
        session.folder.records_lock.unlink(missing_ok=True)


def variant_of(request: RunRequest, dataset: Dataset) -> str:
    """The name that the run gets instead of its experiment's own, if any. Runs of a time when
    variants had no names are found by their settings."""
    folder = RunFolder(request.out, request.experiment, dataset.name)
    is_there = folder.has_trained and not folder.other_settings()
    return "" if is_there else request.variant


def with_plugins(experiment: Experiment) -> Experiment:
    """The experiment itself, with the plug-ins imported that a run folder's record names, and
    their options checked. Raises ValueError where the user has not allowed them."""
    for _, used in components_of(experiment):
        if used.stand_in is not None:
            import_recorded(next(r for r in experiment.plugin_records if r.name == used.name))
    return load(as_table(experiment)) if experiment.plugin_records else experiment


def remember_plugins(experiment: Experiment, callback: Callback) -> None:
    """What is run here by its user may be imported again for this run without asking."""
    if not distributed.is_main_process():
        return
    try:
        remember(experiment.plugin_records)
    except OSError as problem:
        callback.warn(
            f"it can't be kept that you run these plug-ins ({problem}): predict and other commands"
            " will ask for --allow-plugin"
        )


def warn_of_doubts(summary: Summary, callback: Callback) -> None:
    for line in describe_doubts(summary):
        callback.warn(line)


def claimed(folder: RunFolder, dataset: Dataset, force: bool) -> Summary | None:
    """Make the folder this run's, emptied if asked for; the result if it holds that already, of
    exactly these data."""
    if force:
        folder.clear()
    folder.claim(dataset)
    return folder.summary()
