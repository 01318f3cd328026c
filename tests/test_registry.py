"""Registries: their manners, and one conformance test per kind that builds and exercises every registered name."""

import inspect
import json
from typing import Literal, get_origin

import pytest
import torch
from torch.nn import functional

from dml_bench import catalogue
from dml_bench.model.heads import linear
from dml_bench.objectives.objective import Objective
from dml_bench.registry import Registry, UnknownName, backbones, checked, datasets, heads, losses, miners, optimizers

REGISTRIES = {
    "datasets": datasets,
    "backbones": backbones,
    "heads": heads,
    "losses": losses,
    "miners": miners,
    "optimizers": optimizers,
}
EVERY_ENTRY = [pytest.param(entry, id=f"{kind}-{entry.name}") for kind, registry in REGISTRIES.items() for entry in registry]
BACKBONES = {
    "resnet18": 512,
    "resnet50": 2048,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
    "efficientnet_lite2": 1280,
    "timm:*": 512,
}


def fruits() -> Registry:
    """A registry of its own; `json` stands for the module that would fill it."""
    registry = Registry("fruit", "json", {"sweet": False})

    @registry.register("Apple", summary="round", source="a tree", sweet=True)
    def apple(parts: int, *, colour: Literal["red", "green"] = "red", weight: float = 0.1, seeds: int = 5) -> None:
        return None

    @registry.register("lemon", summary="sour", source="a tree")
    def lemon() -> None:
        return None

    return registry


def unit_vectors(batch: int = 24, dim: int = 8) -> torch.Tensor:
    vectors = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0))
    return functional.normalize(vectors, dim=1).requires_grad_()


def four_classes(batch: int = 24) -> torch.Tensor:
    return torch.arange(batch) % 4


# Manners


def test_a_name_can_be_registered_only_once():
    with pytest.raises(ValueError, match="fruit 'lemon' is registered already"):
        fruits().register("lemon", summary="another", source="another")


def test_every_registered_loss_is_safe_from_a_second_one_of_its_name():
    for entry in losses:
        with pytest.raises(ValueError, match="registered already"):
            losses.register(entry.name, summary="", source="")


def test_an_unknown_name_is_answered_with_the_near_miss_and_all_choices():
    with pytest.raises(UnknownName) as problem:
        fruits()["aple"]
    assert str(problem.value) == "unknown fruit 'aple' (did you mean Apple?); there are: Apple, lemon"


def test_an_unknown_name_far_from_all_others_is_answered_without_a_guess():
    with pytest.raises(UnknownName) as problem:
        fruits()["xyzzy"]
    assert str(problem.value) == "unknown fruit 'xyzzy'; there are: Apple, lemon"


def test_an_unknown_fact_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match="fruit 'kiwi': unknown fact 'sweat'; facts: sweet"):
        fruits().register("kiwi", summary="", source="", sweat=True)


def test_an_entry_has_the_facts_it_was_given_and_defaults_for_the_others():
    assert fruits()["Apple"].facts == {"sweet": True}
    assert fruits()["lemon"].facts == {"sweet": False}


def test_the_options_of_an_entry_are_the_keyword_only_parameters_of_its_function():
    options = fruits()["Apple"].options
    assert {name: option.default for name, option in options.items()} == {"colour": "red", "weight": 0.1, "seeds": 5}


def test_options_are_filled_in_and_a_whole_number_widens_to_a_number():
    resolved = fruits()["Apple"].resolve({"weight": 1}, "fruit")
    assert resolved == {"colour": "red", "weight": 1.0, "seeds": 5}
    assert isinstance(resolved["weight"], float)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"color": "red"}, r"fruit.color: Apple has no such option \(did you mean colour\?\); its options: colour, weight, seeds"),
        ({"colour": "gren"}, r"fruit.colour is 'gren'; choose one of 'red', 'green' \(did you mean green\?\)"),
        ({"weight": "heavy"}, "fruit.weight is 'heavy'; a number is wanted"),
        ({"weight": True}, "fruit.weight is True; a number is wanted"),
        ({"seeds": 2.5}, "fruit.seeds is 2.5; a whole number is wanted"),
    ],
)
def test_a_wrong_option_is_refused_in_words(given, words):
    with pytest.raises(ValueError, match=words):
        fruits()["Apple"].resolve(given, "fruit")


def test_an_option_without_default_is_required():
    registry = fruits()

    @registry.register("melon", summary="", source="")
    def melon(*, weight: float) -> None:
        return None

    with pytest.raises(ValueError, match=r"fruit.weight is required by melon and has no default"):
        registry["melon"].resolve({}, "fruit")


def test_adding_a_loss_is_one_decorated_function_which_the_catalogue_then_lists():
    before = [record["name"] for record in catalogue.entries("losses")]

    @losses.register("hinge", summary="a loss of this test", source="this test, 2024", takes_miner=True)
    def hinge(num_classes: int, dim: int, *, margin: float = 0.2) -> None:
        return None

    try:
        (record,) = [record for record in catalogue.entries("losses") if record["name"] == "hinge"]
    finally:
        losses.remove("hinge")
    assert record == {
        "name": "hinge",
        "summary": "a loss of this test",
        "source": "this test, 2024",
        "options": {"margin": 0.2},
        "takes_miner": True,
        "trains_proxies": False,
        "unit_vectors": True,
    }
    assert [record["name"] for record in catalogue.entries("losses")] == before


