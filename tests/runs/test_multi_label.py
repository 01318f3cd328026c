"""Images of several labels: read from a table, divided, trained on by a classifier and by pairs,
found by votes, reported, and predicted for a new photo."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tiny import SETTINGS, dml_bench, refusal, tiny

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.browse.run_images import read_browse_table
from dml_bench.config.tuning import read_space, space_for
from dml_bench.data.datasets import open_dataset
from dml_bench.data.datasets.drawn import attributes
from dml_bench.data.label_sets import combined, label_sets_of, strata
from dml_bench.data.split import split_of
from dml_bench.data.synthetic import species
from dml_bench.evaluation.label_sets import average_precision, mean_with_interval, resamples
from dml_bench.evaluation.metrics import micro
from dml_bench.evaluation.statistics import interval
from dml_bench.losses.objective import SharedLabels
from dml_bench.runs.run import Run, open_run
from dml_bench.system.files import read_csv
from dml_bench.tracking.artifacts import embeddings_table
from dml_bench.training.tuning import TrialTrainer, TuningRequest, shortened

CLASSIFIER = "BCE_resnet18_sgd_aug+multilabel"
PAIRS = "MultiSimilarity_cosine_resnet18_sgd_aug+multilabel"
SMALL = [setting for setting in SETTINGS if not setting.startswith("unseen")]


@pytest.fixture(scope="module")
def photos(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn birds with a table of their attributes, in no order and with spaces."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for label, bird in enumerate(species(8, seed=3)):
        [place] = birds.joinpath("images").glob(f"{label + 1:03}.*")
        for number, file in enumerate(sorted(place.iterdir())):
            (folder / "images").mkdir(exist_ok=True)
            shutil.copy(file, folder / "images")
            labels = attributes(bird)
            rows.append((file.name, " ; ".join(labels if number % 2 else labels[::-1])))
    with (folder / "train.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "label"), *rows])
    return folder


@pytest.fixture(scope="module")
def runs(photos: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the classifier and one of pairs."""
    out = tmp_path_factory.mktemp("runs")
    for name in (CLASSIFIER, PAIRS):
        db.run(
            name,
            overrides=[*SMALL, "evaluate.vote_k=[1, 5]"],
            data_dir=photos,
            out=out,
            cache_dir=cache_dir,
            device="cpu",
            callback=db.Callback(),
        )
    return out


def run_in(runs: Path, name: str) -> Run:
    [folder] = runs.glob(f"{name}~*")
    return open_run(folder)


# Labels


def test_the_labels_of_a_row_are_a_set_whatever_their_order_and_spaces(photos, cache_dir):
    dataset = open_dataset(db.resolve(CLASSIFIER).data.dataset, photos, cache_dir)
    wanted = {combined(attributes(bird)) for bird in species(8, seed=3)}
    assert set(dataset.class_names) == wanted
    names, members = dataset.label_sets.names, dataset.label_sets.members
    for row, name in enumerate(dataset.class_names):
        assert [names[label] for label in np.flatnonzero(members[row])] == name.split(";")


def test_images_are_divided_by_their_rarest_label_and_none_stands_alone():
    sets = label_sets_of(["a;b", "a", "a;c", "a;b;c", "a;d"])
    labels = np.array([0, 1, 1, 1, 2, 2, 3, 4])
    # b has 2 images, c 3, a all 8; d one, which goes with a.
    assert strata(labels, sets).tolist() == [1, 0, 0, 0, 2, 2, 1, 0]


@pytest.mark.parametrize("name", [CLASSIFIER, PAIRS])
def test_a_trial_of_a_search_trains_each_image_on_its_own_labels(photos, cache_dir, tmp_path, name):
    """Which it did not: without the validation classes, labels and class ids differ."""
    experiment = db.resolve(name, SMALL)
    space = read_space(space_for(experiment))
    request = TuningRequest(
        experiment=experiment,
        name=name,
        space=space,
        trials=2,
        data_dir=photos,
        out=tmp_path,
        cache_dir=cache_dir,
        device="cpu",
        callback=db.Callback(),
    )
    trainer = TrialTrainer(shortened(experiment, space), request)
    state = trainer.state(trainer.experiment)
    assert len(state.phase.held_out_classes) > 0
    [(labels, _)] = state.labels.targets(state.images)
    objective = state.objective
    members = objective.label_sets if objective.miner is None else objective.miner.members
    dataset = state.dataset
    own = dataset.label_sets.members[dataset.labels[state.images]]
    assert np.array_equal(members[labels].numpy(), own)


