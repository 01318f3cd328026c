"""A mirror of a run in Weights & Biases, which may be absent, failing, hanging or down.

The run folder's own `metrics.jsonl` is the record. Every wandb call is made on one daemon thread
fed by a queue, so that nothing here stops or slows a run: the worst that comes back is a single
warning.
"""

import copy
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from dml_bench.config import as_table
from dml_bench.runs.mirror import Mirror, MirroredRun, StartMirror
from dml_bench.system.tables import ResultTable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mode", "NotSent", "WandbMirror", "mirror_in_wandb", "start", "sync"]

Mode = Literal["offline", "online", "disabled"]
Scalar = float | int | str

EXIT_GRACE_SECONDS = 5.0
"""How long after the end of the main thread wandb may still use for its own clean-up."""


class NotLoggedIn(Exception):
    """Online mode without an API key."""


class WandbMirror(Mirror):
    """One run as W&B sees it. No method raises, and only `finish` waits; after a failure, all of
    them do nothing.

    `warn` is called at most once, from whichever thread met the failure.
    """

    def __init__(
        self,
        connect: Callable[[], Any] | None,
        *,
        directory: Path,
        warn: Callable[[str], None],
        forgets: bool = False,
    ) -> None:
        """`connect` opens the wandb run, on the mirror's own thread; None makes a mirror that does
        nothing."""
        self.forgets = forgets
        self._directory = directory
        self._warn = warn
        self._jobs: SimpleQueue[Callable[[Any], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._warned = False
        self._closed = connect is None
        if connect is not None:
            self._thread = threading.Thread(
                target=self._work, args=(connect,), name="wandb-mirror", daemon=True
            )
            self._thread.start()

    def log(self, record: Mapping[str, Scalar]) -> None:
        """Add the scalars of one epoch, which `record["epoch"]` numbers; they are plotted over
        it."""
        row = dict(record)
        self._put(lambda run: run.log(row))

    def tables(self, tables: Mapping[str, ResultTable]) -> None:
        """Add each table under its name."""
        named = dict(tables)
        self._put(lambda run: run.log({name: wandb_table(table) for name, table in named.items()}))

    @property
    def listening(self) -> bool:
        """Whether it is worth making something to hand over."""
        return not (self._closed or self._warned)

    def picture(self, name: str, picture: "Image") -> None:
        """Add a picture under its name."""
        self._put(lambda run: run.log({name: wandb_image(picture)}))

    def summary(self, values: Mapping[str, float | str]) -> None:
        """Set the numbers that stand for the whole run."""
        numbers = dict(values)
        self._put(lambda run: run.summary.update(numbers))

    def finish(self, timeout_seconds: float = 30, *, failed: bool = False) -> None:
        """Wait until all is handed over, `timeout_seconds` at most; then warn and go on. Later
        calls do nothing.

        `failed` marks the run in W&B as ended by an error.
        """
        if self._closed:
            return
        self._put(lambda run: run.finish(exit_code=int(failed)))
        self._jobs.put(None)
        self._closed = True
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            self._give_up(
                f"not done after {timeout_seconds:g} s (`wandb sync` can send later what is in"
                f" {self._directory / 'wandb'})"
            )

    def _put(self, job: Callable[[Any], object]) -> None:
        if self.listening:
            self._jobs.put(job)

    def _work(self, connect: Callable[[], Any]) -> None:
        run = None
        try:
            run = connect()
            while (job := self._jobs.get()) is not None:
                job(run)
        except BaseException as error:
            self.problem = describe(error)
            self._give_up(self.problem)
            if run is not None:
                with suppress(BaseException):
                    run.finish(exit_code=1)

    def _give_up(self, problem: str) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        with suppress(Exception):
            self._warn(f"W&B: {problem}; the run goes on, results are in {self._directory}")


def start(
    mode: Mode,
    *,
    directory: Path,
    run_id: str,
    name: str,
    group: str,
    config: dict[str, Any],
    warn: Callable[[str], None],
    notes: str = "",
    project: str = "dml_bench",
    adds: bool = False,
) -> WandbMirror:
    """The mirror of a run, at once; `mode` holds whatever the environment says. Files go to
    `directory`/wandb.

    `notes` stand on the run's page. `warn` may be called from another thread. With mode `disabled`
    wandb is not imported. A resumed run passes its old `run_id`: online, it goes on where W&B
    stands; offline, wandb can't resume and begins a new folder with the same id at step 0, so the
    caller logs all earlier records again. When it is synced it then replaces what came of the
    folders before it, unless it `adds` to them: a folder that wandb may resume is appended, and
    W&B would have its earlier epochs twice.
    """
    if mode == "disabled":
        return WandbMirror(None, directory=directory, warn=warn)
    run = {
        "id": run_id,
        "name": name,
        "group": group,
        "project": project,
        "notes": notes or None,
        "config": copy.deepcopy(config),
        "resume": "allow" if adds or mode == "online" else None,
    }
    return WandbMirror(
        functools.partial(connect, mode, directory, run),
        directory=directory,
        warn=warn,
        forgets=mode == "offline",
    )


def mirror_in_wandb(mode: Mode) -> StartMirror:
    """What a run is handed so that it is mirrored in W&B."""

    def start_run(run: MirroredRun) -> Mirror:
        return start(
            mode,
            directory=run.folder,
            run_id=run.run_id,
            name=f"{run.experiment.name} seed {run.experiment.seed}",
            group=run.experiment.name,
            config=as_table(run.experiment),
            warn=run.warn,
            notes=run.notes,
            adds=run.adds,
        )

    return start_run


def connect(mode: Mode, directory: Path, run: dict[str, Any]) -> Any:
    """An open wandb run whose metrics have `epoch` as their axis. Raises whatever wandb raises."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    let_go_at_exit()
    # wandb puts its own functions here, which print the traceback of a crash a second time under a
    # CLI's own hook.
    hooks = {name: getattr(sys, name) for name in ("exit", "excepthook")}
    wandb.setup(quiet_settings(wandb, mode))
    for name, hook in hooks.items():
        setattr(sys, name, hook)
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise NotLoggedIn("no API key; run `wandb login`, or use `--wandb offline`")
    directory.mkdir(parents=True, exist_ok=True)
    opened = wandb.init(dir=directory, reinit="create_new", **run)
    opened.define_metric("epoch")
    opened.define_metric("*", step_metric="epoch")
    return opened


def quiet_settings(wandb: Any, mode: Mode) -> Any:
    """Settings under which wandb prints nothing, watches nothing but what it is given, and never
    interrupts the run."""
    return wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        stop_fn=do_nothing,  # by default the web page's stop button sends SIGINT to this process
        x_disable_meta=True,
        x_disable_stats=True,
    )


def do_nothing() -> None:
    pass


def wandb_table(table: ResultTable) -> Any:
    import wandb

    return wandb.Table(
        columns=list(table.columns), data=[list(row) for row in table.rows], allow_mixed_types=True
    )


def wandb_image(picture: "Image") -> Any:
    import wandb

    return wandb.Image(picture)


def describe(error: BaseException) -> str:
    """One line for a person: what went wrong and, where it is known, what to do."""
    if isinstance(error, ImportError):
        return f"{error}; `pip install {(error.name or 'wandb').partition('.')[0]}`"
    if isinstance(error, NotLoggedIn):
        return str(error)
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"


@functools.cache
def let_go_at_exit() -> None:
    """See to it that this process ends: wandb's exit hook waits without limit for its service,
    which may be stuck."""
    import psutil

    def end_service() -> None:
        threading.main_thread().join()
        time.sleep(EXIT_GRACE_SECONDS)
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name().startswith("wandb-core"):
                    child.kill()

    threading.Thread(target=end_service, name="wandb-exit", daemon=True).start()


class NotSent(ValueError):
    """Something did not reach W&B."""


def sync(directory: Path, timeout_seconds: float = 600) -> list[Path]:
    """Send what a run logged offline, in the order in which it was logged, and return its folders.

    Raises NotSent, in one line, where there is nothing to send, no API key, or the server is out of
    reach.
    """
    folders = sorted((directory / "wandb").glob("offline-run-*"))
    if not folders:
        raise NotSent(
            f"{directory} has nothing logged offline: it ran with --wandb online or disabled;"
            " `dml-bench wandb log` adds pictures"
        )
    if not (os.environ.get("WANDB_API_KEY") or has_key()):
        raise NotSent("no W&B API key: run `wandb login`, or set WANDB_API_KEY")
    for folder in folders:
        command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotSent(
                f"{folder} was not sent within {timeout_seconds:g} s: is the network there? Nothing"
                " is lost; try again"
            ) from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise NotSent(
                f"{folder} was not sent ({said[-1].removeprefix('wandb: ')}); nothing is lost: try"
                " again"
            )
    return folders


def has_key(timeout_seconds: float = 60) -> bool:
    """Whether wandb finds a key for its server, wherever `wandb login` left it. In a process of its
    own, as wandb starts a service to look."""
    look = "import sys, wandb; sys.exit(not wandb.login(prompt=False, verify=False))"
    try:
        looked = subprocess.run(
            [sys.executable, "-c", look],
            env=os.environ | {"WANDB_MODE": "online", "WANDB_SILENT": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:  # then sending says what is wrong
        return True
    return looked.returncode == 0
