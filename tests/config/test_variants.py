"""The names of experiments that were run with other settings than their file has."""

import pytest

from dml_bench.config.experiments import resolve
from dml_bench.config.variants import (
    LONGEST_VARIANT,
    Sweep,
    base_name,
    settings_in,
    suffix_of,
    sweep_overrides,
    variant_name,
)

NAME = "EPSHN_cosine_resnet18_sgd_aug"


def test_a_variant_is_named_for_its_settings_by_key():
    overrides = ["optimizer.lr=0.1", "loss.temperature=0.05", "optimizer.lr=0.2"]
    assert variant_name("A", overrides) == "A~loss.temperature=0.05,optimizer.lr=0.2"


@pytest.mark.parametrize(
    "override",
    ["seed=3", "unseen=last:5", "data.dataset=csv", "data.dataset.suffix=.jpg", "data.split=given"],
)
def test_what_the_run_folder_or_a_report_shows_anyway_is_not_in_the_name(override):
    assert variant_name("A", [override]) == "A"


def test_a_name_that_is_set_stays():
    assert variant_name("A~optimizer.lr=0.1", ["optimizer.lr=0.1", "name=A~x"]) == (
        "A~optimizer.lr=0.1"
    )


def test_characters_that_no_file_name_has_are_replaced_and_values_stay_apart():
    first, second = (variant_name("A", [f"model.weights={path}"]) for path in ("a/b.pt", "a:b.pt"))
    assert first.startswith("A~model.weights=a-b.pt,")
    assert second.startswith("A~model.weights=a-b.pt,")
    assert first != second


def test_a_long_name_is_cut_and_a_digest_keeps_it_apart():
    settings = [f"augment.setting_number_{number}=0.{number}" for number in range(30)]
    first, second = variant_name(NAME, settings), variant_name(NAME, [*settings, "train.epochs=9"])
    assert max(len(first.encode()), len(second.encode())) <= LONGEST_VARIANT
    assert first != second


def test_a_variant_is_an_experiment_whose_name_says_its_settings():
    overrides = ["optimizer.lr=0.3", "miner=none"]
    variant = variant_name(NAME, overrides)
    experiment = resolve(NAME, overrides=[*overrides, f"name={variant}"])
    assert settings_in(experiment) == {"optimizer.lr": 0.3, "miner": "none"}
    assert (base_name(variant), suffix_of(variant)) == (NAME, "~miner=none,optimizer.lr=0.3")
    assert settings_in(resolve(NAME)) == {}


def test_a_sweep_takes_numbers_words_and_lists():
    assert Sweep.parse("optimizer.lr=0.01, 0.1").values == ("0.01", "0.1")
    assert Sweep.parse("optimizer=sgd,adam").values == ("sgd", "adam")
    assert Sweep.parse("evaluate.vote_k=[1, 3],[5]").values == ("[1, 3]", "[5]")
    assert Sweep.parse('data.dataset.column="a, b","c"').values == ('"a, b"', '"c"')


@pytest.mark.parametrize("text", ["optimizer.lr", "=1,2", "optimizer.lr=", "optimizer.lr=1,,2"])
def test_a_sweep_without_key_or_values_is_refused(text):
    with pytest.raises(ValueError, match="--sweep must be KEY=VALUE"):
        Sweep.parse(text)


def test_sweeps_are_combined():
    sweeps = [Sweep("a", ("1", "2")), Sweep("b", ("x", "y"))]
    assert sweep_overrides(sweeps, []) == [
        ["a=1", "b=x"],
        ["a=1", "b=y"],
        ["a=2", "b=x"],
        ["a=2", "b=y"],
    ]
    assert sweep_overrides([], []) == [[]]


@pytest.mark.parametrize(
    ("sweeps", "overrides", "message"),
    [
        ([Sweep("a", ("1",)), Sweep("a", ("2",))], [], "must be given once"),
        ([Sweep("a", ("1",))], ["a=3"], "both set and swept"),
        ([Sweep("seed", ("1",))], [], "can't be swept"),
    ],
)
def test_a_setting_has_one_say(sweeps, overrides, message):
    with pytest.raises(ValueError, match=message):
        sweep_overrides(sweeps, overrides)
