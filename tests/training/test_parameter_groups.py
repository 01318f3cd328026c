"""What learns, at which rate, and what decays; gradients that are cut; a schedule that follows
validation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny, train
from torch import nn

import dml_bench as db
from dml_bench.config import as_table
from dml_bench.config.experiments import resolve
from dml_bench.losses.objective import build_objective
from dml_bench.models.embedder import build_embedder
from dml_bench.training.parameter_groups import (
    build_optimizer,
    parameter_groups,
    stage_factors,
)
from dml_bench.training.plateau import Plateau
from dml_bench.training.pretraining import without_later_settings

PROXIES = ("loss=ProxyNCA", "miner=none")


def groups(*settings: str) -> list[dict[str, Any]]:
    """What the optimiser of an experiment has, each parameter by its name."""
    experiment = tiny("optimizer.weight_decay=0.01", *settings)
    embedder = build_embedder(experiment)
    objective = build_objective(experiment, 4, embedder.dim)
    names = {id(parameter): name for name, parameter in embedder.named_parameters()}
    names |= {id(parameter): f"loss.{name}" for name, parameter in objective.named_parameters()}
    optimizer = build_optimizer(experiment, embedder, objective)

    def named(group: dict[str, Any]) -> dict[str, Any]:
        return group | {"params": [names[id(parameter)] for parameter in group["params"]]}

    return [named(group) for group in optimizer.param_groups]


def rate_of(name: str, *settings: str) -> float:
    (rate,) = [group["lr"] for group in groups(*settings) if name in group["params"]]
    return rate


def test_without_rates_of_their_own_the_network_is_one_group_and_the_proxies_another():
    network, proxies = groups(*PROXIES, "train.proxy_lr_factor=10")
    assert (network["lr"], proxies["lr"]) == (0.05, 0.5)
    assert proxies["params"] == ["loss.loss.proxies"]
    assert {"head.weight", "backbone.layer1.0.conv1.weight"} <= set(network["params"])


def test_the_head_learns_at_its_multiple_of_the_rate():
    network, head = groups("train.head_lr_factor=4")
    assert head["params"] == ["head.weight", "head.bias"]
    assert (network["lr"], head["lr"]) == (0.05, 0.2)


@pytest.mark.usefixtures("plugins_removed")
def test_a_multiple_of_a_rate_that_an_optimizer_of_ones_own_does_not_have_is_refused():
    @db.register_optimizer(summary="a test")
    def Rated(parameters, *, rate: float = 0.1):
        return torch.optim.SGD(parameters, lr=rate)

    experiment = resolve(
        "EPSHN_cosine_resnet18_sgd_aug",
        overrides=["optimizer=Rated", "model.weights=none", "train.head_lr_factor=4"],
    )
    embedder = build_embedder(experiment)
    with pytest.raises(ValueError, match="optimizer Rated has no option lr, so no part can learn"):
        build_optimizer(experiment, embedder, build_objective(experiment, 4, embedder.dim))


def test_layer_wise_decay_makes_each_stage_slower_than_the_one_after_it():
    names = ("layer4.0.conv1.weight", "layer3.0.conv1.weight", "layer1.0.conv1.weight")
    setting = "train.layer_lr_decay=0.5"
    assert [rate_of(f"backbone.{name}", setting) for name in names] == [0.025, 0.0125, 0.003125]
    assert rate_of("backbone.bn1.weight", setting) == 0.0015625
    assert rate_of("head.weight", setting) == 0.05
    assert groups(setting)[0]["lr"] == 0.05


class Rowed(nn.Module):
    """Layers in a row, of which the second and the fourth end a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(5)))
        self.norm = nn.LayerNorm(2, bias=False)
        self.feature_info = [{"module": "features.1"}, {"module": "features.3"}]


def test_what_stands_between_two_stages_learns_as_the_one_that_follows():
    factor = stage_factors(Rowed(), 0.5)
    of_layers = [factor(f"features.{number}.weight") for number in range(5)]
    assert of_layers == [0.125, 0.25, 0.5, 0.5, 1.0]
    assert factor("norm.weight") == 1


