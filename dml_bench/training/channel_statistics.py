"""Means and deviations of the colour channels of training images, to normalise by."""

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
    found = open_inputs(experiment, data_dir, cache_dir, choose_device("cpu"), callback)
    phases = {}
    for number, phase in enumerate(found.phases):
        callback.progress("statistics", number, len(found.phases))
        images = phase.trains_on(found.dataset, found.split)
        mean, std = (
            [round(float(value), DIGITS) for value in channel]
            for channel in found.pixels.statistics(images)
        )
        phases[phase.name] = {
            "mean": mean,
            "std": std,
            "images": len(images),
            "unseen": len(phase.held_out_classes),
        }
    callback.progress("statistics", len(found.phases), len(found.phases))
    return {
        "experiment": experiment.name,
        "dataset": {"name": found.dataset.name, "fingerprint": found.dataset.fingerprint},
        "split": {
            "method": experiment.data.split,
            "seed": experiment.seed,
            "fingerprint": found.split.fingerprint,
        },
        "images": {"size": experiment.images.size, "fit": experiment.images.fit},
        "phases": phases,
    }


def advice(found: dict[str, Any]) -> str:
    """A line for each phase, and how to use them without a held-out class having a say."""
    phases = found["phases"]
    lines = [
        f"{name}: mean {each['mean']}, std {each['std']} of {each['images']:,} training images"
        for name, each in phases.items()
    ]
    known = [each for each in phases.values() if each["unseen"] or len(phases) == 1]
    if len(known) == 1:
        lines.append(
            f"--set 'images.mean={known[0]['mean']}' --set 'images.std={known[0]['std']}' in all"
            " phases: no held-out class is in them"
        )
    lines.append("--set images.normalization=train gives each phase its own")
    return "\n".join(lines)
