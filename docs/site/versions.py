"""The site of each version is a folder of its own. An index.html beside them lists them, newest
first, and the foot of every page leads to it. Nothing of it needs a server."""

import ast
import posixpath
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

FOOT = 'Version {0}, MIT licence. <a href="ALL_VERSIONS">All versions</a>'
SHELF = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>dml_bench: versions of the documentation</title>
<body style="font: 16px sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em">
<h1>dml_bench</h1>
<p>The documentation of each version:</p>
<ul>
{rows}
</ul>
</body>
</html>
"""


def package_version(root: Path) -> str:
    """The version of the package, read without importing it."""
    module = ast.parse((root / "dml_bench/version.py").read_text(encoding="utf-8"))
    last = module.body[-1]
    assert isinstance(last, ast.Assign)
    return str(ast.literal_eval(last.value))


def sort_key(version: str) -> tuple[int, ...]:
    """Orders 0.10.0 after 0.9.0."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Build into a folder named after the version."""
    version = package_version(Path(config.config_file_path).parent)
    config.site_dir = str(Path(config.site_dir).with_name(version))
    config.copyright = FOOT.format(version)
    return config


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Lead from the foot of a page to the list of versions."""
    above = posixpath.relpath(".", posixpath.dirname(page.url) or ".")
    return output.replace("ALL_VERSIONS", posixpath.join(above, "../index.html"))


def on_post_build(config: MkDocsConfig) -> None:
    """List the versions that lie side by side."""
    shelf = Path(config.site_dir).parent
    versions = [page.parent.name for page in shelf.glob("*/index.html")]
    rows = [
        f'<li><a href="{version}/index.html">{version}</a>'
        for version in sorted(versions, key=sort_key, reverse=True)
    ]
    (shelf / "index.html").write_text(SHELF.format(rows="\n".join(rows)), encoding="utf-8")
