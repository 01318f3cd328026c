"""The experiment table: which rows, in which order, in processes that can fail alone; how long it
takes; and the page that is left."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from forked import ForkedCommand, fork_workers, is_running, still_running
from handmade import BASELINE, experiment, finish
from small_suite import call, command, same_bits, start, wait_for_epochs, write_files

from dml_bench.analysis.table import grouped
from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.config import Component, Data, Experiment
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import (
    ExperimentTable,
    PlannedRow,
    choose,
    read_table,
    table_names,
)
from dml_bench.registry import UnknownName
from dml_bench.report import markdown
from dml_bench.report.format import number
from dml_bench.report.tables import results_data, results_table
from dml_bench.suite import local, worker_process
from dml_bench.suite.executor import JobResult, Listener, Slots, SuitePaths
from dml_bench.suite.local import run_jobs, slots_of, threads_of
from dml_bench.suite.plan import Job, chosen_rows, in_order
from dml_bench.suite.progress import SuiteListener, TimeLeft
from dml_bench.suite.worker import WorkerCallback
from dml_bench.system import child_process
from dml_bench.system.child_process import start_new
from dml_bench.system.fork_server import ForkServer

# Which rows


def test_the_table_of_the_study_has_its_sixteen_rows_in_their_order():
    assert read_table("study").rows == (
        "EPSHN_euclidean_resnet18",
        "EPSHN_cosine_resnet18",
        "EPSHN_cosine_resnet18_sgd",
        "EPSHN_cosine_resnet18_sgd_aug",
        "EPSHN_cosine_frozenBN_resnet18_sgd_aug",
        "EPSHN_cosine_resnet18_scratch_sgd_aug",
        "EPSHN_cosine_resnet18_classifier_sgd_aug",
        "EPSHN_cosine_resnet18x512_sgd_aug",
        "EPSHN_cosine_resnet18+skipConnHead_sgd_aug",
        "EPSHN_cosine_resnet18+1dBN_sgd_aug",
        "EPSHN_cosine_resnet50_sgd_aug",
        "ProxyNCA_cosine_resnet18_sgd_aug",
        "ArcFace_cosine_resnet18_sgd_aug",
        "SubCenterArcFace_cosine_resnet18_sgd_aug",
        "EPSHN_cosine_simclr_resnet18_sgd_aug",
        "crossentropy_resnet18_sgd_aug",
    )


def test_every_row_of_the_study_is_an_experiment_with_and_without_the_demo_profile():
    for profile in ("", "demo"):
        _, _, rows = chosen_rows([], "", [], profile=profile, overrides=[], seeds=[])
        assert [row.name for row in rows] == list(read_table("study").rows)
        seeds = {(e.seed, e.profile) for row in rows for e in row.seeds}
        assert seeds == {(seed, profile) for seed in (42, 43, 44, 45, 46)}


def test_a_table_that_decides_something_has_the_seeds_that_a_verdict_needs():
    for name in table_names():
        table = read_table(name)
        assert len(table.seeds) >= FEWEST_SEEDS or table.family is None, name


@pytest.mark.parametrize(
    ("seeds", "overrides", "expected"),
    [([], [], (42, 43, 44, 45, 46)), ([7], [], (7,)), ([], ["seed=8"], (8,))],
)
def test_the_seeds_of_a_table_are_used_where_a_command_names_none(seeds, overrides, expected):
    chosen = {"profile": "", "overrides": overrides, "seeds": seeds}
    _, _, [row] = chosen_rows([], "", ["EPSHN_euclidean*"], **chosen)
    assert tuple(experiment.seed for experiment in row.seeds) == expected
    _, _, [own] = chosen_rows(["EPSHN_euclidean_resnet18"], "", [], **chosen)
    assert len(own.seeds) == 1


def test_seeds_that_an_override_contradicts_are_refused():
    with pytest.raises(ValueError, match="seed is set by --seeds and by --set seed=7"):
        chosen_rows([], "", [], profile="", overrides=["seed=7"], seeds=[1])


def test_only_the_rows_that_match_are_chosen_in_the_table_s_order():
    chosen = choose(read_table("study"), ["*ArcFace*", "EPSHN_euclidean*"])
    assert chosen.rows == (
        "EPSHN_euclidean_resnet18",
        "ArcFace_cosine_resnet18_sgd_aug",
        "SubCenterArcFace_cosine_resnet18_sgd_aug",
    )


def test_a_pattern_that_matches_nothing_is_refused_with_the_near_miss():
    with pytest.raises(
        UnknownName,
        match=(
            r"--only Arkface\*: no row .* called so \(did you mean ArcFace\?\); its rows:"
            r" ArcFace, B"
        ),
    ):
        choose(ExperimentTable("t", "", ("ArcFace", "B")), ["B", "Arkface*"])
    with pytest.raises(UnknownName, match=r"did you mean ProxyNCA_cosine_resnet18_sgd_aug\?"):
        choose(read_table("study"), ["ProxiNCA_cosine_resnet18_sgd*"])


def test_a_table_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        UnknownName, match=r"unknown table 'studi' \(did you mean study\?\); there are: .*study"
    ):
        read_table("studi")


def test_a_setting_that_one_row_can_t_have_names_the_row():
    with pytest.raises(ValueError, match="^ProxyNCA_cosine_resnet18_sgd_aug: loss.temperature"):
        chosen_rows(
            [], "", ["*resnet18_sgd_aug"], profile="", overrides=["loss.temperature=0.2"], seeds=[]
        )


def rows_of(*names: str, seeds: tuple[int, ...] = (42,)) -> list[PlannedRow]:
    rows = []
    for name in names:
        of_seeds = tuple(experiment(name, seed=seed) for seed in seeds)
        rows.append(PlannedRow(experiment(name), of_seeds))
    return rows


def test_all_rows_of_a_seed_come_before_those_of_the_next():
    order = [job.key for job in in_order(rows_of("a", "b", seeds=(42, 43)))]
    assert order == [("a", 42), ("b", 42), ("a", 43), ("b", 43)]


def test_two_experiments_of_one_name_are_refused():
    with pytest.raises(ValueError, match="a seed 42 is in the table twice"):
        in_order(rows_of("a", "b", "a"))


# How many at a time


def test_each_process_gets_its_share_of_the_cores_and_no_more_than_the_user_allows(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of(8, jobs) for jobs in (1, 2, 3, 20)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [threads_of(8, jobs) for jobs in (1, 2, 4)] == [3, 3, 2]


def test_on_a_cpu_two_runs_share_the_cores_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    assert (slots_of(0, "cpu", "").jobs, slots_of(3, "cpu", "").jobs) == (2, 3)
    monkeypatch.setattr(local, "cores", lambda: 1)
    assert slots_of(0, "cpu", "").jobs == 1
    assert slots_of(0, "auto", "cpu,cpu,cpu").devices == ("cpu", "cpu", "cpu")
    with pytest.raises(ValueError, match="--devices and --device cpu contradict each other"):
        slots_of(0, "cpu", "cuda:0")


# Processes: these stand in for a run, to die in the ways that a run may die

STAND_IN = """
import json, os, signal, sys, time