def test_two_images_that_share_a_label_are_positives_and_others_are_negatives():
    sets = label_sets_of(["a;b", "b;c", "d"])
    miner = SharedLabels(sets.members)
    positive, its, negative, theirs = miner(torch.zeros(4, 2), torch.tensor([0, 1, 2, 2]))
    assert set(zip(positive.tolist(), its.tolist(), strict=True)) == {
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
    }
    assert set(zip(negative.tolist(), theirs.tolist(), strict=True)) == {
        *((0, 2), (0, 3), (1, 2), (1, 3)),
        *((2, 0), (2, 1), (3, 0), (3, 1)),
    }


# Average precision


@pytest.mark.parametrize("steps", [3, 1000])
def test_average_precision_is_scikit_learns_also_with_ties_and_weights(steps):
    rng = np.random.default_rng(steps)
    truth = rng.random((60, 5)) < 0.3
    truth[:, 4] = False
    scores = rng.integers(0, steps, (60, 5)) / steps
    counts = rng.integers(0, 4, (7, 60)).astype(float)
    ours = average_precision(truth, scores, counts)
    plain = average_precision(truth, scores)
    assert np.isnan(plain[0, 4]) and np.isnan(ours[:, 4]).all()
    for label in range(4):
        expected = average_precision_score(truth[:, label], scores[:, label])
        assert plain[0, label] == pytest.approx(expected)
        for draw in range(7):
            expected = average_precision_score(
                truth[:, label], scores[:, label], sample_weight=counts[draw]
            )
            assert ours[draw, label] == pytest.approx(expected)


def test_the_interval_of_a_map_is_that_of_resampled_queries():
    rng = np.random.default_rng(1)
    truth = rng.random((80, 3)) < 0.4
    scores = truth + rng.normal(0, 1, (80, 3))
    mean, low, high = mean_with_interval(truth, scores, resamples(80, seed=1))
    assert mean == pytest.approx(average_precision_score(truth, scores, average="macro"))
    redrawn = []
    for _ in range(400):
        rows = rng.integers(0, 80, 80)
        redrawn.append(average_precision_score(truth[rows], scores[rows], average="macro"))
    assert (low, high) == pytest.approx(np.percentile(redrawn, [2.5, 97.5]), abs=0.03)


def test_intervals_of_a_map_lie_around_it_and_hold_what_such_queries_have_on_average():
    """Resamples have a higher mAP than their queries, and their percentiles lay too high, by a
    fifth of their width where a label has a dozen images."""
    rng = np.random.default_rng(5)
    intervals = []
    for _ in range(40):
        truth = rng.random((400, 8)) < 0.03
        scores = truth + rng.normal(0, 0.8, (400, 8))
        intervals.append(mean_with_interval(truth, scores, resamples(400, seed=1)[:100]))
    means, low, high = np.array(intervals).T
    held = (low <= means.mean()) & (means.mean() <= high)
    assert held.mean() >= 0.9
    assert np.abs((low + high) / 2 - means).mean() < 0.1 * (high - low).mean()


# Two runs


@pytest.mark.parametrize("name", [CLASSIFIER, PAIRS])
def test_a_run_measures_map_by_votes_and_by_its_logits(runs, name):
    run = run_in(runs, name)
    retrieval = run.summary["retrieval"]
    rows = read_csv(run.folder / "predictions.csv")
    sets = label_sets_of(sorted({image.class_name for image in run.split}))
    place = {label: at for at, label in enumerate(sets.names)}
    truth = np.zeros((len(rows), len(place)), bool)
    for at, row in enumerate(rows):
        truth[at, [place[label] for label in row["class"].split(";")]] = True
    present = truth.any(axis=0)
    neighbours = run.neighbours["all"]
    names = dict(zip(neighbours.query_labels, (row["class"] for row in rows), strict=True))
    votes = np.zeros(truth.shape)
    for at, nearest in enumerate(neighbours.labels[:, :5]):
        for label in nearest:
            votes[at, [place[part] for part in names[label].split(";")]] += 0.2
    by_votes = average_precision_score(
        truth[:, present], votes[:, present].round(6), average="macro"
    )
    assert retrieval["map_vote_5"] == pytest.approx(by_votes)
    assert retrieval["map_vote_5_low"] < by_votes < retrieval["map_vote_5_high"]
    assert by_votes > truth[:, present].mean()  # more than chance
    assert ("map_classifier" in retrieval) == (name == CLASSIFIER)
    if name == CLASSIFIER:
        scores = run.logits("all").probabilities
        by_logits = average_precision_score(truth[:, present], scores[:, present], average="macro")
        assert retrieval["map_classifier"] == pytest.approx(by_logits)
        said = rows[0]["all_logits_labels"].split(";") if rows[0]["all_logits_labels"] else []
        assert said == [sets.names[label] for label in np.flatnonzero(scores[0] >= 0.5)]


