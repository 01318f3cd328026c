"""How fast work goes now, and how long the rest of it takes."""

import time
from collections.abc import Callable

__all__ = ["RecentPace", "WorkingClock"]

LONG_SECONDS = 10.0
"""A shorter stretch is taken for work, whatever the process did in it."""
LEAST_BUSY = 0.05
"""In a longer one in which it computed for less than this share of the time, it was stopped."""
RECENT_SECONDS, MARK_SECONDS = 60.0, 0.25


class WorkingClock:
    """Seconds, without those in which this process was stopped (Ctrl-Z, SIGSTOP, a machine that
    slept). It has to be looked at now and then: a stop is seen as a long stretch between two looks
    in which the process computed almost nothing."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._worked = 0.0

    def __call__(self) -> float:
        """Seconds of work since this clock was made."""
        wall, cpu = time.perf_counter(), time.process_time()
        stretch, computed = wall - self._wall, cpu - self._cpu
        was_stopped = stretch > LONG_SECONDS and computed < LEAST_BUSY * stretch
        self._worked += computed if was_stopped else stretch
        self._wall, self._cpu = wall, cpu
        return self._worked


class RecentPace:
    """The pace of the last minute of work: stages differ in it, and so do phases beside others."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or WorkingClock()
        self._marks: list[tuple[float, float]] = []
        """Some moments of the last minute, and the units of work that were done by then."""

    def begin(self, done: float) -> None:
        """Work begins, or goes on after something that is no work: the time since units were last
        done doesn't count, and what is known of the pace stays."""
        now, marks = self.clock(), self._marks
        while len(marks) > 1 and marks[-2][1] == marks[-1][1]:
            marks.pop()
        gap = now - marks[-1][0] if marks else 0.0
        self._marks = [(moment + gap, units) for moment, units in marks]
        self._marks.append((now, done))

    def seconds_left(self, done: float, total: float) -> float | None:
        """At the pace until now, where `done` of `total` units are done; None before any work is
        measured."""
        now, marks = self.clock(), self._marks
        if not marks or now - marks[-1][0] >= MARK_SECONDS:
            marks.append((now, done))
        while len(marks) > 1 and marks[1][0] < now - RECENT_SECONDS and marks[1][1] < done:
            marks.pop(0)
        since, before = marks[0]
        if done <= before:
            return None
        return (now - since) / (done - before) * max(total - done, 0.0)
