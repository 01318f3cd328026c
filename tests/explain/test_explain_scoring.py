"""Scores of maps, against boxes that are known: by hand, by definition, and as the network sees the
image."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from dml_bench.config import Component
from dml_bench.data.cache import View
from dml_bench.data.synthetic.families import species
from dml_bench.explain.annotations import (
    Annotations,
    box_in_view,
    box_mask,
    distinguishing_parts,
    read_annotations,
    unique_parts,
)
from dml_bench.explain.methods import enlarged
from dml_bench.explain.panels import map_tile
from dml_bench.explain.score_table import score_rows, score_tables
from dml_bench.explain.scoring import (
    MapScores,
    areas_under_curves,
    energy,
    pointing,
    rank_correlation,
)
from dml_bench.explain.tiles import PanelRow, Tile, heat_colours, heat_overlay, tile_sheet

HEAT = np.array([[0.0, 1.0, 2.0], [-5.0, 3.0, 0.0], [3.0, 0.0, 1.0]])


def mask(*rows: str) -> np.ndarray:
    return np.array([list(row) for row in rows]) == "x"


# Against boxes


@pytest.mark.parametrize(
    ("where", "share"),
    [
        (mask("xxx", "xxx", "xxx"), 1.0),
        (mask("...", ".x.", "x.."), 1.0),
        (mask("...", ".x.", "..."), 0.5),  # one of the two highest
        (mask("xxx", "x.x", ".xx"), 0.0),
    ],
)
def test_a_map_points_into_the_box_as_far_as_its_highest_pixels_lie_there(where, share):
    assert pointing(HEAT, where) == share


def test_the_enlarged_corner_of_a_coarse_map_is_one_highest_place():
    coarse = torch.tensor([[[0.1, 0.2], [0.3, 0.7]]])
    heat = enlarged(coarse, torch.empty(1, 48, 48, 3))[0].numpy()
    assert (heat == heat.max()).sum() < 12 * 12, "rounding sets equally high pixels apart"
    lowest_quarter = np.arange(48)[:, None].repeat(48, axis=1) >= 48 - 3
    assert pointing(heat, lowest_quarter) == 3 / 12


def test_a_map_that_is_nowhere_positive_points_nowhere_and_has_no_energy():
    everywhere = np.ones((3, 3), bool)
    assert np.isnan(pointing(-np.abs(HEAT), everywhere)) and np.isnan(
        pointing(np.zeros((3, 3)), everywhere)
    )
    assert np.isnan(energy(-np.abs(HEAT), everywhere))


def test_energy_is_the_share_of_the_positive_sum_in_the_box_and_negative_values_count_for_nothing():
    assert energy(HEAT, mask("..x", "x..", "...")) == pytest.approx(2 / 10)
    assert energy(HEAT, mask("...", "xx.", "...")) == pytest.approx(3 / 10)


def test_energy_in_a_part_is_taken_of_what_lies_in_the_object():
    assert energy(
        HEAT, mask("..x", "...", "..x"), within=mask(".xx", ".x.", "...")
    ) == pytest.approx(2 / 6)


def test_a_pixel_is_in_a_box_where_its_centre_is():
    assert np.array_equal(box_mask([(0.6, 0.4, 1.0, 2.0)], 3), mask(".x.", ".x.", "..."))
    assert np.array_equal(box_mask([(0, 0, 1, 1), (2, 2, 1, 1)], 3), mask("x..", "...", "..x"))


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        # 80 x 40 becomes 40 x 20, and columns 10-30 of that are kept: the box at 20-60 is at 10-30
        # there, 0-20 in the square.
        ("crop", (0.0, 5.0, 20.0, 5.0)),
        ("squash", (5.0, 5.0, 10.0, 5.0)),
    ],
)
def test_a_box_is_where_the_network_sees_it(tmp_path, fit, expected):
    Image.new("RGB", (80, 40)).save(tmp_path / "wide.png")
    assert box_in_view((20, 10, 40, 10), View(fit, 20), tmp_path / "wide.png") == pytest.approx(
        expected
    )


def test_what_a_crop_cuts_off_is_not_in_the_box(tmp_path):
    Image.new("RGB", (80, 40)).save(tmp_path / "wide.png")
    assert box_in_view((0, 0, 40, 40), View("crop", 20), tmp_path / "wide.png") == pytest.approx(
        (0.0, 0.0, 10.0, 20.0)
    )


def test_a_painted_box_is_found_where_the_view_puts_it(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[12:28, 30:46] = 255
    Image.fromarray(pixels).save(tmp_path / "painted.png")
    view = View("crop", 20)
    bright = view.apply(Image.open(tmp_path / "painted.png"))[:, :, 0] > 127
    assert np.array_equal(
        box_mask([box_in_view((30, 12, 16, 16), view, tmp_path / "painted.png")], 20), bright
    )


def test_boxes_are_read_by_the_path_of_the_image(birds):
    truth = read_annotations(birds)
    first = (birds / "images.txt").read_text().splitlines()[0].split()[1]
    numbers = [
        float(value)
        for value in (birds / "bounding_boxes.txt").read_text().splitlines()[0].split()[1:]
    ]
    assert truth.objects[f"images/{first}"] == tuple(numbers)
    assert len(truth.objects) == 64
    assert set(truth.parts[f"images/{first}"]) <= {
        "back",
        "bill",
        "belly",
        "breast",
        "crest",
        "crown",
        "eye",
        "legs",
        "tail",
        "throat",
        "wing",
    }


def test_without_boxes_there_is_nothing_to_score_against(tmp_path):
    assert read_annotations(tmp_path) == Annotations()


# Parts that tell species apart


def test_the_telling_parts_of_a_drawn_species_are_those_that_its_name_says():
    dataset = Component("demo", {"classes": 40, "per_class": 24, "size": 72, "seed": 7})
    parts = distinguishing_parts(dataset)
    names = {bird.name: label for label, bird in enumerate(species(40, seed=7))}
    assert parts[names["Chestnut_winged_scarlet_billed_Jay"]] == {"wing", "bill"}
    assert parts[names["Azure_throated_spotted_Tit"]] == {"throat", "breast"}
    assert parts[names["Slate_crowned_long_tailed_Tit"]] == {"crown", "tail"}
    assert parts[names["Brown_winged_spectacled_Thrush"]] == {"wing", "eye"}
    assert names["Orange_breasted_Swallow"] not in parts, (
        "the ancestor of its family has no trait of its own"
    )


def test_data_sets_that_are_not_drawn_tell_nothing():
    assert distinguishing_parts(Component("cub", {"crop_to_box": False})) == {}


def test_a_part_tells_only_if_no_sibling_shares_its_trait():
    one, *others = species(40, seed=7)[0::8]
    assert unique_parts(one, [one, *others]) == frozenset()
    assert unique_parts(one, []) == frozenset()


# Curves


def checkered(size: int = 16) -> np.ndarray:
    """A bright quarter on black."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[: size // 2, : size // 2] = 255
    return pixels


