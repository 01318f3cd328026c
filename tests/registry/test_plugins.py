"""Components that a person brings: found by name, recorded, found again, and never imported on the
word of a run folder."""

import hashlib
import json
import linecache
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from forked import ForkedCommand, forget_plugins, fork_workers
from rich.console import Console
from tiny import SETTINGS, refusal, train
from tiny import dml_bench as call_here

import dml_bench
from dml_bench.analysis.compare import compare, read_sides
from dml_bench.config import Experiment, as_table, load
from dml_bench.config.experiments import resolve
from dml_bench.registry import losses, plugins
from dml_bench.registry.plugins import PluginRecord, consent_file, import_recorded, remember
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest
from dml_bench.runs.run import read_experiment, read_folder
from dml_bench.suite.executor import SuitePaths
from dml_bench.suite.plan import Job
from dml_bench.system.callbacks import Callback
from dml_bench.training.lr_finder import begun

pytestmark = pytest.mark.usefixtures("plugins_removed")
TEMPLATE = Path(__file__).parents[1] / "plugin_template"
NAMED = [
    "plugin.toml",
    *(part for value in (*SETTINGS, "name=plugin") for part in ("--set", value)),
]
LOSS = """
import dml_bench as db
import torch


@db.register_loss(summary="pulls images of a class together", source="a test")
def {name}(*, num_classes: int, dim: int, scale: float = 16.0):
    class Loss(torch.nn.Module):
        def forward(self, embeddings, labels, mined=None):
            same = labels[:, None] == labels
            return torch.nn.functional.cross_entropy(
                scale * embeddings @ embeddings.T, same / same.sum(dim=1, keepdim=True)
            )

    return Loss()
"""


def write_experiment(folder: Path, loss: str, imports: str = "") -> Path:
    path = folder / "plugin.toml"
    path.write_text(
        f'extends = "EPSHN_cosine_resnet18_sgd_aug"\nloss = "{loss}"\nminer = "none"\n'
        + (f'[plugins]\nimports = ["{imports}"]\n' if imports else "")
    )
    return path


def write_plugin(folder: Path, name: str) -> Path:
    """A file with a loss and an experiment that uses it."""
    (folder / "my_losses.py").write_text(LOSS.format(name=name))
    return write_experiment(folder, name, "my_losses.py")


