"""How far a suite is and how long it still takes, from what its processes say."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dml_bench.suite.executor import Event, JobResult, Listener
from dml_bench.suite.plan import Job

__all__ = ["Display", "SuiteListener", "TimeLeft"]


@dataclass
class Pace:
    """One run at work: units of work done and left, and since when."""

    begun: float
    measured_from: float = 0.0
    """When work was first heard of."""
    done: float = 0.0
    left: float = 0.0
    detail: str = "starting"

    @property
    def fraction(self) -> float:
        return self.done / (self.done + self.left) if self.done + self.left else 0.0


@dataclass
class TimeLeft:
    """Estimates the time left of a suite: runs at work by their own measured pace, others by those
    that ended."""

    jobs: int
    clock: Callable[[], float] = time.monotonic
    working: dict[Job, Pace] = field(default_factory=dict)
    seconds: dict[Job, float] = field(default_factory=dict)
    """What runs took that were finished in this suite."""

    def started(self, job: Job) -> None:
        self.working[job] = Pace(self.clock())

    def at(self, job: Job, done: float, left: float) -> None:
        pace = self.working[job]
        if (
            not pace.measured_from or done < pace.done
        ):  # a run that was lost and begun again has a new pace
            pace.measured_from = self.clock()
        pace.done, pace.left = done, left

    def ended(self, ended: JobResult) -> None:
        self.working.pop(ended.job)
        if ended.status == "finished":
            self.seconds[ended.job] = ended.seconds

    def of_run(self, job: Job) -> float | None:
        """Seconds left of a run at work; None before any of its work is measured."""
        pace = self.working[job]
        if not pace.done:
            return None
        return (self.clock() - pace.measured_from) / pace.done * pace.left

    def of_waiting(self, job: Job) -> float | None:
        """Seconds that a run not begun may take: as the same experiment with other seeds took, else
        as the mean run, else as those at work will have taken; None where nothing is measured."""
        same = [
            seconds
            for other, seconds in self.seconds.items()
            if other.experiment.name == job.experiment.name
        ]
        known = same or list(self.seconds.values()) or self._projected()
        return sum(known) / len(known) if known else None

    def _projected(self) -> list[float]:
        return [
            self.clock() - pace.begun + left
            for job, pace in self.working.items()
            if (left := self.of_run(job)) is not None
        ]

    def of_suite(self, waiting: list[Job]) -> float | None:
        """Seconds left of everything, if nothing fails; None where nothing is measured."""
        mean = [left for job in waiting if (left := self.of_waiting(job)) is not None]
        running = [
            left if (left := self.of_run(job)) is not None else self.of_waiting(job)
            for job in self.working
        ]
        known = [left for left in running if left is not None]
        if len(mean) < len(waiting) or len(known) < len(running):
            return None
        return max([(sum(mean) + sum(known)) / self.jobs, *known], default=0.0)


class Display(Protocol):
    def say(self, text: str, style: str = "") -> None: ...

    def show(
        self, done: float, total: int, detail: str, working: list[tuple[str, float, str]]
    ) -> None: ...


class SuiteListener(Listener):
    """Turns events into one bar, a line per run at work, and a lasting line per run that ended."""

    def __init__(
        self,
        display: Display,
        jobs: list[Job],
        done: int,
        slots: int,
        duration: Callable[[float], str],
    ):
        """`jobs` are to be run; `done` others are finished already; `duration` writes seconds for
        people."""
        self.display = display
        self.waiting = list(jobs)
        self.count = done
        self.total = done + len(jobs)
        self.duration = duration
        self.time_left = TimeLeft(slots)

    def started(self, job: Job) -> None:
        self.waiting.remove(job)
        self.time_left.started(job)
        self.tick()

    def heard(self, job: Job, event: Event) -> None:
        pace = self.time_left.working[job]
        if event["event"] == "at":
            self.time_left.at(job, event["done"], event["left"])
            if "phase" in event:
                epoch, epochs = event["epoch"], event["epochs"]
                pace.detail = (
                    f"{event['phase']} epoch {epoch}/{epochs}"
                    if epoch <= epochs
                    else f"{event['phase']} evaluation"
                )
        elif event["event"] == "progress":
            pace.detail = event["text"].partition(" (")[0]
        elif event["event"] == "note":
            self.display.say(f"{job}: {event['text']}")
        elif event["event"] == "warning":
            self.display.say(f"warning: {job}: {event['text']}", "yellow")

    def ended(self, ended: JobResult) -> None:
        self.time_left.ended(ended)
        self.count += 1

    def tell(self, ended: JobResult, numbers: str) -> None:
        """Say how the run came out that ended last; `numbers` are its results in a few words."""
        left = f"; {self.words()}" if self.count < self.total else ""
        result = f"failed: {ended.reason}" if ended.status == "failed" else numbers
        line = (
            f"[{self.count}/{self.total}] {ended.job}: {result};"
            f" {self.duration(ended.seconds)}{left}"
        )
        self.display.say(line, "red" if ended.status == "failed" else "")

    def tick(self) -> None:
        working = [
            (str(job), pace.fraction, self._detail(job, pace))
            for job, pace in self.time_left.working.items()
        ]
        done = self.count + sum(fraction for _, fraction, _ in working)
        self.display.show(
            done, self.total, f"{self.count}/{self.total} runs  {self.words()}", working
        )

    def _detail(self, job: Job, pace: Pace) -> str:
        left = self.time_left.of_run(job)
        return pace.detail if left is None else f"{pace.detail}  {self.duration(left)} left"

    def words(self) -> str:
        """The time left, and what it rests on."""
        left = self.time_left.of_suite(self.waiting)
        if left is None:
            return "time left not known yet"
        guessed = len(self.waiting) + sum(
            self.time_left.of_run(job) is None for job in self.time_left.working
        )
        if not guessed:
            return f"{self.duration(left)} left"
        return (
            f"about {self.duration(left)} left ({guessed} run{'s' if guessed > 1 else ''} of it"
            " estimated)"
        )
