"""A run in FiftyOne, with a real database: its dataset, and the app in a headless Chromium."""

import http.client
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pytest
from browsing import (
    Browsing,
    drawn,
    filter_by,
    free_port,
    launched,
    needs_chromium,
    needs_fiftyone,
    open_view,
    page_at,
    screenshot,
)
from handmade import experiment, finish, store
from listening import listening
from PIL import Image
from tiny import dml_bench

from dml_bench.browse import fiftyone_app, map_data, projection
from dml_bench.browse.browsable import BrowsedRun
from dml_bench.browse.database import URI, DatabaseFolder, serve_database
from dml_bench.browse.html_map import write_html_map
from dml_bench.browse.images import BrowseTable
from dml_bench.browse.run_images import read_browse_table
from dml_bench.browse.server import Guard
from dml_bench.browse.session import forget
from dml_bench.browse.thumbnails import ThumbnailFolder
from dml_bench.data.images import boxed
from dml_bench.data.synthetic import write
from dml_bench.gallery.store import GalleryFile as GalleryPlace
from dml_bench.gallery.store import GalleryImage, run_gallery
from dml_bench.runs.arrays import embeddings_digest, read_arrays
from dml_bench.runs.run import Run, read_folder

pytestmark = needs_fiftyone
GALLERY = {"class 0": [0.0], "class 1": [60.0], "class 2": [90.0]}
QUERY = {"class 0": [10.0, 50.0], "class 1": [70.0], "class 2": [80.0]}
RIGHT = {"all": [[1, 1], [1], [0]], "limited": [[1, 0], [1], [0]]}
MAP = np.arange(14, dtype=np.float32).reshape(7, 2)
MAPS = {"all": MAP, "limited": -MAP}


@pytest.fixture(scope="session")
def fiftyone(tmp_path_factory) -> Iterator[Any]:
    """Connected to a database of its own, to which no other test is led. FiftyOne can't be
    connected a second time, which a process would need that gets some of these tests later."""
    assert "fiftyone" not in sys.modules, "a test before imported FiftyOne without its database"
    before = dict(os.environ)
    os.environ.pop(URI, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            serve_database(DatabaseFolder(tmp_path_factory.mktemp("database") / "db")) as uri,
            fiftyone_app.connected(uri),
        ):
            import fiftyone

            os.environ.clear()
            os.environ.update(before)
            yield fiftyone


def finished_run(folder: Path) -> Run:
    """Three classes, the last held out of `limited`; one gallery image each, then four queries."""
    made = finish(folder, experiment(), RIGHT, unseen=1)
    for phase in RIGHT:
        store(made, phase, gallery=GALLERY, query=QUERY)
    return read_folder(made.folder)


@pytest.fixture(scope="session")
def shown(fiftyone, tmp_path_factory) -> Any:
    """A dataset that nobody changes."""
    images = read_browse_table(finished_run(tmp_path_factory.mktemp("shown") / "runs"))
    fiftyone_app.update("shown", images, MAPS, [(4, 0)], state="first")
    return fiftyone.load_dataset("shown")


@pytest.fixture
def made_run(tmp_path) -> Run:
    return finished_run(tmp_path / "runs")


@pytest.fixture
def images(made_run) -> BrowseTable:
    return read_browse_table(made_run)


@pytest.fixture
def dataset(fiftyone, images) -> Iterator[Any]:
    fiftyone_app.update("made", images, MAPS, [(4, 0)], state="first")
    yield fiftyone.load_dataset("made")
    fiftyone_app.remove("made")


def files(view: Any) -> list[str]:
    return [path.removeprefix("/photos/") for path in view.values("filepath")]


def test_every_image_has_its_fields_with_both_phases_side_by_side(shown):
    assert len(shown) == 7
    sample = shown.match({"filepath": "/photos/query/class 0/1.jpg"}).first()
    assert (sample.ground_truth.label, sample.class_id, sample.split, sample.class_group) == (
        "class 0",
        0,
        "test",
        "seen",
    )
    assert (sample.prediction_all.label, sample.prediction_limited.label) == ("class 0", "class 1")
    assert (sample.correct_all, sample.correct_limited, sample.outcome) == (True, False, "lost")
    assert (sample.vote_limited.label, sample.vote_limited.confidence) == ("class 1", 0.5)
    assert (sample.nearest_limited, sample.similarity_limited) == (
        "/photos/gallery/class 1/0.jpg",
        1.0,
    )
    assert (sample.class_drop, sample.mistakenness_limited, sample.near_duplicate) == (0.5, 0.75, 1)
    assert shown.first().prediction_all is None
    assert shown.persistent


def test_the_saved_views_hold_what_their_names_say(shown):
    views = {name: files(shown.load_saved_view(name)) for name in shown.list_saved_views()}
    assert views["unseen classes"] == ["gallery/class 2/0.jpg", "query/class 2/0.jpg"]
    assert (
        views["lost when unseen"] == []
    )  # class 2 is wrong in both phases, and class 0 is not unseen
    assert views["mistakes (all)"] == ["query/class 2/0.jpg"]
    assert sorted(views["mistakes (limited)"]) == ["query/class 0/1.jpg", "query/class 2/0.jpg"]
    assert views["vote saves (all)"] == []
    assert views["near-duplicates between train and test"] == [
        "gallery/class 0/0.jpg",
        "query/class 0/1.jpg",
    ]
    assert views["vote ruins (limited)"] == []
    assert views["hubs (limited)"] == []  # three gallery images, all near every query
    assert views["class 0 taken for class 1 (limited)"] == [
        "query/class 0/1.jpg",
        "gallery/class 1/0.jpg",
    ]
    assert views["labels to doubt"] == ["query/class 2/0.jpg"]


