"""What is left on a terminal when progress and messages follow each other."""

import io

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
