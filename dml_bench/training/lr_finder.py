"""A learning rate that trains: a sweep over all rates, on training images alone.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", with rates that grow
exponentially instead of by as much at each step.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dml_bench.config import Component, Experiment
from dml_bench.data.split import Phase, held_out_by
from dml_bench.models.embedder import build_embedder
from dml_bench.models.precision import network_precision
from dml_bench.registry import optimizers
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import callers_draws_kept, deterministic, seed_everything
from dml_bench.training.batches import epoch_batches
from dml_bench.training.build import build
from dml_bench.training.folds import training_jobs
from dml_bench.training.inputs import TrainingInputs, open_inputs
from dml_bench.training.loop import train_step
from dml_bench.training.pretraining import stages
from dml_bench.training.training_state import TrainingState

__all__ = ["RateSweep", "smoothed", "sweep"]

EXPLODED = 4.0
"""A loss this many times as large as the lowest so far, both smoothed, ends the sweep."""
WIDTH = 9
"""Steps over which losses are smoothed, and the fewest steps of a sweep."""


@dataclass(frozen=True, eq=False)
class RateSweep:
    """The loss at each rate, of a network that learned at all the lower ones before."""

    experiment: str
    rates: np.ndarray
    """(steps) ascending."""
    losses: np.ndarray
    """(steps), the last one perhaps not finite."""

    @property
    def exploded(self) -> bool:
        """Whether the sweep ended before its highest rate."""
        return explodes(self.losses)

    @property
    def finite(self) -> int:
        """How many of the first losses are finite."""
        return int(np.isfinite(self.losses).sum())

    @property
    def lowest(self) -> int | None:
        """The step with the lowest smoothed loss; None where the loss never fell."""
        curve = smoothed(self.losses[: self.finite])
        return int(curve.argmin()) if len(curve) and curve.argmin() > 0 else None

    @property
    def steepest(self) -> int | None:
        """The step before the lowest at which the smoothed loss falls most per power of the
        rate."""
        if self.lowest is None:
            return None
        slopes = np.gradient(
            smoothed(self.losses[: self.finite]), np.log(self.rates[: self.finite])
        )
        return int(smoothed(slopes)[: self.lowest + 1].argmin())

    def suggestion(self) -> str:
        """In words: the two rates that people take from such a curve."""
        ended = (
            f"the loss exploded at {self.rates[-1]:.2g}"
            if self.exploded
            else f"up to {self.rates[-1]:.2g} the loss did not explode"
        )
        if self.lowest is None or self.steepest is None:
            return (
                f"no suggestion: the loss never fell between {self.rates[0]:.2g} and"
                f" {self.rates[-1]:.2g}"
            )
        return (
            f"optimizer.lr = {self.rates[self.steepest]:.2g}, where the loss falls fastest, or"
            f" {self.rates[self.lowest] / 10:.2g}, a tenth of the rate at which it is lowest"
            f" ({self.rates[self.lowest]:.2g}); {ended}"
        )


@callers_draws_kept()
def sweep(
    experiment: Experiment,
    *,
    data_dir: Path | None,
    cache_dir: Path,
    device: str = "auto",
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    callback: Callback,
) -> RateSweep:
    """Train at rates from `low` to `high`, one a step, until the loss explodes; nothing of it is
    kept.

    No class is trained on that a phase of the experiment holds out: a rate must not be chosen by
    what is never seen. Where rotated hold-outs leave fewer than two classes, it is the first phase
    that holds any out, with a warning.

    Begins as a run would, with the weights of its start. Parts that learn at a multiple of
    `optimizer.lr` keep it. Labels are those that are given, and there is no schedule. Raises
    ValueError on a range that is none, and where the optimiser has no rate.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"--low and --high must be positive rates, the lower one first, got {low:g} and"
            f" {high:g}"
        )
    if steps < WIDTH:
        raise ValueError(f"--steps must be at least {WIDTH}, got {steps}")
    require_rate(experiment)
    state = begun(experiment, data_dir, cache_dir, device, callback)
    return RateSweep(experiment.name, *swept(state, np.geomspace(low, high, steps)))


