"""What the network is fed with: a pure function of (seed, phase, epoch, image), and one view for
gallery and query."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dml_bench.config import Experiment, load
from dml_bench.data import crops, inputs
from dml_bench.data.augmentations import (
    project,
    relight,
    resized_crop_boxes,
    rotations,
    symmetries,
    tilts,
    zooms,
)
from dml_bench.data.cache import ImageCache, View, open_caches
from dml_bench.data.crops import HostCrops
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import FeatureInputs, ImageInputs, open_image_inputs, tta_views
from dml_bench.data.split import make_split, phases
from dml_bench.system.seeding import uniform as seeded

SIZE, CROP_FROM = 8, 12
CPU = torch.device("cpu")


def experiment_with(
    *,
    crop_from: int = CROP_FROM,
    flip: float = 0.5,
    seed: int = 42,
    size: int = SIZE,
    progressive: tuple[int, ...] = (),
    **augment: float,
) -> Experiment:
    return load(
        {
            "name": "test",
            "loss": "NTXent",
            "optimizer": "sgd",
            "seed": seed,
            "images": {"size": size, "progressive": progressive},
            "train": {"epochs": 6},
            "augment": {"random_crop_from": crop_from, "horizontal_flip": flip, **augment},
        }
    )


def cache_of(shapes: list[tuple[int, int]], seed: int = 0) -> ImageCache:
    """A cache in memory in which red is the row, green the column and blue the image."""
    images = []
    for image, (height, width) in enumerate(shapes):
        rows, columns = np.mgrid[:height, :width]
        images.append(
            np.stack([rows, columns, np.full_like(rows, image)], axis=-1)
            .astype(np.uint8)
            .reshape(-1)
        )
    heights, widths = np.array(shapes).T
    return ImageCache(
        Path("memory"),
        np.concatenate(images),
        np.concatenate([[0], np.cumsum(3 * heights * widths)])[:-1],
        heights,
        widths,
    )


SHAPES = [(12, 18), (17, 12), (12, 12), (12, 30)] * 3


def pixels_with(**changes) -> ImageInputs:
    experiment = experiment_with(**changes)
    view, crop_from = (
        cache_of([(experiment.images.size,) * 2] * 12),
        experiment.augment.random_crop_from,
    )
    larger = cache_of(
        [
            (height * crop_from // CROP_FROM, width * crop_from // CROP_FROM)
            for height, width in SHAPES
        ]
    )
    return ImageInputs(experiment, 12, larger if crop_from else view, view, CPU)


ALL = np.arange(12)
SIMCLR = {"resized_crop": 0.08, "color_jitter": 0.8, "grayscale": 0.2, "gaussian_blur": 0.5}
HEAVY = {"dihedral": 0.5, "rotate": 20, "zoom": 1.3, "warp": 0.2, "lighting": 0.3}


def test_a_batch_is_square_uint8_pixels_in_the_order_asked_for():
    for batch in (
        pixels_with().train(np.array([5, 0, 7]), phase="all", epoch=0),
        pixels_with().view(np.array([5, 0, 7])),
    ):
        assert (batch.shape, batch.dtype) == ((3, SIZE, SIZE, 3), torch.uint8)
        assert batch[:, 0, 0, 2].tolist() == [5, 0, 7]


def test_what_an_image_gets_does_not_depend_on_its_batch():
    batch = pixels_with().train(ALL, phase="all", epoch=3)
    source = pixels_with()
    source.train(ALL, phase="all", epoch=2)
    shuffled = np.array([7, 3, 11, 0, 5])
    assert torch.equal(source.train(shuffled, phase="all", epoch=3), batch[shuffled])
    source.train(ALL, phase="limited", epoch=3)
    for image in ALL:
        assert torch.equal(source.train(np.array([image]), phase="all", epoch=3)[0], batch[image])


def test_an_image_twice_in_a_batch_is_twice_the_same():
    batch = pixels_with().train(np.array([4, 9, 4]), phase="all", epoch=1)
    assert torch.equal(batch[0], batch[2])


def test_augmentation_depends_on_seed_phase_and_epoch():
    first = pixels_with().train(ALL, phase="all", epoch=0)
    assert torch.equal(pixels_with().train(ALL, phase="all", epoch=0), first)
    for other in (
        pixels_with().train(ALL, phase="all", epoch=1),
        pixels_with().train(ALL, phase="limited", epoch=0),
        pixels_with(seed=43).train(ALL, phase="all", epoch=0),
    ):
        assert not torch.equal(other, first)


def corners(source: ImageInputs, epochs: int) -> np.ndarray:
    """(epochs, images, 3): top, left and whether mirrored, read back from the pixels."""
    crops = np.empty((epochs, 12, 3), int)
    for epoch in range(epochs):
        batch = source.train(ALL, phase="all", epoch=epoch).numpy()
        crops[epoch, :, 0] = batch[:, 0, 0, 0]
        crops[epoch, :, 1] = np.minimum(batch[:, 0, 0, 1], batch[:, 0, -1, 1])
        crops[epoch, :, 2] = batch[:, 0, 0, 1] > batch[:, 0, -1, 1]
    return crops


def test_crops_and_mirroring_are_these_on_every_platform():
    assert corners(pixels_with(), 1)[0, :6].tolist() == [
        [3, 6, 0],
        [0, 3, 1],
        [3, 3, 1],
        [4, 7, 0],
        [3, 2, 1],
        [6, 1, 0],
    ]


def test_crops_are_whole_pieces_of_the_image():
    source = pixels_with(flip=0)
    batch = source.train(ALL, phase="all", epoch=0).numpy()
    for image, (top, left, _) in enumerate(corners(source, 1)[0]):
        assert np.array_equal(
            batch[image], source.train_cache[image][top : top + SIZE, left : left + SIZE]
        )


def test_crops_lie_at_every_place_inside_the_image_and_nowhere_else():
    crops = corners(pixels_with(), 400)
    for image, (height, width) in enumerate(SHAPES):
        assert set(crops[:, image, 0]) == set(range(height - SIZE + 1))
        assert set(crops[:, image, 1]) == set(range(width - SIZE + 1))


def test_each_place_is_as_likely_as_any_other():
    tops = corners(pixels_with(), 400)[:, 2::4, 0]
    assert np.bincount(tops.ravel()) == pytest.approx([240] * 5, abs=60)


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.8])
def test_images_are_mirrored_as_often_as_asked(probability):
    assert corners(pixels_with(flip=probability), 300)[:, :, 2].mean() == pytest.approx(
        probability, abs=0.03
    )


def test_top_left_and_mirroring_are_independent():
    crops = corners(pixels_with(), 400)[:, 2::4].reshape(-1, 3)
    assert np.abs(np.corrcoef(crops.T) - np.eye(3)).max() < 0.1


@pytest.mark.parametrize("crop_from", [0, CROP_FROM])
def test_a_mirrored_batch_is_the_batch_flipped_from_left_to_right(crop_from):
    plain = pixels_with(crop_from=crop_from, flip=0).train(ALL, phase="all", epoch=5).numpy()
    mirrored = pixels_with(crop_from=crop_from, flip=1).train(ALL, phase="all", epoch=5).numpy()
    assert np.array_equal(mirrored, np.flip(plain, axis=2))
    assert not np.array_equal(mirrored, plain)


def test_without_augmentation_training_sees_the_view():
    source = pixels_with(crop_from=0, flip=0)
    for epoch in (0, 1):
        assert torch.equal(source.train(ALL, phase="all", epoch=epoch), source.view(ALL))


def trained(source: ImageInputs, images: np.ndarray = ALL, **which) -> torch.Tensor:
    return source.train(images, **{"phase": "all", "epoch": 0, **which})


@pytest.mark.parametrize("augment", [{}, SIMCLR, HEAVY], ids=["crop_and_flip", "simclr", "heavy"])
class TestViews:
    def test_each_view_is_another_and_the_first_is_what_one_gets_without_asking(self, augment):
        views = [trained(pixels_with(**augment), view=view) for view in range(3)]
        assert torch.equal(trained(pixels_with(**augment)), views[0])
        assert not any(
            torch.equal(views[one], views[other]) for one, other in ((0, 1), (0, 2), (1, 2))
        )

    def test_what_an_image_gets_depends_on_its_view_not_on_its_batch_or_what_was_asked_before(
        self, augment
    ):
        by_view = [trained(pixels_with(**augment), epoch=3, view=view) for view in (0, 1)]
        source, some = pixels_with(**augment), np.array([7, 3, 11, 0, 5])
        for order in ((0, 1, 0), (1, 0)):
            for view in order:
                assert torch.equal(trained(source, some, epoch=3, view=view), by_view[view][some])
            trained(source, phase="limited", epoch=3)
        for image in ALL:
            assert torch.equal(
                trained(source, np.array([image]), epoch=3, view=1)[0], by_view[1][image]
            )

    def test_every_view_depends_on_seed_phase_and_epoch(self, augment):
        first = trained(pixels_with(**augment), view=1)
        for other in (
            trained(pixels_with(**augment), view=1, epoch=1),
            trained(pixels_with(**augment), view=1, phase="limited"),
            trained(pixels_with(seed=43, **augment), view=1),
        ):
            assert not torch.equal(other, first)

    def test_gallery_and_query_are_never_augmented(self, augment):
        source = pixels_with(**augment)
        trained(source, view=1)
        assert torch.equal(source.view(ALL), pixels_with(crop_from=0, flip=0).view(ALL))


def noise_with(**changes) -> ImageInputs:
    """A source whose images are noise, so that every change of colour shows."""
    source = pixels_with(**changes)
    shape = source.train_cache
    pixels = np.random.default_rng(3).integers(0, 256, len(shape.pixels), dtype=np.uint8)
    source.train_cache = ImageCache(
        Path("memory"), pixels, shape.offsets, shape.heights, shape.widths
    )
    return source


GEOMETRY, LIGHT = {"geometry_probability": 0.4}, {"lighting_probability": 0.3}
CHANGES = {
    "dihedral": {"dihedral": 0.6},
    "rotate": {"rotate": 20} | GEOMETRY,
    "zoom": {"zoom": 1.3} | GEOMETRY,
    "warp": {"warp": 0.2} | GEOMETRY,
    "lighting": {"lighting": 0.3} | LIGHT,
    "color_jitter": {"color_jitter": 0.6},
    "grayscale": {"grayscale": 0.6},
    "gaussian_blur": {"gaussian_blur": 0.6},
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_has_its_own_draws_and_moves_no_crop(name):
    rest = {
        key: value
        for other, change in CHANGES.items()
        if other != name
        for key, value in change.items()
    }
    plain, alone = trained(noise_with()), trained(noise_with(**CHANGES[name]))
    others, everything = trained(noise_with(**rest)), trained(noise_with(**(rest | CHANGES[name])))
    changed = (alone != plain).flatten(1).any(1)
    assert 0 < changed.sum() < 12
    assert torch.equal(everything[~changed], others[~changed])
    assert not torch.equal(everything[changed], others[changed])


def test_the_geometry_is_one_look_up_in_the_crop():
    source, draws = noise_with(**HEAVY), {}
    for purpose, columns in (
        ("dihedral", 2),
        ("rotate", 2),
        ("zoom", 4),
        ("warp", 3),
        ("lighting", 4),
    ):
        draws[purpose] = seeded(42, "all", 0, purpose, rows=12, columns=columns)
    turned = symmetries(draws["dihedral"], 0.5) @ rotations(draws["rotate"], 20, 0.75)
    moved = project(
        trained(noise_with()),
        turned @ zooms(draws["zoom"], 1.3, 0.75) @ tilts(draws["warp"], 0.2, 0.75),
    )
    assert torch.equal(trained(source), relight(moved, draws["lighting"], 0.3, 0.75))


def test_training_images_grow_with_the_epochs_and_evaluation_stays_as_it_is():
    source, full = (
        noise_with(size=16, progressive=(8, 12, 16), crop_from=20),
        noise_with(size=16, crop_from=20),
    )
    assert [trained(source, epoch=epoch).shape for epoch in range(1, 7)] == [
        (12, side, side, 3) for side in (8, 8, 12, 12, 16, 16)
    ]
    assert torch.equal(trained(source, epoch=6), trained(full, epoch=6))
    assert torch.equal(source.view(ALL), full.view(ALL))


def test_a_small_training_image_is_the_same_crop_made_smaller():
    source, full = (
        noise_with(size=16, progressive=(8, 16), crop_from=20),
        noise_with(size=16, crop_from=20),
    )
    blocks = trained(full, epoch=2).float().view(12, 8, 2, 8, 2, 3).mean((2, 4))
    small = trained(source, epoch=2).float()
    assert np.corrcoef(small.flatten(), blocks.flatten())[0, 1] > 0.9
    assert torch.equal(trained(source, np.array([5]), epoch=2)[0], small[5].byte())


def test_a_mirrored_resized_crop_is_the_crop_flipped_from_left_to_right():
    plain, mirrored = (trained(noise_with(flip=flip, resized_crop=0.2)).numpy() for flip in (0, 1))
    assert np.array_equal(mirrored, np.flip(plain, axis=2))


def test_mirroring_does_not_depend_on_how_images_are_cropped():
    cropped, resized = (corners(pixels_with(resized_crop=area), 20)[:, :, 2] for area in (0, 0.5))
    assert np.array_equal(cropped, resized)


def test_resized_crops_are_cut_anywhere_from_the_image_at_the_larger_size():
    source = pixels_with(flip=0, resized_crop=0.3)
    height, width = SHAPES[3]
    rows, columns = [], []
    for epoch in range(300):
        red, green, blue = trained(source, np.array([3]), epoch=epoch)[0].numpy().T
        assert (
            (blue == 3).all()
            and (np.diff(red.astype(int), axis=1) >= 0).all()
            and (np.diff(green.astype(int), axis=0) >= 0).all()
        )
        rows += [red.min(), red.max()]
        columns += [green.min(), green.max()]
    assert (min(rows), max(rows), min(columns), max(columns)) == (0, height - 1, 0, width - 1)


def resident(
    source: ImageInputs, monkeypatch: pytest.MonkeyPatch, room: int = 10**9
) -> ImageInputs:
    """As on a GPU with this room, but in the memory of the CPU."""
    monkeypatch.setattr(inputs, "room_for_images", lambda device: room)
    source.keep_on_device()
    return source


@pytest.mark.parametrize(
    "changes",
    [{}, {"crop_from": 0}, HEAVY, SIMCLR, {"size": 16, "crop_from": 24, "progressive": (8, 16)}],
)
def test_a_device_that_holds_the_images_cuts_the_same_pixels(
    dataset, tmp_path, monkeypatch, changes
):
    experiment, images = (
        experiment_with(**changes),
        np.random.default_rng(0).permutation(np.tile(np.arange(20), 2)),
    )
    looks = tta_views("mirror") + (
        tta_views("crops") if experiment.augment.random_crop_from else ()
    )

    def batches(source: ImageInputs) -> list[torch.Tensor]:
        return [
            *(source.train(images, phase="all", epoch=epoch) for epoch in (1, 4)),
            *(source.view(images, look) for look in looks),
        ]

    mapped, held = (open_image_inputs(experiment, dataset, tmp_path, CPU) for _ in range(2))
    expected = batches(mapped)
    resident(held, monkeypatch)
    monkeypatch.delattr(ImageCache, "__getitem__")  # the file is not looked at again
    assert all(
        torch.equal(batch, same) for batch, same in zip(batches(held), expected, strict=True)
    )


@pytest.mark.parametrize("changes", [{}, SIMCLR], ids=["cropped", "resized"])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_threads_make_the_batch_that_one_makes_and_a_device_mirrors_it(
    dataset, tmp_path, changes, count
):
    source = open_image_inputs(experiment_with(**changes), dataset, tmp_path, CPU)
    images = np.random.default_rng(0).permutation(np.tile(np.arange(20), 2))[:count]
    sides = source.train_cache.heights[images], source.train_cache.widths[images]
    boxes = resized_crop_boxes(*sides, np.random.default_rng(1).random((count, 4)), 0.3)
    mirrored = np.arange(count) % 3 == 0
    cutter = HostCrops(source.train_cache, CPU)
    expected = cutter.cut(images, boxes, mirrored, SIZE)
    batch = np.empty((count, SIZE, SIZE, 3), np.uint8)
    cutter.fill_in_threads(batch, images, boxes)
    assert torch.equal(crops.mirrored_where(torch.from_numpy(batch), mirrored), expected)


def test_a_device_holds_what_it_has_room_for_the_training_images_first(
    dataset, tmp_path, monkeypatch
):
    larger, smaller = 20 * 12 * 15 * 3, 20 * SIZE * SIZE * 3
    for room, first, second in (
        (larger + smaller, True, True),
        (larger + smaller - 1, True, False),
        (smaller, False, True),
        (0, False, False),
    ):
        source = resident(
            open_image_inputs(experiment_with(), dataset, tmp_path, CPU), monkeypatch, room
        )
        assert (
            source.train_cache.folder in source.resident,
            source.view_cache.folder in source.resident,
        ) == (first, second)
    assert crops.room_for_images(CPU) == 0


@pytest.mark.parametrize("crop_from", [0, CROP_FROM])
def test_resized_crops_are_cut_from_the_whole_file_in_its_own_detail(dataset, tmp_path, crop_from):
    source = open_image_inputs(
        experiment_with(crop_from=crop_from, **SIMCLR), dataset, tmp_path, CPU
    )
    assert np.array_equal(source.train_cache[3], Image.open(dataset.root / "03.png"))
    batch = trained(source, np.arange(20))
    assert (batch.shape, batch.dtype) == ((20, SIZE, SIZE, 3), torch.uint8)
    assert torch.equal(trained(source, np.arange(20)), batch)


@pytest.mark.parametrize(
    ("size", "area", "side"),
    [(224, 1.0, 224), (224, 0.2, 501), (224, 0.08, 792), (64, 0.2, 144), (64, 0.001, 256)],
)
def test_the_smallest_resized_crop_has_the_networks_size_down_to_a_sixteenth(size, area, side):
    assert inputs.detailed(size, area) == side


def test_the_corners_of_tta_are_cut_as_far_out_as_without_resized_crops(dataset, tmp_path):
    looks = tta_views("crops")
    plain, resizing = (
        open_image_inputs(
            replace(
                experiment_with(**augment),
                evaluate=replace(experiment_with().evaluate, tta="crops"),
            ),
            dataset,
            tmp_path,
            CPU,
        )
        for augment in ({}, SIMCLR)
    )
    for look in looks:
        assert torch.equal(plain.view(np.arange(20), look), resizing.view(np.arange(20), look))


def test_images_longer_than_four_to_one_are_counted_and_named_once(dataset, tmp_path):
    for name, size in (("03.png", (200, 20)), ("07.png", (4, 90))):
        Image.new("RGB", size).save(dataset.root / name)
    said = []
    source = open_image_inputs(experiment_with(), dataset, tmp_path, CPU, warn=said.append)
    assert said == [
        "2 of 20 images are longer than 4:1; training crops see their middle: 03.png, 07.png"
    ]
    assert source.train_cache.cut == ("03.png", "07.png")


@pytest.mark.parametrize("how", ["mapped", "resident", "statistics"])
def test_whoever_reads_the_pixels_first_finds_damage(dataset, tmp_path, monkeypatch, how):
    def seen() -> list[torch.Tensor]:
        source = open_image_inputs(experiment_with(), dataset, tmp_path, CPU)
        if how == "resident":
            resident(source, monkeypatch)
        if how == "statistics":
            return list(source.statistics(np.arange(20)))
        return [trained(source, np.arange(20)), source.view(np.arange(20))]

    expected = seen()
    for file in tmp_path.glob("images/*/pixels.u8"):
        written = np.fromfile(file, np.uint8)
        written[:: len(written) // 20] ^= 4
        written.tofile(file)
    assert all(torch.equal(before, after) for before, after in zip(expected, seen(), strict=True))


def opened(dataset, view, cache_dir, **progress):
    (cache,) = open_caches(dataset, view, cache_dir=cache_dir, **progress)
    return cache


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four classes of five images on the disk."""
    root = tmp_path / "images"
    root.mkdir()
    paths = tuple(f"{image:02}.png" for image in range(20))
    for image, path in enumerate(paths):
        Image.fromarray(
            np.random.default_rng(image).integers(0, 256, (20, 26, 3), dtype=np.uint8)
        ).save(root / path)
    return Dataset(
        name="birds",
        root=root,
        paths=paths,
        labels=np.arange(20) // 5,
        class_names=("auk", "jay", "owl", "wren"),
    )


