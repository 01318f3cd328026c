"""Ranges of options. They stand in the signatures of registered functions and are checked where a
configuration is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

__all__ = [
    "Count",
    "Fraction",
    "LessThanOne",
    "NotNegative",
    "Positive",
    "Range",
    "above",
    "at_least",
    "between",
    "between_open",
    "less_than",
]

Bound = float | str
"""A number, or the name of another option of the same component, whose value is the bound."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included unless said."""

    low: Bound
    high: Bound = math.inf
    without_low: bool = False
    without_high: bool = False

    def check(self, value: float, options: Mapping[str, Any], where: str, name: str) -> None:
        """Raises ValueError, which names `where.name`, for a value outside of the range."""
        low, high = (
            bound if isinstance(bound, int | float) else float(options[bound])
            for bound in (self.low, self.high)
        )
        big_enough = value > low if self.without_low else value >= low
        small_enough = value < high if self.without_high else value <= high
        if not (big_enough and small_enough):
            raise ValueError(f"{where}.{name} must be {self._wanted(where, options)}, got {value}")

    def _wanted(self, where: str, options: Mapping[str, Any]) -> str:
        low, high = (
            f"{bound:g}"
            if isinstance(bound, int | float)
            else f"{where}.{bound} ({options[bound]:g})"
            for bound in (self.low, self.high)
        )
        if self.high == math.inf:
            return f"a number above {low}" if self.without_low else f"at least {low}"
        if self.without_low:
            return (
                f"a number between {low} and {high}"
                if self.without_high
                else f"a number above {low}, up to {high}"
            )
        return f"a number from {low} to {'less than ' if self.without_high else ''}{high}"


def above(low: Bound, high: Bound = math.inf) -> Range:
    """`low` is not allowed, `high` is."""
    return Range(low, high, without_low=True)


def at_least(low: Bound) -> Range:
    """`low` is allowed, and so is anything above it."""
    return Range(low)


def between(low: Bound, high: Bound) -> Range:
    """Both ends are allowed."""
    return Range(low, high)


def less_than(high: Bound, low: Bound = 0) -> Range:
    """`low` is allowed, `high` is not."""
    return Range(low, high, without_high=True)


def between_open(low: Bound, high: Bound) -> Range:
    """Neither end is allowed."""
    return Range(low, high, without_low=True, without_high=True)


Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Fraction = Annotated[float, between(0, 1)]
LessThanOne = Annotated[float, less_than(1)]
Count = Annotated[int, at_least(1)]
