"""The demo has converged, by trials that are in the repository."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROTATED = ROOT / "results" / "demo" / "stratified-random-10-x-4"
TRAINED = sorted(
    folder.name
    for folder in ROTATED.iterdir()
    if not folder.name.startswith(("frozen_", "linearprobe_"))
)


@pytest.fixture
def demo_rates(monkeypatch) -> ModuleType:
    folder = ROOT / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("demo_rates", folder / "demo_rates.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_rates", module)
    spec.loader.exec_module(module)
    return module


def test_twice_the_epochs_change_no_main_row_by_two_points(demo_rates):
    pairs = demo_rates.pairs_of(demo_rates.read(demo_rates.FOLDER))
    assert set(TRAINED) <= set(pairs), "each has a trial with twice the epochs"
    for name, of_seeds in pairs.items():
        once, twice = demo_rates.means(of_seeds)
        assert abs(twice - once) < demo_rates.CONVERGED, name


def test_a_trial_with_other_rates_is_not_one_of_twice_the_epochs(demo_rates):
    trials = demo_rates.read(demo_rates.FOLDER)
    [name, *_] = demo_rates.pairs_of(trials)
    of_name = [trial for trial in trials if trial["experiment"] == name]
    for trial in of_name:
        trial["changed"]["optimizer.lr"] = 0.123
    assert name not in demo_rates.pairs_of(of_name)