# Conformance


@pytest.mark.parametrize("entry", EVERY_ENTRY)
def test_every_entry_says_what_it_is_and_where_it_comes_from(entry):
    assert entry.summary.strip()
    assert entry.source.strip() or entry.name == "none"
    assert "\n" not in entry.summary + entry.source


@pytest.mark.parametrize("entry", EVERY_ENTRY)
def test_every_option_has_a_type_and_a_default_of_that_type(entry):
    for name, option in entry.options.items():
        assert option.type in (str, int, float, bool) or get_origin(option.type) in (Literal, tuple), name
        assert option.default is not inspect.Parameter.empty, name
        assert checked(option.default, option.type, name) == option.default


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_catalogue_of_each_registry_is_json_with_a_record_per_entry(kind):
    records = json.loads(json.dumps(catalogue.entries(kind)))
    assert [record["name"] for record in records] == REGISTRIES[kind].names()


@pytest.mark.parametrize("entry", list(losses), ids=lambda entry: entry.name)
def test_every_loss_is_a_finite_scalar_whose_gradient_reaches_the_embeddings(entry):
    torch.manual_seed(0)
    loss = entry.build(4, 8, **entry.resolve({}, "loss"))
    miner = miners["EPSHN"].build() if entry.facts["takes_miner"] else None
    objective = Objective(loss, miner, entry.facts["unit_vectors"])
    embeddings = unit_vectors()
    value = objective(embeddings, four_classes())
    value.backward()
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value) and value > 0
    assert torch.isfinite(embeddings.grad).all() and embeddings.grad.abs().sum() > 0
    assert objective.batches_without_tuples == 0


@pytest.mark.parametrize("entry", list(losses), ids=lambda entry: entry.name)
def test_a_loss_trains_proxies_exactly_where_it_says_so(entry):
    loss = entry.build(4, 8, **entry.resolve({}, "loss"))
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    assert bool(trained) == entry.facts["trains_proxies"]
    if trained:
        loss(unit_vectors(), four_classes(), None).backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained)


@pytest.mark.parametrize("entry", list(losses), ids=lambda entry: entry.name)
def test_a_loss_takes_every_pair_of_the_batch_where_nothing_was_mined(entry):
    loss = entry.build(4, 8, **entry.resolve({}, "loss"))
    assert torch.isfinite(loss(unit_vectors(), four_classes(), None))


@pytest.mark.parametrize("entry", list(miners), ids=lambda entry: entry.name)
def test_every_miner_pairs_anchors_with_others_of_their_class_and_against_those_of_another(entry):
    miner = entry.build(**entry.resolve({}, "miner"))
    if entry.name == "none":
        assert miner is None
        return
    labels = four_classes()
    mined = miner(unit_vectors(), labels)
    anchors, positives, *_, negatives = mined
    assert len(anchors) > 0
    assert (labels[anchors] == labels[positives]).all()
    assert (anchors != positives).all()
    assert (labels[mined[-2] if len(mined) == 4 else anchors] != labels[negatives]).all()


@pytest.mark.parametrize("entry", list(heads), ids=lambda entry: entry.name)
def test_every_head_turns_features_into_embeddings_of_the_dimension_it_names(entry):
    head = entry.build(32, **entry.resolve({}, "head"))
    features = torch.randn(4, 32, requires_grad=True)
    embeddings = head(features)
    embeddings.sum().backward()
    assert embeddings.shape == (4, head.dim)
    assert torch.isfinite(features.grad).all() and features.grad.abs().sum() > 0


def test_the_linear_head_has_128_dimensions_unless_told_otherwise():
    assert linear(32).dim == 128
    assert linear(32, dim=512).dim == 512


@pytest.mark.parametrize("entry", list(backbones), ids=lambda entry: entry.name)
def test_every_backbone_pools_images_into_the_number_of_features_it_names(entry):
    name = "timm:resnet10t" if entry.name == "timm:*" else entry.name
    backbone = backbones[name].build(name).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, backbone.num_features) == (2, BACKBONES[entry.name])
    assert torch.isfinite(features).all()
    assert len(entry.facts["mean"]) == len(entry.facts["std"]) == 3
    assert entry.facts["weights"].partition(":")[0] in {"torchvision", "package", "timm"}


def test_a_resnet18_trains_on_images_of_64_pixels():
    torch.manual_seed(0)
    backbone = backbones["resnet18"].build("resnet18").train()
    backbone(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())
    assert backbone.conv1.weight.grad.abs().sum() > 0


def test_a_model_that_timm_does_not_have_is_answered_with_the_near_miss():
    with pytest.raises(UnknownName, match=r"timm has no model 'resnet10' \(did you mean resnet10t\?\)"):
        backbones["timm:resnet10"].build("timm:resnet10")


@pytest.mark.parametrize("entry", list(optimizers), ids=lambda entry: entry.name)
def test_one_step_of_every_optimizer_goes_down_the_gradient(entry):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = entry.build([weight], **entry.resolve({}, "optimizer"))
    weight.square().sum().backward()
    optimizer.step()
    assert (weight.abs() < torch.tensor([1.0, 2.0])).all()


def test_sgd_is_plain_unless_told_otherwise():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = optimizers["sgd"].build([weight], **optimizers["sgd"].resolve({}, "optimizer"))
    weight.sum().backward()
    for expected in (0.999, 0.998):
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-7)
