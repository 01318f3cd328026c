"""JSON of a run folder is read and written as it stands, whatever version wrote it."""

import json
from pathlib import Path

import pytest

from dml_bench.config.experiments import resolve
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.run import Run, read_folder
from dml_bench.runs.schema import costs_of
from dml_bench.system.files import write_json, write_json_lines
from tests.handmade import finish

RIGHT = {"all": [[1, 0]] * 4, "limited": [[1, 0]] * 4}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finish(tmp_path, resolve("EPSHN_cosine_resnet18_sgd"), RIGHT)


def folder_of(run: Run) -> RunFolder:
    return RunFolder(run.folder.parents[2], run.experiment, "cub")


def test_a_summary_with_keys_of_another_version_is_written_back_byte_for_byte(run):
    path = run.folder / "summary.json"
    summary = json.loads(path.read_text())
    del summary["digest"], summary["holdouts"]
    summary |= {"later_key": {"b": 1e-17, "a": [0.1 + 0.2, None]}, "cost": {"all": {"new": 1}}}
    write_json(path, summary)
    before = path.read_bytes()
    read = read_folder(run.folder).summary
    assert read["later_key"] == {"b": 1e-17, "a": [0.1 + 0.2, None]}
    assert folder_of(run).write_summary(read) == read
    assert path.read_bytes() == before


def test_an_environment_without_later_keys_is_read(run):
    write_json(run.folder / "environment.json", {"sessions": [{"precision": "float32"}]})
    again = read_folder(run.folder)
    assert again.environment == {"sessions": [{"precision": "float32"}]}
    assert again.last_session("precision")["precision"] == "float32"
    with pytest.raises(ValueError, match=r"environment.json.*--force redoes the run"):
        again.last_session("device")


def test_records_keep_the_curves_whose_names_end_in_a_number(run):
    records = [{"phase": "all", "epoch": 1, "train_loss": 0.1 + 0.2}]
    records += [{"phase": "limited", "epoch": 1, "train_loss2": 1e-9, "later": "kept"}]
    write_json_lines(run.folder / "metrics.jsonl", records)
    before = (run.folder / "metrics.jsonl").read_bytes()
    assert run.records == records
    folder_of(run).write_records(run.records)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_costs_are_those_of_the_phases_alone():
    cost = {"all": {"train_seconds": 2.0}, "total_seconds": 3.0, "device": "cpu"}
    assert costs_of(cost) == {"all": {"train_seconds": 2.0}}
