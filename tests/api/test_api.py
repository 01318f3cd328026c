"""The public functions: each is written down, says what it does, and its example runs."""

import doctest
import importlib
import inspect
import json
import logging
import pkgutil
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SETTINGS, dml_bench

import dml_bench as db
from dml_bench.report import compose
from dml_bench.system.seeding import seed_everything

BASELINE = "EPSHN_cosine_resnet18_sgd_aug"
STAR = f"{BASELINE}*"
ROOMS = {module.name for module in pkgutil.iter_modules(db.__path__)}
SLOW = ("DecisionReport", "DrawnMap", "EmbeddingFiles", "draw_map", "log_to_wandb", "write_report")
"""Their examples run a decision's rows, or wait for UMAP's compiler and for W&B's own process."""
FUNCTIONS = [name for name in db.__all__ if inspect.isfunction(getattr(db, name))]


@pytest.fixture(scope="module")
def desk(birds, trained, tmp_path_factory) -> Path:
    """A folder as a user has it: runs of two seeds, their data set, a photo, a new class."""
    folder = tmp_path_factory.mktemp("desk")
    for seed in ((), ("seed=43",)):
        run = trained(*seed).folder
        shutil.copytree(run, (folder / "runs").joinpath(*run.parts[-3:]))
    (folder / "CUB_200_2011").symlink_to(birds)
    images = sorted((birds / "images").glob("*/*.jpg"))
    (folder / "photo.jpg").write_bytes(images[0].read_bytes())
    (folder / "new_classes" / "pigeon").mkdir(parents=True)
    for number in (1, 2):
        turned = Image.open(images[-number]).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        turned.save(folder / "new_classes" / "pigeon" / f"{number}.png")
    return folder


@pytest.fixture
def at_desk(desk, cache_dir, monkeypatch) -> Path:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("DML_BENCH_CACHE", str(cache_dir))
    return desk


def test_the_package_is_imported_without_anything_heavy():
    listing = "import dml_bench, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    modules = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "dml_bench" in modules
    assert set(modules).isdisjoint({"torch", "numpy", "pandas", "rich", "typer", "faiss", "PIL"})


def test_no_public_name_is_the_name_of_a_room():
    assert ROOMS.isdisjoint(db.__all__)


def test_public_names_stay_what_they_are_when_every_module_is_imported():
    before = {name: getattr(db, name) for name in db.__all__}
    for module in pkgutil.walk_packages(db.__path__, "dml_bench."):
        importlib.import_module(module.name)
    assert {name: getattr(db, name) for name in db.__all__} == before
    assert all(callable(value) for value in before.values())


def test_every_public_function_of_the_api_is_in_all():
    homes = [importlib.import_module(f"dml_bench.api.{room.name}") for room in api_modules()]
    public = {name for home in homes for name in home.__all__}
    assert public == {
        name for name in db.__all__ if getattr(db, name).__module__.startswith("dml_bench.api.")
    }


