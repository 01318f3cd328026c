"""Web pages from templates of Jinja, and data for their scripts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

__all__ = ["script_data", "templates"]


def templates(*folders: Path) -> "jinja2.Environment":
    """The templates in folders of the package. What they show is escaped, and a name that they are
    not given is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_data(data: Any) -> str:
    """JSON that may stand inside a script of a page, which a "<" could end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
