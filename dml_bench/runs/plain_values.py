"""Values of dataclasses as values of JSON and back, for what a record keeps of measurements that
can't be made of its answers."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

import numpy as np

from dml_bench.config.loader import hints_of
from dml_bench.runs.record_format import rounded

__all__ = ["from_plain", "to_plain"]

MOST_POINTS = 33
"""Of a curve. A longer one keeps so many of its points, evenly spaced, the first and the last among
them; arrays of one value that have the same length keep the same points."""
DIGITS = 3
"""Significant digits of the numbers in arrays; those alone have six."""

Value = TypeVar("Value")


def to_plain(value: Any) -> Any:
    """A value of dataclasses, tuples, mappings, numbers, texts and arrays as values of JSON. What
    is undefined is None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return defined(rounded(thinned(value).tolist(), DIGITS))
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return defined(rounded(value))


def thinned(array: np.ndarray) -> np.ndarray:
    """Of a curve of too many points, some; any other array itself."""
    if array.ndim != 1 or len(array) <= MOST_POINTS:
        return array
    points = np.linspace(0, len(array) - 1, MOST_POINTS).round().astype(int)
    return np.asarray(array[points])


def defined(value: Any) -> Any:
    """The same with None for what is not a number."""
    if isinstance(value, list):
        return [defined(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def from_plain(kind: type[Value], plain: Any) -> Value:
    """The value of a dataclass that `to_plain` wrote, perhaps before the class had a field that has
    a default. Raises KeyError where another field is missing."""
    assert is_dataclass(kind)
    hints = hints_of(kind)
    values = {}
    for field in fields(kind):
        if field.name not in plain and field.default is not MISSING:
            continue
        values[field.name] = of_hint(hints[field.name], plain[field.name])
    return kind(**values)


def of_hint(hint: Any, plain: Any) -> Any:
    """A value of an annotated type."""
    if isinstance(hint, type) and is_dataclass(hint):
        return from_plain(hint, plain)
    if hint is np.ndarray:
        return array_of(plain)
    if get_origin(hint) is tuple:
        return tuple(of_hint(get_args(hint)[0], part) for part in plain)
    if hint is float:
        return np.nan if plain is None else float(plain)
    return plain


def array_of(plain: list[Any]) -> np.ndarray:
    """NaN for None."""
    array = np.array(plain)
    return array.astype(float) if array.dtype == object or not array.size else array
