"""Starts: stages that train the backbone of a phase, on that phase's own training images, before
the phase begins.

A registered function takes the experiment that the stage serves and returns the stage as an
experiment of its own, on the same data. Nothing of the experiment's objective is in it, so all
experiments that need the same stage share it.
"""

from typing import Annotated, Any

from dml_bench.config import Experiment, as_table, load
from dml_bench.registry import starts
from dml_bench.registry.option_checks import (
    Count,
    Fraction,
    LessThanOne,
    NotNegative,
    Positive,
    at_least,
)

__all__ = ["pretraining_experiment"]


@starts.register(
    "none", summary="no stage: the phase begins with the configured weights", source=""
)
def none(experiment: Experiment) -> None:
    return None


@starts.register(
    "classifier",
    summary="a softmax classifier of the phase's classes, trained first; its backbone goes on",
    source="Zhai and Wu 2019",
)
def classifier(
    experiment: Experiment,
    *,
    epochs: Count = 100,
    batch_size: Annotated[int, at_least(2)] = 128,
    lr: NotNegative = 0.01,
    momentum: LessThanOne = 0.0,
    weight_decay: NotNegative = 0.0,
) -> Experiment:
    return pretraining_experiment(
        experiment,
        "classifier",
        train={"epochs": epochs, "batch_size": batch_size},
        model={"head": "identity"},
        loss="crossentropy",
        optimizer={"name": "sgd", "lr": lr, "momentum": momentum, "weight_decay": weight_decay},
    )


@starts.register(
    "simclr",
    summary="two augmented views of each image are each other's positives; no class is looked at",
    source="Chen et al. 2020",
)
def simclr(
    experiment: Experiment,
    *,
    epochs: Count = 100,
    batch_size: Annotated[int, at_least(2)] = 128,
    lr: NotNegative = 1e-3,
    weight_decay: NotNegative = 1e-6,
    temperature: Positive = 0.5,
    hidden: Count = 512,
    dim: Count = 128,
    resized_crop: Fraction = 0.2,
    color_jitter: Fraction = 0.5,
    gaussian_blur: Fraction = 0.5,
) -> Experiment:
    """Adam on NT-Xent of a two-layer projection head, which is then thrown away. Strengths as for
    small images in the paper's appendix B."""
    if resized_crop and experiment.images.fit == "squash":
        raise ValueError(
            "it crops images at random, which images.fit = squash forbids; --set"
            " start.resized_crop=0, or images.fit=crop"
        )
    return pretraining_experiment(
        experiment,
        "simclr",
        train={"epochs": epochs, "batch_size": batch_size, "views": 2, "labels": "image"},
        model={"head": {"name": "mlp", "hidden": hidden, "dim": dim}},
        augment={
            "resized_crop": resized_crop,
            "horizontal_flip": 0.5,
            "color_jitter": color_jitter,
            "grayscale": 0.2,
            "gaussian_blur": gaussian_blur,
        },
        loss={"name": "NTXent", "temperature": temperature},
        optimizer={"name": "adam", "lr": lr, "weight_decay": weight_decay},
    )


def pretraining_experiment(
    experiment: Experiment,
    name: str,
    *,
    train: dict[str, Any],
    model: dict[str, Any],
    loss: str | dict[str, Any],
    optimizer: dict[str, Any],
    augment: dict[str, Any] | None = None,
) -> Experiment:
    """The experiment's data, images (all of one size) and first weights under another objective;
    measured once, after the last epoch."""
    table = as_table(experiment)
    kept = {
        key: table[key]
        for key in ("seed", "protocol", "data", "images", "pretrain")
        if key in table
    }
    kept["images"]["progressive"] = []
    if train.get("labels") == "image":  # no label is looked at, so none is wrong
        kept["data"]["label_noise"] = 0.0
    backbone = {key: table["model"][key] for key in ("backbone", "weights", "pooling")}
    return load(
        kept
        | {
            "name": name,
            "augment": table["augment"] | (augment or {}),
            "model": backbone | model,
            "train": {"precision": experiment.train.precision} | train,
            "loss": loss,
            "optimizer": optimizer,
            "evaluate": {"every": train["epochs"]},
        }
    )
