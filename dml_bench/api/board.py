"""Public functions of the scoreboard: hand a run in, check what was handed in, and rank it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dml_bench.api.arguments import (
    PathLike,
    callback_or_log,
    optional_path,
    path_of,
    paths_of,
    run_of,
)
from dml_bench.report.printed import Printed
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console

    from dml_bench.board.verify import Verified
    from dml_bench.runs.run import Run

__all__ = ["Verification", "submit_run", "verify_submissions", "write_leaderboard"]


@dataclass(frozen=True, repr=False)
class Verification(Printed):
    """What is wrong with submissions. Printed, it is what `dml-bench verify` shows.

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> path = db.submit_run(run, by="me", revision="drawn")
    >>> db.verify_submissions(path).is_sound
    True
    """

    submissions: "tuple[Verified, ...]"

    @property
    def is_sound(self) -> bool:
        """Whether none of them is refused."""
        return not any(verified.is_refused for verified in self.submissions)

    def show(self, console: "Console") -> None:
        """Print a line for each finding, and the counts."""
        for verified in self.submissions:
            for line in verified.lines():
                console.print(f"{verified.path}: {line}", soft_wrap=True)
        refused = sum(verified.is_refused for verified in self.submissions)
        review = sum(verified.is_for_review for verified in self.submissions)
        console.print(
            f"{len(self.submissions):,} checked: {refused:,} refused, {review:,} for review"
        )


def submit_run(
    run: "Run | str | Path",
    results: PathLike = "results",
    *,
    by: str = "",
    revision: str = "",
    replace: bool = False,
    callback: Callback | None = None,
) -> Path:
    """Write a finished run as a submission: one JSON of at most 50 kB, with its answers beside it.

    `run` is a run, its folder, or a record, whose JSON is then written anew. `results` is the
    folder of the submissions, `by` the name that answers for this one. `revision` is a name for
    images that are not the published ones. A record of somebody else or of another run is written
    over only with `replace`. Of what a person has to look at, `callback` is warned.

    Raises ValueError where `verify_submissions` would refuse it; nothing is written then.
    Source: docs/contribute-results.md.

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> db.submit_run(run, "handed_in", by="me", revision="drawn").name
    'seed-42.json'
    """
    from dml_bench.board.submit import submit
    from dml_bench.board.verify import VerifyRequest

    request = VerifyRequest(cache_dir=cache_folder(None))
    verified = submit(run_of(run), path_of(results), by, revision, request, replace=replace)
    heard = callback_or_log(callback)
    for line in verified.lines():
        heard.warn(f"{verified.path}: {line}")
    return verified.path


def verify_submissions(
    paths: PathLike | Sequence[PathLike] = "results",
    *,
    data_dir: PathLike | None = None,
    draw: bool = False,
    rerun: bool = False,
    device: str = "auto",
    cache_dir: PathLike | None = None,
    callback: Callback | None = None,
) -> Verification:
    """Recompute all that submissions say from their answers to each query, and name what does not
    add up. Nothing that a submission names is imported.

    `paths` are files that `submit_run` wrote, or folders of them. With `data_dir`, the folder of
    their images, labels, split and hold-outs are drawn anew too; `draw` does so where the images
    are drawn. `rerun` trains again and compares the answers.

    Raises ValueError where there is no submission.
    Source: docs/contribute-results.md.

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> path = db.submit_run(run, by="me", revision="drawn")
    >>> _ = path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))
    >>> for line in str(db.verify_submissions(path)).splitlines():
    ...     print(line)
    results/...: refused: damaged: ... was changed after it was written; ...
    1 checked: 1 refused, 0 for review
    """
    from dml_bench.board.verify import VerifyRequest, verify_all

    request = VerifyRequest(
        data_dir=optional_path(data_dir),
        draws=draw,
        rerun=rerun,
        device=device,
        cache_dir=cache_folder(cache_dir),
        callback=callback_or_log(callback),
    )
    return Verification(tuple(verify_all(paths_of(paths), request)))


def write_leaderboard(
    results: PathLike = "results",
    out: PathLike = "site",
    *,
    command: Sequence[str] = (),
    callback: Callback | None = None,
) -> Path:
    """Verify all submissions of a folder, rank what can be compared, and return the page.

    `results` is the folder of the submissions. Into `out` come index.html, a page of evidence for
    each row, and copies of the submissions; it works without a server and without a network. There
    is a table for each protocol, revision of the data, kind of split and rule of hold-outs. Of what
    is refused, `callback` is warned. `command` is what the page names as its maker.

    Raises ValueError where no submission adds up, or `out` holds other files.
    Source: Mogstad, Romano, Shaikh and Wilhelm, "Inference for ranks" (2024).

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> _ = db.submit_run(run, "my_records", by="me", revision="drawn")
    >>> db.write_leaderboard("my_records", "my_site")
    PosixPath('my_site/index.html')
    """
    import shlex

    from dml_bench.board.leaderboard import write_site
    from dml_bench.board.verify import VerifyRequest

    heard = callback_or_log(callback)
    request = VerifyRequest(cache_dir=cache_folder(None), callback=heard)
    made_by = shlex.join(command or ("dml_bench.write_leaderboard", str(results)))
    return write_site(path_of(results), path_of(out), request, made_by, heard)
