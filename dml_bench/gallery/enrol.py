"""Classes added to a run's gallery, renamed and removed, without training."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dml_bench.data.csv_table import require_none, speakable
from dml_bench.data.datasets.own_images import class_folders_in
from dml_bench.data.image_files import describe_left_out, files_below, sorted_out, unread_faults
from dml_bench.data.images import Unreadable
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import catch_up, step_between, update_indexes
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, digest_of
from dml_bench.registry import UnknownName, near_miss
from dml_bench.registry.names import composed, one_spelling, spelling

__all__ = [
    "Changes",
    "Enrolment",
    "change",
    "images_below",
    "named_images",
    "photos_by_class",
    "renamings",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is to be done to a gallery, in this order."""

    remove: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    photos: tuple[tuple[Path, str], ...] = ()
    """Image files and their classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """What became of a change."""

    gallery: Gallery
    enrolled: tuple[GalleryImage, ...]
    new_classes: tuple[str, ...]
    already_there: int
    """Files whose bytes the gallery, or an earlier file, has already."""
    unreadable: tuple[Unreadable, ...]
    indexes: tuple[str, ...]
    """Kept indexes that the change was added to."""
    not_compared: int
    """Images of the run that are no longer where they were, so that copies of them can't be
    recognised."""


def change(
    place: GalleryFile,
    changes: Changes,
    network: Callable[[], GalleryEmbedder],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Enrolment:
    """Read the gallery, change it, write it whole. Raises ValueError, with nothing changed, on a
    class that is not there, a name that is taken, and an image that is in the gallery under another
    class. The `network` is made only if there are images to embed."""
    with place.lock():
        gallery = read = place.read(new=True)
        catch_up(place, read)
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
            found = network().embed(paths, lambda done: progress(done, len(paths)), digests)
            kept = {str(path) for path in found.paths}
            enrolled, unreadable = (
                tuple(entry for entry in fresh if entry.path in kept),
                found.unreadable,
            )
            gallery = gallery.joined(enrolled, found.embeddings)
        removed = [spelling(name, read.class_names) for name in changes.remove]
        stays = np.array([entry.class_name not in removed for entry in read.entries], bool)
        step = step_between(place, read, stays, gallery)
        if gallery.entries != read.entries or not place.path.exists():
            place.write(gallery, step)
        indexes = update_indexes(place, step, gallery) if step else ()
    return Enrolment(
        gallery=gallery,
        enrolled=enrolled,
        new_classes=tuple(name for name in gallery.class_names if name not in before),
        already_there=len(changes.photos) - len(fresh),
        unreadable=unreadable,
        indexes=indexes,
        not_compared=sum(not entry.sha256 for entry in gallery.entries) if changes.photos else 0,
    )


def renamings(texts: Sequence[str], class_names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The two names of each OLD=NEW, one after another; names may hold = too.

    Raises ValueError where one is not of that form, or can be read in two ways, UnknownName where
    no class is renamed.
    """
    names, found = {composed(name) for name in class_names}, []
    for text in texts:
        places = [place for place, letter in enumerate(text) if letter == "="]
        splits = [
            (text[:place], text[place + 1 :]) for place in places if 0 < place < len(text) - 1
        ]
        if not splits or not speakable(text):
            raise ValueError(
                f"--rename {text}: write the name of a class and its new one, --rename OLD=NEW"
            )
        ways = [(old, new) for old, new in splits if composed(old) in names]
        if not ways:
            raise UnknownName(
                f"the gallery has no class {splits[0][0]!r}{near_miss(splits[0][0], sorted(names))}"
            )
        if len(ways) > 1:
            raise ValueError(
                f"--rename {text} may rename {' or '.join(repr(old) for old, _ in ways)}: rename"
                " one to a name without = first"
            )
        found += ways
        names = names - {composed(ways[0][0])} | {composed(ways[0][1])}
    return tuple(found)


def unknown_files(gallery: Gallery, photos: Sequence[tuple[Path, str]]) -> list[GalleryImage]:
    """Entries for the photos whose bytes are not in the gallery, each once. Raises ValueError where
    one is there under another class."""
    shown = {
        name: spelling(one, gallery.class_names)
        for name, one in one_spelling(name for _, name in photos).items()
    }
    photos = [(path, shown[name]) for path, name in photos]
    known = {entry.sha256: entry for entry in gallery.entries if entry.sha256}
    fresh = []
    for path, name in photos:
        entry = GalleryImage(name, str(path.absolute()), digest_of(path), "enrolled")
        same = known.get(entry.sha256)
        if same is not None and same.class_name != name:
            raise ValueError(
                f"{path} (class {name}) has the same bytes as {same.path} of class"
                f" {same.class_name}, and an image has one class: take it out of the folder, or"
                " rename or remove that class first"
            )
        if same is None:
            fresh.append(entry)
            if entry.sha256:
                known[entry.sha256] = entry
    return fresh


def photos_by_class(
    folder: Path, say: Callable[[str], None] = lambda text: None
) -> tuple[tuple[Path, str], ...]:
    """The images of a folder of class folders, with their classes; says what else is there. Raises
    ValueError where it holds none, or some that can't be read."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}: give a folder"
            " of class folders with --images DIR"
        )
    places, stray = class_folders_in(folder)
    for sentence in stray:
        raise ValueError(sentence)
    if not places:
        raise ValueError(
            f"{folder} has no class folders: put the images of each class into a folder of its own"
        )
    photos = [(file, place.name) for place in places for file in images_below(place, say)]
    require_none(
        [name for _, name in photos if not speakable(name)],
        f"class names in {folder} that are not on one line",
        "rename the folders",
    )
    return tuple(photos)


def images_below(folder: Path, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """The images in a folder at any depth; says what else is there. Raises ValueError where there
    is none, or some are of a format that is not read."""
    found = sorted_out(files_below(folder))
    for sentence in unread_faults(found.unread, folder):
        raise ValueError(sentence)
    left_out = describe_left_out(found.others, folder)
    if not found.images:
        raise ValueError(
            "; ".join([f"{folder} holds no images: put some into it, or take it away", *left_out])
        )
    for sentence in left_out:
        say(sentence)
    return found.images


def named_images(
    paths: Iterable[Path], say: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """The files, and the images in the folders, each once; says what else is in these. Raises
    ValueError on what does not exist, and on a folder without images."""
    given = list(paths)
    for path in given:
        if not path.exists():
            raise ValueError(f"{path} does not exist: give image files, or folders of images")
    return list(
        dict.fromkeys(
            file
            for path in given
            for file in (images_below(path, say) if path.is_dir() else [path])
        )
    )
