"""The version of the package, in the module that imports nothing, so that every room may ask."""

__all__ = ["__version__"]

__version__ = "0.2.0"
