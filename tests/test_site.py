"""The site of the documentation: links lead where they do in the repository, all public names have
an entry, and its pages work in a browser without a network."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chromium import CHROMIUM, PATIENCE, needs_chromium

import dml_bench

ROOT = Path(__file__).parent.parent


def hook(name: str) -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / f"docs/site/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_out_of_docs_leads_to_the_same_file_and_one_to_a_folder_to_its_page():
    pages = hook("pages")
    files = {"README.md", "docs/scale.md", "reports/demo/report.md", "reports/speed/README.md"}
    places = {
        link: pages.target_of(link, "docs/study.md", files)
        for link in (
            "scale.md#ray",
            "../README.md",
            "../reports/demo",
            "../reports/speed",
            "none.md",
        )
    }
    assert places == {
        "scale.md#ray": "docs/scale.md",
        "../README.md": "README.md",
        "../reports/demo": "reports/demo/report.md",
        "../reports/speed": "reports/speed/README.md",
        "none.md": None,
    }
    assert pages.site_path("docs/scale.md") == "scale.md"
    assert pages.site_path("README.md") == "index.md"


def test_reports_that_a_page_shows_come_along_and_others_do_not():
    pages = hook("pages")
    reached = pages.linked_files(["docs/study.md"], pages.tracked())
    assert "reports/demo/report.md" in reached
    assert any(path.startswith("reports/demo/figures/") for path in reached)
    assert not any(path.startswith(("results/", "dml_bench/")) for path in reached)


def test_the_reference_has_every_public_name_once_under_a_heading():
    reference = hook("reference")
    names = [name for names in reference.public_names().values() for name in names]
    assert sorted(names) == sorted(dml_bench.__all__)
    assert set(reference.HEADINGS) <= set(reference.public_names())


def test_every_page_of_docs_has_a_place_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in menu, f"add {page.name} to nav in mkdocs.yml"


def test_doctests_of_a_docstring_are_code_and_prose_stays():
    griffe = pytest.importorskip("griffe")
    function = griffe.Function("double")
    function.docstring = griffe.Docstring("Doubles.\n\n>>> double(2)\n4\n\nRaises nothing.")
    hook("docstrings").FencedDoctests().on_object(obj=function)
    assert function.docstring.value == (
        "Doubles.\n\n```pycon\n>>> double(2)\n4\n```\n\nRaises nothing."
    )


def test_versions_are_sorted_by_number_and_the_sites_is_that_of_the_package():
    versions = hook("versions")
    assert versions.package_version(ROOT) == dml_bench.__version__
    assert max(["0.9.0", "0.10.0"], key=versions.sort_key) == "0.10.0"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--quiet", "--site-dir", str(folder / "latest")]
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / dml_bench.__version__


@pytest.fixture(scope="module")
def browser() -> Any:
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE
    )
    yield browser
    browser.close()
    playwright.stop()


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_its_screen_and_asks_no_other_host(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(PATIENCE)
    requests, errors, too_wide = [], [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 15
    for path in [*pages, site / "reports/demo/report.html"]:
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            too_wide.append(path.name)
    assert (errors, too_wide) == ([], [])
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@needs_chromium
@pytest.mark.slow
def test_search_finds_a_guide_and_the_foot_of_a_page_leads_to_all_versions(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.set_default_timeout(PATIENCE)
    page.goto((site / "reports/demo/report.html").as_uri())
    page.fill(".md-search__input", "say unknown and keep a precision")
    page.wait_for_selector(".md-search-result__item h1")
    assert "Use your own photos" in page.inner_text(".md-search-result__item >> nth=0")
    page.goto((site / "reports/demo/report.html").as_uri())
    page.click("text=All versions")
    assert page.inner_text("li") == dml_bench.__version__
