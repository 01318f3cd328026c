"""`dml-bench doctor` names the extras and ends with what to do next."""

import tomllib
from pathlib import Path

import pytest

from dml_bench.cli import doctor


def commands_of(data_dir: Path | None, runs: Path) -> list[str]:
    return [command for _, command in doctor.next_steps(data_dir, runs)]


@pytest.fixture
def weights_installed(monkeypatch):
    monkeypatch.setattr(doctor, "missing_packages", lambda extra: [])


def test_each_extra_of_the_package_has_a_use():
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    assert set(doctor.USES) == set(extras["optional-dependencies"])


def test_a_newcomer_is_shown_the_demo_and_a_decision(tmp_path, weights_installed):
    assert commands_of(None, tmp_path / "runs") == [
        "dml-bench run EPSHN_cosine_resnet18_sgd_aug --demo",
        "dml-bench decide PHOTOS --minutes 30",
    ]


def test_images_at_hand_are_trained_on_and_their_folder_is_quoted(tmp_path, weights_installed):
    *_, last = commands_of(Path("my images"), tmp_path / "runs")
    assert last == "dml-bench run EPSHN_cosine_resnet18_sgd_aug --data-dir 'my images'"


def test_runs_that_have_ended_are_read_before_the_demo_is_run(tmp_path, weights_installed):
    summary = tmp_path / "runs/NAME/demo/seed-42/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    assert commands_of(None, tmp_path / "runs")[0].startswith("dml-bench report ")


def test_an_extra_is_missing_where_one_of_its_packages_is(monkeypatch):
    needs = ["numpy>=1", "ray>=2.9; extra == 'ray'", 'no-such-package[x]>=1; extra == "serve"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    assert doctor.missing_packages("serve") == ["no-such-package"]
    assert doctor.missing_packages("tune") == []


def test_the_last_lines_are_the_steps(tmp_path, monkeypatch, capsys):
    from rich.console import Console

    for part in ("versions", "devices", "weights", "database"):
        monkeypatch.setattr(doctor, part, lambda: iter([("a name", "a finding")]))
    monkeypatch.chdir(tmp_path)
    Console(width=120).print(doctor.examine(tmp_path, None))
    lines = capsys.readouterr().out.splitlines()
    assert "What to do next" in lines
    assert lines[-1].strip() == "dml-bench decide PHOTOS --minutes 30"
