"""Registries: their manners, and what every registered name has to say of itself. Each kind's own
file exercises its names."""

import inspect
import json
from pathlib import Path
from typing import Literal, get_origin

import pytest
import torch

from dml_bench import registry
from dml_bench.cli import catalogue
from dml_bench.registry import Registry, UnknownName, backbones, checked, losses, optimizers
from dml_bench.registry.names import label_named

REGISTRIES = {kind: getattr(registry, kind) for kind in catalogue.KINDS if kind != "experiments"}
EVERY_ENTRY = [
    pytest.param(entry, id=f"{kind}-{entry.name}")
    for kind, registry in REGISTRIES.items()
    for entry in registry
]


def fruits() -> Registry:
    """A registry of its own; `json` stands for the module that would fill it."""
    made = Registry("fruit", "json", {"sweet": False})

    @made.register("Apple", summary="round", source="a tree", sweet=True)
    def apple(
        parts: int, *, colour: Literal["red", "green"] = "red", weight: float = 0.1, seeds: int = 5
    ) -> None:
        return None

    @made.register("lemon", summary="sour", source="a tree")
    def lemon() -> None:
        return None

    return made


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
    assert (
        str(problem.value) == "unknown fruit 'aple' (did you mean Apple?); there are: Apple, lemon"
    )


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
    assert {name: option.default for name, option in options.items()} == {
        "colour": "red",
        "weight": 0.1,
        "seeds": 5,
    }


def test_options_are_filled_in_and_a_whole_number_widens_to_a_number():
    resolved = fruits()["Apple"].resolve({"weight": 1}, "fruit")
    assert resolved == {"colour": "red", "weight": 1.0, "seeds": 5}
    assert isinstance(resolved["weight"], float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"color": "red"},
            (
                r"fruit.color: Apple has no such option \(did you mean colour\?\); its options:"
                r" colour, weight, seeds"
            ),
        ),
        (
            {"colour": "gren"},
            r"fruit.colour must be one of 'red', 'green', got 'gren' \(did you mean green\?\)",
        ),
        ({"weight": "heavy"}, "fruit.weight must be a number, got 'heavy'"),
        ({"weight": True}, "fruit.weight must be a number, got True"),
        ({"seeds": 2.5}, "fruit.seeds must be a whole number, got 2.5"),
    ],
)
def test_a_wrong_option_is_refused_in_words(options, message):
    with pytest.raises(ValueError, match=message):
        fruits()["Apple"].resolve(options, "fruit")


def test_an_option_without_default_is_required():
    made = fruits()

    @made.register("melon", summary="", source="")
    def melon(*, weight: float) -> None:
        return None

    with pytest.raises(ValueError, match=r"fruit.weight is required by melon and has no default"):
        made["melon"].resolve({}, "fruit")


def test_adding_a_loss_is_one_decorated_function_which_the_catalogue_then_lists():
    before = [record["name"] for record in catalogue.entries("losses")]

    @losses.register(
        "hinge", summary="a loss of this test", source="this test, 2024", takes_miner=True
    )
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
        "from": __file__,
        "options": {"margin": 0.2},
        "takes_miner": True,
        "adds_tuples": False,
        "trains_proxies": False,
        "classifies": False,
        "one_number": False,
        "interpolates": False,
        "remembers": False,
        "unit_vectors": True,
        "label_sets": False,
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
        assert option.type in (str, int, float, bool) or get_origin(option.type) in (
            Literal,
            tuple,
        ), name
        assert option.default is not inspect.Parameter.empty, name
        assert checked(option.default, option.type, name) == option.default


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (None, float | None, None),
        (1, float | None, 1.0),
        ("a", Literal["a", "b"] | None, "a"),
        ([1, 2], tuple, (1, 2)),
        ((1, 2), list, [1, 2]),
        ([1, 2], list[float], [1.0, 2.0]),
        ({"a": 1}, dict[str, int], {"a": 1}),
    ],
)
def test_an_option_of_ones_own_may_have_any_of_these_types(value, wanted, expected):
    value_checked = checked(value, wanted, "loss.margin")
    assert (value_checked, type(value_checked)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("wanted", "noun"),
    [(float | None, "a number"), (int | float, r"int \| float"), (list[int], "a list")],
)
def test_a_wrong_value_of_such_a_type_is_refused(wanted, noun):
    with pytest.raises(ValueError, match=f"loss.margin must be {noun}, got 'wide'"):
        checked("wide", wanted, "loss.margin")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_catalogue_of_each_registry_is_json_with_a_record_per_entry(kind):
    records = json.loads(json.dumps(catalogue.entries(kind)))
    assert [record["name"] for record in records] == REGISTRIES[kind].names()


def test_a_model_that_timm_does_not_have_is_answered_with_the_near_miss():
    with pytest.raises(
        UnknownName, match=r"timm has no model 'resnet10' \(did you mean resnet10t\?\)"
    ):
        backbones["timm:resnet10"].build("timm:resnet10")


OF_STEPS = [entry for entry in optimizers if not entry.facts["at_once"]]


@pytest.mark.parametrize("entry", OF_STEPS, ids=lambda entry: entry.name)
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


def test_the_page_of_everything_that_has_a_name_is_what_the_registries_say():
    page = Path(__file__).parents[2] / "docs" / "components.md"
    entries = {kind: catalogue.entries(kind) for kind in catalogue.KINDS}
    assert page.read_text(encoding="utf-8") == catalogue.as_page(entries), "run `make docs`"


def test_a_class_is_named_without_its_number_where_no_other_has_the_same_name():
    names = {0: "001.Gull", 1: "002.Gull", 2: "003.Tern", 3: "Tern"}
    assert label_named("002.Gull", names) == 1
    assert label_named("Tern", names) == 3
    assert label_named("Owl", {5: "005.Owl"}) == 5
    with pytest.raises(UnknownName, match=r"^class 'Gull' may be 001\.Gull or 002\.Gull: write"):
        label_named("Gull", names)
