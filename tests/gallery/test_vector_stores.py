"""A gallery in LanceDB, Qdrant, PostgreSQL and Parquet: searched there, photos get the answers that
`predict` gives, and another model is refused."""

import json
import math
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import dml_bench, refusal

import dml_bench as db
from dml_bench.evaluation.search import search
from dml_bench.gallery.batch import answer_file
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.index_recall import RecallQueries
from dml_bench.gallery.lookup import LookupOptions, open_lookup
from dml_bench.gallery.predict import NoPromise
from dml_bench.gallery.store import Gallery, GalleryImage, open_gallery_file
from dml_bench.gallery.stores.base import TABLE, Hit, StoreRecord, VectorStore
from dml_bench.gallery.stores.lance import LanceStore
from dml_bench.gallery.stores.parquet import ParquetStore
from dml_bench.gallery.stores.qdrant import OPEN
from dml_bench.gallery.vector_stores import (
    STORES,
    OpenStore,
    named_store,
    open_store,
    share_of_differing,
    store_threshold,
)

TIE = 1e-5
"""Similarities that differ by less are equal."""
KINDS = ("lancedb", "qdrant", "pgvector", "parquet")


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def gallery(folder) -> db.Gallery:
    return db.Gallery(folder, phase="limited", device="cpu")


@pytest.fixture(scope="module")
def photos(birds) -> list[Path]:
    """All photos: those of the gallery find themselves."""
    return sorted(birds.rglob("*.jpg"))


@pytest.fixture(scope="module")
def database():
    """The address of a real PostgreSQL with pgvector, which listens on a socket of its folder.

    Started by root, the server runs as a user of its own, who must be able to enter the folders
    above its data. Those of `tmp_path_factory` won't do: each pytest that starts on this machine
    closes them to other users.
    """
    pgserver = pytest.importorskip("pgserver")
    with (
        tempfile.TemporaryDirectory(prefix="postgres-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        server = pgserver.get_server(Path(folder, "data"))
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="module")
def exported(gallery, tmp_path_factory, request):
    """`exported(kind)` is the place of the gallery in a store of that kind, made once."""
    places: dict[str, str] = {}

    def place_of(kind: str) -> str:
        if kind not in places:
            place = str(tmp_path_factory.mktemp("stores") / f"gallery.{kind}")
            if kind == "pgvector":
                place = f"{request.getfixturevalue('database')}#birds"
            gallery.export(place, to=kind)
            places[kind] = place
        return places[kind]

    return place_of


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_of_a_store_are_those_of_predict_for_every_query(
    kind, gallery, photos, exported
):
    by_predict = gallery.predict(photos, k=7)
    threshold = float(np.median([answer.similarity for answer in by_predict]))
    by_predict = gallery.predict(photos, k=7, threshold=threshold)
    by_store = gallery.predict(photos, k=7, threshold=threshold, index=f"{kind}:{exported(kind)}")
    assert len(by_predict) == len(by_store) == len(photos) == 64
    assert {answer.known for answer in by_predict} == {True, False}
    for expected, answer in zip(by_predict, by_store, strict=True):
        assert answer.path == expected.path
        assert answer.similarity == pytest.approx(expected.similarity, abs=TIE)
        nearness = np.array([similarity for _, similarity in expected.closest])
        np.testing.assert_allclose([s for _, s in answer.closest], nearness, atol=TIE)
        if abs(expected.similarity - threshold) > TIE:
            assert answer.known == expected.known
        if (np.diff(nearness) < -TIE).all():
            assert [image for image, _ in answer.closest] == [i for i, _ in expected.closest]
            assert answer.class_name == expected.class_name
            assert (answer.vote_class, answer.vote_share) == (
                expected.vote_class,
                expected.vote_share,
            )
    assert len({answer.class_name for answer in by_store}) > 3


def test_one_connection_is_kept_and_a_lost_one_made_anew(exported):
    store, other = (STORES["pgvector"](exported("pgvector")) for _ in range(2))
    query = unit_vector(store)

    def process() -> int:
        store.nearest(query, 3)
        with store._connection() as connection:
            return int(connection.info.backend_pid)

    first = process()
    assert process() == first
    with other._connection() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 60000)", (first,))  # until it has
    with pytest.raises(ValueError, match="PostgreSQL table birds: .*terminat"):
        process()
    assert process() != first


