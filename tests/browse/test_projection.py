"""Embeddings in the plane: fitted once, the same on every call, kept beside the run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dml_bench.browse.projection import ExactSearch, aligned, distances, project, write
from dml_bench.runs.arrays import embeddings_digest

NONE = np.empty((0, 3), np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def directions(*degrees: float) -> np.ndarray:
    return np.array(
        [[np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0] for angle in degrees], np.float32
    )


EMBEDDINGS = directions(0, 10, 50, 180)
POINTS = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def without_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)


def test_a_kept_map_is_read_back_and_needs_no_umap(tmp_path, without_umap):
    write(
        tmp_path / "run" / "all.safetensors",
        POINTS,
        {"fitted": embeddings_digest(EMBEDDINGS), "put into it": embeddings_digest(NONE)},
    )
    np.testing.assert_array_equal(
        project(EMBEDDINGS, NONE, tmp_path / "run" / "all.safetensors"), POINTS
    )


def test_a_kept_map_with_new_images_serves_without_them_too(tmp_path, without_umap):
    new, path = directions(20), tmp_path / "all.safetensors"
    points = np.concatenate([POINTS, [[8, 9]]])
    write(
        path,
        points,
        {"fitted": embeddings_digest(EMBEDDINGS), "put into it": embeddings_digest(new)},
    )
    np.testing.assert_array_equal(project(EMBEDDINGS, new, path), points)
    np.testing.assert_array_equal(project(EMBEDDINGS, NONE, path), POINTS)


@pytest.mark.parametrize(
    "kept", ["nothing", "of other embeddings", "of other new images", "damaged"]
)
def test_a_map_of_anything_else_is_not_taken_and_a_missing_umap_is_named(
    tmp_path, without_umap, kept
):
    path, new = (
        tmp_path / "all.safetensors",
        directions(20) if kept == "of other new images" else NONE,
    )
    if kept == "of other embeddings":
        write(
            path,
            POINTS,
            {
                "fitted": embeddings_digest(directions(0, 10, 50, 181)),
                "put into it": embeddings_digest(NONE),
            },
        )
    if kept == "of other new images":
        write(
            path,
            POINTS,
            {"fitted": embeddings_digest(EMBEDDINGS), "put into it": embeddings_digest(NONE)},
        )
    if kept == "damaged":
        path.write_bytes(b"no map")
    with pytest.raises(ValueError, match=r"needs umap-learn: pip install 'dml-bench\[browse\]'"):
        project(EMBEDDINGS, new, path)


def test_too_few_images_for_a_map_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        project(EMBEDDINGS[:3], NONE, tmp_path / "all.safetensors")


def test_the_search_that_umap_is_given_is_exact_and_finds_each_image_itself():
    rows, apart = ExactSearch(EMBEDDINGS).among_themselves(3)
    assert rows.tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 2, 1]]
    np.testing.assert_allclose(
        apart[0], [0, 1 - np.cos(np.radians(10)), 1 - np.cos(np.radians(50))], atol=1e-6
    )
    assert apart[:, 0].tolist() == [0, 0, 0, 0]
    rows, apart = ExactSearch(EMBEDDINGS).query(directions(48), 2, epsilon=0.1)
    assert rows.tolist() == [[2, 1]]
    np.testing.assert_allclose(apart[0, 1], 1 - np.cos(np.radians(38)), atol=1e-6)


def test_a_copy_is_at_distance_zero_whatever_rounding_makes_of_it():
    assert distances(np.array([1.0000001, 0.9999998, 0.75], np.float32)).tolist() == [0, 0, 0.25]


def test_a_map_turned_mirrored_and_moved_is_laid_back_without_stretching():
    corner = np.array([[0.0, 0], [4, 0], [0, 1], [2, 2]])
    turned = np.array([[10.0, 10], [10, 14], [11, 10], [12, 12]])  # x and y changed places
    np.testing.assert_allclose(aligned(turned, corner), corner, atol=1e-12)
    np.testing.assert_allclose(np.ptp(aligned(3 * turned, corner), axis=0), [12, 6], atol=1e-12)


def test_images_that_one_of_two_maps_lacks_do_not_count_when_they_are_laid_alike():
    corner = np.array([[0.0, 0], [4, 0], [0, 1], [np.nan, np.nan]])
    turned = np.array([[10.0, 10], [10, 14], [11, 10], [12, 12]])
    np.testing.assert_allclose(
        aligned(turned, corner), [[0, 0], [4, 0], [0, 1], [2, 2]], atol=1e-12
    )


# Maps by UMAP, which compiles itself for each process, so that one draws them all

DRAW = """
import sys
from pathlib import Path

import numpy as np
import torch

from dml_bench.browse.projection import project

folder = Path(sys.argv[1])
embeddings, new = (np.load(folder / f"{name}.npy") for name in ("embeddings", "new"))
np.save(folder / "first.npy", project(embeddings, new[:0], folder / "one.safetensors"))
np.save(folder / "again.npy", project(embeddings, new, folder / "two.safetensors"))
line = np.sign(embeddings[:, :1]).astype(np.float32)
np.save(folder / "line.npy", project(line, new[:0, :1], folder / "three.safetensors"))
(folder / "threads of pytorch").write_text(str(torch.get_num_threads()))
"""
LABELS, NEW_LABELS = [0] * 30 + [1] * 30 + [2] * 30, [2, 0]


@pytest.fixture(scope="module")
def drawn(made_once) -> Path:
    """A folder with three classes' embeddings, two more, and their maps without and with those, by
    a process that gives numba two threads and PyTorch one."""

    def draw(folder: Path) -> None:
        draws = np.random.default_rng(5)
        for name, labels in (("embeddings", LABELS), ("new", NEW_LABELS)):
            vectors = np.eye(3, 16)[labels] + 0.05 * draws.normal(size=(len(labels), 16))
            np.save(folder / f"{name}.npy", unit(vectors))
        subprocess.run(
            [sys.executable, "-c", DRAW, str(folder)],
            env=os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"},
            check=True,
        )

    return made_once("maps", draw)


@pytest.mark.timeout(1200)
def test_umap_gives_the_same_bits_twice_keeps_classes_apart_and_puts_new_images_beside_their_like(
    drawn: Path, without_umap
):
    embeddings, new, first, again = (
        np.load(drawn / f"{name}.npy") for name in ("embeddings", "new", "first", "again")
    )
    assert first.shape == (90, 2)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(again[:90], first)
    labels = np.array(LABELS)
    middles = np.stack([first[labels == label].mean(0) for label in range(3)])
    away = np.linalg.norm(again[:, None] - middles, axis=2)
    assert away.argmin(1).tolist() == LABELS + NEW_LABELS
    kept = (drawn / "two.safetensors").stat().st_mtime_ns
    np.testing.assert_array_equal(project(embeddings, new, drawn / "two.safetensors"), again)
    assert (drawn / "two.safetensors").stat().st_mtime_ns == kept


@pytest.mark.timeout(1200)
def test_embeddings_of_one_number_have_a_map_too(drawn: Path):
    line = np.load(drawn / "line.npy")
    assert line.shape == (90, 2) and np.isfinite(line).all()


@pytest.mark.timeout(1200)
def test_a_map_leaves_pytorch_the_threads_that_it_had(drawn: Path):
    assert (drawn / "threads of pytorch").read_text() == "1"
