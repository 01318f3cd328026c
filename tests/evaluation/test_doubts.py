"""When a P@1 says nothing: one point, ties, and numbers that are not finite; and memory that stays
bounded however large a class is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import dml_bench, train

from dml_bench.browse.projection import project
from dml_bench.evaluation import hubness
from dml_bench.evaluation import search as searching
from dml_bench.evaluation.collapse import (
    describe_doubts,
    describe_together,
    doubts,
    is_no_result,
    widest_angle,
)
from dml_bench.evaluation.metrics import decided_by_order, map_at_r, r_precision, shortened
from dml_bench.evaluation.search import (
    Neighbours,
    in_parts,
    queries_at_a_time,
    search,
    without_itself,
)
from dml_bench.runs import embed_and_search
from dml_bench.runs.arrays import read_neighbours, write_neighbours
from dml_bench.training import loop

DEGREES = np.radians([0.0, 1.0, 3.0, 90.0])
PLANE = np.stack([np.cos(DEGREES), np.sin(DEGREES)], 1).astype(np.float32)


def unit_vectors(count: int, seed: int, dim: int = 6) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_widest_angle_is_that_of_the_mean_with_the_furthest():
    assert widest_angle(PLANE[:2]) == pytest.approx(0.5, rel=1e-3)
    assert widest_angle(PLANE[[0, 3]]) == pytest.approx(45, rel=1e-3)
    assert widest_angle(np.concatenate([PLANE, -PLANE])) == 180


def test_one_point_and_ties_are_doubts_and_a_line_each():
    labels = np.array([0, 0, 1, 1])
    same = np.tile(PLANE[:1], (4, 1))
    measured = doubts(same, search(same, same[:2], labels, np.array([0, 1]), 4))
    assert measured == {
        "doubts": {
            "widest_angle_degrees": pytest.approx(0, abs=1e-3),
            "queries_decided_by_order": 1.0,
        }
    }
    assert len(list(describe_doubts({"phases": {"all": measured}}))) == 2
    assert doubts(PLANE, search(PLANE, PLANE[:2], labels, np.array([0, 1]), 4)) == {}
    assert list(describe_doubts({"phases": {"all": {}}})) == []


def test_a_tie_within_a_class_decides_nothing():
    ties = Neighbours(
        np.array([[0, 1, 2]] * 2),
        np.array([[0.9, 0.9, 0.1], [0.9, 0.9, 0.9]], np.float32),
        np.array([3, 3, 4]),
        np.array([3, 3]),
    )
    assert decided_by_order(ties).tolist() == [False, True]


@pytest.mark.parametrize("leaves_one_out", [False, True])
def test_neighbours_in_parts_measure_the_same_as_all_at_once_and_keep_the_first(
    leaves_one_out, monkeypatch, tmp_path
):
    gallery, labels = unit_vectors(60, 1), np.arange(60) % 3
    query_labels = labels if leaves_one_out else np.arange(23) % 3
    query = gallery if leaves_one_out else unit_vectors(23, 2)

    def searched(rows: slice) -> Neighbours:
        neighbours = search(gallery, query[rows], labels, query_labels[rows], 20 + leaves_one_out)
        return without_itself(neighbours, rows.start) if leaves_one_out else neighbours

    at_once = searched(slice(0, len(query)))
    monkeypatch.setattr(searching, "ENTRIES", 150)
    sizes = []
    parts = in_parts(
        len(query),
        queries_at_a_time(21),
        lambda rows: sizes.append(rows.stop - rows.start) or shortened(searched(rows), 4),
    )
    assert max(sizes) == 7
    assert (
        np.array_equal(parts.indices, at_once.indices[:, :4])
        and parts.query_labels.tolist() == query_labels.tolist()
    )
    assert (map_at_r(parts).tolist(), r_precision(parts).tolist()) == (
        map_at_r(at_once).tolist(),
        r_precision(at_once).tolist(),
    )
    assert map_at_r(parts.of(np.array([5, 2]))).tolist() == map_at_r(at_once)[[5, 2]].tolist()
    write_neighbours(tmp_path / "found.safetensors", parts)
    assert (
        map_at_r(read_neighbours(tmp_path / "found.safetensors")).tolist()
        == map_at_r(at_once).tolist()
    )


@pytest.mark.parametrize(
    "protocol",
    [
        (),
        ("protocol=class_disjoint", "data.split=half"),
        pytest.param(
            ("evaluate.tta=mirror", "evaluate.tta_by=max"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_keeps_few_neighbours_has_the_numbers_of_one_that_keeps_all(
    protocol, birds, cache_dir, tmp_path, monkeypatch
):
    settings = ("train.epochs=1", "evaluate.vote_k=[1, 3]", "evaluate.recall_k=[1, 2]", *protocol)
    unbounded = train(birds, cache_dir, tmp_path / "whole", *settings).summary
    monkeypatch.setattr(searching, "ENTRIES", 30)
    monkeypatch.setattr(embed_and_search, "ENTRIES", 30)
    bounded = train(birds, cache_dir, tmp_path / "bounded", *settings).summary
    for part in ("phases", "retrieval"):
        assert bounded.get(part) == unbounded.get(part)
    phase = next(iter((tmp_path / "bounded").glob("**/neighbours.safetensors")))
    assert read_neighbours(phase).k == embed_and_search.SHALLOWEST >= hubness.NEAREST


def test_all_queries_of_one_point_are_searched_in_gallery_order():
    same = np.tile(PLANE[:1], (50, 1))
    neighbours = search(same, same[:30], np.arange(50), np.arange(30), 7)
    assert neighbours.indices.tolist() == [list(range(7))] * 30


def test_a_map_of_one_point_is_one_point(tmp_path):
    same = np.tile(PLANE[:1], (30, 1))
    assert project(same, same[:2], tmp_path / "map").tolist() == [[0, 0]] * 32


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    """Four classes of eight photos that are all the same grey square."""
    root = tmp_path_factory.mktemp("grey") / "photos"
    for name in ("ant", "bee", "cow", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (40, 40), (128, 128, 128)).save(
                root / name / f"{number}.png", comment=f"{name}{number}"
            )
    return root


def test_a_run_and_predict_on_equal_photos_say_that_the_order_decided(
    grey, cache_dir, tmp_path, monkeypatch, capsys
):
    outcome = train(
        grey, cache_dir, tmp_path, "data.dataset=folder", "unseen=last:1", "train.epochs=1"
    )
    for phase in ("all", "limited"):
        reported = outcome.summary["phases"][phase]["doubts"]
        assert (
            reported["widest_angle_degrees"] < 0.1 and reported["queries_decided_by_order"] == 1.0
        )
    places = ("--device", "cpu", "--threshold", "0.5")
    assert dml_bench(monkeypatch, "predict", outcome.folder, grey / "dog" / "0.png", *places) == 0
    assert "exactly as close" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ("weights", "the weights .* are not finite in phase all, epoch 1"),
        ("proxies", "the weights of the loss, .*, are not finite in phase all, epoch 1"),
        ("embeddings", "not finite"),
    ],
)
def test_a_run_that_is_not_finite_ends_with_a_reason_before_anything_is_sealed(
    poison, message, birds, cache_dir, tmp_path, monkeypatch
):
    original = loop.train_step
    value = 1e30 if poison == "embeddings" else torch.nan

    def poisoned(run, *where):
        loss = original(run, *where)
        part = run.objective if poison == "proxies" else run.embedder.head
        with torch.no_grad():
            next(part.parameters()).fill_(value)
        return loss

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(ValueError, match=message):
        train(
            birds,
            cache_dir,
            tmp_path,
            "train.epochs=1",
            "model.batch_norm=frozen",
            "train.batch_size=64",
            "loss=ProxyNCA",
            "miner=none",
        )
    assert not list(tmp_path.rglob("complete.json"))


def test_ties_of_all_runs_are_one_line_and_few_are_no_failed_training():
    """Cars that are published with two classes each gave four lines for each of three seeds, and
    kept all runs out of what is known of seeds."""
    few = {"phases": {"all": {"doubts": {"queries_decided_by_order": 0.002}}, "limited": {}}}
    more = {"phases": {"all": {"doubts": {"queries_decided_by_order": 0.004}}}}
    [line] = describe_together({42: few, 43: more})
    assert line.startswith("for up to 0.4% of the queries, images of several classes are equally")
    assert list(describe_together({42: {"phases": {"all": {}}}})) == []
    many = {"phases": {"all": {"doubts": {"queries_decided_by_order": 0.02}}}}
    point = {"phases": {"all": {"doubts": {"widest_angle_degrees": 0.0}}}}
    assert [is_no_result(summary) for summary in (few, more, many, point)] == [False] * 2 + [
        True
    ] * 2
    [angle] = describe_together({42: point})
    assert angle.startswith("seed 42: phase all: all embeddings are nearly one point")
