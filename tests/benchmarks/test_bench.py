"""The benchmarks are found, run and held against the goals; that they are fast is not tested, only
that they tell the truth."""

import ast
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dml_bench.registry import UnknownName

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def module_of(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


bench = module_of("benchmarks_main", BENCHMARKS / "__main__.py")


@pytest.fixture
def goals(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return module_of("goals", BENCHMARKS / "goals.py")


def row(goals: ModuleType, folder: Path, what: str) -> list[str]:
    return next(goal for goal in goals.GOALS if goal.what.startswith(what)).row(folder)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_all_that_a_benchmark_imports_of_the_package_is_there(path):
    """Imports inside its functions too, which a quick run may not reach."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("dml_bench"):
            continue
        module = importlib.import_module(str(node.module))
        for name in (alias.name for alias in node.names):
            if not hasattr(module, name):  # then it can only be a module inside a package
                importlib.import_module(f"{node.module}.{name}")


def test_every_benchmark_has_a_summary_and_the_goals_come_last():
    benchmarks = bench.available()
    assert {"epoch", "evaluation", "memory", "mixing", "scaling", "small_maps", "startup"} < {
        benchmark.name for benchmark in benchmarks
    }
    assert benchmarks[-1].name == "goals"
    assert all(benchmark.summary.endswith(".") for benchmark in benchmarks)
    assert "contestants" not in {
        benchmark.name for benchmark in benchmarks
    }  # what others import is none by itself


def test_a_benchmark_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match=r"unknown benchmark 'epok'.*did you mean.*epoch"):
        bench.chosen(["epok"])


def test_the_command_names_what_is_not_there_in_its_last_line_and_ends_with_exit_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["epok"])
    assert ended.value.code == 2
    assert "unknown benchmark 'epok'" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_lists_every_benchmark_with_its_summary(capsys):
    bench.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(bench.available())
    assert any(line.startswith("epoch ") for line in lines)


def test_the_wheel_has_no_benchmarks():
    assert importlib.util.find_spec("dml_bench.bench") is None


def test_one_that_fails_is_named_and_stops_no_other(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    ending = 'if __name__ == "__main__":\n    '
    (folder / "a.py").write_text(f'"""Fails."""\n{ending}raise SystemExit(3)\n')
    (folder / "b.py").write_text(
        f'"""Works."""\nimport pathlib, sys\n{ending}pathlib.Path(sys.argv[2], "b").write_text("'
        ' ".join(sys.argv))\n'
    )
    said: list[str] = []
    assert bench.run(bench.available(folder), tmp_path, True, said.append) == ["a"]
    assert said == ["[1/2] a: Fails.", "[2/2] b: Works."]
    assert (tmp_path / "b").read_text().endswith(f"--out {tmp_path} --quick")


def test_the_named_one_runs_for_real_and_the_goals_name_what_was_not_measured(tmp_path):
    assert bench.run(bench.chosen(["small_maps"]), tmp_path, True, lambda text: None) == []
    measured = json.loads((tmp_path / "small_maps.json").read_text())
    assert set(measured["milliseconds"]["(512, 512, 2, 1)"]) == {"oneDNN", "product"}
    assert measured["machine"]["packages"]["torch"]
    page = (tmp_path / "README.md").read_text()
    assert "| whole epoch at 224 px over the bare loop | at most 1.05x | not measured |" in page
    assert "[small_maps](small_maps.md)" in page


def test_intervals_of_simulated_tables_are_counted_and_those_outside_are_named(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    simulation = module_of("interval_coverage", BENCHMARKS / "interval_coverage.py")
    rows = simulation.simulate(simulation.Cell(3, 20, 0.5, "much"), 3)
    ours, others = simulation.OURS[0], simulation.OTHERS
    assert [row["quantity"] for row in rows] == ["P@1", "difference"]
    assert rows[0][others[3]]["width"] < rows[0][others[0]]["width"] < rows[0][ours]["width"]
    missed = {**rows[0], ours: {"coverage": 0.5, "standard_error": 0.01, "width": 0.1}}
    page = simulation.page(
        {**simulation.facts(), "tables": 3, "coverage": [missed], "flips": simulation.flips(1, 1)}
    )
    assert f"- {ours}: P@1 at 0.5, 20 classes, 3 seeds that differ much: 50.0% +- 1.0" in page


def test_a_goal_is_met_or_missed_by_the_median_of_the_ratios_within_rounds(goals, tmp_path):
    values = {
        "ours": {"epoch": [10.0, 20.0, 10.0]},
        "usual": {"epoch": [60.0, 114.0, 59.0]},
        "usual, two lines": {"epoch": [22.0, 46.0, 21.0]},
        "floor": {"epoch": [8.0, 16.0, 8.0]},
    }
    for name in ("epoch-224", "floor-224"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"values": values}))
    assert row(goals, tmp_path, "whole epoch at 224 px, times") == [
        "whole epoch at 224 px, times as fast as the usual loop",
        *("at least 5.5x", "5.9x", "[met](epoch-224.md)"),
    ]
    assert row(goals, tmp_path, "whole epoch at 224 px, times as fast as the usual loop with")[
        1:
    ] == [
        *("at least 2.3x", "2.2x", "[**missed**](epoch-224.md)"),
    ]
    assert row(goals, tmp_path, "whole epoch at 224 px over")[1:] == [
        "at most 1.05x",
        "1.25x",
        "[**missed**](floor-224.md)",
    ]


def test_of_mixing_the_slowest_technique_counts_and_of_memory_the_growth(goals, tmp_path):
    (tmp_path / "mixing-64.json").write_text(
        json.dumps({"seconds": {"none": [2.0, 4.0], "mixup": [2.1, 4.2], "cutmix": [2.4, 4.8]}})
    )
    assert row(goals, tmp_path, "epoch with mixing")[2:] == ["1.2x", "[**missed**](mixing-64.md)"]
    peaks = {
        "1000 images, 1 epochs": 500.0,
        "1000 images, 16 epochs": 510.0,
        "16000 images, 1 epochs": 550.0,
    }
    (tmp_path / "memory.json").write_text(
        json.dumps({"peak": {name: [{"own_megabytes": value}] for name, value in peaks.items()}})
    )
    assert row(goals, tmp_path, "growth of own memory from 1 to")[2] == "2%"
    assert row(goals, tmp_path, "growth of own memory from 1,000")[2] == "10%"
