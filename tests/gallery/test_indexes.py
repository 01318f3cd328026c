"""Indexes of large galleries: what is approximate says what it misses, and a kept one answers as
one built anew."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import faiss

# as pytorch-metric-learning does, which puts other methods in place of FAISS's
import faiss.contrib.torch_utils
import numpy as np
import pytest
from forked import in_fork
from handmade import experiment, finish
from tiny import dml_bench, refusal

from dml_bench.evaluation.search import search
from dml_bench.gallery import index_store
from dml_bench.gallery.index_recall import RecallQueries, recalls, sample_of_gallery, wilson
from dml_bench.gallery.index_store import (
    OpenIndex,
    build_index,
    catch_up,
    index_file,
    open_or_build,
    step_between,
    update_indexes,
)
from dml_bench.gallery.indexes import advice, build, open_mapped, parse
from dml_bench.gallery.store import (
    Gallery,
    GalleryFile,
    GalleryImage,
    GalleryIsBusy,
    open_gallery_file,
)
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.runs.run import read_folder
from dml_bench.system.files import read_json

CLASSES, IMAGES, DIM = 60, 20, 32
KINDS = [
    "flat",
    "sq8",
    "hnsw",
    "ivf:nlist=16,nprobe=4",
    "ivfpq:nlist=8,nprobe=4,m=8,bits=6",
    "ivfpq:nlist=8,m=8,bits=6,k_factor=0",
]
APPROXIMATE = KINDS[1:]
ROUGH = "ivf:nlist=64,nprobe=1"
"""Misses much."""


def clustered(images: int, seed: int, classes: int = CLASSES) -> np.ndarray:
    """(classes * images, DIM) unit vectors around the same centres, whatever the seed."""
    centres = np.random.default_rng(0).normal(size=(classes, 1, DIM))
    vectors = (centres + np.random.default_rng(seed).normal(size=(classes, images, DIM))).reshape(
        -1, DIM
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(embeddings: np.ndarray, classes: int = CLASSES) -> Gallery:
    names = np.repeat(np.arange(classes), len(embeddings) // classes)
    return Gallery(
        tuple(
            GalleryImage(f"class {name:02}", f"{row}.jpg", "", "enrolled")
            for row, name in enumerate(names)
        ),
        embeddings,
    )


GALLERY = gallery_of(clustered(IMAGES, seed=1))
QUERY = clustered(2, seed=2)


def queries() -> RecallQueries:
    return RecallQueries(QUERY, np.full(len(QUERY), -1), "queries of this test")


@pytest.fixture
def place(tmp_path) -> GalleryFile:
    return GalleryFile(
        finish(
            tmp_path,
            experiment(),
            {phase: [[1], [1], [1]] for phase in ("all", "limited")},
            unseen=1,
        ),
        "all",
    )


class Opener:
    """Opens kept indexes, and remembers what was said."""

    def __init__(self, place: GalleryFile):
        self.place = place
        self.said: list[str] = []

    def __call__(self, kind: str, gallery: Gallery = GALLERY) -> OpenIndex:
        return open_or_build(self.place, gallery, parse(kind), queries, self.said.append)


@pytest.fixture
def look_into(place) -> Opener:
    return Opener(place)


# What is found


def test_flat_answers_as_the_exact_search_also_where_images_are_copies(look_into):
    copied = np.repeat(GALLERY.embeddings[::2], 2, axis=0)
    gallery = gallery_of(copied)
    labels = np.zeros(len(QUERY), np.int64)
    exact = search(copied, QUERY, gallery.labels, labels, 3)
    neighbours = look_into("flat", gallery).search(gallery, QUERY, labels, 3)
    assert neighbours.indices.tolist() == exact.indices.tolist()
    assert neighbours.similarities.tolist() == exact.similarities.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_index_answers_as_one_in_memory(tmp_path, kind):
    open_index = build_index(tmp_path / "a.faiss", GALLERY, parse(kind), queries)
    in_memory = faiss.read_index(str(tmp_path / "a.faiss"))
    similarities, rows = open_index.index.search(QUERY, 10)
    assert (similarities.tolist(), rows.tolist()) == tuple(
        part.tolist() for part in in_memory.search(QUERY, 10)
    )


ANONYMOUS = """
import sys
import faiss
import faiss.contrib.torch_utils  # as pytorch-metric-learning does: it replaces FAISS's methods
from pathlib import Path
from dml_bench.gallery.indexes import open_mapped

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

