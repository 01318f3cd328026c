"""The browser that opens pages where only a browser can tell."""

import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE = 300_000
"""Milliseconds: beside other work on two cores a browser takes minutes to start, or to open a
page."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