def api_modules() -> list[pkgutil.ModuleInfo]:
    api = importlib.import_module("dml_bench.api")
    return [module for module in pkgutil.iter_modules(api.__path__) if module.name != "arguments"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_raises_and_where_it_comes_from(name):
    text = inspect.getdoc(getattr(db, name)) or ""
    assert "\nRaises " in text
    assert "\nSource: " in text


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in db.__all__],
)
def test_the_example_of_a_public_name_runs(name, at_desk, plugins_removed):
    names = {"db": db, "trained_with": list(SETTINGS)}
    text = inspect.getdoc(getattr(db, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    runner = doctest.DocTestRunner(verbose=False, optionflags=flags)  # else as `pytest -v` has it
    runner.run(example, out=said.append)
    assert not said, "".join(said)


def test_a_run_that_is_finished_is_read_and_not_trained_again(at_desk):
    heard = []

    class Listener(db.Callback):
        def note(self, text):
            heard.append(text)

        def on_epoch(self, record):
            raise AssertionError("nothing is trained")

    run = db.run(
        "EPSHN_cosine_resnet18_sgd_aug",
        data_dir="CUB_200_2011",
        overrides=SETTINGS,
        device="cpu",
        callback=Listener(),
    )
    assert run.summary == db.load_run("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42").summary
    assert heard == ["this run is finished already; --force redoes it"]


def test_overrides_are_values_by_key_as_well_as_texts():
    values = {"train.epochs": 3, "optimizer.lr": 0.5, "unseen": "last:5", "train.precision": "auto"}
    texts = ["train.epochs=3", "optimizer.lr=0.5", "unseen=last:5", "train.precision=auto"]
    name = "EPSHN_cosine_resnet18_sgd_aug"
    assert db.resolve(name, values) == db.resolve(name, texts)


@pytest.mark.parametrize("name", ["\N{BIRD},café", "\N{BIRD}\x7f", "42", "  kept", "a\nb", ""])
def test_a_text_is_handed_over_as_it_is(name):
    assert db.resolve("EPSHN_cosine_resnet18_sgd_aug", {"unseen": name}).unseen == name
    weights = db.resolve("EPSHN_cosine_resnet18_sgd_aug", {"model.weights": name}).model.weights
    assert weights == name


def test_the_same_settings_are_the_same_run_as_values_and_as_texts():
    texts = ["loss=MultiSimilarity", "model.weights=none", "optimizer.lr=0.5"]
    values = {"loss": "MultiSimilarity", "model.weights": "none", "optimizer.lr": 0.5}
    name = "EPSHN_cosine_resnet18_sgd_aug"
    by_value, by_text = (db.plan_suite([name], overrides=chosen) for chosen in (values, texts))
    assert by_value.rows[0].name == by_text.rows[0].name
    assert by_value.overrides == by_text.overrides


def test_an_override_that_is_no_value_of_an_experiment_is_refused():
    with pytest.raises(ValueError, match=r"train must be a text.*train\.PART"):
        db.resolve("EPSHN_cosine_resnet18_sgd_aug", {"train": {"epochs": 3}})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: db.load_runs(3), "a path must be text or a Path, got 3: name one"),
        (lambda: db.load_run(["runs"]), r"a path must be text or a Path, got \['runs'\]: "),
        (lambda: db.write_report([3]), "a path must be text or a Path, got 3"),
        (lambda: db.run("frozen_resnet18", data_dir=3), "a path must be .*, got 3"),
        (lambda: db.run(3), "an experiment must be a name, .*, got 3: `dml-bench list"),
        (lambda: db.run("frozen_resnet18", callback=print), r"callback must be a dml_bench\.Call"),
        (lambda: db.resolve("frozen_resnet18", overrides=3), "overrides must be .*, got 3: write"),
        (lambda: db.resolve("frozen_resnet18", overrides=[3]), r"must be .*, got \[3\]: write"),
        (lambda: db.decide("photos", minutes="2"), "minutes must be a number, got '2': give"),
        (lambda: db.decide("photos", minutes=np.int64(0)), "--minutes must be more than 0, got 0"),
        (lambda: db.check_data("new_classes"), "is a folder .* add --data-dir new_classes"),
        (lambda: db.plan_suite([3]), r"experiments must be a text or .*, got \[3\]: write"),
        (lambda: db.plan_suite(BASELINE, seeds="42"), "seeds must be a list .*, got '42': write"),
        (
            lambda: explained_once("no_maps", mistakes=-1),
            "mistakes must be .* at least 0, got -1: ",
        ),
        (lambda: explained_once("no_maps", mistakes=1.5), "mistakes must be .* at least 0, got 1"),
        (lambda: explained_once("no_maps", scored=-3), "scored must be a whole .* got -3: write 0"),
        (lambda: evidence_of(mistakes=-1), "mistakes must be a whole number of at least 0, got -1"),
        (lambda: evidence_of(images=["photo.jpg"]), r"photo\.jpg is no query of"),
        (lambda: db.cached(3), "kinds must be a text or a list of texts, got 3: write"),
        (lambda: db.evaluate("a.npz", labels="a.csv", unseen=["c"]), r"unseen must .*\['c'\]: wri"),
        (lambda: db.draw_map(embedded(unseen=["c"]), "map.svg"), r"unseen must be one text.*: wri"),
        (lambda: at_gallery().predict(3), "a path must be text or a Path, got 3"),
        (lambda: at_gallery().predict([]), "there are no photos: give"),
        (lambda: at_gallery().predict("photo.jpg", k=0), "k must be .* at least 1, got 0: that"),
        (lambda: at_gallery().predict("photo.jpg", precision="0.9"), "precision must be a number"),
    ],
)
def test_a_value_of_another_kind_is_one_line_with_the_next_step(call, message, at_desk):
    with pytest.raises(ValueError, match=message):
        call()
    assert not Path("no_maps").exists()
    assert not Path("no_evidence").exists()


