"""Every line of README.md and docs/ is typed as it stands, page by page, and does what the page
says: it ends well, and what it names is there. Images, networks and epochs are tiny here.

What stands for what, how lines that train are shortened, and which lines are left out and why, is
said once, in the tables below. The tutorials are followed by test_tutorials.
"""

import csv
import glob
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from desk_of_a_reader import DEMO, copy_desk, lay_out, make_runs
from forked import ForkedCommand, fork_workers
from listening import listening
from test_documents import GUIDES, ROOT
from test_page_commands import overrides_of, parsed, typed
from tiny import dml_bench

import dml_bench as db
from dml_bench.config import Experiment
from dml_bench.config.tables import choose, read_table, tables_over_data
from dml_bench.config.variants import base_name, variant_name
from dml_bench.decision import rows as decision_rows
from dml_bench.system.files import write_csv

pytestmark = pytest.mark.slow
"""Most pages are typed by `make tutorials`, which CI runs, and all by `make test-all`."""

BASELINE = "EPSHN_cosine_resnet18_sgd_aug"
CLASSIFIER = "crossentropy_resnet18_sgd_aug"
RECORD = "omniglot/grouped-by-drawer-random-60-x-2/EPSHN_cosine_characters"
LAST_SPECIES = "008.Cream_breasted_Warbler"

STANDS_FOR = {
    # Names that a reader fills in.
    r"\b(run|show|show-batch) (NAME|EXPERIMENT)\b": rf"\1 {BASELINE}",
    r"decision/runs/NAME|decision/runs/\w+/development/seed-42": "decision/runs/*/*/seed-42",
    r"results/demo/stratified-last-10/NAME": "results/demo_tiny/stratified-last-2/my_method",
    r"runs/OLD --run runs/NEW": f"runs/NAME --run runs/{BASELINE}",
    rf"\b(discover|enrol) runs/{BASELINE}": r"\1 runs/NAME",
    r" RUN\b": " runs/NAME",
    r"submit FILE": f"submit results/{RECORD}/seed-42.json",
    # Small birds under the name of a published data set are refused, as they have to be.
    r"^dml-bench verify$": "dml-bench verify results/demo results/omniglot",
    r"040\.Azure_throated_spotted_Tit": LAST_SPECIES,
    # Data.
    r"/data/IMAGES": "parts",
    r"/data/tags.csv": "tags.csv",
    r"/data/CUB_200_2011|(?<=--data-dir )DIR\b": "CUB_200_2011",
    r"check (?:grocery|flowers102_part) --data-dir /data": "check folder --data-dir parts",
    r"/data\b": "data",
    r"--data-dir photos (?=--set data.split=given)": "--data-dir parts ",
    r"(?<=multilabel) --data-dir photos": " --data-dir labelled",
    r"--data-dir photos --embeddings": "--data-dir new_classes --embeddings",
    r"--images photos": "--images new_classes",
    # Fewer and smaller.
    r"\b(random|last):\d\d\b": r"\1:2",
    r" x 4'": " x 2'",
    r"--seeds (\d+)[\d,]+": r"--seeds \1",
    r"--trials 30": "--trials 2",
    r"--watch 5": "--watch 0.2",
    r"--device cuda": "--device cpu",
    r"\bdata draw": "data draw --classes 2 --per-class 2 --size 48",
    r"\bexplain (\S+)": r"explain \1 --scored 2",
    r"--mistakes 8": "--mistakes 2",
    r"\bevidence (\S+)": r"evidence \1 --mistakes 2",
    r"\bwandb log (\S+)": r"wandb log \1 --evidence 1 --explained 1",
    # Birds that are not those of the demo need a name of their own.
    r"\bsubmit runs": "submit --revision tiny runs",
}
"""Of a page's text, what is typed in its place."""