def main():
    order = json.loads(sys.stdin.readline())
    name = order["experiment"]["name"]
    say = lambda **event: print(json.dumps(event), flush=True)
    print(name, order["device"], os.environ["OMP_NUM_THREADS"], order["command"], file=sys.stderr)
    if name == "waits":
        sys.stdin.read()
        return 130
    if name == "deaf":
        time.sleep(60)
    if name != "slow to prepare":
        say(event="plan")
    if name in ("is prepared", "slow to prepare"):
        time.sleep(0.5)
    if name == "slow to prepare":
        say(event="plan")
    say(event="at", done=1.0, left=2.0, phase="all", epoch=1, epochs=3)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "kills all":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "aborted":
        os.kill(os.getpid(), signal.SIGABRT)
    if name == "silent":
        return 3
    if name == "wrong":
        say(event="failed", kind="NonFiniteLoss", expected=True, text="the loss is nan")
        return 1
    if name == "broken":
        say(event="failed", kind="TypeError", expected=False, text="unsupported operand")
        return 1
    say(event="finished", folder="somewhere")
    return 0

if __name__ == "__main__":
    sys.exit(main())
"""


class EventLog(Listener):
    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.most_at_once = self.at_work = 0

    def on_start(self, job: Job) -> None:
        self.at_work += 1
        self.most_at_once = max(self.most_at_once, self.at_work)
        self.log.append(("started", job.experiment.name))

    def on_event(self, job: Job, event: dict[str, Any]) -> None:
        self.log.append((event["event"], job.experiment.name))

    def on_end(self, result: JobResult) -> None:
        self.at_work -= 1
        self.log.append((result.status, result.job.experiment.name))


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuitePaths:
    (tmp_path / "stand_in_order.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(worker_process, "PROGRAM", (sys.executable, "-m", "stand_in_order"))
    return SuitePaths(None, tmp_path, tmp_path, tmp_path / "logs", "disabled")


def jobs_of(*names: str, **changes: Any) -> list[Job]:
    return [Job(experiment(name, **changes)) for name in names]


def test_a_run_that_fails_is_told_with_its_reason_and_the_others_go_on(paths: SuitePaths):
    names = ("fine", "wrong", "broken", "silent", "killed", "aborted", "fine too")
    ended = list(run_jobs(jobs_of(*names), paths, Slots(2, ("cpu",), 1), Listener()))
    assert {e.job.experiment.name: e.status for e in ended} == {
        name: "finished" if name.startswith("fine") else "failed" for name in names
    }
    reasons = {e.job.experiment.name: e.reason for e in ended}
    assert reasons["wrong"] == "the loss is nan"
    assert (
        reasons["broken"]
        == f"TypeError: unsupported operand (traceback in {paths.logs}/broken/cub-seed-42.log)"
    )
    assert (
        reasons["silent"] == "ended with exit code 3 before it was finished (see"
        f" {paths.logs}/silent/cub-seed-42.log)"
    )
    assert reasons["killed"] == "killed by signal 9 (out of memory?)"
    assert reasons["aborted"] == "killed by signal 6 (SIGABRT)"


def test_whoever_kills_a_run_and_what_forks_runs_harms_no_later_run(paths: SuitePaths):
    names = ("fine", "kills all", "fine too")
    ended = list(run_jobs(jobs_of(*names), paths, Slots(1, ("cpu",), 1), Listener()))
    assert [e.reason for e in ended] == ["", "killed by signal 9 (out of memory?)", ""]


def test_as_many_runs_as_asked_for_are_at_work_at_once_on_the_devices_in_turn(paths: SuitePaths):
    events = EventLog()
    names = ["is prepared", *"abcdef"]
    list(run_jobs(jobs_of(*names), paths, Slots(3, ("cuda:0", "cuda:1"), 5), events))
    assert events.most_at_once == 3
    assert [name for event, name in events.log if event == "started"] == names
    logs = [(paths.logs / name / "cub-seed-42.log").read_text().splitlines()[-1] for name in names]
    assert logs[:3] == [
        f"{name} {device} 5 {sys.argv}"
        for name, device in zip(names, ("cuda:0", "cuda:1", "cuda:0"), strict=False)
    ]


def test_no_two_runs_prepare_images_at_the_same_time(paths: SuitePaths):
    events = EventLog()
    list(run_jobs(jobs_of("slow to prepare", "a", "b"), paths, Slots(3, ("cpu",), 1), events))
    assert events.log.index(("plan", "slow to prepare")) < events.log.index(("started", "a"))
    assert events.most_at_once >= 2, "once they are prepared, others join"


def test_whoever_stops_listening_leaves_no_process_behind(paths: SuitePaths):
    outcomes = run_jobs(jobs_of("fine", "waits"), paths, Slots(2, ("cpu",), 1), Listener())
    assert next(outcomes).status == "finished"
    start = time.monotonic()
    outcomes.close()
    assert time.monotonic() - start < 10
    assert no_children()


def test_a_process_that_does_not_stop_when_asked_is_made_to(
    paths: SuitePaths, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child_process, "STOP_SECONDS", 0.5)
    outcomes = run_jobs(jobs_of("fine", "deaf"), paths, Slots(2, ("cpu",), 1), Listener())
    next(outcomes)
    start = time.monotonic()
    outcomes.close()
    assert time.monotonic() - start < 20
    assert no_children()


def no_children() -> bool:
    return not [
        child
        for child in psutil.Process().children(recursive=True)
        if is_running(child) and "order" in str(child.cmdline())
    ]


# The time left


def measured(jobs: int = 1) -> tuple[TimeLeft, list[Job], Callable[[float], None]]:
    now = [100.0]
    left = TimeLeft(jobs, clock=lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return (
        left,
        [Job(experiment(name, seed=seed)) for seed in (42, 43) for name in ("a", "b", "c")],
        wait,
    )


def test_nothing_is_promised_before_anything_is_measured():
    left, (a, b, *_), wait = measured()
    left.on_start(a)
    wait(5)
    assert left.of_suite([b]) is None
    left.at(a, 0, 1000)
    assert left.of_suite([b]) is None


def test_a_run_at_work_is_timed_by_its_own_pace():
    left, (a, *_), wait = measured()
    left.on_start(a)
    wait(5)
    left.at(a, 0, 1000)
    wait(10)
    left.at(a, 250, 750)
    assert left.of_run(a) == pytest.approx(30)
    assert left.of_suite([]) == pytest.approx(30)


def test_runs_not_begun_are_taken_to_last_as_those_at_work_until_one_has_ended():
    left, (a, b, c, a2, *_), wait = measured()
    left.on_start(a)
    left.at(a, 0, 100)
    wait(10)
    left.at(a, 50, 50)
    assert left.of_suite([b, c]) == pytest.approx(10 + 20 + 20)
    left.on_end(JobResult(job=a, status="finished", seconds=20))
    left.seconds[b] = 40
    assert left.of_waiting(c) == pytest.approx(30), "the mean of those that ended"
    assert left.of_waiting(a2) == pytest.approx(20), (
        "the same experiment with another seed tells more"
    )


def test_two_at_a_time_take_half_as_long_but_never_less_than_the_longest_at_work():
    left, (a, b, c, *_), wait = measured(jobs=2)
    for job in (a, b):
        left.on_start(job)
        left.at(job, 0, 100)
    wait(9)
    left.at(a, 50, 50)
    left.at(b, 90, 10)
    assert left.of_suite([]) == pytest.approx(9)
    left.seconds[c] = 28
    assert left.of_suite([c]) == pytest.approx((9 + 1 + 28) / 2)


def test_a_failed_run_tells_nothing_about_how_long_others_take():
    left, (a, b, *_), _ = measured()
    left.on_start(a)
    left.on_end(JobResult(job=a, status="failed", seconds=1, reason="nan"))
    assert left.of_waiting(b) is None


def test_a_run_that_goes_on_says_nothing_of_how_long_a_whole_one_takes():
    """Of a suite that went on in the last epoch of a run, a minute a run was said to be left."""
    left, (a, b, c, *_), wait = measured()
    left.on_start(a)
    left.on_plan(a, goes_on=True)
    left.at(a, 0, 10)
    wait(10)
    left.at(a, 5, 5)
    assert (left.of_run(a), left.of_waiting(b)) == (10, None)
    left.on_end(JobResult(job=a, status="finished", seconds=20))
    assert left.of_suite([b, c]) is None
    left.on_start(b)
    left.on_plan(b, goes_on=False)
    left.at(b, 0, 300)
    wait(30)
    left.at(b, 30, 270)
    left.on_plan(b, goes_on=True)  # its process was lost: all of it is measured here
    assert left.of_suite([c]) == pytest.approx(270 + 300)


def test_the_process_of_a_run_says_whether_it_goes_on():
    said: list[dict[str, object]] = []
    callback = WorkerCallback(SimpleNamespace(send=lambda event, **facts: said.append(facts)))
    for epochs in ([0, 0], [3, 0]):
        callback.on_plan({"phases": [{"epochs_done": done} for done in epochs]})
    screen, [job] = Screen(), jobs_of("a")
    listener = SuiteListener(screen, [job], 0, 1, str)
    listener.on_start(job)
    listener.on_event(job, {"event": "plan", **said[1]})
    assert said == [{"goes_on": False}, {"goes_on": True}]
    assert listener.time_left.working[job].goes_on


def test_a_run_that_trains_is_not_estimated_by_one_that_trains_nothing():
    """Of two hours, 23 minutes were said to be left, as a frozen row had ended first."""
    left, (a, b, *_), wait = measured()
    frozen, frozen2 = (Job(resolve("frozen_resnet18", overrides=[f"seed={n}"])) for n in (42, 43))
    left.on_start(frozen)
    left.on_end(JobResult(job=frozen, status="finished", seconds=2))
    assert (left.of_waiting(a), left.of_waiting(frozen2)) == (None, 2)
    assert left.of_suite([a, b]) is None
    left.on_start(a)
    left.at(a, 0, 100)
    wait(60)
    left.at(a, 10, 90)
    assert left.of_suite([b, frozen2]) == pytest.approx(540 + 600 + 2)


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: tuple[float, float, str, list[tuple[str, float, str]]] = (0, 0, "", [])

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(text)

    def show(
        self, done: float, total: float, detail: str, working: list[tuple[str, float, str]]
    ) -> None:
        self.shown = (done, total, detail, working)


def test_the_screen_shows_runs_done_the_runs_at_work_and_which_part_of_the_time_is_a_guess():
    screen, jobs = Screen(), jobs_of("a", "b", "c")
    listener = SuiteListener(screen, jobs, 5, 1, lambda seconds: f"{seconds:.0f} s")
    listener.on_start(jobs[0])
    listener.on_event(
        jobs[0],
        {"event": "progress", "text": "decoding 64 images (/cache)", "done": 1, "total": 64},
    )
    listener.tick()
    assert screen.shown == (
        5.0,
        8,
        "5/8 runs  time left not known yet",
        [("a seed 42", 0.0, "decoding 64 images")],
    )
    listener.on_event(jobs[0], {"event": "warning", "text": "no space"})
    listener.on_event(
        jobs[0],
        {"event": "at", "done": 30.0, "left": 10.0, "phase": "all", "epoch": 2, "epochs": 3},
    )
    listener.tick()
    done, _, detail, ((_, fraction, at),) = screen.shown
    assert (done, fraction) == (5.75, 0.75)
    assert detail.startswith("5/8 runs  about ") and detail.endswith("(2 runs of it estimated)")
    assert at.startswith("all epoch 2/3  ")
    listener.on_event(
        jobs[0], {"event": "at", "done": 38.0, "left": 2.0, "phase": "all", "epoch": 4, "epochs": 3}
    )
    listener.tick()
    assert screen.shown[3][0][2].startswith("all evaluation  ")
    result = JobResult(job=jobs[0], status="finished", seconds=20)
    listener.on_end(result)
    listener.report(result, "P@1 .5")
    assert screen.lines == [
        "warning: a seed 42: no space",
        "[6/8] a seed 42: P@1 .5; 20 s; about 40 s left (2 runs of it estimated)",
    ]


# The table

MIXED = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1]]
WORSE = [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]


def disjoint(name: str) -> Experiment:
    return experiment(name, protocol="class_disjoint", data=Data(split="half"))


def test_a_line_is_the_mean_over_seeds_with_intervals_and_the_cost(tmp_path):
    rows = rows_of("a", seeds=(42, 43))
    runs = [
        finish(tmp_path, e, {"all": all_, "limited": WORSE})
        for e, all_ in zip(rows[0].seeds, (MIXED, WORSE), strict=True)
    ]
    (group,) = grouped(rows, {("a", run.seed): run for run in runs}, {})
    (line,) = group.lines
    values = dict(zip([column.key for column in group.columns], line.values, strict=True))
    assert values["precision_at_1_macro"].estimate == pytest.approx((16 / 24 + 11 / 24) / 2)
    assert (
        0
        <= values["precision_at_1_macro"].low
        < (16 / 24 + 11 / 24) / 2
        < values["precision_at_1_macro"].high
        <= 1
    )
    assert values["precision_at_1_macro_limited"] == pytest.approx(11 / 24)
    assert values["precision_drop_unseen_classes"].estimate == pytest.approx((3 / 8 + 0) / 2)
    assert values["logits_accuracy_macro"] is None
    assert line.cost == (120.0, 100.0, 100.0, 2.0**30, None), "no GPU, thus none of its memory"


def test_what_must_not_be_compared_is_never_in_one_table(tmp_path):
    rows = [
        *rows_of("a", "b"),
        PlannedRow(experiment("c"), (experiment("c", profile="demo"),)),
        PlannedRow(resolve(BASELINE), (disjoint("d"),)),
    ]
    run = finish(tmp_path, rows[0].seeds[0], {"all": MIXED, "limited": WORSE})
    groups = grouped(rows, {("a", 42): run}, {("b", 42): "no memory"})
    names_by_title = {}
    for group in groups:
        names_by_title[group.title] = [line.name for line in group.lines]
    assert list(names_by_title.items()) == [
        ("precision drop on cub", ["a", "b"]),
        ("precision drop on demo, profile demo", ["c"]),
        ("class disjoint on cub", [BASELINE]),
    ]
    assert len(groups) == 3
    assert [line.failures for line in groups[0].lines] == [(), ("seed 42: no memory",)]
    assert groups[0].lines[1].values == (None,) * 10


def test_a_row_that_failed_on_photos_stands_in_the_table_of_the_others(tmp_path):
    """It had one of its own, on `folder`, the name of the reader."""
    photos = Data(dataset=Component("folder", {}))
    rows = [PlannedRow(resolve(BASELINE), (experiment(name, data=photos),)) for name in ("a", "b")]
    run = finish(tmp_path, rows[0].seeds[0], {"all": MIXED, "limited": WORSE})
    run.summary["dataset"]["name"] = "gulls"
    (group,) = grouped(rows, {("a", 42): run}, {("b", 42): "no memory"})
    assert (group.dataset, [line.name for line in group.lines]) == ("gulls", [BASELINE, BASELINE])


def test_a_table_with_both_estimators_of_the_cost_says_so_in_whatever_order(tmp_path):
    """A sweep over hold-outs named the column by its last row."""
    rotated, runs = {"limited-1": [0, 1], "limited-2": [2, 3]}, {}
    for name, unseen, holdouts in (("a", "random:2 x 2", rotated), ("b", "last:2", None)):
        answers = {"all": MIXED} | dict.fromkeys(holdouts or ["limited"], WORSE)
        runs[name] = finish(tmp_path, experiment(name, unseen=unseen), answers, holdouts=holdouts)
    for names in ("ab", "ba", "a", "b"):
        rows = [PlannedRow(resolve(BASELINE), (runs[name].experiment,)) for name in names]
        (group,) = grouped(rows, {(name, 42): runs[name] for name in names}, {})
        remark = {"a": "", "b": " (other classes)"}.get(names, " (same classes or other classes)")
        assert group.columns[0].head == f"cost of being unseen{remark}"


def test_numbers_that_say_nothing_are_doubted_beside_them_in_every_table(tmp_path):
    (row,) = rows_of("a")
    run = finish(tmp_path, row.seeds[0], {"all": MIXED, "limited": WORSE})
    phases = run.summary["phases"] | {
        "all": run.summary["phases"]["all"] | {"doubts": {"widest_angle_degrees": 0.5}}
    }
    (group,) = grouped(
        [row], {("a", 42): replace(run, summary=run.summary | {"phases": phases})}, {}
    )
    doubt = (
        "seed 42: phase all: all embeddings are nearly one point, within 0.5 degrees of their mean;"
        " its P@1 is no result: try a smaller optimizer.lr"
    )
    assert (group.lines[0].failures, group.lines[0].doubts) == ((), (doubt,))
    assert doubt in (markdown.of_table(results_table(group)))
    numbers = results_data(group)
    [cells] = numbers.rows
    assert dict(zip(numbers.heads, cells, strict=True))["doubts"] == doubt


def test_retrieval_has_columns_of_its_own(tmp_path):
    run = finish(tmp_path, disjoint("a"), {"all": MIXED, "limited": WORSE})
    heads = [column.head for column in run.protocol.columns([run.experiment])]
    assert heads == ["R@1", "R@2", "R@4", "R@8", "R-precision", "MAP@R", "P@1 macro"]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.6124, False, "61.2"),
        (1.0, False, "100.0"),
        (0.0, False, "0.0"),
        (-0.05, True, "-5.0"),
        (0.1, True, "+10.0"),
    ],
)
def test_numbers_are_in_points_with_one_digit_and_differences_with_their_sign(value, signed, text):
    assert number(value, signed) == text


# Real runs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("experiments"))


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_suite_of_real_runs_leaves_its_page_and_skips_what_is_finished(
    files: Path,
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    arguments = command(
        files, birds, cache_dir, tmp_path, "fine.toml", "diverges.toml", "--jobs", "2"
    )
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)  # the suite that is killed below has workers that are programs
        assert call(monkeypatch, arguments) == 1, "one of them failed"
    said = capsys.readouterr().out
    assert said.startswith("2 runs; 2 at a time on cpu, ")
    assert "fine seed 42: P@1 all " in said
    assert "points, split stratified; " in said
    assert "precision drop on cub, split stratified" in said
    assert "diverges seed 42: failed: the loss is nan in phase all, epoch 1, step " in said
    report = tmp_path / "suite" / "own-cub"
    check_page(
        report, json.loads((tmp_path / "fine" / "cub" / "seed-42" / "summary.json").read_text())
    )
    assert (
        "NonFiniteLoss"
        in (tmp_path / "suite" / "logs" / "diverges" / "cub-seed-42.log").read_text()
    )

    monkeypatch.setattr(worker_process, "PROGRAM", ("/nothing/may/be/run",))
    again = command(files, birds, cache_dir, tmp_path, "fine.toml")
    assert call(monkeypatch, again) == 0
    first_line = capsys.readouterr().out.splitlines()[0]
    assert first_line == f"nothing to run: 1 run finished earlier; the page is in {report}"
    pages = {path.name: path.read_bytes() for path in report.iterdir()}
    assert len(json.loads(pages["suite.json"])["sessions"]) == 1, (
        "only a session that ran something is one"
    )
    assert call(monkeypatch, again) == 0
    assert {path.name: path.read_bytes() for path in report.iterdir()} == pages


def check_page(report: Path, summary: dict[str, Any]) -> None:
    fine, diverges = table(report / "table.csv")
    assert float(fine["precision_at_1_macro"]) == pytest.approx(
        summary["phases"]["all"]["precision_at_1_macro"]
    )
    assert float(fine["precision_drop_seen_classes"]) == pytest.approx(
        summary["precision_drop_seen_classes"]
    )
    assert fine["cost_of_being_unseen_compares"] == "other classes"
    assert (fine["seeds"], fine["failed"]) == ("1", "")
    assert (fine["split"], diverges["split"]) == ("stratified", "stratified")
    assert (diverges["seeds"], diverges["precision_at_1_macro"]) == ("0", "")
    assert diverges["failed"].startswith("seed 42: the loss is nan in phase all, epoch 1")
    page_rows = [
        line
        for line in (report / "table.md").read_text().splitlines()
        if line.startswith(("| experiment", "| fine", "| diverges"))
    ]
    heads, cells = (row.split(" | ") for row in page_rows[:2])
    of_fine = dict(zip(heads, cells, strict=True))
    assert of_fine["seeds"] == "1"
    assert of_fine["P@1 all"][0].isdigit()
    assert of_fine["cost of being unseen (other classes)"][0] in "+-"
    assert "the loss is nan" in page_rows[2]
    first, second = table(report / "runs.csv")
    assert (first["experiment"], first["seed"], first["status"], second["status"]) == (
        "fine",
        "42",
        "finished",
        "failed",
    )
    assert (
        float(first["phases.limited.map_at_r_micro"])
        == summary["phases"]["limited"]["map_at_r_micro"]
    )
    assert not [column for column in first if column.startswith("files")]
    claims = table(report / "expectations.csv")
    assert [
        (row["experiment"], row["verdict"], row["reason"].partition(" (")[0]) for row in claims
    ] == [
        ("fine", "not tested", "other settings"),
        ("fine", "not tested", "diverges has no finished run"),
    ]
    made = json.loads((report / "suite.json").read_text())
    (session,) = made["sessions"]
    assert (session["jobs"], session["ended"], made["failures"][0]["experiment"]) == (
        2,
        "complete",
        "diverges",
    )
    assert (
        made["seconds_per_row"].keys() == {"fine", "diverges"}
        and made["made_with"][0]["packages"]["torch"]
    )
    assert made["command"][:2] == ["dml-bench", "suite"]


def test_printed_jobs_are_commands_that_leave_the_runs_that_the_suite_then_finds(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "my experiments").mkdir()
    files = write_files(tmp_path / "my experiments")
    arguments = command(
        files,
        birds,
        cache_dir,
        tmp_path,
        "fine.toml",
        "--seeds",
        "42,43",
        "--set",
        "evaluate.recall_k=[1, 2]",
    )
    monkeypatch.setattr(worker_process, "PROGRAM", ("/nothing/may/be/run",))

    def printed() -> list[str]:
        assert call(monkeypatch, [*arguments, "--print-jobs"]) == 0
        return capsys.readouterr().out.splitlines()

    lines = printed()
    assert [shlex.split(line)[:3] for line in lines] == [
        ["dml-bench", "run", str(files / "fine.toml")]
    ] * 2
    assert [shlex.split(line)[shlex.split(line).index("--seeds") + 1] for line in lines] == [
        "42",
        "43",
    ]
    assert list(tmp_path.iterdir()) == [files], "nothing is run"
    run_as_bash_reads(lines[0])
    assert printed() == lines[1:]
    run_as_bash_reads(lines[1])
    assert printed() == []
    assert call(monkeypatch, arguments) == 0
    (row,) = table(tmp_path / "suite" / "own-cub" / "table.csv")
    assert (row["experiment"], row["seeds"], row["failed"]) == ("fine", "2", "")


def run_as_bash_reads(line: str) -> None:
    """Run a printed command with the words that bash makes of it."""
    echoed = subprocess.run(
        ["bash", "-c", f'dml-bench() {{ printf "%s\\0" "$@"; }}; {line}'],
        check=True,
        capture_output=True,
        text=True,
    )
    running = ForkedCommand(echoed.stdout.split("\0")[:-1])
    printed = running.communicate()
    assert running.returncode == 0, printed


def runs_at_work(suite: ForkedCommand) -> list[psutil.Process]:
    return psutil.Process(suite.pid).children(recursive=True)


@pytest.mark.slow
def test_forks_have_the_bits_of_new_processes_on_two_threads(
    files: Path, birds: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "cores", lambda: 2)
    forks, new = tmp_path / "forks", tmp_path / "new"
    for out in (forks, new):
        names = ("fine.toml", "longer.toml", "--jobs", "1")
        assert call(monkeypatch, command(files, birds, cache_dir, out, *names)) == 0
        monkeypatch.setattr(ForkServer, "popen", lambda _, *args, **more: start_new(*args, **more))
    for name in ("fine", "longer"):
        folder = Path(name, "cub", "seed-42")
        (session,) = json.loads((forks / folder / "environment.json").read_text())["sessions"]
        assert session["threads"] == 2
        same_bits(forks / folder, new / folder)


def test_a_run_that_is_killed_is_a_failed_row_and_goes_on_the_next_time(
    files: Path, birds: Path, cache_dir: Path, tmp_path: Path, monkeypatch, capsys
):
    fork_workers(monkeypatch)
    arguments = command(
        files, birds, cache_dir, tmp_path, "longer.toml", "fine.toml", "--jobs", "1"
    )
    suite = start(arguments)
    wait_for_epochs(tmp_path, suite)
    (run,) = runs_at_work(suite)
    run.kill()
    said, _ = suite.communicate()
    assert suite.returncode == 1
    assert "longer seed 42: failed: killed by signal 9 (out of memory?)" in said
    assert "fine seed 42: P@1 all" in said
    assert call(monkeypatch, arguments) == 0
    assert "1 run, 1 are finished already" in capsys.readouterr().out
    records = [
        json.loads(line)
        for line in (
            (tmp_path / "longer" / "cub" / "seed-42" / "metrics.jsonl").read_text().splitlines()
        )
    ]
    assert [record["epoch"] for record in records] == [*range(1, 13)] * 2
    assert (
        len(
            json.loads((tmp_path / "longer" / "cub" / "seed-42" / "environment.json").read_text())[
                "sessions"
            ]
        )
        == 2
    )
    made = json.loads((tmp_path / "suite" / "own-cub" / "suite.json").read_text())
    assert [len(session["runs"]) for session in made["sessions"]] == [2, 1]
    assert made["failures"] == []


@pytest.mark.parametrize(
    "end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name
)
def test_however_a_suite_is_ended_no_process_outlives_it(
    files: Path, birds: Path, cache_dir: Path, tmp_path: Path, end: signal.Signals, monkeypatch
):
    if end is not signal.SIGKILL:  # where all depends on what a new process has open
        fork_workers(monkeypatch)
    suite = start(command(files, birds, cache_dir, tmp_path, "longer.toml", "--jobs", "1"))
    wait_for_epochs(tmp_path, suite)
    runs = runs_at_work(suite)
    assert runs
    if end is signal.SIGINT:
        os.killpg(suite.pid, end)  # as a terminal does
    else:
        suite.send_signal(end)
    _, errors = suite.communicate()
    assert still_running(runs, seconds=20) == []
    if end is signal.SIGINT:
        assert suite.returncode == 130
        assert (
            errors.strip()
            == "stopped; finished runs and epochs are kept: the same command goes on from there"
        )
        made = json.loads((tmp_path / "suite" / "own-cub" / "suite.json").read_text())
        assert [session["ended"] for session in made["sessions"]] == ["stopped"]