opened = []
for path in sys.argv[1:]:
    for way in (open_mapped, lambda path: faiss.read_index(str(path))):
        before = anonymous()
        opened.append(way(Path(path)))
        print(1024 * (anonymous() - before) / Path(path).stat().st_size)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's account of memory"
)
def test_all_kinds_stay_in_the_file_when_they_are_opened(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40000, 32)).astype(np.float32)
    kinds = [
        "flat",
        "sq8",
        "hnsw:M=8,efConstruction=8",
        "ivf:nlist=8",
        "ivfpq:nlist=8,m=16,bits=4",
        "ivfpq:nlist=8,m=32,bits=4,k_factor=0",
    ]
    files = [tmp_path / f"{number}.faiss" for number in range(len(kinds))]
    for kind, file in zip(kinds, files, strict=True):
        faiss.write_index(build(parse(kind).plan(*vectors.shape), vectors), str(file))
    finished = subprocess.run(
        [sys.executable, "-c", ANONYMOUS, *map(str, files)],
        env={**os.environ, "GLIBC_TUNABLES": ""},  # large pages hold more than was asked for
        capture_output=True,
        text=True,
        check=True,
    )
    parts = [float(line) for line in finished.stdout.split()]
    assert {
        kind: part < 0.25 for kind, part in zip(kinds, parts[::2], strict=True)
    } == dict.fromkeys(kinds, True), parts
    assert min(parts[1::2]) > 0.5, parts


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_give_the_same_file_whatever_the_threads(tmp_path, kind):
    threads = faiss.omp_get_max_threads()
    build_index(tmp_path / "a.faiss", GALLERY, parse(kind), queries)
    faiss.omp_set_num_threads(threads + 1)
    try:
        build_index(tmp_path / "b.faiss", GALLERY, parse(kind), queries)
        assert faiss.omp_get_max_threads() == threads + 1
    finally:
        faiss.omp_set_num_threads(threads)
    assert (tmp_path / "a.faiss").read_bytes() == (tmp_path / "b.faiss").read_bytes()


def test_where_the_cells_looked_into_hold_too_few_images_all_are_compared(look_into):
    rows = look_into(ROUGH).find(QUERY, 200)[1]
    assert (rows >= 0).all()
    assert all(len(set(row)) == 200 for row in rows.tolist())
    exact = np.argsort(-(QUERY @ GALLERY.embeddings.T), axis=1)[:, :200]
    assert [set(row) for row in rows.tolist()] == [set(row) for row in exact.tolist()]


# What is missed


@pytest.mark.parametrize("kind", [*APPROXIMATE, ROUGH])
def test_the_recall_told_is_the_one_computed_by_hand(look_into, kind):
    open_index = look_into(kind)
    _, rows = open_index.find(QUERY, 10)
    exact = np.argsort(-(QUERY @ GALLERY.embeddings.T), axis=1)
    hits = [
        len(set(approximate) & set(truth)) / 10
        for approximate, truth in zip(rows.tolist(), exact[:, :10].tolist(), strict=True)
    ]
    assert open_index.measured.queries == 120
    assert open_index.measured.recall_at_1.value == pytest.approx(
        np.mean(rows[:, 0] == exact[:, 0]), abs=1e-9
    )
    assert open_index.measured.recall_at_10.value == pytest.approx(np.mean(hits), abs=1e-9)
    assert f"recall@1 {open_index.measured.recall_at_1.value:.3f} (" in open_index.describe()


def test_a_rough_index_misses_some_and_more_cells_miss_fewer_without_building_anew(look_into):
    rough = look_into(ROUGH)
    assert len(look_into.said) == 1
    fine = look_into("ivf:nlist=64,nprobe=64")
    assert len(look_into.said) == 1
    assert rough.measured.recall_at_10.value < 0.9
    assert fine.measured.recall_at_10.value == 1.0
    assert len(list(index_file(look_into.place, rough.spec).parent.glob("*.faiss"))) == 1


