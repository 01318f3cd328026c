import gc
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from forked_session import IN_FORK, ForkedSession
from processor_time import ProcessorTimes, shared_work

from dml_bench.system.memory import collect_garbage_rarely

if TYPE_CHECKING:
    from dml_bench.runs.request import Outcome

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

LONGEST = (
    *("test_ray", "test_distributed", "test_techniques", "test_fiftyone", "test_projection"),
    *("test_run", "test_explain", "test_kinds_of_runs", "test_readback", "test_export"),
    *("test_report", "test_plan", "test_os_errors", "test_cli", "test_plugins"),
    *("test_indexes", "test_schedules", "test_pretraining", "test_camhead", "test_backbones"),
    *("test_suite", "test_wandb_mirror", "test_artifacts", "test_progressive", "test_browse"),
    *("test_training_labels", "test_gallery", "test_gpu_paths", "test_neighbour_panels"),
    *("test_statistics", "test_explain_methods", "test_mixing", "test_embedder", "test_losses"),
    *("test_verify", "test_serve", "test_page_commands", "test_beside", "test_views"),
    *("test_page", "test_checkpoint", "test_api", "test_all_tests", "test_tta", "test_record"),
    *("test_memory", "test_sweeps", "test_identity", "test_page_numbers", "test_bench"),
    "test_multi_label",
)
"""The files that take five seconds and more, in about this order, so that the others, which are
run last, leave no process alone with a long one. The first also waits longest for others."""

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DML_BENCH_CHECK_SHAPES"] = "1"  # of arrays and tensors, at every `shaped` function
# One process per core, one thread each: two threads that share a core wait for each other. numba
# would else give PyTorch as many threads as itself, and a run other bits after a map than before.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore Ctrl-C, and so would the commands tested
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forks", action="store_true", help="run the tests in as many processes as suit the cores"
    )
    parser.addoption("--all", action="store_true", help="also run what takes minutes (`slow`)")
    parser.addoption(
        "--require-all", action="store_true", help="as --all, and fail where a test was skipped"
    )
    parser.addoption(
        "--pictures", type=Path, metavar="DIR", help="where pictures of pages are kept for docs"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays for good: looking through it for garbage takes a third
    of the time of collecting, and would write to all pages that a fork shares."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        collect_garbage_rarely()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; leave out what takes minutes, unless it is asked for,
    and what needs a GPU that is not there."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))  # else as it was
    left_out = set() if all_are_asked_for(config) else {"slow"}
    if not there_is_a_gpu():
        left_out.add("cuda")
    wanted, others = [], []
    for item in items:
        markers = {marker.name for marker in item.iter_markers()}
        (others if markers & left_out else wanted).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = wanted


def there_is_a_gpu() -> bool:
    torch = sys.modules.get("torch")  # a test that needs a GPU has imported it
    return torch is not None and torch.cuda.is_available()


def all_are_asked_for(config: pytest.Config) -> bool:
    return bool(config.getoption("--all") or config.getoption("--require-all"))


def pytest_configure(config: pytest.Config) -> None:
    """Where all tests are asked for, each that is skipped is listed with its reason, as by -rs. How
    dear a test may be is known where all share what they import, as they do with `--forks`."""
    times = ProcessorTimes(enforced=config.getoption("--forks"), longest=LONGEST)
    config.pluginmanager.register(times, "processor_times")
    if all_are_asked_for(config) and "s" not in config.option.reportchars:
        config.option.reportchars += "s"


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With `--forks`, one process per core, and one more: some wait for a program or a page that
    they started."""
    options = session.config.option
    if not options.forks or options.collectonly or session.testsfailed:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    forked = ForkedSession(session, cores + 1)
    forked.run()
    times = session.config.pluginmanager.get_plugin("processor_times")
    times.waited = forked.said_of_the_end()
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a failure where all are required."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal and session.config.getoption("--require-all") and terminal.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def runs_wait_for_no_disk_and_time_few_images() -> Iterator[None]:
    """The files of a test need not outlive a power cut, and nobody reads how fast its images were:
    waiting for the disk takes as long as a tiny run, timing images one by one a tenth of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        if "torch" in sys.modules:  # else no test of this session trains
            from dml_bench.runs import embed_and_search

            for number in ("LATENCIES", "WARM_UP", "PHOTOS"):
                patch.setattr(embed_and_search, number, 1)
        yield


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one session of tests share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if IN_FORK in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(of_all_workers: Path) -> MadeOnce:
    """`made_once(name, make)` is the folder of that name, which `make` filled once a session."""

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = of_all_workers / name, of_all_workers / f"{name}.done"
        with FileLock(of_all_workers / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                with shared_work():
                    make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def birds(made_once: MadeOnce) -> Path:
    """Eight drawn species with 8 images each at 40 px, in CUB's layout."""
    from dml_bench.data.synthetic import write

    def draw(folder: Path) -> None:
        write(folder / "CUB_200_2011", counts=[8] * 8, size=40, seed=3)

    return made_once("birds", draw) / "CUB_200_2011"


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained(
    of_all_workers: Path, birds: Path, cache_dir: Path
) -> Iterator["Callable[..., Outcome]"]:
    """`trained(*overrides)` is a finished tiny run of the birds. Each is trained once a session,
    whichever process asks first, so nobody may change it: who has to change one makes a copy."""
    from tiny import train

    sealed: dict[Path, dict[Path, int]] = {}

    def run_of(*overrides: str) -> "Outcome":
        name = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:16]
        out = of_all_workers / "runs" / name
        out.parent.mkdir(exist_ok=True)
        with FileLock(out.with_suffix(".lock")), shared_work():
            outcome = train(birds, cache_dir, out, *overrides)
        sealed.setdefault(outcome.folder, times_of(outcome.folder))
        return outcome

    yield run_of
    for folder, times in sealed.items():
        assert times_of(folder) == times, f"a test changed the shared run {folder}: copy it first"


@pytest.fixture(scope="session")
def copy_of_trained(
    trained: "Callable[..., Outcome]", tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`copy_of_trained(*overrides)` is the folder of such a run that may be changed."""

    def copy_of(*overrides: str) -> Path:
        run = trained(*overrides).folder
        place = tmp_path_factory.mktemp("runs").joinpath(*run.parts[-3:])
        return Path(shutil.copytree(run, place))

    return copy_of


def times_of(folder: Path) -> dict[Path, int]:
    """When each file of a folder was changed last, locks apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib saves figures without drawing them, for tests of words and numbers: three
    drawings of each are most of what a report takes."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save_blank(figure: Figure, file: IO[Any], *, format: str, **options: object) -> None:
        if format == "svg":
            file.write("<svg></svg>")
        else:
            Image.new("RGB", (1, 1)).save(file, format)

    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture
def refused(birds: Path, cache_dir: Path, tmp_path: Path) -> Callable[..., str]:
    """`refused(*settings)` is the message with which a tiny run of two epochs is refused."""
    from tiny import train

    def message(*settings: str) -> str:
        with pytest.raises(ValueError) as problem:
            train(birds, cache_dir, tmp_path / "runs", "train.epochs=2", *settings)
        return str(problem.value)

    return message


@pytest.fixture
def plugins_removed() -> Iterator[None]:
    """What a test registers is gone after it."""
    from forked import forget_plugins

    yield
    forget_plugins()