def call(
    folder: Path, *arguments: str, path: tuple[Path, ...] = (), rc: int = 0
) -> tuple[str, str]:
    """What a dml-bench command prints, and what it says of errors, in a process of its own with
    `path` on the path of imports."""
    variables = {"DML_BENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    running = ForkedCommand(list(arguments), folder=folder, variables=variables, import_path=path)
    printed, errors = running.communicate()
    assert running.returncode == rc, printed + errors
    return printed, errors


@pytest.fixture(scope="module")
def installed(made_once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed the template package, without any network."""

    def install(folder: Path) -> None:
        source = shutil.copytree(TEMPLATE, tmp_path_factory.mktemp("source") / "template")
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", *options, "--target", folder, source],
            check=True,
        )

    return made_once("installed plug-in", install)


@pytest.fixture(scope="module")
def template_runs(installed: Path, birds: Path, made_once) -> Path:
    """A folder with runs of the template's loss: one of `run`, two more of a suite's workers."""

    def train_with_template(folder: Path) -> None:
        write_experiment(folder, "MarginPairs")
        arguments = [*NAMED, "--set", "miner=NearestStrangers", "--data-dir", str(birds)]
        arguments += ["--device", "cpu", "--wandb", "disabled"]
        call(folder, "run", *arguments, path=(installed,))
        seeds = ["--seeds", "42,43,44", "--jobs", "2", "--report", "suite"]
        with pytest.MonkeyPatch.context() as patch:
            fork_workers(patch)
            call(folder, "suite", *arguments, *seeds, path=(installed,))

    return made_once("runs of a plug-in", train_with_template)


def runs_of(folder: Path) -> list[Path]:
    return sorted((folder / "runs" / "plugin" / "cub").glob("seed-*"))


def test_an_installed_package_is_listed_with_where_it_comes_from(tmp_path, installed):
    listing, _ = call(tmp_path, "list", "losses", "--json", path=(installed,))
    records = {record["name"]: record["from"] for record in json.loads(listing)}
    assert records["MarginPairs"] == "dml-plugin-template 0.3.0 (dml_plugin_template.losses)"
    assert records["ArcFace"] == f"dml-bench {dml_bench.__version__}"


@pytest.mark.slow
def test_the_template_runs_and_two_workers_of_a_suite_find_it(template_runs):
    runs = [read_folder(path) for path in runs_of(template_runs)]
    assert [run.seed for run in runs] == [42, 43, 44]
    (loss, miner) = runs[1].experiment.plugins.components
    assert (loss.kind, loss.name, loss.module) == (
        "loss",
        "MarginPairs",
        "dml_plugin_template.losses",
    )
    assert (loss.distribution, loss.version) == ("dml-plugin-template", "0.3.0")
    assert (miner.kind, miner.name) == ("miner", "NearestStrangers")
    assert len(loss.sha256) == 64
    assert "plugin" in (template_runs / "suite" / "table.md").read_text()


@pytest.mark.slow
def test_reports_and_comparisons_of_a_plug_in_do_without_it(template_runs):
    first, second, _ = map(str, runs_of(template_runs))
    call(template_runs, "report", "runs", "--out", "report")
    assert "plugin" in (template_runs / "report" / "report.md").read_text()
    call(template_runs, "compare", first, str(Path(second).parent))


@pytest.mark.slow
def test_predict_and_export_of_a_plug_in_loss_work(template_runs, installed, birds):
    run, photo = str(runs_of(template_runs)[0]), str(next(birds.rglob("*.jpg")))
    predictions, _ = call(template_runs, "predict", run, photo, "--json")
    assert json.loads(predictions)
    call(template_runs, "export", run, "--out", "exported", path=(installed,))
    assert (template_runs / "exported" / "embedder.pt2").exists()


def test_a_file_of_ones_own_is_imported_by_its_path_beside_the_experiment(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    path = write_plugin(tmp_path / "lab", "FromFile")
    monkeypatch.chdir(tmp_path)
    experiment = resolve(str(path), overrides=["loss.scale=3"])
    assert experiment.loss.options == {"scale": 3.0}
    (record,) = experiment.plugins.components
    assert (record.module, record.file) == ("", str(tmp_path / "lab" / "my_losses.py"))
    with pytest.raises(ValueError, match=r"loss.scale must be a number, got 'wide'"):
        resolve(str(path), overrides=["loss.scale=wide"])


def test_a_function_is_named_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "losses_of_mine.py").write_text(
        "import torch\ndef plain(num_classes: int, width=2.0):\n    '''A plain loss.'''\n"
        "    return torch.nn.Linear(num_classes, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    experiment = resolve(
        "EPSHN_cosine_resnet18_sgd_aug",
        overrides=["loss.name=losses_of_mine:plain", "miner=none"],
    )
    assert experiment.loss.options == {"width": 2.0}
    entry = losses["losses_of_mine:plain"]
    assert entry.summary == "A plain loss."
    assert entry.build(5, 8, width=1.0).in_features == 5
    assert load(json.loads(json.dumps(as_table(experiment)))) == experiment


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.losses:Loss", "can't be imported"),
        ("json:no_such_function", "module json has no function no_such_function"),
        ("os:system", "is not written in Python"),
        ("../evil:boom", "unknown loss"),
        ("ArcFce", r"did you mean ArcFace\?"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_in_a_line(name, message):
    with pytest.raises(ValueError, match=message) as problem:
        resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[f"loss.name={name}"])
    assert "\n" not in str(problem.value)


def test_a_cell_of_a_notebook_may_be_run_again(tmp_path):
    for scale in (1.0, 2.0):

        @dml_bench.register_loss(summary="again and again")
        def Again(*, scale: float = scale):
            return None

    assert losses["Again"].options["scale"].default == 2.0
    with pytest.raises(ValueError, match="loss 'ArcFace' is registered already"):
        dml_bench.register_loss("ArcFace", summary="another")(Again)


def test_two_files_may_have_a_loss_under_one_name_and_each_experiment_has_its_own(
    tmp_path, birds, cache_dir
):
    paths = []
    for folder, sign in ((tmp_path / "one", ""), (tmp_path / "other", "-")):
        folder.mkdir()
        paths.append(write_plugin(folder, "Same"))
        source = folder / "my_losses.py"
        source.write_text(source.read_text().replace("scale * emb", f"{sign}scale * emb"))
    first, other = (resolve(str(path), overrides=[*SETTINGS, "train.epochs=1"]) for path in paths)
    assert [resolve(str(path)).plugins.components[0].file for path in paths] == [
        str(path.with_name("my_losses.py")) for path in paths
    ]
    losses_of_runs = []
    for number, experiment in enumerate((first, other, first)):
        request = RunRequest(
            experiment=experiment,
            cache_dir=cache_dir,
            out=tmp_path / f"runs-{number}",
            data_dir=birds,
            device="cpu",
        )
        losses_of_runs.append(read_folder(execute(request).folder).records[0]["train_loss"])
    assert losses_of_runs[0] == losses_of_runs[2] != losses_of_runs[1]


SAMPLER = """
import dml_bench as db
import numpy as np


@db.register_sampler(summary="places in place of numbers of images", source="a test")
def Places(images, batch_size):
    return np.array_split(np.arange(len(images)), len(images) // batch_size)
"""


def test_a_sampler_that_draws_an_image_that_is_not_trained_on_is_refused(
    tmp_path, birds, cache_dir
):
    (tmp_path / "places.py").write_text(SAMPLER)
    named = (f"plugins.imports=['{tmp_path / 'places.py'}']", "sampler=Places", "train.epochs=1")
    refused = r"sampler Places draws image \d+, on which phase all does not train: return numbers"
    with pytest.raises(ValueError, match=refused):
        train(birds, cache_dir, tmp_path, *named)


@pytest.fixture
def type_in(monkeypatch) -> Callable[[str], None]:
    """What runs a cell of a notebook."""
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)

    def run_cell(source: str) -> None:
        name, lines = f"<cell {len(linecache.cache)}>", source.splitlines(keepends=True)
        monkeypatch.setitem(linecache.cache, name, (len(source), None, lines, name))
        exec(compile(source, name, "exec"), vars(notebook))

    return run_cell


CELLS = {
    "class": """
import dml_bench as db
import torch


class Pull(torch.nn.Module):
    def forward(self, embeddings, labels, mined=None):
        return SCALE * mean_of(embeddings @ embeddings.T)
""",
    "helper": "def mean_of(similarity):\n    return similarity.mean()\n",
    "constant": "SCALE = 2.0\n",
    "plug-in": "@db.register_loss(summary='a test')\ndef Typed():\n    return Pull()\n",
}


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        ("class", "SCALE *", "1 + SCALE *"),
        ("helper", "mean()", "sum()"),
        ("constant", "2.0", "3.0"),
        ("plug-in", "Pull()", "Pull().double()"),
    ],
)
def test_a_plug_in_of_a_notebook_is_another_once_a_cell_that_it_uses_was_changed(
    cell, old, new, type_in
):
    def digest() -> str:
        named = ["loss=Typed", "miner=none"]
        experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=named)
        (record,) = experiment.plugins.components
        return record.sha256

    for source in CELLS.values():
        type_in(source)
    first = digest()
    type_in("\n\n" + CELLS[cell])
    assert digest() == first, "the same cell again"
    type_in(CELLS[cell].replace(old, new))
    assert digest() != first


def test_a_run_of_a_loss_in_a_notebook_is_not_read_as_one_of_the_loss_after_a_change(
    birds, cache_dir, tmp_path, type_in
):
    for source in CELLS.values():
        type_in(source)
    settings = ("loss=Typed", "miner=none", "train.epochs=1")
    train(birds, cache_dir, tmp_path, *settings)
    assert train(birds, cache_dir, tmp_path, *settings).already_finished
    type_in(CELLS["helper"].replace("mean()", "sum()"))
    with pytest.raises(ValueError, match="loss Typed as it was before its code was changed"):
        train(birds, cache_dir, tmp_path, *settings)


def test_a_suite_refuses_a_loss_of_a_notebook_before_its_first_run(
    birds, cache_dir, tmp_path, type_in
):
    for source in CELLS.values():
        type_in(source)
    suite = dml_bench.plan_suite(
        ["EPSHN_cosine_resnet18_sgd_aug", "crossentropy_resnet18_sgd_aug"],
        data_dir=birds,
        cache_dir=cache_dir,
        out=tmp_path / "runs",
        overrides=["loss=Typed", "miner=none", "train.epochs=1"],
        seeds=[42, 43],
    )
    with pytest.raises(ValueError, match=r"^loss Typed was defined in a notebook"):
        dml_bench.run_suite(suite, device="cpu", jobs=1, console=Console(quiet=True))


def test_a_class_of_a_notebook_is_a_plug_in(type_in):
    cell = CELLS["class"].replace(
        "class Pull(torch.nn.Module):",
        "@db.register_loss(summary='a test')\nclass Pull(torch.nn.Module):\n"
        "    def __init__(self, scale: float = 1.0):\n        super().__init__()\n",
    )
    type_in(cell)
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=["loss=Pull", "miner=none"])
    assert experiment.plugins.components[0].attribute == "Pull"


BACKBONE = """
import dml_bench as db
import torch


@db.register_backbone(summary="powers of mean colours", source="a test")
def Powers():
    class Network(torch.nn.Module):
        num_features = 3

        def forward(self, images):
            return images.mean((2, 3)) ** {power}

    return Network()
"""


def test_kept_features_of_a_backbone_are_not_those_of_its_file_before_it_was_changed(
    tmp_path, birds
):
    (tmp_path / "own.toml").write_text(
        'extends = "crossentropy_head"\nmodel.backbone = "Powers"\nmodel.weights = "none"\n'
        '[plugins]\nimports = ["powers.py"]\n'
    )
    data = ["data.dataset=cub", "data.split=stratified", "unseen=last:2", "images.size=32"]
    features = []
    for power in (2, 4):
        (tmp_path / "powers.py").write_text(BACKBONE.format(power=power))
        experiment = resolve(str(tmp_path / "own.toml"), overrides=data)
        state = begun(experiment, birds, tmp_path, "cpu", Callback())
        features.append(state.source.table)
        forget_plugins()
    torch.testing.assert_close(features[0] ** 2, features[1])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_evil_plugin(run: Path, target: Path, kind: str, name: str, marker: Path) -> Path:
    """A copy of a run folder that says that it was made with a plug-in, which lies beside it and
    writes a file when it is imported."""
    shutil.copytree(run, target)
    evil = target / "evil.py"
    evil.write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom torch import nn\n"
        "def boom(num_features=4, dim: int = 128):\n"
        "    head = nn.Linear(num_features, dim)\n    head.dim = dim\n    return head\n"
    )
    path = target / "experiment.json"
    table = json.loads(path.read_text())
    record = {
        "kind": kind,
        "name": name,
        "module": "evil" if ":" in name else "",
        "attribute": "boom",
        "file": str(evil),
        "sha256": sha256_of(evil),
        "facts": {"takes_miner": True},
    }
    table["plugins"] = {"imports": [str(evil), "evil"], "components": [record]}
    section = table["model"] if kind == "head" else table
    section[kind] = {"name": name} | ({"dim": 128} if kind == "head" else {})
    table.pop("digest", None)
    path.write_text(json.dumps(table))
    summary = json.loads((target / "summary.json").read_text())
    summary.pop("digest", None)
    summary["files"]["experiment.json"] = sha256_of(path)
    (target / "summary.json").write_text(json.dumps(summary))
    return target


@pytest.fixture(scope="module")
def honest_run(trained) -> Path:
    return trained().folder


NAMES = ["evil:boom", "Evil", "os:system", "../evil", "evil.py", "/etc/passwd:x", "..:evil"]


@pytest.mark.parametrize("name", NAMES)
def test_reading_a_hostile_run_imports_nothing(tmp_path, honest_run, monkeypatch, name):
    marker = tmp_path / "marker"
    run = with_evil_plugin(honest_run, tmp_path / "demo" / "seed-42", "loss", name, marker)
    monkeypatch.syspath_prepend(run)
    monkeypatch.chdir(run)
    experiment, _ = read_experiment(run)
    assert experiment.loss.name == name
    assert experiment.loss.stand_in.is_stand_in
    assert read_folder(run).summary
    compare(read_sides([run, honest_run]))
    resolve(str(run / "experiment.json"))
    assert not marker.exists()
    assert "evil" not in sys.modules


@pytest.mark.usefixtures("blank_figures")
def test_no_command_imports_what_a_hostile_run_names(
    tmp_path, honest_run, birds, monkeypatch, capsys
):
    marker, photo = tmp_path / "marker", next(birds.rglob("*.jpg"))
    run = with_evil_plugin(honest_run, tmp_path / "runs" / "x", "head", "evil:boom", marker)
    monkeypatch.syspath_prepend(run)
    monkeypatch.chdir(run)
    monkeypatch.setenv("DML_BENCH_CACHE", str(tmp_path / "cache"))
    assert call_here(monkeypatch, "report", tmp_path / "runs", "--out", tmp_path / "report") == 0
    assert call_here(monkeypatch, "compare", run, honest_run) == 0
    assert call_here(monkeypatch, "show", run / "experiment.json") == 0
    capsys.readouterr()
    for command in (
        ("predict", run, photo),
        ("export", run, "--out", tmp_path / "exported"),
        ("run", run / "experiment.json", "--data-dir", birds, "--device", "cpu"),
    ):
        message = refusal(monkeypatch, capsys, *command)
        assert "head evil:boom is a plug-in" in message
        assert "--allow-plugin evil:boom" in message
    assert not marker.exists()
    assert call_here(monkeypatch, "predict", run, photo, "--allow-plugin", "evil:boom") == 0
    assert marker.exists(), "with consent it is imported, so this test can fail"


@pytest.mark.slow
def test_a_run_of_this_machine_needs_no_consent(tmp_path, birds):
    write_plugin(tmp_path, "OnDisk")
    plugin = tmp_path / "my_losses.py"
    plugin.write_text(
        LOSS.format(name="OnDisk")
        + "\n@db.register_head(summary='plain')\ndef MyHead(num_features: int, dim: int = 8):\n"
        "    head = torch.nn.Linear(num_features, dim)\n    head.dim = dim\n    return head\n"
    )
    arguments = [*NAMED, "--set", "model.head=MyHead", "--data-dir", str(birds), "--device", "cpu"]
    arguments += ["--wandb", "disabled"]
    call(tmp_path, "run", *arguments)
    call(tmp_path, "predict", str(runs_of(tmp_path)[0]), str(next(birds.rglob("*.jpg"))))
    plugin.write_text(plugin.read_text() + "# changed\n")
    _, refused = call(tmp_path, "run", *arguments, rc=2)
    assert "as it was before its code was changed: restore the code; --force" in refused


def recorded(path: Path, name: str) -> PluginRecord:
    return PluginRecord(
        kind="loss", name=name, attribute=name, file=str(path), sha256=sha256_of(path)
    )


def test_a_recorded_file_is_imported_only_with_consent_and_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("DML_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "recorded.py"
    path.write_text(LOSS.format(name="Recorded"))
    record = recorded(path, "Recorded")
    with pytest.raises(ValueError, match="loss Recorded is a plug-in .*: read its code, then give"):
        import_recorded(record)
    remember([record])
    path.write_text(LOSS.format(name="Recorded") + "# changed\n")
    with pytest.raises(ValueError, match="restore the file, or train again with --force"):
        import_recorded(record)
    path.rename(tmp_path / "moved.py")
    with pytest.raises(ValueError, match="can't be read: No such file or directory"):
        import_recorded(record)
    path.write_text(LOSS.format(name="Recorded"))
    assert import_recorded(record).summary == "pulls images of a class together"


def test_a_moved_file_is_found_where_the_user_says(tmp_path):
    path = tmp_path / "moved.py"
    path.write_text(LOSS.format(name="Moved"))
    record = recorded(path, "Moved")
    path.rename(tmp_path / "elsewhere.py")
    dml_bench.allow_plugin(f"Moved={tmp_path / 'elsewhere.py'}")
    assert import_recorded(record).origin.file == str(tmp_path / "elsewhere.py")


def test_a_suite_tells_its_workers_what_its_user_allowed_and_what_it_imported_itself(
    tmp_path, honest_run, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_allowed", {})
    path = write_plugin(tmp_path, "Imported")
    paths = SuitePaths(None, tmp_path, tmp_path, tmp_path, "disabled")
    job = Job(resolve(str(path)))
    assert paths.job_spec(job, "cpu")["allowed_plugins"] == ["Imported"]
    marker = tmp_path / "marker"
    run = with_evil_plugin(honest_run, tmp_path / "x", "loss", "evil:boom", marker)
    hostile = Job(resolve(str(run / "experiment.json")))
    assert paths.job_spec(hostile, "cpu")["allowed_plugins"] == []
    dml_bench.allow_plugin("evil:boom=moved.py")
    allowed = [f"evil:boom={tmp_path / 'moved.py'}"]
    assert paths.job_spec(hostile, "cpu")["allowed_plugins"] == allowed
    assert not marker.exists()


# In processes that others start


@pytest.fixture
def run_of_another_machine(tmp_path, birds) -> list[str]:
    """The arguments that repeat a run from another machine, whose plug-in lies elsewhere here."""
    path = tmp_path / "there.py"
    path.write_text(LOSS.format(name="Elsewhere"))
    experiment = resolve(
        "EPSHN_cosine_resnet18_sgd_aug",
        overrides=[*SETTINGS, "train.epochs=1"],
    )
    table = as_table(experiment) | {"name": "plugin"}
    record = {"kind": "loss", "name": "Elsewhere", "attribute": "Elsewhere", "file": str(path)}
    table["plugins"] = {
        "imports": [],
        "components": [{**record, "sha256": sha256_of(path), "facts": {}}],
    }
    table |= {"loss": {"name": "Elsewhere", "scale": 16.0}, "miner": {"name": "none"}}
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(table))
    path.rename(tmp_path / "here.py")
    return [str(file), "--data-dir", str(birds), "--device", "cpu", "--wandb", "disabled"]


def python(folder: Path, *arguments: str, rc: int = 0) -> str:
    """What a new interpreter prints, which has imported nothing yet."""
    environment = os.environ | {
        "COLUMNS": "200",
        "DML_BENCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(dml_bench.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("ray", [(), ("--ray", "local")], ids=["processes", "Ray"])
def test_workers_of_a_suite_import_a_plug_in_only_where_its_user_says_which_file(
    ray, run_of_another_machine, tmp_path
):
    suite = ["-m", "dml_bench", "suite", *run_of_another_machine, "--jobs", "1", *ray]
    refused = python(tmp_path, *suite, rc=1)
    assert "loss Elsewhere is a plug-in" in refused
    assert "give --allow-plugin Elsewhere" in refused
    python(tmp_path, *suite, "--allow-plugin", "Elsewhere=here.py")
    assert len(runs_of(tmp_path)) == 1


@pytest.mark.slow
def test_both_processes_of_torchrun_import_a_plug_in(run_of_another_machine, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "dml_bench", "run", *run_of_another_machine]
    python(tmp_path, *torchrun, *command, "--allow-plugin", "Elsewhere=here.py")
    run = read_folder(runs_of(tmp_path)[0])
    assert run.environment["sessions"][-1]["processes"] == 2


def test_consent_is_for_one_file_with_one_content(tmp_path, monkeypatch):
    monkeypatch.setenv("DML_BENCH_CACHE", str(tmp_path))
    record = PluginRecord(kind="loss", name="A", file="/lab/a.py", sha256="1" * 64)
    others = [
        PluginRecord(kind="loss", name="A", file="/lab/a.py", sha256="2" * 64),
        PluginRecord(kind="loss", name="A", file="/other/a.py", sha256="1" * 64),
        PluginRecord(kind="loss", name="A", module="a", file="/lab/a.py", sha256="1" * 64),
    ]
    assert len({consent_file(one) for one in (record, *others)}) == 4


def test_an_experiment_without_plug_ins_is_saved_as_ever():
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug")
    assert isinstance(experiment, Experiment)
    assert "plugins" not in as_table(experiment)
