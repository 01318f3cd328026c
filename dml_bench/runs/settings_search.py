"""A search for settings, made by one process at a time, and with first weights that know none of
the classes by which trials are judged."""

from dataclasses import replace

from dml_bench.config import Experiment
from dml_bench.data.identity import copies_of, describe_copies
from dml_bench.runs.first_weights import require_unseen_by_weights, run_of_weights
from dml_bench.system.devices import choose_device
from dml_bench.system.locks import held
from dml_bench.system.seeding import callers_draws_kept
from dml_bench.training.inputs import TrainingInputs, open_inputs
from dml_bench.training.tuning import (
    SEARCHES,
    Search,
    TuningRequest,
    among_known_classes,
    imported_optuna,
    own_settings,
    search_settings,
    shortened,
    validation_classes,
)

__all__ = ["search_alone"]


@callers_draws_kept()
def search_alone(request: TuningRequest) -> Search:
    """As `search_settings`. Raises ValueError where another process makes the same search, or where
    the first weights are of a run that trained on what no trial must see. Warns of copies, by which
    trials would be judged."""
    check_images(request)
    folder = request.out / SEARCHES / request.name
    folder.mkdir(parents=True, exist_ok=True)
    of_data = f"{request.experiment.data.dataset.name}-{request.experiment.seed}"
    busy = (
        f"another process makes this search in {folder}: wait for it, or choose another folder with"
        " --out DIR"
    )
    with held(folder / f".{of_data}.lock", busy):
        search = search_settings(request)
    if search.best.state != "complete":
        request.callback.warn(
            f"no trial of {len(search.trials)} came to its end, so nothing was chosen: lower"
            " optimizer.lr in the experiment or in the space, and choose another --out"
        )
    return search


def check_images(request: TuningRequest) -> None:
    """Warn of images by which trials are judged and that are among those of others."""
    imported_optuna()  # what is missing is said before images are opened
    experiment, device = request.experiment, choose_device(request.device)
    own_settings(shortened(experiment, request.space), request.space)
    inputs = open_inputs(experiment, request.data_dir, request.cache_dir, device, request.callback)
    judged_by = validation_classes(experiment, inputs, request.space.valid_classes)
    require_unseen_by_first_weights(experiment, inputs, judged_by.tolist())
    phase, split = among_known_classes(inputs, judged_by)
    digests = inputs.pixels.view_cache.digests
    as_queries = replace(split, test=split.gallery)
    for line in describe_copies(copies_of(inputs.dataset, as_queries, (phase,), digests)):
        request.callback.warn(line)


def require_unseen_by_first_weights(
    experiment: Experiment, inputs: TrainingInputs, judged_by: list[int]
) -> None:
    """Raises ValueError where the first weights are of a run that trained on a validation class, a
    test image, or a class that is held out: trials would be judged by what they know."""
    if run_of_weights(experiment) is not None:
        require_unseen_by_weights(
            experiment, inputs.dataset, inputs.split, inputs.phases, judged_by
        )
