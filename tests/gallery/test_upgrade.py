"""A gallery brought to another model: embedded from its sources, all or nothing, and the answers
that change are listed."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import dml_bench

import dml_bench as db
from dml_bench.gallery.calibration import run_queries
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, digest_of, run_gallery
from dml_bench.gallery.upgrade import ChangedAnswer, Photos, changed_answers


@pytest.fixture(scope="module")
def old_folder(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def new_folder(trained) -> Path:
    return trained("train.precision=float32", "optimizer.lr=0.02").folder


@pytest.fixture
def enrolled(old_folder, birds, tmp_path) -> db.Gallery:
    """The old gallery with a class less, a class more and a class renamed."""
    gallery = db.Gallery(old_folder, folder=tmp_path / "old", device="cpu")
    for number, file in enumerate(sorted(birds.rglob("*.jpg"))[3::20]):
        (tmp_path / "new" / "Striped").mkdir(parents=True, exist_ok=True)
        photo = Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        photo.save(tmp_path / "new" / "Striped" / f"{number}.png")
    names = gallery.class_names
    gallery.change(photos=tmp_path / "new", remove=names[:1], rename={names[1]: "Renamed"})
    return gallery


@pytest.mark.slow
def test_all_images_are_embedded_by_the_new_model_with_their_classes(
    enrolled, new_folder, tmp_path
):
    before = enrolled.file.read()
    upgraded = enrolled.upgrade(new_folder, folder=tmp_path / "upgraded")
    new = db.Gallery(new_folder, folder=tmp_path / "upgraded", device="cpu")
    after = new.file.read()
    assert [entry.class_name for entry in after.entries] == [e.class_name for e in before.entries]
    assert {"Renamed", "Striped"} < set(new.class_names)
    photos = [Path(entry.path) for entry in after.entries]
    for answer, entry in zip(new.predict(photos, k=1), after.entries, strict=True):
        assert answer.closest[0][0].sha256 == entry.sha256
        assert answer.similarity == pytest.approx(1, abs=1e-5)
    assert upgraded.embedded == 4
    assert [entry.origin for entry in after.entries].count("enrolled") == 4
    np.testing.assert_array_equal(enrolled.file.read().embeddings, before.embeddings)


def test_the_changed_answers_are_those_in_which_both_galleries_differ(
    enrolled, new_folder, tmp_path
):
    upgraded = enrolled.upgrade(new_folder, folder=tmp_path / "upgraded")
    run = enrolled.run
    photos = [run.images.file(image) for image in run.embeddings("all").query_images]
    before = enrolled.predict(photos, k=1)
    after = db.Gallery(new_folder, folder=tmp_path / "upgraded", device="cpu").predict(photos, k=1)
    expected = [
        (str(old.path), old.class_name, new.class_name)
        for old, new in zip(before, after, strict=True)
        if old.class_name != new.class_name
    ]
    assert [(a.image, a.before, a.after) for a in upgraded.changed] == expected
    assert upgraded.queries == len(photos)
    assert (
        f"of {len(photos)} test images of both runs, {len(expected)} get another class"
        in (upgraded.describe()[-1])
    )
    with open(tmp_path / "upgraded" / "all.changed.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["before"], row["after"]) for row in rows] == expected


def test_photos_that_came_over_http_go_with_the_new_gallery(old_folder, enrolled, tmp_path):
    """They lie beside the old gallery alone, which may be deleted."""
    before = enrolled.file.read()
    places = [place for place, entry in enumerate(before.entries) if entry.origin == "enrolled"]
    entries = list(before.entries)
    enrolled.file.photos_folder.mkdir()
    for place in places:
        photo = Path(entries[place].path)
        kept = enrolled.file.photos_folder / f"{entries[place].sha256}{photo.suffix}"
        entries[place] = replace(entries[place], path=str(photo.rename(kept)))
    enrolled.file.write(replace(before, entries=tuple(entries)))
    enrolled.upgrade(old_folder, folder=tmp_path / "upgraded")
    shutil.rmtree(tmp_path / "old")
    new = db.Gallery(old_folder, folder=tmp_path / "upgraded", device="cpu").file.read()
    for place in places:
        photo = Path(new.entries[place].path)
        assert photo.parent == tmp_path / "upgraded" / "all.photos"
        assert digest_of(photo) == entries[place].sha256


def test_an_answer_gets_right_or_wrong_or_stays_wrong():
    entries = tuple(GalleryImage(name, f"/{name}.jpg", "", "run") for name in "abc")
    vectors = np.eye(3, dtype=np.float32)
    turned = vectors[[1, 2, 0]]
    photos = Photos(("1", "2", "3"), ("a", "c", "a"), vectors, vectors, "photos")
    changed = changed_answers(Gallery(entries, vectors), Gallery(entries, turned), photos)
    assert [(a.before, a.after, a.effect) for a in changed] == [
        ("a", "c", "now wrong"),
        ("b", "a", "still wrong"),
        ("c", "b", "still wrong"),
    ]
    right = ChangedAnswer(
        image="", class_name="b", before="a", similarity_before=1, after="b", similarity_after=1
    )
    assert right.effect == "now right"


@pytest.mark.parametrize("harm", ["gone", "changed", "broken"])
def test_where_a_source_is_not_what_it_was_nothing_is_written(harm, enrolled, new_folder, tmp_path):
    photo = tmp_path / "new" / "Striped" / "0.png"
    if harm == "gone":
        photo.unlink()
    else:
        photo.write_bytes(
            b"broken" if harm == "broken" else (photo.with_name("1.png")).read_bytes()
        )
    with pytest.raises(ValueError, match=r"1 of 4 images to embed are gone|changed after"):
        enrolled.upgrade(new_folder, folder=tmp_path / "upgraded")
    assert [file.suffix for file in (tmp_path / "upgraded").iterdir()] in ([], [".lock"])


def test_a_changed_gallery_of_the_new_run_is_not_overwritten(enrolled, new_folder, tmp_path):
    enrolled.upgrade(new_folder, folder=tmp_path / "upgraded")
    content = (tmp_path / "upgraded" / "all.safetensors").read_bytes()
    with pytest.raises(ValueError, match="is there already: remove it, or name another folder"):
        enrolled.upgrade(new_folder, folder=tmp_path / "upgraded")
    assert (tmp_path / "upgraded" / "all.safetensors").read_bytes() == content


def test_a_gallery_refuses_another_model(enrolled, new_folder, tmp_path, old_folder, monkeypatch):
    place = GalleryFile(db.load_run(new_folder), "all", tmp_path / "old")
    with pytest.raises(ValueError, match="was made with other weights"):
        place.read()
    # the same weights that see images otherwise
    monkeypatch.setattr("dml_bench.gallery.store.embedder_digest", lambda run, phase: "another")
    with pytest.raises(ValueError, match="was made by another model"):
        enrolled.file.read()
    assert embedder_digest(enrolled.run, "all") != "another"


def test_the_command_lists_what_changed(
    old_folder, new_folder, tmp_path, monkeypatch, capsys, birds
):
    photo = shutil.copy(next(birds.rglob("*.jpg")), tmp_path / "photo.jpg")
    typed = ("gallery", "upgrade", old_folder, "--run", new_folder, "--out", tmp_path / "new")
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    photos = ("--photos", photo, "--photos", broken)
    assert dml_bench(monkeypatch, *typed, *photos, "--device", "cpu") == 1
    printed = capsys.readouterr()
    assert "51 images of 8 classes, of which 0 were embedded anew" in printed.out
    assert "of 1 photos, 0 get another class" in printed.out
    assert printed.err.endswith(
        f"unreadable: {broken}: not an image, or of a format that is not read\n"
    )


def test_answers_to_test_images_change_where_these_are_the_gallery(trained, tmp_path):
    """Where classes are disjoint each test image is in the gallery, and found itself with either
    model."""
    apart = ("protocol=class_disjoint", "data.split=half")
    folders = trained(*apart).folder, trained(*apart, "seed=43").folder
    old, new = (db.load_run(folder) for folder in folders)
    gallery = db.Gallery(old.folder, device="cpu")
    upgraded = gallery.upgrade(new.folder, folder=tmp_path / "upgraded")
    answers = [run.neighbours["disjoint"].labels[:, 0] for run in (old, new)]
    is_other = (answers[0] != answers[1]).tolist()
    names = [old.images.recorded(image) for image in old.embeddings("disjoint").query_images]
    expected = [name for name, other in zip(names, is_other, strict=True) if other]
    assert [answer.image for answer in upgraded.changed] == expected
    assert upgraded.queries == len(names) > len(expected) > 0


def test_labels_that_were_corrected_since_are_counted_and_rename_no_class(
    old_folder, new_folder, tmp_path
):
    """The old gallery has one image under another class than the new run."""
    old = GalleryFile(db.load_run(old_folder), "all", tmp_path / "old")
    before = run_gallery(old.run, "all")
    place = max(row for row, label in enumerate(before.labels) if label == 0)
    assert (before.labels == 0).sum() > 2
    corrected = replace(before.entries[place], class_name=before.class_names[1])
    old.path.parent.mkdir()
    old.write(
        Gallery(
            (*before.entries[:place], corrected, *before.entries[place + 1 :]), before.embeddings
        )
    )
    gallery = db.Gallery(old_folder, folder=tmp_path / "old", device="cpu")
    upgraded = gallery.upgrade(new_folder, folder=tmp_path / "new")
    assert upgraded.relabelled == 1
    assert "1 of these have another class in the new run than in the gallery" in "".join(
        upgraded.describe()
    )
    new = GalleryFile(db.load_run(new_folder), "all", tmp_path / "new")
    embeddings = new.run.embeddings("all")
    queries = run_queries(new.run, embeddings, "query", new.read())
    names = [new.run.split[image].class_name for image in embeddings.query_images]
    assert [new.read().class_names[label] for label in queries.labels] == names
