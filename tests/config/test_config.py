"""The strict loader: nothing in a configuration is ignored in silence, and what was resolved is
loaded back equal."""

import dataclasses
import json
import tomllib

import pytest
import tomli_w

from dml_bench.config import (
    Augment,
    Component,
    Expectation,
    Experiment,
    Images,
    Pretrain,
    as_table,
    experiments,
    load,
)
from dml_bench.registry import UnknownName

SMALLEST = {"name": "mine", "loss": "NTXent", "optimizer": "sgd"}


def with_(**changes) -> dict:
    return {**SMALLEST, **changes}


def test_the_smallest_experiment_is_a_name_a_loss_and_an_optimizer():
    experiment = load(SMALLEST)
    assert experiment.loss == Component("NTXent", {"temperature": 0.1, "distance": "cosine"})
    assert experiment.optimizer == Component(
        "sgd", {"lr": 0.001, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
    )
    assert experiment.miner == Component("none", {})
    assert experiment.data.dataset.name == "cub"
    assert experiment.model.backbone == Component("resnet18", {})
    assert experiment.model.head == Component(
        "linear", {"dim": 128, "dropout": 0.0, "init": "torch"}
    )
    assert experiment.pretrain is None


@pytest.mark.parametrize("missing", ["name", "loss", "optimizer"])
def test_what_has_no_default_is_required(missing):
    table = {key: value for key, value in SMALLEST.items() if key != missing}
    with pytest.raises(ValueError, match=f"^{missing} is missing$"):
        load(table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trian": {}},
            r"unknown key trian \(did you mean train\?\); an experiment has: name, summary",
        ),
        (
            {"train": {"epoch": 3}},
            (
                r"unknown key train\.epoch \(did you mean epochs\?\); train has: epochs,"
                r" batch_size, precision"
            ),
        ),
        (
            {"model": {"head": {"name": "linear", "dmi": 3}}},
            r"model\.head\.dmi: linear has no such option \(did you mean dim\?\)",
        ),
        (
            {"model": {"backbone": {"name": "resnet18", "depth": 3}}},
            r"model\.backbone\.depth: resnet18 has no such option; it has no",
        ),
        ({"loss": "ntxen"}, r"unknown loss 'ntxen' \(did you mean NTXent\?\); there are: .*NTXent"),
        ({"data": {"dataset": "cubs"}}, r"unknown dataset 'cubs' \(did you mean cub\?\)"),
        ({"expects": [{"metrik": "x"}]}, r"unknown key expects\.metrik \(did you mean metric\?\)"),
    ],
)
def test_an_unknown_key_or_name_is_answered_with_the_near_miss(changes, message):
    with pytest.raises(UnknownName, match=message):
        load(with_(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"name": 3}, "name must be text, got 3"),
        ({"unseen": 20}, "unseen must be text, got 20"),
        ({"train": {"epochs": "many"}}, r"train\.epochs must be a whole number, got 'many'"),
        ({"train": 3}, "train must be a table, got 3"),
        (
            {"train": {"precision": "bfloat"}},
            r"train\.precision must be one of .*, got 'bfloat' \(did you mean bfloat16\?\)",
        ),
        ({"data": {"skip_unreadable": 1}}, r"data\.skip_unreadable must be true or false, got 1"),
        ({"evaluate": {"vote_k": 3}}, r"evaluate\.vote_k must be a list, got 3"),
        ({"evaluate": {"vote_k": [1, "x"]}}, r"evaluate\.vote_k must be a whole number, got 'x'"),
        ({"loss": 3}, "loss must be a loss's name, or a table with a name and options, got 3"),
        ({"loss": {"temperature": 1.0}}, "loss must be a loss's name, or a table .*, got \\{"),
        (
            {"loss": {"name": "NTXent", "temperature": "hot"}},
            r"loss\.temperature must be a number, got 'hot'",
        ),
        ({"expects": 3}, "expects must be a list of tables, got 3"),
        ({"expects": [3]}, "expects.* must be a table, got 3"),
        ({"pretrain": 3}, "pretrain must be a table, got 3"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_what_was_wanted(changes, message):
    with pytest.raises(ValueError, match=message):
        load(with_(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"augment": {"horizontal_flip": 1.5}},
            r"augment\.horizontal_flip must be a number from 0 to 1, got 1\.5",
        ),
        (
            {"augment": {"horizontal_flip": -0.1}},
            r"augment\.horizontal_flip must be a number from 0 to 1, got -0\.1",
        ),
        (
            {"augment": {"horizontal_flip": float("nan")}},
            r"augment\.horizontal_flip must be a finite number, got nan",
        ),
        (
            {"augment": {"dihedral": 1.1}},
            r"augment\.dihedral must be a number from 0 to 1, got 1\.1",
        ),
        (
            {"augment": {"rotate": 200}},
            r"augment\.rotate must be a number from 0 to 180, got 200\.0",
        ),
        ({"augment": {"zoom": 0.9}}, r"augment\.zoom must be a number from 1 to 10, got 0\.9"),
        ({"augment": {"warp": 0.6}}, r"augment\.warp must be a number from 0 to 0\.5, got 0\.6"),
        (
            {"augment": {"lighting": 1}},
            r"augment\.lighting must be a number from 0 to 0\.99, got 1\.0",
        ),
        (
            {"augment": {"rotate": 9, "geometry_probability": 2}},
            r"augment\.geometry_probability must be a number from 0 to 1, got 2\.0",
        ),
        (
            {"images": {"progressive": [4, 224]}},
            r"images\.progressive must be at least 8 pixels, got \[4, 224\]",
        ),
        ({"data": {"test_fraction": 0}}, r"data\.test_fraction must be between 0 and 1, got 0\.0"),
        ({"data": {"test_fraction": 1}}, r"data\.test_fraction must be between 0 and 1, got 1\.0"),
        ({"images": {"size": 7}}, r"images\.size must be at least 8 pixels, got 7"),
        ({"train": {"epochs": -1}}, r"train\.epochs must be at least 0, got -1"),
        ({"train": {"epochs": 0}}, r"train\.epochs must be at least 1 with optimizer \w+, got 0"),
        ({"train": {"batch_size": 1}}, r"train\.batch_size must be at least 2, got 1"),
        ({"evaluate": {"batch_size": 0}}, r"evaluate\.batch_size must be at least 1, got 0"),
        ({"evaluate": {"every": 0}}, r"evaluate\.every must be at least 1, got 0"),
        ({"evaluate": {"vote_k": []}}, r"evaluate\.vote_k must be positive numbers, got \[\]"),
        (
            {"evaluate": {"vote_k": [0, 1]}},
            r"evaluate\.vote_k must be positive numbers, got \[0, 1\]",
        ),
    ],
)
def test_a_number_out_of_its_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load(with_(**changes))


