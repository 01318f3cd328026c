"""New classes among photos that a gallery doesn't know: proposed, decided on a page, enrolled; and
measured on held-out classes."""

import csv
import html
import json
import re
import shutil
import subprocess
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from chromium import CHROMIUM, needs_chromium
from PIL import Image
from steps import Steps
from tiny import dml_bench, refusal

import dml_bench as db
from dml_bench.browse.proposals import PAGE, TABLE
from dml_bench.gallery import discover
from dml_bench.gallery.calibration import HeldOutQueries
from dml_bench.gallery.discover import NoLink, chosen_link, never_trained_on
from dml_bench.gallery.discovery_format import short
from dml_bench.gallery.discovery_measure import measure_discovery, without
from dml_bench.gallery.embedder import Embedded
from dml_bench.gallery.predict import AppliedThreshold
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, run_gallery
from dml_bench.runs.run import open_run

VALIDATED = ("data.valid_fraction=0.4", "train.epochs=1")


@pytest.fixture(scope="module")
def finished(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes that the run does not know, of four nearly equal photos each."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name, colour in (("red", (200, 30, 30)), ("blue, dark", (20, 30, 160))):
        (folder / name).mkdir()
        for number in range(4):
            pixels = np.full((40, 40, 3), colour) + rng.integers(-9, 9, (40, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def discovered(finished, photos, tmp_path_factory) -> db.DiscoveredClasses:
    out = tmp_path_factory.mktemp("discovered") / "proposals"
    return db.discover(
        finished,
        photos,
        out,
        threshold=2.0,
        by="linkage",
        link=0.99,
        labelled=True,
        device="cpu",
    )


def test_a_class_of_thousands_of_photos_is_proposed_without_a_list_of_their_pairs():
    vectors = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = [Path(f"{number}.jpg") for number in range(len(vectors))]
    embedded = Embedded(tuple(photos), vectors, vectors, (), 0.0)
    tracemalloc.start()
    (proposal,) = discover.discover(
        Gallery((GalleryImage("auk", "/auk.jpg", "", "run"),), vectors[:1]),
        SimpleNamespace(embed=lambda photos, progress: embedded),
        photos,
        threshold=AppliedThreshold(value=2.0),
        clusterer=SimpleNamespace(clusters=lambda vectors: np.zeros(len(vectors), int)),
    ).proposals
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(proposal.photos) == 3000
    similarities = vectors.astype(float) @ vectors.T.astype(float)
    assert proposal.similarity == pytest.approx(
        similarities[np.triu_indices(3000, 1)].mean(), abs=1e-6
    )
    assert peak < 20e6


def test_photos_of_two_new_classes_are_two_proposals(discovered):
    proposals = discovered.discovery.proposals
    first, second = proposals
    assert len({photo.parent for photo in first.photos}) == 1
    assert len({photo.parent for photo in second.photos}) == 1
    assert first.photos[0].parent != second.photos[0].parent
    assert discovered.discovery.known == 0
    assert discovered.discovery.others == ()
    labelled = discovered.discovery.labelled
    assert (labelled.new_photos, labelled.rejected, labelled.new_share) == (8, 1, 1)
    assert labelled.agreement.ari.estimate == 1


def test_classes_whose_names_look_the_same_are_one_and_may_be_the_gallerys():
    vectors = np.eye(4, dtype=np.float32)
    photos = [Path(f"{number}.jpg") for number in range(4)]
    names = ["pâté", "pa\u0302te\u0301", "crème", "cre\u0300me"]
    labelled = discover.discover(
        Gallery((GalleryImage("cre\u0300me", "/0.jpg", "", "run"),), vectors[:1]),
        SimpleNamespace(
            embed=lambda photos, progress: Embedded(tuple(photos), vectors, vectors, (), 0.0)
        ),
        photos,
        threshold=AppliedThreshold(value=2.0),
        clusterer=SimpleNamespace(clusters=lambda vectors: np.array([0, 0, 1, 1])),
        labels=dict(zip(photos, names, strict=True)),
    ).labelled
    assert labelled.new_photos == 2
    assert labelled.agreement.ari.estimate == 1


def test_the_table_lists_each_unknown_photo_with_its_proposal(discovered):
    with open(discovered.page.with_name(TABLE), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["proposal"] for row in rows} == {"1", "2"}


def test_what_is_printed_says_how_photos_became_proposals(discovered):
    text = str(discovered)
    assert "8 photos: 0 known, 8 unknown (similarity below 2.000)" in text
    assert "2 proposed classes with 8 photos; 0 unknown photos in none" in text
    assert "average linkage, links from a similarity of 0.990 on" in text
    assert "ARI 1.00" in text
    assert "--images decisions.csv" in text


def test_photos_that_the_gallery_knows_are_left_alone(finished, photos, tmp_path):
    classes = db.discover(finished, photos, tmp_path / "out", threshold=-1.0, device="cpu")
    assert (classes.discovery.known, classes.discovery.photos) == (8, ())
    assert (tmp_path / "out" / PAGE).exists()


SCRIPT = """<script>
const said = {};
const press = (box, text) =>
  [...box.querySelectorAll("button")].find(button => button.textContent === text).click();
const box = number => document.getElementById(`box-${number}`);
const name = (number, text) => {
  const field = box(number).querySelector("input");
  field.value = text;
  field.onchange();
};
said.summary = document.getElementById("summary").textContent;
said.unsaved = document.getElementById("save").disabled;
press(box(1), "Accept");
said.nameless = document.getElementById("counts").textContent;
name(1, 'a "new" bird');
press(box(1), "Accept");
box(1).querySelector(".photo").click();
press(box(2), "Drop");
said.counts = document.getElementById("counts").textContent;
said.decisions = table();
press(box(2), "Change");
const merge = box(2).querySelector("select"); merge.value = "1"; merge.onchange();
said.merged = [document.querySelectorAll("article").length, table().trim().split("\\n").length];
document.getElementById("undo").click();
said.undone = document.querySelectorAll("article").length;
document.body.dataset.said = JSON.stringify(said);
</script></body>"""


@needs_chromium
def test_in_a_browser_a_person_decides_and_the_saved_table_enrols_what_was_accepted(
    discovered, finished, tmp_path, monkeypatch, capsys
):
    page = tmp_path / "page.html"
    text = discovered.page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", SCRIPT), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    command = [CHROMIUM, *flags, page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', ended.stdout)[1]))
    assert said["summary"] == "8 unknown photos; 8 photos in 2 boxes"
    assert said["unsaved"] is True
    assert said["nameless"] == "Box 1 needs a name."
    assert said["counts"] == "1 box accepted (3 photos), 1 dropped, 0 undecided"
    assert said["merged"] == [1, 8]  # seven photos below the head: one was left out
    assert said["undone"] == 2

    run = Path(shutil.copytree(finished, tmp_path / "runs" / "experiment" / "birds" / "seed-42"))
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(said["decisions"], encoding="utf-8")
    assert dml_bench(monkeypatch, "enrol", run, "--images", decisions) == 0
    assert 'enrolled 3 images of 1 class (1 new: a "new" bird)' in capsys.readouterr().out
    accepted = discovered.discovery.proposals[0].photos
    answers = db.Gallery(run, device="cpu").predict(accepted[0], k=1)
    assert answers[0].class_name == 'a "new" bird'


def test_a_photo_that_was_changed_since_the_decision_is_not_enrolled(
    finished, photos, tmp_path, monkeypatch, capsys
):
    photo = Path(shutil.copy(photos / "red" / "0.png", tmp_path))
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(f"path,class,sha256\n{photo},red,{'0' * 64}\n")
    line = refusal(monkeypatch, capsys, "enrol", finished, "--images", decisions)
    assert "line 2" in line
    assert "was changed since the table was made" in line


def test_with_too_few_images_for_a_link_clusters_are_those_of_hdbscan_and_that_is_said(
    finished, photos, tmp_path
):
    classes = db.discover(finished, photos, tmp_path / "out", threshold=2.0, device="cpu")
    assert classes.discovery.clusterer.method == "hdbscan"
    assert "at least 100 pairs of images of one class" in str(classes)
    with pytest.raises(ValueError, match="--by graph needs --link"):
        db.discover(finished, photos, tmp_path / "out", threshold=2.0, by="graph", device="cpu")


def test_a_link_is_chosen_on_validation_images_without_those_of_held_out_classes(
    trained, monkeypatch
):
    monkeypatch.setattr(discover, "FEWEST_PAIRS", 1)
    monkeypatch.setitem(discover.PURITIES, "linkage", 0.1)
    run = open_run(trained(*VALIDATED).folder)
    held_out = run.protocol.held_out(run.summary)["limited"]
    gallery = without(run_gallery(run, "limited"), held_out)
    chosen_on = never_trained_on(run, "limited", gallery)
    images = chosen_on.images
    assert set(images.names).isdisjoint(held_out)
    validation = {image.path for image in run.split if image.part == "valid"}
    assert 0 < len(images.labels) < len(validation)
    assert not chosen_on.are_queries.any()
    measure = measure_discovery(GalleryFile(run, "limited"))
    assert measure.links["linkage"] == chosen_link(images, "linkage")


def test_without_validation_images_half_of_the_known_classes_choose_a_link_and_are_not_clustered(
    finished, monkeypatch
):
    monkeypatch.setattr(discover, "FEWEST_PAIRS", 3)
    monkeypatch.setitem(discover.PURITIES, "linkage", 0.1)
    run = open_run(finished)
    held_out = run.protocol.held_out(run.summary)["limited"]
    gallery = without(run_gallery(run, "limited"), held_out)
    chosen_on = never_trained_on(run, "limited", gallery, half=True)
    images = run.embeddings("limited").query_images
    names = np.array([run.split[image].class_name for image in images])
    known = set(names.tolist()) - set(held_out)
    choose, others = set(names[chosen_on.are_queries]), set(names[~chosen_on.are_queries])
    assert choose < known
    assert len(choose) == len(known) / 2
    assert choose.isdisjoint(others)
    assert (
        never_trained_on(run, "limited", gallery).are_queries.sum()
        == np.isin(names, [*known]).sum()
    )
    measure = measure_discovery(GalleryFile(run, "limited"), threshold=2.0)
    assert measure.links["linkage"] == chosen_link(chosen_on.images, "linkage")
    assert measure.rejected.images == len(images) - chosen_on.are_queries.sum()
    assert measure.labelled.rejected == 1
    assert measure.labelled.new_share == pytest.approx(np.isin(names, held_out).mean())
    assert measure.labelled.agreement is None, "each way has its own"


def test_classes_that_are_too_similar_for_a_link_are_said_to_be_so():
    rows = np.arange(40)
    images = HeldOutQueries(np.eye(40, dtype=np.float32)[rows // 2], rows % 2, rows, rows % 2, rows)
    with pytest.raises(NoLink, match="at no similarity are 90% of the pairs"):
        chosen_link(images, "graph")


def test_held_out_classes_are_looked_for_among_the_test_images(finished):
    run = open_run(finished)
    steps = Steps()
    measure = db.measure_discovery(run, threshold=2.0, callback=steps).measure
    ways = len(measure.alone.agreements)
    assert steps.last == {
        "choosing links": (2, 2),
        "clustering held-out classes": (ways, ways),
        "clustering what is unknown": (ways, ways),
    }
    held_out = run.protocol.held_out(run.summary)["limited"]
    assert measure.phase == "limited"
    assert list(measure.held_out) == held_out
    queries = [run.split[image].class_name for image in run.embeddings("limited").query_images]
    assert measure.alone.images == sum(name in held_out for name in queries)
    assert measure.rejected.images == len(queries)
    assert measure.labelled.rejected == 1
    known = measure.alone.agreements["ward_known"]
    assert known.clusters == known.classes == 2
    assert "linkage" not in measure.alone.agreements


def test_a_measure_is_a_table_and_json(finished, monkeypatch, capsys):
    assert dml_bench(monkeypatch, "discover", finished, "--measure", "--threshold", "0.999") == 0
    text = capsys.readouterr().out
    assert "Ward, number of classes known" in text
    assert "test images that the threshold 0.999 rejects" in text
    assert dml_bench(monkeypatch, "discover", finished, "--measure", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value["alone"]["ways"]) == {"hdbscan", "ward_estimated", "ward_known"}
    assert value["rejected"] is None


def test_a_threshold_of_1_takes_all_but_copies(finished, photos, tmp_path):
    run = open_run(finished)
    copies = [Path(entry.path) for entry in run_gallery(run, "all").entries]
    ask = partial(db.discover, run, by="hdbscan", device="cpu")
    classes = ask([*copies, photos], tmp_path / "out", threshold=1.0)
    assert (classes.discovery.known, len(classes.discovery.photos)) == (len(copies), 8)
    assert ask(copies, tmp_path / "out", threshold=2.0).discovery.known == 0


def test_what_is_not_there_is_no_number(finished, photos, tmp_path):
    for threshold, ending in (
        (-1.0, "of new classes the threshold rejects 0%"),
        (2.0, "2 classes"),
    ):
        classes = db.discover(
            finished,
            photos,
            tmp_path / "out",
            threshold=threshold,
            by="hdbscan",
            fewest=9,
            labelled=True,
            device="cpu",
        )
        assert str(classes).splitlines()[-3].endswith(ending)
    measured = str(db.measure_discovery(finished, threshold=-1.0))
    assert "nan" not in measured
    assert "of what it rejects" not in measured
    assert [short(value) for value in (-1e-9, -0.32, 0.5, 1.0)] == [".00", "-.32", ".50", "1.00"]


def test_mistakes_are_one_line(finished, photos, tmp_path, monkeypatch, capsys):
    def line(*arguments: object) -> str:
        return refusal(monkeypatch, capsys, "discover", finished, *arguments)

    assert "give --precision, e.g. 0.9, or --threshold" in line("--images", photos)
    assert "give one of them" in line()
    assert "give one of them" in line("--measure", "--images", photos)
    assert "no held-out classes: use --phase, one of: limited" in line(
        "--measure", "--phase", "all"
    )
    both = ("--threshold", "0.5", "--precision", "0.9")
    assert "threshold and precision both" in line("--images", photos, *both)
    (tmp_path / "notes.txt").touch()
    mine = ("--images", photos, "--threshold", "1", "--out", tmp_path)
    assert "holds notes.txt, which is no proposal" in line(*mine)
    here = ("--images", photos, "--threshold", "1", "--out", tmp_path / "out")
    assert "--fewest must be at least 2" in line(*here, "--fewest", "1")
    assert "leave it out" in line(*here, "--by", "hdbscan", "--link", "0.5")
