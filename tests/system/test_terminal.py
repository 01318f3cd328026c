"""What is left on a terminal when progress and messages follow each other."""

import io
import re
import time

import torch
from rich.console import Console
from rich.table import Table

from dml_bench.system.printable import printable
from dml_bench.system.terminal import Terminal, TerminalCallback


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


def test_beside_a_result_a_finished_step_leaves_nothing():
    console, notes = Console(file=io.StringIO(), width=80), []
    with TerminalCallback(console, notes.append) as callback:
        callback.progress("looking up", 3, 3)
        callback.note("index flat")
    assert (console.file.getvalue(), notes) == ("", ["index flat"])


def test_names_are_shown_as_text_in_lines_tables_and_notes():
    name = "[red]\x1b]0;title\x07 \u202e:bag:\r"
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, width=80, legacy_windows=False)
    table = Table(name)
    table.add_row(name)
    terminal.print(table)
    terminal.print(name)
    TerminalCallback(terminal).warn(name)
    text = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())  # colours of the program
    assert text.count(r"[red]\x1b]0;title") == 4
    assert text.count(r"\u202e:bag:") == 2, "a table cuts it off"
    assert not set("\x1b\x07\r\u202e") & set(text)


def test_joiners_and_letters_of_every_script_stay_as_they_are():
    for text in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🌾", "a\tb\nc"):
        assert printable(text) == text


class Machine:
    """A terminal, and the clocks of a process that computes on one core."""

    def __init__(self, monkeypatch) -> None:
        self.now = self.computed = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.computed)
        self.callback = TerminalCallback(
            Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
        )
        self.epoch = 0

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.computed += seconds

    def train(self, seconds: float) -> str:
        """An epoch of 1,000 images; what its line says is left."""
        self.epoch += 1
        self.work(seconds)
        self.callback.on_step(1000, torch.tensor(0.5))
        record = {"train_loss": 0.5, "train_images": 1000, "batches_without_tuples": 0}
        self.callback.on_epoch(record | {"epoch": self.epoch, "train_seconds": seconds})
        return self.callback.console.file.getvalue().splitlines()[-1].rpartition("images/s  ")[2]


def test_the_time_that_is_left_follows_the_pace_of_the_last_minute(monkeypatch):
    machine = Machine(monkeypatch)
    machine.callback.on_work(3 * 1000 * 40)
    machine.callback.on_phase("all", 40, 1000)
    left = {}
    for epoch in range(1, 41):
        # another phase ended, and its cores are free
        left[epoch] = machine.train(20.0 if epoch <= 20 else 5.0)
    assert [left[epoch] for epoch in (10, 33, 40)] == ["10:00 left", "0:35 left", "0:00 left"]


def test_a_stop_and_what_comes_before_a_phase_say_nothing_of_its_pace(monkeypatch):
    machine = Machine(monkeypatch)
    machine.callback.on_work(3 * 1000 * 40)
    machine.callback.on_phase("all", 20, 1000)
    for _ in range(20):
        machine.train(5.0)
    machine.work(300.0)  # features of the last stages, of all images
    machine.callback.on_work(3 * 1000 * 20)
    machine.callback.on_phase("limited", 20, 1000)
    assert machine.train(5.0) == "1:35 left"
    machine.now += 3600  # Ctrl-Z
    assert machine.train(5.0) == "1:30 left"


def test_a_step_says_how_long_the_rest_of_it_takes(monkeypatch):
    machine = Machine(monkeypatch)
    for done in range(100):
        machine.work(2.0)
        machine.callback.progress("looking up", done, 1000)
    machine.callback.progress_bar.refresh()
    assert "99/1,000  30:02 left" in machine.callback.console.file.getvalue()
