"""Means and deviations of the colour channels of training images, to normalise by."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dml_bench.config import Experiment
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_device
from dml_bench.training.inputs import open_inputs

__all__ = ["advice", "channel_statistics"]

DIGITS = 4


def channel_statistics(
    experiment: Experiment, *, data_dir: Path | None, cache_dir: Path, callback: Callback
) -> dict[str, Any]:
    """Plain values: of which images, and per phase `mean` and `std` of red, green and blue, 0-1,
    over every pixel of its training images as the network sees them in an evaluation. No other
    image is looked at."""
    inputs = open_inputs(experiment, data_dir, cache_dir, choose_device("cpu"), callback)
    phases = {}
    for number, phase in enumerate(inputs.phases):
        callback.progress("statistics", number, len(inputs.phases))
        images = phase.trains_on(inputs.dataset, inputs.split)
        mean, std = map(rounded, inputs.pixels.statistics(images))
        phases[phase.name] = {
            "mean": mean,
            "std": std,
            "images": len(images),
            "unseen": len(phase.held_out_classes),
        }
    callback.progress("statistics", len(inputs.phases), len(inputs.phases))
    return {
        "experiment": experiment.name,
        "dataset": {"name": inputs.dataset.name, "fingerprint": inputs.dataset.fingerprint},
        "split": {
            "method": experiment.data.split,
            "seed": experiment.seed,
            "fingerprint": inputs.split.fingerprint,
        },
        "images": {"size": experiment.images.size, "fit": experiment.images.fit},
        "phases": phases,
    }


def rounded(channels: Iterable[float]) -> list[float]:
    """(channels) as they are written into a configuration."""
    return [round(float(value), DIGITS) for value in channels]


def advice(statistics: dict[str, Any]) -> str:
    """A line for each phase, and how to use them without a held-out class having a say."""
    phases = statistics["phases"]
    lines = [
        f"{name}: mean {of_phase['mean']}, std {of_phase['std']}"
        f" of {of_phase['images']:,} training images"
        for name, of_phase in phases.items()
    ]
    known = [of_phase for of_phase in phases.values() if of_phase["unseen"] or len(phases) == 1]
    if len(known) == 1:
        lines.append(
            f"--set 'images.mean={known[0]['mean']}' --set 'images.std={known[0]['std']}' in all"
            " phases: no held-out class is in them"
        )
    lines.append("--set images.normalization=train gives each phase its own")
    return "\n".join(lines)
