"""`dml-bench submit`: a finished run becomes a file of a pull request, if it adds up."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dml_bench.analysis.recording import record_run
from dml_bench.board.verify import Verified, VerifyRequest, verify
from dml_bench.runs import record_format
from dml_bench.runs.record import (
    OtherRecord,
    is_of_run,
    require_same_images,
    rewrite_record,
)
from dml_bench.runs.run import RecordedRun, Run

__all__ = ["submit"]


def submit(
    run: Run,
    results: Path,
    by: str,
    revision: str,
    request: VerifyRequest,
    *,
    replace: bool = False,
) -> Verified:
    """Write the submission of a run into `results`, and say what `verify` says of it. A record is
    written anew where it lies.

    Raises ValueError, and writes nothing, where it would be refused; and OtherRecord where a record
    is there that somebody else handed in, or that is of another run, unless they `replace` it.
    """
    by = by.strip()
    if isinstance(run, RecordedRun):
        require_same_name(run, by)
        rewrite_record(run.folder, by or None)
        return verify(run.folder, request)
    if not by:
        raise ValueError("a submission needs a name that answers for it: give --by NAME")
    with TemporaryDirectory() as folder:
        draft = record_run(Path(folder), run, submitted_by=by, revision=revision)
        verified = verify(draft, request)
        if verified.is_refused:
            reasons = "; ".join(line for line in verified.lines() if line.startswith("refused"))
            raise ValueError(f"{run.folder} can't be submitted: {reasons}")
        path = results / draft.relative_to(folder)
        before = description_to_replace(path, replace=replace) if path.exists() else None
        if before is not None:
            require_same_images(path, before, run, "submit it with --revision NAME")
            if not replace:
                require_own(path, before, run, by)
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (record_format.ANSWERS_SUFFIX, ".json"):
            shutil.copyfile(draft.with_suffix(suffix), path.with_suffix(suffix))
    return verify(path, request)


def description_to_replace(path: Path, *, replace: bool) -> dict[str, Any] | None:
    """What a record says that is there; None where that can't be read and is to be replaced. Raises
    ValueError where it can't be read and is not."""
    try:
        return record_format.read_description(path)
    except ValueError as problem:
        if replace:
            return None
        raise ValueError(f"{problem}; --replace writes over it") from None


def require_own(path: Path, before: Mapping[str, Any], run: Run, by: str) -> None:
    """Raises OtherRecord where what lies there is by somebody else, or of another run."""
    name = before.get("submitted_by", "")
    if name == by and is_of_run(before, run):
        return
    whose = "another run" if name == by else repr(name) if name else "this collection of results"
    raise OtherRecord(
        f"{path} is a record of {whose}: run the experiment under another name (it may extend"
        f" {run.experiment.name}), or replace the record with --replace"
    )


def require_same_name(record: RecordedRun, by: str) -> None:
    """Raises OtherRecord where a record would become that of somebody else."""
    name = record.description.get("submitted_by", "")
    if by and by != name:
        raise OtherRecord(
            f"{record.folder} is a record of {repr(name) if name else 'nobody'}, not of {by!r}:"
            " submit the folder of the run instead"
        )
