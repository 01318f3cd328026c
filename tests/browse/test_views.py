"""Each saved view of `browse` in a headless Chromium, of a run in which it is known what they hold.

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
def keep(request, opened) -> Callable[[str], None]:
    """Takes the picture of the page, which is no blank one, and keeps it where that is wanted."""
    folder = request.config.getoption("--pictures")

    def take(name: str) -> None:
        opened.mouse.move(500, 780)  # off the sidebar, whose hints would lie over images
        opened.wait_for_timeout(1500)
        picture = Image.open(io.BytesIO(opened.screenshot(timeout=120_000))).convert("RGB")
        assert picture.size == (1280, 800)
        assert len(picture.getcolors(1 << 20)) > 1000
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{name}.webp", quality=72, method=6)

    return take


def chips(page: Any) -> list[Chip]:
    """The words on the images of the grid and what their colour means, row by row."""
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
        "count => dmlMaps.panes.every(pane => pane.drawn == count) &&"
        " document.querySelectorAll('[data-cy=fo-grid] [data-cy^=tag-]').length == count",
        arg=len(expected),
    )
    keep("confused-pair" if name.startswith(PAIR) else re.sub(r"\W+", "-", name).strip("-"))
    shown = chips(page)
    assert sorted(shown) == sorted(expected)
    assert shown[0] == expected[0]
    assert shown == expected or name in TIED


def test_beside_the_maps_stands_how_far_images_scatter(page):
    notes = page.locator(".dml .notes").all_inner_texts()
    assert len(notes) == 2
    assert all("seen classes: training" in note and "hubness" in note for note in notes)
    assert drawn(page) == [71, 71]