@pytest.mark.parametrize("probability", [0, 0.5, 1])
def test_a_probability_may_be_anything_from_0_to_1(probability):
    assert (
        load(with_(augment={"horizontal_flip": probability})).augment.horizontal_flip == probability
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "crossentropy", "miner": "EPSHN"},
            "miner EPSHN has no effect: loss crossentropy takes no miner; --set miner=none",
        ),
        (
            {"images": {"fit": "squash"}, "augment": {"random_crop_from": 246}},
            r"random_crop_from needs images\.fit = crop",
        ),
        (
            {"augment": {"random_crop_from": 200}},
            r"augment\.random_crop_from is 200, smaller than images\.size \(224\)",
        ),
        (
            {"images": {"crop_from": 200}},
            r"images\.crop_from must be at least images\.size \(224\), with images\.fit = crop, got"
            r" 200",
        ),
        ({"images": {"crop_from": 256, "fit": "squash"}}, r"images\.crop_from .* with squash"),
        ({"augment": {"random_crop_from": -1}}, r"augment\.random_crop_from is -1"),
        (
            {"augment": {"dihedral": 1.0, "geometry_probability": 0.5}},
            r"geometry_probability has no effect without augment\.rotate, .*warp",
        ),
        (
            {"augment": {"lighting_probability": 0.5}},
            r"augment\.lighting_probability has no effect without augment\.lighting",
        ),
        (
            {"images": {"progressive": [112, 256]}},
            (
                r"images\.progressive must be growing sizes that end with images\.size \(224\),"
                r" got \[112, 256\]"
            ),
        ),
        (
            {"images": {"progressive": [112, 168]}},
            r"growing sizes that end with images\.size \(224\), got \[112, 168\]",
        ),
        ({"images": {"progressive": [168, 112, 224]}}, "growing sizes"),
        ({"images": {"progressive": [224, 224]}}, "growing sizes"),
        (
            {"images": {"progressive": [112, 224]}, "train": {"epochs": 1}},
            r"progressive must have at most one size an epoch, got 2 sizes for train\.epochs = 1",
        ),
        (
            {"model": {"trainable": "head"}, "images": {"progressive": [112, 224]}},
            r"progressive has no effect: --set images\.progressive=\[\]",
        ),
        (
            {"model": {"trainable": "head"}, "augment": {"horizontal_flip": 0.5}},
            "augmentation has no effect",
        ),
        (
            {"model": {"trainable": "head"}, "augment": {"rotate": 9, "zoom": 1.2}},
            r"augmentation has no effect: --set augment\.rotate=0 --set augment\.zoom=1$",
        ),
        (
            {"model": {"trainable": "head"}, "augment": {"random_crop_from": 246}},
            "augmentation has no effect",
        ),
        (
            {"model": {"trainable": "head"}, "images": {"normalization": "train"}},
            "normalization = train .* frozen features",
        ),
        (
            {"model": {"trainable": "last:2"}, "augment": {"horizontal_flip": 0.5}},
            r"model\.trainable = last:2 trains on features computed once",
        ),
        (
            {"model": {"trainable": "last:0"}},
            r"model\.trainable must be all, head or last:N .* got 'last:0'",
        ),
        ({"pretrain": {"epochs": 3}}, r"pretrain has no effect with model\.weights = imagenet"),
        (
            {"pretrain": {}, "model": {"weights": "none"}},
            r"pretrain has no effect with model\.weights = none",
        ),
    ],
)
def test_values_that_contradict_each_other_or_have_no_effect_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load(with_(**changes))


