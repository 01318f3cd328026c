"""The card of a data set: what it is, where it comes from, and whether it is on this machine."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.data.datasets.dataset import NotThere
from dml_bench.data.fetch import dataset_in, publication_of, shortcoming_of
from dml_bench.data.publications import PUBLICATIONS, Publication
from dml_bench.registry import Entry, datasets

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DataCard", "Presence", "card_of", "terms"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """What was found of a data set in a folder."""

    folder: Path
    """Where the lists and images lie, or else where they were looked for."""
    problem: str = ""
    """Why it is not there, or not whole; empty where it is as published, or one's own images."""
    num_images: int = 0
    num_classes: int = 0
    parts: dict[str, int] | None = None
    """The number of images of each part."""
    fingerprint: str = ""

    def describe(self, is_published: bool) -> str:
        """In a sentence."""
        if self.problem and self.num_images and is_published:
            return f"in {self.folder}, but not as published: {self.problem}"
        if self.problem:
            return f"not in {self.folder}: {self.problem}"
        counts = f"{self.num_images:,} images, {self.num_classes:,} classes"
        if is_published:
            return f"in {self.folder}, the published {counts}"
        return f"in {self.folder}: {counts}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCard:
    """What is known of a data set."""

    name: str
    summary: str
    source: str
    obtain: str
    """How to get it, where it needs a folder of images."""
    publication: Publication | None
    """None for images of one's own and for drawn ones."""
    presence: Presence | None
    """None where nobody said where to look."""

    def rows(self) -> list[tuple[str, str]]:
        """What is printed, by its heading."""
        about = self.publication
        rows = [("what", self.summary), ("source", about.citation if about else self.source)]
        if about is not None:
            rows += published_rows(self.name, about)
        if self.presence is not None:
            here = self.presence
            rows.append(("here", here.describe(about is not None)))
            if here.fingerprint and (about is None or here.problem):
                parts = ", ".join(f"{part} {count:,}" for part, count in (here.parts or {}).items())
                rows += [("parts here", parts)] * bool(parts)
                rows.append(("fingerprint here", here.fingerprint))
        elif about is not None:
            rows.append(("here", "not looked for: --data-dir DIR says where"))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `dml-bench data card --json` prints them."""
        presence = None if self.presence is None else asdict(self.presence)
        if presence is not None:
            presence["folder"] = str(presence["folder"])
        return {
            "name": self.name,
            "summary": self.summary,
            "source": self.source,
            "obtain": self.obtain,
            "publication": None if self.publication is None else asdict(self.publication),
            "presence": presence,
        }

    def show(self, console: "Console") -> None:
        """Print the card on a terminal."""
        from rich.table import Table

        title = f"{self.publication.title} ({self.name})" if self.publication else self.name
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for heading, text in self.rows():
            table.add_row(heading, text)
        console.print(table)

    def __str__(self) -> str:
        from dml_bench.system.terminal import as_text

        return as_text(self.show)

    __repr__ = __str__


def published_rows(name: str, about: Publication) -> list[tuple[str, str]]:
    """The rows of a published data set alone."""
    classes = f"{about.num_classes:,}"
    if about.num_coarse_classes:
        classes += f" of {about.num_coarse_classes:,} coarse classes"
    command = f"dml-bench data fetch {name} --data-dir DIR"
    if about.archives:
        megabytes = about.download_bytes / 1e6
        download = f"{command} ({megabytes:,.0f} MB)"
    else:
        download = f"by hand: {about.by_hand}; then {command} --archive FILE, once for each"
    origin = f"{about.page}, {about.version}" if about.version else about.page
    rows = [
        ("images", f"{about.num_images:,}"),
        ("classes", classes),
        ("parts", about.parts),
    ]
    if about.divide_by:
        settings = " ".join(f"--set {setting}" for setting in about.divide_by)
        rows.append(
            (
                "divide by",
                f"{settings}; a random split puts photos of one session, or person, on both sides",
            )
        )
    rows += [("licence", about.licence), ("from", origin), ("download", download)]
    rows += [
        ("digest", f"{archive.file} {archive.digest}")
        for archive in about.archives
        if archive.digest
    ]
    if about.fingerprint:
        rows.append(("fingerprint", f"{about.fingerprint} (of images and classes, as in runs)"))
    return rows


def card_of(name: str, data_dir: Path | None = None) -> DataCard:
    """The card of a data set; where a folder is named, with what is there. Raises UnknownName."""
    entry = datasets[name]
    about = PUBLICATIONS.get(name)
    looks = data_dir is not None and entry.facts["needs_data_dir"]
    return DataCard(
        name=name,
        summary=entry.summary,
        source=entry.source,
        obtain=entry.facts["obtain"],
        publication=about,
        presence=presence_of(entry, about, data_dir) if looks and data_dir is not None else None,
    )


def presence_of(entry: Entry, about: Publication | None, data_dir: Path) -> Presence:
    """What a folder has of a data set."""
    if not data_dir.is_dir():
        return Presence(folder=data_dir, problem="there is no such folder")
    try:
        dataset = dataset_in(entry.name, data_dir)
    except NotThere as problem:
        return Presence(folder=data_dir, problem=problem.missing)
    except (ValueError, OSError) as problem:
        return Presence(folder=data_dir, problem=str(problem))
    if about is None:
        shortcoming = dataset.faults[0] if dataset.faults else ""
    else:
        shortcoming = shortcoming_of(dataset, about)
    return Presence(
        folder=dataset.root,
        problem=shortcoming,
        num_images=len(dataset),
        num_classes=dataset.num_classes,
        parts=None if dataset.parts is None else dict(sorted(Counter(dataset.parts).items())),
        fingerprint=dataset.fingerprint,
    )


def terms(name: str) -> list[str]:
    """What a person must know before downloading a published data set: what it is, its licence and
    what to cite. Raises UnknownName."""
    about = publication_of(name)
    return [
        f"{about.title}: {about.num_images:,} images, {about.num_classes:,} classes",
        f"Licence: {about.licence}",
        f"Cite: {about.citation}",
        f"From: {about.page}" + (f", {about.version}" if about.version else ""),
    ]