def test_as_many_cells_are_searched_as_the_goal_needs_and_no_more_than_help(look_into):
    scattered = gallery_of(clustered(1, seed=1, classes=1200), classes=1200)

    def opened(kind: str) -> OpenIndex:
        return look_into(kind, scattered)

    few, enough = opened("ivf:nlist=300,nprobe=8"), opened("ivf:nlist=300")
    assert few.measured.recall_at_1.value < 0.9
    assert enough.measured.recall_at_1.value >= 0.95
    assert 8 < enough.plan.parameters["nprobe"] < 300
    assert opened("ivf:nlist=300").plan == enough.plan
    assert opened("ivf:nlist=300,nprobe=8").plan == few.plan
    assert len(look_into.said) == 1, "the number of cells is no part of the file"
    coarse = opened("ivfpq:nlist=300,m=4,bits=2,k_factor=0")
    assert coarse.measured.recall_at_1.value < 0.95
    assert coarse.plan.parameters["nprobe"] < 300, "more cells don't help codes of one byte"


def test_codes_are_of_rotated_vectors(tmp_path):
    """Where few directions hold most of the variance, a rotation shares them among the codes."""
    stretched = GALLERY.embeddings * np.geomspace(1, 0.01, DIM).astype(np.float32)
    gallery = gallery_of(stretched / np.linalg.norm(stretched, axis=1, keepdims=True))
    spec = parse("ivfpq:nlist=8,nprobe=8,m=8,bits=4,k_factor=0")
    rotated = build_index(
        tmp_path / "a.faiss", gallery, spec, lambda: sample_of_gallery(gallery.embeddings)
    )
    plan = spec.plan(*gallery.embeddings.shape)
    straight = build(replace(plan, factory=plan.factory.partition(",")[2]), gallery.embeddings)
    exact = (gallery.embeddings @ gallery.embeddings.T).argsort(1)[:, -2]
    shares = []
    for index in (straight, rotated.index):
        rows = index.search(gallery.embeddings, 20)[1]
        shares.append((rows == exact[:, None]).any(1).mean())
    assert shares[1] > shares[0] + 0.1


