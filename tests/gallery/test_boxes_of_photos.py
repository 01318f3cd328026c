"""Photos that show several products, from the table on which a run is trained to its answers."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import dml_bench, refusal, train

import dml_bench as db
from dml_bench.browse.html_map import write_html_map
from dml_bench.browse.run_images import read_browse_table
from dml_bench.data.cache import View
from dml_bench.data.images import box_of, boxed, decode, photo_file
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.export import readable_images
from dml_bench.gallery.preprocessing import source
from dml_bench.gallery.store import run_gallery
from dml_bench.runs.run import open_run

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 30), "blue": (20, 30, 210), "grey": (99,) * 3}
SIDE = 40


def shelf(file: Path, names: list[str], seed: int) -> list[tuple[str, str]]:
    """Products side by side; each with its corners."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 30, (SIDE, SIDE * len(names), 3))
    products = []
    for place, name in enumerate(names):
        pixels[:, SIDE * place : SIDE * (place + 1)] += COLOURS[name]
        products.append((name, f"{SIDE * place},0,{SIDE * (place + 1)},{SIDE}"))
    Image.fromarray(pixels.astype(np.uint8)).save(file, quality=95)
    return products


def table(folder: Path, names: list[str], count: int = 6) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["path,class,x0,y0,x1,y1"]
    for number in range(count):
        for name, corners in shelf(folder / f"shelf_{number}.jpg", names, number):
            lines.append(f"shelf_{number}.jpg,{name},{corners}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder / "train.csv"


@pytest.fixture(scope="module")
def trained_on_boxes(tmp_path_factory, cache_dir) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    table(folder / "photos", ["blue", "green", "red"])
    grouped = ("data.dataset=csv", "data.split=grouped", "data.group=photo", "unseen=last:1")
    return train(folder / "photos", cache_dir, folder / "runs", *grouped).folder


@pytest.fixture
def run(trained_on_boxes, tmp_path) -> Path:
    """A copy, whose gallery may be changed."""
    return Path(shutil.copytree(trained_on_boxes, tmp_path.joinpath(*trained_on_boxes.parts[-3:])))


def test_a_run_on_boxes_embeds_its_images_again_as_they_were(run):
    opened = open_run(run)
    gallery = run_gallery(opened, "all")
    assert all(box_of(entry.path) for entry in gallery.entries)
    rows, pixels = readable_images(opened, gallery)
    assert rows == list(range(len(gallery.entries)))
    again = GalleryEmbedder(opened, "all", "cpu").embed([Path(e.path) for e in gallery.entries])
    np.testing.assert_allclose(again.embeddings, gallery.embeddings, atol=1e-6)
    view = View(opened.experiment.images.fit, opened.experiment.images.size)
    assert np.array_equal(pixels[0], view.apply(decode(Path(gallery.entries[0].path))))


def test_a_box_of_a_photo_is_looked_up(run, tmp_path, monkeypatch, capsys):
    photo = tmp_path / "new.jpg"
    products = shelf(photo, ["red", "blue"], 77)
    boxes = [part for _, corners in products for part in ("--box", corners)]
    assert dml_bench(monkeypatch, "predict", run, photo, *boxes, "--json", "--device", "cpu") == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["class"] for answer in answers] == ["red", "blue"]
    assert [answer["image"] for answer in answers] == [str(photo)] * 2
    assert answers[1]["box"] == [SIDE, 0, 2 * SIDE, SIDE]

    said = db.Gallery(run, device="cpu").predict(photo)
    assert any("whole photos were given" in note for note in said.notes())
    parts = db.Gallery(run, device="cpu").predict(photo, boxes=[(0, 0, SIDE, SIDE)])
    assert not any("whole photos were given" in note for note in parts.notes())


