"""What is left on a terminal when progress and messages follow each other."""

import io
import time

import torch
from rich.console import Console

from dml_bench.system.terminal import TerminalCallback


def test_a_message_after_a_finished_step_stands_on_a_line_without_a_bar():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False)
    with TerminalCallback(terminal) as callback:
        callback.progress("drawing maps", 0, 1)
        callback.progress("drawing maps", 1, 1)
        callback.note("ready after 6 s")
        callback.progress("writing", 2, 2)
    text = terminal.file.getvalue()
    assert "drawing maps: done" in text
    after = text.partition("drawing maps: done")[2].partition("writing")[0]
    assert after.startswith("\nready after 6 s\n")
    assert "drawing" not in after
    assert text.rstrip().endswith("writing: done")


def left_after(callback: TerminalCallback) -> str:
    """What the newest line says."""
    return callback.console.file.getvalue().splitlines()[-1].rpartition("images/s  ")[2]


def test_the_time_that_is_left_follows_the_pace_of_the_last_minute(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    callback = TerminalCallback(Console(file=io.StringIO(), width=200))
    callback.on_work(3 * 1000 * 40)
    callback.on_phase("all", 40, 1000)
    record = {"train_loss": 0.5, "train_images": 1000, "batches_without_tuples": 0}
    for epoch in range(1, 41):
        seconds = 20.0 if epoch <= 20 else 5.0  # another phase ended, and its cores are free
        now += seconds
        callback.on_step(1000, torch.tensor(0.5))
        callback.on_epoch(record | {"epoch": epoch, "train_seconds": seconds})
        if epoch == 10:
            assert left_after(callback) == "10:00 left"
        if epoch == 33:
            assert left_after(callback) == "0:35 left"
    assert left_after(callback) == "0:00 left"
