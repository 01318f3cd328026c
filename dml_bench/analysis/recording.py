"""Records with what only a run folder can be asked: enrolment, unknown classes, votes."""

from pathlib import Path
from typing import Any

from dml_bench.analysis.diagnostics import (
    DRAWS,
    calibration_of_vote,
    curve_of_phase,
    is_diagnosable,
    not_enrolled,
    votes_of,
    ways_of,
    why_unmeasured,
)
from dml_bench.analysis.study import held_out
from dml_bench.runs.plain_values import to_plain
from dml_bench.runs.record import write_record
from dml_bench.runs.run import Run

__all__ = ["record_run"]

FEWEST_DRAWS = 8


def record_run(results: Path, run: Run, *, submitted_by: str = "", revision: str = "") -> Path:
    """Write the record of a finished run, diagnostics included, and return the path of its JSON; as
    `write_record`. Raises OtherRecord where the record there is of other images."""
    return write_record(
        results, run, diagnostics_of(run), submitted_by=submitted_by, revision=revision
    )


def diagnostics_of(run: Run) -> dict[str, Any]:
    """By the names under which `analysis.diagnostics` asks a record. Of several hold-outs, each has
    fewer draws of enrolled images, as they are pooled."""
    phases = [phase for phase in held_out(run) if is_diagnosable(run, phase)]
    draws = max(FEWEST_DRAWS, DRAWS // max(len(phases), 1))
    diagnostics = {
        "votes": to_plain(votes_of(run)),
        "calibration": to_plain(calibration_of_vote(run)),
    }
    for phase in phases:
        for way in ways_of([run]):
            if why_unmeasured(run, phase, way):
                continue
            curve = curve_of_phase(run, phase, way, draws)
            diagnostics[f"enrolment.{phase}.{way}"] = to_plain(curve)
        diagnostics[f"open_set.{phase}"] = to_plain(not_enrolled(run, phase))
    return diagnostics
