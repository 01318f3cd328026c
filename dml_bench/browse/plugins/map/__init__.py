"""What FiftyOne finds in its folder of plugins."""

from dml_bench.browse.fiftyone_app import register

__all__ = ["register"]
