"""Shapes of arrays, written into signatures: `Annotated[np.ndarray, Float("query dim")]`.

A word names a size, which must be the same wherever the word stands in one call: in the arguments,
and in what is returned. A number is the size itself, and `...` stands for any sizes. Each call of a
function marked `shaped` is checked where DML_BENCH_CHECK_SHAPES is set, as the tests do; elsewhere
the mark leaves the function as it is and costs nothing.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["CHECKING", "Bool", "Float", "Int", "Shape", "WrongShape", "shaped"]

CHECKING = bool(os.environ.get("DML_BENCH_CHECK_SHAPES"))
"""Whether the calls of this process are checked."""

Marked = TypeVar("Marked", bound=Callable[..., Any])


class WrongShape(AssertionError):
    """An array or a tensor that is not of the shape that a signature says."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an array holds: numbers of one kind, so many along each axis."""

    kind: str
    """A part of the names of its data types: `float`, `int` or `bool`."""
    sizes: str
    """A word for each axis, spaces between. It is empty for a single number."""

    def check(self, array: Any, known: dict[str, int], where: str) -> None:
        """Raises WrongShape unless `array` fits. The sizes of its words are put into `known`."""
        if self.kind not in str(array.dtype):
            raise WrongShape(f"{where} must hold {self.kind} numbers, got {array.dtype}")
        axes, shape = self.sizes.split(), tuple(array.shape)
        if axes == ["..."]:
            return
        fits = len(axes) == len(shape)
        for word, size in zip(axes, shape, strict=False):
            expected = int(word) if word.isdecimal() else known.setdefault(word, size)
            fits = fits and size == expected
        if not fits:
            raise WrongShape(f"{where} must be ({', '.join(axes)}), got {shape} where {known}")


def Float(sizes: str) -> Shape:  # noqa: N802 - it stands where jaxtyping's Float would
    """Floating-point numbers of any width."""
    return Shape("float", sizes)


def Int(sizes: str) -> Shape:  # noqa: N802
    """Whole numbers of any width."""
    return Shape("int", sizes)


def Bool(sizes: str) -> Shape:  # noqa: N802
    """True or false."""
    return Shape("bool", sizes)


def shaped(marked: Marked) -> Marked:
    """A function, or a dataclass for its fields, whose calls are checked in tests."""
    if not CHECKING:
        return marked
    if isinstance(marked, type):
        marked.__init__ = shaped(marked.__init__)  # type: ignore[misc]
        return marked
    parameters = tuple(inspect.signature(marked).parameters)

    @cache
    def hints() -> dict[str, Any]:  # when it is first called: by then all names are defined
        hints_of_all = get_type_hints(marked, include_extras=True)
        return {name: hint for name, hint in hints_of_all.items() if names_a_shape(hint)}

    @wraps(marked)
    def checked(*args: Any, **options: Any) -> Any:
        known: dict[str, int] = {}
        arguments = dict(zip(parameters, args, strict=False)) | options
        for name, hint in hints().items():
            if name in arguments:
                check_hint(hint, arguments[name], known, f"{name} of {marked.__qualname__}")
        result = marked(*args, **options)
        if "return" in hints():
            check_hint(hints()["return"], result, known, f"what {marked.__qualname__} returns")
        return result

    return checked  # type: ignore[return-value]


def names_a_shape(hint: Any) -> bool:
    """Whether a part of it does: the other arguments of a call need no look."""
    if get_origin(hint) is Annotated:
        return any(isinstance(fact, Shape) for fact in hint.__metadata__)
    return any(names_a_shape(part) for part in get_args(hint))


def check_hint(hint: Any, value: Any, known: dict[str, int], where: str) -> None:
    """Raises WrongShape where a value, or a part of a tuple, is not of the shape in its hint."""
    for shape, array in shapes_in(hint, value):
        shape.check(array, known, where)


def shapes_in(hint: Any, value: Any) -> Iterator[tuple[Shape, Any]]:
    """The shapes that a hint names, each with the array that must have it."""
    if value is None or hint is None:
        return
    if get_origin(hint) is Annotated:
        for fact in hint.__metadata__:
            if isinstance(fact, Shape):
                yield fact, value
    elif get_origin(hint) in (Union, UnionType):
        for choice in get_args(hint):
            yield from shapes_in(choice, value)
    elif get_origin(hint) is tuple and len(get_args(hint)) == len(value):
        for part, array in zip(get_args(hint), value, strict=True):
            yield from shapes_in(part, array)