def test_a_backbone_without_stages_has_no_layer_wise_decay():
    with pytest.raises(ValueError, match=r"train\.layer_lr_decay needs a backbone with stages"):
        stage_factors(nn.Linear(2, 2), 0.5)


def test_a_backbone_with_a_stage_without_weights_has_no_layer_wise_decay():
    with pytest.raises(ValueError, match="final_conv of this backbone has none: set it to 1"):
        groups("model.backbone=timm:test_byobnet", "train.layer_lr_decay=0.8")


def test_only_kernels_decay_where_that_is_wanted():
    kernels, rest, proxies = groups(
        *PROXIES, "train.weight_decay_on=kernels", "model.pooling=GeM", "model.head=linear_bn"
    )
    assert {"backbone.layer1.0.conv1.weight", "head.0.weight"} <= set(kernels["params"])
    assert {"backbone.bn1.weight", "backbone.bn1.bias", "head.1.weight"} <= set(rest["params"])
    assert [name for name in rest["params"] if name.endswith(".p")]
    assert proxies["params"] == ["loss.loss.proxies"]
    assert [group["weight_decay"] for group in (kernels, rest, proxies)] == [0.01, 0, 0]


def test_parts_of_a_loss_learn_at_the_rates_of_its_authors_code():
    experiment = db.resolve("HIST_resnet50x512_disjoint", ["model.weights=none"])
    objective = build_objective(experiment, 4, 512)
    rates = {}
    for group in parameter_groups(experiment, build_embedder(experiment), objective):
        for parameter in group["params"]:
            rates[parameter] = group.get("lr", experiment.optimizer.options["lr"])
    of_loss = {name: rates[parameter] for name, parameter in objective.named_parameters()}
    distributions = {"loss.means", "loss.log_variances"}
    for name, rate in of_loss.items():
        assert rate == pytest.approx(0.1 if name in distributions else 5 * 1.2e-4)
    assert distributions < set(of_loss)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "ranger"])
@pytest.mark.parametrize("setting", ["train.clip_value=0.25", "train.clip_norm=0.25"])
def test_gradients_are_cut_before_the_step(optimizer, setting):
    experiment = tiny(f"optimizer={optimizer}", setting)
    embedder = build_embedder(experiment)
    objective = build_objective(experiment, 4, embedder.dim)
    learner = build_optimizer(experiment, embedder, objective)
    parameters = list(embedder.parameters())
    torch.manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    copies = [parameter.grad.clone() for parameter in parameters]
    learner.step()
    if "value" in setting:
        expected = [copy.clamp(-0.25, 0.25) for copy in copies]
    else:
        length = torch.cat([copy.flatten() for copy in copies]).norm()
        expected = [copy * 0.25 / length for copy in copies]
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_backbone_waits_for_the_epochs_in_which_only_the_head_learns(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    first = {
        f"backbone.{name}": tensor
        for name, tensor in build_embedder(tiny()).backbone.named_parameters()
    }
    for epochs, waits in ((3, True), (2, False)):
        run = train(birds, cache_dir, tmp_path / str(epochs), f"train.head_epochs={epochs}")
        last = load_file(run.folder / "all" / "weights.safetensors")
        same = [torch.equal(last[name], tensor) for name, tensor in first.items()]
        assert all(same) if waits else not any(same)


def test_frozen_statistics_let_the_affine_parameters_learn(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    first = build_embedder(tiny()).backbone.state_dict()
    run = train(birds, cache_dir, tmp_path, "model.batch_norm=frozen_statistics", "train.epochs=1")
    last = load_file(run.folder / "all" / "weights.safetensors")
    assert torch.equal(last["backbone.bn1.running_mean"], first["bn1.running_mean"])
    assert not torch.equal(last["backbone.bn1.weight"], first["bn1.weight"])


def test_a_plateau_lowers_all_rates_after_it_was_patient_and_goes_on_from_its_state():
    def learner() -> torch.optim.Optimizer:
        weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
        return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 10.0}], 1.0)

    straight = Plateau(learner(), factor=0.1, patience=1)
    path = []
    for accuracy in (0.5, 0.6, 0.6, 0.5, 0.7, 0.65, 0.7):
        straight.step()
        straight.validated(accuracy)
        path.append(straight.get_last_lr())
    assert path == [
        pytest.approx([rate, 10 * rate]) for rate in (1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01)
    ]
    other = learner()
    resumed = Plateau(other, factor=0.1, patience=1)
    for accuracy in (0.5, 0.6, 0.6):
        resumed.validated(accuracy)
    saved = resumed.state_dict()
    resumed = Plateau(other, factor=0.1, patience=1)
    resumed.load_state_dict(saved)
    resumed.validated(0.5)
    assert resumed.get_last_lr() == pytest.approx([0.1, 1.0])


