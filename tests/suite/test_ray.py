"""A suite on a Ray cluster: the same bits as without; a run that is killed goes on; nothing is left
behind, and no one else can call."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from forked import ForkedCommand, fork_workers
from handmade import experiment
from listening import listening
from small_suite import call, command, same_bits, wait_for_epochs, write_files

from dml_bench.runs.folder import Occupied, RunFolder
from dml_bench.suite import worker
from dml_bench.suite.ray import on_ray, slots_of_cluster

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

# How many at a time


def test_as_many_runs_are_at_work_as_the_machines_have_room_for(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    small, large, gpus = {"CPU": 4.0}, {"CPU": 9.0}, {"CPU": 16.0, "GPU": 4.0}

    def of(machines, jobs=0, device="auto", part=1.0):
        slots = slots_of_cluster(machines, jobs, device, part)
        return slots.jobs, slots.threads, slots.devices[0], slots.where

    assert of([small]) == (2, 2, "cpu", "a Ray cluster of 1 machine")
    assert of([small, large]) == (
        6,
        2,
        "cpu",
        "a Ray cluster of 2 machines",
    ), "all runs have the threads of those on the smallest"
    assert of([small], jobs=1)[:2] == (1, 4)
    assert of([small, large, gpus]) == (4, 4, "cuda", "a Ray cluster of 1 machine")
    assert of([gpus], part=0.5)[:2] == (8, 2)
    assert of([{"CPU": 16.0, "GPU": 1.0}], part=0.1)[:2] == (10, 1)
    assert of([gpus, gpus], jobs=100)[:2] == (100, 4), "more than there is room for wait for Ray"
    assert of([gpus], device="cpu")[:3] == (2, 8, "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert of([small, large])[:2] == (13, 1)


def test_a_device_that_no_machine_has_is_refused():
    with pytest.raises(
        ValueError, match="^no machine of the Ray cluster has a GPU and a core to give$"
    ):
        slots_of_cluster([{"CPU": 4.0}, {"GPU": 1.0}], 0, "cuda", 1.0)
    with pytest.raises(ValueError, match="^no machine of the Ray cluster has a core to give$"):
        slots_of_cluster([{"memory": 1.0}], 0, "auto", 1.0)


# What is refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--ray", "local", "--devices", "cuda:0,cuda:1"],
            "error: --devices cuda:0,cuda:1: Ray gives out the GPUs",
        ),
        (
            ["--ray", "local", "--device", "cuda:0"],
            "error: --device must be cuda, cpu or auto with --ray, got cuda:0: Ray chooses",
        ),
        (
            ["--ray", "local", "--gpus-per-run", "2"],
            "error: --gpus-per-run must be more than 0 and at most 1, got 2: give e.g. 0.5",
        ),
        (["--gpus-per-run", "0.5"], "error: --gpus-per-run is for --ray"),
        (
            ["--ray", "local", "--print-jobs", "--jobs", "3"],
            "error: --print-jobs runs nothing: leave out --ray and --jobs",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, reason, monkeypatch, capsys):
    assert call(monkeypatch, ["suite", "--only", "EPSHN_euclidean*", *options]) == 2
    assert capsys.readouterr().err.startswith(reason)


def test_without_ray_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ValueError, match=r"^--ray needs the package ray: pip install 'dml-bench\[ray\]'$"
    ):
        on_ray("local", 0, "auto", 1.0, print)


@pytest.mark.parametrize("address", ["rubbish", "127.0.0.1:{port}", "auto"])
def test_a_cluster_that_does_not_answer_is_said_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
):
    """Ray itself, which would try for minutes, is not asked."""
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was asked"))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # so that nobody else can listen there
        port = deaf.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        address = address.format(port=port)
        problem = rf"^--ray {address}: no Ray cluster answers \(.+\); give the HOST:PORT"
        with pytest.raises(ValueError, match=problem), on_ray(address, 0, "auto", 1.0, print):
            pass


# A run that was lost


def test_a_run_that_is_begun_again_waits_until_the_lost_process_has_left_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker, "PAUSE_SECONDS", 0.05)
    folder = RunFolder(tmp_path, experiment("a"), "cub")
    held, leave = threading.Event(), threading.Event()

    def dying() -> None:
        with folder.lock():
            held.set()
            leave.wait(30)

    def begin() -> str:
        with folder.lock():
            return "done"

    other = threading.Thread(target=dying)
    other.start()
    held.wait(30)
    with pytest.raises(Occupied, match="another process is working in"):
        worker.retry_while_occupied(begin, 0.2)
    threading.Timer(0.5, leave.set).start()
    assert worker.retry_while_occupied(begin, 30) == "done"
    other.join()


# Real clusters


@pytest.fixture(scope="module", autouse=True)
def runs_on_ray_are_as_urgent_as_all_tests() -> Iterator[None]:
    """Ray's workers have the niceness 15: beside other tests their runs would nearly stand still,
    and the tests that wait for them would end long after all others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def undisturbed(
    files: Path, birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same runs without Ray."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        suite = ForkedCommand(
            command(files, birds, cache_dir, out, "fine.toml", "longer.toml", "--jobs", "2")
        )
        said = suite.communicate()
    assert suite.returncode == 0, said
    return out


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """A suite as a program of its own: Ray's threads don't live on in a fork."""
    return subprocess.Popen(
        [sys.executable, "-m", "dml_bench", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CLUSTER = """
import sys
from contextlib import ExitStack
import dml_bench.suite.ray as cluster
with ExitStack() as stack:
    cluster.start_local_cluster(2, stack)
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of this machine, begun in another folder; to join it, a suite has to
    be told that it is of one machine. A machine has one cluster at a time."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with FileLock(of_all_workers / "ray.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_AUTH_MODE", "token")  # which a cluster begun by ray.init asks for
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=elsewhere,
        ) as holder:
            assert holder.stdout
            yield holder.stdout.readline().strip()
            holder.communicate()
        assert holder.returncode == 0


def test_a_suite_on_ray_gives_the_same_bits_as_one_without_and_tells_of_a_run_that_fails(
    files: Path,
    birds: Path,
    cache_dir: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    for name in (
        "RAY_USAGE_STATS_ENABLED",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    here = Path("runs")
    arguments = command(
        files, birds, cache_dir, here, "diverges.toml", "fine.toml", "--ray", "local", "--jobs", "2"
    )
    assert call(monkeypatch, arguments) == 1, "one of them failed"
    said = capsys.readouterr().out
    assert "2 runs; 2 at a time on cpu, 1 thread each, on a Ray cluster of 1 machine" in said
    assert re.search(
        r"diverges seed 42: failed: the loss is nan in phase all, epoch 1, step \d+: try a smaller"
        r" optimizer.lr",
        said,
    )
    assert "fine seed 42: P@1 all " in said
    same_bits(here / "fine" / "cub" / "seed-42", undisturbed / "fine" / "cub" / "seed-42")
    assert "NonFiniteLoss" in (here / "suite" / "logs" / "diverges" / "cub-seed-42.log").read_text()
    (session,) = json.loads((here / "suite" / "own-cub" / "suite.json").read_text())["sessions"]
    assert (session["jobs"], session["threads"], session["where"]) == (
        2,
        1,
        "a Ray cluster of 1 machine",
    )
    assert [
        (run["experiment"], run["status"])
        for run in sorted(session["runs"], key=lambda run: run["experiment"])
    ] == [
        ("diverges", "failed"),
        ("fine", "finished"),
    ]


def run_at_work(out: Path) -> psutil.Process:
    """The process that writes into `out`: a fork of a child of Ray's worker."""
    processes = [process for process in psutil.process_iter() if writes_to(process, out)]
    forked_from = {process.ppid() for process in processes}
    (run,) = [process for process in processes if process.pid not in forked_from]
    return run


def writes_to(process: psutil.Process, out: Path) -> bool:
    try:
        return "dml_bench.suite.worker" in process.cmdline() and any(
            file.path.startswith(str(out)) for file in process.open_files()
        )
    except psutil.Error:
        return False


def test_a_run_whose_process_is_killed_goes_on_and_ends_as_if_it_had_not_been(
    cluster: str, files: Path, birds: Path, cache_dir: Path, undisturbed: Path, tmp_path: Path
):
    suite = start(command(files, birds, cache_dir, tmp_path, "longer.toml", "--ray", cluster))
    wait_for_epochs(tmp_path, suite, 2)
    worker_of_ray = run_at_work(tmp_path).parent().parent()
    worker_of_ray.kill()  # what the run's process says is heard no more
    done = len((tmp_path / "longer" / "cub" / "seed-42" / "metrics.jsonl").read_text().splitlines())
    wait_for_epochs(tmp_path, suite, done + 3)
    run_at_work(tmp_path).kill()  # and the run's process itself
    said, errors = suite.communicate()
    assert suite.returncode == 0, (said, errors)
    assert said.count("longer seed 42: its process was lost; the run goes on, on ") == 2
    folder = tmp_path / "longer" / "cub" / "seed-42"
    same_bits(folder, undisturbed / "longer" / "cub" / "seed-42")
    assert [
        json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ] == [*range(1, 13)] * 2
    assert len(json.loads((folder / "environment.json").read_text())["sessions"]) == 3


def test_ctrl_c_stops_the_runs_on_ray_and_the_same_command_goes_on(
    cluster: str, files: Path, birds: Path, cache_dir: Path, tmp_path: Path
):
    arguments = command(files, birds, cache_dir, tmp_path, "longer.toml", "--ray", cluster)
    suite = start(arguments)
    wait_for_epochs(tmp_path, suite, 2)
    run = run_at_work(tmp_path)
    os.killpg(suite.pid, signal.SIGINT)
    _, errors = suite.communicate()
    assert suite.returncode == 130, errors
    assert (
        errors.strip()
        == "stopped; finished runs and epochs are kept: the same command goes on from there"
    )
    assert not run.is_running(), "the suite waits for its runs"
    done = len((tmp_path / "longer" / "cub" / "seed-42" / "metrics.jsonl").read_text().splitlines())
    ended = start(arguments)
    said, errors = ended.communicate()
    assert ended.returncode == 0, (said, errors)
    records = [
        json.loads(line)
        for line in (
            (tmp_path / "longer" / "cub" / "seed-42" / "metrics.jsonl").read_text().splitlines()
        )
    ]
    assert 2 <= done < len(records) == 24
    assert (
        len(
            json.loads((tmp_path / "longer" / "cub" / "seed-42" / "environment.json").read_text())[
                "sessions"
            ]
        )
        == 2
    )


def test_a_cluster_begun_here_listens_on_this_machine_only(cluster: str):
    port = int(cluster.rpartition(":")[2])
    (server,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    holder = psutil.Process(server).parent()
    addresses = [ip for ip, _ in listening(holder)]
    assert len(addresses) > 3
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
