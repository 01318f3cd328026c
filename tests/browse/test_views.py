"""Each saved view of `browse` in a headless Chromium, of a run in which it is known what they hold,
and the maps beside the grid.

Their pictures in docs/views are made anew by `--all --pictures docs/views`.
"""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import (
    Browsing,
    drawn,
    filter_by,
    launched,
    needs_chromium,
    needs_fiftyone,
    open_view,
    page_at,
)
from PIL import Image
from planted_run import PlantedRun, plant

pytestmark = [*needs_fiftyone, needs_chromium, pytest.mark.slow]

WHITE, CREAM, SCARLET, RUFOUS, LAST = (
    "White winged scarlet cheeked Finch",
    "Cream breasted Finch",
    "Scarlet breasted mirror winged Finch",
    "Rufous crowned slate billed Finch",
    "White backed long billed Finch",
)
PAIR = "001.White_winged_scarlet_cheeked_Finch taken for 002.Cream_breasted_Finch"
COLOURS = {
    "right": "rgb(24, 121, 78)",
    "wrong": "rgb(179, 38, 30)",
    "unknown": "rgb(138, 90, 0)",
    "no query": "rgb(74, 85, 96)",
}
Chip = tuple[str, str]


def right(name: str) -> Chip:
    return f"\N{CHECK MARK} {name}", "right"


def taken(name: str, other: str) -> Chip:
    return f"{name} \N{RIGHTWARDS ARROW} {other}", "wrong"


def gallery(name: str) -> Chip:
    return name, "no query"


def doubted(name: str, other: str, share: int) -> Chip:
    return f"{name} \N{RIGHTWARDS ARROW} {other}? {share}%", "unknown"