def test_a_plateau_hears_nothing_of_the_epochs_in_which_only_the_head_learns(
    birds: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    heard: list[float] = []
    monkeypatch.setattr(Plateau, "validated", lambda schedule, accuracy: heard.append(accuracy))
    settings = ("schedule=plateau", "data.valid_fraction=0.2", "evaluate.every=1", "unseen=last:2")
    train(birds, cache_dir, tmp_path, *settings, "train.head_epochs=2")
    assert len(heard) == 2  # of three epochs the last, in each phase


def test_stages_that_were_trained_before_these_settings_came_are_used_again():
    table = without_later_settings(as_table(tiny("optimizer.momentum=0.9")))
    assert set(table["train"]) == {
        *("epochs", "batch_size", "precision", "proxy_lr_factor", "views", "labels"),
        *("class_weights", "checkpoint", "sync_bn", "folds"),
    }
    assert set(table["optimizer"]) == {"name", "lr", "momentum", "weight_decay"}
    assert "crop_from" not in table["images"]
    changed = as_table(tiny("train.clip_norm=1", "optimizer.momentum=0.9"))
    assert without_later_settings(changed)["train"]["clip_norm"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("schedule=plateau",), "schedule plateau needs validation images; --set data.valid"),
        (
            ("model.head=identity", "train.head_lr_factor=2"),
            r"train\.head_lr_factor has no effect with model\.head = identity",
        ),
        (
            ("model.head=identity", "train.head_epochs=1"),
            r"train\.head_epochs has no effect with model\.head = identity",
        ),
        (
            (
                "model.trainable=head",
                "augment.random_crop_from=0",
                "augment.horizontal_flip=0",
                "train.layer_lr_decay=0.5",
            ),
            r"train\.layer_lr_decay has no effect with model\.trainable = head",
        ),
        (("train.head_epochs=4",), r"train\.head_epochs must be from 0 to train\.epochs \(3\)"),
        (("train.layer_lr_decay=1.5",), r"train\.layer_lr_decay must be above 0 and up to 1"),
        (("train.clip_norm=-1",), r"train\.clip_norm must be at least 0, got -1"),
        (("optimizer.nesterov=true",), r"optimizer\.nesterov has no effect without momentum"),
        (
            ("train.weight_decay_on=kernels", "optimizer.weight_decay=0"),
            r"train\.weight_decay_on = kernels has no effect without weight decay",
        ),
        (
            ("optimizer=ranger", "optimizer.decoupled=true"),
            r"optimizer\.decoupled has no effect without weight decay",
        ),
        (
            ("evaluate.attack_steps=3",),
            r"evaluate\.attack_steps has no effect without evaluate\.attack_epsilon",
        ),
        (("optimizer=adam", "optimizer.betas=[0.9]"), r"optimizer\.betas must be two numbers"),
    ],
)
def test_a_rate_for_what_is_not_there_is_refused_when_the_experiment_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(*settings)
