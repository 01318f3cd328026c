"""A named experiment from its data set to its sealed run folder."""

from dml_bench.runner.request import Outcome, Request
from dml_bench.runner.run import run

__all__ = ["Outcome", "Request", "run"]
