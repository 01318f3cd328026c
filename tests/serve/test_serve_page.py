"""The web page of a server, used in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, PATIENCE, needs_chromium
from serving_here import running

from dml_bench.serve.uploads import UploadLimits

pytestmark = [needs_chromium, pytest.mark.slow]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def birds_to_drop(tmp_path_factory) -> list[Path]:
    from dml_bench.data.synthetic import write

    folder = write(tmp_path_factory.mktemp("new") / "drawn", counts=[4], size=48, seed=77)
    return sorted((folder / "images").rglob("*.jpg"))


@pytest.fixture
def page(chromium) -> Iterator[Any]:
    """A page that reaches nothing but this machine, and whose programs may not fail."""
    faults: list[str] = []
    page = chromium.new_page(viewport={"width": 1180, "height": 860})
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    local = r"(https?://(127\.0\.0\.1|localhost)[:/])|data:|blob:"
    page.on(
        "request",
        lambda request: re.match(local, request.url) or faults.append(request.url),
    )
    yield page
    page.close()
    assert faults == []


def test_photos_are_dropped_a_class_is_added_found_and_removed(
    trained, birds_to_drop, page, tmp_path
):
    run = trained("train.precision=float32").folder
    limits = UploadLimits(images=2)  # more photos are several requests
    with running(run, tmp_path / "gallery", limits=limits) as client:
        page.goto(str(client.base_url))
        page.wait_for_selector("#classes li img")
        assert page.locator("#count").inner_text() == "8"
        assert "every photo is answered" in page.locator("#rule").inner_text().lower()
        page.set_input_files("#ask input", birds_to_drop[:3])
        page.locator(".answer").nth(2).locator(".near img").first.wait_for()
        names = [photo.get_attribute("alt") for photo in page.locator(".answer > img").all()]
        assert names == [path.name for path in birds_to_drop[:3]]
        page.fill("input[name=class]", EVIL)
        page.set_input_files("#enrol input[type=file]", birds_to_drop[1:])
        page.locator("#enrolled", has_text="3 photos added").wait_for()
        page.locator("#count", has_text="9").wait_for()
        page.set_input_files("#ask input", birds_to_drop[2:3])
        page.locator(".answer").nth(3).wait_for()
        assert page.locator(".answer h3").first.inner_text() == EVIL, "newest first, as text"
        page.fill("#filter", "onerror")
        page.locator("#classes button").click()
        page.locator("#count", has_text="8").wait_for()
        text = tmp_path / "notes.jpg"
        text.write_text("no image")
        page.set_input_files("#ask input", [text])
        page.wait_for_selector("#problem:not([hidden])")
        assert page.locator("#problem").inner_text().startswith("notes.jpg: must be an image")


def test_photos_below_the_threshold_are_unknown_on_the_page(trained, birds_to_drop, page, tmp_path):
    from dml_bench.serve.served_gallery import WantedThreshold

    run = trained("train.precision=float32").folder
    wanted = WantedThreshold(threshold=1.0)
    with running(run, tmp_path / "gallery", wanted=wanted) as client:
        page.goto(str(client.base_url))
        page.set_input_files("#ask input", birds_to_drop[:1])
        page.wait_for_selector(".answer.unknown .near img")
        assert page.locator(".answer h3").inner_text() == "unknown"


def test_the_page_asks_for_the_token_and_keeps_it(trained, page, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("a-secret-of-many-letters-1")
    secret.chmod(0o600)
    run = trained("train.precision=float32").folder
    with running(run, tmp_path / "gallery", token_file=secret) as client:
        page.goto(str(client.base_url))
        page.wait_for_selector("#token:not([hidden])")
        page.fill("#token input", "wrong")
        page.click("#token button")
        page.wait_for_selector("#problem:not([hidden])")
        page.fill("#token input", "a-secret-of-many-letters-1")
        page.click("#token button")
        page.wait_for_selector("#classes li img")
        page.reload()
        page.wait_for_selector("#classes li img")