def test_a_query_that_only_the_model_without_its_class_gets_wrong_is_lost_when_unseen(
    fiftyone, tmp_path
):
    made = finish(
        tmp_path / "runs",
        experiment(),
        {"all": [[1, 1], [1], [1]], "limited": [[1, 0], [1], [0]]},
        unseen=1,
    )
    for phase in RIGHT:
        store(made, phase, gallery=GALLERY, query=QUERY)
    fiftyone_app.update(
        "lost", read_browse_table(read_folder(made.folder)), MAPS, [], state="first"
    )
    dataset = fiftyone.load_dataset("lost")
    assert files(dataset.load_saved_view("lost when unseen")) == ["query/class 2/0.jpg"]
    assert files(dataset.load_saved_view("near-duplicates between train and test")) == []


def test_rotated_hold_outs_whose_names_no_field_may_have_are_shown_too(fiftyone, tmp_path):
    right = {"all": [[1], [1], [1]], "limited-1": [[0], [1], [1]], "limited-2": [[1], [0], [1]]}
    held = {"limited-1": [0], "limited-2": [1]}
    made = finish(tmp_path / "runs", experiment(), right, holdouts=held)
    query = {"class 0": [1.0], "class 1": [2.0], "class 2": [3.0]}
    for phase in right:
        store(made, phase, gallery=GALLERY, query=query)
    images = read_browse_table(read_folder(made.folder))
    fiftyone_app.update("rotated", images, dict.fromkeys(right, MAP[:6]), [], state="first")
    dataset = fiftyone.load_dataset("rotated")
    data = map_data.map_data(dataset)
    assert [phase["name"] for phase in data["phases"]] == ["all", "limited_1", "limited_2"]
    assert data["phases"][2]["verdict"][3:] == ["right", "wrong", "right"]
    seen_or_unseen = [phase["class_group"][3:] for phase in data["phases"]]
    assert seen_or_unseen == [
        ["unseen", "unseen", "seen"],
        ["unseen", "seen", "seen"],
        ["seen", "unseen", "seen"],
    ], "by the model of the map, not by any"
    assert files(dataset.load_saved_view("mistakes (limited-2)")) == ["query/class 1/0.jpg"]
    lost = dataset.load_saved_view("lost when unseen")
    assert len(lost) == 2
    assert map_data.chip_of(lost._serialize(), list(held)) == "answer_unseen"
    assert set(lost.values("answer_unseen.verdict")) == {"wrong"}


def test_each_phase_has_an_evaluation_of_its_queries(shown):
    assert shown.list_evaluations() == ["correct_all", "correct_limited"]
    assert shown.load_evaluation_results("correct_all").metrics()["accuracy"] == 0.75
    assert shown.load_evaluation_results("correct_limited").metrics()["accuracy"] == 0.5


def test_each_phase_has_its_map_and_one_of_the_unseen_classes_and_a_search(shown):
    assert shown.list_brain_runs() == [
        "similarity_all",
        "similarity_limited",
        "umap_all",
        "umap_all_unseen",
        "umap_limited",
        "umap_limited_unseen",
    ]
    umap = shown.load_brain_results("umap_limited")
    assert dict(zip(umap.sample_ids, umap.points.tolist(), strict=True)) == dict(
        zip(shown.values("id"), (-MAP).tolist(), strict=True)
    )
    assert shown.load_brain_results("umap_all_unseen").points.tolist() == MAP[[2, 6]].tolist()
    query = shown.match({"filepath": "/photos/query/class 0/1.jpg"}).first()
    assert files(shown.sort_by_similarity(query.id, brain_key="similarity_all", k=3)) == [
        "query/class 0/1.jpg",  # at 50 degrees
        "gallery/class 1/0.jpg",  # at 60
        "query/class 1/0.jpg",  # at 70
    ]


def test_the_maps_have_every_image_with_its_place_and_what_each_phase_says(shown):
    data = map_data.map_data(shown)
    assert data["ids"] == shown.values("id")
    assert [data["root"] + path for path in data["paths"]] == shown.values("filepath")
    assert data["classes"] == ["class 0", "class 1", "class 2"]
    assert data["label"] == [0, 1, 2, 0, 0, 1, 2]
    assert data["common"]["class_group"].count("unseen") == 2
    limited = data["phases"][1]
    assert limited["title"] == "trained without the unseen classes"
    assert limited["x"] == [-point[0] for point in MAP.tolist()]
    assert limited["answer"] == [-1, -1, -1, 0, 1, 1, 0]
    assert limited["verdict"] == ["no query"] * 3 + ["right", "wrong", "right", "wrong"]
    assert limited["similarity"] == [None] * 3 + [1.0] * 4


def test_the_maps_know_which_images_a_view_holds_and_of_which_phase_it_is(shown):
    view = shown.load_saved_view("mistakes (limited)")
    assert map_data.rows_of(shown, view) == [4, 6]
    phases = ["all", "limited"]
    assert map_data.chip_of(view._serialize(), phases) == "answer_limited"
    assert map_data.chip_of(shown.load_saved_view("unseen classes")._serialize(), phases) is None
    doubted = shown.load_saved_view("labels to doubt")._serialize()
    assert map_data.chip_of(doubted, phases) == "doubt"


def test_the_nearest_images_of_one_are_those_of_the_gallery_with_their_cosines(shown):
    query = shown.match({"filepath": "/photos/query/class 0/1.jpg"}).first()  # at 50 degrees
    path_of = dict(zip(*shown.values(["id", "filepath"]), strict=True))
    nearest = map_data.nearest_images(shown, query.id)["limited"]
    assert [path_of[sample].removeprefix("/photos/gallery/") for sample, _ in nearest] == [
        "class 1/0.jpg",
        "class 2/0.jpg",
        "class 0/0.jpg",
    ]
    expected = [np.cos(np.radians(degrees)) for degrees in (10, 40, 50)]
    assert [similarity for _, similarity in nearest] == pytest.approx(expected, abs=1e-4)


