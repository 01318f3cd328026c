"""How far a suite is and how long it still takes, from the events of its processes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from dml_bench.suite.executor import JobResult, Listener
from dml_bench.suite.plan import Job
from dml_bench.system.child_process import Event
from dml_bench.system.pace import WorkingClock

__all__ = ["Display", "SuiteListener", "TimeLeft"]


@dataclass
class Pace:
    """How fast a run works."""

    begun: float
    """The time at which the run began, in seconds of the clock."""
    measured_from: float = 0.0
    """The time of the first event that says how much work is left; 0 before it."""
    done: float = 0.0
    """Units of work that are done."""
    left: float = 0.0
    """Units of work that are left."""
    goes_on: bool = False
    """Whether an earlier process has done a part of it: it takes less than a whole run."""
    detail: str = "starting"
    """What the run does now."""

    @property
    def fraction(self) -> float:
        """The part of the work that is done, 0 to 1."""
        return self.done / (self.done + self.left) if self.done + self.left else 0.0


@dataclass
class TimeLeft:
    """Estimates how long a suite still takes: runs at work by their own measured pace, the others
    by the runs that ended."""

    jobs: int
    clock: Callable[[], float] = field(default_factory=WorkingClock)
    working: dict[Job, Pace] = field(default_factory=dict)
    seconds: dict[Job, float] = field(default_factory=dict)
    """How long each run took that was begun and finished in this suite."""

    def on_start(self, job: Job) -> None:
        """A run has begun."""
        self.working[job] = Pace(self.clock())

    def on_plan(self, job: Job, *, goes_on: bool) -> None:
        """A run knows what there is to do; `goes_on` says whether a part of it was done before."""
        pace = self.working[job]
        if not pace.measured_from:  # else its process was lost, and its time here is of all of it
            pace.goes_on = goes_on

    def at(self, job: Job, done: float, left: float) -> None:
        """A run says how many units of work are done and left."""
        pace = self.working[job]
        begun_again = done < pace.done  # its process was lost, and the new one has a new pace
        if not pace.measured_from or begun_again:
            pace.measured_from = self.clock()
        pace.done, pace.left = done, left

    def on_end(self, result: JobResult) -> None:
        """A run has ended."""
        pace = self.working.pop(result.job)
        if result.status == "finished" and not pace.goes_on:
            self.seconds[result.job] = result.seconds

    def of_run(self, job: Job) -> float | None:
        """Seconds left of a run at work; None before any of its work is measured."""
        pace = self.working[job]
        if not pace.done:
            return None
        return (self.clock() - pace.measured_from) / pace.done * pace.left

    def of_waiting(self, job: Job) -> float | None:
        """Seconds that a run not begun may take: the mean of the same experiment with other seeds,
        else of all that ended, else of those at work; None where nothing is measured. A run that
        trains features is estimated by such runs alone: others take seconds. So does one that goes
        on shortly before its end."""
        trained, name = trains_features(job), job.experiment.name
        alike = [other for other in self.seconds if trains_features(other) == trained]
        same = [other for other in alike if other.experiment.name == name]
        known = [self.seconds[other] for other in same or alike] or self._projected(trained)
        return sum(known) / len(known) if known else None

    def _projected(self, trained: bool) -> list[float]:
        """Seconds that the runs at work will have taken that were begun here and train features, or
        those that don't."""
        totals = []
        for job, pace in self.working.items():
            left = self.of_run(job)
            if left is not None and not pace.goes_on and trains_features(job) == trained:
                totals.append(self.clock() - pace.begun + left)
        return totals

    def of_suite(self, waiting: list[Job]) -> float | None:
        """Seconds until all runs have ended, if none fails; None where nothing is measured."""
        not_begun = [self.of_waiting(job) for job in waiting]
        at_work = []
        for job in self.working:
            left = self.of_run(job)
            at_work.append(self.of_waiting(job) if left is None else left)
        waiting_seconds = [left for left in not_begun if left is not None]
        working_seconds = [left for left in at_work if left is not None]
        if len(waiting_seconds) < len(not_begun) or len(working_seconds) < len(at_work):
            return None
        shared = (sum(waiting_seconds) + sum(working_seconds)) / self.jobs
        return max([shared, *working_seconds])


