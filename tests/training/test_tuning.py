"""The search for settings: what a trial may see, that it goes on where it stopped, and that a tuned
run is never taken for another."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import RECIPE_SETTINGS, SETTINGS, dml_bench, places, refusal, tiny

import dml_bench as db
from dml_bench.config import as_table, load
from dml_bench.config.tables import read_table
from dml_bench.config.tuning import Range, TuningSpace, read_space, space_names
from dml_bench.config.variants import base_name, settings_in_short, tuned_name
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import ImageInputs
from dml_bench.data.split import split_of
from dml_bench.registry import losses
from dml_bench.runs.execute import execute
from dml_bench.runs.request import RunRequest
from dml_bench.suite.tuned import tuned_settings, with_tuned_rows
from dml_bench.system.files import read_json, write_json
from dml_bench.training.tuning import (
    Trial,
    TrialTrainer,
    TuningRequest,
    is_worse,
    own_settings,
    search_settings,
    shortened,
)

NAME = "EPSHN_cosine_resnet18_sgd_aug"
RECIPE = "ProxyAnchor_resnet50x512_disjoint"
SMALL = TuningSpace(
    name="small",
    summary="two numbers",
    trials=6,
    epochs=0.34,
    valid_classes=0.5,
    prune=False,
    shared=False,
    ranges={"optimizer.lr": Range(low=0.01, high=0.2, log=True)},
    of_loss={"NTXent": {"loss.temperature": Range(low=0.05, high=0.5)}},
)


def request(birds: Path, cache_dir: Path, out: Path, **changes: object) -> TuningRequest:
    options = {
        "experiment": tiny(),
        "name": NAME,
        "space": SMALL,
        "trials": 2,
        "data_dir": birds,
        "out": out,
        "cache_dir": cache_dir,
        "device": "cpu",
        "callback": db.Callback(),
    }
    return TuningRequest(**options | changes)


@contextmanager
def images_seen() -> Iterator[set[int]]:
    """The images that any network looks at meanwhile."""
    seen: set[int] = set()

    def spied(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def looked_at(self: ImageInputs, images: np.ndarray, *how, **more) -> torch.Tensor:
            seen.update(images.tolist())
            return method(self, images, *how, **more)

        return looked_at

    with pytest.MonkeyPatch.context() as patch:
        for name in ("train", "view"):
            patch.setattr(ImageInputs, name, spied(getattr(ImageInputs, name)))
        yield seen


@pytest.fixture(scope="module")
def searched(birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """A search of three trials, never stopped, and the images that it looked at."""
    out = tmp_path_factory.mktemp("searched")
    with images_seen() as seen:
        return search_settings(request(birds, cache_dir, out, trials=3)), seen


def test_a_search_sees_no_test_image_and_no_class_that_is_held_out(searched, birds, cache_dir):
    search, seen = searched
    dataset = open_dataset(tiny().data.dataset, birds, cache_dir)
    split = split_of(tiny(), dataset)
    assert seen <= set(split.train.tolist())
    held_out = {dataset.class_names.index(name) for name in dataset.class_names[-2:]}
    assert not held_out & set(dataset.labels[sorted(seen)].tolist())
    judged_by = {dataset.class_names.index(name) for name in search.validation_classes}
    assert len(judged_by) == 3 and not judged_by & held_out


def test_where_classes_are_disjoint_a_search_sees_none_of_the_test(birds, cache_dir, tmp_path):
    disjoint = db.resolve(RECIPE, RECIPE_SETTINGS)
    with images_seen() as seen:
        search = search_settings(request(birds, cache_dir, tmp_path, experiment=disjoint))
    dataset = open_dataset(disjoint.data.dataset, birds, cache_dir)
    assert {*dataset.labels[sorted(seen)].tolist()} == {0, 1, 2, 3}, "the first half of eight"
    assert search.validation_classes == dataset.class_names[2:4], "those of the split"


def test_a_multiple_is_one_also_where_no_row_shares_it(birds, cache_dir, tmp_path):
    disjoint = db.resolve(RECIPE, RECIPE_SETTINGS)
    space = read_space("recipes")
    search = search_settings(
        request(birds, cache_dir, tmp_path, name=RECIPE, experiment=disjoint, space=space)
    )
    best = Trial(
        settings={"optimizer.lr": 3.0}, score=1.0, state="complete", reported={}, seconds=1.0
    )
    chosen = replace(search, trials=(*search.trials, best))
    assert chosen.chosen(disjoint) == {"optimizer.lr": pytest.approx(3 * 0.01)}
    assert "optimizer.lr = 3 times its own value" in chosen.describe()
    assert not search.shared


def test_a_seed_below_zero_proposes_settings_too(birds, cache_dir, tmp_path):
    minus_one = tiny("seed=-1", "train.epochs=1")
    search = search_settings(request(birds, cache_dir, tmp_path, experiment=minus_one))
    assert search.trials[1].settings != search.trials[0].settings


def test_validation_classes_of_one_image_are_refused_before_a_trial(birds, cache_dir, tmp_path):
    single = tiny("data.per_class=1", "loss=crossentropy", "miner=none", "train.epochs=1")
    with pytest.raises(ValueError, match=r"each validation class of cub has a single image"):
        search_settings(request(birds, cache_dir, tmp_path, experiment=single))
    assert not list(tmp_path.rglob("*.json"))


def test_no_trial_trains_on_a_validation_class(birds, cache_dir, tmp_path):
    plain = shortened(tiny(), SMALL)
    trainer = TrialTrainer(plain, request(birds, cache_dir, tmp_path))
    state = trainer.state(plain)
    dataset = trainer.inputs.dataset
    trained_on = set(dataset.labels[state.images].tolist())
    assert len(trained_on) == 3 and not trained_on & set(trainer.validation.tolist())
    assert not len(trainer.split.test)
    assert set(state.monitored.queries) == {"valid"}


def test_the_first_trial_has_the_settings_of_the_file_and_the_best_is_no_worse(searched):
    search, _ = searched
    own = {"optimizer.lr": 0.05, "loss.temperature": 0.1}
    assert search.trials[0].settings == search.own.settings == own
    assert len({trial.settings["optimizer.lr"] for trial in search.trials}) == 3
    assert search.best.score == max(trial.score for trial in search.trials) >= search.own.score
    assert all(0 < trial.score <= 1 for trial in search.trials)


def test_a_search_that_was_stopped_goes_on_to_the_same_trials(searched, birds, cache_dir, tmp_path):
    class Stops(db.Callback):
        def progress(self, message: str, done: int, total: int) -> None:
            if message == "trials" and done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_settings(request(birds, cache_dir, tmp_path, trials=3, callback=Stops()))
    stopped = search_settings(request(birds, cache_dir, tmp_path, trials=3))
    straight, _ = searched
    tried = [(trial.settings, trial.score) for trial in stopped.trials]
    assert tried == [(trial.settings, trial.score) for trial in straight.trials]
    assert stopped.tuned() == straight.tuned()
    older = read_json(stopped.path)
    del older["experiment"]["mixing"]["pair_weight"]  # a setting that came later
    del older["multiples"], older["space"]["startup_trials"]  # said only since
    write_json(stopped.path, older)
    again = search_settings(request(birds, cache_dir, tmp_path, trials=3))
    assert again.tuned() == straight.tuned()


def test_a_search_does_not_go_on_with_another_experiment(searched, birds, cache_dir):
    search, _ = searched
    out = search.path.parents[3]
    with pytest.raises(ValueError, match="another experiment: move it away"):
        search_settings(request(birds, cache_dir, out, experiment=tiny("model.head.dim=16")))
    with pytest.raises(ValueError, match="another validation_classes|another space"):
        wider = replace(SMALL, valid_classes=0.4)
        search_settings(request(birds, cache_dir, out, space=wider))


def test_a_search_does_not_go_on_with_another_number_of_random_trials(searched, birds, cache_dir):
    search, _ = searched
    out, longer = search.path.parents[3], replace(SMALL, trials=30)
    assert SMALL.digest == longer.digest
    with pytest.raises(ValueError, match="holds a search with another space: move it away"):
        search_settings(request(birds, cache_dir, out, space=longer))


def test_a_tuned_run_says_so_and_stands_beside_the_untuned_one(searched, birds, cache_dir):
    search, _ = searched
    out = search.path.parents[3]
    planned = db.plan_suite([NAME], overrides=SETTINGS, seeds=[42], data_dir=birds, out=out)
    [plain, tuned] = with_tuned_rows(planned.rows, [out], "", list(SETTINGS))
    assert (plain.name, tuned.name) == (NAME, f"{NAME}~tuned")
    experiment = tuned.seeds[0]
    assert experiment.optimizer.options["lr"] == search.best.settings["optimizer.lr"]
    assert experiment.tuned == search.tuned()
    assert load(json.loads(json.dumps(as_table(experiment)))) == experiment
    assert plain.seeds[0].tuned is None and "tuned" not in as_table(plain.seeds[0])
    kept_with_records = with_tuned_rows(planned.rows, [out / "none", out], "", list(SETTINGS))
    assert kept_with_records == (plain, tuned)
    command = tuned.settings_of(0)
    assert f"name={NAME}~tuned" in command
    again = db.resolve(NAME, [*SETTINGS, *command])
    assert again == experiment


@pytest.mark.parametrize("unseen", ['"Granny, Smith",Gala', "A\\B"])
def test_a_tuned_run_says_the_held_out_classes_of_its_search_whatever_their_names(searched, unseen):
    search, _ = searched
    named = replace(search, experiment=replace(search.experiment, unseen=unseen))
    settings = tuned_settings(named, search.experiment)
    assert db.resolve(NAME, [*SETTINGS, *settings]).tuned == named.tuned()


def test_a_suite_refuses_rows_without_a_search_and_with_unequal_budgets(
    searched, birds, cache_dir, tmp_path
):
    with pytest.raises(ValueError, match=f"dml-bench tune {NAME} --set .* --seeds 42 --out .*one$"):
        db.plan_suite([NAME], overrides=SETTINGS, tuned=True, out=tmp_path)
    search, _ = searched
    out = search.path.parents[3]
    other = "EPSHN_cosine_resnet18_sgd_aug+mixup"
    search_settings(
        request(
            birds,
            cache_dir,
            out,
            name=other,
            experiment=db.resolve(other, [*SETTINGS, "mixing.start_from=0"]),
        )
    )
    settings = [*SETTINGS, "mixing.start_from=0"]
    names = [NAME, other]
    with pytest.raises(ValueError, match="as many trials for each row"):
        db.plan_suite(names, overrides=settings, tuned=True, out=out)


TABLE = """
title = "Two data sets, of which one was searched"
seeds = [42]

