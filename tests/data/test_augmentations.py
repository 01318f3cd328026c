"""Random changes of images: torchvision's arithmetic, image by image, whatever else is in the
batch."""

import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from dml_bench.config import Augment
from dml_bench.data import augmentations
from dml_bench.data.augmentations import (
    blur,
    distort_colors,
    project,
    relight,
    remove_colors,
    resized,
    resized_batch,
    resized_crop_boxes,
    resized_crops,
    rotations,
    symmetries,
    tilts,
    zooms,
)

UNCHANGED = [0.0, 0.5, 0.5, 0.5, 0.5, 0.0]
"""Draws that distort an image by factors of 1 and no turn of the hue."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = list(itertools.permutations(range(4)))
ADJUST = [
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
]


def photographs(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """(count, size, size, 3): smooth colours with fine noise, black, white, grey and pure colours
    in a corner."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    phase = generator.random((count, 1, 1, 3)) * 6
    waves = np.sin(4 * rows[..., None] + phase) + np.cos(5 * columns[..., None] + 2 * phase)
    pixels = 128 + 60 * waves + generator.normal(0, 8, (count, size, size, 3))
    pixels[:, 0, :6] = [
        [0, 0, 0],
        [255, 255, 255],
        [99, 99, 99],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
    ]
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def uniform(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, columns))


def planar(image: torch.Tensor) -> torch.Tensor:
    """(height, width, 3) -> (3, height, width), as torchvision wants it."""
    return image.permute(2, 0, 1)


