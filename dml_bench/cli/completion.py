"""What a shell offers at the Tab key: names of experiments, and keys and values of --set. Nothing
heavy is imported for it."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["complete_experiment", "complete_override"]

COMPLETE = "EPSHN_cosine_resnet18_sgd_aug"
"""An experiment whose keys are offered."""


def complete_experiment(incomplete: str) -> list[str]:
    """The shipped experiments whose names begin so."""
    from dml_bench.config.experiments import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """Keys that begin so, with their =; after the = of a component's key, its names."""
    from dml_bench.config.experiments import resolve

    experiment = resolve(COMPLETE)
    key, equals, _ = incomplete.partition("=")
    if equals:
        values = component_names(key)
        return [f"{key}={value}" for value in values if f"{key}={value}".startswith(incomplete)]
    return [f"{name}=" for name in keys(experiment) if name.startswith(incomplete)]


def keys(section: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of an experiment, those of its components' options included."""
    from dml_bench.config import Component

    for field in fields(section):
        value, key = getattr(section, field.name), f"{prefix}{field.name}"
        if isinstance(value, Component):
            yield key
            yield from (f"{key}.{option}" for option in value.options)
        elif is_dataclass(value):
            yield from keys(value, f"{key}.")
        elif key not in {"name", "summary", "expects"}:
            yield key


def component_names(key: str) -> list[str]:
    """What may stand at a component's key: `loss` has the names of all losses."""
    from dml_bench import registry

    kind = KINDS.get(key)
    return [entry.name for entry in getattr(registry, kind)] if kind else []


KINDS = {
    "data.dataset": "datasets",
    "loss": "losses",
    "miner": "miners",
    "mixing.technique": "mixings",
    "model.backbone": "backbones",
    "model.head": "heads",
    "model.pooling": "poolings",
    "optimizer": "optimizers",
    "sampler": "samplers",
    "schedule": "schedules",
    "start": "starts",
    "labelling": "labellings",
}
"""The registry of each component's key."""