def test_the_interval_is_wilson_s():
    assert (wilson(0.9, 10).low, wilson(0.9, 10).high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert (wilson(1.0, 100).low, wilson(1.0, 100).high) == pytest.approx((0.9630, 1.0), abs=1e-4)


def test_a_copy_of_the_nearest_image_is_as_good_as_itself():
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    query = np.array([[1, 0]], np.float32)
    truth = np.array([[0, 1, 2]])
    assert recalls(embeddings, query, truth, np.array([[1, 2, 3]]), 1).tolist() == [1.0]
    assert recalls(embeddings, query, truth, np.array([[2, 1, 3]]), 1).tolist() == [0.0]
    assert recalls(embeddings, query, truth, np.array([[1, 3, 2]]), 2).tolist() == [0.5]


def test_images_of_the_gallery_that_are_asked_are_left_out_of_their_own_look_ups(tmp_path):
    open_index = build_index(
        tmp_path / "a.faiss",
        GALLERY,
        parse("ivf:nlist=16,nprobe=1"),
        lambda: sample_of_gallery(GALLERY.embeddings),
    )
    rows = sample_of_gallery(GALLERY.embeddings).own_rows
    similarity = GALLERY.embeddings[rows] @ GALLERY.embeddings.T
    similarity[np.arange(len(rows)), rows] = -2
    nearest = open_index.find(GALLERY.embeddings[rows], 2)[1]
    first, second = nearest.T
    others = np.where(first == rows, second, first)
    assert open_index.measured.queries == 1000
    assert open_index.measured.recall_at_1.value == pytest.approx(
        np.mean(similarity.argmax(1) == others), abs=1e-9
    )
    assert open_index.measured.recall_at_1.value < 1
    assert "1,000 images of the gallery, each left out of its own search" in open_index.describe()


def test_bytes_and_errors_of_compressed_images_are_told(tmp_path):
    uncompressed, refined, codes = (
        build_index(tmp_path / "a.faiss", GALLERY, parse(kind), queries)
        for kind in ("hnsw", "ivfpq:nlist=8,m=8", "ivfpq:nlist=8,m=8,k_factor=0")
    )
    assert uncompressed.measured.exact_bytes == 1200 * 32 * 4
    assert codes.measured.bytes < refined.measured.bytes < uncompressed.measured.exact_bytes
    assert codes.measured.recall_at_1.value < refined.measured.recall_at_1.value
    assert 1e-5 < refined.measured.similarity_max_error < 0.01
    assert codes.measured.similarity_max_error > 0.01
    for compressed in (codes, refined):
        assert "similarities are off by up to 0." in compressed.describe()
    assert "similarities are off" not in uncompressed.describe()


# What is kept


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_an_index_is_built_once(look_into, kind):
    first = look_into(kind)
    file = index_file(look_into.place, first.spec)
    written = file.stat().st_mtime_ns
    again = look_into(kind)
    assert file.stat().st_mtime_ns == written
    assert look_into.said == [f"building index {kind} of 1,200 images"]
    assert again.measured == first.measured


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("harm", [damaged, cut_off, removed])
def test_a_damaged_index_is_built_anew_and_that_is_said_in_a_line(look_into, harm):
    choice = look_into("flat").spec
    harm(index_file(look_into.place, choice))
    rows = look_into("flat").find(GALLERY.embeddings, 1)[1]
    assert look_into.said[1:] == [
        "building index flat of 1,200 images, because flat.faiss is damaged"
    ]
    assert rows[:, 0].tolist() == list(range(1200))


def test_an_index_whose_record_can_not_be_read_is_built_anew(look_into):
    choice = look_into("flat").spec
    index_file(look_into.place, choice).with_suffix(".json").write_text("{")
    look_into("flat")
    assert look_into.said[1:] == ["building index flat of 1,200 images"]


def test_an_index_of_other_embeddings_is_built_anew_and_that_is_said_in_a_line(look_into):
    look_into("flat")
    other = gallery_of(clustered(IMAGES, seed=3))
    rows = look_into("flat", other).find(other.embeddings, 1)[1]
    assert look_into.said[1:] == [
        "building index flat of 1,200 images, because flat.faiss is of another gallery"
    ]
    assert rows[:, 0].tolist() == list(range(1200))


def followed_by(
    place: GalleryFile, before: Gallery, kept: np.ndarray, after: Gallery
) -> tuple[str, ...]:
    """The names of the indexes that went along when the gallery changed."""
    step = step_between(place, before, kept, after)
    return update_indexes(place, step, after) if step else ()


def enlarged(gallery: Gallery, images: int) -> tuple[Gallery, np.ndarray]:
    """The gallery with classes 3 and 7 removed, 4 renamed, new images of class 3, 5 and two new
    classes, and which rows of it are kept."""
    new = clustered(images, seed=5, classes=CLASSES + 2).reshape(CLASSES + 2, images, DIM)
    kept = np.array([entry.class_name not in {"class 03", "class 07"} for entry in gallery.entries])
    changed = gallery.removed("class 03").removed("class 07").renamed("class 04", "class 99")
    for label in (3, 5, 60, 61):
        entries = tuple(
            GalleryImage(f"class {label:02}", f"new {label} {row}.jpg", "", "enrolled")
            for row in range(images)
        )
        changed = changed.joined(entries, new[label])
    return changed, kept


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_was_added_to_answers_as_one_built_anew(look_into, tmp_path, kind):
    look_into(kind)
    gallery, kept = enlarged(GALLERY, 10)
    assert len(followed_by(look_into.place, GALLERY, kept, gallery)) == 1
    followed, anew = (
        look_into(kind, gallery),
        build_index(tmp_path / "anew.faiss", gallery, parse(kind), queries),
    )
    assert len(look_into.said) == 1
    query = np.concatenate([QUERY, gallery.embeddings[-40:]])
    (similarity, rows), (expected_similarity, expected_rows) = (
        followed.find(query, 5),
        anew.find(query, 5),
    )
    if kind == "flat":
        assert (rows.tolist(), similarity.tolist()) == (
            expected_rows.tolist(),
            expected_similarity.tolist(),
        )
    else:
        assert followed.measured.recall_at_10.value >= anew.measured.recall_at_10.value - 0.05
        assert len(followed.live) == 1240 > len(followed.positions) == 1200
    classes = [
        gallery.entries[row].class_name
        for row in followed.find(gallery.embeddings[-40:], 1)[1][:, 0]
    ]
    right = np.mean(
        [
            name == entry.class_name
            for name, entry in zip(classes, gallery.entries[-40:], strict=True)
        ]
    )
    assert right > (0.8 if "k_factor=0" in kind else 0.95)


def test_a_class_removed_enrolled_again_and_renamed_many_times_is_found(look_into):
    look_into("hnsw")
    gallery = GALLERY
    for turn in range(6):
        name = "class 05" if turn == 0 else f"turn {turn - 1}"
        kept = np.array([entry.class_name != name for entry in gallery.entries])
        rows = np.flatnonzero(~kept)
        entries = tuple(
            GalleryImage(f"turn {turn}", gallery.entries[row].path, "", "enrolled") for row in rows
        )
        after = gallery.removed(name).joined(entries, gallery.embeddings[rows])
        assert followed_by(look_into.place, gallery, kept, after) == ("hnsw",)
        gallery = after
        nearest = look_into("hnsw", gallery).find(gallery.embeddings[-20:], 1)[1][:, 0]
        assert nearest.tolist() == list(range(1180, 1200))
    assert len(look_into.said) == 1


def test_a_gallery_that_lost_a_quarter_or_doubled_gets_an_index_built_anew(look_into):
    look_into("ivf")
    names = [f"class {number:02}" for number in range(20)]
    smaller = GALLERY
    for name in names:
        smaller = smaller.removed(name)
    assert (
        followed_by(
            look_into.place,
            GALLERY,
            np.array([entry.class_name not in names for entry in GALLERY.entries]),
            smaller,
        )
        == ()
    )
    look_into("ivf", smaller)
    assert len(look_into.said) == 2
    larger = smaller.joined(GALLERY.entries, GALLERY.embeddings)
    assert followed_by(look_into.place, smaller, np.ones(len(smaller.entries), bool), larger) == ()


def test_a_gallery_whose_classes_are_only_renamed_keeps_its_index_as_it_is(look_into):
    open_index = look_into("hnsw")
    renamed = GALLERY.renamed("class 04", "class 99")
    assert followed_by(look_into.place, GALLERY, np.ones(1200, bool), renamed) == ()
    assert look_into("hnsw", renamed).measured == open_index.measured
    assert embeddings_digest(renamed.embeddings) == embeddings_digest(GALLERY.embeddings)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("next_is", ["predict", "enrol"])
@pytest.mark.parametrize("killed_at", range(3))
def test_a_kill_between_gallery_and_index_gives_the_index_of_an_uninterrupted_change(
    place, kind, next_is, killed_at
):
    gallery, kept = enlarged(GALLERY, 10)
    place = GalleryFile(read_folder(place.run.folder), "all")
    path = index_file(place, parse(kind))

    def changed(moments: int | None) -> None:
        """Write the gallery and take its index along; the process dies after so many files."""
        for old in (place.path, path, path.with_suffix(".json")):
            old.unlink(missing_ok=True)
        place.path.parent.mkdir(exist_ok=True)
        place.write(GALLERY)
        open_or_build(place, GALLERY, parse(kind), queries, lambda text: None)
        step, real = step_between(place, GALLERY, kept, gallery), os.replace

        def replace_or_die(old: Path, new: Path) -> None:
            nonlocal moments
            if moments == 0 and Path(new).suffix in (".faiss", ".json"):
                os._exit(9)
            moments = (
                None if moments is None else moments - (Path(new).suffix in (".faiss", ".json"))
            )
            real(old, new)

        def change() -> None:
            os.replace = replace_or_die
            place.write(gallery, step)
            update_indexes(place, step, gallery)

        assert in_fork(change) == (0 if moments is None else 9)

    def bits() -> tuple[bytes, dict[str, object]]:
        open_or_build(place, gallery, parse(kind), queries, lambda text: None)
        return path.read_bytes(), read_json(path.with_suffix(".json")) | {"measured": {}}

    changed(None)
    uninterrupted = bits()
    changed(killed_at)
    if next_is == "enrol":
        catch_up(place, gallery)
    assert bits() == uninterrupted


def test_who_looks_up_waits_for_the_process_that_has_written_the_gallery(place, monkeypatch):
    """A server writes the gallery first and its indexes then, under its lock."""
    gallery, kept = enlarged(GALLERY, 10)
    place = GalleryFile(read_folder(place.run.folder), "all")
    place.path.parent.mkdir(exist_ok=True)
    place.write(GALLERY)
    open_or_build(place, GALLERY, parse("sq8"), queries, lambda text: None)
    step = step_between(place, GALLERY, kept, gallery)
    assert step
    place.write(gallery, step)
    pauses, sleep, waiting = [], time.sleep, threading.current_thread()

    def update_meanwhile(seconds: float) -> None:
        if threading.current_thread() is not waiting:  # the module is that of all threads
            sleep(seconds)
            return
        pauses.append(seconds)
        update_indexes(place, step, gallery)

    with place.lock():
        with monkeypatch.context() as patch:
            patch.setattr(index_store, "PATIENCE_SECONDS", 0)
            with pytest.raises(GalleryIsBusy, match="another process is changing"):
                open_or_build(place, gallery, parse("sq8"), queries, print)
        monkeypatch.setattr("dml_bench.gallery.index_store.time.sleep", update_meanwhile)
        open_or_build(place, gallery, parse("sq8"), queries, pytest.fail)
    assert len(pauses) == 1


@pytest.mark.timeout(60)
def test_an_index_that_can_not_follow_a_change_is_built_anew(place):
    """Of a gallery that grew to more than twice its size while no process updated its index."""
    gallery, kept = enlarged(GALLERY, 2 * len(GALLERY.entries))
    place = GalleryFile(read_folder(place.run.folder), "all")
    place.path.parent.mkdir(exist_ok=True)
    place.write(GALLERY)
    open_or_build(place, GALLERY, parse("sq8"), queries, lambda text: None)
    step = step_between(place, GALLERY, kept, gallery)
    place.write(gallery, step)
    shown = []
    opened = open_or_build(place, gallery, parse("sq8"), queries, shown.append)
    assert opened.index.ntotal == len(gallery.entries)
    assert len(shown) == 1 and "building index" in shown[0]


# What is said


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "hnws",
            (
                r"unknown index 'hnws' \(did you mean hnsw\?\); there are: auto, flat, hnsw, ivf,"
                r" ivfpq, sq8"
            ),
        ),
        (
            "ivf:nporbe=3",
            (
                r"index.nporbe: ivf has no such option \(did you mean nprobe\?\); its options:"
                r" nlist, nprobe"
            ),
        ),
        ("flat:nprobe=3", "index.nprobe: flat has no such option; it has no options"),
        ("ivf:nprobe", "write NAME or NAME:key=value,key=value with whole numbers"),
        ("ivf:nprobe=-1", "write NAME or NAME:key=value,key=value with whole numbers"),
        ("ivf:nprobe=1,nprobe=2", "each key once"),
        (
            "ivf:nlist=8,nprobe=9",
            (
                "index ivf: nprobe must be at most the 8 cells .nlist.,"
                " got 9: probe fewer, or build more"
            ),
        ),
        (
            "ivf:nlist=2000",
            (
                "index ivf: nlist must be at most the gallery's 1,200 images,"
                " got 2,000: choose fewer cells"
            ),
        ),
        (
            "ivfpq:m=5",
            ("index ivfpq: m must divide 32 dimensions, got 5: choose one of 1, 2, 4, 8, 16, 32"),
        ),
        (
            "ivfpq:bits=11",
            (
                "index ivfpq: the gallery must have at least 2,048 images for codes of 11 bits, got"
                " 1,200: choose fewer bits"
            ),
        ),
        ("ivfpq:bits=13", "index ivfpq: bits must be 1 to 12, got 13: choose e.g. bits=8"),
        ("hnsw:M=1", "index hnsw: M must be at least 2, got 1: give e.g. M=32"),
        (
            "hnsw:efSearch=0",
            "index hnsw: efConstruction and efSearch must be at least 1, got 100 and 0: give e.g.",
        ),
    ],
)
def test_what_can_not_be_is_said_in_words(kind, message):
    with pytest.raises(ValueError, match=message):
        parse(kind).plan(1200, 32)


