"""A process that works for another ends with it."""

import sys
from pathlib import Path

import pytest

from dml_bench.runs import beside_worker
from dml_bench.system.child_process import ChildProcess

PROGRAM = """
import sys, time
from dml_bench.system.child_process import carry_out

def work(job_spec, channel):
    try:
        channel.send("note", text="at work")
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        channel.send("note", text="asked to stop")
    while True:
        time.sleep(0.05)

sys.exit(carry_out(work, grace_seconds=float(sys.argv[1])))
"""


@pytest.mark.parametrize(("grace", "notes"), [("0", []), ("2", ["asked to stop"])])
def test_a_process_without_grace_ends_at_once_when_its_starter_has_gone(
    tmp_path: Path, grace: str, notes: list[str]
):
    process = ChildProcess(
        (sys.executable, "-c", PROGRAM, grace), {"title": "t"}, tmp_path / "l", 1
    )
    events = process.events()
    assert next(events)["text"] == "at work"
    assert process.process.stdin
    process.process.stdin.close()
    assert process.process.wait(timeout=30) == 130
    assert [event["text"] for event in events] == notes
    process.close()


def test_phases_beside_a_run_have_no_grace_as_its_folder_may_be_another_run_s_by_then(monkeypatch):
    options_of: dict[str, float] = {}
    monkeypatch.setattr(
        beside_worker, "carry_out", lambda work, **options: options_of.update(options)
    )
    beside_worker.main()
    assert options_of == {"grace_seconds": 0}