def test_the_right_pixels_first_raise_the_answer_early_and_lower_it_early():
    pixels = checkered()
    bright = pixels[:, :, 0].astype(float)

    def answer(images: torch.Tensor) -> np.ndarray:
        return images.float()[:, :8, :8].mean(dim=(1, 2, 3)).numpy() / 255

    insertion, deletion = areas_under_curves(answer, pixels, bright)
    reverse_insertion, reverse_deletion = areas_under_curves(answer, pixels, -bright)
    assert insertion > reverse_insertion + 0.1
    assert deletion < reverse_deletion - 0.1


def test_the_area_under_a_curve_is_the_trapezoid_of_nine_images():
    seen_images = []

    def answer(images: torch.Tensor) -> np.ndarray:
        seen_images.append(images)
        return np.arange(len(images), dtype=float)

    pixels = checkered()
    insertion, deletion = areas_under_curves(answer, pixels, np.arange(256.0).reshape(16, 16))
    (images,) = seen_images
    assert len(images) == 16
    assert insertion == pytest.approx((0 / 2 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 / 2) / 8)
    assert deletion == pytest.approx((8 / 2 + 9 + 10 + 11 + 12 + 13 + 14 + 15 + 0 / 2) / 8)
    assert np.array_equal(images[8].numpy(), pixels), "all inserted is the image itself"
    changed = (
        (images[1] != images[0]).any(dim=2).sum(),
        (images[0] != torch.from_numpy(pixels)).any(dim=2).sum(),
    )
    assert changed[0] <= 32 < changed[1], "an eighth of the pixels at a time"


