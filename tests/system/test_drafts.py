"""Nothing half made bears a name, and what a dead process left goes with the next one that works in
its place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dml_bench.system.drafts import drafted, remove, scratch, sweep

MAKES = """
import sys, time
from pathlib import Path
from dml_bench.system.drafts import drafted
with drafted(Path(sys.argv[1])) as draft:
    draft.mkdir()
    (draft / "pixels").write_bytes(bytes(1000))
    print("half made", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def maker(tmp_path):
    """A process that is making the folder `photos`."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKES, str(tmp_path / "photos")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half made\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait()


def test_what_a_living_process_is_making_stays(tmp_path, maker):
    (left,) = tmp_path.glob(".dml-*/draft/pixels")
    sweep(tmp_path)
    assert left.stat().st_size == 1000


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name
)
def test_what_a_dead_process_was_making_is_removed(tmp_path, maker, how):
    end(maker, how)
    assert len(os.listdir(tmp_path)) == 1
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path, maker):
    end(maker, signal.SIGINT)
    assert os.listdir(tmp_path) == []


def test_who_makes_something_removes_what_the_dead_left_beside_it(tmp_path, maker):
    end(maker, signal.SIGKILL)
    with drafted(tmp_path / "other") as draft:
        draft.write_text("whole")
    assert os.listdir(tmp_path) == ["other"]


def test_a_folder_appears_whole(tmp_path):
    with drafted(tmp_path / "photos") as draft:
        draft.mkdir()
        (draft / "one").write_text("1")
        assert not (tmp_path / "photos").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "photos",
        "photos/one",
    ]


def test_a_draft_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), drafted(tmp_path / "photos") as draft:
        draft.mkdir()
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


def test_a_folder_is_gone_as_a_whole_before_any_file_of_it_is_deleted(tmp_path, monkeypatch):
    (tmp_path / "run" / "all").mkdir(parents=True)
    (tmp_path / "run" / "all" / "complete.json").touch()
    (tmp_path / "run" / "summary.json").touch()
    there, unlink = [], os.unlink
    monkeypatch.setattr(
        os,
        "unlink",
        lambda *path, **how: (there.append((tmp_path / "run").exists()), unlink(*path, **how)),
    )
    remove(tmp_path / "run")
    assert set(there) == {False}
    assert os.listdir(tmp_path) == []


def test_removing_what_is_not_there_is_nothing(tmp_path):
    remove(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_folders_of_other_programs_stay(tmp_path):
    for name in (".dml-bench", ".dml-ABCDEFGH", ".dml-notes", "dml-abcdefgh", ".dml-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes").touch()
    sweep(tmp_path)
    assert (
        len(os.listdir(tmp_path)) == 5
    )  # even one of such a name: what is without a lock and not empty is not of this program


def test_a_folder_that_was_never_locked_and_holds_nothing_is_removed(tmp_path):
    (tmp_path / ".dml-abcdefgh").mkdir()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_sweep_between_the_making_and_the_locking_of_a_folder_does_no_harm(tmp_path, monkeypatch):
    from filelock import FileLock

    acquire, swept = FileLock.acquire, []

    def late(lock, *arguments, **options):
        if not swept:
            swept.append(True)
            sweep(tmp_path)
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", late)
    with scratch(tmp_path) as folder:
        assert (Path(folder) / ".lock").exists()
        assert swept == [True]
    assert os.listdir(tmp_path) == []


def test_a_place_that_is_not_there_is_swept_of_nothing(tmp_path):
    sweep(tmp_path / "none")