SMALL = (
    *("images.size=32", "images.crop_from=0", "augment.random_crop_from=0"),
    *("train.epochs=1", "train.batch_size=16", "train.head_epochs=0", "evaluate.every=1"),
)
RANDOM_NETWORK = ("model.backbone=timm:test_resnet", "model.weights=none")
PACKAGED = ("efficientnet_lite0", "mobilenet_v2")
"""Backbones whose ImageNet weights come with a package; others are replaced by a tiny one."""
DATA = {"cub": "CUB_200_2011"} | dict.fromkeys(
    ("grocery", "omniglot", "cars196", "cars196_train", "flowers102_part", "sop", "inshop"), "parts"
)
"""Where images of a data set are; those that `parts` stands for are read as a folder."""
ROWS = {
    "study": (BASELINE, "ArcFace_cosine_resnet18_sgd_aug"),
    "techniques": (BASELINE, f"{BASELINE}+mixup"),
    "few_images": (f"{CLASSIFIER}~data.per_class=3", f"{CLASSIFIER}~data.per_class=5"),
    "characters": ("crossentropy_characters", "EPSHN_cosine_characters"),
}
"""Of a suite, the rows that are run: of other tables the first two that the line asks for."""

TRAINING = ("run", "suite", "tune", "show-batch")

LEFT_OUT = {
    r"torchrun .*": "needs GPUs: tests/training/test_distributed.py has two processes on a CPU",
    r"dml-bench browse .*": "starts FiftyOne: tests/browse/test_fiftyone.py types it",
    r"dml-bench data fetch .*": "needs published files: tests/data/test_fetch.py has small ones",
    r"dml-bench suite .*--devices .*": "needs GPUs: tests/suite/test_suite.py shares devices out",
    r"dml-bench suite .*--ray .*": "needs a cluster: tests/suite/test_ray.py starts one",
    r"dml-bench (export|predict) .*pgvector.*": "needs a database: tests/gallery/"
    "test_vector_stores.py starts one",
    r"dml-bench run frozen_(resnet|dinov2|clip|siglip)\w+ .*": "needs weights that are downloaded",
    r"dml-bench suite --table reality --data-dir /data": "trains for hours",
    r"dml-bench suite --table losses .*--tuned .*": "needs the searches of the repository:"
    " tests/suite/test_tuned_suite.py makes small ones",
    r"dml-bench report results --table reality .*": "reads all records: `make reports` types it",
    r"dml-bench verify results/grocery --data .*": "needs photos of groceries: tests/board/"
    "test_verify.py has drawn birds",
}
"""Lines that can't be typed here, and why."""

WRITES = {
    "report": ("index.html", "report.md"),
    "evaluate": ("index.html", "report.md"),
    "leaderboard": ("index.html",),
    "explain": ("index.html",),
    "evidence": ("evidence.csv",),
}
"""By verb, what is in the folder that a line names."""

CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`]+)`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(.+ \| )?dml-bench [a-z]|torchrun |curl ")
FOLLOWED = ("tutorial_loss.md", "tutorial_notebook.md", "tutorial_photos.md")
"""From their first line to their last, by test_tutorials."""
WITH_MISTAKES = ("explore.md", "pictures.md")
"""Pages on whose desk lies a run of drawn birds: that of photos makes none."""
WITH_REPORTS = ("scale.md", "study.md", "your_photos.md")
"""Pages that write reports, whose figures are drawn for pictures.md alone: they take long."""
PAGES = [page for page in GUIDES if page.name not in FOLLOWED]


def lines_of(page: Path) -> Iterator[str]:
    """The commands of a page in their order; of those in a sentence, the ones that can be typed."""
    for block, sentence in CODE.findall((ROOT / page).read_text(encoding="utf-8")):
        for line in block.splitlines():
            if COMMAND.match(line.strip()):
                yield without_comment(line.strip())
        line = " ".join(sentence.split())
        if re.match(r"dml-bench [a-z]", line) and is_complete(line):
            yield line


def without_comment(line: str) -> str:
    return re.sub(r"\s+# .*", "", line)


def is_complete(line: str) -> bool:
    """Whether the command line takes it; `dml-bench enrol` alone is only a name."""
    try:
        parsed(typed(line))
    except Exception:
        return False
    return True


def is_left_out(line: str) -> bool:
    return any(re.fullmatch(pattern, line) for pattern in LEFT_OUT)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, birds: Path, cache_dir: Path) -> Path:
    """All that the pages take for granted."""
    folder = tmp_path_factory.mktemp("made")
    lay_out(folder)
    shutil.copytree(birds, folder / "CUB_200_2011")
    make_runs(folder, cache_dir)
    return folder


