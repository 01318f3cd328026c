"""A run does not begin with weights of another run that trained on what it must not see."""

from pathlib import Path

import pytest
from tiny import tiny, train

from dml_bench.data.datasets import open_dataset
from dml_bench.data.split import split_of
from dml_bench.protocols import phases_of
from dml_bench.runs.first_weights import images_trained_on, require_unseen_by_weights


@pytest.fixture
def earlier(trained) -> Path:
    return trained("train.epochs=1").folder


@pytest.fixture
def begun(birds, cache_dir):
    """Whether an experiment may begin with these weights."""

    def begin(weights: Path, *settings: str) -> None:
        experiment = tiny(f"model.weights={weights}", *settings)
        dataset = open_dataset(experiment.data.dataset, birds, cache_dir)
        split = split_of(experiment, dataset)
        phases = phases_of(experiment, dataset, split)
        require_unseen_by_weights(experiment, dataset, split, phases)

    return begin


def test_weights_of_a_run_that_trained_on_held_out_classes_are_refused(
    earlier, birds, cache_dir, tmp_path
):
    weights = earlier / "all" / "weights.safetensors"
    with pytest.raises(
        ValueError, match=r"of a run that trained on \d+ images that must be unseen here \(first: "
    ):
        train(birds, cache_dir, tmp_path / "runs", f"model.weights={weights}")
    assert not (tmp_path / "runs").exists()


def test_weights_that_saw_nothing_of_it_are_taken(earlier, begun, tmp_path):
    weights = earlier / "limited" / "weights.safetensors"
    begun(weights)
    for settings in (("unseen=last:3",), ("seed=7",), ("data.valid_fraction=0.3",)):
        with pytest.raises(ValueError, match="must be unseen here"):
            begun(weights, *settings)
    elsewhere = tmp_path / "own.safetensors"
    elsewhere.write_bytes(weights.read_bytes())
    begun(elsewhere, "seed=7")
    begun(Path("none"), "seed=7")


def test_a_frozen_backbone_trained_on_nothing(trained, begun):
    run = trained("train.epochs=1", "model.trainable=head", "augment={}").folder
    weights = run / "all" / "weights.safetensors"
    assert images_trained_on(run, weights.resolve()) == set()
    begun(weights, "seed=7")
