"""Test-time augmentation: which views, how they are combined, and that a new photo is looked at in
the same way."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny, train

from dml_bench.cli.app import main
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import PLAIN, ImageInputs, TTAView, open_image_inputs, tta_views
from dml_bench.evaluation.search import Neighbours, search_views, without_itself
from dml_bench.gallery.embedder import GalleryEmbedder, MirrorTTA
from dml_bench.gallery.export import export
from dml_bench.gallery.store import open_gallery_file
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.runs.embed_and_search import mean_of_views, weights_of_views

MIRROR = ("evaluate.tta=mirror", "train.epochs=1")
LARGEST = ("evaluate.tta=mirror", "evaluate.tta_by=max", "train.epochs=1")


def unit_rows(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# How views are combined


def test_the_mean_of_views_is_that_of_their_directions_at_unit_length():
    views = [torch.tensor([[5.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0]])]
    assert mean_of_views(views) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_one_view_is_left_as_it_is_to_the_last_bit():
    outputs = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(
        mean_of_views([outputs]), torch.nn.functional.normalize(outputs, dim=1).numpy()
    )


def by_brute_force(views: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    similarities = np.stack([view @ gallery.T for view in views]).max(axis=0)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarities, order, 1)


@pytest.mark.parametrize(("views", "k"), [(1, 5), (2, 1), (2, 5), (10, 7), (3, 40), (3, 99)])
def test_the_neighbours_by_the_most_similar_view_are_exact(views, k):
    queries, gallery = unit_rows((views, 30, 8), 1), unit_rows((40, 8), 2)
    neighbours = search_views(queries, gallery, np.zeros(40, int), np.zeros(30, int), k)
    indices, similarities = by_brute_force(queries, gallery, min(k, 40))
    assert np.array_equal(neighbours.indices, indices)
    assert neighbours.similarities == pytest.approx(similarities, abs=1e-6)


def test_gallery_images_that_are_equally_near_to_a_query_s_views_stay_in_gallery_order():
    gallery = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    views = np.array([[[1, 0]], [[0, 1]]], np.float32)
    neighbours = search_views(views, gallery, np.arange(4), np.zeros(1, int), 3)
    assert neighbours.indices.tolist() == [[0, 1, 2]]
    assert neighbours.similarities.tolist() == [[1.0, 1.0, 1.0]]


def test_an_image_of_several_views_does_not_find_itself():
    gallery = unit_rows((12, 8), 3)
    views = np.stack([gallery, unit_rows((12, 8), 4)])
    neighbours = without_itself(search_views(views, gallery, np.arange(12), np.arange(12), 5 + 1))
    assert neighbours.leaves_one_out and neighbours.k == 5
    assert not (neighbours.indices == np.arange(12)[:, None]).any()


# Which views


@pytest.fixture(scope="module")
def pixels(birds: Path, cache_dir: Path) -> ImageInputs:
    """Birds at 40 px, seen at 32 px, cropped from 36."""
    experiment = tiny("evaluate.tta=crops")
    dataset = open_dataset(experiment.data.dataset, birds, cache_dir)
    return open_image_inputs(experiment, dataset, cache_dir, torch.device("cpu"))


def test_mirror_is_the_usual_view_and_its_mirror_image(pixels: ImageInputs):
    images = np.array([3, 11])
    plain, mirrored = (pixels.view(images, variant) for variant in tta_views("mirror"))
    assert torch.equal(plain, pixels.view(images))
    assert torch.equal(mirrored, plain.flip(2))


def test_crops_are_four_corners_and_the_centre_and_the_mirror_images_of_each(pixels: ImageInputs):
    views = [pixels.view(np.array([5]), variant)[0].numpy() for variant in tta_views("crops")]
    image = pixels.train_cache[5]
    height, width = image.shape[:2]
    assert min(height, width) == 36
    bottom, right = height - 32, width - 32
    for view, (top, left) in zip(
        views,
        [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)],
        strict=False,
    ):
        assert np.array_equal(view, image[top : top + 32, left : left + 32])
    assert len(views) == 10
    assert all(
        np.array_equal(mirrored, view[:, ::-1])
        for view, mirrored in zip(views[:5], views[5:], strict=True)
    )


def test_without_tta_there_is_one_view():
    assert tta_views("none") == (PLAIN,) == (TTAView(None, None, False),)


# In a run


@pytest.fixture(scope="module")
def plain(trained) -> Path:
    return trained("train.epochs=1", "train.precision=float32").folder


@pytest.fixture(scope="module")
def mirrored(trained) -> Path:
    return trained(*MIRROR, "train.precision=float32").folder


@pytest.fixture(scope="module")
def largest(trained) -> Path:
    settings = (
        *LARGEST,
        "loss=crossentropy",
        "miner=none",
        "model.head=identity",
        "data.valid_fraction=0.2",
    )
    return trained(*settings).folder


def test_tta_changes_the_evaluation_of_both_phases_and_nothing_of_the_training(
    plain: Path, mirrored: Path
):
    for phase in ("all", "limited"):
        assert (plain / phase / "weights.safetensors").read_bytes() == (
            mirrored / phase / "weights.safetensors"
        ).read_bytes()
        before, after = (
            read_arrays(folder / phase / "embeddings.safetensors") for folder in (plain, mirrored)
        )
        for part in ("gallery", "query"):
            assert not np.allclose(before[part], after[part])
            assert np.linalg.norm(after[part], axis=1) == pytest.approx(1, abs=1e-5)


def test_the_similarity_by_max_is_of_the_query_s_most_similar_view_with_the_gallery_s_mean(
    largest: Path,
):
    for phase in ("all", "limited"):
        stored, neighbours = (
            read_arrays(largest / phase / "embeddings.safetensors"),
            read_neighbours(largest / phase / "neighbours.safetensors"),
        )
        assert stored["query_views"].shape == (2, *stored["query"].shape)
        mean = stored["query_views"].mean(0)
        assert stored["query"] == pytest.approx(
            mean / np.linalg.norm(mean, axis=1, keepdims=True), abs=1e-5
        )
        _, similarities = by_brute_force(stored["query_views"], stored["gallery"], neighbours.k)
        assert neighbours.similarities == pytest.approx(similarities, abs=1e-5)


def test_class_probabilities_by_max_still_sum_to_one(largest: Path):
    for phase in ("all", "limited"):
        logits = read_arrays(largest / phase / "logits.safetensors")
        assert logits["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(
            logits["predicted"], logits["classes"][logits["probabilities"].argmax(axis=1)]
        )


def test_folds_are_averaged_view_by_view_before_the_most_similar_view_is_taken(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    folder = train(birds, cache_dir, tmp_path, *LARGEST, "train.folds=2").folder
    parts = [
        read_arrays(folder / "all" / f"fold-{number}" / "embeddings.safetensors")
        for number in (1, 2)
    ]
    similarities = np.mean([part["query_views"] @ part["gallery"].T for part in parts], axis=0).max(
        axis=0
    )
    neighbours: Neighbours = read_neighbours(folder / "all" / "neighbours.safetensors")
    assert neighbours.similarities[:, 0] == pytest.approx(similarities.max(axis=1), abs=1e-5)


def test_crops_run_in_the_protocol_of_disjoint_classes(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    settings = (
        "protocol=class_disjoint",
        "data.split=half",
        "evaluate.tta=crops",
        "evaluate.tta_by=max",
        "train.epochs=1",
    )
    folder = train(birds, cache_dir, tmp_path, *settings).folder
    neighbours = read_neighbours(folder / "disjoint" / "neighbours.safetensors")
    assert neighbours.leaves_one_out
    assert not (neighbours.indices == np.arange(len(neighbours.indices))[:, None]).any()


# New photos


def test_an_image_and_its_mirror_image_are_embedded_alike():
    embedder = build_embedder(tiny()).eval()
    photos = torch.randint(
        0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        assert torch.allclose(
            MirrorTTA(embedder)(photos), MirrorTTA(embedder)(photos.flip(2)), atol=1e-6
        )
        assert not torch.allclose(embedder(photos), embedder(photos.flip(2)), atol=1e-3)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dml-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("phase", ["all", "limited"])
def test_a_new_photo_is_looked_at_as_the_run_looked_at_its_own(mirrored: Path, phase: str):
    place = open_gallery_file(mirrored, phase, None)
    gallery = place.read()
    paths = [Path(entry.path) for entry in gallery.entries[:7]]
    assert GalleryEmbedder(place.run, phase, "cpu").embed(paths).embeddings == pytest.approx(
        gallery.embeddings[:7], abs=1e-5
    )


def test_the_exported_network_looks_at_mirror_images_too(mirrored: Path, tmp_path: Path):
    place = open_gallery_file(mirrored, "all", None)
    exported = export(place.run, "all", place.read(), tmp_path / "model")
    assert exported.agreement.gallery_max_difference < 1e-4


@pytest.mark.parametrize("verb", ["predict", "enrol", "export"])
def test_a_run_by_the_most_similar_view_refuses_new_photos_in_one_line(
    largest: Path,
    birds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb,
):
    folder = tmp_path / "new" / "bird"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(folder / "a.png")
    more = {
        "predict": [folder / "a.png"],
        "enrol": ["--images", folder.parent],
        "export": ["--out", tmp_path / "model"],
    }[verb]
    assert command(monkeypatch, verb, largest, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "was evaluated with evaluate.tta = mirror by max, which new photos don't support: run"
        " it with --set" in line
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["evaluate.tta_by=max"], "evaluate.tta_by has no effect without evaluate.tta"),
        (
            ["evaluate.tta=flip"],
            "evaluate.tta must be one of 'none', 'mirror', 'crops', 'random', got 'flip'",
        ),
        (
            ["evaluate.tta=crops", "augment.random_crop_from=0"],
            r"needs augment.random_crop_from above images.size \(32\)",
        ),
        (
            [
                "evaluate.tta=mirror",
                "model.trainable=head",
                "augment.random_crop_from=0",
                "augment.horizontal_flip=0",
            ],
            "has the features of one view of each image: --set evaluate.tta=none",
        ),
    ],
)
def test_tta_that_can_t_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(*settings)


# Random views


RANDOM = (
    *("evaluate.tta=random", "evaluate.tta_draws=2", "evaluate.tta_plain_weight=0.5"),
    "train.epochs=1",
)


def test_random_views_are_the_image_and_draws_of_it_that_are_the_same_in_every_phase(
    birds, cache_dir
):
    experiment = tiny(*RANDOM)
    dataset = open_dataset(experiment.data.dataset, birds, cache_dir)
    source = open_image_inputs(experiment, dataset, cache_dir, torch.device("cpu"))
    views = tta_views("random", 2)
    assert views == (PLAIN, PLAIN._replace(draw=1), PLAIN._replace(draw=2))
    images = np.arange(6)
    plain, first, second = (source.view(images, view) for view in views)
    assert not torch.equal(first, second) and not torch.equal(first, plain)
    source.train(images, phase="all", epoch=3)
    assert torch.equal(source.view(images, views[1]), first)
    assert torch.equal(source.view(images[3:], views[1]), first[3:])


def test_the_plain_view_has_its_weight_and_the_draws_share_the_rest():
    evaluate = tiny(*RANDOM).evaluate
    assert weights_of_views(evaluate) == [0.5, 0.25, 0.25]
    assert weights_of_views(tiny(*MIRROR).evaluate) is None
    views = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), torch.tensor([[0.0, 1.0]])]
    assert mean_of_views(views, [0.5, 0.25, 0.25]) == pytest.approx(
        np.array([[0.5**0.5, 0.5**0.5]])
    )


def test_a_run_with_random_views_has_other_embeddings_than_one_without(trained):
    with_views, without = trained(*RANDOM).folder, trained("train.epochs=1").folder
    one, other = (read_arrays(f / "all" / "embeddings.safetensors") for f in (with_views, without))
    assert not np.array_equal(one["query"], other["query"])
    np.testing.assert_allclose(np.linalg.norm(one["query"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("evaluate.tta=random", "augment={}"),
            "evaluate.tta = random has no effect without [augment]",
        ),
        (("evaluate.tta=mirror", "evaluate.tta_draws=2"), "go with evaluate.tta = random"),
    ],
)
def test_random_views_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        tiny(*settings)
    assert message in str(caught.value)
