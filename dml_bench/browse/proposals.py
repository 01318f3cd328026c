"""Proposed classes as one HTML page that needs no network and no server. A person names, merges,
drops and accepts them there; the page then saves a table that `enrol` reads.

A page that is opened from disk can change no gallery, and the table can be read before it does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dml_bench.browse.html_map import LARGE, PER_ROW, thumbnails
from dml_bench.data.digests import digest_of
from dml_bench.data.images import box_of, photo_file
from dml_bench.gallery.discover import Discovery
from dml_bench.plots import colours
from dml_bench.runs.run import Run
from dml_bench.system.files import write_csv, write_text
from dml_bench.system.templates import script_data, templates

__all__ = ["PAGE", "TABLE", "require_free", "write_proposals"]

PAGE, TABLE = "index.html", "proposals.csv"
COLUMNS = ("path", "proposal", "closest_class", "closest_similarity", "x0", "y0", "x1", "y1")


def require_free(folder: Path) -> None:
    """Raises ValueError where the folder holds something other than earlier proposals."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: name a folder")
    others = [path.name for path in folder.glob("*") if path.name not in (PAGE, TABLE)]
    if others:
        raise ValueError(
            f"--out {folder} holds {sorted(others)[0]}, which is no proposal: name another folder"
        )


def write_proposals(
    folder: Path,
    run: Run,
    discovery: Discovery,
    class_names: tuple[str, ...],
    enrol_command: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the page and a table of the unknown photos into the folder, and return the page.
    `class_names` are those of the gallery, `enrol_command` is what applies the decisions."""
    import markupsafe

    require_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / TABLE, COLUMNS, table_rows(discovery))
    sheets, _ = thumbnails([(str(photo), "") for photo in discovery.photos], LARGE, progress)
    data = {
        "side": LARGE,
        "perRow": PER_ROW,
        "sheets": sheets,
        "photos": [photo_facts(photo) for photo in discovery.photos],
        "proposals": proposal_facts(discovery),
        "classes": list(class_names),
        "command": enrol_command,
    }
    template = templates(Path(__file__).parent).get_template("proposals.html.jinja")
    text = template.render(
        title=f"New classes for {run.experiment.name}",
        data=script_data(data),
        colours=markupsafe.Markup(colours.style()),
    )
    page = folder / PAGE
    write_text(page, text)
    return page


def photo_facts(photo: Path) -> dict[str, Any]:
    """What the page's table of decisions says of a photo."""
    return {
        "path": str(photo_file(photo).absolute()),
        "box": box_of(photo),
        "sha256": digest_of(photo),
    }


def proposal_facts(discovery: Discovery) -> list[dict[str, Any]]:
    """The proposals with the places of their photos."""
    facts = []
    first = 0
    for proposal in discovery.proposals:
        last = first + len(proposal.photos)
        facts.append(
            {
                "photos": list(range(first, last)),
                "similarity": round(proposal.similarity, 3),
                "closest": proposal.closest_class,
                "closestSimilarity": round(proposal.closest_similarity, 3),
            }
        )
        first = last
    return facts


def table_rows(discovery: Discovery) -> list[tuple[Any, ...]]:
    """One row for each unknown photo; those in no proposal have an empty number."""
    rows: list[tuple[Any, ...]] = []
    for number, proposal in enumerate(discovery.proposals, start=1):
        nearest = (proposal.closest_class, round(proposal.closest_similarity, 6))
        for photo in proposal.photos:
            box = box_of(photo) or ("",) * 4
            rows.append((photo_file(photo).absolute(), number, *nearest, *box))
    for photo in discovery.others:
        box = box_of(photo) or ("",) * 4
        rows.append((photo_file(photo).absolute(), "", "", "", *box))
    return rows
