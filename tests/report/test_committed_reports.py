"""The reports in the repository: each is what its own command makes of the records."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import dml_bench as db

ROOT = Path(__file__).parents[2]
PAGES = ROOT.glob("reports/*/report.md")
KINDS = sorted({page.parent.name for page in PAGES} & set(os.listdir(ROOT / "results")))


def lines(page: Path) -> list[str]:
    """Without the line that says when it was made, and by which commit."""
    written = page.read_text(encoding="utf-8").splitlines()
    return [line for line in written if not line.startswith("Made by")]


def kept_tables(folder: Path) -> list[str]:
    """Those that reports/.gitignore doesn't leave to be made again."""
    left_out = ("closer", "holdouts")
    return sorted(path.name for path in folder.glob("*.csv") if not path.name.startswith(left_out))


def test_make_reports_makes_each_by_the_command_that_it_names():
    """That of pixel_techniques lacked the rows without a technique, and half of the page."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nreports: install\n")[1]
    reads = recipe.partition("|")[0].strip().removesuffix("|").replace("$$", "$")
    typed = subprocess.run(
        ["bash", "-c", reads], cwd=ROOT, text=True, capture_output=True, check=True
    )
    commands = typed.stdout.splitlines()
    assert len(commands) == len(list(ROOT.glob("reports/*/report.md")))
    for line in commands:
        assert shlex.split(line)[:2] == ["dml-bench", "report"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_says_what_the_records_say_today(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    committed, made = Path("reports") / kind, tmp_path / kind
    said = re.search(r"Made by `dml-bench (.*?)` on", (committed / "report.md").read_text("utf-8"))
    assert said is not None
    _, *records = shlex.split(said[1])
    options = records[records.index("--out") :]
    del records[records.index("--out") :]
    figures = options[options.index("--figures") + 1]
    db.write_report(records, made, figures=figures.split(","))
    assert lines(made / "report.md") == lines(committed / "report.md")
    tables = kept_tables(made)
    assert tables == kept_tables(committed)
    for name in tables:
        assert (made / name).read_bytes() == (committed / name).read_bytes(), name
    pictures = sorted(path.name for path in (made / "figures").glob("*.png"))
    assert pictures == sorted(path.name for path in committed.glob("figures/*.png"))