@pytest.mark.slow
def test_a_table_of_labels_a_page_and_a_comparison_are_made_of_these_runs(
    runs, monkeypatch, capsys, tmp_path
):
    run = run_in(runs, CLASSIFIER)
    labels = read_csv(run.folder / "labels_metrics.csv")
    assert {"label", "gallery images", "test images", "average precision, classifier"} <= {
        *labels[0]
    }
    assert dml_bench(monkeypatch, "report", runs, "--out", tmp_path / "page") == 0
    page = (tmp_path / "page" / "report.md").read_text()
    assert "mAP, classifier" in page and "mAP, 5 votes" in page
    capsys.readouterr()
    folders = [run_in(runs, name).folder for name in (CLASSIFIER, PAIRS)]
    assert dml_bench(monkeypatch, "compare", *folders) == 0
    assert "same labels" in capsys.readouterr().out
    frame = db.load_runs(runs)
    assert frame["map_vote_5"].between(0, 1).all()
    assert dml_bench(monkeypatch, "record", *folders, "--results", tmp_path / "results") == 0
    recorded = db.load_runs(tmp_path / "results")["map_vote_5"]
    assert sorted(recorded) == pytest.approx(sorted(frame["map_vote_5"]), abs=1e-4)


def test_seeds_whose_test_images_have_other_combinations_are_averaged(runs):
    """A report on two seeds ended with an error, as rare combinations are tested in some alone."""
    run = run_in(runs, CLASSIFIER)
    metrics, nearest = run.protocol.metrics(run.experiment), run.neighbours["all"]
    common = nearest.query_labels == nearest.query_labels[0]
    other = replace(nearest, query_labels=np.where(common, nearest.query_labels, 7))
    of_other_seed = SimpleNamespace(neighbours={"all": other})
    for metric in metrics.values():
        seeds = [metric.scores(run), metric.scores(of_other_seed)]
        by_seed = [micro(scores.values) for scores in seeds]
        measured = interval(seeds, average="micro").estimate
        assert measured == pytest.approx(np.mean(by_seed))


def test_a_page_on_a_classifier_alone_says_what_was_asked(runs, tmp_path):
    """It said that the labels were never trained on, or, of a classifier alone, ended with "Data
    cannot be log-scaled", as its logits were asked for."""
    run = run_in(runs, CLASSIFIER)
    [study] = studies_of(collect([run.folder]))
    [line] = study.group.lines
    assert study.right(line) == study.measure(line, "known")
    page = db.write_report(run, tmp_path / "page").with_name("report.md").read_text()
    assert "### How often does the nearest image have the same labels?" in page
    assert "finds an image of exactly the same labels first for" in page
    assert "never trained on" not in page and "by their logits" not in page


def test_a_new_photo_gets_each_label_with_its_share_of_votes(runs, photos, monkeypatch, capsys):
    run = run_in(runs, CLASSIFIER)
    photo = sorted((photos / "images").iterdir())[0]
    typed = ("predict", run.folder, photo, "--k", 5)
    assert dml_bench(monkeypatch, *typed, "--json") == 0
    [answer] = json.loads(capsys.readouterr().out)["answers"]
    votes: dict[str, float] = {}
    for near in answer["closest"]:
        for label in near["class"].split(";"):
            votes[label] = votes.get(label, 0) + 1 / 5
    assert {one["label"]: one["share"] for one in answer["labels"]} == pytest.approx(votes)
    assert dml_bench(monkeypatch, *typed) == 0
    assert "labels: " in capsys.readouterr().out
    assert dml_bench(monkeypatch, *typed, "--by", "classifier", "--json") == 0
    [answer] = json.loads(capsys.readouterr().out)["answers"]
    assert set(answer["class"].split(";")) <= {label["label"] for label in answer["labels"]} | set(
        label_sets_of(sorted({image.class_name for image in run.split})).names
    )


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("loss=ArcFace", "miner=none"), "loss ArcFace needs one class for each image"),
        (("miner=EPSHN",), "miner must be none where images have several labels"),
        (("miner=none", "sampler=m_per_class"), "sampler must be shuffled where images have"),
        (("miner=none", "data.label_noise=0.2"), r"data\.label_noise must be 0\.0 where images"),
        (("miner=none", "start=classifier"), "start must be none where images have several"),
        (("miner=none", "train.folds=2"), r"train\.folds needs the protocol precision_drop"),
        (("miner=none", "data.split=half"), r"data\.split must be stratified or given with"),
    ],
)
def test_what_needs_one_class_for_each_image_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny("protocol=multi_label", *settings)


