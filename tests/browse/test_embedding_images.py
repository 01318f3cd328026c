"""Embeddings of any program as they are shown in maps and in FiftyOne; thumbnails; families."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import refusal

from dml_bench.api.explore import EmbeddingFiles, browsable_of
from dml_bench.browse.families import families
from dml_bench.browse.fields import field_values
from dml_bench.browse.html_map import facts
from dml_bench.browse.thumbnails import ThumbnailFolder

ANGLES = {"Red_Finch": [0, 10, 20], "Blue_Finch": [60, 70, 80], "Grey_Owl": [200, 210, 220]}
"""In degrees: two gallery images of each class, and a query."""


def directions(degrees: list[float]) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1)


@pytest.fixture
def files(tmp_path) -> EmbeddingFiles:
    """Two models of the same images, of which the second takes the query of the owls for a
    finch."""
    rows, names, degrees = ["path,class,split"], [], []
    for name, angles in ANGLES.items():
        for place, angle in enumerate(angles):
            names.append(f"{name}/{place}.jpg")
            degrees.append(float(angle))
            rows.append(f"{names[-1]},{name},{'query' if place == 2 else 'gallery'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    np.savez(tmp_path / "all.npz", embeddings=directions(degrees), paths=np.array(names))
    degrees[-1] = 5
    np.savez(tmp_path / "limited.npz", embeddings=directions(degrees), paths=np.array(names))
    return EmbeddingFiles(
        embeddings=tmp_path / "all.npz",
        without=tmp_path / "limited.npz",
        labels=tmp_path / "labels.csv",
        unseen="Grey_Owl",
    )


def test_a_pair_of_files_is_shown_as_the_two_phases_of_a_run(files, tmp_path):
    table = browsable_of(files, None, tmp_path / "cache").table()
    assert list(table.phases) == ["all", "limited"]
    assert table.part.tolist() == ["gallery"] * 6 + ["query"] * 3
    assert table.paths[0] == f"{tmp_path}/Blue_Finch/0.jpg"
    owl = table.paths.index(f"{tmp_path}/Grey_Owl/2.jpg")
    assert (table.right("all")[owl], table.right("limited")[owl]) == (True, False)
    assert (table.outcome[owl], table.unseen[owl], table.drop[owl]) == ("lost", True, 1)
    assert table.source.phase_titles["limited"] == "limited.npz, without the unseen classes"
    assert field_values(table, [])["answer_unseen"][owl].name == "Grey Owl → Red Finch"


def test_of_one_file_the_classes_that_were_drawn_as_new_are_not_called_unseen(files, tmp_path):
    alone = EmbeddingFiles(embeddings=files.embeddings, labels=files.labels)
    table = browsable_of(alone, None, tmp_path / "cache").table()
    assert list(table.phases) == ["embeddings"]
    assert not table.unseen.any()
    assert not table.outcome.any()


def test_the_map_of_the_same_embeddings_is_kept_by_their_content(files, tmp_path):
    browsable = browsable_of(files, None, tmp_path / "cache")
    one, other = browsable.table().source.map_files.values()
    assert one.parent == tmp_path / "cache" / "maps"
    assert one != other
    again = browsable_of(files, None, tmp_path / "cache").table()
    assert list(again.source.map_files.values()) == [one, other]


def test_a_dataset_of_embeddings_is_made_anew_for_other_embeddings_and_other_queries(
    files, tmp_path
):
    browsable = browsable_of(files, None, tmp_path)
    before = browsable.name, browsable.state(1)
    assert (browsable.name, browsable.state(1)) == before
    table = tmp_path / "labels.csv"
    table.write_text(
        table.read_text().replace(
            "Grey_Owl/1.jpg,Grey_Owl,gallery", "Grey_Owl/1.jpg,Grey_Owl,query"
        )
    )
    changed = browsable_of(files, None, tmp_path)
    assert changed.name == before[0]
    assert changed.state(1) != before[1]


def test_a_dataset_is_made_anew_when_the_file_of_an_image_comes_changes_and_goes(files, tmp_path):
    """Else small copies and near-duplicates would be of other pictures than are there."""
    browsable = browsable_of(files, None, tmp_path)
    gone = browsable.state(1)
    photo = Path(browsable.images[0][0])
    photo.parent.mkdir(parents=True, exist_ok=True)
    states = [gone]
    for content in (b"first", b"another"):
        photo.write_bytes(content)
        states.append(browsable.state(1))
    assert len(set(states)) == 3
    photo.unlink()
    assert browsable.state(1) == gone


def test_decisions_on_embeddings_are_exported_with_the_parts_of_their_table(files, tmp_path):
    images = browsable_of(files, None, tmp_path).images
    assert [image.part for _, image in images[:3]] == ["gallery", "gallery", "query"]
    assert images[0][0] == f"{tmp_path}/Blue_Finch/0.jpg"


def test_embeddings_without_labels_without_new_classes_and_without_images_are_one_line_each(
    files, tmp_path, monkeypatch, capsys
):
    labels = ("--labels", files.labels)
    out = ("--out", tmp_path / "map.html")
    line = refusal(monkeypatch, capsys, "umap", files.embeddings, *out)
    assert "embeddings need a table of their classes: add --labels FILE.csv" in line
    line = refusal(monkeypatch, capsys, "umap", files.embeddings, files.without, *labels, *out)
    assert "need the classes that the second model was not trained on" in line
    line = refusal(monkeypatch, capsys, "umap", files.embeddings, *labels, *out)
    assert "got none, e.g. Blue_Finch/0.jpg: say where they are with --data-dir DIR" in line
    line = refusal(
        monkeypatch, capsys, "umap", files.embeddings, *labels, *out, "--gallery", tmp_path
    )
    assert "embeddings have no enrolled images" in line


# Families


def test_the_last_word_of_a_name_is_the_family_where_it_groups_classes():
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "Snow owl", "Grey Owl", "Jay"]
    assert families(dict(enumerate(names))) == {
        0: "Albatross",
        1: "Albatross",
        2: "Owl",
        3: "Owl",
        4: "Jay",
    }


@pytest.mark.parametrize(
    "names", [["Crow", "Jay", "Owl"], ["class 1", "class 2", "class 1"], ["a Jay", "b Jay"], []]
)
def test_words_that_group_too_few_classes_or_all_or_are_numbers_are_no_families(names):
    assert families(dict(enumerate(names))) == {}


def test_a_page_and_the_fields_have_the_coarse_class_of_each_image(files, tmp_path):
    table = browsable_of(files, None, tmp_path / "cache").table()
    maps = dict.fromkeys(table.phases, np.zeros((9, 2), np.float32))
    page = facts(table, maps)
    assert page["classes"] == ["Blue_Finch", "Grey_Owl", "Red_Finch"]
    assert page["coarse"] == ["Finch", "Owl", "Finch"]
    assert set(page["coarseColours"]) == {"Finch", "Owl"}
    assert field_values(table, [])["coarse_class"][:3] == ["Finch", "Finch", "Owl"]


# Thumbnails


def test_a_large_photo_has_a_small_copy_that_is_made_once_and_again_when_the_photo_changes(
    tmp_path,
):
    photo, cache = tmp_path / "photos" / "one.png", tmp_path / "cache"
    photo.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (300, 600, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    thumbnails = ThumbnailFolder.of(cache, photo.parent)
    copy = thumbnails.path_of(str(photo))
    assert not copy.exists()
    assert thumbnails.small(str(photo)).size == (320, 160)
    made = copy.stat().st_mtime_ns
    assert thumbnails.small(str(photo)).size == (320, 160)
    assert copy.stat().st_mtime_ns == made
    os.utime(photo, ns=(0, 0))
    assert thumbnails.path_of(str(photo)) != copy


def test_a_small_image_is_shown_itself_and_one_that_is_gone_has_no_copy(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "small.png")
    thumbnails = ThumbnailFolder.of(tmp_path / "cache", tmp_path)
    assert thumbnails.path_of(str(tmp_path / "small.png")) is None
    assert thumbnails.path_of(str(tmp_path / "gone.png")) is None
    assert thumbnails.small(str(tmp_path / "small.png")).size == (64, 64)
    assert not (tmp_path / "cache").exists()


def test_a_small_file_of_a_format_that_browsers_do_not_know_has_a_copy(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "small.TIF")
    thumbnails = ThumbnailFolder.of(tmp_path / "cache", tmp_path)
    assert thumbnails.small(str(tmp_path / "small.TIF")).size[0] > 0
    with Image.open(thumbnails.path_of(str(tmp_path / "small.TIF"))) as copy:
        assert copy.format == "JPEG"