def embedded(**options: object) -> db.EmbeddingFiles:
    Path("classes.csv").write_text("path,class\n" + "a.jpg,c\n" * 8)
    return db.EmbeddingFiles(embeddings="all.npz", labels="classes.csv", **options)


def test_one_text_is_a_list_of_one(at_desk, monkeypatch):
    """Its letters are no names, and the star among them is no pattern for all."""
    finished = next(Path("runs").glob("*/*/seed-42"))
    explained = db.explain_run(finished, "maps", mistakes=1, methods="vanilla", scored=0)
    record = json.loads(explained.page.with_name("explain.json").read_text())
    assert list(record["methods"]) == ["vanilla"]
    assert db.plan_suite(BASELINE, seeds=7).rows == db.plan_suite([BASELINE], seeds=[7]).rows
    assert db.plan_suite(only=STAR).rows == db.plan_suite(only=[STAR]).rows
    rates = "optimizer.lr=0.01,0.1"
    swept = [db.plan_suite(BASELINE, sweeps=text).rows for text in (rates, [rates])]
    assert swept[0] == swept[1]
    wanted = []
    monkeypatch.setattr(compose, "report", lambda *_, figures, **__: wanted.extend(figures))
    db.write_report(finished, "page", figures="changes-*")
    assert wanted == ["changes-*"]
    assert db.cached("images") == db.cached(["images"])


def at_gallery() -> db.Gallery:
    return db.Gallery(next(Path("runs").glob("*/*/seed-42")), device="cpu")


def test_runs_and_enrolments_are_short_where_a_notebook_shows_them(at_desk):
    gallery = at_gallery()
    assert repr(gallery.run) == f"Run(folder={gallery.run.folder!r}, data_dir=None)"
    assert len(repr(gallery.enrol("new_classes"))) < 200
    gallery.remove("pigeon")


@pytest.mark.parametrize(
    "call",
    [
        lambda: db.run(BASELINE, data_dir="CUB_200_2011", overrides=SETTINGS, device="cpu"),
        lambda: at_gallery().predict("photo.jpg"),
        lambda: explained_once("maps_of_one"),
        lambda: db.draw_batches(BASELINE, data_dir="CUB_200_2011", overrides=SETTINGS, images=2),
        lambda: db.find_learning_rate(
            BASELINE, data_dir="CUB_200_2011", overrides=SETTINGS, steps=9, device="cpu"
        ),
    ],
    ids=["run", "predict", "explain_run", "draw_batches", "find_learning_rate"],
)
def test_a_notebook_draws_on_as_if_nothing_had_been_called(call, at_desk):
    """It would draw the same photo before each `predict`, and train deterministically itself."""
    seed_everything("a notebook")
    torch.set_deterministic_debug_mode("default")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    call()
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before
    assert torch.get_deterministic_debug_mode() == 0


def explained_once(out: str, **options: object) -> object:
    finished = next(Path("runs").glob("*/*/seed-42"))
    chosen = {"mistakes": 1, "scored": 1, **options}
    return db.explain_run(finished, out, methods="vanilla", device="cpu", **chosen)


def evidence_of(**options: object) -> object:
    return db.write_evidence(next(Path("runs").glob("*/*/seed-42")), "no_evidence", **options)


def test_a_device_of_torch_is_one_by_its_name(at_desk):
    finished = next(Path("runs").glob("*/*/seed-42"))
    by_torch = db.Gallery(finished, device=torch.device("cpu")).predict("photo.jpg")
    assert by_torch[0].closest == at_gallery().predict("photo.jpg")[0].closest