def levels_apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference between a (height, width, 3) and a (3, height, width) image."""
    return (planar(ours).float() - theirs.float()).abs().max().item()


class TestResizedCrops:
    def test_a_box_follows_from_its_four_draws(self):
        draws = np.array([[0.5, 0.5, 0.0, 0.999], [1.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.0]])
        boxes = resized_crop_boxes(
            np.array([100, 60, 90]), np.array([100, 200, 90]), draws, min_area=0.25
        )
        assert [sides.tolist() for sides in boxes] == [
            [0, 0, 19],
            [21, 37, 0],
            [79, 60, 52],
            [79, 126, 39],
        ]

    def test_boxes_are_those_of_torchvisions_definition(self):
        draws, generator = uniform(500, 4), np.random.default_rng(1)
        heights, widths = generator.integers(1, 300, (2, 500))
        for height, width, (area, ratio, top, left), box in zip(
            heights,
            widths,
            draws,
            zip(*resized_crop_boxes(heights, widths, draws, min_area=0.08), strict=True),
            strict=True,
        ):
            target = height * width * (0.08 + 0.92 * area)
            aspect = math.exp(math.log(3 / 4) + ratio * (math.log(4 / 3) - math.log(3 / 4)))
            wide = min(max(round(math.sqrt(target * aspect)), 1), width)
            high = min(max(round(math.sqrt(target / aspect)), 1), height)
            assert box == (
                math.floor(top * (height - high + 1)),
                math.floor(left * (width - wide + 1)),
                high,
                wide,
            )

    @pytest.mark.parametrize("shape", [(246, 327), (1, 1), (3, 400), (400, 3), (8, 8)])
    def test_boxes_lie_inside_the_image(self, shape):
        heights, widths = np.full(2000, shape[0]), np.full(2000, shape[1])
        boxes = resized_crop_boxes(heights, widths, uniform(2000, 4), min_area=0.01)
        assert (
            min(boxes.heights.min(), boxes.widths.min()) >= 1
            and min(boxes.tops.min(), boxes.lefts.min()) == 0
        )
        assert (boxes.tops + boxes.heights).max() == shape[0] and (
            boxes.lefts + boxes.widths
        ).max() == shape[1]

    def test_areas_and_aspect_ratios_are_uniform_where_the_image_has_room(self):
        sides = np.full(20_000, 1000)
        boxes = resized_crop_boxes(sides, sides, uniform(20_000, 4), min_area=0.08)
        has_room = (boxes.heights < 1000) & (boxes.widths < 1000)
        small = has_room & (boxes.heights * boxes.widths < 0.5e6)
        areas, ratios = (
            (boxes.heights * boxes.widths)[small] / 1e6,
            np.log(boxes.widths / boxes.heights)[small],
        )
        assert np.histogram(areas, 7, (0.08, 0.5))[0] == pytest.approx(
            [20_000 * 0.42 / 0.92 / 7] * 7, rel=0.1
        )
        assert np.histogram(ratios, 7, (-math.log(4 / 3), math.log(4 / 3)))[0] == pytest.approx(
            [small.sum() / 7] * 7, rel=0.1
        )

    def test_the_smallest_area_1_is_the_whole_of_a_square_but_for_its_aspect_ratio(self):
        boxes = resized_crop_boxes(np.full(100, 50), np.full(100, 50), uniform(100, 4), min_area=1)
        assert np.maximum(boxes.heights, boxes.widths).tolist() == [50] * 100
        assert np.minimum(boxes.heights, boxes.widths).min() >= 43

    @pytest.mark.parametrize("shape", [(90, 120), (24, 17), (64, 64), (7, 3)])
    def test_a_crop_is_resized_as_torchvision_resizes_to_within_a_level(self, shape):
        pixels = photographs(1, 160)[0, : shape[0], : shape[1]]
        ours = torch.from_numpy(resized(pixels.numpy(), 64).copy())
        assert (ours.shape, ours.dtype) == ((64, 64, 3), torch.uint8)
        assert levels_apart(ours, functional.resize(planar(pixels), [64, 64], antialias=True)) <= 1

    @pytest.mark.parametrize("size", [8, 32, 100])
    def test_crops_of_a_batch_of_many_sizes_have_the_bits_of_each_alone(self, size, monkeypatch):
        monkeypatch.setattr(
            augmentations, "RESIZED_CHUNK", 3 * 100 * size
        )  # several parts of different length
        generator = np.random.default_rng(size)
        heights, widths = generator.integers(1, 160, (2, 40))
        firsts = np.concatenate([[0], np.cumsum(heights * widths)])
        pixels = generator.integers(0, 256, (firsts[-1], 3), dtype=np.uint8)
        boxes = resized_crop_boxes(heights, widths, uniform(40, 4), min_area=0.02)
        batch = resized_crops(torch.from_numpy(pixels), firsts[:-1], widths, boxes, size).numpy()
        for row, (top, left, height, width) in enumerate(zip(*boxes, strict=True)):
            image = pixels[firsts[row] : firsts[row + 1]].reshape(heights[row], widths[row], 3)
            assert np.array_equal(
                batch[row], resized(image[top : top + height, left : left + width], size)
            )

    def test_a_crop_of_the_wanted_size_stays_as_it_is(self):
        pixels = photographs(1, 64)[0].numpy()
        assert np.array_equal(resized(pixels, 64), pixels)


class TestColors:
    @pytest.mark.parametrize("strength", [0.5, 1.0])
    @pytest.mark.parametrize("drawn", [0.0, 0.2, 0.45, 0.7, 1.0])
    @pytest.mark.parametrize("kind", [BRIGHTNESS, CONTRAST, SATURATION, HUE])
    def test_one_change_alone_is_torchvisions_to_within_a_level(self, kind, drawn, strength):
        draws = np.tile(UNCHANGED, (3, 1))
        draws[:, 1 + kind] = drawn
        pixels = photographs(3, 40)
        amount = (
            (2 * drawn - 1) * 0.2 * strength
            if kind == HUE
            else 1 + (2 * drawn - 1) * 0.8 * strength
        )
        for before, after in zip(pixels, distort_colors(pixels, draws, strength), strict=True):
            assert (
                levels_apart(after, ADJUST[kind](planar(before).float() / 255, amount) * 255) <= 1
            )
            assert levels_apart(after, ADJUST[kind](planar(before), amount)) <= 2

    @pytest.mark.parametrize("place", range(24))
    def test_four_changes_come_in_the_drawn_order(self, place):
        pixels, draws = photographs(2, 40), uniform(2, 6, seed=place)
        draws[:, 0], draws[:, 5] = 0, (place + 0.5) / 24
        for before, after, row in zip(
            pixels, distort_colors(pixels, draws, 1.0), draws, strict=True
        ):
            theirs = planar(before).float() / 255
            for kind in ORDERS[place]:
                spread = 2 * row[1 + kind] - 1
                theirs = ADJUST[kind](theirs, 0.2 * spread if kind == HUE else 1 + 0.8 * spread)
            assert levels_apart(after, theirs * 255) <= 1

    def test_the_order_matters(self):
        draws = np.tile([0, 0.9, 0.9, 0.9, 0.9, 0], (24, 1))
        draws[:, 5] = (np.arange(24) + 0.5) / 24
        changed = distort_colors(photographs(1, 40).repeat(24, 1, 1, 1), draws, 1.0)
        assert len({image.numpy().tobytes() for image in changed}) > 12

    def test_four_images_in_five_are_changed(self):
        pixels, draws = photographs(1, 16).expand(1000, -1, -1, -1), uniform(1000, 6)
        changed = (distort_colors(pixels, draws, 1.0) != pixels).flatten(1).any(1).numpy()
        assert np.array_equal(changed, draws[:, 0] < 0.8)
        assert changed.mean() == pytest.approx(0.8, abs=0.03)

    def test_grey_stays_grey_when_hue_and_saturation_change(self):
        grey = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
        draws = np.array([[0, 0.5, 0.5, 0.9, 0.8, 0.7]])
        assert torch.equal(distort_colors(grey, draws, 1.0), grey)

    def test_a_third_of_the_circle_would_turn_red_into_green(self):
        planes = torch.tensor([[[[255.0, 0, 0, 40]]], [[[0, 255.0, 0, 40]]], [[[0, 0, 255.0, 40]]]])
        augmentations._turn(planes, np.array([1 / 3]))
        assert planes[:, 0, 0].round().T.tolist() == [
            [0, 255, 0],
            [0, 0, 255],
            [255, 0, 0],
            [40, 40, 40],
        ]

    def test_colours_are_taken_away_as_often_as_asked(self):
        pixels, draws = photographs(1, 8).expand(1000, -1, -1, -1), uniform(1000, 1)
        result = remove_colors(pixels, draws, 0.2)
        grey = (result == result[..., :1]).flatten(1).all(1).numpy()
        assert np.array_equal(grey, draws[:, 0] < 0.2)
        assert torch.equal(result[~grey], pixels[~grey])

    def test_grey_is_torchvisions_to_within_a_level(self):
        pixels = photographs(4, 40)
        for before, after in zip(pixels, remove_colors(pixels, np.zeros((4, 1)), 1.0), strict=True):
            assert (
                levels_apart(
                    after, functional.rgb_to_grayscale(planar(before), num_output_channels=3)
                )
                <= 1
            )


class TestBlur:
    @pytest.mark.parametrize(("size", "width"), [(8, 3), (40, 5), (64, 7), (70, 7), (224, 23)])
    def test_it_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side_to_within_a_level(
        self, size, width
    ):
        pixels, draws = (
            photographs(5, size),
            np.array([[0, 0.0], [0, 0.1], [0, 0.4], [0, 0.8], [0, 1.0]]),
        )
        for before, after, (_, drawn) in zip(pixels, blur(pixels, draws, 1.0), draws, strict=True):
            assert (
                levels_apart(
                    after,
                    functional.gaussian_blur(planar(before), [width, width], [0.1 + 1.9 * drawn]),
                )
                <= 1
            )

    def test_it_is_exact_in_whole_numbers(self):
        pixels, draws, radius = photographs(6, 40), uniform(6, 2), 2
        for before, after, (_, drawn) in zip(
            pixels.numpy(), blur(pixels, draws, 1.0).numpy(), draws, strict=True
        ):
            weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (0.1 + 1.9 * drawn)) ** 2)
            kernel = np.rint(4096 * weights / weights.sum()).astype(np.int64)
            kernel[radius] += 4096 - kernel.sum()
            padded = np.pad(
                before.astype(np.int64), ((radius, radius), (0, 0), (0, 0)), mode="reflect"
            )
            down = np.rint(
                sum(int(kernel[tap]) * padded[tap : tap + 40] for tap in range(5)) / 256
            ).astype(np.int64)
            padded = np.pad(down, ((0, 0), (radius, radius), (0, 0)), mode="reflect")
            across = np.rint(
                sum(int(kernel[tap]) * padded[:, tap : tap + 40] for tap in range(5)) / 65536
            )
            assert np.array_equal(after, across)

    def test_it_blurs_as_often_as_asked_and_leaves_the_others_alone(self):
        pixels, draws = (
            photographs(1, 16).expand(1000, -1, -1, -1),
            np.stack([uniform(1000, 1)[:, 0], np.full(1000, 0.9)], axis=1),
        )
        changed = (blur(pixels, draws, 0.5) != pixels).flatten(1).any(1).numpy()
        assert np.array_equal(changed, draws[:, 0] < 0.5)

    def test_one_colour_stays_that_colour(self):
        plain = torch.tensor([3, 128, 255], dtype=torch.uint8).expand(30, 64, 64, 3)
        assert torch.equal(blur(plain, uniform(30, 2), 1.0), plain)

    def test_wider_deviations_blur_more(self):
        noise = torch.from_numpy(
            np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
        ).expand(5, -1, -1, -1)
        spread = (
            blur(noise, np.array([[0, deviation] for deviation in (0, 0.2, 0.4, 0.6, 1)]), 1.0)
            .float()
            .flatten(1)
            .std(1)
            .tolist()
        )
        assert spread == sorted(spread, reverse=True) and spread[0] > 4 * spread[-1]


class TestResizedBatches:
    @pytest.mark.parametrize(("size", "smaller"), [(64, 48), (64, 32), (37, 20), (224, 160)])
    def test_a_batch_is_resized_with_antialiasing_as_pillow_resizes_to_within_two_levels(
        self, size, smaller
    ):
        pixels = photographs(3, size)
        batch = resized_batch(pixels, smaller)
        assert (batch.shape, batch.dtype, batch.is_contiguous()) == (
            (3, smaller, smaller, 3),
            torch.uint8,
            True,
        )
        for before, after in zip(pixels, batch, strict=True):
            assert (
                levels_apart(
                    after, planar(torch.from_numpy(resized(before.numpy(), smaller).copy()))
                )
                <= 2
            )

    def test_an_image_gets_the_same_bits_alone_as_in_a_batch_however_many_threads_work(
        self, threads
    ):
        pixels = photographs(20, 45)
        batch = resized_batch(pixels, 33)
        torch.set_num_threads(1)
        assert torch.equal(torch.cat([resized_batch(image[None], 33) for image in pixels]), batch)


EIGHT = np.array([[0.0, (which + 0.5) / 8] for which in range(8)])
"""Draws of each symmetry in turn."""


def looked_up(matrix: np.ndarray, *places: tuple[float, float]) -> list[tuple[float, float]]:
    """Where the colours at these places come from."""
    homogeneous = [matrix @ (*place, 1) for place in places]
    return [(x / depth, y / depth) for x, y, depth in homogeneous]


CORNERS = [(-1, -1), (1, -1), (1, 1), (-1, 1)]


class TestGeometry:
    @pytest.mark.parametrize("size", [8, 37, 64, 224])
    def test_symmetries_move_pixels_and_change_none(self, size):
        pixels = photographs(1, size).expand(8, -1, -1, -1)
        image = pixels[0]
        turned = [torch.rot90(image, times, (0, 1)) for times in range(4)]
        expected = turned + [torch.rot90(image.flip(1), times, (0, 1)) for times in range(4)]
        assert torch.equal(project(pixels, symmetries(EIGHT, 1.0)), torch.stack(expected))

    def test_the_eight_symmetries_are_eight_and_as_likely_as_each_other(self):
        matrices = symmetries(uniform(8000, 2), 1.0)
        kinds, counts = np.unique(matrices.reshape(8000, 9), axis=0, return_counts=True)
        assert len(kinds) == 8 and counts == pytest.approx([1000] * 8, abs=120)

    def test_a_symmetry_is_drawn_as_often_as_asked(self):
        draws = uniform(8000, 2)
        changed = (symmetries(draws, 0.4) != np.eye(3)).any((1, 2))
        assert np.array_equal(changed, (draws[:, 0] < 0.4) & (draws[:, 1] >= 1 / 8))

    @pytest.mark.parametrize(("drawn", "angle"), [(0.0, -30), (0.25, -15), (0.75, 15), (0.95, 27)])
    def test_a_rotation_is_torchvisions_to_within_a_level_inside_the_circle(self, drawn, angle):
        pixels = photographs(2, 61)
        turned = project(pixels, rotations(np.array([[0, drawn]] * 2), 30, 1.0))
        rows, columns = np.mgrid[:61, :61] - 30
        inside = torch.from_numpy(np.hypot(rows, columns) < 29.5)
        for before, after in zip(pixels, turned, strict=True):
            theirs = functional.rotate(planar(before), angle, InterpolationMode.BILINEAR)
            assert levels_apart(after * inside[..., None], theirs * inside) <= 1

    @pytest.mark.parametrize(
        ("factor", "x", "y"), [(1.5, 0.5, 0.5), (2.0, 0.0, 1.0), (1.1, 0.9, 0.2)]
    )
    def test_zooming_is_torchvisions_scaling_and_shifting_to_within_a_level(self, factor, x, y):
        pixels = photographs(1, 60)
        zoomed = project(pixels, zooms(np.array([[0, (factor - 1) / 2, x, y]]), 3.0, 1.0))
        shift = [-30 * (factor - 1) * (2 * place - 1) for place in (x, y)]
        theirs = functional.affine(
            planar(pixels[0]), 0, shift, factor, [0, 0], InterpolationMode.BILINEAR
        )
        inside = (
            functional.affine(
                torch.ones(1, 60, 60), 0, shift, factor, [0, 0], InterpolationMode.BILINEAR
            )[0]
            > 0.999
        )
        assert inside.float().mean() > 0.9
        assert levels_apart(zoomed[0] * inside[..., None], theirs * inside) <= 1

    def test_what_is_magnified_lies_anywhere_inside_the_image(self):
        seen = np.array(
            [looked_up(matrix, (-1, -1), (1, 1)) for matrix in zooms(uniform(2000, 4), 1.5, 1.0)]
        )
        assert seen.min() == pytest.approx(-1, abs=0.01) and seen.max() == pytest.approx(
            1, abs=0.01
        )
        assert np.abs(seen).max() <= 1
        sides = (seen[:, 1] - seen[:, 0]) / 2
        assert sides.min() == pytest.approx(1 / 1.5, abs=0.01) and sides.max() == pytest.approx(
            1, abs=0.01
        )
        assert np.array_equal(sides.round(9)[:, 0], sides.round(9)[:, 1])

    def test_a_tilt_widens_one_side_and_narrows_the_opposite(self):
        (above,) = tilts(np.array([[0, 0.5, 1.0]]), 0.2, 1.0)
        assert np.allclose(looked_up(above, *CORNERS), [(-1.2, -1), (1.2, -1), (0.8, 1), (-0.8, 1)])
        (below,) = tilts(np.array([[0, 0.5, 0.25]]), 0.2, 1.0)
        assert np.allclose(looked_up(below, *CORNERS), [(-0.9, -1), (0.9, -1), (1.1, 1), (-1.1, 1)])
        (left,) = tilts(np.array([[0, 1.0, 0.5]]), 0.2, 1.0)
        assert np.allclose(looked_up(left, *CORNERS), [(-1, -1.2), (1, -0.8), (1, 0.8), (-1, 1.2)])

    @pytest.mark.parametrize("drawn", [(0.9, 0.5), (0.2, 0.5), (0.5, 0.1), (0.8, 0.3)], ids=str)
    def test_a_tilted_image_is_torchvisions_perspective_to_within_a_level(self, drawn):
        pixels = photographs(1, 60)
        matrices = tilts(np.array([[0, *drawn]]), 0.3, 1.0)
        corners = [[30 * (x + 1), 30 * (y + 1)] for x, y in CORNERS]
        from_ = [[30 * (x + 1), 30 * (y + 1)] for x, y in looked_up(matrices[0], *CORNERS)]
        theirs = functional.perspective(
            planar(pixels[0]), from_, corners, InterpolationMode.BILINEAR
        )
        inside = (
            functional.perspective(
                torch.ones(1, 60, 60), from_, corners, InterpolationMode.BILINEAR
            )[0]
            > 0.999
        )
        assert inside.float().mean() > 0.7
        assert levels_apart(project(pixels, matrices)[0] * inside[..., None], theirs * inside) <= 1

    @pytest.mark.parametrize(
        ("make", "columns"),
        [
            (lambda draws: rotations(draws, 20, 0.3), 2),
            (lambda draws: zooms(draws, 1.4, 0.3), 4),
            (lambda draws: tilts(draws, 0.2, 0.3), 3),
        ],
        ids=["rotations", "zooms", "tilts"],
    )
    def test_an_image_that_is_not_drawn_keeps_its_bits(self, make, columns):
        pixels, draws = (
            torch.from_numpy(
                np.random.default_rng(1).integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
            ),
            uniform(400, columns),
        )
        changed = (project(pixels, make(draws)) != pixels).flatten(1).any(1).numpy()
        assert np.array_equal(changed, draws[:, 0] < 0.3)

    def test_the_first_of_a_product_changes_first(self):
        pixels, turns = photographs(8, 40), symmetries(EIGHT, 1.0)
        tilted = tilts(np.array([[0, 0.9, 0.2]] * 8), 0.2, 1.0)
        both, one_by_one = project(pixels, turns @ tilted), project(project(pixels, turns), tilted)
        assert (both.int() - one_by_one.int()).abs().max() <= 1
        other_way = project(pixels, tilted @ turns)
        assert (both != other_way).flatten(1).any(1).sum() == 7, "all but the identity"

    def test_beyond_its_borders_an_image_is_mirrored(self):
        pixels, shifted = photographs(1, 10), np.eye(3)[None].copy()
        shifted[0, 0, 2] = 1
        right = pixels[:, :, 5:]
        assert torch.equal(project(pixels, shifted), torch.cat([right, right.flip(2)], dim=2))


class TestLight:
    def test_brightness_adds_log_odds_and_contrast_multiplies_them(self):
        grey = (
            torch.tensor([0, 51, 100, 128, 204, 255], dtype=torch.uint8)
            .view(1, 1, 6, 1)
            .expand(4, 6, 6, 3)
        )
        draws = np.array([[0, 1.0, 1, 0], [0, 0.0, 1, 0], [1, 0, 0, 1.0], [1, 0, 0, 0.0]])
        brighter, darker, harder, softer = relight(grey, draws, 0.2, 0.75)[:, 0, :, 0].tolist()
        assert brighter == [0, 70, 125, 153, 219, 255]  # odds times 1.2 / 0.8
        assert darker == [0, 36, 77, 102, 185, 255]
        assert harder == [0, 38, 93, 128, 217, 255]  # odds to the power of 1 / 0.8
        assert softer == [0, 63, 105, 128, 192, 255]

    def test_it_is_the_definition_level_by_level(self):
        levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(30, -1, -1, 3)
        draws = uniform(30, 4)
        for before, after, (light, how_bright, contrast, how_hard) in zip(
            levels, relight(levels, draws, 0.4, 0.5), draws, strict=True
        ):
            odds = torch.logit(before.double() / 255)
            if light < 0.5:
                odds = odds + torch.logit(torch.tensor(0.3 + 0.4 * how_bright, dtype=torch.float64))
            if contrast < 0.5:
                odds = odds * math.exp(-math.log(0.6) * (2 * how_hard - 1))
            assert levels_apart(after, planar(255 * torch.sigmoid(odds))) <= 0.501

    def test_brightness_and_contrast_are_changed_as_often_as_asked_and_other_images_keep_their_bits(
        self,
    ):
        pixels, draws = photographs(1, 8).expand(1000, -1, -1, -1), uniform(1000, 4)
        changed = (relight(pixels, draws, 0.5, 0.3) != pixels).flatten(1).any(1).numpy()
        assert changed.sum() == pytest.approx(510, abs=50)
        assert not changed[(draws[:, [0, 2]] >= 0.3).all(1)].any()


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """So many threads for torch, while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


