"""An acknowledged enrolment costs what its images cost: the gallery's file stays, vectors are not
copied, and the threshold is chosen anew afterwards."""

import io
import re
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_here import running

import dml_bench as db
from dml_bench.evaluation.search import flat_index, nearest
from dml_bench.evaluation.thresholds import SearchOutcomes, precision_curve
from dml_bench.gallery.predict import AppliedThreshold
from dml_bench.gallery.store import Gallery, GalleryImage
from dml_bench.serve import recalibration
from dml_bench.serve.growing import GrowingVectors, SearchInPlace, extended
from dml_bench.serve.served_gallery import Calibration, ServedGallery


def photo(number: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (24, 24), (number, 7 * number % 256, 0)).save(content, "PNG")
    return content.getvalue()


def enrol(client: httpx.Client, number: int) -> None:
    files = [("images", photo(number))]
    response = client.post("/enrol", data={"class": f"new {number}"}, files=files)
    assert response.json()["enrolled"] == 1, response.text


def test_the_file_stays_until_the_server_ends_and_the_threshold_follows(trained, tmp_path):
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    folder = tmp_path / "gallery"
    file, journal = folder / "all.safetensors", folder / "all.journal"
    with running(run, folder) as client:
        enrol(client, 1)
        written = file.read_bytes()
        assert not journal.exists(), "there was no file yet"
        for number in range(2, 5):
            enrol(client, number)
        assert file.read_bytes() == written
        assert journal.stat().st_size > 0
        now = db.Gallery(run, folder=folder).class_names
        assert {f"new {number}" for number in range(1, 5)} <= set(now)
        images = len(client.get("/classes").json()["classes"])
        assert images == len(now)
        deadline = time.monotonic() + 30
        while calibrated_at(client) < client.get("/gallery").json()["images"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not journal.exists()
    assert set(db.Gallery(run, folder=folder).class_names) == set(now)


def calibrated_at(client: httpx.Client) -> float:
    metrics = client.get("/metrics").text
    return float(re.search(r"^dml_bench_threshold_images (\S+)", metrics, re.MULTILINE)[1])


def test_many_changes_are_one_choice_of_a_threshold(monkeypatch):
    """Changes that never leave a quiet moment, by a clock that only this test turns."""
    now, chosen, published = [0.0], [], threading.Event()
    monkeypatch.setattr(recalibration, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(recalibration, "QUIET_SECONDS", 600)

    def publish(size: object) -> None:
        chosen.append(size)
        published.set()

    choices = recalibration.Recalibration(lambda gallery: len(gallery.entries), publish)
    for size in range(1, 5):
        choices.changed(gallery_of(size))
        while choices._changed.is_set():  # until it is heard
            time.sleep(0.001)
    assert chosen == []
    now[0] = recalibration.LONGEST_SECONDS
    choices.changed(gallery_of(5))
    assert published.wait(60)
    choices.close()
    assert chosen == [5]


def gallery_of(size: int) -> Gallery:
    vectors = np.random.default_rng(1).normal(size=(size, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    entries = (
        GalleryImage(f"class {row % 7}", f"{row}.png", "", "enrolled") for row in range(size)
    )
    return Gallery(tuple(entries), vectors)


def test_a_confidence_rests_on_twenty_calibration_images():
    similarity = np.linspace(1, 0.5, 40)
    right = np.arange(40) % 10 > 0
    curve = precision_curve(SearchOutcomes(similarity, right))
    threshold = AppliedThreshold(value=0.5)
    served = ServedGallery(Gallery((), np.empty((0, 2))), Calibration(None, threshold, "", curve))
    assert served.confidence(similarity[18]) is None
    assert served.confidence(similarity[19]) == pytest.approx(0.9)
    assert served.confidence(2.0) is None


@pytest.mark.parametrize("name", ["class 3", "another", "class 31"])
def test_a_gallery_that_grows_is_the_one_that_is_joined(name):
    gallery = gallery_of(20)
    vectors = GrowingVectors(gallery.embeddings)
    for number in range(5):
        entries = (GalleryImage(name, f"{name} {number}.png", "", "enrolled"),)
        more = gallery_of(30).embeddings[20 + number : 21 + number]
        joined = gallery.joined(entries, more)
        before = gallery.embeddings.copy()
        grown = extended(gallery, entries, vectors.with_more(more))
        np.testing.assert_array_equal(gallery.embeddings, before)
        np.testing.assert_array_equal(grown.embeddings, joined.embeddings)
        np.testing.assert_array_equal(grown.labels, joined.labels)
        assert (grown.entries, grown.class_names) == (joined.entries, joined.class_names)
        gallery = grown


def test_vectors_are_found_where_they_lie_as_in_an_index_also_where_they_are_copies():
    vectors = np.repeat(gallery_of(12).embeddings, 5, axis=0)
    query = gallery_of(40).embeddings[:30]
    expected = nearest(flat_index(vectors), query, 7, len(vectors))
    in_place = nearest(SearchInPlace(vectors), query, 7, len(vectors))
    for mine, theirs in zip(in_place, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_kept_index_follows_without_being_built_anew(trained, tmp_path):
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    folder = tmp_path / "gallery"
    with running(run, folder) as client:
        enrol(client, 1)
    shown: list[str] = []

    def look_up() -> db.Gallery:
        callback = Noted(shown)
        gallery = db.Gallery(run, folder=folder, device="cpu", callback=callback)
        gallery.predict(picture, index="sq8")
        return gallery

    picture = tmp_path / "2.png"
    picture.write_bytes(photo(2))
    look_up()
    with running(run, folder) as client:
        enrol(client, 2)
        enrol(client, 3)
        deadline = time.monotonic() + 30
        while (folder / "all.journal").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        look_up()
    built = [line for line in shown if "building index" in line]
    assert len(built) == 1, shown


class Noted(db.Callback):
    """Keeps what is said."""

    def __init__(self, said: list[str]):
        self.said = said

    def note(self, text: str) -> None:
        self.said.append(text)