def test_each_of_those_values_is_accepted_where_it_has_an_effect():
    load(with_(miner="EPSHN"))
    load(with_(loss="crossentropy"))
    load(with_(augment={"random_crop_from": 224}))
    load(with_(model={"trainable": "head"}))
    load(with_(images={"fit": "squash"}, augment={"horizontal_flip": 0.5}))
    load(
        with_(
            augment={
                "rotate": 180,
                "zoom": 10,
                "warp": 0.5,
                "lighting": 0.99,
                "geometry_probability": 1,
                "lighting_probability": 1,
            }
        )
    )
    load(with_(images={"progressive": [112, 168, 224]}, train={"epochs": 3}))
    assert load(with_(pretrain={"epochs": 3}, model={"weights": "source"})).pretrain == Pretrain(
        epochs=3
    )


def test_weights_from_the_source_domain_bring_its_pretraining():
    assert load(with_(model={"weights": "source"})).pretrain == Pretrain(
        classes=48, per_class=24, epochs=6, batch_size=32, lr=0.02, seed=1
    )


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"value": 0.5, "change": 0.1, "versus": "x"},
        {"change": 0.1},
        {"value": 0.5, "versus": "x"},
        {"value": 0.5, "below": 0.6},
        {"change": 0.1, "versus": "x", "above": ("y",)},
        {"below": 0.5, "tolerance": 0.01},
        {"value": 0.5, "tolerance": 0.0},
    ],
    ids=str,
)
def test_an_expectation_is_a_value_a_change_from_another_experiment_a_bound_or_an_order(claim):
    with pytest.raises(ValueError, match="an expectation of recall"):
        Expectation(metric="recall", source="a test", **claim)


def test_a_tolerance_leaves_room_between_the_claim_and_zero():
    def claimed(change: float, **tolerance: float) -> float:
        claim = Expectation(
            metric="recall", source="a test", change=change, versus="x", **tolerance
        )
        return claim.margin

    assert (claimed(0.1), claimed(0.0), claimed(-0.03)) == (0.02, 0.02, 0.015)
    assert claimed(0.1, tolerance=0.05) == 0.05
    with pytest.raises(
        ValueError, match=r"tolerance must be at most 0\.015, half of the change, got 0\.02: leave"
    ):
        claimed(-0.03, tolerance=0.02)


def test_an_expectation_of_nothing_changed_is_an_expectation():
    assert Expectation(metric="recall", source="a test", change=0.0, versus="x").change == 0.0


def test_an_experiment_can_not_be_changed_after_it_was_checked():
    experiment = load(SMALLEST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 1


@pytest.mark.parametrize(
    ("sizes", "epochs", "expected"),
    [
        ((), 3, [64, 64, 64]),
        ((64,), 3, [64, 64, 64]),
        ((32, 48, 64), 9, [32, 32, 32, 48, 48, 48, 64, 64, 64]),
        ((32, 48, 64), 7, [32, 32, 32, 48, 48, 64, 64]),
        ((32, 64), 2, [32, 64]),
        ((32, 48, 64), 3, [32, 48, 64]),
    ],
    ids=str,
)
def test_each_training_size_has_an_equal_share_of_the_epochs_and_the_last_is_the_full_one(
    sizes, epochs, expected
):
    images = Images(size=64, progressive=sizes)
    assert [images.training_size(epoch, epochs) for epoch in range(1, epochs + 1)] == expected


def test_augmentation_is_off_unless_asked_for():
    assert not Augment().active
    assert Augment(horizontal_flip=0.1).active
    assert Augment(random_crop_from=246).active
    assert Augment(zoom=1.1).active


@pytest.mark.parametrize("profile", ["", "demo"])
@pytest.mark.parametrize("name", experiments.names())
def test_the_saved_copy_of_a_resolved_experiment_is_loaded_back_equal(name, profile):
    experiment = experiments.resolve(name, profile=profile)
    assert isinstance(experiment, Experiment)
    assert load(json.loads(json.dumps(as_table(experiment)))) == experiment
    assert load(tomllib.loads(tomli_w.dumps(as_table(experiment)))) == experiment


def test_a_saved_copy_holds_every_option_so_that_a_later_default_can_not_change_it():
    table = as_table(load(SMALLEST))
    assert table["loss"] == {"name": "NTXent", "temperature": 0.1, "distance": "cosine"}
    assert table["evaluate"] == {
        "every": 1,
        "vote_k": [1, 3, 5, 10],
        "recall_k": [1, 2, 4, 8],
        "nmi": False,
        "tta": "none",
        "tta_by": "mean",
        "tta_draws": 4,
        "tta_plain_weight": 0.25,
        "attack_epsilon": 0.0,
        "attack_steps": 10,
    }
    assert table["data"]["dataset"] == {"name": "cub", "crop_to_box": False}