def test_gallery_and_query_get_the_same_view_whatever_was_trained_before(dataset, tmp_path):
    source = open_image_inputs(experiment_with(), dataset, tmp_path, CPU)
    everything = np.arange(20)
    expected = np.stack(
        [opened(dataset, View("crop", SIZE), tmp_path)[image] for image in everything]
    )
    assert np.array_equal(source.view(everything), expected)
    for phase, epoch in (("all", 0), ("limited", 7)):
        source.train(everything, phase=phase, epoch=epoch)
        assert np.array_equal(source.view(everything), expected)
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    assert np.array_equal(source.view(split.train), expected[split.train])
    assert np.array_equal(source.view(split.test), expected[split.test])


def test_the_view_is_that_of_the_experiment_without_augmentation(dataset, tmp_path):
    augmented = open_image_inputs(experiment_with(), dataset, tmp_path, CPU)
    plain = open_image_inputs(experiment_with(crop_from=0, flip=0), dataset, tmp_path, CPU)
    assert torch.equal(augmented.view(np.arange(20)), plain.view(np.arange(20)))


def test_random_crops_are_cut_from_the_image_at_the_larger_size(dataset, tmp_path):
    source = open_image_inputs(experiment_with(flip=0), dataset, tmp_path, CPU)
    assert (source.train_cache.heights[0], source.train_cache.widths[0]) == (12, 15)
    crop = source.train(np.array([0]), phase="all", epoch=0)[0].numpy()
    larger = opened(dataset, View("shorter", CROP_FROM), tmp_path)[0]
    places = [(top, left) for top in range(5) for left in range(8)]
    assert (
        sum(
            np.array_equal(crop, larger[top : top + SIZE, left : left + SIZE])
            for top, left in places
        )
        == 1
    )