def test_a_gallery_of_a_few_images_is_not_approximated():
    assert parse("flat").plan(3, 8).factory == "Flat"
    with pytest.raises(
        ValueError,
        match=(
            "index hnsw: the gallery must have at least 16 images for an approximate index, got 3:"
            " leave --index out"
        ),
    ):
        parse("hnsw").plan(3, 8)


@pytest.mark.parametrize(
    ("kind", "images", "factory"),
    [
        ("ivf", 1_000_000, "IVF4000,Flat"),
        ("ivf", 1000, "IVF33,Flat"),
        ("hnsw", 1_000_000, "HNSW32,Flat"),
        ("hnsw", 1000, "HNSW16,Flat"),
        ("ivfpq", 1_000_000, "OPQ32,IVF4000,PQ32x8np,Refine(SQ8)"),
        ("ivfpq:k_factor=0", 100, "OPQ32,IVF3,PQ32x6np"),
    ],
)
def test_parameters_that_are_not_given_follow_from_the_size_of_the_gallery(kind, images, factory):
    assert parse(kind).plan(images, 128).factory == factory


def test_auto_is_exact_whatever_the_size_and_says_from_which_on_another_is_worth_a_try():
    assert parse("auto").plan(10_000_000, 128).factory == "Flat"
    assert not advice(100_000, 128)
    assert (
        advice(1_000_000, 128)
        == "an exact search compares with all 1,000,000 images (512 MB); from 195,312 images of"
        " 128 dimensions on, try --index hnsw (fast, larger) or ivf: it may miss some images,"
        " and reports how many"
    )


