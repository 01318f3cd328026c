"""Classes added to a run's gallery, renamed and removed, without training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dml_bench.data.csv_table import read_table, require_none, speakable
from dml_bench.data.datasets.own_images import class_folders_in
from dml_bench.data.image_files import describe_left_out, files_below, sorted_out, unread_faults
from dml_bench.data.images import Unreadable, box_of, boxed, photo_file
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import catch_up, step_between, update_indexes
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, digest_of
from dml_bench.registry import UnknownName, near_miss
from dml_bench.registry.names import composed, one_spelling, spelling

__all__ = [
    "Enrolment",
    "GalleryChanges",
    "ImageKey",
    "KnownOtherwise",
    "change_gallery",
    "checked_renamings",
    "image_key",
    "images_below",
    "images_by_key",
    "named_images",
    "new_images",
    "parse_renamings",
    "parts_of_photo",
    "photos_by_class",
    "photos_in",
]

TABLE_SUFFIXES = (".csv", ".tsv")
ImageKey = tuple[str, object]
"""The SHA-256 of an image's file, and its box."""


class KnownOtherwise(ValueError):
    """An image whose bytes are known under another class."""

    def __init__(self, entry: GalleryImage, same: GalleryImage):
        super().__init__(
            f"{entry.path} (class {entry.class_name}) has the same bytes as {same.path} of"
            f" class {same.class_name}, and an image has one class: take it out of the folder,"
            " or rename or remove that class first"
        )
        self.entry = entry
        self.same = same


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryChanges:
    """What to do to a gallery, in this order."""

    remove: tuple[str, ...] = ()
    """The classes to remove."""
    rename: tuple[tuple[str, str], ...] = ()
    """The old and the new names of classes."""
    photos: tuple[tuple[Path, str], ...] = ()
    """The image files to enrol, with their classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """The result of a change."""

    gallery: Gallery = field(repr=False)
    """The changed gallery."""
    enrolled: tuple[GalleryImage, ...] = field(repr=False)
    """The images that were added."""
    new_classes: tuple[str, ...]
    """The classes that the gallery did not have before."""
    already_there: int
    """The number of files whose bytes the gallery, or an earlier file, has already."""
    unreadable: tuple[Unreadable, ...]
    """The files that could not be read as images."""
    indexes: tuple[str, ...]
    """The names of the kept indexes that were updated."""
    not_compared: int
    """The number of the run's images that were moved or deleted, whose copies can't be
    recognised."""


def change_gallery(
    gallery_file: GalleryFile,
    changes: GalleryChanges,
    network: Callable[[], GalleryEmbedder],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Enrolment:
    """Read the gallery, change it, and write it as a whole. Raises ValueError, with nothing
    changed, on a class that is not there, a name that is taken, and an image that the gallery has
    under another class. `network` is called only if there are images to embed."""
    with gallery_file.lock():
        gallery = read = gallery_file.read(new=True)
        catch_up(gallery_file, read)
        for name in changes.remove:
            gallery = gallery.removed(name)
        for old, new in changes.rename:
            gallery = gallery.renamed(old, new)
        before = gallery.class_names
        gallery = gallery.hashed() if changes.photos else gallery
        fresh = unknown_files(gallery, changes.photos)
        unreadable: tuple[Unreadable, ...] = ()
        enrolled: tuple[GalleryImage, ...] = ()
        if fresh:
            paths = [Path(entry.path) for entry in fresh]
            digests = {Path(entry.path): entry.sha256 for entry in fresh}
            embedded = network().embed(paths, lambda done: progress(done, len(paths)), digests)
            readable = {str(path) for path in embedded.paths}
            enrolled = tuple(entry for entry in fresh if entry.path in readable)
            unreadable = embedded.unreadable
            gallery = gallery.joined(enrolled, embedded.embeddings)
        removed = [spelling(name, read.class_names) for name in changes.remove]
        stays = np.array([entry.class_name not in removed for entry in read.entries], bool)
        step = step_between(gallery_file, read, stays, gallery)
        if gallery.entries != read.entries or not gallery_file.path.exists():
            gallery_file.write(gallery, step)
        indexes = update_indexes(gallery_file, step, gallery) if step else ()
    return Enrolment(
        gallery=gallery,
        enrolled=enrolled,
        new_classes=tuple(name for name in gallery.class_names if name not in before),
        already_there=len(changes.photos) - len(fresh),
        unreadable=unreadable,
        indexes=indexes,
        not_compared=sum(not entry.sha256 for entry in gallery.entries) if changes.photos else 0,
    )


def checked_renamings(renamings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The old and the new names. Raises ValueError where one is no text on one line."""
    for old, new in renamings.items():
        for name in (old, new):
            if not (isinstance(name, str) and name.strip() and speakable(name)):
                raise ValueError(
                    f"the name of a class must be text on one line, got {name!r}: correct"
                    f" {{{old!r}: {new!r}}}"
                )
    return tuple(renamings.items())