def test_statistics_are_those_of_numpy_over_the_given_images_only(dataset, tmp_path):
    source = open_image_inputs(experiment_with(), dataset, tmp_path, CPU)
    images = np.array([1, 4, 13])
    values = source.view(images).numpy().astype(np.float64) / 255
    mean, std = source.statistics(images)
    assert mean.tolist() == pytest.approx(values.mean((0, 1, 2)), abs=1e-6)
    assert std.tolist() == pytest.approx(values.std((0, 1, 2)), abs=1e-6)
    assert (mean.dtype, std.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("level", [0, 1, 26, 255])
def test_images_of_one_colour_have_no_deviation(level):
    source, shape = pixels_with(), cache_of([(64, 64)] * 12)
    source.view_cache = ImageCache(
        Path("memory"),
        np.full_like(shape.pixels, level),
        shape.offsets,
        shape.heights,
        shape.widths,
    )
    mean, std = source.statistics(ALL)
    assert mean.tolist() == pytest.approx([level / 255] * 3)
    assert std.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_statistics_do_not_change_with_the_pixels_of_held_out_classes_or_test_images(
    dataset, tmp_path
):
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    limited = phases(((3,),))[1]
    trained = limited.trains_on(dataset, split)

    def statistics(root: Path) -> tuple[list[float], list[float]]:
        here = Dataset(
            name="birds",
            root=root,
            paths=dataset.paths,
            labels=dataset.labels,
            class_names=dataset.class_names,
        )
        mean, std = open_image_inputs(experiment_with(), here, tmp_path / "cache", CPU).statistics(
            trained
        )
        return mean.tolist(), std.tolist()

    before = statistics(dataset.root)
    never_trained = np.setdiff1d(np.arange(20), trained)
    assert set(split.test) < set(never_trained) and set(np.flatnonzero(dataset.labels == 3)) < set(
        never_trained
    )
    for image in never_trained:
        Image.new("RGB", (20, 20), "white").save(dataset.root / dataset.paths[image])
    assert statistics(dataset.root) == before
    Image.new("RGB", (20, 20), "white").save(dataset.root / dataset.paths[trained[0]])
    assert statistics(dataset.root) != before


def test_features_are_rows_of_the_table_in_training_and_evaluation():
    source = FeatureInputs(torch.arange(12.0).reshape(6, 2))
    images = np.array([4, 0, 4])
    assert source.view(images).tolist() == [[8, 9], [0, 1], [8, 9]]
    for view in (0, 1):
        assert torch.equal(
            source.train(images, phase="all", epoch=3, view=view), source.view(images)
        )
