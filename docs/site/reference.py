"""The page of the Python API: every public name, by the module that defines it. It is made of
docstrings when the site is built, and read from the source without importing it."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
HEADINGS = {
    "dml_bench.api.train": "Train",
    "dml_bench.api.analyse": "Read and compare runs",
    "dml_bench.api.gallery": "Use a gallery",
    "dml_bench.api.decision": "Decide",
    "dml_bench.api.board": "Submit, verify and rank results",
    "dml_bench.api.explore": "Look at images",
    "dml_bench.api.data": "Data sets",
    "dml_bench.api.cache": "What is kept between commands",
    "dml_bench.registry.plugins": "Components of your own",
    "dml_bench.system.callbacks": "Progress",
}
RESULTS = ("dml_bench.runs.run.Run",)
"""Classes that functions return and that nobody makes by hand."""


def public_names() -> dict[str, list[str]]:
    """The names that the package exports, by module, in the order of `HEADINGS`."""
    package = ast.parse((ROOT / "dml_bench/__init__.py").read_text(encoding="utf-8"))
    names = {
        node.module: [alias.name for alias in node.names if alias.name != "__version__"]
        for node in package.body
        if isinstance(node, ast.ImportFrom) and node.module
    }
    order = [*HEADINGS, *(module for module in names if module not in HEADINGS)]
    return {module: names[module] for module in order if names.get(module)}


def reference() -> str:
    """The page as Markdown, in which mkdocstrings fills in the docstrings."""
    lines = [
        "# Python API",
        "",
        "What the command line does, these functions do. `import dml_bench as db` makes the",
        "examples run; they are tested. A first walk through: [Python and notebooks](python.md).",
    ]
    for module, names in public_names().items():
        lines += ["", f"## {HEADINGS.get(module, module.rpartition('.')[2].capitalize())}"]
        for name in names:
            lines += ["", f"::: dml_bench.{name}"]
    lines += ["", "## What functions return"]
    for name in RESULTS:
        lines += ["", f"::: {name}"]
    return "\n".join(lines) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, "api.md", content=reference()))
    return files