def test_areas_need_nothing_that_numpy_1_lacks(monkeypatch):
    """NumPy 1.26 is allowed, and `explain` ended with an AttributeError there."""
    monkeypatch.delattr(np, "trapezoid", raising=False)
    pixels, steps = checkered(), np.arange(16.0)
    areas = areas_under_curves(lambda images: steps, pixels, np.arange(256.0).reshape(16, 16))
    assert areas == pytest.approx((4.0, 11.0))


def test_the_rank_correlation_is_spearmans():
    chance = np.random.default_rng(0)
    one, other = chance.integers(5, size=(2, 6, 6)).astype(float)
    assert rank_correlation(one, other) == pytest.approx(
        spearmanr(one.ravel(), other.ravel()).statistic
    )
    assert rank_correlation(one, 3 * one + 1) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(one, np.zeros((6, 6))))


# Tables


def measured() -> MapScores:
    labels = np.repeat(np.arange(6), 4)
    values = {
        ("energy", "gradcam", "all"): np.tile([0.6, 0.7, 0.8, np.nan], 6) + 0.01 * labels,
        ("energy", "gradcam", "limited"): np.tile([0.5, 0.6, 0.7, 0.8], 6) + 0.01 * labels,
        ("energy", "gradcam", "random"): np.tile([0.4, 0.3, 0.5, 0.4], 6) + 0.01 * labels,
    }
    return MapScores(labels, np.array([4, 5]), values)


def test_the_table_has_each_models_mean_and_paired_differences_by_group_of_classes():
    lines = {
        (line.model, line.classes): line
        for line in score_rows(measured(), ["all", "limited", "random"])
    }
    assert set(lines) == {
        (model, classes)
        for model in (
            "all",
            "limited",
            "random",
            "all - limited",
            "all - random",
            "limited - random",
        )
        for classes in ("all", "seen", "unseen")
    }
    assert lines["all", "unseen"].mean.estimate == pytest.approx(0.745)
    assert lines["all - random", "all"].mean.estimate == pytest.approx(0.3), (
        "of the queries where both are defined"
    )
    assert (lines["all - random", "all"].queries, lines["limited", "all"].queries) == (18, 24)
    low, high = lines["all - random", "all"].mean.low, lines["all - random", "all"].mean.high
    assert 0 < low < 0.3 < high


def test_the_markdown_says_what_a_score_is_and_leaves_out_those_without_a_value():
    text = "\n".join(score_tables(score_rows(measured(), ["all", "limited", "random"])))
    assert "## Energy" in text and "## Pointing" not in text
    assert (
        "| method | all | limited | random | all - limited | all - random | limited - random |"
        in text
    )
    assert "+0.300 (" in text


# Panels


def test_colours_rise_with_the_heat_and_what_is_not_positive_is_dark():
    picture = heat_colours(np.array([[-3.0, 0.0], [0.5, 1.0]])).astype(int).sum(axis=2)
    assert picture[0, 0] == picture[0, 1] < picture[1, 0] < picture[1, 1]
    assert heat_colours(np.zeros((4, 4))).max() == 4


def test_the_heat_lies_over_the_image_in_grey():
    pixels = np.full((2, 2, 3), [200, 0, 0], np.uint8)
    picture = heat_overlay(pixels, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert picture[0, 0].max() - picture[0, 0].min() <= 2
    assert picture[1, 1].sum() > picture[0, 0].sum()


def test_a_map_without_anything_positive_says_so():
    pixels, heat = np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4))
    assert (
        map_tile("gradcam", pixels, heat).caption
        == "empty: its mean gradients\nonly lower the score"
    )
    heat[1, 2] = 1e-9
    assert map_tile("gradcam", pixels, heat).caption == ""


def test_a_panel_has_a_tile_for_each_column_of_each_row_and_a_box_on_the_first():
    tile = Tile(
        np.full((8, 8, 3), 200, np.uint8),
        "a caption that is far too long for the width of a single tile\nsecond",
        True,
    )
    plain = tile_sheet(
        "title", ["a", "b", "c"], [PanelRow("one", (tile,) * 3), PanelRow("two", (tile,) * 3)]
    )
    boxed = tile_sheet(
        "title",
        ["a", "b", "c"],
        [PanelRow("one", (tile,) * 3), PanelRow("two", (tile,) * 3)],
        [(2, 2, 4, 4)],
    )
    assert plain.size == boxed.size
    changed = np.argwhere((np.asarray(plain) != np.asarray(boxed)).any(axis=2))
    assert len(changed) and changed[:, 1].max() < plain.width / 3
    assert plain.width > 3 * 168 and plain.height > 2 * 168
