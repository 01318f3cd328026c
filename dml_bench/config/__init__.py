"""An experiment as a value: frozen sections, checked as they are made, and the strict loader of its
files."""

from dml_bench.config.sections import (
    Augment,
    Component,
    Data,
    Evaluate,
    Expectation,
    Experiment,
    Images,
    Mixing,
    Model,
    Pretrain,
    Train,
    as_table,
    load,
)

__all__ = [
    "Augment",
    "Component",
    "Data",
    "Evaluate",
    "Expectation",
    "Experiment",
    "Images",
    "Mixing",
    "Model",
    "Pretrain",
    "Train",
    "as_table",
    "load",
]