def test_labels_and_protocols_that_do_not_fit_are_refused(photos, birds, cache_dir):
    one = db.resolve(CLASSIFIER, ["data.dataset=cub"])
    with pytest.raises(ValueError, match=r"images of cub have one class, .*separator=;"):
        split_of(one, open_dataset(one.data.dataset, birds, cache_dir))
    several = tiny("data.dataset=csv", "data.dataset.separator=;")
    with pytest.raises(ValueError, match=r"have several labels, .* --set protocol=multi_label"):
        split_of(several, open_dataset(several.data.dataset, photos, cache_dir))


def test_a_space_stands_between_labels_where_it_is_set_as_the_guide_says(tmp_path, cache_dir):
    (tmp_path / "images").mkdir()
    rows = [("file", "label")]
    for number, labels in enumerate(("beach dog", "beach", "dog", "dog beach")):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        rows.append((f"{number}.png", labels))
    with (tmp_path / "train.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    by_space = db.resolve(CLASSIFIER, ["data.dataset.separator= "])
    dataset = open_dataset(by_space.data.dataset, tmp_path, cache_dir)
    assert dataset.label_sets.names == ("beach", "dog")


def test_a_check_divides_images_by_their_labels_as_a_run_does(tmp_path, cache_dir):
    sets = ["sea"] * 5 + ["sea;dog"] * 3 + ["dog"] * 4 + ["dog;tree", "sea;tree", "tree"]
    (tmp_path / "images").mkdir()
    rows = [("file", "label")]
    for number, labels in enumerate(sets):
        picture = Image.effect_noise((16, 16), 90)
        picture.save(tmp_path / "images" / f"{number:02}.png")
        rows.append((f"{number:02}.png", labels))
    with (tmp_path / "train.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)
    experiment = db.resolve(CLASSIFIER)
    split = split_of(experiment, open_dataset(experiment.data.dataset, tmp_path, cache_dir))
    test, train = split.test[0], split.train[0]
    copied = tmp_path / "images"
    shutil.copy(copied / f"{test:02}.png", copied / f"{train:02}.png")
    overrides = {"data.dataset.separator": ";"}
    report = db.check_data("csv", tmp_path, overrides=overrides, cache_dir=cache_dir)
    assert (report.refused, report.single) == ("", ())
    assert len(report.across_split) == 1


def test_a_label_that_holds_what_stands_between_labels_is_refused(
    photos, cache_dir, tmp_path, monkeypatch, capsys
):
    (tmp_path / "train.csv").write_text('file,label\na.png,"x;y"\n')
    settings = ("--set", "data.dataset.separator=|", "--data-dir", tmp_path)
    line = refusal(monkeypatch, capsys, "run", CLASSIFIER, *settings, "--out", tmp_path / "runs")
    assert "line 2" in line and "has a label with ';'" in line


def test_sets_of_labels_that_no_query_has_are_explained_and_shown(birds, cache_dir, tmp_path):
    """Most sets of labels are rare: of the nearest images many have one that no query has."""
    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for file in sorted(birds.glob("images/*/*.jpg")):
        shutil.copy(file, photos / "images")
        rows.append((file.name, ";".join(sorted(set(rng.choice(list("abcdef"), size=3))))))
    with (photos / "train.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "label"), *rows])
    where = {"data_dir": photos, "out": tmp_path, "cache_dir": cache_dir, "device": "cpu"}
    run = db.run(PAIRS, overrides=[*SMALL, "train.epochs=1"], **where)
    [phase] = run.neighbours
    neighbours = run.neighbours[phase]
    assert set(neighbours.gallery_labels) - set(neighbours.query_labels)
    names = dict(rows)
    panels = db.write_evidence(run, tmp_path / "evidence")
    shown = read_csv(tmp_path / "evidence" / "evidence.csv")
    assert len(shown) == 10 * len(panels)
    for row in shown:
        assert row["neighbour class"] == names[Path(row["neighbour"]).name]
    maps = {"methods": "vanilla", "scored": 0, "device": "cpu"}
    assert len(db.explain_run(run, tmp_path / "maps", **maps).panels) == 6
    assert len(embeddings_table(run, phase).rows) == len(rows)
    images = read_browse_table(run)
    shown_names = [images.class_names[label] for label in images.labels.tolist()]
    assert shown_names == [names[Path(path).name] for path in images.paths]
    assert not images.unseen.any(), "a set that no query has, which the model trained on"