# From the command line


@pytest.fixture(scope="module")
def finished(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / "experiment" / "birds" / "seed-42"))


def answers(
    monkeypatch, capsys, run: Path, photos: Path, *more: object
) -> tuple[list[tuple[str, float]], dict, str]:
    """The closest class of each photo with its similarity, what is told of the index, and what was
    said meanwhile."""
    assert (
        dml_bench(
            monkeypatch,
            "predict",
            run,
            photos,
            "--json",
            "--threshold",
            0,
            "--device",
            "cpu",
            *more,
        )
        == 0
    )
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    return (
        [(answer["closest_class"], answer["similarity"]) for answer in report["answers"]],
        report.get("index", {}),
        captured.err,
    )


def test_predict_uses_a_kept_index_that_enrolment_adds_to(
    run, birds, tmp_path, monkeypatch, capsys
):
    known = sorted((birds / "images").iterdir())[0]
    photos = tmp_path / "photos" / "Turned"
    shutil.copytree(known, photos)
    for file in photos.iterdir():
        file.write_bytes(file.read_bytes() + b"\0")  # other bytes, the same picture
    exact, _, _ = answers(monkeypatch, capsys, run, known)
    flat, index, said = answers(monkeypatch, capsys, run, known, "--index", "flat")
    assert (flat, index["exact"], said) == (exact, True, "building index flat of 51 images\n")
    predictions, index, said = answers(
        monkeypatch, capsys, run, known, "--index", "ivf:nlist=2,nprobe=2"
    )
    assert said == "building index ivf of 51 images\n"
    assert [name for name, _ in predictions] == [name for name, _ in exact]
    assert (index["measured"]["queries"], index["measured"]["recall_at_1"]["value"]) == (13, 1.0)

    assert (
        dml_bench(monkeypatch, "enrol", run, "--images", photos.parent, "--remove", known.name) == 0
    )
    assert "added to the kept 2 indexes flat, ivf-nlist=2" in capsys.readouterr().out
    for kind in ("flat", "ivf:nlist=2,nprobe=2"):
        predictions, index, said = answers(monkeypatch, capsys, run, known, "--index", kind)
        assert ({name for name, _ in predictions}, said) == ({"Turned"}, "")
        assert len(predictions) == 8


