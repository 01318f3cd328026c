"""The program `dml-bench`. Before anything else is imported, Ctrl-C and closed streams are seen
to."""

import os
import signal
import sys

from dml_bench.system.memory import collect_garbage_rarely

STOPPED = 130


def main() -> None:
    """Run the command line, and end with its exit code."""
    collect_garbage_rarely()
    open_streams()
    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):  # a shell's background job, which ignores Ctrl-C
        from dml_bench.cli import app

        app.main()
        return
    # While modules are imported nothing has to be tidied up, and compiled ones turn a
    # KeyboardInterrupt into other errors.
    signal.signal(signal.SIGINT, lambda *_: os._exit(STOPPED))
    from dml_bench.cli import app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app.main()
    finally:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # Python's own end has nothing to say about a second Ctrl-C
        forget_unprinted()


def open_streams() -> None:
    """Point streams that were closed before the start, as `>&-` does, at nothing: else the next
    file that is opened gets their number, and what is printed with it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def forget_unprinted() -> None:
    """What can't be printed, as nobody reads it or the disk is full, has been told; Python's own
    end would tell it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