def test_the_map_and_the_explanations_show_the_part(run, tmp_path, monkeypatch):
    page, out = tmp_path / "map.html", tmp_path / "why"
    images = read_browse_table(open_run(run))
    maps = dict.fromkeys(images.phases, np.zeros((len(images.paths), 2), np.float32))
    assert write_html_map(page, images, maps, [], lambda *at: None) == 0
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["sheets"][0].split(",")[1]))))
    side = sheet.shape[1] // 16
    for place, label in enumerate(data["label"]):
        top, left = side * (place // 16), side * (place % 16)
        shown = sheet[top : top + side, left : left + side].mean((0, 1))
        name = data["classes"][label]
        assert shown == pytest.approx(np.add(COLOURS[name], 15), abs=12)
    part = boxed(str(tmp_path / "photos" / "new.jpg"), (SIDE, 0, 2 * SIDE, SIDE))
    photo_file(Path(part)).parent.mkdir()
    shelf(photo_file(Path(part)), ["blue", "red"], 5)
    explained = ("explain", run, "--out", out, "--images", part, "--scored", "0")
    assert dml_bench(monkeypatch, *explained, "--device", "cpu") == 0
    (panel,) = out.glob("**/*.png")
    with Image.open(panel) as drawn:
        shown = np.asarray(drawn.convert("RGB"))[110, 40:130].mean(0)
    assert shown == pytest.approx(np.add(COLOURS["red"], 15), abs=15)


def test_a_table_names_the_parts_of_many_photos(run, tmp_path):
    listed = table(tmp_path / "more", ["green", "red"], count=2)
    said = db.Gallery(run, device="cpu").predict(listed)
    assert [prediction.class_name for prediction in said] == ["green", "red"] * 2
    assert [box_of(prediction.path) for prediction in said][:2] == [
        (0, 0, SIDE, SIDE),
        (SIDE, 0, 2 * SIDE, SIDE),
    ]


def test_a_class_is_enrolled_from_boxes_of_photos_that_also_show_others(run, tmp_path):
    listed = table(tmp_path / "more", ["grey", "red"], count=2)
    gallery = db.Gallery(run, device="cpu")
    enrolment = gallery.enrol(listed)
    assert (enrolment.new_classes, len(enrolment.enrolled)) == (("grey",), 4)
    assert gallery.enrol(listed).already_there == 4
    photo = tmp_path / "new.jpg"
    shelf(photo, ["blue", "grey"], 78)
    (answer,) = gallery.predict(photo, boxes=[(SIDE, 0, 2 * SIDE, SIDE)])
    assert answer.class_name == "grey"


def test_an_upgrade_compares_the_answers_to_each_part_of_a_photo(run, tmp_path):
    gallery = db.Gallery(run, device="cpu")
    gallery.enrol(table(tmp_path / "more", ["grey", "red"], count=1))
    upgraded = gallery.upgrade(run, folder=tmp_path / "upgraded")
    assert upgraded.queries == len(gallery.run.embeddings("all").query_images)
    assert upgraded.changed == (), "the new model is the old one"
    # Another part of a photo with test images in it is none of them.
    query = gallery.run.split[gallery.run.embeddings("all").query_images[0]]
    photo = gallery.run.images.known_root / photo_file(Path(query.path))
    part = boxed(photo.name, (1, 1, SIDE - 1, SIDE - 1))
    (photo.parent / "part.csv").write_text(f'path,class\n"{part}",brown\n')
    gallery.enrol(photo.parent / "part.csv")
    assert gallery.upgrade(run, folder=tmp_path / "with_part").test_images == 0


def test_what_is_no_box_is_one_line(run, tmp_path, monkeypatch, capsys):
    photo = tmp_path / "new.jpg"
    shelf(photo, ["red"], 1)
    other = tmp_path / "other.jpg"
    shelf(other, ["red"], 2)
    line = refusal(monkeypatch, capsys, "predict", run, photo, "--box", "1,2,3")
    assert "--box must be four numbers, x0,y0,x1,y1, got '1,2,3'" in line
    line = refusal(monkeypatch, capsys, "predict", run, photo, "--box", "9,0,3,9")
    assert "left < right" in line
    line = refusal(monkeypatch, capsys, "predict", run, photo, other, "--box", "0,0,9,9")
    assert "a box belongs to one photo, got 2 photos: give a table" in line
    (tmp_path / "boxes.csv").write_text("path,x0,y0,x1,y1\ngone.jpg,0,0,9,9\n")
    line = refusal(monkeypatch, capsys, "predict", run, tmp_path / "boxes.csv")
    assert "boxes.csv line 2: " in line and "gone.jpg does not exist" in line


def test_exported_code_cuts_to_the_box_in_a_path(tmp_path):
    photo = tmp_path / "new.jpg"
    shelf(photo, ["red", "blue"], 3)
    view = View("crop", 16)
    exported: dict = {}
    exec(source(view, "embedder.pt2"), exported)
    part = boxed(str(photo), (SIDE, 0, 2 * SIDE, SIDE))
    assert np.array_equal(exported["pixels"](part), view.apply(decode(Path(part))))
    assert not np.array_equal(exported["pixels"](part), exported["pixels"](str(photo)))