def parse_renamings(
    texts: Sequence[str], class_names: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """The old and the new name of each OLD=NEW; names may hold = too. A text may rename what an
    earlier one has named.

    Raises ValueError where a text is not of that form, or can be read in two ways, UnknownName
    where no class is renamed.
    """
    names = {composed(name) for name in class_names}
    renamings = []
    for text in texts:
        old, new = parse_renaming(text, names)
        renamings.append((old, new))
        names = names - {composed(old)} | {composed(new)}
    return tuple(renamings)


def parse_renaming(text: str, names: set[str]) -> tuple[str, str]:
    """The old and the new name of one OLD=NEW."""
    splits = []
    for position, letter in enumerate(text):
        if letter == "=" and position and text[position + 1 :].strip():
            splits.append((text[:position], text[position + 1 :]))
    if not splits or not speakable(text):
        raise ValueError(
            f"--rename {text}: write the name of a class and its new one, --rename OLD=NEW"
        )
    ways = [(old, new) for old, new in splits if composed(old) in names]
    if not ways:
        first = splits[0][0]
        raise UnknownName(f"the gallery has no class {first!r}{near_miss(first, sorted(names))}")
    if len(ways) > 1:
        classes = " or ".join(repr(old) for old, _ in ways)
        raise ValueError(
            f"--rename {text} may rename {classes}: rename one to a name without = first"
        )
    return ways[0]


def unknown_files(gallery: Gallery, photos: Sequence[tuple[Path, str]]) -> list[GalleryImage]:
    """Entries for the photos whose bytes are not in the gallery, each once. Raises ValueError where
    the gallery has one under another class."""
    common = one_spelling(name for _, name in photos)
    entries = []
    for path, folder_name in photos:
        name = spelling(common[folder_name], gallery.class_names)
        entries.append(GalleryImage(name, str(path.absolute()), digest_of(path), "enrolled"))
    return new_images(images_by_key(gallery), entries)


def images_by_key(gallery: Gallery) -> dict[ImageKey, GalleryImage]:
    """The images of a gallery whose bytes are known."""
    return {image_key(entry): entry for entry in gallery.entries if entry.sha256}


def new_images(
    known: Mapping[ImageKey, GalleryImage], entries: Iterable[GalleryImage]
) -> list[GalleryImage]:
    """The entries whose bytes are not `known`, each once. Raises KnownOtherwise where one is known
    under another class."""
    fresh: dict[ImageKey, GalleryImage] = {}
    for entry in entries:
        # One that can't be read has no digest, and is like no other.
        key = image_key(entry) if entry.sha256 else ("", entry.path)
        same = known.get(key, fresh.get(key))
        if same is not None and same.class_name != entry.class_name:
            raise KnownOtherwise(entry, same)
        if same is None:
            fresh[key] = entry
    return list(fresh.values())


def image_key(entry: GalleryImage) -> ImageKey:
    """Equal for equal images: parts of one photo are different ones."""
    return entry.sha256, box_of(entry.path)


def photos_by_class(
    folder: Path, say: Callable[[str], None] = lambda text: None
) -> tuple[tuple[Path, str], ...]:
    """The images of a folder of class folders, or of a table, with their classes; `say` is called
    with what else is there. Raises ValueError where it holds no image, or images that can't be
    read."""
    if folder.suffix.lower() in TABLE_SUFFIXES and folder.is_file():
        photos = list(photos_of_table(folder, classes=True))
    else:
        photos = photos_of_class_folders(folder, say)
    texts = [text for photo, name in photos for text in (str(photo), name)]
    require_none(
        [text for text in texts if not speakable(text)],
        f"names in {folder} that are not Unicode text on one line",
        "rename them",
    )
    return tuple(photos)


def photos_of_class_folders(folder: Path, say: Callable[[str], None]) -> list[tuple[Path, str]]:
    """The images of a folder of class folders, with their classes. Raises ValueError where there
    are none."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(
            f"{folder} {problem}: give a folder of class folders, or a table, with --images"
        )
    class_folders, stray = class_folders_in(folder)
    for sentence in stray:
        raise ValueError(sentence)
    if not class_folders:
        raise ValueError(
            f"{folder} has no class folders: put the images of each class into a folder of its own"
        )
    return [
        (file, class_folder.name)
        for class_folder in class_folders
        for file in images_below(class_folder, say)
    ]


def images_below(folder: Path, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """The images in a folder at any depth; `say` is called with what else is there. Raises
    ValueError where there is no image, or some are of a format that is not read."""
    files = sorted_out(files_below(folder))
    for sentence in unread_faults(files.unread, folder):
        raise ValueError(sentence)
    left_out = describe_left_out(files.others, folder)
    if not files.images:
        problem = f"{folder} holds no images: put some into it, or take it away"
        raise ValueError("; ".join([problem, *left_out]))
    for sentence in left_out:
        say(sentence)
    return files.images


def photos_in(folder: Path) -> list[Path]:
    """The images in a folder at any depth, perhaps none. What else is there is passed over."""
    return list(sorted_out(files_below(folder)).images)


def named_images(
    paths: Iterable[Path], say: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """The files, the images in the folders and those in tables, each once; `say` is called with
    what else is in the folders. Raises ValueError on what does not exist, on a folder without
    images, and where there is nothing at all."""
    paths = list(paths)
    if not paths:
        raise ValueError("there are no photos: give image files, or folders of images")
    for path in paths:
        if not photo_file(path).exists():
            raise ValueError(f"{path} does not exist: give image files, or folders of images")
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += images_below(path, say)
        elif path.suffix.lower() in TABLE_SUFFIXES:
            files += [photo for photo, _ in photos_of_table(path)]
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def parts_of_photo(files: Sequence[Path], boxes: Sequence[Sequence[float]]) -> list[Path]:
    """The parts of a single photo in boxes, each left, top, right, bottom. Raises ValueError where
    there are several photos, or a box is none."""
    if len(files) != 1:
        raise ValueError(
            f"a box belongs to one photo, got {len(files)} photos: give a table with the columns"
            " path, x0, y0, x1 and y1"
        )
    return [Path(boxed(str(photo_file(files[0])), box)) for box in boxes]


def photos_of_table(table: Path, *, classes: bool = False) -> Iterator[tuple[Path, str]]:
    """The photos that a table lists, or the parts of them in its boxes, and their `classes` where
    these are needed. Files are named relative to the table. Raises ValueError as reading it as a
    data set does, and where a photo isn't the one whose SHA-256 stands in a column `sha256`."""
    listing = read_table(table.parent, table.name, "")
    file_at, label_at = listing.file_and_class(classes)
    names = [""] * len(listing.rows)
    if label_at is not None:
        known, labels = listing.named_classes(label_at)
        for sentence in listing.nameless(label_at, labels):
            raise ValueError(sentence)
        names = [known[label] for label in labels if label is not None]
    for sentence in listing.faults:
        raise ValueError(sentence)
    boxes = listing.boxes(listing.box_columns())
    digest_at = listing.header.index("sha256") if "sha256" in listing.header else None
    listed = zip(listing.rows, names, boxes, listing.line_numbers, strict=True)
    for cells, name, box, line in listed:
        photo = table.parent / cells[file_at].strip().replace("\\", "/")
        try:
            part = Path(boxed(str(photo), box)) if box else photo
        except ValueError as problem:
            raise ValueError(f"{table} line {line}: {problem}") from None
        if not photo_file(part).is_file():
            raise ValueError(
                f"{table} line {line}: {photo} does not exist: correct the line, or put the photo"
                " there"
            )
        if digest_at is not None and cells[digest_at].strip() != digest_of(part):
            raise ValueError(
                f"{table} line {line}: {photo} was changed since the table was made: make the table"
                " again, or remove the line"
            )
        yield part, name