@pytest.fixture
def desk(tmp_path, made, cache_dir, monkeypatch) -> Path:
    """The folder in which the lines of a page are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DML_BENCH_CACHE", str(cache_dir))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(decision_rows, "ROWS", decision_rows.ROWS[:1])
    monkeypatch.setattr(decision_rows, "SEEDS", (42,))
    fork_workers(monkeypatch)
    return tmp_path


class Typist:
    """Types the lines of a page at a reader's desk, and looks whether each keeps its promise."""

    def __init__(self, monkeypatch, capsys) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.servers: list[ForkedCommand] = []
        self.url = ""
        self.tuned: list[str] = []
        """The experiments whose settings were searched for."""

    def type(self, line: str) -> None:
        text = line
        for written, meant in STANDS_FOR.items():
            text = re.sub(written, meant, text)
        if text.startswith("curl "):
            text = text.replace("http://127.0.0.1:8000", self.url)
            assert subprocess.run(shlex.split(text), check=True, capture_output=True).stdout
            return
        before, _, command = text.rpartition("| dml-bench ")
        arguments = typed(f"dml-bench {command}" if before else text)
        if before:
            paths = subprocess.run(before, shell=True, check=True, capture_output=True, text=True)
            self.monkeypatch.setattr(sys, "stdin", io.StringIO(paths.stdout))
        arguments = [part for word in arguments for part in sorted(glob.glob(word)) or [word]]
        self.run(arguments)

    def run(self, arguments: list[str]) -> None:
        verb = arguments[0]
        if verb in TRAINING or arguments[1:2] == ["statistics"]:
            arguments = self.shrunk(arguments)
        if verb == "decide":
            arguments += ["--set", "images.size=32", "--device", "cpu"]
        if verb == "serve":
            self.serve(arguments)
            return
        if "--watch" in arguments:
            self.answer_a_folder(arguments)
            return
        self.capsys.readouterr()
        assert dml_bench(self.monkeypatch, *arguments) == 0, (
            f"{arguments}: {self.capsys.readouterr()}"
        )
        said = self.capsys.readouterr()
        assert said.out or said.err
        self.look_for_what_is_promised(arguments, said.out)
        if verb == "discover" and "--images" in arguments:
            accept_proposals()
        if verb == "tune":
            self.tuned.append(arguments[1])

    def shrunk(self, arguments: list[str]) -> list[str]:
        """The words of a line that trains, with settings and data that take a second."""
        command, parameters = parsed(arguments)
        if parameters.get("table") in tables_over_data():
            return arguments
        demo, own = parameters.get("demo", False), overrides_of(parameters)
        names = [parameters["name"]] if "name" in parameters else parameters["names"]
        if command.name == "suite" and not names:
            names = self.rows(parameters)
            arguments = without_option(arguments, "--only")
            arguments += [part for name in names for part in ("--only", glob.escape(name))]
        experiments = [db.resolve(base_name(name), own, demo=demo) for name in names]
        (settings,) = {tuple(self.small(experiment, own)) for experiment in experiments}
        arguments += [part for setting in settings for part in ("--set", setting)]
        dataset = experiments[0].data.dataset.name
        if DATA.get(dataset) == "parts":
            arguments = without_option(arguments, "--dataset")  # it is replaced by a folder
        if dataset in DATA:
            arguments = [*without_option(arguments, "--data-dir"), "--data-dir", DATA[dataset]]
        if command.name == "run" and not any(one.startswith("name=") for one in own):
            arguments += ["--set", f"name={variant_name(Path(names[0]).stem, own)}"]
        if command.name in ("run", "suite"):
            arguments += ["--wandb", "disabled"]
        return arguments

    def rows(self, parameters: dict) -> list[str]:
        table = read_table(parameters["table"] or "study")
        rows = choose(table, parameters["only"]).rows
        if parameters["tuned"]:
            return [row for row in rows if base_name(row) in self.tuned]
        return [row for row in ROWS.get(table.name, rows) if row in rows][:2] or list(rows[:2])

    def small(self, experiment: Experiment, own: list[str]) -> Iterator[str]:
        """The settings that make an experiment tiny, beside those of its line."""
        trains = experiment.train.epochs > 0
        yield from (setting for setting in SMALL if trains or setting.startswith("images."))
        if experiment.model.backbone.name not in PACKAGED:
            yield from RANDOM_NETWORK
        if experiment.data.dataset.name == "demo":
            yield from DEMO
        if experiment.protocol == "class_disjoint":
            yield "data.split=half"
        elif experiment.protocol != "multi_label" and not any("unseen=" in one for one in own):
            yield "unseen=last:2"
        if DATA.get(experiment.data.dataset.name) == "parts":
            yield "data.dataset=folder"
        if experiment.data.group == "drawer":
            yield r"data.group=regex:(\d+)\.jpg$"  # a folder has no columns

    def look_for_what_is_promised(self, arguments: list[str], out: str) -> None:
        """What a line says that it writes is there."""
        for option in ("--out", "--report", "--export"):
            if option in arguments:
                place = Path(arguments[arguments.index(option) + 1])
                assert place.is_file() or any(place.iterdir()), f"{place} was not written"
                assert all((place / name).is_file() for name in WRITES.get(arguments[0], ()))
        if arguments[0] == "run":
            assert list(Path("runs").glob("*/*/seed-*/summary.json"))
        if "--record" in arguments:
            assert list(Path().glob("results/**/seed-42.json"))

    def serve(self, arguments: list[str]) -> None:
        server = ForkedCommand([*arguments, "--port", "0"])
        self.servers.append(server)
        addresses = wait_until(lambda: listening(psutil.Process(server.pid)), server)
        self.url = f"http://127.0.0.1:{addresses[0][1]}"
        assert httpx.get(f"{self.url}/healthz", timeout=60).status_code == 200

    def answer_a_folder(self, arguments: list[str]) -> None:
        out = Path(arguments[arguments.index("--out") + 1])
        watching = ForkedCommand(arguments)
        wait_until(lambda: out.exists() and len(rows_of(out)) == 2, watching)
        watching.send_signal(signal.SIGINT)
        said = watching.communicate()
        assert watching.returncode in (0, 130), said  # 130 where it was about to look again

    def close(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGINT)
            server.communicate()


