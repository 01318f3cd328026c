"""Ranges of options, each said once where it is needed."""

__all__ = ["at_least", "between", "positive"]


def positive(**options: float) -> None:
    """Raises ValueError for the first option that is not above 0."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; a number above 0 is wanted")


def at_least(least: float, **options: float) -> None:
    """Raises ValueError for the first option below `least`."""
    for name, value in options.items():
        if not value >= least:
            raise ValueError(f"{name} is {value}; at least {least:g} is wanted")


def between(low: float, high: float, **options: float) -> None:
    """Raises ValueError for the first option outside of `low` .. `high`, both of which are allowed."""
    for name, value in options.items():
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; a number from {low:g} to {high:g} is wanted")
