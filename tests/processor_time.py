"""What a session of tests costs in seconds of a processor: it ends with how many, and with the
dearest files, and a test that takes too many without being marked as slow has failed.

A clock says little on a machine that does other work too; processors' time grows there by a third,
and the limits with the slowness of the machine.
"""

import resource
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

LIMIT_SECONDS = 30.0
"""Of a test, without what it shares with others; a new one had better take less than 3,
and on idle cores never 10."""
USUAL_SECONDS = 0.17
"""What `slowness` does takes as long on a machine that has its memory for itself."""
ALL_SECONDS = 600
"""Of all tests of `make test`: two idle cores work that off in five minutes, and nearly one goes
into collecting tests and waiting for the last file."""
ALLOWED = {
    "test_distributed.py::two": 90,
    "test_fiftyone.py::test_ctrl_c_ends_the_app_which_leaves_nothing_behind": 60,
    "test_projection.py::drawn": 120,
    "test_ray.py::": 60,
    "test_run.py::test_killed_and_resumed_equals_never_stopped": 40,
}
"""Old tests, and fixtures of several tests, that may take more. Nothing new should stand here."""
PROPERTY = "seconds of a processor"
SHOWN = 10


class Shared:
    """What this process has spent so far on what several tests share."""

    seconds = 0.0


def used() -> float:
    """Seconds of processors of this process and of those that it began and that have ended."""
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(user) for user in users]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def slowness() -> float:
    """How many times as long this machine takes now as USUAL_SECONDS, at least 1: virtual ones need
    twice as many seconds of a processor for the same work within an hour, and five times as many
    where their memory is in pieces."""
    start = used()
    assert len({str(number): number for number in range(500_000)}) == 500_000
    return max(1.0, (used() - start) / USUAL_SECONDS)


@contextmanager
def shared_work() -> Iterator[None]:
    """What happens here is not the cost of the test that happens to need it first."""
    start, before = used(), Shared.seconds
    try:
        yield
    finally:
        Shared.seconds = before + used() - start


def with_slow(values: Iterable[Any], *slow: Any) -> list[Any]:
    """The cases of a test, of which some only `make test-all` runs."""
    return [
        pytest.param(value, marks=pytest.mark.slow) if value in slow else value for value in values
    ]


class ProcessorTimes:
    """Of one session."""

    def __init__(self, enforced: bool, longest: Sequence[str]) -> None:
        self.enforced, self.longest = enforced, longest
        self.at_last_report = self.own = self.shared_before = 0.0
        self.of_files: Counter[str] = Counter()
        self.waited = ""
        """A line on the processes that had nothing to do in the end."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self.at_last_report, self.own = used(), 0.0
        self.shared_before = Shared.seconds
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        start, before = used(), Shared.seconds
        with shared_work():
            result = yield
            own = used() - start - (Shared.seconds - before)
        self.check(f"{request.node.name.rpartition('/')[2]}::{fixturedef.argname}", own)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: Any = yield
        now, shared = used(), Shared.seconds
        spent = now - self.at_last_report
        self.own += spent - (shared - self.shared_before)
        self.at_last_report, self.shared_before = now, shared
        report.user_properties = [*report.user_properties, (PROPERTY, spent)]
        if report.when == "call" and report.passed and not item.get_closest_marker("slow"):
            try:
                self.check(f"{item.path.name}::{item.name}", self.own)
            except pytest.fail.Exception as failure:
                report.outcome, report.longrepr = "failed", str(failure)
        return report

    def check(self, name: str, seconds: float) -> None:
        """Fails where a test or a fixture takes too long."""
        allowed = next((ALLOWED[part] for part in ALLOWED if name.startswith(part)), LIMIT_SECONDS)
        if self.enforced and seconds > allowed and seconds > (allowed := allowed * slowness()):
            pytest.fail(
                f"{name} must take at most {allowed:.0f} seconds of a processor, got"
                f" {seconds:.1f}: make it smaller, share a run of the session (`trained`), or"
                " mark it with @pytest.mark.slow and let a cheaper test check its claim",
                pytrace=False,
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.of_files[report.location[0]] += dict(report.user_properties).get(PROPERTY, 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        dearest = []
        for file, seconds in self.of_files.most_common(SHOWN):
            dearest.append(f"{file.rpartition('/')[2].removesuffix('.py')} {seconds:.0f}")
        total = sum(self.of_files.values())
        terminalreporter.section("seconds of processors")
        limit = f" of {ALL_SECONDS}" if self.enforced else ""
        terminalreporter.line(
            f"{total:.0f}{limit} for the tests; {used():.0f} with collecting them"
        )
        terminalreporter.line(f"Dearest files: {', '.join(dearest)}")
        if self.waited:
            terminalreporter.line(self.waited)
        late = []
        for file, seconds in self.of_files.most_common():
            name = file.rpartition("/")[2].removesuffix(".py")
            if seconds > LIMIT_SECONDS and name not in self.longest:
                late.append(name)
        if self.enforced and late:
            terminalreporter.line(f"Write into LONGEST of conftest.py, to begin early: {late}")
        if self.enforced and total > ALL_SECONDS:
            terminalreporter.line(
                "Too many for a session of six minutes on two cores: share runs, or mark the"
                " dearest new tests as slow"
            )