def test_the_images_stand_beside_the_map_and_the_embeddings_panel(shown):
    left, right = shown.load_workspace("map").children
    assert [panel.type for panel in left.children] == ["Samples"]
    assert [panel.type for panel in right.children] == [
        "dml_map",
        "Embeddings",
        "model_evaluation_panel_builtin",
    ]
    assert (left.active_child, right.active_child) == ("samples", "map")


def test_opening_again_updates_and_never_duplicates_and_keeps_what_a_person_added(
    dataset, images, made_run, fiftyone
):
    ids = dataset.values("id")
    sample = dataset.first()
    sample.tags.append("mine")
    sample.save()
    dataset.save_view("my view", dataset.limit(2))
    assert fiftyone_app.is_current("made", "first")
    assert not fiftyone_app.is_current("made", "second")
    gallery = run_gallery(made_run, "all")
    place = GalleryPlace(made_run, "all")
    place.path.parent.mkdir()
    place.write(
        gallery.joined(
            (GalleryImage("newcomer", "/mine/new.jpg", "", "enrolled"),), gallery.embeddings[:1]
        )
    )
    more = read_browse_table(made_run)
    maps = {"all": np.vstack([MAP, [[50, 51]]]), "limited": np.vstack([-MAP, [[np.nan, np.nan]]])}
    fiftyone_app.update("made", more, maps, [], state="second")
    dataset = fiftyone.load_dataset("made")
    assert fiftyone_app.is_current("made", "second")
    assert dataset.values("id")[:7] == ids
    assert files(dataset)[7:] == ["/mine/new.jpg"]
    assert dataset.last().split == "enrolled"
    assert dataset.first().tags == ["mine"]
    assert fiftyone_app.tags_of("made")[dataset.first().filepath] == ["mine"]
    assert files(dataset.load_saved_view("near-duplicates between train and test")) == []
    assert len(dataset.load_saved_view("my view")) == 2
    assert dataset.list_evaluations() == ["correct_all", "correct_limited"]
    assert dataset.load_brain_results("umap_all").points.shape == (8, 2)
    assert dataset.load_brain_results("umap_limited").points.shape == (7, 2)
    fiftyone_app.update("made", images, MAPS, [], state="third")
    dataset.reload()
    assert dataset.values("id") == ids


def test_what_an_earlier_run_wrote_alone_is_gone_from_that_of_a_run_that_was_made_anew(
    dataset, images, fiftyone
):
    dataset.add_sample_field("mine", fiftyone.StringField)
    sample = dataset.first()
    sample["mine"] = "kept"
    sample.save()
    source = replace(images.source, held_out={})
    only = replace(
        images, source=source, phases={"all": images.phases["all"]}, drop=images.drop * np.nan
    )
    fiftyone_app.update("made", only, {"all": MAP}, [], state="made anew")
    dataset = fiftyone.load_dataset("made")
    left = [field for field in dataset.get_field_schema() if "limited" in field]
    assert left == [], "predictions of a model that is no more"
    for field in ("outcome", "class_drop", "answer_unseen"):
        assert not dataset.has_field(field)
    assert dataset.list_evaluations() == ["correct_all"]
    assert dataset.list_brain_runs() == ["similarity_all", "umap_all", "umap_all_unseen"]
    assert dataset.first()["mine"] == "kept"
    fiftyone_app.update("made", images, MAPS, [], state="as before")
    assert dataset.list_evaluations() == ["correct_all", "correct_limited"]


def test_views_whose_names_differ_in_other_letters_than_english_ones_are_all_saved(
    dataset, images, fiftyone
):
    dataset.save_view("taken for - all", dataset.limit(2))
    named = replace(images, class_names={0: "一", 1: "二", 2: "三"})
    for _ in range(2):
        fiftyone_app.update("made", named, MAPS, [], state="named")
    dataset.reload()
    views = dataset.list_saved_views()
    assert [name for name in views if "taken for" in name] == [
        "taken for - all",
        "三 taken for 一 (all) 2",
        "一 taken for 二 (limited)",
        "三 taken for 一 (limited) 2",
    ]
    pair = ["query/class 2/0.jpg", "gallery/class 0/0.jpg"]
    assert files(dataset.load_saved_view("三 taken for 一 (all) 2")) == pair
    assert len(dataset.load_saved_view("taken for - all")) == 2, "a person's own"


def test_images_that_were_moved_keep_their_samples_and_tags(dataset, images, fiftyone):
    ids = dataset.values("id")
    sample = dataset.match({"filepath": "/photos/query/class 0/1.jpg"}).first()
    sample.tags.append("leave out")
    sample.save()
    paths = tuple(f"/disk{path}" for path in images.paths)
    moved = replace(images, paths=paths)
    fiftyone_app.update("made", moved, MAPS, [], state="moved", root=Path("/disk/photos"))
    dataset.reload()
    assert dataset.values("id") == ids
    assert dataset.values("filepath") == list(paths)
    assert fiftyone_app.tags_of("made")["/disk/photos/query/class 0/1.jpg"] == ["leave out"]


def test_views_of_the_vote_hold_queries_that_it_saves_and_that_it_ruins(dataset):
    for path, voted in (("class 1/0.jpg", "class 0"), ("class 2/0.jpg", "class 2")):
        sample = dataset.match({"filepath": f"/photos/query/{path}"}).first()
        sample.vote_limited.label = voted
        sample.save()
    assert files(dataset.load_saved_view("vote ruins (limited)")) == ["query/class 1/0.jpg"]
    assert files(dataset.load_saved_view("vote saves (limited)")) == ["query/class 2/0.jpg"]


