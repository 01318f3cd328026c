"""Runs with other settings than their experiment's file has: each has a folder and a name of its
own, by which tables tell them apart."""

import csv
import json
from pathlib import Path

import pytest
from forked import fork_workers
from tiny import SETTINGS, tiny, train
from tiny import dml_bench as call

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.compare import compare, read_sides
from dml_bench.api import analyse
from dml_bench.config.tables import read_table
from dml_bench.config.variants import variant_name
from dml_bench.runs.run import read_folder
from dml_bench.suite.plan import chosen_rows, in_order

NAME = "EPSHN_cosine_resnet18_sgd_aug"


@pytest.fixture(scope="module")
def swept(birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite that swept two rates in two processes."""
    folder = tmp_path_factory.mktemp("swept")
    text = f'extends = "{NAME}"\n[images]\nsize = 32\n[model]\nbackbone = "timm:test_resnet"\n'
    text += 'weights = "none"\n[augment]\nrandom_crop_from = 36\n[train]\nepochs = 1\n'
    (folder / "small.toml").write_text(f"unseen = 'last:2'\n{text}batch_size = 16\n")
    places = ["--data-dir", birds, "--cache-dir", cache_dir, "--out", folder / "runs"]
    places += ["--report", folder / "page", "--device", "cpu", "--wandb", "disabled"]
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        sweep = ["--sweep", "optimizer.lr=0.01,0.1", "--jobs", "2"]
        assert call(patch, "suite", folder / "small.toml", *sweep, *places) == 0
    return folder


@pytest.mark.slow
def test_a_sweep_has_a_folder_for_each_value(swept):
    names = sorted(path.name for path in (swept / "runs").glob("small*"))
    assert names == ["small~optimizer.lr=0.01", "small~optimizer.lr=0.1"]
    runs = [read_folder(swept / "runs" / name / "cub" / "seed-42") for name in names]
    assert [run.experiment.name for run in runs] == names
    assert [run.experiment.optimizer.options["lr"] for run in runs] == [0.01, 0.1]


@pytest.mark.slow
def test_the_tables_of_a_sweep_have_a_column_for_what_is_swept(swept):
    for table in ("table.csv", "runs.csv"):
        with open(swept / "page" / table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["optimizer.lr"] for row in rows] == ["0.01", "0.1"]
    assert "| experiment | optimizer.lr |" in (swept / "page" / "table.md").read_text()


@pytest.mark.slow
def test_reports_comparisons_and_tables_of_runs_tell_a_sweep_apart(swept):
    names = ["small~optimizer.lr=0.01", "small~optimizer.lr=0.1"]
    [study] = studies_of(collect([swept / "runs"]))
    assert [line.name for line in study.group.lines] == names
    assert study.group.settings == ("optimizer.lr",)
    [comparison] = compare(read_sides([swept / "runs" / name for name in names]))
    assert (comparison.first, comparison.second) == tuple(names)
    assert list(analyse.load_runs(swept / "runs")["optimizer.lr"]) == [0.01, 0.1]


def test_the_jobs_of_a_sweep_are_printed_as_commands_with_its_names():
    _, _, rows = chosen_rows(
        [NAME],
        "",
        [],
        profile="",
        overrides=["unseen=last:2"],
        seeds=[1, 2],
        sweeps=["optimizer.lr=0.01,0.1", "loss.temperature=0.05,0.1"],
    )
    names = [row.name for row in rows]
    assert names[0] == f"{NAME}~loss.temperature=0.05,optimizer.lr=0.01"
    assert len(set(names)) == 4
    jobs = in_order(list(rows))
    assert len(jobs) == 8
    assert jobs[0].swept == ("optimizer.lr=0.01", "loss.temperature=0.05", f"name={names[0]}")


def test_a_table_may_sweep_a_setting_and_its_rows_are_named_like_those_of_a_command():
    backbone = "model.backbone.name=mobilenet_v2"
    _, _, rows = chosen_rows(
        [],
        "photographs",
        ["*mobilenet*"],
        profile="",
        overrides=["train.batch_size=64"],
        seeds=[1, 2],
    )
    first, *heads = [row for row in rows if row.swept]
    assert len(heads) == 7
    assert first.name == variant_name("crossentropy_head", [backbone])
    assert {experiment.model.backbone.name for experiment in first.seeds} == {"mobilenet_v2"}
    assert [experiment.train.batch_size for experiment in first.seeds] == [64, 64]
    assert [row.name for row in rows if not row.swept] == [
        "frozen_mobilenet_v2",
        "linearprobe_mobilenet_v2",
    ]


def test_what_a_table_sweeps_can_not_be_set_and_other_settings_are_swept_on_top():
    with pytest.raises(ValueError, match="a value of its own of model.backbone.name: choose rows"):
        chosen_rows(
            [],
            "photographs",
            [],
            profile="",
            overrides=["model.backbone.name=resnet18"],
            seeds=[],
        )
    _, _, rows = chosen_rows(
        [],
        "photographs",
        ["ArcFace*lite1"],
        profile="",
        overrides=[],
        seeds=[],
        sweeps=["optimizer.lr=0.01,0.1"],
    )
    assert [row.seeds[0].optimizer.options["lr"] for row in rows] == [0.01, 0.1]
    assert {row.seeds[0].model.backbone.name for row in rows} == {"efficientnet_lite1"}


def test_a_component_and_its_name_are_one_setting_for_tables_and_sweeps():
    planned = {"only": [], "profile": "", "seeds": [1]}
    own_value = "a value of its own of model.backbone.name: choose rows"
    with pytest.raises(ValueError, match=own_value):
        chosen_rows([], "photographs", overrides=["model.backbone=resnet18"], **planned)
    both = {"optimizer.name=adam": "optimizer=sgd,adamw", "optimizer=adam": "optimizer.name=sgd"}
    for override, sweep in both.items():
        with pytest.raises(ValueError, match=r"is both set and swept: leave out --set optimizer"):
            chosen_rows([NAME], "", overrides=[override], sweeps=[sweep], **planned)
    twice = ["optimizer=sgd,adam", "optimizer.name=sgd"]
    with pytest.raises(ValueError, match="--sweep optimizer must be given once"):
        chosen_rows([NAME], "", overrides=[], sweeps=twice, **planned)


def test_a_component_may_be_swept_with_its_options():
    sweep = 'optimizer={name="sgd", lr=0.1},{name="adam", betas=[0.8,0.9], lr=0.2},"sgd"'
    _, _, rows = chosen_rows([NAME], "", [], profile="", overrides=[], seeds=[1], sweeps=[sweep])
    optimizers = [row.seeds[0].optimizer for row in rows]
    assert [optimizer.name for optimizer in optimizers] == ["sgd", "adam", "sgd"]
    assert [optimizer.options["lr"] for optimizer in optimizers] == [0.1, 0.2, 0.001]
    assert optimizers[1].options["betas"] == (0.8, 0.9)
    assert len({row.name for row in rows}) == 3


def test_other_settings_get_a_folder_of_their_own_and_old_folders_are_found(
    birds, cache_dir, copy_of_trained, monkeypatch, capsys
):
    old = copy_of_trained("train.epochs=1")
    out = old.parents[2]
    settings = [part for value in SETTINGS for part in ("--set", value)]
    places = ["--data-dir", birds, "--cache-dir", cache_dir, "--out", out, "--device", "cpu"]
    options = [NAME, *settings, *places, "--wandb", "disabled"]
    assert call(monkeypatch, "run", *options, "--set", "train.epochs=1") == 0
    assert "finished already" in capsys.readouterr().out
    assert list(out.glob("EPSHN*")) == [old.parents[1]]
    assert call(monkeypatch, "run", *options, "--set", "train.epochs=2") == 0
    variant = variant_name(NAME, [*SETTINGS, "train.epochs=2"])
    record = out / variant / "cub" / "seed-42" / "experiment.json"
    assert json.loads(record.read_text())["name"] == variant
    assert tiny("train.epochs=2").name == NAME


@pytest.mark.slow
def test_a_suite_leaves_a_run_with_other_settings_where_it_is(
    birds, cache_dir, tmp_path, monkeypatch
):
    fork_workers(monkeypatch)
    old = train(birds, cache_dir, tmp_path, "train.epochs=2")
    settings = [*SETTINGS, "train.epochs=1"]
    options = [part for value in settings for part in ("--set", value)]
    options += ["--data-dir", birds, "--cache-dir", cache_dir, "--out", tmp_path]
    options += ["--device", "cpu", "--wandb", "disabled", "--jobs", "1"]
    assert call(monkeypatch, "suite", NAME, *options) == 0
    variant = read_folder(tmp_path / variant_name(NAME, settings) / "cub" / "seed-42")
    assert variant.experiment.train.epochs == 1
    assert read_folder(old.folder).experiment.train.epochs == 2


def test_a_table_may_have_several_sweeps_and_a_family_may_leave_out_what_the_other_lacks():
    table = read_table("memorisation")
    assert len(table.rows) == 3 + 9 and table.family is not None
    row = "crossentropy_resnet18_sgd_aug+mixup~data.label_noise=0.5,mixing.technique.alpha=8.0"
    assert table.variants[row] == ("data.label_noise=0.5", "mixing.technique.alpha=8.0")
    beside = "crossentropy_resnet18_sgd_aug~data.label_noise=0.5"
    assert table.family.other(row) == beside and beside in table.rows
    assert (
        read_table("few_images").family.other(
            "crossentropy_resnet18_sgd_aug+samplepairing~data.per_class=5"
        )
        == "crossentropy_resnet18_sgd_aug~data.per_class=5"
    )
