"""Text of others as a terminal may show it: nothing in it moves the cursor, changes colours, writes
a title or turns the direction of what stands beside it."""

import re

__all__ = ["obeyed_character", "printable"]

OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and line end, other line ends, and marks that turn the direction of
text. Joiners, which many scripts need, are none of them."""


def obeyed_character(text: str) -> str | None:
    """The first character that a terminal would obey, as an escape; None where it shows all."""
    match = OBEYED.search(text)
    return escaped(match) if match else None


def printable(text: str) -> str:
    """The same with an escape, as `\\x1b`, for each character that a terminal would obey."""
    return OBEYED.sub(escaped, text)


def escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
