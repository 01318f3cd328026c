"""Tables as values, which some modules make and others print, write or send to W&B."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["OutcomeTable", "ResultTable", "number"]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A small table for people to read: each row has one cell per column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "ResultTable":
        """The cells of each column, all of one length, by its name."""
        return cls(tuple(columns), tuple(zip(*columns.values(), strict=True)))

    def beside(self, column: str, value: Any) -> "ResultTable":
        """The table with one more column, whose cells are all the same."""
        return ResultTable((*self.columns, column), tuple((*row, value) for row in self.rows))


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeTable:
    """A table that ends a run in the terminal."""

    title: str
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    totals: tuple[tuple[str, ...], ...] = ()
    """Rows below a line."""
    caption: str = ""
    num_text_columns: int = 0
    """The first so many columns hold words; all others hold numbers."""


def number(value: float | None, form: str = ".3f") -> str:
    """With three digits; a dash where it is undefined, and no minus before a zero."""
    sign, digits = form[: form.startswith("+")], form.removeprefix("+")
    return "-" if value is None or math.isnan(value) else format(value, f"{sign}z{digits}")