WRONG = taken(WHITE, CREAM)
VIEWS = {
    "near-duplicates between train and test": [gallery(WHITE), right(WHITE)],
    "sessions on both sides of the split": [
        *(gallery(WHITE), right(WHITE)),
        *(gallery(CREAM), right(CREAM)),
    ],
    f"{PAIR} (all)": [WRONG, gallery(CREAM)] * 3,
    "mistakes (limited)": [*[WRONG] * 2, *[taken(LAST, SCARLET)] * 2, WRONG],
    "hubs (all)": [gallery(RUFOUS)],
    "vote saves (all)": [WRONG],
    "vote ruins (all)": [right(CREAM)],
    "labels to doubt": [
        doubted(SCARLET, RUFOUS, 100),
        *[doubted(WHITE, CREAM, 90)] * 2,
        doubted(RUFOUS, WHITE, 90),
        doubted(CREAM, SCARLET, 60),
    ],
    "answered unknown (limited)": [(f"{LAST} \N{RIGHTWARDS ARROW} unknown", "unknown")],
    "lost when unseen": [taken(LAST, SCARLET)] * 2,
}
"""By name of a view, the chips of its images in their order."""
UNSEEN = [*range(36, 45), *range(66, 71)]
"""The rows of the class that `limited` lacks: nine gallery images and five queries."""
HEAVIEST = 60_000
"""Bytes of a picture in docs, where that can be."""
TIED = {"labels to doubt"}
"""Views of which several images come equally soon."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> PlantedRun:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def opened(planted, tmp_path_factory) -> Iterator[Any]:
    """The page of the run, which all tests here share."""
    app = Browsing([planted.folder, "--data-dir", planted.images], tmp_path_factory.mktemp("home"))
    try:
        app.start()
        with launched() as chromium, page_at(chromium, app.url) as page:
            page.wait_for_function("window.dmlMaps?.panes?.every((pane) => pane.drawn == 71)")
            yield page
    finally:
        assert app.end() == 0, app.said


@pytest.fixture
def page(opened) -> Any:
    """The page with all images."""
    opened.locator(".dml button", has_text="Show all").click()
    opened.get_by_text("71 of 71 images").wait_for()
    return opened


@pytest.fixture
def keep(request, opened) -> Callable[..., None]:
    """Takes the picture of the page, which is no blank one, and keeps it from its pixel `left` on
    where that is wanted."""
    folder = request.config.getoption("--pictures")

    def take(name: str, left: int = 0) -> None:
        opened.mouse.move(500, 780)  # off the sidebar, whose hints would lie over images
        opened.wait_for_timeout(1500)
        picture = Image.open(io.BytesIO(opened.screenshot(timeout=120_000))).convert("RGB")
        assert picture.size == (1280, 800)
        assert len(picture.getcolors(1 << 20)) > 1000
        picture = picture.crop((left, 0, *picture.size))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for quality in (72, 60, 48, 36):
                picture.save(folder / f"{name}.webp", quality=quality, method=6)
                if (folder / f"{name}.webp").stat().st_size <= HEAVIEST:
                    break

    return take


def chips(page: Any, count: int) -> list[Chip]:
    """The words on the images of the grid and what their colour means, row by row, once there are
    so many."""
    page.wait_for_function(
        "count => document.querySelectorAll('[data-cy=fo-grid] [data-cy^=tag-]').length == count",
        arg=count,
    )
    on_images = page.locator("[data-cy=fo-grid] [data-cy^=tag-]").evaluate_all(
        """chips => chips.map(chip => {
            const { left, bottom } = chip.getBoundingClientRect();
            return [Math.round(bottom / 20), left, chip.innerText.trim(),
                getComputedStyle(chip).backgroundColor];
        })"""
    )
    meaning = {colour: verdict for verdict, colour in COLOURS.items()}
    return [(text, meaning[colour]) for _, _, text, colour in sorted(on_images)]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_its_images_in_their_order_with_one_answer_and_the_maps_have_its_points(
    page, keep, name
):
    expected = VIEWS[name]
    open_view(page, name)
    page.get_by_text(f"{len(expected)} of 71 images").wait_for()
    page.wait_for_function(
        "count => dmlMaps.panes.every(pane => pane.drawn == count)", arg=len(expected)
    )
    shown = chips(page, len(expected))
    keep("confused-pair" if name.startswith(PAIR) else re.sub(r"\W+", "-", name).strip("-"))
    assert sorted(shown) == sorted(expected)
    if WRONG in shown:  # long names are read to their end
        cut = page.locator("[data-cy=fo-grid] [data-cy^=tag-]", has_text=WRONG[0]).evaluate_all(
            "chips => chips.map(chip => chip.scrollHeight > chip.clientHeight + 1)"
        )
        assert not any(cut)
    assert shown[0] == expected[0]
    assert shown == expected or name in TIED


def test_beside_the_maps_stands_how_far_images_scatter(page):
    notes = page.locator(".dml .notes").all_inner_texts()
    assert len(notes) == 2
    assert all("seen classes: training" in note and "hubness" in note for note in notes)
    assert drawn(page) == [71, 71]


# Maps and grid


def wait_for(page: Any, count: int) -> None:
    """Until the grid, both maps and their legend have that many images."""
    page.get_by_text(f"{count} of 71 images").wait_for()
    page.get_by_text(f"{count} samples", exact=True).first.wait_for()
    page.wait_for_function("count => dmlMaps.panes.every(pane => pane.drawn == count)", arg=count)


def spots(page: Any, rows: list[int], map_: int = 0) -> list[tuple[float, float]]:
    """Where these images lie on a map, in pixels of the page."""
    return page.evaluate(
        """([rows, map]) => {
            const { canvas, spots } = dmlMaps.panes[map];
            const { left, top } = canvas.getBoundingClientRect();
            return rows.map(row => [left + spots[2 * row], top + spots[2 * row + 1]]);
        }""",
        [rows, map_],
    )


def lasso(page: Any, rows: list[int]) -> None:
    """Draw a line around these images of the first map."""
    across, down = zip(*spots(page, rows), strict=True)
    left, right, top, bottom = min(across) - 9, max(across) + 9, min(down) - 9, max(down) + 9
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(*corner, steps=6)
    page.mouse.up()


def ringed(page: Any, rows: list[int]) -> list[list[bool]]:
    """On each map, whether a white ring is around these images."""
    return page.evaluate(
        """rows => dmlMaps.panes.map(({ canvas, spots, size, ratio }) => rows.map(row => {
            const at = [spots[2 * row] + size + 4, spots[2 * row + 1]];
            const spot = at.map(place => Math.round(place * ratio) - 1);
            const { data } = canvas.getContext("2d").getImageData(...spot, 3, 3);
            return data.some((value, place) => place % 4 == 1 && value > 230);
        }))""",
        rows,
    )


def test_maps_and_grid_follow_the_filters_of_the_sidebar(page):
    wait_for(page, 71)
    filter_by(page, "split", "test")
    wait_for(page, 25)
    filter_by(page, "class_group", "unseen")
    wait_for(page, 5)
    assert page.locator(".dml .legend").inner_text().strip() == "unseen 5"
    assert [text for text, _ in chips(page, 5)] == [right(LAST)[0]] * 5
    page.locator(".dml button", has_text="Show all").click()
    wait_for(page, 71)


def test_images_selected_in_the_grid_are_ringed_on_both_maps(page):
    wait_for(page, 71)
    assert ringed(page, [0, 9]) == [[False, False]] * 2
    for place in (0, 9):
        image = page.locator("[data-cy=fo-grid] [data-cy=looker]").nth(place)
        image.hover()
        image.locator("[data-cy^=looker-checkbox]").first.click()
    page.get_by_text("71 of 71 images, 2 selected").wait_for()
    assert page.evaluate("[...dmlMaps.selected]") == [0, 9]
    assert ringed(page, [0, 9]) == [[True, True]] * 2
    page.locator(".dml button", has_text="Show all").click()
    page.wait_for_function("dmlMaps.selected.size == 0")
    assert ringed(page, [0, 9]) == [[False, False]] * 2


def test_a_lasso_leaves_its_images_in_the_grid_and_on_both_maps_and_filters_leave_some_of_them(
    page, keep
):
    wait_for(page, 71)
    lasso(page, UNSEEN)
    wait_for(page, len(UNSEEN))
    assert page.evaluate("dmlMaps.rows") == UNSEEN
    keep("lasso")
    filter_by(page, "outcome", "lost")
    wait_for(page, 2)
    assert page.evaluate("dmlMaps.rows") == UNSEEN[9:11]
    page.locator(".dml button", has_text="Show all").click()
    wait_for(page, 71)


def test_a_point_tells_its_class_answers_similarities_and_votes_and_a_click_its_nearest_images(
    page, keep
):
    lost = UNSEEN[9]
    place = spots(page, [lost], map_=1)[0]
    page.mouse.move(*place)
    page.locator(".dml .tip img").wait_for()
    tip = page.locator(".dml .tip").inner_text()
    assert tip.startswith(f"test image of the unseen class {LAST}")
    assert f"trained on all classes: right, {LAST} 0." in tip
    assert f"without the unseen classes: wrong, {SCARLET} 0.78; vote {SCARLET} " in tip
    page.mouse.click(*place)
    page.locator(".dml .near").nth(19).wait_for()
    keep("point", left=690)
    assert page.locator(".dml .near").nth(10).inner_text() == "0.78"
    edge = page.locator(".dml").bounding_box()
    last = page.locator(".dml .near").nth(19).bounding_box()
    assert last["x"] + last["width"] <= edge["x"] + edge["width"]  # all ten without scrolling
    page.locator(".dml button", has_text="Open").click()
    opened_image = page.locator("[data-cy=modal]")
    opened_image.wait_for()
    while opened_image.count():  # until it listens to keys
        page.keyboard.press("Escape")
        page.wait_for_timeout(200)
    page.locator(".dml button", has_text="Close").click()
