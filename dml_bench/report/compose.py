"""`dml-bench report`: everything gathered, looked at, written."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dml_bench import __version__
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import Diagnostics, Example, ExampleImages, Mistake, diagnose
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.config import as_table
from dml_bench.plots import figures
from dml_bench.plots.canvas import ReportFigure, standalone
from dml_bench.report import html, markdown
from dml_bench.report.changes import changes_csv
from dml_bench.report.findings import Finding, findings
from dml_bench.report.thumbnails import Pictures
from dml_bench.suite.page import expectations_csv, table_csv
from dml_bench.suite.record import made_with
from dml_bench.system.failures import named
from dml_bench.system.files import write_csv
from dml_bench.system.provenance import commit

__all__ = ["Report", "Section", "report"]

DRAWS = 30
MISTAKES = 8
CASES = 4
TABLES = ("table", "expectations", "closer", "holdouts", "changes")
PAGES = ("index.html", "report.md")


@dataclass(frozen=True, slots=True)
class Section:
    """A section with all that is shown of it."""

    section: Study
    answers: list[Finding]
    closer: dict[str, Diagnostics]
    figures: list[ReportFigure]
    pictures: Pictures
    mistakes: list[Mistake]
    evidence: dict[str, list[Example]]
    shown: str
    """Whose images: experiment, seed and phase, or why there are none."""
    made_with: list[str]

    @property
    def configurations(self) -> list[tuple[TableRow, dict[str, Any]]]:
        """Each experiment as it ran, with its seeds."""
        return [(line, as_table(line.runs[0].experiment)) for line in self.section.finished]


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    command: str
    made: str
    problems: list[str]
    chapters: list[Section]


def report(
    runs: Sequence[Path],
    out: Path,
    command: Sequence[str],
    say: Callable[[str], None] = lambda text: None,
    data_dir: Path | None = None,
) -> Report:
    """Write the report on these run folders, or all below them, into `out`. Raises ValueError where
    there is no finished run. `data_dir` is where their images lie now, if they were moved.

    `say` is told of each thing that was found and can't be used.
    """
    begun = time.perf_counter()
    found = collect(runs, data_dir)
    sections = studies_of(found)
    for problem in found.problems:
        say(problem)
    chapters = [chapter(section) for section in sections]
    made = f"{datetime.now(UTC):%Y-%m-%d} by dml-bench {__version__}" + (
        f" (commit {commit()})" if commit() else ""
    )
    whole = Report(f"Report: {out.name}", shlex.join(command), made, found.problems, chapters)
    write(out, whole)
    say(
        f"{out / 'index.html'}: {sum(len(c.section.group.runs) for c in chapters)} runs in"
        f" {time.perf_counter() - begun:.0f} s"
    )
    return whole


def chapter(section: Study) -> Section:
    if section.rival is None:
        section.missing.append("a softmax classifier to compare with: none of these runs is one")
    for line in section.group.lines:
        section.missing += [f"{line.name}, {remark}" for remark in line.remarks]
    closer = {line.name: diagnose(section, line, DRAWS) for line in section.chosen}
    pictures, mistakes, evidence, shown = images_of(section)
    drawn = figures.draw(section, closer)
    return Section(
        section,
        findings(section, closer),
        closer,
        drawn,
        pictures,
        mistakes,
        evidence,
        shown,
        made_with(section.group.runs, ()),
    )


def images_of(section: Study) -> tuple[Pictures, list[Mistake], dict[str, list[Example]], str]:
    """The images behind the best experiment's answers, of its first seed."""
    line = section.best or section.finished[0]
    run = line.runs[0]
    phase = next((name for name in run.neighbours if name.startswith("limited")), "")
    try:
        known, without = ExampleImages(run), ExampleImages(run, phase)
        mistakes, evidence = known.mistakes(MISTAKES), without.evidence(CASES)
        root = run.images.known_root
    except (OSError, KeyError, ValueError) as error:
        section.missing.append(f"example images: {' '.join(str(error).split())}")
        return Pictures(None), [], {}, ""
    pictures = Pictures(root, {image.path: image.sha256 for image in run.split})
    shown = [
        *(mistake.example for mistake in mistakes),
        *(case for cases in evidence.values() for case in cases),
    ]
    for case in shown:
        pictures.get(case.query)
        pictures.get(case.nearest)
    if pictures.gone:
        section.missing.append(
            f"{len(pictures.gone)} of {len(pictures.gone) + len(pictures.copies)} example images:"
            f" they are not in {root} any more, or can't be read"
        )
    return pictures, mistakes, evidence, f"{line.name}, seed {run.seed}"