SOME_PLANES = torch.from_numpy(
    np.random.default_rng(4).uniform(0, 255, (3, 9, 201, 201)).astype(np.float32)
)


def turned_and_blended(images: slice) -> torch.Tensor:
    planes, amounts = SOME_PLANES[:, images].clone(), uniform(9, 1)[images, 0] + 0.5
    augmentations._turn(planes, amounts)
    augmentations._blend(planes, np.arange(9)[images] % 3, amounts)
    return planes


def test_not_even_the_last_bit_before_rounding_depends_on_the_batch_or_the_threads(threads):
    batch = turned_and_blended(slice(0, 9))
    for image in range(9):
        assert torch.equal(turned_and_blended(slice(image, image + 1))[:, 0], batch[:, image])
    torch.set_num_threads(1)
    assert torch.equal(turned_and_blended(slice(0, 9)), batch)


CHANGES = {
    "distort_colors": lambda pixels, draws: distort_colors(pixels, draws, 0.8),
    "remove_colors": lambda pixels, draws: remove_colors(pixels, draws[:, :1], 0.4),
    "blur": lambda pixels, draws: blur(pixels, draws[:, :2], 0.6),
    "relight": lambda pixels, draws: relight(pixels, draws[:, :4], 0.4, 0.6),
    "project": lambda pixels, draws: project(
        pixels,
        rotations(draws[:, :2], 40, 0.5)
        @ zooms(draws[:, 2:], 1.6, 0.5)
        @ tilts(draws[:, 1:4], 0.3, 0.6),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
class TestEveryChange:
    @pytest.mark.parametrize("size", [8, 37, 64])
    def test_an_image_gets_the_same_bits_alone_as_in_any_batch(self, change, size):
        pixels, draws = photographs(40, size), uniform(40, 6)
        batch = change(pixels, draws)
        for image in range(40):
            assert torch.equal(
                change(pixels[image : image + 1], draws[image : image + 1])[0], batch[image]
            )
        order = np.random.default_rng(2).permutation(40)[:31]
        assert torch.equal(change(pixels[order], draws[order]), batch[order])

    def test_the_number_of_threads_changes_no_bit(self, change, threads):
        pixels, draws = photographs(24, 70), uniform(24, 6)
        expected = change(pixels, draws)
        torch.set_num_threads(1)
        assert torch.equal(change(pixels, draws), expected)

    @pytest.mark.parametrize("together", [1, 3, 24])
    def test_the_number_of_images_changed_at_a_time_changes_no_bit(
        self, change, together, monkeypatch
    ):
        pixels, draws = photographs(24, 37), uniform(24, 6)
        expected = change(pixels, draws)
        monkeypatch.setattr(augmentations, "CHUNK", together * 37**2)
        assert torch.equal(change(pixels, draws), expected)

    def test_its_arguments_are_left_as_they_were(self, change):
        pixels, draws = photographs(10, 32), uniform(10, 6)
        before = pixels.clone(), draws.copy()
        result = change(pixels, draws)
        assert (result.shape, result.dtype, result.is_contiguous()) == (
            (10, 32, 32, 3),
            torch.uint8,
            True,
        )
        assert torch.equal(pixels, before[0]) and np.array_equal(draws, before[1])
        assert not torch.equal(result, pixels)


@pytest.mark.parametrize(("padding", "corner"), [("zeros", 0), ("border", 90), ("reflection", 90)])
def test_what_is_seen_beyond_the_borders_is_black_the_last_pixels_or_the_image_mirrored(
    padding, corner
):
    pixels = torch.full((1, 16, 16, 3), 90, dtype=torch.uint8)
    turned = rotations(np.array([[0.0, 1.0]]), 45, 1.0)
    after = project(pixels, turned, padding)
    assert after[0, 0, 0].tolist() == [corner] * 3
    assert after[0, 8, 8].tolist() == [90] * 3
    pixels[0, :, 0] = 200  # the left column
    across = np.eye(3)[None].copy()
    across[0, 0, 2] = -1.0  # half a side to the left
    row = project(pixels, across, padding)[0, 8, :8, 0].tolist()
    expected = {"zeros": [0] * 7, "border": [200] * 7, "reflection": [90] * 7}
    assert row[:7] == expected[padding]


def test_padding_without_geometry_is_refused():
    with pytest.raises(ValueError, match="augment.padding has no effect"):
        Augment(padding="zeros", zoom=1.2)
