"""What was saved again is the same picture; what only looks alike is not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dml_bench.data.same_picture import BLOCK, SIDE, first_of_picture, small_copies


def picture(seed: int) -> Image.Image:
    """Smooth patches of colour, 240 x 180 pixels."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(patches).resize((240, 180), Image.Resampling.BICUBIC)


def firsts(files: list[Path]) -> list[int]:
    return first_of_picture([file.name for file in files], small_copies(files)).tolist()


@pytest.fixture
def shown(tmp_path: Path) -> list[Path]:
    """Three pictures as PNG files."""
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, file in enumerate(files):
        picture(seed).save(file)
    return files


@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("again.bmp", 1.0, {}),
        ("again.jpg", 1.0, {"quality": 60}),
        ("again.webp", 1.0, {"quality": 75}),
        ("again.png", 0.75, {}),
        ("again.jpg", 0.75, {"quality": 85}),
    ],
)
def test_a_picture_that_was_saved_again_is_the_same(name, scale, options, shown):
    again = picture(1)
    size = round(scale * again.width), round(scale * again.height)
    again.resize(size).save(shown[0].with_name(name), **options)
    assert firsts([*shown, shown[0].with_name(name)]) == [0, 1, 2, 1]


def test_a_photo_in_which_something_small_is_another_is_another(shown):
    changed = picture(1)
    changed.paste((255, 255, 255), (100, 80, 120, 100))
    changed.save(shown[2])
    assert firsts(shown) == [0, 1, 2]


def test_a_row_of_photos_each_alike_to_the_next_is_not_one_picture():
    one, other = (np.asarray(picture(seed).resize((SIDE, SIDE)), float) for seed in (1, 2))
    steps = [one + (other - one) * share for share in np.linspace(0, 1, 60)]
    first = first_of_picture([str(step) for step in range(60)], np.array(steps).astype(np.uint8))
    assert first[1] == 0, "the second is as the first"
    assert len(set(first.tolist())) > 15


def test_without_contrast_or_pixels_only_equal_files_are_one_picture(tmp_path):
    files = [tmp_path / name for name in ("0.png", "1.png", "2.jpg", "3.jpg")]
    for file in files[:2]:
        Image.new("RGB", (30, 30), "white").save(file)
    for file in files[2:]:
        file.write_bytes(b"no image")
    assert firsts(files) == [0, 1, 2, 3]
    small = small_copies(files)
    assert first_of_picture(["same", "same", "", "other"], small).tolist() == [0, 0, 2, 3]


def test_of_many_pictures_a_copy_is_found_wherever_it_stands():
    chance = np.random.default_rng(0)
    small = chance.integers(0, 256, (BLOCK + 50, SIDE, SIDE, 3), np.uint8)
    small[BLOCK + 9] = small[5]
    small[BLOCK + 10] = small[BLOCK + 3]
    first = first_of_picture([str(image) for image in range(len(small))], small)
    copies = np.flatnonzero(first != np.arange(len(small)))
    assert copies.tolist() == [BLOCK + 9, BLOCK + 10]
    assert first[copies].tolist() == [5, BLOCK + 3]