def write(out: Path, whole: Report) -> None:
    """The pages go first and come last: no page stands beside figures and tables of another report,
    wherever this is stopped."""
    for page_name in PAGES:
        (out / page_name).unlink(missing_ok=True)
    for folder in ("figures", "images"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in (out / folder).iterdir():
            if old.suffix in (".svg", ".png", ".jpg"):
                old.unlink()
    for table in TABLES:
        for old in [out / f"{table}.csv", *out.glob(f"{table}-*.csv")]:
            old.unlink(missing_ok=True)
    for each in whole.chapters:
        slug = "" if len(whole.chapters) == 1 else f"-{each.section.slug}"
        write_csv(out / f"table{slug}.csv", *table_csv(each.section.group))
        write_csv(out / f"expectations{slug}.csv", *expectations_csv(each.section.verdicts))
        write_csv(out / f"closer{slug}.csv", *closer_csv(each))
        if len(each.section.holdouts) > 1:
            write_csv(out / f"holdouts{slug}.csv", *holdouts_csv(each.section))
        if each.section.effects:
            write_csv(out / f"changes{slug}.csv", *changes_csv(each.section.effects))
        write_figures(out / "figures", each.figures)
        each.pictures.write(out / "images")
    html.write(out / "index.html", whole)
    markdown.write(out / "report.md", whole)


def write_figures(folder: Path, figures: Sequence[ReportFigure]) -> None:
    for figure in figures:
        for ending, picture in (("svg", standalone(figure.svg).encode()), ("png", figure.png)):
            with named(path := folder / f"{figure.name}.{ending}"):
                path.write_bytes(picture)


def holdouts_csv(section: Study) -> tuple[list[str], list[list[Any]]]:
    """The drop on the unseen classes of each hold-out, a row for each seed."""
    rows: list[list[Any]] = []
    for line in section.finished:
        for phase, drops in zip(section.holdouts, section.holdout_drops(line), strict=True):
            rows += [
                [line.name, run.seed, phase, drop]
                for run, drop in zip(line.runs, drops.tolist(), strict=True)
            ]
    return ["experiment", "seed", "phase", "precision_drop_unseen_classes"], rows


def closer_csv(chapter: Section) -> tuple[list[str], list[list[Any]]]:
    """Long form: one number a row."""
    rows: list[list[Any]] = []
    for name, look in chapter.closer.items():
        for by, curve in look.enrolment.items():
            for group in ("unseen", "seen"):
                for k, mean, low, high in zip(curve.ks, *curve.band(group), strict=True):
                    rows.append([name, f"enrolment_{group}_by_{by}", k, mean, low, high])
        if look.open_set:
            rows += [
                [name, number, "", look.mean(number), "", ""]
                for number in ("auroc", "aupr", "fpr_at_95_tpr", "oscr")
            ]
            rows += [
                [name, f"threshold_{what}", "", value, "", ""]
                for what, value in zip(("precision", "coverage"), look.answered, strict=True)
            ]
            images = sum(each.validation_images for each in look.open_set) / len(look.open_set)
            rows.append([name, "threshold_validation_images", "", images, "", ""])
        rows += [
            [name, f"vote_{w}", k, v, "", ""]
            for w in ("majority", "distance")
            for k, v in zip(look.votes.ks, getattr(look.votes, w), strict=True)
        ]
        rows.append([name, "vote_calibration_error", 10, look.calibration_error, "", ""])
    return ["experiment", "number", "k", "value", "low", "high"], rows
