"""The rows of the study's table, each built and run: both phases, with the loss that its name
says."""

import json
from pathlib import Path

import pytest

from dml_bench.config import Experiment
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import read_table
from dml_bench.losses.objective import build_objective
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest

ROWS = read_table("study").rows
SMALL = ("unseen=last:2", "images.size=32", "train.epochs=1", "train.batch_size=16")


def small(name: str, *overrides: str) -> Experiment:
    written = resolve(name)
    more = ["augment.random_crop_from=36"] if written.augment.random_crop_from else []
    more += ["start.epochs=1", "start.batch_size=16"] if written.start.name != "none" else []
    return resolve(name, overrides=[*SMALL, *more, "model.weights=none", *overrides])


@pytest.mark.parametrize("num_classes", [200, 180], ids=["all", "limited"])
@pytest.mark.parametrize(
    ("name", "loss", "directions"),
    [
        ("ArcFace_cosine_resnet18_sgd_aug", "ArcFaceLoss", 1),
        ("SubCenterArcFace_cosine_resnet18_sgd_aug", "SubCenterArcFaceLoss", 3),
    ],
)
def test_the_arcface_rows_train_the_loss_that_they_name_in_both_phases(
    name, loss, directions, num_classes
):
    objective = build_objective(resolve(name), num_classes, 128)
    kinds = {type(module).__name__ for module in objective.modules()}
    assert loss in kinds
    assert kinds & {"ArcFaceLoss", "SubCenterArcFaceLoss"} == {loss}
    (weights,) = objective.parameters()
    assert sorted(weights.shape) == sorted((128, num_classes * directions))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_builds_the_model_and_the_objective_of_its_full_size(name):
    experiment = resolve(name, overrides=["model.weights=none"])
    embedder = build_embedder(experiment)
    assert embedder.dim == {
        "EPSHN_cosine_resnet18x512_sgd_aug": 512,
        "crossentropy_resnet18_sgd_aug": 512,
    }.get(name, 128)
    build_objective(experiment, 180, embedder.dim)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_both_phases_to_a_result_that_can_be_traced(
    name: str, birds: Path, cache_dir: Path, tmp_path: Path
):
    """Each network itself is built above; here a small one stands for all but the baseline's."""
    experiment = small(name, *(() if name == ROWS[0] else ("model.backbone=timm:test_resnet",)))
    outcome = execute(
        RunRequest(
            experiment=experiment,
            data_dir=birds,
            cache_dir=cache_dir,
            out=tmp_path,
            device="cpu",
        )
    )
    summary = outcome.summary
    assert set(summary["phases"]) == {"all", "limited"}
    assert outcome.folder == tmp_path / name / "cub" / "seed-42"
    assert resolve(str(outcome.folder / "experiment.json")) == experiment
    environment = json.loads((outcome.folder / "environment.json").read_text())
    assert environment["dataset"]["fingerprint"] == summary["dataset"]["fingerprint"]
    assert len(environment["sessions"]) == 1
    assert {f"{phase}/weights.safetensors" for phase in ("all", "limited")} <= summary[
        "files"
    ].keys()
