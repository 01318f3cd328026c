"""The command line, as a process of its own: help, exit codes, one line per mistake, and what it
does not import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import ForkedCommand

from dml_bench import __version__
from dml_bench.cli.app import main
from dml_bench.config.experiments import names, resolve

BASELINE = "EPSHN_cosine_resnet18_sgd_aug"
VERBS = [
    "run",
    "suite",
    "tune",
    "compare",
    "decide",
    "evaluate",
    "report",
    "scatter",
    "record",
    "enrol",
    "predict",
    "serve",
    "monitor",
    "export",
    "discover",
    "explain",
    "browse",
    "umap",
    "evidence",
    "wandb log",
    "wandb sync",
    "list",
    "show",
    "show-batch",
    "lr-find",
    "doctor",
    "cache",
    "data card",
    "data fetch",
    "data check",
    "data statistics",
    "data draw",
]
HEAVY = ["torch", "numpy", "wandb", "fiftyone", "umap", "matplotlib", "faiss", "timm", "sklearn"]

LISTING = """
import json, sys
from dml_bench.cli.app import main
sys.argv = ["dml-bench", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def variables(tmp_path: Path) -> dict[str, str]:
    return {
        "COLUMNS": "120",
        "DML_BENCH_CACHE": str(tmp_path / "cache"),
        "WANDB_MODE": "disabled",
        "TORCH_HOME": str(tmp_path / "torch"),
        "OMP_NUM_THREADS": "1",
    }


def dml_bench(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    running = ForkedCommand(list(arguments), folder=tmp_path, variables=variables(tmp_path))
    printed, errors = running.communicate()
    assert running.returncode is not None
    return subprocess.CompletedProcess(arguments, running.returncode, printed, errors)


def imported(tmp_path: Path, *arguments: str) -> tuple[list[str], set[str]]:
    """The lines on stderr of a command, and the names of all top-level modules that it imported, as
    a new process says."""
    finished = subprocess.run(
        [sys.executable, "-c", LISTING, *arguments],
        cwd=tmp_path,
        env=os.environ | variables(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, modules = finished.stderr.splitlines()
    return lines, set(json.loads(modules))


def assert_refused(finished: subprocess.CompletedProcess[str], *phrases: str) -> None:
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    for word in phrases:
        assert word in line


def test_help_names_every_verb(tmp_path):
    finished = dml_bench(tmp_path, "--help")
    assert finished.returncode == 0
    for verb in ("run", "list", "show", "data", "doctor"):
        assert f" {verb} " in finished.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_an_example_of_that_verb(tmp_path, verb):
    finished = dml_bench(tmp_path, *verb.split(), "--help")
    assert finished.returncode == 0
    assert f"Example: dml-bench {verb}" in finished.stdout


def test_the_version_is_shown(tmp_path):
    assert dml_bench(tmp_path, "--version").stdout == f"dml-bench {__version__}\n"


@pytest.mark.parametrize("kind", ["experiments", "backbones", "datasets"])
def test_list_prints_json_with_name_summary_and_source(tmp_path, kind):
    finished = dml_bench(tmp_path, "list", kind, "--json")
    assert finished.returncode == 0
    records = json.loads(finished.stdout)
    assert len(records) >= 2
    assert all(record["name"] and record["summary"] and "source" in record for record in records)


def test_list_losses_prints_json_with_the_options_and_what_each_loss_needs(tmp_path):
    (record,) = [
        loss
        for loss in json.loads(dml_bench(tmp_path, "list", "losses", "--json").stdout)
        if loss["name"] == "NTXent"
    ]
    assert record["options"] == {"temperature": 0.1, "distance": "cosine"}
    assert (record["takes_miner"], record["trains_proxies"]) == (True, False)


def test_list_experiments_prints_a_table_with_every_name(tmp_path):
    finished = dml_bench(tmp_path, "list", "experiments")
    assert finished.returncode == 0
    unfolded = "".join(character for character in finished.stdout if character not in " │┃\n")
    assert all(name in unfolded for name in names())


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["toml", "json"])
@pytest.mark.parametrize(
    "changes", [[], ["--demo"], ["--set", "optimizer.lr=0.5"]], ids=["plain", "demo", "set"]
)
def test_what_show_prints_is_itself_a_file_that_is_resolved_to_the_same_experiment(
    tmp_path, form, changes
):
    shown = tmp_path / ("shown.json" if form else "shown.toml")
    finished = dml_bench(tmp_path, "show", BASELINE, *changes, *form)
    assert finished.returncode == 0
    shown.write_text(finished.stdout, encoding="utf-8")
    profile = "demo" if changes == ["--demo"] else ""
    assert resolve(str(shown)) == resolve(
        BASELINE, profile=profile, overrides=["optimizer.lr=0.5"] if "--set" in changes else []
    )


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (
            ["show", "EPSHN_cosine_resnet18_sgd_agu"],
            ["unknown experiment", "did you mean EPSHN_cosine_resnet18_sgd_aug?"],
        ),
        (
            ["run", "EPSHN_cosine_resnet18_sgd_agu"],
            ["unknown experiment", "did you mean EPSHN_cosine_resnet18_sgd_aug?"],
        ),
        (
            ["show", BASELINE, "--set", "trian.epochs=3"],
            ["unknown key trian", "did you mean train?"],
        ),
        (
            ["show", BASELINE, "--set", "loss.temprature=3"],
            ["loss.temprature", "did you mean temperature?"],
        ),
        (["show", BASELINE, "--set", "seed"], ["--set seed: write it as key=value"]),
        (["run", BASELINE, "--dataset", "cubb"], ["unknown dataset 'cubb'", "did you mean cub?"]),
        (
            ["run", BASELINE, "--demo", "--dataset", "cub"],
            ["--demo brings its own data set", "--dataset cub"],
        ),
        (["run", BASELINE, "--seeds", "x"], ["--seeds x", "whole numbers joined by commas"]),
        (["run", BASELINE, "--seeds", "42,"], ["--seeds 42,", "whole numbers joined by commas"]),
        (["run", BASELINE, "--seeds", "-1"], ["--seeds -1", "whole numbers joined by commas"]),
        (
            ["run", BASELINE, "--seeds", "1,2", "--set", "seed=7"],
            ["seed is set by --seeds and by --set seed=7: leave one out"],
        ),
        (
            ["tune", BASELINE, "--seeds", "1", "--set", "seed=7"],
            ["seed is set by --seeds and by --set seed=7: leave one out"],
        ),
        (
            ["suite", BASELINE, "--seeds", "1", "--set", "seed=7"],
            ["seed is set by --seeds and by --set seed=7: leave one out"],
        ),
        (
            ["run", BASELINE, "--dataset", "csv", "--set", "data.dataset.name=folder"],
            ["data.dataset is set by --dataset and by --set data.dataset.name=folder"],
        ),
        (
            ["suite", "--holdouts", "last:5", "--set", "unseen=last:3"],
            ["unseen is set by --holdouts and by --set unseen=last:3: leave one out"],
        ),
        (
            ["run", BASELINE, "--folds", "3", "--set", "train.folds=5"],
            ["train.folds is set by --folds and by --set train.folds=5: leave one out"],
        ),
        (
            ["tune", BASELINE, "--skip-unreadable", "--set", "data.skip_unreadable=false"],
            ["data.skip_unreadable is set by --skip-unreadable and by --set"],
        ),
        (
            ["data", "check", "csv", "--set", "data.dataset=folder"],
            ["data.dataset is set by the name csv and by --set data.dataset=folder"],
        ),
        (["data", "check", "csv", "--set", "seed=7"], ["seed is set by --seed and by --set seed"]),
        (["decide", ".", "--set", "seed=7"], ["decide runs seeds of its own: leave out --set"]),
        (["show", "gone.toml"], ["no file gone.toml"]),
        (["data", "fetch", "cars", "--data-dir", "x"], ["'cars'", "did you mean cars196"]),
        (["data", "draw", "--out", "."], ["exists already"]),
    ],
    ids=" ".join,
)
def test_what_people_get_wrong_is_one_line_with_the_way_out_and_exit_code_2(
    tmp_path, arguments, phrases
):
    assert_refused(dml_bench(tmp_path, *arguments), *phrases)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.json", "[1]"),
        ("mine.toml", "expects = 3\n"),
        ("mine.toml", "x ="),
        ("mine.toml", "train = 3\n"),
    ],
)
def test_a_broken_experiment_file_is_one_line_without_a_traceback(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert_refused(dml_bench(tmp_path, "show", name))


def test_a_verb_or_an_option_that_does_not_exist_ends_with_exit_code_2(tmp_path):
    assert dml_bench(tmp_path, "rum").returncode == 2
    assert dml_bench(tmp_path, "run", BASELINE, "--epoch", "3").returncode == 2
    assert dml_bench(tmp_path, "list", "lossess").returncode == 2


def test_a_data_folder_that_does_not_exist_is_refused_in_one_line_before_anything_is_written(
    tmp_path,
):
    lines, modules = imported(tmp_path, "run", BASELINE, "--data-dir", "/nonexistent")
    assert lines == [
        "error: /nonexistent does not exist: give the folder of images with --data-dir DIR"
    ]
    assert modules.isdisjoint({"torch", "fiftyone", "umap", "matplotlib", "wandb"})
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_its_folder_is_refused_with_the_three_ways_to_images(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dml-bench", "run", BASELINE])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("error: dataset cub needs a folder of images")
    assert all(way in line for way in ("--data-dir DIR", "dml-bench data fetch cub", "--demo"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["data", "--help"], ["list", "experiments", "--help"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(tmp_path, arguments):
    _, modules = imported(tmp_path, *arguments)
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "losses"],
        ["list", "backbones", "--json"],
        ["list", "experiments"],
        ["show", BASELINE],
        ["show", "nothing"],
        ["run", BASELINE, "--demo", "--dataset", "cub"],
        ["run", BASELINE, "--set", "sead=1"],
    ],
    ids=" ".join,
)
def test_what_needs_no_network_of_neurons_imports_no_torch(tmp_path, arguments):
    _, modules = imported(tmp_path, *arguments)
    assert modules.isdisjoint(
        {
            "torch",
            "torchvision",
            "timm",
            "wandb",
            "fiftyone",
            "umap",
            "matplotlib",
            "faiss",
            "sklearn",
        }
    )