def test_a_folder_of_qdrant_is_opened_once_and_closed_after_its_last_store(exported):
    place = exported("qdrant")
    first, second = (STORES["qdrant"](place) for _ in range(2))
    assert first.count() == second.count() > 0
    assert first._client is second._client
    client = first._client
    del first, second
    assert not OPEN
    with pytest.raises(RuntimeError, match="closed"):
        client.count(TABLE)


def unit_vector(store: VectorStore) -> np.ndarray:
    vector = np.zeros((1, store.record().dim), np.float32)
    vector[0, 0] = 1
    return vector


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_refuses_another_model_and_says_whose_vectors_it_holds(
    kind, gallery, folder, photos, exported
):
    other = db.Gallery(folder, phase="all", device="cpu")
    with pytest.raises(ValueError, match=r"vectors of another model \(.*seed 42, phase limited\)"):
        other.predict(photos[:1], index=f"{kind}:{exported(kind)}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_is_taken_is_not_touched(kind, gallery, exported):
    with pytest.raises(ValueError, match="exists already"):
        gallery.export(exported(kind), to=kind)
    assert named_store(f"{kind}:{exported(kind)}").count() == len(gallery)


def test_the_same_weights_at_another_image_size_are_another_embedder(gallery):
    run = gallery.run
    larger = replace(run.experiment, images=replace(run.experiment.images, size=24))
    other = SimpleNamespace(weights_digest=run.weights_digest, experiment=larger)
    assert embedder_digest(other, "all") != embedder_digest(run, "all")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lancedb", "pgvector"])
@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_approximate_index_says_how_many_queries_get_another_class(
    kind, index, gallery, photos, tmp_path, request
):
    place = str(tmp_path / "store")
    if kind == "pgvector":
        place = f"{request.getfixturevalue('database')}#birds_{index}"
    exported = gallery.export(place, to=kind, index=index)
    assert not exported.exact
    share = exported.record.approximate["differing"]
    assert f"index {index}: {share:.1%} of 13 query images of the run get another class" in (
        exported.describe()
    )
    answers = gallery.predict(photos, index=f"{kind}+approximate:{place}")
    assert len(answers) == 64
    assert exported.describe() in answers.notes()
    assert gallery.predict(photos[:1], index=f"{kind}:{place}").notes()[0].endswith("exact")


def hand_made(tmp_path: Path, vectors: list[list[float]]) -> tuple[Gallery, StoreRecord]:
    entries = tuple(
        GalleryImage(f"class {row}", f"/photos/{row}.jpg", "", "run") for row in range(len(vectors))
    )
    record = StoreRecord(
        embedder="e",
        experiment="x",
        seed=1,
        phase="all",
        dataset="d",
        images=len(vectors),
        dim=len(vectors[0]),
        thresholds=[
            {"precision": 0.9, "unknown_share": 0.0, "confidence": 0.95, "threshold": 0.7},
            {"precision": 0.99, "unknown_share": 0.0, "confidence": 0.95, "threshold": None},
        ],
        dml_bench="0",
    )
    return Gallery(entries, np.array(vectors, np.float32)), record


def without_first(neighbours: list[Hit]) -> list[Hit]:
    return [hit for hit in neighbours if hit[0] != 0]


def test_a_share_of_differing_answers_is_one_of_clear_differences(tmp_path):
    class MissesTheFirst(ParquetStore):
        """An approximate index that never finds row 0."""

        def search(self, query, k, exact):
            hits = super().search(query, 3, True)
            if exact:
                return [neighbours[:k] for neighbours in hits]
            return [without_first(neighbours)[:k] for neighbours in hits]

    gallery, record = hand_made(tmp_path, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    store = MissesTheFirst(str(tmp_path / "g.parquet"))
    store.write(gallery, record, "")
    roughly = MissesTheFirst(store.location, approximate=True)
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    queries = RecallQueries(vectors, np.full(4, -1), "queries")
    differing = share_of_differing(OpenStore(store, record), OpenStore(roughly, record), queries)
    assert differing == {"differing": 0.5, "queries": 4, "query_source": "queries"}


def test_a_query_for_which_an_index_finds_too_few_images_is_searched_exactly(tmp_path):
    class FindsOne(ParquetStore):
        def search(self, query, k, exact):
            return super().search(query, k if exact else 1, True)

    gallery, record = hand_made(tmp_path, [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    store = FindsOne(str(tmp_path / "g.parquet"), approximate=True)
    store.write(gallery, record, "")
    assert store.nearest(np.array([[1, 0]], np.float32), 3).rows.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_of_images_that_are_as_near_the_first_ones_are_taken_as_by_faiss(kind, tmp_path, request):
    rng = np.random.default_rng(3)
    photos = rng.normal(size=(5, 16)).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    copies = photos[rng.integers(0, 5, size=60)]
    gallery, record = hand_made(tmp_path, copies.tolist())
    place = str(tmp_path / "store")
    if kind == "pgvector":
        place = f"{request.getfixturevalue('database')}#copies"
    store = STORES[kind](place)
    store.write(gallery, record, "")
    for k in (1, 4, 20, 60):
        expected = search(gallery.embeddings, photos, gallery.labels, np.arange(5), k)
        assert store.nearest(photos, k).rows.tolist() == expected.indices.tolist()


def test_a_parquet_file_of_several_parts_is_searched_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr("dml_bench.gallery.stores.base.BATCH", 4)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(11, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery, record = hand_made(tmp_path, vectors.tolist())
    store = ParquetStore(str(tmp_path / "g.parquet"))
    heard: list[tuple[int, int]] = []
    store.write(gallery, record, "", lambda *at: heard.append(at))
    assert heard == [(done, 11) for done in (0, 4, 8, 11)]
    assert store._file().num_row_groups == 3
    query = gallery.embeddings[[2, 9]]
    expected = np.argsort(-(query @ gallery.embeddings.T), axis=1)[:, :6]
    hits = store.nearest(query, 6)
    assert hits.rows.tolist() == expected.tolist()
    assert hits.images[9].class_name == "class 9"


def test_the_threshold_of_a_precision_is_read_from_the_store_or_refused(tmp_path):
    _, record = hand_made(tmp_path, [[1.0, 0.0]])
    opened = OpenStore(LanceStore("/photos/store"), record)
    assert store_threshold(opened, 0.4, None, 0.0).value == 0.4
    assert store_threshold(opened, None, None, 0.0).value == -math.inf
    assert store_threshold(opened, None, 0.9, 0.0).value == 0.7
    with pytest.raises(NoPromise, match="has no threshold for a precision of 99%"):
        store_threshold(opened, None, 0.99, 0.0)
    with pytest.raises(ValueError, match=r"choose one of 0\.9 \(unknown share 0\)"):
        store_threshold(opened, None, 0.93, 0.0)


def test_a_store_has_the_thresholds_that_predict_promises(gallery, exported):
    record = named_store(f"lancedb:{exported('lancedb')}").record()
    assert [(row["precision"], row["unknown_share"]) for row in record.thresholds] == [
        *((precision, 0.0) for precision in (0.8, 0.9, 0.95, 0.99)),
        *((precision, 0.2) for precision in (0.8, 0.9, 0.95, 0.99)),
    ]
    assert record.embedder == embedder_digest(gallery.run, "limited")
    assert (record.images, record.phase, record.seed) == (len(gallery), "limited", 42)


def test_answers_of_a_store_are_not_gone_on_with_once_other_classes_were_exported(folder, tmp_path):
    gallery = db.Gallery(folder, folder=tmp_path / "gallery", device="cpu")
    store, out = tmp_path / "store.parquet", tmp_path / "answers.csv"
    options = LookupOptions(index=f"parquet:{store}")

    def stopped() -> None:
        with answer_file(gallery.file, open_lookup(gallery.file, options, "cpu"), options, out):
            pass

    for name in ("One", "Other"):
        gallery.rename(gallery.class_names[0], name)
        store.unlink(missing_ok=True)
        gallery.export(store, to="parquet")
        if name == "One":
            stopped()
            stopped()
    with pytest.raises(ValueError, match="has answers of another gallery, model or options"):
        stopped()


def test_a_store_that_was_changed_since_is_refused(gallery, exported, tmp_path):
    import lancedb

    place = shutil.copytree(exported("lancedb"), tmp_path / "store")
    lancedb.connect(str(place)).open_table("gallery").delete("row = 3")
    file = open_gallery_file(gallery.run.folder, "limited", None)
    with pytest.raises(ValueError, match="has 50 images, and 51 were exported"):
        open_store(file, named_store(f"lancedb:{place}"))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("lancedb", "write where the store is, e.g. lancedb:PLACE"),
        ("qdrant+approximate:x", "qdrant has no approximate index: write qdrant:x"),
        ("lancedb:nowhere", "nowhere is no folder of LanceDB"),
        ("qdrant:nowhere", "nowhere is no folder of Qdrant"),
        ("parquet:nowhere", "nowhere can't be read as a Parquet file"),
        ("pgvector:postgresql:///x?host=/nowhere", "PostgreSQL table gallery: "),
    ],
)
def test_what_is_no_store_is_refused_in_a_line(index, message, folder, photos, monkeypatch, capsys):
    assert message in refusal(monkeypatch, capsys, "predict", folder, photos[0], "--index", index)


def test_an_address_with_a_password_is_never_shown(folder, photos, monkeypatch, capsys):
    address = "pgvector:postgresql://me:secret@/x?host=/nowhere"
    line = refusal(monkeypatch, capsys, "predict", folder, photos[0], "--index", address)
    assert "secret" not in line


@pytest.mark.parametrize("kind", ["lancedb", "qdrant", "parquet"])
def test_an_address_is_no_path(kind, gallery, photos, tmp_path, monkeypatch):
    """Qdrant's server at an address was a new folder called http:, and its vectors were there."""
    monkeypatch.chdir(tmp_path)
    address = f"http://me:secret@localhost/birds.{kind}"
    for refused in (
        partial(gallery.export, address, to=kind),
        partial(gallery.predict, photos[:1], index=f"{kind}:{address}"),
    ):
        with pytest.raises(ValueError, match=r"got an address \(http://...\): export") as caught:
            refused()
        assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_program_is_no_gallery(gallery, photos, tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"vector": [[1.0]]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="has no record of a gallery in format 1"):
        gallery.predict(photos[:1], index=f"parquet:{tmp_path / 'other.parquet'}")


def test_an_index_that_a_store_can_t_have_is_refused(gallery, tmp_path):
    with pytest.raises(ValueError, match="can't have an index 'sq8': choose one of flat, hnsw"):
        gallery.export(tmp_path / "store", to="lancedb", index="sq8")
    assert list(tmp_path.iterdir()) == []


def test_the_commands_write_a_store_and_look_up_in_it(
    folder, photos, tmp_path, monkeypatch, capsys
):
    place = tmp_path / "birds.parquet"
    assert dml_bench(monkeypatch, "export", folder, "--to", "parquet", "--out", place) == 0
    assert f"store {place}: 51 images, exact" in capsys.readouterr().out
    typed = ("predict", folder, photos[0], "--index", f"parquet:{place}", "--json")
    assert dml_bench(monkeypatch, *typed) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers["index"]["exact"] is True
    assert len(answers["answers"][0]["closest"]) == 10


def test_without_its_package_a_store_says_what_to_install(gallery, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.setattr("dml_bench.gallery.stores.base.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'dml-bench\[stores\]'"):
        gallery.export(tmp_path / "store", to="lancedb")