def test_predict_says_what_an_approximate_index_misses(run, birds, monkeypatch, capsys):
    photo = next((birds / "images").rglob("*.jpg"))
    assert dml_bench(monkeypatch, "predict", run, photo, "--index", "hnsw", "--threshold", 0) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "index hnsw (M=16, efConstruction=100, efSearch=64): recall@1 1.000 (0.772 to 1.000)"
        in said
    )
    assert "on 13 query images of the run; " in said


def test_an_index_that_can_not_be_is_refused_in_a_line_and_nothing_is_kept(
    run, birds, monkeypatch, capsys
):
    photo = next((birds / "images").rglob("*.jpg"))
    line = refusal(monkeypatch, capsys, "predict", run, photo, "--index", "ivf:nprobe=40")
    assert (
        line
        == "error: index ivf: nprobe must be at most the 1 cells (nlist), got 40: probe fewer, or"
        " build more cells"
    )
    assert "unknown index 'hsnw'" in refusal(
        monkeypatch, capsys, "export", run, "--out", run / "out", "--index", "hsnw"
    )
    assert not (run / "gallery").exists()


def test_an_export_holds_the_index_that_was_asked_for_and_its_card_says_what_it_misses(
    run, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    assert (
        dml_bench(monkeypatch, "export", run, "--out", out, "--index", "ivf:nlist=3,nprobe=2") == 0
    )
    assert "; index ivf (nlist=3, nprobe=2): recall@1 " in capsys.readouterr().out
    index = open_mapped(out / "gallery.faiss")
    assert (type(index).__name__, index.nlist, index.nprobe, index.ntotal) == (
        "IndexIVFFlat",
        3,
        2,
        51,
    )
    facts = json.loads((out / "export.json").read_text(encoding="utf-8"))["index"]
    assert (facts["name"], facts["exact"], facts["parameters"]) == (
        "ivf",
        False,
        {"nlist": 3, "nprobe": 2},
    )
    card = (out / "README.md").read_text(encoding="utf-8")
    assert (
        f"index ivf (nlist=3, nprobe=2): recall@1 {facts['measured']['recall_at_1']['value']:.3f} ("
        in card
    )
    place = open_gallery_file(run, "all", None)
    rows = index.search(place.read().embeddings, 1)[1][:, 0]
    assert rows.tolist() == list(range(51))


def test_a_gallery_of_the_former_format_is_read_and_embeddings_stay_in_the_file(run):
    from safetensors.numpy import save_file

    place = open_gallery_file(run, "all", None)
    gallery = place.read()
    place.path.parent.mkdir()
    place.write(gallery)
    again = place.read()
    assert (again.entries, again.embeddings.tolist()) == (
        gallery.entries,
        gallery.embeddings.tolist(),
    )
    assert not again.embeddings.flags.writeable
    assert not again.embeddings.flags.owndata
    rows = json.dumps(
        [[entry.class_name, entry.path, entry.sha256, entry.origin] for entry in gallery.entries]
    )
    facts = {"format": "1", "weights": place.run.weights_digest("all"), "entries": rows}
    save_file({"embeddings": np.ascontiguousarray(gallery.embeddings)}, place.path, metadata=facts)
    former = place.read()
    assert (former.entries, former.embeddings.tolist()) == (
        gallery.entries,
        gallery.embeddings.tolist(),
    )


@pytest.mark.parametrize(
    ("images", "dim", "options"),
    [
        (16, 16, ""),
        (48, 32, ":bits=1"),
        (270, 288, ":nlist=2,m=2,bits=4"),  # this one ended the process
        (400, 32, ":bits=1,k_factor=0"),
    ],
)
def test_a_rotation_is_trained_also_of_few_images(images, dim, options):
    """FAISS refuses fewer than 256, and its memory breaks with fewer than dimensions."""
    vectors = np.random.default_rng(1).normal(size=(images, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plan = parse(f"ivfpq{options}").plan(images, dim)
    index, again = build(plan, vectors), build(plan, vectors)
    rows = index.search(vectors, 10)[1]
    assert (rows == np.arange(images)[:, None]).any(axis=1).mean() > 0.5
    assert np.array_equal(faiss.serialize_index(index), faiss.serialize_index(again))