def require_rate(experiment: Experiment) -> None:
    """Raises ValueError where the optimiser has no rate, or one of which none is a multiple."""
    optimizer = experiment.optimizer
    if optimizers.of(optimizer).facts["at_once"]:
        raise ValueError(
            f"optimizer {optimizer.name} makes no steps, so {experiment.name} has no learning rate"
            " to find: name an experiment that trains in epochs"
        )
    if not optimizer.options.get("lr"):
        raise ValueError(
            "lr-find needs an optimizer.lr above 0, of which each part of the network learns at a"
            " multiple: --set optimizer.lr=0.01"
        )


def begun(
    experiment: Experiment,
    data_dir: Path | None,
    cache_dir: Path,
    device_name: str,
    callback: Callback,
) -> TrainingState:
    """The state of a training without all classes that a phase holds out. Without what changes its
    rates or labels as it goes on."""
    plain = replace(
        experiment,
        schedule=Component("constant", {"warmup": 0.0}),
        labelling=Component("given"),
        train=replace(experiment.train, checkpoint="last"),
    )
    device = choose_device(device_name)
    precision = network_precision(plain.train.precision, device, build_embedder(plain))
    deterministic()
    keep_freed_memory()
    inputs = open_inputs(plain, data_dir, cache_dir, device, callback)
    phase = phase_without_held_out(inputs, callback)
    first = training_jobs(plain, phase, inputs.dataset, inputs.split, Path())[0].phase
    stage = stages(
        plain, (first,), inputs.dataset, inputs.split, cache_dir, device, precision, callback
    )[first.name]
    start = stage.weights(callback) if stage else None
    return build(
        plain,
        first,
        inputs.dataset,
        inputs.split,
        inputs.pixels,
        device=device,
        precision=precision,
        callback=callback,
        start=start,
    )


def phase_without_held_out(inputs: TrainingInputs, callback: Callback) -> Phase:
    """The first phase that holds classes out, without those of all others either."""
    first = next((phase for phase in inputs.phases if phase.held_out_classes), inputs.phases[0])
    held_out = sorted(held_out_by(inputs.phases))
    if inputs.dataset.num_classes - len(held_out) >= 2:
        return replace(first, held_out_classes=tuple(held_out))
    callback.warn(
        f"rotated hold-outs leave fewer than two classes: the rate is that of phase {first.name},"
        " which trains on classes that other phases hold out; hold out fewer for a rate that knows"
        " none"
    )
    return first


def swept(state: TrainingState, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(steps) the rates that were reached, and the loss at each, before its step was made. Raises
    ValueError where an epoch has no batch."""
    base = [
        group["lr"] / state.experiment.optimizer.options["lr"]
        for group in state.optimizer.param_groups
    ]
    state.embedder.train()
    state.objective.train()
    losses: list[float] = []
    epoch = 0
    while len(losses) < len(rates) and not explodes(np.array(losses)):
        epoch += 1
        seed_everything(state.experiment.seed, state.phase.name, epoch)
        batches = epoch_batches(state, epoch)
        if not batches:
            raise ValueError(
                f"sampler {state.experiment.sampler.name} gives no batch in epoch {epoch}, of which"
                " a rate could be tried: return arrays of at least two images"
            )
        for step, images in enumerate(batches[: len(rates) - len(losses)]):
            for group, factor in zip(state.optimizer.param_groups, base, strict=True):
                group["lr"] = rates[len(losses)] * factor
            losses.append(float(train_step(state, images, epoch, step)[0]))
            state.callback.progress("learning rates", len(losses), len(rates))
            if explodes(np.array(losses)):
                break
    return rates[: len(losses)], np.array(losses)


def explodes(losses: np.ndarray) -> bool:
    """Whether the last of these losses is not finite, or the mean of the last few far above the
    lowest such mean before."""
    if len(losses) and not np.isfinite(losses[-1]):
        return True
    few = WIDTH // 2 + 1
    if len(losses) < 2 * few:
        return False
    means = np.convolve(losses, np.ones(few) / few, "valid")
    return bool(means[-1] > EXPLODED * means.min())


def smoothed(losses: np.ndarray) -> np.ndarray:
    """(steps) means over WIDTH steps around each, fewer at the ends: what falls is not seen later
    than it fell."""
    window = np.ones(min(WIDTH, len(losses)))
    return (
        np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
        if len(losses)
        else losses
    )