@pytest.mark.slow
def test_parts_of_a_photo_are_pictures_of_their_own(fiftyone, images, tmp_path):
    photo, pixels = tmp_path / "shelf.jpg", np.zeros((48, 7 * 40, 3), np.uint8)
    for place in range(7):
        pixels[:, 40 * place : 40 * place + 40] = (30 * place, 255 - 30 * place, 90)
    Image.fromarray(pixels).save(photo, quality=95)
    paths = tuple(boxed(str(photo), (40 * at, 0, 40 * at + 40, 48)) for at in range(7))
    copies = ThumbnailFolder.of(tmp_path / "cache", tmp_path)
    for _ in range(2):
        shelf = replace(images, paths=paths)
        fiftyone_app.update("shelf", shelf, MAPS, [], "first", copies)
    dataset = fiftyone.load_dataset("shelf")
    assert dataset.values("filepath") == list(paths)
    assert {dataset.media_type, *(sample.media_type for sample in dataset)} == {"image"}
    assert dataset.app_config.modal_media_field == "thumbnail_path"
    made = fiftyone_app.copies_of(dataset)
    assert len(made) == 7
    for place, (copy, make) in enumerate(made.items()):
        make()
        with Image.open(copy) as part:
            assert part.size == (267, 320)
            middle = part.getpixel((133, 160))
        assert middle == pytest.approx((30 * place, 255 - 30 * place, 90), abs=8)
    fiftyone_app.remove("shelf")


def test_a_dataset_that_was_interrupted_is_not_taken_for_whole(dataset, images, fiftyone):
    with pytest.raises(KeyError):
        fiftyone_app.update("made", images, {"all": MAP}, [], state="first")
    assert not fiftyone_app.is_current("made", "first")


def test_a_database_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(fiftyone_app, "PATIENCE_MILLISECONDS", 300)
    uri = f"mongodb://127.0.0.1:{free_port()}"
    with (
        pytest.raises(ValueError, match=f"the database {uri} does not answer .* unset {URI}"),
        fiftyone_app.connected(uri),
    ):
        pass


@pytest.fixture
def named_server(fiftyone, monkeypatch) -> None:
    """The user names the database to which these tests are connected. A process can't connect
    twice."""
    monkeypatch.setenv(URI, fiftyone.config.database_uri)
    monkeypatch.setattr(fiftyone_app, "connected", nullcontext)


def test_on_a_server_that_the_user_names_forgetting_removes_the_run_s_dataset_alone(
    dataset, images, made_run, fiftyone, named_server, tmp_path
):
    others = fiftyone.list_datasets()
    fiftyone_app.update(BrowsedRun(made_run).name, images, MAPS, [], state="first")
    assert forget(BrowsedRun(made_run), tmp_path)
    assert fiftyone.list_datasets() == others


def test_decisions_that_were_kept_as_tags_are_exported_with_the_run_s_images(
    images, made_run, fiftyone, named_server, monkeypatch, tmp_path, capsys
):
    name = BrowsedRun(made_run).name
    fiftyone_app.update(name, images, MAPS, [], state="first")
    dataset = fiftyone.load_dataset(name)
    for path, tag in (("class 0/0.jpg", "class:class 2"), ("class 1/0.jpg", "leave out")):
        sample = dataset.match({"filepath": f"/photos/query/{path}"}).first()
        sample.tags.append(tag)
        sample.save()
    table = tmp_path / "tags.csv"
    options = ("--export", table, "--cache-dir", tmp_path)
    assert dml_bench(monkeypatch, "browse", made_run.folder, *options) == 0
    assert capsys.readouterr().out == f"{table}: 6 images, 1 relabelled; 1 left out\n"
    assert "query/class 0/0.jpg,class 2,test,,class 0,class:class 2" in table.read_text()
    elsewhere = replace(images, paths=tuple(f"/disk{path}" for path in images.paths))
    fiftyone_app.update(name, elsewhere, MAPS, [], "moved", root=Path("/disk/photos"))
    assert dml_bench(monkeypatch, "browse", made_run.folder, *options) == 0
    assert "1 relabelled; 1 left out" in capsys.readouterr().out, "from the place it is not at now"
    fiftyone_app.remove(name)


# In Chromium


@pytest.fixture(scope="module")
def run(copy_of_trained) -> Path:
    """A trained run of 64 birds whose maps are kept already, so that nothing waits for UMAP."""
    folder = copy_of_trained()
    for phase in ("all", "limited"):
        stored = read_arrays(folder / phase / "embeddings.safetensors")
        embeddings = np.concatenate([stored["gallery"], stored["query"]])
        facts = {
            "fitted": embeddings_digest(embeddings),
            "put into it": embeddings_digest(embeddings[:0]),
        }
        projection.write(folder / "projection" / f"{phase}.safetensors", embeddings[:, :2], facts)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for all tests here."""
    with launched() as browser:
        yield browser


def lasso_the_left_half(page: Any) -> None:
    box = page.locator(".dml canvas").first.bounding_box()
    way = ((0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98), (0.02, 0.04))
    corners = [
        (box["x"] + part * box["width"], box["y"] + down * box["height"]) for part, down in way
    ]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=6)
    page.mouse.up()


@pytest.fixture(scope="module")
def shared_app(run, tmp_path_factory) -> Iterator[Browsing]:
    browsing = Browsing([run], tmp_path_factory.mktemp("home"))
    yield browsing
    browsing.end()


@pytest.fixture
def app(shared_app) -> Browsing:
    """The app, which runs."""
    shared_app.start()
    return shared_app


@pytest.fixture(scope="module")
def shared_page(shared_app, chromium) -> Iterator[Any]:
    shared_app.start()
    with page_at(chromium, shared_app.url) as page:
        yield page


@pytest.fixture
def page(shared_page) -> Any:
    """The app's page, which shows all images."""
    shared_page.wait_for_function("window.dmlMaps?.panes?.[0]?.drawn >= 0")
    shared_page.locator(".dml button", has_text="Show all").click()
    shared_page.get_by_text("64 of 64 images").wait_for()
    return shared_page


