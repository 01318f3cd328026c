"""A gallery brought to another model: its images are embedded again from their files, and the
answers that change are listed. The old gallery stays as it is."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dml_bench.data.images import Unreadable, box_of, boxed, photo_file
from dml_bench.gallery.calibration import (
    current_names,
    key_in_run,
    nearest_others,
    run_queries,
)
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.enrol import ImageKey, image_key
from dml_bench.gallery.store import (
    Gallery,
    GalleryFile,
    GalleryImage,
    part_of_split,
    run_gallery,
)
from dml_bench.runs.run import Run
from dml_bench.system.files import write_csv

__all__ = ["ChangedAnswer", "Networks", "Upgrade", "upgrade_gallery"]

COLUMNS = ("image", "effect", "class", "before", "similarity_before", "after", "similarity_after")
SHOWN = 10
"""Changed answers that are printed; the table beside the gallery has all."""

Networks = Callable[[GalleryFile], GalleryEmbedder]
"""Makes the network of a gallery."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedAnswer:
    """A photo to which the new gallery gives another class."""

    image: str
    class_name: str | None
    """The class that it has; None where that is not known."""
    before: str
    similarity_before: float
    after: str
    similarity_after: float
    """Similarities of two models can't be compared."""

    @property
    def effect(self) -> str:
        """Whether the answer got right or wrong."""
        if self.class_name is None:
            return "changed"
        if self.after == self.class_name:
            return "now right"
        return "now wrong" if self.before == self.class_name else "still wrong"

    def row(self) -> tuple[object, ...]:
        """Its row of a table with `COLUMNS`."""
        return (
            self.image,
            self.effect,
            self.class_name,
            self.before,
            self.similarity_before,
            self.after,
            self.similarity_after,
        )

    def describe(self) -> str:
        """The photo and both answers, in a line."""
        return (
            f"{self.effect}: {self.image}: {self.before} ({self.similarity_before:.4f}) ->"
            f" {self.after} ({self.similarity_after:.4f})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """A gallery of another model, and what it answers otherwise."""

    gallery: Gallery
    path: Path
    """The file of the new gallery."""
    embedded: int
    """The number of images that were embedded again; the others are the new run's own."""
    queries: int
    """The number of photos that both galleries answered."""
    source: str
    """What these photos are."""
    changed: tuple[ChangedAnswer, ...]
    table: Path
    """All of these as a CSV file, beside the new gallery."""
    test_images: int
    """The number of images in the gallery that are test images of the new run: what that run
    measured on them holds no more."""
    relabelled: int
    """The number of the new run's own images that have another class in the gallery than most of
    their class: it keeps the labels that it had, and the new run may know better ones."""
    unreadable: tuple[Unreadable, ...] = ()
    """Photos to compare that can't be read as images, and are none of `queries`."""

    def describe(self) -> list[str]:
        """Sentences, then a line for each of the first changed answers."""
        effects = [answer.effect for answer in self.changed]
        numbers = [f"{effects.count(name)} {name}" for name in sorted(set(effects))]
        lines = [
            (
                f"{self.path}: {len(self.gallery.entries):,} images of"
                f" {len(self.gallery.class_names):,} classes, of which {self.embedded:,} were"
                " embedded anew and the others are the new run's own"
            )
        ]
        if self.test_images:
            lines.append(
                f"{self.test_images:,} of these are test images of the new run, which find"
                " themselves: what it measured doesn't hold for this gallery"
            )
        if self.relabelled:
            lines.append(
                f"{self.relabelled:,} of these have another class in the new run than in the"
                " gallery, which keeps its own: if the new labels are right, enrol into the new"
                " run's gallery instead"
            )
        lines += [answer.describe() for answer in self.changed[:SHOWN]]
        summary = f"of {self.queries:,} {self.source}, {len(self.changed):,} get another class"
        if numbers:
            summary += f" ({', '.join(numbers)}): {self.table} lists them"
        return [*lines, summary]


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos that both models have embedded."""

    images: tuple[str, ...]
    class_names: tuple[str | None, ...]
    before: np.ndarray
    """(photos, dim) of the old model."""
    after: np.ndarray
    """(photos, dim) of the new model."""
    source: str
    unreadable: tuple[Unreadable, ...] = ()
    own_rows: np.ndarray | None = None
    """(photos) their rows in both galleries, where they don't find themselves; -1 for others. None
    where each finds whatever is there."""


def upgrade_gallery(
    old: GalleryFile,
    new: GalleryFile,
    networks: Networks,
    photos: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Upgrade:
    """Write the gallery of `old` as one of the model of `new`, in one step, and compare answers to
    `photos`, or to the test images of both runs. Raises ValueError, with nothing written, where
    `new` has a changed gallery already, or a source is gone, changed or unreadable."""
    with new.lock():
        if new.path.exists():
            raise ValueError(
                f"{new.path} is there already: remove it, or name another folder with --out DIR"
            )
        before = old.read()
        after, embedded = embedded_again(old, new, before, networks, progress)
        after = with_own_photos(old, new, after)
        queries = (
            named_photos(old, new, networks, photos)
            if photos
            else shared_test_images(old, new, before)
        )
        changed = changed_answers(before, after, queries)
        new.write(after)
        table = new.path.with_suffix(".changed.csv")
        write_csv(table, COLUMNS, [answer.row() for answer in changed])
    queries_of_new = query_places(new.run, new.phase)
    enrolled = [entry for entry in after.entries if entry.origin == "enrolled"]
    return Upgrade(
        gallery=after,
        path=new.path,
        embedded=embedded,
        queries=len(queries.images),
        source=queries.source,
        changed=changed,
        table=table,
        # Runs that cut images to the boxes of their data set have none in their paths.
        test_images=sum(
            image_key(entry) in queries_of_new or (entry.sha256, None) in queries_of_new
            for entry in enrolled
        ),
        relabelled=relabelled_images(new, after),
        unreadable=queries.unreadable,
    )


def with_own_photos(old: GalleryFile, new: GalleryFile, gallery: Gallery) -> Gallery:
    """The gallery with copies in its own folder of photos that came over HTTP, and lie nowhere else
    than beside the old one."""
    entries = list(gallery.entries)
    for place, entry in enumerate(entries):
        source = Path(entry.path)
        if source.parent == old.photos_folder:
            target = new.photos_folder / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            entries[place] = replace(entry, path=str(target))
    return replace(gallery, entries=tuple(entries))


def relabelled_images(new: GalleryFile, gallery: Gallery) -> int:
    """How many of the run's own images have another class in a gallery than it has, apart from
    classes that were renamed."""
    images = new.run.embeddings(new.phase).gallery_images
    names, in_run = current_names(new.run, gallery, images), dict(part_of_split(new.run, images))
    own = [entry for entry in gallery.entries if entry.origin == "run"]
    return sum(names[in_run[entry.path]] != entry.class_name for entry in own)


def embedded_again(
    old: GalleryFile,
    new: GalleryFile,
    before: Gallery,
    networks: Networks,
    progress: Callable[[int, int], None],
) -> tuple[Gallery, int]:
    """The images of a gallery in its order as the new model sees them, and how many of them were
    embedded for that. Images of the new run's own gallery are there already."""
    own = run_gallery(new.run, new.phase)
    rows = {image_key(entry): row for row, entry in enumerate(own.entries) if entry.sha256}
    before = before.hashed()
    entries: list[GalleryImage] = []
    places: list[int] = []
    sources: dict[int, Path] = {}
    for place, entry in enumerate(before.entries):
        row = rows.get(image_key(entry), -1) if entry.origin == "run" else -1
        places.append(row)
        if row >= 0:
            entries.append(replace(own.entries[row], class_name=entry.class_name))
            continue
        sources[place] = source_of(old.run, entry)
        entries.append(replace(entry, path=str(sources[place].absolute()), origin="enrolled"))
    require_sources(list(sources.values()))
    vectors = np.asarray(own.embeddings)[places]
    if sources:
        files = list(sources.values())
        digests = {file: entries[place].sha256 for place, file in sources.items()}
        embedded = networks(new).embed(files, lambda done: progress(done, len(files)), digests)
        if embedded.unreadable:
            raise ValueError(
                f"{embedded.unreadable[0]}: mend it, or remove its class with `dml-bench enrol"
                " --remove`"
            )
        vectors[list(sources)] = embedded.embeddings
    return Gallery(tuple(entries), vectors), len(sources)


def source_of(run: Run, entry: GalleryImage) -> Path:
    """The file of an image, with the box to which its run cut it."""
    if entry.origin != "run":
        return Path(entry.path)
    file = run.images.located(entry.path)
    box = run.images.boxes.get(Path(entry.path).relative_to(run.images.recorded_root).as_posix())
    if box is None or box_of(file) is not None:
        return file
    left, top, width, height = (float(value) for value in box)
    return Path(boxed(str(file), (left, top, left + width, top + height)))


def require_sources(files: Sequence[Path]) -> None:
    """Raises ValueError where files are gone."""
    gone = [file for file in files if not photo_file(file).is_file()]
    if gone:
        raise ValueError(
            f"{len(gone):,} of {len(files):,} images to embed are gone, the first is {gone[0]}: put"
            " them back, say where the run's lie with --data-dir DIR, or remove their classes"
        )


def query_places(run: Run, phase: str) -> dict[ImageKey, int]:
    """The places of a phase's test images, by the digests of their files and their boxes."""
    images = run.embeddings(phase).query_images
    return {key_in_run(run, image): place for place, image in enumerate(images)}


def shared_test_images(old: GalleryFile, new: GalleryFile, gallery: Gallery) -> Photos:
    """The test images of both runs, with the names that their classes have in the gallery."""
    stored = old.run.embeddings(old.phase)
    names = current_names(old.run, gallery, stored.gallery_images)
    there = query_places(new.run, new.phase)
    rows, places, images, class_names = [], [], [], []
    for row, image in enumerate(stored.query_images):
        place = there.get(key_in_run(old.run, image))
        if place is not None:
            rows.append(row)
            places.append(place)
            images.append(old.run.images.recorded(image))
            name = old.run.split[image].class_name
            class_names.append(names.get(name, name))
    return Photos(
        tuple(images),
        tuple(class_names),
        stored.query[rows],
        new.run.embeddings(new.phase).query[places],
        "test images of both runs",
        own_rows=run_queries(old.run, stored, "query", gallery).own_rows[rows],
    )


def named_photos(
    old: GalleryFile, new: GalleryFile, networks: Networks, photos: Sequence[Path]
) -> Photos:
    """Photos that a person names."""
    before, after = networks(old).embed(photos), networks(new).embed(photos)
    return Photos(
        tuple(str(path) for path in before.paths),
        (None,) * len(before.paths),
        before.embeddings,
        after.embeddings,
        "photos",
        before.unreadable,
    )


def changed_answers(before: Gallery, after: Gallery, queries: Photos) -> tuple[ChangedAnswer, ...]:
    """The photos to which two galleries give other classes."""
    if not queries.images:
        return ()
    own_rows = np.full(len(queries.images), -1) if queries.own_rows is None else queries.own_rows
    first = nearest_others(before, queries.before, own_rows)
    second = nearest_others(after, queries.after, own_rows)
    changed = []
    for row, image in enumerate(queries.images):
        names = before.class_names[first.labels[row, 0]], after.class_names[second.labels[row, 0]]
        if names[0] != names[1]:
            changed.append(
                ChangedAnswer(
                    image=image,
                    class_name=queries.class_names[row],
                    before=names[0],
                    similarity_before=float(first.similarities[row, 0]),
                    after=names[1],
                    similarity_after=float(second.similarities[row, 0]),
                )
            )
    return tuple(changed)
