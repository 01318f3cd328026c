"""`dml-bench leaderboard`: from a folder of submissions to a site."""

import shutil
from pathlib import Path

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.study import Study
from dml_bench.board.over_data_sets import Aggregate, aggregates_of, aggregates_of_table
from dml_bench.board.page import Board, evidence_page, evidence_path, index_page
from dml_bench.board.table_mates import recorded_again
from dml_bench.board.tables import BoardTable, table_of
from dml_bench.board.verify import VerifyRequest, verify_all
from dml_bench.config.tables import tables_over_data
from dml_bench.runs import record_format
from dml_bench.system.callbacks import Callback
from dml_bench.system.counted import counted
from dml_bench.system.files import write_text

__all__ = ["write_site"]

OURS = "<title>Scoreboard: deep metric learning</title>"
"""By this an earlier site is known."""


def write_site(
    results: Path, out: Path, request: VerifyRequest, made_by: str, callback: Callback
) -> Path:
    """Verify all submissions, rank those that add up, and write the pages with copies of what they
    rest on. Returns the index.

    Raises ValueError where none adds up, or `out` is no place for a site.
    """
    require_apart(results, out)
    require_ours(out)
    verified = verify_all([results], request)
    for one in verified:
        if one.is_refused:
            callback.warn(f"{one.path} is left out: {one.lines()[0]}")
    sound = [one.path for one in verified if not one.is_refused]
    if not sound:
        raise ValueError(f"no submission in {results} adds up: dml-bench verify {results}")
    again = recorded_again(sound)
    collection = collect([path for path in sound if path.parent not in again])
    collection.problems += [
        f"{twice} is {once} again, which is shown" for twice, once in again.items()
    ]
    by_path = {str(one.path): one for one in verified}
    tables = [table_of(study, by_path) for study in studies_of(collection)]
    tables.sort(key=lambda table: -len(table.rows))
    aggregates: list[Aggregate] = []
    studies: dict[str, Study] = {}
    for name in tables_over_data():
        of_table, of_data_sets = aggregates_of_table(name, results, set(sound))
        aggregates += of_table
        studies |= of_data_sets
    aggregates += aggregates_of(tables)
    board = Board(tables, aggregates, studies, verified, collection.problems, made_by)
    for name in ("rows", "evidence"):
        shutil.rmtree(out / name, ignore_errors=True)
    for number, table in enumerate(tables, start=1):
        write_evidence(table, results, out)
        callback.progress("evidence of tables", number, len(tables))
    write(out / "index.html", index_page(board))
    size = f"{counted(len(collection.runs), 'run')} in {counted(len(tables), 'table')}"
    callback.note(f"{out / 'index.html'}: {size}")
    return out / "index.html"


def require_apart(results: Path, out: Path) -> None:
    """Raises ValueError where the copies on a site would be submissions of the next one."""
    if out.resolve().is_relative_to(results.resolve()):
        raise ValueError(
            f"{out} lies in {results}, where its copies of submissions would be taken for"
            " submissions: choose an --out DIR beside it"
        )


def require_ours(out: Path) -> None:
    """Raises ValueError where the folder holds anything else than an earlier site."""
    index = out / "index.html"
    is_ours = index.is_file() and OURS in index.read_text(encoding="utf-8", errors="replace")
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise ValueError(f"{out} holds other files than a scoreboard: choose an empty --out DIR")


def write_evidence(table: BoardTable, results: Path, out: Path) -> None:
    """The page of each row, and copies of its submissions."""
    folder = results if results.is_dir() else results.parent
    for row in table.rows:
        files = {}
        for run in row.line.runs:
            place = Path("evidence") / run.folder.relative_to(folder)
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".json", record_format.ANSWERS_SUFFIX):
                shutil.copyfile(run.folder.with_suffix(suffix), (out / place).with_suffix(suffix))
            files[run.folder] = f"../../{place.as_posix()}"
        write(out / evidence_path(table, row), evidence_page(table, row, files))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