@contextmanager
def html_map_at(chromium: Any, path: Path) -> Iterator[Any]:
    """A page of `umap`, once it is drawn; no script of it fails."""
    with page_at(chromium, path.as_uri()) as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.wait_for_function(
            "panels.every(({ points: { ink, canvas } }) => canvas.width &&"
            " ink.getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0))"
        )
        yield page
        assert errors == []


def tip_of(page: Any, row: int) -> str:
    """What the page says of the image at the place of this one on the last map."""
    where = page.evaluate(
        "row => { const panel = panels.at(-1), b = panel.canvas.getBoundingClientRect(),"
        " [x, y] = place(panel, row); return [b.left + x, b.top + y]; }",
        row,
    )
    page.mouse.move(*where)
    page.locator("#tip .thumb").first.wait_for()
    return page.locator("#tip").inner_text()


PIXELS = """() => dmlMaps.panes.flatMap(({ phase, points, spots, ratio }) =>
    phase.x.map((_, row) => {
        const [x, y] = [spots[2 * row], spots[2 * row + 1]].map(place => Math.floor(place * ratio));
        return DmlPoints.context() !== null && points.ink.getImageData(x, y, 1, 1).data[3] > 240;
    }))"""
"""Of each image on each map of FiftyOne, whether its point is there, by WebGL."""
SHAPES = """() => {
    const [width, height] = [200, 50], view = { width, height, left: 25, top: 25, scale: 50 };
    const line = { colour: [0, 0, 0], opacity: 0.55, width: 2 };
    const looks = [{ size: 9, line }, { size: 4 }];
    const points = new DmlPoints([0, 1, 2, null, 3], [0, 0, 0, null, 0], [0, 1, 2, 1, 0]);
    const picture = () => [...points.ink.getImageData(0, 0, width, height).data];
    points.style(
        Uint8Array.of(200, 0, 0, 255, 0, 160, 0, 255, 0, 0, 220, 128, 0, 0, 0, 0, 9, 9, 9, 255),
        [[2, 1, 0], [4]],
    );
    points.draw(view, looks);
    const gl = DmlPoints.context(), card = [0, 1, 2, 3].map((column) => {
        const pixel = new Uint8Array(4);
        const spot = [25 + 50 * column, gl.canvas.height - 25, 1, 1];
        gl.readPixels(...spot, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
        return [...pixel];
    });
    const shown = picture();
    points.canvas.width = width;
    points.drawEach(view, looks);
    const byCanvas = picture();
    gl.getExtension("WEBGL_lose_context").loseContext();
    points.draw(view, looks);
    return { kind: gl.constructor.name, card, shown, byCanvas, again: picture(),
        renewed: gl !== DmlPoints.context() && DmlPoints.context() !== null };
}"""
"""A dot, a diamond, a triangle and a smaller dot: what the graphics card has at their centres, and
their picture by WebGL, by the canvas, and by WebGL again after the card was lost."""


def fetch(
    port: int, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; nothing is followed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    request_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        "POST" if body else "GET", path, json.dumps(body) if body else None, request_headers
    )
    answer = connection.getresponse()
    with closing(connection):
        return (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )


def test_the_app_gives_only_the_run_s_images_to_whoever_has_the_token(app, run):
    image = read_browse_table(read_folder(run)).paths[0]
    port, token = app.port, app.url.partition("?token=")[2]
    assert app.url == f"http://127.0.0.1:{port}/?token={token}"
    assert len(token) >= 32
    status, headers, _ = fetch(port, f"/?token={token}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    asked_for = f"/media?{urlencode({'filepath': image})}"
    assert fetch(port, "/", cookie=cookie)[0] == 200
    assert fetch(port, asked_for, cookie=cookie)[2] == Path(image).read_bytes()
    assert fetch(port, "/media?filepath=/etc/passwd", cookie=cookie)[0] == 404
    foreign = fetch(port, "/media?filepath=/etc/passwd", cookie=cookie, host="evil.example")
    assert foreign[0] == 403
    assert fetch(port, "/", cookie=cookie, host=f"evil.example:{port}")[0] == 403
    assert fetch(port, asked_for)[0] == 403
    names = {"operator_uri": "@voxel51/operators/list_files", "params": {"path": "/etc"}}
    refused = fetch(port, "/operators/execute", names, cookie=cookie)[2]
    assert b"does not have permission" in refused
    assert set(listening(psutil.Process(app.process.pid))) == {("127.0.0.1", port)}


@pytest.fixture
def guarded(shown, tmp_path) -> Any:
    """FiftyOne's application behind the guard, asked by somebody who has the token."""
    from fiftyone.server.app import app as application
    from starlette.testclient import TestClient

    for name in ("shown.jpg", "hidden.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link.jpg").symlink_to(tmp_path / "hidden.jpg")
    guard = Guard(
        application,
        files=[str(tmp_path / "shown.jpg")],
        address="127.0.0.1",
        port=5151,
        token="secret",
    )
    client = TestClient(guard, base_url="http://127.0.0.1:5151", follow_redirects=False)
    client.cookies.set("dml-bench-5151", "secret")
    return client


def test_only_files_of_the_dataset_are_given_out_however_others_are_spelt(guarded, tmp_path):
    assert (
        guarded.get("/media", params={"filepath": str(tmp_path / "shown.jpg")}).content
        == b"shown.jpg"
    )
    inside = [
        f"{tmp_path}/{other}"
        for other in (
            "hidden.jpg",
            "link.jpg",
            "x/../hidden.jpg",
            "shown.jpg/../hidden.jpg",
            "../" * 20 + "etc/passwd",
        )
    ]
    for path in (*inside, str(tmp_path), "shown.jpg", "", "/etc/passwd", "/proc/self/environ"):
        assert guarded.get("/media", params={"filepath": path}).status_code == 404, path
    both = f"filepath={tmp_path / 'shown.jpg'}&filepath=/etc/passwd"
    for spelling in (
        f"/media?{both}",
        "/media%0a?filepath=/etc/passwd",
        "//media?filepath=/etc/passwd",
        "/media/?file%70ath=/etc/passwd",
    ):
        assert guarded.get(spelling).status_code == 404, spelling
    for path in (
        "/plugins/../../session.py",
        "/plugins/..%2f..%2fsession.py",
        "/..%2f..%2fapp.py",
        "/assets/..%2f..%2f..%2fapp.py",
    ):
        assert b"import" not in guarded.get(path).content, path


def test_only_loopback_names_are_answered(guarded):
    for host in ("127.0.0.1:5151", "localhost:5151", "localhost", "[::1]:5151", "127.0.0.1:9"):
        assert guarded.get("/fiftyone", headers={"host": host}).status_code == 200, host
    for host in (
        "evil.example",
        "evil.example:5151",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.1",
        "",
        "[::1",
        "a@evil",
    ):
        assert guarded.get("/fiftyone", headers={"host": host}).status_code == 403, host


def test_pages_of_other_sites_are_not_answered_and_can_show_nothing(guarded, tmp_path):
    here = "http://127.0.0.1:5151"
    assert guarded.post("/operators", json={}, headers={"origin": here}).status_code == 200
    for origin in (
        "http://evil.example",
        "http://127.0.0.1:9999",
        "https://localhost:5151",
        "null",
    ):
        assert guarded.post("/operators", json={}, headers={"origin": origin}).status_code == 403, (
            origin
        )
    for site, mode, status in (
        ("same-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("none", "navigate", 200),
    ):
        assert (
            guarded.get(
                "/fiftyone", headers={"sec-fetch-site": site, "sec-fetch-mode": mode}
            ).status_code
            == status
        )
    answer = guarded.get("/media", params={"filepath": str(tmp_path / "shown.jpg")})
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not any(name.startswith("access-control-") for name in answer.headers)


def test_without_the_token_nothing_is_answered(guarded):
    guarded.cookies.clear()
    for path in (
        "/",
        "/fiftyone",
        "/media?filepath=/etc/passwd",
        "/?token=",
        "/?token=wrong",
        "/assets/",
        "/graphql",
    ):
        assert guarded.get(path).status_code == 403, path
    assert guarded.post("/events?token=secret", json={}).status_code == 403


@needs_chromium
def test_a_view_of_mistakes_has_one_red_answer_on_each_image_and_the_maps_have_its_points(
    page, run, tmp_path
):
    table = read_browse_table(read_folder(run))
    mistakes = int((table.is_query & ~table.right("limited")).sum())
    assert 0 < mistakes < 32
    assert drawn(page) == [64, 64]
    assert set(page.evaluate(PIXELS)) == {True}
    assert "token" not in page.url
    open_view(page, "mistakes (limited)")
    page.get_by_text(f"{mistakes} of 64 images").wait_for()
    assert drawn(page) == [mistakes, mistakes]
    chips = page.locator("[data-cy=fo-grid] [data-cy^=tag-]")
    page.locator("[data-cy=tag-answer_limited]").first.wait_for()
    assert set(chips.evaluate_all("chips => chips.map(chip => chip.dataset.cy)")) == {
        "tag-answer_limited"
    }
    assert all("\N{RIGHTWARDS ARROW}" in text for text in chips.all_inner_texts())
    colours = chips.evaluate_all(
        "chips => chips.map(chip => getComputedStyle(chip).backgroundColor)"
    )
    assert set(colours) == {"rgb(179, 38, 30)"}
    screenshot(page, tmp_path / "mistakes.png")


@needs_chromium
@pytest.mark.slow
def test_a_pair_of_files_of_embeddings_opens_with_linked_maps(run, chromium, monkeypatch, tmp_path):
    """The images of the run, with its embeddings as another program would save them."""
    opened = read_folder(run)
    table = read_browse_table(opened)
    root = opened.images.root
    names = [str(Path(path).relative_to(root)) for path in table.paths]
    rows = ["path,class,split"]
    for name, label, part in zip(names, table.labels.tolist(), table.part, strict=True):
        rows.append(f"{name},{table.class_names[label]},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for phase, columns in table.phases.items():
        np.savez(tmp_path / f"{phase}.npz", embeddings=columns.embeddings, paths=np.array(names))
    unseen = ",".join(opened.summary["unseen_classes"])
    labels = ("--labels", tmp_path / "labels.csv", "--unseen", unseen, "--data-dir", root)
    app = Browsing([tmp_path / "all.npz", tmp_path / "limited.npz", *labels], tmp_path / "home")
    try:
        app.start()
        with page_at(chromium, app.url) as page:
            page.wait_for_function("window.dmlMaps?.panes?.every((pane) => pane.drawn == 64)")
            titles = page.locator(".dml .title").all_inner_texts()
            assert titles == [
                "all.npz, trained on all classes",
                "limited.npz, without the unseen classes",
            ]
            mistakes = int((table.is_query & ~table.right("limited")).sum())
            open_view(page, "mistakes (limited)")
            page.get_by_text(f"{mistakes} of 64 images").wait_for()
            page.wait_for_function(f"dmlMaps.panes.every((pane) => pane.drawn == {mistakes})")
            screenshot(page, tmp_path / "embeddings.png")
    finally:
        assert app.end() == 0, app.said
    out = tmp_path / "map.html"
    shown = (*app.shown, "--out", out, "--cache-dir", app.home / "cache")
    assert dml_bench(monkeypatch, "umap", *shown) == 0
    with html_map_at(chromium, out) as page:
        titles = page.locator("figcaption b").all_inner_texts()
        assert titles == [
            "all.npz, trained on all classes",
            "limited.npz, without the unseen classes",
        ]
        assert (
            f"● gallery images ({int((table.part == 'gallery').sum())})"
            in page.locator("#parts").inner_text()
        )
        assert "gallery image, seen class" in tip_of(page, 0)


@needs_chromium
@pytest.mark.slow
def test_enrolled_images_of_another_gallery_are_marked_in_the_grid_and_on_the_maps(
    run, chromium, monkeypatch, tmp_path
):
    write(tmp_path / "drawn", counts=[4], size=64, seed=5)
    photos, gallery = tmp_path / "photos", tmp_path / "gallery"
    photos.mkdir()
    next((tmp_path / "drawn" / "images").iterdir()).rename(photos / "009.Newcomer")
    for phase in ("all", "limited"):
        enrolled = ("--images", photos, "--gallery", gallery, "--phase", phase)
        assert dml_bench(monkeypatch, "enrol", run, *enrolled) == 0
    app = Browsing([run, "--gallery", gallery], tmp_path / "home")
    try:
        app.start()
        with page_at(chromium, app.url) as page:
            page.wait_for_function("window.dmlMaps?.panes?.every((pane) => pane.drawn == 68)")
            page.locator(".dml select").select_option("split")
            assert "enrolled 4" in page.locator(".dml .legend").inner_text()
            filter_by(page, "split", "enrolled")
            page.get_by_text("4 of 68 images").wait_for()
            page.wait_for_function("dmlMaps.panes.every((pane) => pane.drawn == 4)")
            chips = page.locator("[data-cy=fo-grid] [data-cy^=tag-]")
            page.wait_for_function(
                "document.querySelectorAll('[data-cy=fo-grid] [data-cy^=tag-]').length == 4"
            )
            assert chips.all_inner_texts() == ["Newcomer"] * 4
            upper, lower = page.evaluate(GREEN_ABOVE_AND_BELOW)
            assert lower > 1.2 * upper > 0  # a triangle: .60 of it lie below, of other shapes .50
            screenshot(page, tmp_path / "enrolled.png")
    finally:
        assert app.end() == 0, app.said
    out = tmp_path / "map.html"
    assert dml_bench(monkeypatch, "umap", run, "--gallery", gallery, "--out", out) == 0
    with html_map_at(chromium, out) as page:
        assert "▲ enrolled images (4)" in page.locator("#parts").inner_text()
        assert "009.Newcomer" in tip_of(page, 64)
        assert "enrolled image, unseen class" in tip_of(page, 64)


GREEN_ABOVE_AND_BELOW = """() => {
    const pane = dmlMaps.panes[0], ratio = pane.ratio;
    dmlMaps.rows = dmlMaps.rows.slice(0, 1);
    dmlMaps.zoom.by = 4;
    dmlMaps.draw();
    const row = dmlMaps.rows[0], [x, y] = [pane.spots[2 * row], pane.spots[2 * row + 1]];
    dmlMaps.zoom.x += (x - pane.width / 2) / pane.side;
    dmlMaps.zoom.y += (y - pane.height / 2) / pane.side;
    dmlMaps.draw();
    const across = pane.canvas.width, down = Math.round(pane.canvas.height / 2);
    const ink = pane.points.canvas.getContext("2d");
    const green = (top) => {
        const { data } = ink.getImageData(0, top, across, down);
        let count = 0;
        for (let at = 0; at < data.length; at += 4) {
            count += data[at + 1] > data[at] + 60 && data[at + 1] > data[at + 2] + 20;
        }
        return count;
    };
    return [green(0), green(down)];
}"""
"""Draws the first of the points alone, larger and in the middle of the first map, and counts the
green pixels above its middle and below."""


@needs_chromium
@pytest.mark.slow
def test_the_grid_shows_large_photos_by_small_copies_that_are_made_when_they_are_seen(
    chromium, tmp_path
):
    rng = np.random.default_rng(0)
    rows = ["path,class,split"]
    for number in range(12):
        pixels = rng.integers(0, 255, (300, 400, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", quality=95)
        rows.append(f"{number}.jpg,{'abc'[number % 3]},{'query' if number > 8 else 'gallery'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    np.savez(tmp_path / "mine.npz", embeddings=np.eye(3)[np.arange(12) % 3] + 0.1)
    shown = [tmp_path / "mine.npz", "--labels", tmp_path / "labels.csv"]
    app = Browsing(shown, tmp_path / "home")
    try:
        app.start()
        copies = tmp_path / "home" / "cache" / "thumbnails"
        assert not copies.exists()
        with page_at(chromium, app.url) as page:
            page.wait_for_function("window.dmlMaps?.panes?.[0]?.drawn == 12")
            assert page.locator(".dml select").input_value() == "label"  # all classes are seen
            page.locator("[data-cy=tag-answer_embeddings]").first.wait_for()
            while len(made := list(copies.rglob("*.jpg"))) < 12:
                page.wait_for_timeout(100)
            assert len(made) == 12
            assert {Image.open(copy).size for copy in made} == {(320, 240)}
            screenshot(page, tmp_path / "thumbnails.png")
    finally:
        assert app.end() == 0, app.said


@needs_chromium
def test_a_lasso_on_a_map_filters_the_grid_and_both_maps(page):
    lasso_the_left_half(page)
    page.wait_for_function("dmlMaps.rows?.length > 0 && dmlMaps.rows.length < 64")
    chosen = page.evaluate("dmlMaps.rows.length")
    page.get_by_text(re.compile(rf"^\s*{chosen} samples")).first.wait_for()
    page.wait_for_function("count => dmlMaps.panes.every(pane => pane.drawn == count)", arg=chosen)
    assert drawn(page) == [chosen, chosen]


@needs_chromium
def test_a_click_on_a_point_shows_its_nearest_images_with_similarities_by_both_phases(page, run):
    table = read_browse_table(read_folder(run))
    row = int(np.flatnonzero(table.is_query & ~table.right("limited"))[0])
    place = page.evaluate(
        "(row) => { const pane = dmlMaps.panes[1], box = pane.canvas.getBoundingClientRect();"
        " return [box.left + pane.spots[2 * row], box.top + pane.spots[2 * row + 1]]; }",
        row,
    )
    page.mouse.move(*place)
    page.locator(".dml .tip img").wait_for()
    page.mouse.click(*place)
    page.locator(".dml .near").nth(19).wait_for()
    chosen = page.evaluate("dmlMaps.chosen")  # of points on one place, any
    says = page.locator(".dml .detail .says").all_inner_texts()
    assert ["right" in line for line in says] == [
        bool(table.right(phase)[chosen]) and bool(table.is_query[chosen]) for phase in table.phases
    ]
    similarities = page.locator(".dml .near").all_inner_texts()
    assert len(similarities) == 20
    columns = table.phases["limited"]
    others = (table.part == "gallery") & (np.arange(64) != chosen)
    expected = np.sort((columns.embeddings @ columns.embeddings[chosen])[others])[::-1][:10]
    assert [float(text) for text in similarities[10:]] == pytest.approx(expected, abs=0.006)
    page.locator(".dml .decide button", has_text="Leave out").click()
    page.locator(".dml .decide", has_text="leave out").wait_for()
    page.locator(".dml button", has_text="Close").click()
    assert page.locator(".dml .near").count() == 0


@needs_chromium
@pytest.mark.slow
def test_the_maps_are_coloured_by_what_a_person_chooses_which_is_there_at_the_next_opening(
    page, run
):
    table = read_browse_table(read_folder(run))
    menu = page.locator(".dml select")
    menu.select_option("verdict")
    right = int((table.right("all") & table.is_query).sum())
    legend = page.locator(".dml .legend")
    assert f"right {right}" in legend.inner_text()
    wrong = page.locator(".dml .legend button", has_text="wrong").locator(".dot")
    assert wrong.evaluate("dot => getComputedStyle(dot).backgroundColor") == "rgb(217, 102, 43)"
    order = page.evaluate("dmlMaps.order")  # in which they are drawn
    assert sorted(order) == list(range(64))
    assert table.is_query[order].tolist() == sorted(table.is_query)
    verdicts = [bool(table.right("all")[row]) for row in order if table.is_query[row]]
    assert sorted(verdicts) != verdicts != sorted(verdicts, reverse=True)
    menu.select_option("label")
    page.locator(".dml input[type=search]").fill(table.class_names[3])
    page.locator(".dml input[type=search]").press("Enter")
    page.wait_for_function("dmlMaps.panes[0].drawn == 8")
    page.reload(wait_until="domcontentloaded")
    page.wait_for_function("window.dmlMaps?.panes?.[0]?.drawn == 8")
    assert page.locator(".dml select").input_value() == "label"


@pytest.mark.slow
def test_ctrl_c_ends_the_app_which_leaves_nothing_behind_and_its_database_can_be_forgotten(
    app, run
):
    port, token = app.port, app.url.partition("?token=")[2]
    assert app.end() == 0, app.said
    assert "Traceback" not in app.said
    assert re.search(r"^ready after \d+ s$", app.said, re.MULTILINE), app.said
    assert f"From another machine: ssh -N -L {port}:127.0.0.1:{port} " in app.said
    assert f"then open http://localhost:{port}/?token={token} there. Ctrl-C ends." in app.said
    assert not (app.home / "fiftyone").exists()
    assert not [path for path in (app.home / ".fiftyone").rglob("*") if path.is_file()]
    assert forget(BrowsedRun(read_folder(run)), app.home / "cache")
    assert not (app.home / "cache" / "browse" / BrowsedRun(read_folder(run)).name).exists()


@needs_chromium
def test_the_page_shows_each_image_and_its_answers_where_it_is_pointed_at(run, chromium, tmp_path):
    images = read_browse_table(read_folder(run))
    write_html_map(tmp_path / "map.html", images, images.maps(), [], lambda *at: None)
    with html_map_at(chromium, tmp_path / "map.html") as page:
        tip = tip_of(page, 60)
        shown = page.evaluate("pointed")
        assert Path(images.paths[shown]).name in tip
        assert "trained without the unseen classes: " in tip
        assert page.locator("#tip .thumb").count() == (3 if images.is_query[shown] else 1)
        page.mouse.down()
        page.mouse.up()
        assert page.evaluate("[...chosen]") == [int(images.labels[shown])]
        page.locator("#mode").select_option("right or wrong")
        assert "right" in page.locator("#legend").inner_text()
        notes = page.locator("figcaption").all_inner_texts()
        assert all("hubness" in text and "\N{PLUS-MINUS SIGN}" in text for text in notes)
        said = page.evaluate(SHAPES)
        assert said["kind"] == "WebGL2RenderingContext"
        # opacity is multiplied into colours
        dot, diamond, triangle = [200, 0, 0, 255], [0, 160, 0, 255], [0, 0, 110, 128]
        assert said["card"] == [dot, diamond, triangle, [9, 9, 9, 255]]
        shown, on_canvas = np.array([said["shown"], said["byCanvas"]], float).reshape(2, 50, 200, 4)
        assert np.abs(shown - on_canvas)[..., 3].max() < 80  # edges are smoothed in other ways
        assert np.abs(shown - on_canvas)[..., 3].mean() < 0.04 * on_canvas[..., 3].mean()
        assert said["renewed"]
        assert said["again"] == said["shown"]
        screenshot(page, tmp_path / "map.png")
