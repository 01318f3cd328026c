"""What the operating system refuses is one line with the path and the next step, exit code 2, and
leaves nothing half-written.

Each case is the real thing in a fork of this process, which has imported everything: a disk of its
own that is full or read-only, limits, rights taken away. Where a machine does not allow to make it,
the case is skipped.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from processor_time import with_slow
from tiny import SETTINGS, tiny

from dml_bench.cli import app
from dml_bench.config import as_table
from dml_bench.suite import worker

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="disks and rights are made as Linux has them"
)

EXPERIMENT = "EPSHN_cosine_resnet18_sgd_aug"
NEW_NAMESPACE, NEW_USER, PRIVATE, READ_ONLY, REMOUNT = 0x20000, 0x10000000, 0x44000, 1, 32
IMPOSSIBLE = 77
libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class ProcessResult:
    code: int
    out: str
    err: str


def nothing() -> None:
    pass


def forked(
    folder: Path,
    arguments: list[str],
    change: Callable[[], object] = nothing,
    look: Callable[[], object] = nothing,
    program: Callable[[], object] = app.main,
) -> ProcessResult:
    """A command in a fork, whose world `change` has changed, and which takes a look at it at
    last."""
    child = os.fork()
    if not child:
        code = 1
        try:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
            sys.argv = ["dml-bench", *arguments]
            change()
            program()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                look()
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)  # whatever happened: it must not go on as its parent
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == IMPOSSIBLE:
        pytest.skip("this machine does not allow to make it")
    return ProcessResult(code, *((folder / name).read_text() for name in ("stdout", "stderr")))


def done(result: int) -> None:
    if result:
        os._exit(IMPOSSIBLE)


def disk(place: Path, size: str, read_only: bool = False) -> None:
    """A small disk of this process alone."""
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    done(libc.unshare(NEW_NAMESPACE if own["uid"] == 0 else NEW_NAMESPACE | NEW_USER))
    if own["uid"]:  # who would else be nobody there, and could own no file
        Path("/proc/self/setgroups").write_text("deny")
        for kind, number in own.items():
            Path(f"/proc/self/{kind}_map").write_text(f"{number} {number} 1")
    done(libc.mount(None, b"/", None, PRIVATE, None))
    place.mkdir(exist_ok=True)
    flags = READ_ONLY if read_only else 0
    done(
        libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, f"size={size},mode=777".encode())
    )


def without_privileges() -> None:
    """Root has to keep to the rights of files as well."""
    done(libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)))


def at_most(limit: int, amount: int) -> None:
    resource.setrlimit(limit, (amount, amount))


def little_memory() -> None:
    """Little more than there is, and none of the addresses that the heap keeps: to fill those takes
    gigabytes, and ten seconds and more."""
    ctypes.CDLL(None).malloc_trim(0)
    at_most(resource.RLIMIT_AS, psutil.Process().memory_info().vms + 64 * 2**20)


@pytest.fixture(scope="module")
def run(copy_of_trained) -> Path:
    """A finished run of the tiny experiment."""
    return copy_of_trained("train.epochs=1")


@dataclass
class World:
    """What the commands of the table are made of."""

    here: Path
    birds: Path
    cache: Path
    run: Path

    def training(
        self,
        *,
        out: object = "runs",
        cache: object = "",
        data: object = "",
        more: tuple[str, ...] = (),
    ) -> list[str]:
        named = (*SETTINGS, f"name={EXPERIMENT}")
        settings = [part for setting in named for part in ("--set", setting)]
        places = [
            "--data-dir",
            data or self.birds,
            "--cache-dir",
            cache or self.cache,
            "--out",
            self.here / str(out),
        ]
        return [
            "run",
            EXPERIMENT,
            *settings,
            *map(str, places),
            "--device",
            "cpu",
            "--wandb",
            "disabled",
            *more,
        ]

    def file(self, name: str = "file", text: str = "") -> Path:
        (self.here / name).write_text(text)
        return self.here / name

    def folder(self, name: str = "folder", mode: int = 0o777) -> Path:
        (self.here / name).mkdir()
        (self.here / name).chmod(mode)
        return self.here / name

    def photos(self) -> tuple[Path, Path]:
        """A copy of the birds, and one of its images."""
        root = shutil.copytree(self.birds, self.here / "CUB_200_2011")
        return root, min((root / "images").rglob("*.jpg"))


@pytest.fixture
def world(tmp_path, birds, cache_dir, run) -> World:
    return World(tmp_path, birds, cache_dir, run)


Case = Callable[[World], tuple[list[str], Callable[[], object], str]]
"""The command, what is done to its world first, and what its line says."""


def gone(world: World) -> None:
    place = world.folder("gone")
    os.chdir(place)
    place.rmdir()


def nameless_user() -> None:
    os.environ.pop("HOME", None)
    os.environ.pop("DML_BENCH_CACHE", None)
    if os.geteuid():
        os._exit(IMPOSSIBLE)
    os.setuid(54321)


def draw(place: Path, size: int = 32) -> list[str]:
    return [
        "data",
        "draw",
        "--out",
        str(place),
        "--classes",
        "4",
        "--per-class",
        "8",
        "--size",
        str(size),
    ]


def nested(world: World, name: str, text: str) -> list[str]:
    return ["show", str(world.file(name, text))]


def damaged(world: World) -> Path:
    """A data set with an image whose disk fails: what reads its own memory from the beginning gets
    an input/output error."""
    root, image = world.photos()
    image.unlink()
    image.symlink_to("/proc/self/mem")
    return root


def forbidden(world: World) -> Path:
    root, image = world.photos()
    image.chmod(0)
    return root


def closed_class(world: World) -> Path:
    root = shutil.copytree(world.birds / "images", world.here / "photos")
    world.folder("photos/closed", mode=0)
    return root


def sheet(world: World, out: Path) -> list[str]:
    places = ["--data-dir", str(world.birds), "--cache-dir", str(world.cache), "--out", str(out)]
    return [
        "show-batch",
        EXPERIMENT,
        *(part for setting in SETTINGS for part in ("--set", setting)),
        *places,
    ]


CASES: dict[str, Case] = {
    "a full disk at a checkpoint": lambda w: (
        w.training(out="disk/runs"),
        lambda: disk(w.here / "disk", "300k"),
        (
            f"{w.here}/disk/runs/{EXPERIMENT}/cub/seed-42/all/state.pt: no space is left on this"
            " disk: make room, or choose another place"
        ),
    ),
    "a full disk at the image cache": lambda w: (
        w.training(cache=w.here / "disk"),
        lambda: disk(w.here / "disk", "100k"),
        "choose another disk with --cache-dir",
    ),
    "a read-only disk for the run": lambda w: (
        w.training(out="disk/runs"),
        lambda: disk(w.here / "disk", "1m", read_only=True),
        f"{w.here}/disk/runs: this disk can only be read: choose another place with --out",
    ),
    "a read-only disk for the image cache": lambda w: (
        w.training(cache=w.here / "disk"),
        lambda: disk(w.here / "disk", "1m", read_only=True),
        "this disk can only be read",
    ),
    "a file in place of the run's folder": lambda w: (
        w.training(out=w.file().name),
        nothing,
        f"{w.here}/file",
    ),
    "a file above the run's folder": lambda w: (
        w.training(out=f"{w.file().name}/runs"),
        nothing,
        "a file is where a folder is wanted",
    ),
    "a file in place of the cache": lambda w: (
        w.training(cache=w.file()),
        nothing,
        f"{w.here}/file",
    ),
    "a folder of somebody else for the run": lambda w: (
        w.training(out=f"{w.folder(mode=0o555).name}/runs"),
        without_privileges,
        (
            f"{w.here}/folder/runs: permission denied: ask its owner for access, or choose another"
            " place with --out"
        ),
    ),
    "a folder of somebody else for the cache": lambda w: (
        w.training(cache=w.folder(mode=0o555)),
        without_privileges,
        "permission denied",
    ),
    "a name that is too long for the run": lambda w: (
        w.training(out="n" * 300),
        nothing,
        "the name is too long for this disk",
    ),
    "a name of 5,000 characters for the run": lambda w: (
        w.training(out="n" * 5000),
        nothing,
        "the name is too long for this disk",
    ),
    "a name of 5,000 characters for an experiment": lambda w: (
        ["show", "n" * 5000],
        nothing,
        "unknown experiment 'nnn",
    ),
    "a name of 5,000 characters for a file": lambda w: (
        ["show", "n" * 5000 + ".toml"],
        nothing,
        "the name is too long",
    ),
    "a limit on the size of files": lambda w: (
        w.training(),
        lambda: at_most(resource.RLIMIT_FSIZE, 100_000),
        (
            f"{w.here}/runs/{EXPERIMENT}/cub/seed-42/all/state.pt: the file became larger than is"
            " allowed here: raise the limit (ulimit -f)"
        ),
    ),
    "a limit on open files": lambda w: (
        w.training(),
        lambda: at_most(resource.RLIMIT_NOFILE, 4),
        "too many files are open: raise the limit (ulimit -n)",
    ),
    "a working folder that is gone": lambda w: (
        [*w.training()[:-6], "--out", "runs", "--device", "cpu", "--wandb", "disabled"],
        lambda: gone(w),
        "the folder that this command was started in is gone: cd to one that exists",
    ),
    "an image without the right to read it": lambda w: (
        w.training(data=forbidden(w)),
        without_privileges,
        "1 of 64 images can't be read",
    ),
    "an image that the disk can't read": lambda w: (
        w.training(data=damaged(w)),
        nothing,
        "Input/output error",
    ),
    "a class of images without the right to read it": lambda w: (
        w.training(data=closed_class(w), more=("--dataset", "folder")),
        without_privileges,
        f"{w.here}/photos/closed: permission denied",
    ),
    "extends = 5": lambda w: (
        nested(w, "x.toml", "extends = 5"),
        nothing,
        "extends must be the name of an experiment",
    ),
    "extends = [] in JSON": lambda w: (
        nested(w, "x.json", '{"extends": []}'),
        nothing,
        "extends must be the name of an experiment",
    ),
    "deep nesting in TOML": lambda w: (
        nested(w, "x.toml", f"a = {'[' * 5000}{']' * 5000}"),
        nothing,
        "x.toml can't be read: its values",
    ),
    "deep nesting in JSON": lambda w: (
        nested(w, "x.json", f"{'[' * 99999}{']' * 99999}"),
        nothing,
        "x.json can't be read: its values",
    ),
    "deep nesting in --set": lambda w: (
        ["show", EXPERIMENT, "--set", f"seed={'[' * 5000}{']' * 5000}"],
        nothing,
        "seed",
    ),
    "an experiment's file without the right to read it": lambda w: (
        (w.file("x.toml").chmod(0), ["show", str(w.here / "x.toml")])[1],
        without_privileges,
        "x.toml: permission denied",
    ),
    "a user without a home": lambda w: (
        ["doctor"],
        nameless_user,
        "set HOME, or name a folder with --cache-dir DIR",
    ),
    "a line break in --out of --print-jobs": lambda w: (
        ["suite", *w.training(out="two\nlines")[1:], "--print-jobs"],
        nothing,
        "--print-jobs writes a command a line",
    ),
    "a full disk for drawn birds": lambda w: (
        draw(w.here / "disk" / "birds"),
        lambda: disk(w.here / "disk", "100k"),
        f"{w.here}/disk/birds: no space is left on this disk",
    ),
    "a read-only disk for drawn birds": lambda w: (
        draw(w.here / "disk" / "birds"),
        lambda: disk(w.here / "disk", "100k", read_only=True),
        "this disk can only be read",
    ),
    "a folder in place of a picture": lambda w: (
        sheet(w, w.folder("sheet.png")),
        nothing,
        f"{w.here}/sheet.png: a folder is where a file is wanted",
    ),
    "a full disk for a picture": lambda w: (
        sheet(w, w.here / "disk" / "sheet.png"),
        lambda: disk(w.here / "disk", "4k"),
        f"{w.here}/disk/sheet.png: no space is left on this disk",
    ),
    "a full disk for an export": lambda w: (
        ["export", str(w.run), "--out", str(w.here / "disk" / "exported")],
        lambda: disk(w.here / "disk", "300k"),
        f"{w.here}/disk/exported: no space is left on this disk",
    ),
    "a read-only disk for evidence": lambda w: (
        ["evidence", str(w.run), "--out", str(w.here / "disk" / "panels")],
        lambda: disk(w.here / "disk", "300k", read_only=True),
        f"{w.here}/disk/panels: this disk can only be read",
    ),
    "a full disk for a report": lambda w: (
        ["report", str(w.run), "--out", str(w.here / "disk" / "report")],
        lambda: disk(w.here / "disk", "20k"),
        "no space is left on this disk",
    ),
    "a gallery that can't be written": lambda w: (
        [
            "enrol",
            str(w.run),
            "--rename",
            "001.x=y",
            "--gallery",
            str(w.folder(mode=0o555) / "mine"),
        ],
        without_privileges,
        "",
    ),
    "a cache of browse that can't be written": lambda w: (
        ["browse", str(w.run), "--forget", "--cache-dir", str(w.folder(mode=0o555) / "cache")],
        without_privileges,
        f"{w.here}/folder/cache: permission denied",
    ),
    "no memory": lambda w: (
        draw(w.here / "birds", size=60_000),
        little_memory,
        "no memory is left",
    ),
    "a full standard output": lambda w: (
        ["list", "losses"],
        lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1),
        "no space is left on this disk",
    ),
}


WRITTEN_LATE = ("a full disk for an export", "a full disk for a report")


@pytest.mark.parametrize("name", with_slow(CASES, *WRITTEN_LATE))
def test_what_the_system_refuses_is_one_line_with_the_next_step(name, world):
    arguments, change, wanted = CASES[name](world)
    ended = forked(world.here, arguments, change)
    lines = [line for line in ended.err.splitlines() if not line.startswith("warning:")]
    assert (ended.code, len(lines)) == (2, 1), ended
    assert lines[0].startswith("error: ")
    assert wanted in lines[0]


@pytest.mark.parametrize(("spoil", "change"), [(forbidden, without_privileges), (damaged, nothing)])
def test_skip_unreadable_leaves_out_what_can_not_be_read_with_a_count(world, spoil, change):
    arguments = world.training(
        data=spoil(world), more=("--set", "train.epochs=1", "--skip-unreadable")
    )
    ended = forked(world.here, arguments, change)
    assert ended.code == 0, ended
    assert "left out: 1 of 64 images can't be read" in " ".join(ended.out.split())


def test_a_full_disk_leaves_the_old_picture_and_no_other_file(world):
    def fill() -> None:
        disk(world.here / "disk", "8k")
        (world.here / "disk" / "sheet.png").write_bytes(b"old")

    def look() -> None:
        place = world.here / "disk"
        print(sorted(path.name for path in place.iterdir()), (place / "sheet.png").read_bytes())

    ended = forked(world.here, sheet(world, world.here / "disk" / "sheet.png"), fill, look)
    assert (ended.code, ended.out) == (2, "['sheet.png'] b'old'\n")


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_export(world):
    def look() -> None:
        print(list((world.here / "disk").iterdir()))

    arguments = ["export", str(world.run), "--out", str(world.here / "disk" / "exported")]
    ended = forked(world.here, arguments, lambda: disk(world.here / "disk", "300k"), look)
    assert (ended.code, ended.out) == (2, "[]\n")


@pytest.mark.slow
def test_a_run_that_met_a_full_disk_goes_on_where_there_is_room(world):
    met = forked(world.here, world.training(), lambda: at_most(resource.RLIMIT_FSIZE, 100_000))
    assert met.code == 2
    assert forked(world.here, world.training()).code == 0
    uninterrupted = forked(world.here, world.training(out="whole"))
    assert uninterrupted.code == 0
    first, second = (
        world.here / out / EXPERIMENT / "cub" / "seed-42" / "predictions.csv"
        for out in ("runs", "whole")
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_run_of_a_suite_says_the_same_line_to_the_suite(world):
    order = {
        "experiment": as_table(tiny()),
        "data_dir": str(world.birds),
        "out": str(world.here / "runs"),
        "cache_dir": str(world.cache),
        "device": "cpu",
        "wandb": "disabled",
        "allowed_plugins": [],
        "command": ["dml-bench", "suite"],
    }

    def give_the_order() -> None:
        read, write = os.pipe()
        os.write(write, json.dumps(order).encode() + b"\n")
        os.dup2(read, 0)
        at_most(resource.RLIMIT_FSIZE, 100_000)

    ended = forked(world.here, [], give_the_order, program=lambda: sys.exit(worker.main()))
    said = json.loads(ended.out.splitlines()[-1])
    assert (ended.code, said["event"], said["expected"]) == (1, "failed", True), said
    assert (
        "state.pt: the file became larger than is allowed here: raise the limit (ulimit -f)"
        in said["text"]
    )


def test_whoever_reads_the_output_may_end_first(world):
    def nobody_listens() -> None:
        os.dup2(closed_pipe(), 1)

    for arguments in (["list", "losses"], ["list", "losses", "--json"], ["doctor"]):
        ended = forked(world.here, arguments, nobody_listens)
        assert (ended.code, ended.err) == (141, ""), arguments


def test_a_user_without_a_home_needs_none_for_what_keeps_nothing(world):
    assert forked(world.here, ["show", EXPERIMENT], nameless_user).code == 0


INTERRUPTED = """
import os, signal, sys
_, module, *arguments = sys.argv
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from dml_bench.__main__ import main
sys.argv = ["dml-bench", *arguments]
main()
"""


@pytest.mark.parametrize(
    ("module", "line"), [("dml_bench.cli.app", ""), ("typer", ""), ("rich", "stopped\n")]
)
def test_ctrl_c_while_modules_are_imported_says_nothing_of_them(module, line):
    command = [sys.executable, "-c", INTERRUPTED, module, "list", "losses"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, line)


@pytest.mark.slow
def test_ctrl_c_reaches_processes_that_draw_birds_and_none_of_them_says_so(tmp_path):
    import psutil

    command = [
        sys.executable,
        "-m",
        "dml_bench",
        "data",
        "draw",
        "--out",
        str(tmp_path / "birds"),
        "--per-class",
        "60",
        "--size",
        "96",
    ]
    drawing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not any(
        "spawn_main" in part
        for child in psutil.Process(drawing.pid).children()
        for part in child.cmdline()
    ):
        time.sleep(0.01)
    os.killpg(drawing.pid, signal.SIGINT)
    assert drawing.communicate()[1] == "stopped\n"
    assert (drawing.returncode, os.listdir(tmp_path)) == (130, [])


def test_a_closed_standard_output_is_no_failure(tmp_path):
    command = f"{sys.executable} -m dml_bench show {EXPERIMENT} >&-"
    ended = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def closed_pipe() -> int:
    """Where nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    ("open_output", "expected"),
    [(closed_pipe, (141, 0)), (lambda: os.open("/dev/full", os.O_WRONLY), (2, 1))],
)
def test_what_could_not_be_printed_is_told_once(open_output, expected):
    command = [sys.executable, "-m", "dml_bench", "list", "losses"]
    with os.fdopen(open_output(), "w") as output:
        ended = subprocess.run(
            command, check=False, stdout=output, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, len(ended.stderr.splitlines())) == expected, ended.stderr
