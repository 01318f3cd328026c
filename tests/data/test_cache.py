"""The image cache holds torchvision's pixels, is used again while it is whole, is never half there,
and is never believed unread."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from dml_bench.data import cache as cache_module
from dml_bench.data.cache import ImageCache, UnreadableImages, View, open_caches
from dml_bench.data.datasets import Dataset

SIZES = {
    "landscape": (61, 40),
    "portrait": (33, 50),
    "square": (48, 48),
    "small": (20, 17),
    "narrow": (13, 90),
}


def photograph(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def opened(dataset, view, cache_dir, **progress):
    (cache,) = open_caches(dataset, view, cache_dir=cache_dir, **progress)
    return cache


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = tmp_path / "images"
    root.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        photograph(*size, seed).save(root / f"{name}.png")
    paths = tuple(sorted(f"{name}.png" for name in SIZES))
    return Dataset(
        name="birds",
        root=root,
        paths=paths,
        labels=np.array([0, 0, 1, 1, 1]),
        class_names=("auk", "jay"),
    )


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def torchvision_view(view: View, image: Image.Image) -> np.ndarray:
    resize = v2.Resize(
        [view.size] * 2 if view.fit == "squash" else view.crop_from or view.size,
        InterpolationMode(view.interpolation),
        antialias=True,
    )
    steps = [resize, v2.CenterCrop(view.size)] if view.fit == "crop" else [resize]
    return np.asarray(v2.Compose(steps)(image))


@pytest.mark.parametrize(
    "view",
    [
        View("crop", 24),
        View("squash", 24),
        View("shorter", 29),
        View("crop", 31),
        View("crop", 24, crop_from=29),
    ],
    ids=str,
)
def test_the_pixels_are_those_of_torchvision(dataset, cache_dir, view):
    cache = opened(dataset, view, cache_dir)
    for image, path in enumerate(dataset.paths):
        expected = torchvision_view(view, Image.open(dataset.root / path))
        assert cache[image].dtype == np.uint8
        if path == "narrow.png":  # of 13 x 90 the middle 4:1 is kept
            assert_the_middle(cache[image], expected)
        else:
            assert np.array_equal(cache[image], expected), path


def test_bicubic_pixels_are_those_of_torchvision(dataset, cache_dir):
    view = View("crop", 24, interpolation="bicubic")
    cache = opened(dataset, view, cache_dir)
    for image, path in enumerate(dataset.paths):
        if path != "narrow.png":
            expected = torchvision_view(view, Image.open(dataset.root / path))
            assert np.array_equal(cache[image], expected), path


def assert_the_middle(kept: np.ndarray, original: np.ndarray) -> None:
    """To within a level, of an upright image."""
    top = round((len(original) - len(kept)) / 2)
    assert np.abs(kept.astype(int) - original[top : top + len(kept)]).max() <= 1


@pytest.mark.parametrize("size", [(3, 2000), (2000, 3), (2, 6000), (41, 10), (500, 11)])
def test_a_thin_image_has_torchvisions_centre_to_within_a_level(size):
    image = photograph(*size, seed=1)
    ours, theirs = (
        View("crop", 24).apply(image).astype(int),
        torchvision_view(View("crop", 24), image),
    )
    assert ours.shape == (24, 24, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_crop_from_a_larger_image_has_a_cache_of_its_own_and_leaves_the_usual_one_its_key(
    dataset, cache_dir
):
    usual, larger = (
        opened(dataset, view, cache_dir).folder
        for view in (View("crop", 24), View("crop", 24, crop_from=29))
    )
    keys = [json.loads((folder / "manifest.json").read_text())["key"] for folder in (usual, larger)]
    assert keys[0].keys() == {"format", "dataset", "fit", "size", "pillow"}
    assert keys[1] == keys[0] | {"crop_from": 29}
    assert usual != larger


@pytest.mark.parametrize(
    ("size", "kept", "cut"),
    [((20, 79), 79, False), ((20, 80), 80, False), ((20, 81), 80, True), ((2, 6000), 80, True)],
)
def test_training_crops_roam_an_image_up_to_four_to_one_and_the_middle_of_a_longer_one(
    tmp_path, size, kept, cut
):
    for turned, name in ((size, "a.png"), (size[::-1], "b.png")):
        photograph(*turned, seed=2).save(tmp_path / name)
    dataset = Dataset(
        name="birds",
        root=tmp_path,
        paths=("a.png", "b.png"),
        labels=np.array([0, 1]),
        class_names=("auk", "jay"),
    )
    cache = opened(dataset, View("shorter", 20), tmp_path / "cache")
    assert (cache[0].shape, cache[1].shape) == ((kept, 20, 3), (20, kept, 3))
    assert cache.cut == (("a.png", "b.png") if cut else ())
    assert_the_middle(
        cache[0], torchvision_view(View("shorter", 20), Image.open(tmp_path / "a.png"))
    )


@pytest.mark.parametrize(
    ("size", "shape"), [((100, 60), (30, 50, 3)), ((20, 10), (10, 20, 3)), ((8, 90), (32, 8, 3))]
)
def test_a_view_in_detail_enlarges_nothing(size, shape):
    assert View("detail", 30).apply(photograph(*size, seed=3)).shape == shape


@pytest.mark.parametrize(
    ("view", "shape"),
    [
        (View("crop", 10), (10, 10, 3)),
        (View("squash", 10), (10, 10, 3)),
        (View("shorter", 10), (10, 15, 3)),
    ],
    ids=str,
)
def test_the_shape_of_a_view_of_a_landscape_of_61_by_40(dataset, cache_dir, view, shape):
    cache = opened(dataset, view, cache_dir)
    image = dataset.paths.index("landscape.png")
    assert cache[image].shape == shape
    assert (cache.heights[image], cache.widths[image]) == shape[:2]


def test_the_views_differ_in_what_they_keep():
    # Left third red, the rest blue: squashing keeps the red, cropping the centre of a wide image
    # does not.
    image = Image.new("RGB", (90, 30), "blue")
    image.paste("red", (0, 0, 30, 30))
    assert View("crop", 10).apply(image)[:, :, 0].max() <= 30
    assert View("squash", 9).apply(image)[4, 0].tolist() == [255, 0, 0]
    assert View("shorter", 10).apply(image).shape == (10, 30, 3)


def files_of(cache_dir: Path) -> list[Path]:
    return sorted(
        path for path in cache_dir.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def folder_of(cache_dir: Path) -> Path:
    (folder,) = (cache_dir / "images").iterdir()
    return folder


VIEW = View("crop", 16)


def refuse_to_decode(*args, **kwargs):
    raise AssertionError("decoded again")


def test_a_whole_cache_is_used_again(dataset, cache_dir, monkeypatch):
    first = opened(dataset, VIEW, cache_dir)
    written = {path: path.stat().st_mtime_ns for path in files_of(cache_dir)}
    monkeypatch.setattr("dml_bench.data.cache.decode", refuse_to_decode)
    second = opened(dataset, VIEW, cache_dir)
    assert {path: path.stat().st_mtime_ns for path in files_of(cache_dir)} == written
    assert len(written) == 3
    for image in range(5):
        assert np.array_equal(first[image], second[image])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: truncate(folder / "manifest.json"),
    "manifest of another key": (
        lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"fit": "crop"', '"fit": "squash"')
        )
    ),
    "truncated pixels": lambda folder: truncate(folder / "pixels.u8"),
    "no pixels": lambda folder: (folder / "pixels.u8").unlink(),
    "no index": lambda folder: (folder / "index.npy").unlink(),
    "truncated index": lambda folder: truncate(folder / "index.npy"),
    "a flipped bit in the index": lambda folder: flip(folder / "index.npy", -1),
    "a flipped bit in the manifest": lambda folder: flip(folder / "manifest.json", -8),
}


def flip(path: Path, byte: int) -> None:
    written = bytearray(path.read_bytes())
    written[byte] ^= 1
    path.write_bytes(written)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_cache_is_built_again(dataset, cache_dir, damage):
    cache = opened(dataset, VIEW, cache_dir)
    expected = [cache[image].copy() for image in range(5)]
    intact = {path: path.read_bytes() for path in files_of(cache_dir)}
    damage(folder_of(cache_dir))
    again = opened(dataset, VIEW, cache_dir)
    for image in range(5):
        assert np.array_equal(again[image], expected[image])
    assert {path: path.read_bytes() for path in files_of(cache_dir)} == intact


def zero(path: Path, first: int, last: int) -> None:
    with open(path, "r+b") as file:
        file.seek(first)
        file.write(bytes(last - first))


PIXELS_DAMAGED = {
    "the first bit flipped": lambda file: flip(file, 0),
    "the last bit flipped": lambda file: flip(file, -1),
    "a page of zeros, as a power cut leaves": lambda file: zero(
        file, 16 * 16 * 3 - 40, 16 * 16 * 3 + 40
    ),
    "all zeros": lambda file: zero(file, 0, file.stat().st_size),
}


@pytest.mark.parametrize("damage", PIXELS_DAMAGED.values(), ids=PIXELS_DAMAGED.keys())
def test_damaged_pixels_are_decoded_again_before_they_are_seen(dataset, cache_dir, damage):
    expected = [opened(dataset, VIEW, cache_dir)[image].copy() for image in range(5)]
    file = folder_of(cache_dir) / "pixels.u8"
    intact, said = file.read_bytes(), []
    damage(file)
    again = opened(dataset, VIEW, cache_dir, warn=said.append)
    assert said == []
    assert all(np.array_equal(again[image], expected[image]) for image in range(5))
    assert file.read_bytes() == intact
    assert said and all("pixels.u8 was damaged; " in line for line in said)


def test_only_the_damaged_image_is_decoded_again(dataset, cache_dir, monkeypatch):
    opened(dataset, VIEW, cache_dir)
    flip(folder_of(cache_dir) / "pixels.u8", 2 * 16 * 16 * 3)
    decoded, original = [], cache_module.decode
    monkeypatch.setattr(
        cache_module,
        "decode",
        lambda path, *rest: decoded.append(path.name) or original(path, *rest),
    )
    cache = opened(dataset, VIEW, cache_dir)
    for _ in range(2):
        cache.checked()
    assert decoded == [dataset.paths[2]]


def changed_since(dataset: Dataset) -> Dataset:
    """The data set as it was read, after which one file got other pixels."""
    assert dataset.fingerprint
    photograph(48, 48, seed=99).save(dataset.root / "square.png")
    return dataset


def test_a_file_that_changed_after_its_fingerprint_is_not_decoded(dataset, cache_dir):
    with pytest.raises(
        ValueError,
        match=(
            r"square\.png changed after its fingerprint was taken: put it back, or `touch` it and"
            r" start again"
        ),
    ) as raised:
        opened(changed_since(dataset), VIEW, cache_dir)
    assert not isinstance(raised.value, UnreadableImages)
    assert list((cache_dir / "images").iterdir()) == []


def test_damage_that_can_not_be_mended_is_one_line_that_names_the_file(dataset, cache_dir):
    opened(dataset, VIEW, cache_dir)
    file, square = folder_of(cache_dir) / "pixels.u8", dataset.paths.index("square.png")
    flip(file, square * 16 * 16 * 3)
    with pytest.raises(
        ValueError, match=r"pixels\.u8 is damaged and can't be mended: .*square\.png changed after"
    ) as raised:
        opened(changed_since(dataset), VIEW, cache_dir)[square]
    assert "\n" not in str(raised.value)


def test_a_damaged_cache_that_can_not_be_written_is_one_line(dataset, cache_dir):
    opened(dataset, VIEW, cache_dir)
    file = folder_of(cache_dir) / "pixels.u8"
    flip(file, 0)
    cache = opened(dataset, VIEW, cache_dir)
    file.unlink()
    with pytest.raises(
        ValueError, match=r"pixels\.u8 is damaged and can't be mended \(No such file or directory\)"
    ):
        cache[0]


def test_what_an_interrupted_build_left_is_never_taken_for_a_cache(dataset, cache_dir, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dml_bench.data.cache.write_json", interrupted)
        opened(dataset, VIEW, cache_dir)
    assert files_of(cache_dir) == []
    assert opened(dataset, VIEW, cache_dir)[0].shape == (16, 16, 3)


def test_other_pixels_in_a_file_mean_another_cache(dataset, cache_dir):
    before = opened(dataset, VIEW, cache_dir)
    photograph(30, 30, seed=99).save(dataset.root / "square.png")
    changed = replace(dataset)
    after = opened(changed, VIEW, cache_dir)
    square = dataset.paths.index("square.png")
    assert len(list((cache_dir / "images").iterdir())) == 2
    assert not np.array_equal(after[square], before[square])


def test_each_view_has_its_own_cache(dataset, cache_dir):
    views = (View("crop", 16), View("squash", 16), View("shorter", 16), View("crop", 17))
    for view in (*views, View("crop", 16, interpolation="bicubic")):
        opened(dataset, view, cache_dir)
    assert len(list((cache_dir / "images").iterdir())) == 5


@pytest.mark.parametrize("fit", ["crop", "shorter"])
def test_unreadable_images_are_named_and_nothing_is_left_behind(dataset, cache_dir, fit):
    (dataset.root / "portrait.png").write_bytes(b"not an image")
    truncate(dataset.root / "landscape.png")
    with pytest.raises(UnreadableImages, match="2 of 5 images can't be read") as raised:
        opened(dataset, View(fit, 16), cache_dir)
    message = str(raised.value)
    assert (
        str(dataset.root / "portrait.png") in message
        and str(dataset.root / "landscape.png") in message
    )
    assert "--skip-unreadable" in message and "\n" not in message
    assert raised.value.images == {
        dataset.paths.index("portrait.png"),
        dataset.paths.index("landscape.png"),
    }
    assert list((cache_dir / "images").iterdir()) == []


def test_the_readable_images_are_cached_without_the_others(dataset, cache_dir):
    (dataset.root / "narrow.png").write_bytes(b"")
    with pytest.raises(UnreadableImages) as raised:
        opened(dataset, VIEW, cache_dir)
    rest = dataset.without(raised.value.images)
    cache = opened(rest, VIEW, cache_dir)
    assert rest.left_out == ("narrow.png",)

    decodings: list[str] = []
    with pytest.raises(UnreadableImages, match=r"1 of 5 images can't be read: .*narrow\.png"):
        open_caches(
            replace(dataset),
            VIEW,
            cache_dir=cache_dir,
            progress=lambda message, *_: decodings.append(message),
        )
    assert decodings == []  # the others aren't decoded again for each run
    assert np.array_equal(
        cache[1], torchvision_view(VIEW, Image.open(dataset.root / "portrait.png"))
    )


def test_of_many_unreadable_images_three_are_named_and_the_others_counted(dataset, cache_dir):
    for path in dataset.paths:
        (dataset.root / path).write_bytes(b"")
    with pytest.raises(UnreadableImages, match="5 of 5 images") as raised:
        opened(dataset, VIEW, cache_dir)
    assert sum(path in str(raised.value) for path in dataset.paths) == 3
    assert "and 2 more" in str(raised.value)


def test_a_full_disk_is_one_line_with_sizes_and_the_way_out_and_leaves_nothing(
    dataset, cache_dir, monkeypatch
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        ValueError, match=r"needs [\d,]+ MB in .*, where [\d,]+ MB are free; .*--cache-dir"
    ) as raised:
        opened(dataset, VIEW, cache_dir)
    assert str(cache_dir) in str(raised.value) and "\n" not in str(raised.value)
    assert list((cache_dir / "images").iterdir()) == []


def test_another_trouble_with_the_disk_is_not_called_a_full_one(dataset, cache_dir, monkeypatch):
    def broken(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", broken, raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        opened(dataset, VIEW, cache_dir)
    assert list((cache_dir / "images").iterdir()) == []


@pytest.mark.parametrize("view", [View("crop", 8), View("squash", 8), View("shorter", 8)], ids=str)
def test_boxes_are_cut_out_before_anything_else(dataset, cache_dir, view):
    boxes = np.array([[4, 3, 9, 12]] * 5, dtype=np.float64)
    cache = opened(replace(dataset, boxes=boxes), view, cache_dir)
    for image, path in enumerate(dataset.paths):
        cut = Image.open(dataset.root / path).crop((4, 3, 13, 15))
        assert np.array_equal(cache[image], torchvision_view(view, cut)), path


def test_other_boxes_mean_another_cache(dataset, cache_dir):
    for boxes in (None, np.array([[0.0, 0, 10, 10]] * 5), np.array([[1.0, 0, 10, 10]] * 5)):
        opened(replace(dataset, boxes=boxes), VIEW, cache_dir)
    assert len(list((cache_dir / "images").iterdir())) == 3


def test_progress_counts_up_to_the_number_of_images(dataset, cache_dir):
    calls = []
    opened(
        dataset, VIEW, cache_dir, progress=lambda message, done, total: calls.append((done, total))
    )
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_cached_pixels_can_not_be_changed(dataset, cache_dir):
    cache: ImageCache = opened(dataset, VIEW, cache_dir)
    with pytest.raises(ValueError, match="read-only"):
        cache[0][0, 0, 0] = 1


def test_several_views_of_an_image_are_made_from_one_decode(dataset, cache_dir, monkeypatch):
    decoded = []
    original = cache_module.decode
    monkeypatch.setattr(
        cache_module, "decode", lambda path, *rest: decoded.append(path) or original(path, *rest)
    )
    crop, shorter, same = open_caches(
        dataset, View("crop", 16), View("shorter", 20), View("crop", 16), cache_dir=cache_dir
    )
    assert len(decoded) == len(dataset)
    assert np.array_equal(crop[0], opened(dataset, View("crop", 16), cache_dir)[0])
    assert np.array_equal(same[0], crop[0])
    assert min(shorter[0].shape[:2]) == 20