[[data]]
dataset = "cub"
tables = ["row"]
holdouts = "last:1"
tuned_holdouts = "last:2"
settings = {settings}

[[data]]
dataset = "demo"
tables = ["row"]
holdouts = "last:1"
tuned_holdouts = "last:2"
"""


def test_a_table_over_data_sets_is_tuned_where_there_are_searches_and_opens_each_once(
    searched, birds, cache_dir, tmp_path, monkeypatch
):
    opened = []

    def counted(component, *where, **how):
        opened.append(component.name)
        return open_dataset(component, *where, **how)

    for module in ("over_data_sets", "run"):
        monkeypatch.setattr(f"dml_bench.suite.{module}.open_dataset", counted)
    (tmp_path / "tables").mkdir()
    settings = [setting for setting in SETTINGS if not setting.startswith("unseen=")]
    (tmp_path / "tables" / "two.toml").write_text(TABLE.format(settings=settings))
    (tmp_path / "tables" / "row.toml").write_text(f'title = "One"\nrows = ["{NAME}"]')
    monkeypatch.setattr("dml_bench.config.tables.EXPERIMENTS", tmp_path)
    search, _ = searched
    where = {"data_dir": birds, "cache_dir": cache_dir, "out": tmp_path / "runs", "tuned": True}
    planned = db.plan_suites("two", results=search.path.parents[3], **where)
    assert [row.name for row in planned.suites["cub"].rows] == [NAME, f"{NAME}~tuned"]
    assert list(planned.absent) == ["demo"]
    command = f"dml-bench tune {NAME} --set data.dataset=demo --set unseen=last:2 --seeds 42"
    assert command in planned.absent["demo"]
    assert len(db.suite_commands(planned)) == 2
    assert opened == ["cub"]
    without = db.plan_suites("two", results=tmp_path, **where)
    assert list(without.searches) == list(without.absent) == ["cub", "demo"]
    with pytest.raises(ValueError, match="no data set has the searches that --tuned needs"):
        db.suite_commands(without)


def test_a_run_refuses_settings_of_a_search_that_knew_its_unseen_classes(
    searched, birds, cache_dir, tmp_path
):
    search, _ = searched
    tuned = search.tuned()
    for changes, reason in (
        (("unseen=last:3",), "knew 1 of the classes that are held out, e.g. 006"),
        (("seed=43",), "used another split of cub"),
    ):
        experiment = replace(tiny(*changes), tuned=tuned)
        run_request = RunRequest(
            experiment=experiment, data_dir=birds, cache_dir=cache_dir, out=tmp_path, device="cpu"
        )
        with pytest.raises(ValueError, match=reason):
            execute(run_request)


def test_too_few_known_classes_are_said(birds, cache_dir, tmp_path):
    with pytest.raises(ValueError, match="2 classes of cub are held out by no phase, too few"):
        search_settings(
            request(birds, cache_dir, tmp_path, experiment=tiny("unseen=random:3:1 x 2"))
        )


def test_a_trial_stops_below_the_median_of_those_before_it():
    def ended(**reported: float) -> Trial:
        return Trial(settings={}, score=1.0, state="complete", reported=reported, seconds=0.0)

    before = [ended(**{"5": 0.2}), ended(**{"5": 0.4}), ended(**{"9": 0.9})]
    assert is_worse({"5": 0.29}, "5", before)
    assert not is_worse({"5": 0.31}, "5", before)
    assert not is_worse({"5": 0.0}, "5", before[:1])  # one is no median


def test_a_trial_trains_for_a_part_of_the_epochs_with_all_that_is_counted_in_epochs():
    experiment = db.resolve("EPSHN_cosine_resnet18_sgd_aug+samplepairing")
    shorter = shortened(experiment, read_space("networks"))
    assert experiment.train.epochs == 100 and shorter.train.epochs == 33
    assert shorter.mixing.start_from == round(experiment.mixing.start_from * 0.33)
    assert shorter.mixing.finetuning_epoch == round(experiment.mixing.finetuning_epoch * 0.33)
    assert shorter.evaluate.every == 8
    plateau = tiny("schedule=plateau", "data.valid_fraction=0.2")
    assert shortened(plateau, replace(SMALL, epochs=1.0)).evaluate.every == 1
    waiting = ("labelling=plc", "labelling.listen_from=0.2", "loss=crossentropy", "miner=none")
    with pytest.raises(ValueError, match=r"and a trial trains on none of their classes: --set"):
        shortened(tiny(*waiting, "data.valid_fraction=0.2"), SMALL)


def test_what_ends_after_an_epoch_ends_after_one_in_a_shorter_trial_too():
    """Not after 0, which is never."""
    classifier = ("loss=crossentropy", "miner=none")
    ending = tiny(*classifier, "mixing.technique=mixup", "mixing.finetuning_epoch=1")
    space = read_space("networks")
    assert shortened(ending, space).mixing.finetuning_epoch == 1
    starting = tiny("start=classifier", "start.epochs=1")
    assert shortened(starting, space).start.options["epochs"] == 1


def test_a_trial_sees_images_changed_as_it_proposes(birds, cache_dir, tmp_path):
    colours = {"augment.color_jitter": Range(low=0.0, high=1.0)}
    space = replace(SMALL, ranges=colours, of_loss={})
    where = request(birds, cache_dir, tmp_path, space=space)
    trainer = TrialTrainer(shortened(tiny(), space), where)
    views = []
    for strength in (0.0, 1.0):
        changed = tiny(f"augment.color_jitter={strength}")
        state = trainer.state(changed)
        views.append(state.source.train(state.images[:8], phase="tuning", epoch=1))
    assert not torch.equal(*views)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("data.test_fraction", "decides images and labels"),
        ("evaluate.tta_plain_weight", "no trial follows"),
        ("augment.resized_crop", "needs all images decoded anew for each value"),
    ],
)
def test_a_setting_of_a_part_that_trials_do_not_change_is_refused_in_a_space(key, reason):
    space = replace(SMALL, ranges={key: Range(low=0.0, high=1.0)})
    with pytest.raises(ValueError, match=f"the space small has {key}, which {reason}: leave it"):
        own_settings(tiny(), space)


def test_whole_numbers_are_no_settings_of_a_space():
    space = replace(SMALL, ranges={"train.batch_size": Range(low=8, high=32)})
    with pytest.raises(ValueError, match=r"has train\.batch_size, which is no fraction"):
        own_settings(tiny(), space)


def test_a_shorter_trial_has_an_epoch_for_each_part_of_the_training():
    classifier = ("train.epochs=10", "loss=crossentropy", "miner=none")
    mixed = (*classifier, "mixing.technique=mixup")
    between = shortened(tiny(*mixed, "mixing.start_from=2", "mixing.finetuning_epoch=3"), SMALL)
    assert (between.train.epochs, between.mixing.active(2)) == (3, True)
    assert shortened(tiny(*mixed, "mixing.start_from=9"), SMALL).mixing.active(3)
    assert shortened(tiny(*classifier, "train.head_epochs=9"), SMALL).train.head_epochs == 2
    assert shortened(tiny(*classifier, "train.head_epochs=10"), SMALL).train.head_epochs == 3
    growing = tiny(*classifier, "images.progressive=[16, 20, 24, 28, 32]")
    assert shortened(growing, SMALL).images.progressive == (24, 28, 32)


def test_multiples_of_nothing_are_no_settings():
    with pytest.raises(ValueError, match=r"optimizer\.lr of .* must not be 0, .*: --set another"):
        own_settings(tiny("optimizer.lr=0"), read_space("networks"))


@pytest.mark.parametrize("name", space_names())
def test_the_spaces_that_come_with_the_package_fit_losses_that_exist(name):
    space = read_space(name)
    for loss, ranges in space.of_loss.items():
        known = losses[loss].resolve({}, "loss")
        for key in ranges:
            section, _, option = key.partition(".")
            assert section in ("loss", "train")
            assert section == "train" or option in known


def test_each_head_of_the_photographs_can_be_searched_from_its_own_settings():
    space = read_space("heads")
    for row in read_table("photographs").rows:
        if row.endswith("_head"):
            assert own_settings(db.resolve(row), space)


def test_shared_multiples_hold_for_what_extends_the_experiment(birds, cache_dir, tmp_path):
    shared = replace(
        read_space("networks"),
        ranges={"optimizer.lr": Range(low=0.5, high=2, log=True, times=True)},
    )
    search = search_settings(request(birds, cache_dir, tmp_path, space=shared))
    factor = search.best.settings["optimizer.lr"]
    older = read_json(search.path)
    del older["multiples"], older["space"]["startup_trials"]  # said only since
    write_json(search.path, older)
    child = "EPSHN_cosine_resnet18_sgd_aug+ranger_flatcos"
    planned = db.plan_suite([child], overrides=SETTINGS, out=tmp_path)
    [_, tuned] = with_tuned_rows(planned.rows, [tmp_path], "", list(SETTINGS))
    own = planned.rows[0].seeds[0].optimizer.options["lr"]
    assert tuned.seeds[0].optimizer.options["lr"] == pytest.approx(own * factor)
    assert tuned.seeds[0].tuned.by == NAME


def test_the_command_prints_what_it_chose_and_a_space_is_read_or_refused(
    monkeypatch, capsys, birds, cache_dir, tmp_path
):
    own = tmp_path / "one.toml"
    own.write_text(
        'summary = "s"\ntrials = 2\nepochs = 0.4\nvalid_classes = 0.5\nprune = false\n'
        'shared = false\n[all]\n"optimizer.lr" = { low = 0.01, high = 0.1, log = true }\n'
    )
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    where = places(birds, cache_dir, tmp_path / "runs")[:-2]
    typed = ("tune", NAME, *settings, *where, "--trials", 2)
    assert dml_bench(monkeypatch, *typed, "--space", own) == 0
    printed = capsys.readouterr().out
    assert "optimizer.lr = " in printed and "(own 0.05)" in printed
    assert "MAP@R on 3 validation classes: " in printed and "2 trials (2 complete), " in printed
    assert "unknown space 'head'" in refusal(monkeypatch, capsys, *typed, "--space", "head")
    own.write_text("trials = 2")
    assert "can't be read" in refusal(monkeypatch, capsys, *typed, "--space", own)


def test_names_of_tuned_rows_belong_to_their_experiment():
    assert tuned_name("A") == "A~tuned"
    assert tuned_name("A~train.epochs=1") == "A~train.epochs=1,tuned"
    assert base_name(tuned_name("A")) == "A"
    assert settings_in_short("A~tuned") == ["tuned"]


def test_a_variant_of_a_table_takes_the_search_of_its_experiment_with_the_same_settings(
    searched, birds
):
    search, _ = searched
    out = search.path.parents[3]
    sweep = ["evaluate.every=1,2"]
    planned = db.plan_suite([NAME], overrides=SETTINGS, sweeps=sweep, seeds=[42], out=out)
    rows = with_tuned_rows(planned.rows, [out], "", list(SETTINGS))
    assert [row.name.rpartition(",")[2] for row in rows[1::2]] == ["tuned", "tuned"]
    assert {row.seeds[0].tuned for row in rows[1::2]} == {search.tuned()}