def test_one_override_is_a_text():
    resolved = db.resolve("frozen_resnet18", overrides="seed=7")
    assert resolved == db.resolve("frozen_resnet18", overrides={"seed": 7})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.epochs", np.int64(3), 3),
        ("optimizer.lr", np.float32(0.5), 0.5),
        ("optimizer.lr", torch.tensor(0.5), 0.5),
        ("images.mean", np.array([0.5, 0, 1]), [0.5, 0, 1]),
        ("images.mean", [np.float32(0.5), 0, 1], [0.5, 0, 1]),
        ("data.split", Path("given"), "given"),
    ],
)
def test_numbers_of_numpy_and_paths_are_overrides_as_those_of_python(key, value, expected):
    """As of a column of a DataFrame or of numpy.arange; in a list they were a traceback."""
    others = {"images.std": [0.5, 0.5, 0.5]} if key == "images.mean" else {}
    resolved = db.resolve(BASELINE, {key: value, **others})
    assert resolved == db.resolve(BASELINE, {key: expected, **others})


@pytest.mark.parametrize(
    ("value", "step"),
    [(None, "leave it out"), ({"a": 1}, r"set its parts one by one"), ([b"3"], "write it as one")],
)
def test_an_override_that_toml_has_not_is_one_line(value, step):
    with pytest.raises(ValueError, match=f"^overrides: images.mean must be a text, .*: {step}"):
        db.resolve(BASELINE, {"images.mean": value})


def test_a_seed_is_a_whole_number_and_may_be_below_0(at_desk):
    lines = ["path,class", *(f"{row:02}.jpg,{row % 4}" for row in range(24))]
    Path("classes.csv").write_text("\n".join(lines))
    np.savez("any.npz", embeddings=np.eye(24) + 1)
    files = {"embeddings": "any.npz", "labels": "classes.csv"}
    assert db.evaluate(**files, seed=-1).results
    for call in (
        lambda: db.evaluate(**files, seed=42.0),
        lambda: db.draw_map(db.EmbeddingFiles(**files, seed=42.0), "map.svg"),
        lambda: db.check_data("cub", "CUB_200_2011", seed=42.0),
        lambda: db.draw_birds("more_birds", classes=1, per_class=1, size=32, seed="7"),
    ):
        with pytest.raises(ValueError, match="^seed must be a whole number, got .*: write one"):
            call()


def test_a_resolved_experiment_takes_no_overrides():
    experiment = db.resolve("EPSHN_cosine_resnet18_sgd_aug")
    with pytest.raises(ValueError, match="is resolved already"):
        db.run(experiment, overrides={"train.epochs": 3})


def test_the_table_of_runs_has_configuration_and_metrics_as_columns(at_desk):
    table = db.load_runs("runs")
    assert list(table["seed"]) == [42, 43]
    assert set(table["loss"]) == {"NTXent"}
    assert set(table["images.size"]) == {32}
    summaries = [db.load_run(folder).summary for folder in table["folder"]]
    for name in ("precision_drop_unseen_classes", "precision_drop_all_classes"):
        assert list(table[name]) == [summary[name] for summary in summaries]
    limited = [summary["phases"]["limited"]["precision_at_1_macro"] for summary in summaries]
    assert list(table["precision_at_1_macro_limited"]) == limited


def test_the_table_of_runs_warns_of_what_it_leaves_out(at_desk, tmp_path, monkeypatch, capsys):
    # As in a program that sets no logging up; libraries of other tests may have done so.
    monkeypatch.setattr(logging.root, "handlers", [])
    folder = Path("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    broken = tmp_path / "runs" / "a" / "cub" / "seed-42"
    broken.mkdir(parents=True)
    for file in ("experiment.json", "environment.json"):
        (broken / file).write_bytes((folder / file).read_bytes())
    with pytest.raises(ValueError, match="holds no finished run"):
        db.load_runs(tmp_path)
    assert "is not finished" in capsys.readouterr().err


def test_a_comparison_prints_as_the_command_shows_it(at_desk, monkeypatch, capsys):
    folders = [f"runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-{seed}" for seed in (42, 42)]
    assert dml_bench(monkeypatch, "compare", *folders) == 0
    assert str(db.compare(*folders)) == capsys.readouterr().out
