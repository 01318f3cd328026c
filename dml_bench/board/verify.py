"""`dml-bench verify`: what is wrong with submissions, by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dml_bench.board import checks
from dml_bench.board.against_images import check_images, needs_folder
from dml_bench.board.mates import Tables
from dml_bench.board.rerun import run_again
from dml_bench.board.submission import Finding, Refused, Submission, open_submission
from dml_bench.board.table_mates import answered_alike, beside_others
from dml_bench.runs.layout import records_below
from dml_bench.system.callbacks import Callback
from dml_bench.system.printable import printable

__all__ = ["Verified", "VerifyRequest", "verify", "verify_all"]

SHOWN = 4
"""Findings of a name that are shown; forged numbers come by the dozen."""
LONGEST_TEXT = 1000
"""Letters of a finding that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyRequest:
    """What a submission is checked against, besides its own answers and its table."""

    data_dir: Path | None = None
    """Where its images lie; None leaves them aside, unless `draws`."""
    draws: bool = False
    """Whether drawn images are drawn for it."""
    rerun: bool = False
    """Whether the run is made again."""
    device: str = "auto"
    cache_dir: Path
    callback: Callback = field(default_factory=Callback)


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of one submission."""

    path: Path
    findings: tuple[Finding, ...]

    @property
    def is_refused(self) -> bool:
        """Whether it may not stand on the board."""
        return any(finding.verdict == "refused" for finding in self.findings)

    @property
    def is_for_review(self) -> bool:
        """Whether a person has to look before it may."""
        return any(finding.verdict == "review" for finding in self.findings)

    def of(self, verdict: str) -> list[Finding]:
        """Its findings of a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    def lines(self) -> list[str]:
        """For people: a line for each finding, of one name a few."""
        lines: list[str] = []
        shown: dict[tuple[str, str], int] = {}
        for finding in self.findings:
            key = finding.verdict, finding.name
            shown[key] = shown.get(key, 0) + 1
            if shown[key] <= SHOWN:
                lines.append(f"{finding.verdict}: {finding.name}: {in_a_line(finding.text)}")
        for (verdict, name), count in shown.items():
            if count > SHOWN:
                lines.append(f"{verdict}: {name}: {count - SHOWN} more like these")
        return lines


def in_a_line(text: str) -> str:
    """The beginning of a text that may hold what a submission says: of any length, and with what a
    terminal would obey."""
    line = " ".join(printable(text[: LONGEST_TEXT + 1]).split())
    return line if len(text) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."


def submissions_below(paths: Sequence[Path]) -> list[Path]:
    """The JSON of each submission that is named or lies in a named folder. Raises ValueError where
    there is none."""
    files = []
    for path in paths:
        below = records_below(path) if path.is_dir() else [path]
        if not below or not below[0].exists():
            what = "holds no submission" if path.is_dir() else "does not exist"
            raise ValueError(
                f"{path} {what}: name a file that `dml-bench submit` wrote, or a folder of them"
            )
        files += below
    return list(dict.fromkeys(files))


def links_below(paths: Sequence[Path]) -> list[Path]:
    """The links to folders in folders that are named."""
    below = [link for path in paths if path.is_dir() for link in sorted(path.rglob("*"))]
    return [link for link in below if link.is_symlink() and link.is_dir()]


def verify(path: Path, request: VerifyRequest, tables: Tables | None = None) -> Verified:
    """Check one submission, beside those of its table: of its folder, without `tables`. Nothing
    that it names is imported."""
    try:
        submission = open_submission(path)
        findings = [*first_findings(submission)]
        if not findings:
            findings = [
                *measured_findings(submission, tables or Tables()),
                *further_findings(submission, request),
            ]
    except Refused as refusal:
        findings = [refusal.finding]
    return Verified(path, tuple(findings))


def verify_all(paths: Sequence[Path], request: VerifyRequest) -> list[Verified]:
    """Check each submission that is named or lies in a named folder, also beside those of other
    tables. Raises ValueError where there is none."""
    verified: dict[Path, Verified] = {}
    below = submissions_below(paths)
    for link in links_below(paths):
        request.callback.warn(f"{link} is a link, so nothing in it is checked: name it too")
    tables = Tables(below)
    for path in below:
        verified[path] = verify(path, request, tables)
        request.callback.progress("checking submissions", len(verified), len(below))
    sound = [path for path, one in verified.items() if not one.is_refused]
    for one, other, same in answered_alike(sound):
        people = [mate.record.submitted_by for mate in (one, other)]
        is_again = same and people[0] == people[1]
        if is_again or one.path.parents[1] == other.path.parents[1]:  # `beside_others` says it
            continue
        by = "other people" if same else "other settings"
        text = f"{other.path} has the same, by {by}"
        findings = (*verified[one.path].findings, Finding("review", "same answers", text))
        verified[one.path] = replace(verified[one.path], findings=findings)
    return list(verified.values())


def first_findings(submission: Submission) -> Iterator[Finding]:
    for check in checks.FIRST:
        yield from contained(check, submission)


def measured_findings(submission: Submission, tables: Tables) -> Iterator[Finding]:
    for check in checks.CHECKS:
        yield from contained(check, submission)
    yield from beside_others(submission.path, submission.record, tables)


def contained(check: checks.Check, submission: Submission) -> Iterator[Finding]:
    """What a check yields. Values of a wrong kind, which only a forged file has, are a refusal
    too."""
    wrong = AssertionError, AttributeError, LookupError, OverflowError, TypeError, ValueError
    try:
        yield from check(submission)
    except (*wrong, RecursionError) as error:
        text = f"they can't be measured ({type(error).__name__}: {error}): record the run again"
        yield Finding("refused", "answers", text)


def further_findings(submission: Submission, request: VerifyRequest) -> Iterator[Finding]:
    """What takes more than the file."""
    in_folder = needs_folder(submission)
    draws = not in_folder and (request.draws or request.rerun)
    images: list[Finding] = []
    if request.data_dir is not None or draws:
        images += check_images(submission, request.data_dir, request.cache_dir, request.callback)
    yield from images
    if not request.rerun:
        return
    if in_folder and request.data_dir is None:
        raise ValueError(
            f"{submission.path} can't be made again without its images: give their folder with"
            " --data DIR"
        )
    if images and submission.run.experiment.plugins is None:
        yield Finding("unchecked", "rerun", "it takes the images that the submission is of")
        return
    folder = request.data_dir if in_folder else None
    yield from run_again(submission, folder, request.cache_dir, request.device, request.callback)