def trains_features(job: Job) -> bool:
    """Whether a run trains what it embeds by."""
    return not job.experiment.no_drop_because


class Display(Protocol):
    """Where the progress of a suite is shown."""

    def say(self, text: str, style: str = "") -> None:
        """Print a line that stays."""

    def show(
        self, done: float, total: int, detail: str, working: list[tuple[str, float, str]]
    ) -> None:
        """Show `done` of `total` runs, and of each run at work its name, its finished part and what
        it does."""


class SuiteListener(Listener):
    """Turns events into one bar, a line for each run at work, and a line that stays for each run
    that ended."""

    def __init__(
        self,
        display: Display,
        jobs: list[Job],
        done: int,
        slots: int,
        duration: Callable[[float], str],
        warned: Collection[str] = (),
    ):
        """`jobs` are to be run; `done` others are finished already; `duration` writes seconds for
        people; `warned` are the warnings that the suite has given, which no run repeats."""
        self.display = display
        self.waiting = list(jobs)
        self.count = done
        self.total = done + len(jobs)
        self.duration = duration
        self.warned = warned
        self.time_left = TimeLeft(slots)

    def on_start(self, job: Job) -> None:
        """A run has begun."""
        self.waiting.remove(job)
        self.time_left.on_start(job)
        self.tick()

    def on_event(self, job: Job, event: Event) -> None:
        """The process of a run has sent an event."""
        pace = self.time_left.working[job]
        if event["event"] == "at":
            self.time_left.at(job, event["done"], event["left"])
            if "phase" in event:
                epoch, epochs = event["epoch"], event["epochs"]
                stage = f"epoch {epoch}/{epochs}" if epoch <= epochs else "evaluation"
                pace.detail = f"{event['phase']} {stage}"
        elif event["event"] == "plan":
            self.time_left.on_plan(job, goes_on=event.get("goes_on", False))
        elif event["event"] == "progress":
            pace.detail = event["text"].partition(" (")[0]
        elif event["event"] == "note":
            self.display.say(f"{job}: {event['text']}")
        elif event["event"] == "warning" and event["text"] not in self.warned:
            self.display.say(f"warning: {job}: {event['text']}", "yellow")

    def on_end(self, result: JobResult) -> None:
        """A run has ended."""
        self.time_left.on_end(result)
        self.count += 1

    def report(self, result: JobResult, numbers: str) -> None:
        """Say how the run came out that ended last; `numbers` describes its results."""
        failed = result.status == "failed"
        outcome = f"failed: {result.reason}" if failed else numbers
        line = f"[{self.count}/{self.total}] {result.job}: {outcome};"
        line += f" {self.duration(result.seconds)}"
        if self.count < self.total:
            line += f"; {self.describe_time_left()}"
        self.display.say(line, "red" if failed else "")

    def tick(self) -> None:
        """Show how far all runs are."""
        working = []
        done = float(self.count)
        for job, pace in self.time_left.working.items():
            working.append((str(job), pace.fraction, self._detail(job, pace)))
            done += pace.fraction
        detail = f"{self.count}/{self.total} runs  {self.describe_time_left()}"
        self.display.show(done, self.total, detail, working)

    def _detail(self, job: Job, pace: Pace) -> str:
        left = self.time_left.of_run(job)
        return pace.detail if left is None else f"{pace.detail}  {self.duration(left)} left"

    def describe_time_left(self) -> str:
        """The time left, and whether it is measured or partly estimated."""
        left = self.time_left.of_suite(self.waiting)
        if left is None:
            return "time left not known yet"
        unmeasured = [job for job in self.time_left.working if not self.time_left.working[job].done]
        estimated = len(self.waiting) + len(unmeasured)
        if not estimated:
            return f"{self.duration(left)} left"
        runs = "1 run" if estimated == 1 else f"{estimated} runs"
        return f"about {self.duration(left)} left ({runs} of it estimated)"
