"""What joined a gallery since its file was written: there to its last byte, and of no other
gallery."""

import resource
from pathlib import Path

import numpy as np
import pytest

from dml_bench.gallery import store
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage
from dml_bench.runs.run import read_folder
from dml_bench.system.files import seal_of


def images(count: int, first: int = 0) -> Gallery:
    vectors = np.random.default_rng(first).normal(size=(count, 8)).astype(np.float32)
    return Gallery(
        tuple(
            GalleryImage(f"class {row % 3}", f"/photos/{row}.png", f"{row:064}", "enrolled")
            for row in range(first, first + count)
        ),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


FIRST, SECOND, THIRD = images(5), images(2, 5), images(1, 7)


@pytest.fixture
def place(trained, tmp_path) -> GalleryFile:
    run = read_folder(trained("train.precision=float32").folder)
    file = GalleryFile(run, "all", tmp_path / "gallery")
    file.path.parent.mkdir()
    file.write(FIRST)
    return file


def add(file: GalleryFile, more: Gallery) -> int:
    return file.append(more.entries, more.embeddings)


def is_joined(read: Gallery, *parts: Gallery) -> bool:
    entries = [entry for part in parts for entry in part.entries]
    vectors = np.concatenate([part.embeddings for part in parts])
    return list(read.entries) == entries and np.array_equal(read.embeddings, vectors)


def test_additions_belong_to_the_gallery_and_leave_its_file_alone(place):
    before = place.path.read_bytes()
    one, both = add(place, SECOND), add(place, THIRD)
    assert 0 < one < both < one + 1000, "an addition costs what its images cost"
    assert place.path.read_bytes() == before
    assert is_joined(place.read(), FIRST, SECOND, THIRD)
    place.write(place.read())
    assert not place.journal_path.exists()
    assert is_joined(place.read(), FIRST, SECOND, THIRD)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_an_addition_that_a_crash_has_cut_off_is_no_part_of_the_gallery(place, kept):
    size = add(place, SECOND)
    add(place, THIRD)
    content = place.journal_path.read_bytes()
    place.journal_path.write_bytes(content[: size + kept] if kept > 0 else content[:kept])
    assert is_joined(place.read(), FIRST, SECOND)


@pytest.mark.parametrize("room", [1, 600, 6000])
def test_an_addition_for_which_the_disk_has_no_room_leaves_nothing(place, room):
    size, many = add(place, SECOND), images(40, 7)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            add(place, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert place.journal_path.stat().st_size == size
    add(place, THIRD)
    assert is_joined(place.read(), FIRST, SECOND, THIRD)


def test_a_changed_byte_is_noticed(place):
    add(place, SECOND)
    content = bytearray(place.journal_path.read_bytes())
    content[60] ^= 1
    place.journal_path.write_bytes(content)
    with pytest.raises(ValueError, match=r"all.journal can't be read: it was changed after"):
        place.read()


def test_a_gallery_of_a_later_version_is_not_called_damaged(place, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(store, "FORMAT", "10")
        place.write(FIRST)
    with pytest.raises(ValueError, match=r"by a later version of dml-bench .*: update dml-bench"):
        place.read()


def test_a_crash_between_the_file_and_its_journal_counts_no_image_twice(place):
    add(place, SECOND)
    journal = place.journal_path.read_bytes()
    place.write(place.read())
    place.journal_path.write_bytes(journal)  # as if it had not been removed yet
    assert is_joined(place.read(), FIRST, SECOND)
    place.write(images(1))
    assert is_joined(place.read(), images(1))
    assert not place.journal_path.exists()


def test_a_journal_of_another_file_is_refused(place, tmp_path):
    add(place, SECOND)
    other = GalleryFile(place.run, "all", tmp_path / "other")
    other.path.parent.mkdir()
    other.write(THIRD)
    assert seal_of(other.path) != seal_of(place.path)
    kept = place.path.rename(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"is gone, and .*all.journal adds to it"):
        place.read()
    Path(place.path).write_bytes(other.path.read_bytes())
    with pytest.raises(ValueError, match=r"all.journal was added to another file than"):
        place.read()
    kept.rename(place.path)
    assert is_joined(place.read(), FIRST, SECOND)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(place, monkeypatch):
    add(place, SECOND)
    read = GalleryFile._read

    def read_slowly(self: GalleryFile) -> Gallery:
        gallery = read(self)
        monkeypatch.setattr(GalleryFile, "_read", read)
        place.write(gallery.joined(SECOND.entries, SECOND.embeddings))
        return gallery

    monkeypatch.setattr(GalleryFile, "_read", read_slowly)
    assert is_joined(place.read(), FIRST, SECOND)


@pytest.mark.parametrize(("owner", "name"), [(store, "mapped"), (GalleryFile, "_of_this_file")])
def test_that_holds_whenever_it_is_replaced(place, monkeypatch, owner, name):
    """Between its entries and its embeddings, and after its journal was read."""
    add(place, SECOND)
    before = getattr(owner, name)

    def replaced_first(*arguments: object) -> object:
        monkeypatch.setattr(owner, name, before)
        place.write(FIRST.joined(SECOND.entries, SECOND.embeddings))
        return before(*arguments)

    monkeypatch.setattr(owner, name, replaced_first)
    assert is_joined(place.read(), FIRST, SECOND)