def without_option(arguments: list[str], option: str) -> list[str]:
    kept = list(arguments)
    while option in kept:
        at = kept.index(option)
        del kept[at : at + 2]
    return kept


def wait_until(happens: Callable[[], object], program: ForkedCommand) -> object:
    """What it gives when it has happened, within two minutes, or before the program has ended."""
    deadline = time.monotonic() + 120
    while not (result := happens()):
        if program.poll() is not None or time.monotonic() > deadline:
            program.kill()
            pytest.fail(f"it did not happen; the program said: {program.communicate()}")
        time.sleep(0.05)
    return result


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def accept_proposals() -> None:
    """What a person does on the page of `discover`: accept all boxes, and save decisions.csv."""
    rows = rows_of(Path("proposals/proposals.csv"))
    decided = [(row["path"], f"new {row['proposal']}") for row in rows if row["proposal"]]
    assert decided
    write_csv(Path("decisions.csv"), ("path", "class"), decided)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_line_of_a_page_can_be_typed(page, desk, made, monkeypatch, capsys, request):
    copy_desk(made, desk, "demo" if page.name in WITH_MISTAKES else "photos")
    if page.name in WITH_REPORTS:
        request.getfixturevalue("blank_figures")
    for place in (RECORD, "demo/stratified-last-10/EPSHN_cosine_resnet18_sgd_aug"):
        shutil.copytree(ROOT / "results" / place, desk / "results" / place)
    typist = Typist(monkeypatch, capsys)
    try:
        for line in dict.fromkeys(lines_of(page)):
            if not is_left_out(line):
                typist.type(line)
    finally:
        typist.close()


def test_what_is_left_out_or_typed_otherwise_is_still_in_a_page():
    lines = "\n".join(line for page in PAGES for line in lines_of(page))
    for pattern in LEFT_OUT:
        assert re.search(f"^{pattern}$", lines, re.MULTILINE), f"no line is left out by {pattern}"
    for pattern in STANDS_FOR:
        assert re.search(pattern, lines, re.MULTILINE), f"no line has {pattern}"
