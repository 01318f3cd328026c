"""An experiment as a value: frozen sections, checked as they are made, and the strict loader of its
files."""

from dml_bench.config.component import Component
from dml_bench.config.experiment import Experiment
from dml_bench.config.loader import as_table, load
from dml_bench.config.sections import (
    Augment,
    Data,
    Evaluate,
    Expectation,
    Images,
    Mixing,
    Model,
    Plugins,
    Pretrain,
    Train,
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
    "Plugins",
    "Pretrain",
    "Train",
    "as_table",
    "load",
]
