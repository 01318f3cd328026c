"""Sessions are estimated from embeddings: held against known ones, and against photos that were
taken one by one."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import dml_bench as db
from dml_bench.analysis.sessions import chains, embeddings_in_order, sessions_of_embeddings
from dml_bench.data.check import render
from dml_bench.data.datasets import open_dataset
from dml_bench.data.sessions import share_beside

LABELS = np.repeat(np.arange(8), 40)
SESSIONS = np.repeat(np.arange(80), 4)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_sessions(noise: float = 0.3) -> np.ndarray:
    """Photos of eight classes, four in a session, of which each lies `noise` beside its middle."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(80, 12))[SESSIONS]
    classes = 3 * rng.normal(size=(8, 12))[LABELS]
    return unit(classes + middles + noise * rng.normal(size=(320, 12)))


def one_by_one() -> np.ndarray:
    rng = np.random.default_rng(1)
    return unit(3 * rng.normal(size=(8, 12))[LABELS] + rng.normal(size=(320, 12)))


def pairs_of(ids: np.ndarray) -> np.ndarray:
    """(images, images) bool: which images share an id, each pair once."""
    return np.triu(ids[:, None] == ids, 1)


def test_chains_are_the_known_sessions():
    linked, true = pairs_of(chains(in_sessions(), LABELS)), pairs_of(SESSIONS)
    assert (linked & true).sum() / linked.sum() > 0.97
    assert (linked & true).sum() / true.sum() > 0.7


def test_the_share_of_test_photos_is_that_of_the_known_sessions():
    estimate = sessions_of_embeddings(in_sessions(0.1), LABELS, 0.2)
    assert estimate.beside == pytest.approx(share_beside(LABELS, SESSIONS, 0.2), abs=0.03)
    assert estimate.chance < 0.05
    assert estimate.divides


def test_photos_taken_one_by_one_are_in_no_session():
    estimate = sessions_of_embeddings(one_by_one(), LABELS, 0.2)
    assert estimate.beside < 0.05
    assert not estimate.divides


def test_a_chain_never_joins_two_classes_and_small_classes_have_none():
    vectors = np.concatenate([in_sessions(), in_sessions()[:6]])
    labels = np.concatenate([LABELS, np.full(6, 8)])
    ids = chains(vectors, labels)
    assert len(set(zip(ids, labels, strict=True))) == len(set(ids))
    assert ids[-6:].tolist() == list(range(320, 326))


def test_data_check_takes_the_embeddings_of_a_backbone_and_leaves_out_what_cant_be_read(
    birds, tmp_path, cache_dir, monkeypatch
):
    photos = Path(shutil.copytree(birds / "images", tmp_path / "photos"))
    first = sorted(photos.glob("*/*"))[0]
    first.write_bytes(b"no picture")
    loaded = []

    def randomly(network: object, backbone: str, *_: object, **options: object) -> str:
        loaded.append(backbone)
        return ""

    monkeypatch.setattr("dml_bench.models.embedder.load_backbone", randomly)
    report = db.check_data("folder", photos, embeddings="timm:test_resnet", cache_dir=cache_dir)
    assert len(report.unreadable) == 1
    assert report.sessions is not None and 0 <= report.sessions.beside <= 1
    assert len(loaded) == 1
    with pytest.raises(ValueError, match=r"did you mean efficientnet_lite0\?"):
        db.check_data("folder", photos, embeddings="eficientnet_lite0", cache_dir=cache_dir)


def test_data_check_takes_the_embeddings_of_a_run_and_no_run_of_other_images(
    trained, birds, cache_dir, tmp_path
):
    run = db.load_run(trained("train.epochs=1").folder)
    report = db.check_data("cub", birds, embeddings=run, cache_dir=cache_dir)
    assert report.sessions is not None
    console = Console(record=True, width=200)
    console.print(render(report))
    shows_none = "embeddings show no sessions that a random split would divide"
    # whether a network of one epoch shows some depends on the processor
    assert (shows_none in console.export_text()) == (not report.sessions.divides)
    dataset = open_dataset(run.experiment.data.dataset, birds, cache_dir)
    assert embeddings_in_order(run, dataset).shape == (64, 128)
    with pytest.raises(ValueError, match="is of other images .*: name a run of this data set"):
        embeddings_in_order(run, dataset.without({0}))


def test_chains_are_the_same_however_many_distances_are_in_memory(monkeypatch):
    vectors, estimate = in_sessions(), sessions_of_embeddings(in_sessions(), LABELS, 0.2)
    linked = chains(vectors, LABELS)
    monkeypatch.setattr("dml_bench.analysis.sessions.ROWS", 7)
    assert np.array_equal(chains(vectors, LABELS), linked)
    in_parts = sessions_of_embeddings(vectors, LABELS, 0.2)
    assert in_parts.beside == estimate.beside
    assert in_parts.chance == pytest.approx(estimate.chance)


def test_a_large_class_takes_no_memory_for_all_its_pairs(monkeypatch):
    monkeypatch.setattr("dml_bench.analysis.sessions.ROWS", 200)
    vectors = unit(np.random.default_rng(0).normal(size=(2000, 12)))
    tracemalloc.start()
    try:
        sessions_of_embeddings(vectors, np.zeros(2000, int), 0.2)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2000**2 * 8 * 0.8  # a matrix of all distances is 2000 ** 2 * 8 bytes
