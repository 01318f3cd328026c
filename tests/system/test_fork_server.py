"""Warm processes: what forks share, and what of one never reaches another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dml_bench.system import fork_server
from dml_bench.system.fork_server import Fork, ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks runs")

PROGRAM = """
import os, sys, tempfile
before = []
folder = tempfile.TemporaryDirectory()
def prepare():
    before.append("prepared")
def main():
    before.append(sys.stdin.readline().strip())
    made = folder.name if before[-1] == "folder" else ""
    print(os.getppid(), *before, os.environ.get("NEW", ""), made, flush=True)
    sys.stdin.read()
    return 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program_of_forks.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


def start(server: ForkServer, folder: Path, name: str = "program_of_forks", **more: str) -> Fork:
    with open(folder / "log", "a") as log:
        return server.popen((sys.executable, "-m", name), stderr=log, env={**os.environ, **more})


def end(fork: Fork, line: str) -> list[str]:
    """What it prints after that line."""
    with fork.stdin, fork.stdout:
        fork.stdin.write(f"{line}\n")
        fork.stdin.flush()
        printed = fork.stdout.readline().split()
        fork.stdin.close()
        assert fork.wait() == 7
    return printed


def test_forks_come_from_one_process_and_know_nothing_of_each_other(server, folder):
    one, other = start(server, folder), start(server, folder)
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    (parent, *said), (parent_too, *said_too) = end(one, "one"), end(other, "other")
    assert parent == parent_too != str(os.getpid())
    assert (said, said_too) == (["prepared", "one"], ["prepared", "other"])


def test_what_modules_made_at_their_import_outlives_the_forks(server, folder):
    *_, place = end(start(server, folder), "folder")
    assert Path(place).is_dir()
    *_, place_too = end(start(server, folder), "folder")
    assert place == place_too
    server.__exit__()
    assert not Path(place).exists()


def test_where_code_or_environment_change_the_next_fork_has_the_new_one(
    server, folder, monkeypatch
):
    (folder / "package").mkdir()
    monkeypatch.setattr(fork_server, "PACKAGE", folder / "package")
    first = start(server, folder)
    (folder / "package" / "module.py").write_text("new = 1")
    second, third = start(server, folder), start(server, folder, NEW="there")
    parents = {end(fork, "x")[0] for fork in (first, second)}
    *_, new = end(third, "x")
    assert len(parents) == 2
    assert new == "there"


def test_what_can_not_be_imported_is_reported_by_the_fork(server, folder):
    fork = start(server, folder, "no_module_of_that_name")
    with fork.stdin, fork.stdout:
        assert fork.wait() == 1
    assert "No module named 'no_module_of_that_name'" in (folder / "log").read_text()


def test_what_triton_leaves_at_the_end_stands_in_no_log(server, folder):
    """nanobind wrote thirty lines of leaks into the log of every run."""
    pytest.importorskip("triton")
    text = PROGRAM.replace("import os, sys, tempfile", "import atexit, os, sys, tempfile, triton")
    text += "\natexit.register(print, 'its last words', file=sys.stderr)\n"
    (folder / "with_triton.py").write_text(text)
    end(start(server, folder, "with_triton"), "x")
    server.__exit__()
    assert (folder / "log").read_text() == "its last words\nits last words\n", "fork and server"


def test_a_fork_or_its_server_may_be_killed_and_the_next_one_works(server, folder):
    for_later = start(server, folder)
    killed = start(server, folder)
    parent, *_ = end(for_later, "x")
    killed.kill()
    with killed.stdin, killed.stdout:
        assert killed.wait() == -signal.SIGKILL
    orphan = start(server, folder)
    os.kill(int(parent), signal.SIGKILL)
    with orphan.stdin, orphan.stdout:
        assert orphan.wait() == -signal.SIGKILL
    assert end(start(server, folder), "x")[0] != parent
