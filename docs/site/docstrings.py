"""Docstrings hold doctests, and Markdown would take `>>>` for a quotation: they are made blocks of
code."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class FencedDoctests(griffe.Extension):
    """Fences the doctests of each docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence those of one object."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(
                lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value
            )
