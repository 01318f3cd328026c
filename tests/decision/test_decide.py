"""A decision on drawn birds: the final part has no say in the choice, time is kept, and the same
command goes on."""

import json
import os
import shlex
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forked import ForkedProgram
from PIL import Image
from tiny import dml_bench

import dml_bench as db
from dml_bench.config import Component
from dml_bench.data.datasets import open_dataset
from dml_bench.data.images import box_of, decode, photo_file
from dml_bench.data.synthetic import write
from dml_bench.decision import parts as dividing
from dml_bench.decision import rows
from dml_bench.decision.choice import Selection, candidates_of, lead
from dml_bench.decision.decide import run_rows, say_plan
from dml_bench.decision.outlook import gain_of, outlook_of
from dml_bench.decision.parts import (
    CATALOGUE,
    FACTS,
    FINAL,
    Parts,
    divide,
    remove_old_catalogue,
)
from dml_bench.decision.session_rule import SessionRule
from dml_bench.evaluation.statistics import Scores
from dml_bench.explain.annotations import read_annotations
from dml_bench.report.compose import WRITTEN
from dml_bench.runs.run import read_folder
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_csv, read_json, write_json

SMALL = (
    "model.backbone=timm:test_resnet",
    "model.weights=none",
    "images.size=32",
)


@pytest.fixture
def photos(birds, tmp_path) -> Path:
    return Path(shutil.copytree(birds / "images", tmp_path / "photos"))


@pytest.fixture
def one_row(monkeypatch):
    """And one seed of it."""
    monkeypatch.setattr("dml_bench.decision.rows.ROWS", rows.ROWS[:1])
    monkeypatch.setattr("dml_bench.decision.rows.SEEDS", (42,))


@pytest.fixture
def two_rows(monkeypatch):
    monkeypatch.setattr("dml_bench.decision.rows.ROWS", rows.ROWS[:2])


def test_photos_that_are_not_there_are_refused_before_anything_is_written(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "decision"
    with pytest.raises(
        ValueError, match=f"^{photos} does not exist: give a folder with one folder"
    ):
        db.decide(photos, out=out)
    assert not out.exists()


def test_no_list_of_a_decision_has_the_name_of_a_table_of_its_page(tmp_path):
    """The page was refused after all rows, as the list of studio photos was made by no report."""
    assert not {FACTS, FINAL, CATALOGUE} & set(WRITTEN)
    (tmp_path / "catalogue.csv").write_text("path,class\n1.jpg,gull\n")
    remove_old_catalogue(tmp_path)
    assert (tmp_path / "catalogue.csv").exists(), "it may be a person's own"
    (tmp_path / FACTS).write_text("{}")
    remove_old_catalogue(tmp_path)
    assert not (tmp_path / "catalogue.csv").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=7", "decide runs seeds of its own"),
        ("data.split=stratified", "decide sets data.split by its own division: leave out --set"),
        ("data.group=parent", "decide takes sessions from --group: give it in place of --set"),
        ("data.valid_fraction=0", "decide sets data.valid_fraction by its own division"),
        ("unseen=last:1", "decide sets unseen by its own division"),
        ("protocol=class_disjoint", "decide sets protocol by its own division"),
        ("name=mine", "decide sets name by its own division"),
        ("train.folds=3", "decide has one network and one view answer on the final part: leave"),
        ("evaluate.tta=mirror", "decide has one network and one view answer on the final part"),
    ],
)
def test_settings_that_follow_from_the_division_are_refused(photos, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        db.decide(photos, out=tmp_path / "out", overrides=[setting])
    assert not (tmp_path / "out").exists()


def test_time_that_is_over_before_any_row_is_none_and_not_less():
    assert say_plan([], {}, left=-12.0).startswith("rows in their order, for 0.0 minutes ")


def decided(photos: Path, out: Path, cache_dir: Path, minutes: float = 5000) -> db.DecisionReport:
    return db.decide(
        photos, minutes=minutes, out=out, overrides=SMALL, device="cpu", cache_dir=cache_dir
    )


@pytest.fixture
def trained_rows(monkeypatch):
    """Nothing trained, a softmax head, and the whole network; one seed and one epoch of each."""

    def briefly(spec: rows.RowSpec) -> rows.RowSpec:
        return replace(spec, overrides=(*spec.overrides, "train.epochs=1", "evaluate.every=1"))

    labels = ("EfficientNet-Lite0, softmax head", "EfficientNet-Lite0, softmax, trained as a whole")
    chosen = [briefly(spec) for spec in rows.ROWS if spec.label in labels]
    assert [spec.training for spec in chosen] == ["head", "whole"]
    monkeypatch.setattr("dml_bench.decision.rows.ROWS", (rows.ROWS[0], *chosen))
    monkeypatch.setattr("dml_bench.decision.rows.SEEDS", (42,))


@pytest.mark.slow
def test_the_choice_does_not_change_with_the_final_part(photos, one_row, tmp_path, cache_dir):
    first = decided(photos, tmp_path / "first", cache_dir)
    second = tmp_path / "second"
    divide(photos, second, cache_dir, Callback())
    lines = read_csv(second / "final.csv")
    classes = [line["class"] for line in lines]
    photo_of = {line["class"]: line["path"] for line in read_csv(second / "development/train.csv")}
    text = "path,class\n"
    for line, name in zip(lines, classes[1:] + classes[:1], strict=True):
        text += f"{line['path']},{name}\n"
        shutil.copy(photos / photo_of[name], photos / line["path"])
    (second / "final.csv").write_text(text)
    # As if an earlier version had divided them, which kept nothing of their contents.
    facts = read_json(second / "parts.json")
    del facts["contents"]
    write_json(second / "parts.json", facts)
    other = decided(photos, second, cache_dir)
    assert other.decision.choice.as_table() == first.decision.choice.as_table()
    assert other.decision.known.estimate > first.decision.known.estimate

    finals = {line["path"] for line in lines}
    for file in second.glob("runs/*/*/*/split.csv"):
        used = {row["path"].removeprefix("images/") for row in read_csv(file)}
        assert used and not used & finals


@pytest.mark.slow
def test_trained_networks_answer_on_the_final_part_and_a_classifier_by_the_printed_command(
    photos, trained_rows, tmp_path, cache_dir, monkeypatch, capsys
):
    """The last classifier is chosen by force: it may be no better than a gallery here."""

    def classifier(rows):
        ways = tuple(candidates_of(rows))
        return Selection(ways, ways[-1], ways[-1], None)

    monkeypatch.setattr("dml_bench.decision.decide.choose", classifier)
    decision = decided(photos, tmp_path / "out", cache_dir).decision
    softmax = ["nearest photo", "class means", "classifier"]
    assert set(decision.final) == {
        "EfficientNet-Lite0, no training: nearest photo",
        "EfficientNet-Lite0, no training: class means",
        *(f"EfficientNet-Lite0, softmax head: {way}" for way in softmax),
        *(f"EfficientNet-Lite0, softmax, trained as a whole: {way}" for way in softmax),
    }
    epochs = {}
    for folder in (tmp_path / "out" / "runs").glob("*/*/seed-42"):
        epochs[folder.parts[-3]] = Counter(
            record["phase"] for record in read_folder(folder).records
        )
    once = dict.fromkeys(("all", *(f"limited-{number}" for number in range(1, 5))), 1)
    assert sorted(map(len, epochs.values())) == [0, 5, 5]
    assert sorted(epochs.values(), key=len)[1:] == [once, once]

    files, classes = decision.parts.final()
    _, command = decision.commands
    arguments = shlex.split(command.replace("photo.jpg", " ".join(map(str, files))))
    assert arguments[-2:] == ["--by", "classifier"]
    capsys.readouterr()
    assert dml_bench(monkeypatch, *arguments, "--json", "--device", "cpu") == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    right = np.array([answer["class"] for answer in answers]) == classes
    of_class = [right[np.array(classes) == name].mean() for name in set(classes)]
    assert np.mean(of_class) == pytest.approx(decision.known.estimate)


@pytest.mark.slow
def test_a_decision_ends_in_its_time_on_a_machine_that_also_does_something_else(tmp_path):
    """The time suffices for a part of the rows, so that the clock has to end it. The other work
    begins after decide has measured how fast it is alone."""
    root = write(tmp_path / "drawn", counts=[50] * 10, size=64, seed=3)
    notes = Notes()
    minutes = 2.0
    others: list[ForkedProgram] = []
    notes.when = (
        "no training: took",
        lambda: others.extend(ForkedProgram(multiply_for_ever) for _ in range(os.cpu_count() or 1)),
    )
    begun = time.monotonic()
    try:
        report = db.decide(
            root / "images",
            minutes=minutes,
            out=tmp_path / "out",
            overrides=SMALL,
            device="cpu",
            cache_dir=tmp_path / "cache",
            callback=notes,
        )
    except ValueError as refusal:
        assert "--minutes must be at least" in str(refusal)
        pytest.skip("this machine is too busy for a single row; the time was kept")
    finally:
        seconds = time.monotonic() - begun
        for other in others:
            other.kill()
            other.communicate()
        assert seconds <= 1.1 * 60 * minutes, f"{seconds:.0f} s of {60 * minutes:.0f}"
    assert others
    assert report.decision.skipped, "the time must be too short for all rows"
    assert seconds == pytest.approx(report.decision.seconds, abs=5)


class Notes(Callback):
    """Does something at the first note that holds a text."""

    when: tuple[str, Callable[[], object]] | None = None

    def note(self, text: str) -> None:
        if self.when is not None and self.when[0] in text:
            _, act = self.when
            self.when = None
            act()


def multiply_for_ever() -> None:
    factor = np.random.default_rng(0).random((400, 400))
    while True:
        factor @ factor


@pytest.mark.slow
def test_the_page_names_each_way_to_answer_and_stays_once_the_final_part_was_opened(
    photos, two_rows, tmp_path, cache_dir
):
    made = decided(photos, tmp_path / "out", cache_dir)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "dml-bench enrol" in page and "dml-bench predict" in page
    assert "less than this, if photos were taken in sessions: nothing here shows them" in page
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    heads = next(place for place, line in enumerate(lines) if line.startswith("| row |"))
    assert ["(chosen)" in line for line in lines[heads + 2 : heads + 5]] == [True, False, False]
    table = json.loads(made.as_json())
    assert table["final"]["regret"] >= 0
    assert table["seeds"] == 3
    assert set(table["choice"]["rows"]) == {
        "EfficientNet-Lite0, no training: nearest photo",
        "EfficientNet-Lite0, no training: class means",
        "EfficientNet-Lite0, linear probe: classifier",
    }
    again = decided(photos, tmp_path / "out", cache_dir, minutes=9000)
    assert again.decision.known == made.decision.known
    assert again.decision.choice.as_table() == made.decision.choice.as_table()
    until_chosen = read_json(tmp_path / "out" / "choice.json")["seconds"]
    assert until_chosen < made.decision.seconds
    assert until_chosen < again.decision.seconds, "what the first session took counts"
    # As if a version with another rule had chosen.
    file = tmp_path / "out" / "choice.json"
    before = read_json(file)
    ways = {"nearest photo", "class means"} - {before["way"]}
    write_json(file, {**before, "way": ways.pop()})
    again = decided(photos, tmp_path / "out", cache_dir)
    assert again.decision.choice.chosen.way == read_json(file)["way"] != before["way"]


@pytest.mark.slow
def test_a_catalogue_is_tried_as_a_gallery_and_has_no_part_in_the_choice(
    photos, one_row, tmp_path, cache_dir
):
    studio = tmp_path / "studio"
    for species in sorted(photos.iterdir()):
        (studio / species.name).mkdir(parents=True)
        (photo, *_) = sorted(species.iterdir())
        shutil.move(photo, studio / species.name)

    def answer(catalogue: Path | None) -> db.DecisionReport:
        return db.decide(
            photos,
            minutes=5000,
            out=tmp_path / "decision",
            catalogue=catalogue,
            overrides=SMALL,
            device="cpu",
            cache_dir=cache_dir,
        )

    (photos / "empty").mkdir()
    final = tmp_path / "final"
    divide(photos, final, cache_dir, Callback())
    broken = [read_csv(final / file)[0]["path"] for file in ("final.csv", "development/train.csv")]
    for path in broken:
        (photos / path).write_text(f"no image: {path}")
    without, with_catalogue = answer(None), answer(studio)
    assert without.decision.catalogue is None
    assert without.decision.unreadable == tuple(sorted(broken))
    page = " ".join(str(without).split())
    assert "Left out, with too few photos or sessions: 1 class (empty)." in page
    assert "Left out, which can't be read: 2 photos (" in page
    assert "Photos: 54 of 8 classes" in page
    assert with_catalogue.decision.choice.as_table() == without.decision.choice.as_table()
    measured = with_catalogue.decision.catalogue
    assert (measured.num_photos, measured.num_classes) == (8, 8)
    assert measured.precision[0] == pytest.approx(measured.new_centred.estimate)
    assert "8 studio photos of 8 classes" in str(with_catalogue)
    (tmp_path / "other" / "stranger").mkdir(parents=True)
    shutil.copy(next(studio.glob("*/*")), tmp_path / "other" / "stranger")
    with pytest.raises(ValueError, match="must have classes of the photos, got 'stranger'"):
        answer(tmp_path / "other")


def test_photos_of_the_part_catalogue_are_in_no_other_part(photos, tmp_path, cache_dir):
    parted = tmp_path / "parted"
    for species in sorted(photos.iterdir()):
        for number, photo in enumerate(sorted(species.iterdir())):
            part = "train" if number < 5 else "test" if number < 7 else "catalogue"
            (parted / part / species.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, parted / part / species.name)
    parts = divide(parted, tmp_path / "decision", cache_dir, Callback())
    files, classes = parts.catalogue()
    assert len(files) == len(set(classes)) == 8
    assert {file.relative_to(parted).parts[0] for file in files} == {"catalogue"}
    others = [*parts.final()[0], *parts.development_photos()]
    assert parts.num_photos == len(others) == 56
    assert not set(files) & set(others)


@pytest.mark.slow
def test_a_killed_decision_goes_on_to_the_same_answer(photos, one_row, tmp_path, cache_dir):
    out = tmp_path / "out"
    running = ForkedProgram(lambda: decided(photos, out, cache_dir))
    deadline = time.monotonic() + 600
    while not any(out.glob("runs/*/*/*/all/*.safetensors")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert not (out / "choice.json").exists()
    after = decided(photos, out, cache_dir).decision.as_table()
    undisturbed = decided(photos, tmp_path / "new", cache_dir).decision.as_table()
    for part in ("answer", "choice", "final", "enrolment", "unknown", "more_photos"):
        assert json.dumps(after[part]) == json.dumps(undisturbed[part])


def coloured(folder: Path) -> Path:
    """Five classes that nothing can confuse: a colour each, a little brighter or darker, with a dot
    by which no photo is a copy of another."""
    colours = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 40, 210)}
    colours |= {"white": (230, 230, 230), "black": (20, 20, 20)}
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for place in range(40):
            shade = tuple(value + place % 13 for value in colour)
            picture = Image.new("RGB", (32, 32), shade)
            picture.putpixel((place % 32, place // 32), (128, 128, 128))
            picture.save(folder / name / f"{name}_{place}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("by", ["photo", "mean"])
def test_the_printed_command_applies_the_printed_threshold(
    one_row, tmp_path, cache_dir, monkeypatch, capsys, by
):

    def candidates_by(rows):
        return (candidate for candidate in candidates_of(rows) if candidate.by == by)

    monkeypatch.setattr("dml_bench.decision.choice.candidates_of", candidates_by)
    photos = coloured(tmp_path / "photos")
    made = decided(photos, tmp_path / "out", cache_dir)
    promise = made.decision.threshold.promise
    assert promise.promised
    _, command = made.decision.commands
    arguments = shlex.split(command.replace("photo.jpg", str(photos / "red" / "red_0.png")))
    capsys.readouterr()
    assert dml_bench(monkeypatch, *arguments, "--json", "--device", "cpu") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["threshold"]["value"] == pytest.approx(promise.value)
    assert said["answers"][0]["class"] == "red"


def rows_run(monkeypatch, tmp_path, seconds: list[float], *, stopped: str = "") -> tuple:
    """The labels of the rows that were run in a minute, and of those that were skipped. `stopped`
    is the run in which the time is up."""

    def run_seed(row, label, *_):
        if label == stopped:
            raise rows.TimeUp
        return label

    monkeypatch.setattr("dml_bench.decision.decide.run_seed", run_seed)
    planned = []
    for spec, duration in zip(rows.ROWS, seconds, strict=False):
        seeds = (f"{spec.label} 42", f"{spec.label} 43")
        planned.append(rows.PlannedRow(spec, seeds, (), (), duration / 2, 1.0))
    parts = Parts(photos=tmp_path, out=tmp_path, class_names=(), num_photos=0)
    clock = rows.Clock(60, time.monotonic())
    runs, skipped = run_rows(planned, parts, clock, tmp_path, "cpu", Callback())
    return tuple(runs), skipped


def test_a_row_that_does_not_fit_is_left_out_for_one_that_does(monkeypatch, tmp_path):
    labels = tuple(spec.label for spec in rows.ROWS)
    left_out = (labels[1],)
    assert rows_run(monkeypatch, tmp_path, [10, 58, 1]) == ((labels[0], labels[2]), left_out)
    with pytest.raises(ValueError, match="--minutes must be at least"):
        rows_run(monkeypatch, tmp_path, [70, 70])
    assert rows_run(monkeypatch, tmp_path, [10, 20, 30]) == (labels[:3], ())


def test_features_are_counted_for_the_first_row_that_needs_them():
    work = (rows.SharedWork("photos", 5, 0), rows.SharedWork("features", 7, 2))
    planned = rows.PlannedRow(rows.ROWS[0], (), (), work, 1.0, 1.0)
    assert planned.left_of(()) == (12, 2)
    assert planned.left_of({"photos"}) == (7, 2)
    assert planned.left_of({"photos", "features"}) == (0, 0)


def test_a_backbone_of_random_weights_has_all_seeds_where_the_split_is_the_same(tmp_path):
    names = tuple("abcde")
    parts = Parts(photos=tmp_path, out=tmp_path, class_names=names, num_photos=25, split="given")
    of_loaded, of_drawn = (
        rows.experiments_of(rows.ROWS[0], parts, overrides)
        for overrides in ((), ("model.weights=none",))
    )
    assert [one.seed for one in of_loaded] == [42]
    assert [one.seed for one in of_drawn] == [42, 43, 44]


def test_a_run_that_took_longer_than_guessed_makes_the_next_of_its_kind_longer():
    pace = rows.Pace()
    assert pace.slower == 1
    assert pace.seconds("head", 10) == 10
    pace.measured("none", 5, 20, 50)
    assert pace.slower == 2
    assert pace.seconds("none", 5) == 10
    pace.measured("none", 5, 0, 15)
    assert pace.seconds("none", 5) == 15
    assert pace.seconds("head", 10) == pytest.approx(10 * 40 / 17.5)
    pace.measured("head", 10, 0, 9)
    assert pace.seconds("head", 10) == 9
    assert pace.slower == pytest.approx(29 / 18.75)


def test_short_runs_that_took_long_say_little_of_long_work():
    """As 5,421 photos on a busy machine did: 18 of 30 minutes were left, and no row fitted."""
    pace = rows.Pace()
    pace.measured("none", 5, 615, 510)
    for _ in range(2):
        pace.measured("none", 5, 0, 60)
    assert pace.seconds("none", 5) == 60
    assert pace.slower < 1.5


def test_a_row_that_runs_out_of_time_leaves_those_before_it(monkeypatch, tmp_path):
    labels = tuple(spec.label for spec in rows.ROWS)
    outcome = rows_run(monkeypatch, tmp_path, [10, 20], stopped=f"{labels[1]} 42")
    assert outcome == (labels[:1], labels[1:2])


def test_the_first_row_answers_with_the_seeds_that_ended(monkeypatch, tmp_path):
    labels = tuple(spec.label for spec in rows.ROWS)
    outcome = rows_run(monkeypatch, tmp_path, [10], stopped=f"{labels[0]} 43")
    assert outcome == (labels[:1], ())


def test_a_lead_is_of_the_seeds_that_both_have():
    label = np.array([0, 0, 1, 1])
    right, half = Scores(np.ones(4), label), Scores(np.array([1.0, 0, 1, 0]), label)
    wrong = Scores(np.zeros(4), label)
    assert lead((right,), (half, half)).estimate == 0.5
    assert lead((right, right), (half, half, wrong)).estimate == 0.5


def test_too_little_time_is_said_with_what_is_needed(photos, tmp_path, cache_dir):
    with pytest.raises(ValueError, match=r"--minutes must be at least about \d+ for 64 photos"):
        decided(photos, tmp_path / "out", cache_dir, minutes=0.1)
    assert not (tmp_path / "out" / "choice.json").exists()


def test_too_few_photos_are_no_answer(photos, tmp_path, cache_dir):
    for folder in sorted(photos.iterdir()):
        for file in sorted(folder.iterdir())[2:]:
            file.unlink()
    with pytest.raises(ValueError, match="no answer: .* you need about 40 photos"):
        decided(photos, tmp_path / "out", cache_dir)


def test_photos_of_several_labels_are_refused(tmp_path, cache_dir):
    """Each combination of labels was taken for a class of its own."""
    (tmp_path / "images").mkdir()
    rows = ["path,class"]
    for number in range(20):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / f"images/{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]};{'cd'[number // 10]}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    several = ["data.dataset=csv", "data.dataset.separator=;"]
    with pytest.raises(
        ValueError, match=r"one class for each photo, .* have several labels: leave"
    ):
        divide(tmp_path, tmp_path / "out", cache_dir, Callback(), overrides=several)


def test_other_photos_need_another_folder(photos, tmp_path, cache_dir):
    divide(photos, tmp_path, cache_dir, Callback())
    next(photos.glob("*/*")).unlink()
    with pytest.raises(ValueError, match="choose another folder with --out"):
        divide(photos, tmp_path, cache_dir, Callback())


def test_photos_that_changed_since_need_another_folder_too(photos, tmp_path, cache_dir):
    divide(photos, tmp_path, cache_dir, Callback())
    photo = next(photos.glob("*/*"))
    with Image.open(photo) as image:
        image.rotate(90).save(photo)
    with pytest.raises(ValueError, match="before some were changed, .*choose another folder"):
        divide(photos, tmp_path, cache_dir, Callback())


def test_photos_that_were_moved_are_read_where_they_are(photos, tmp_path, cache_dir):
    before = divide(photos, tmp_path / "out", cache_dir, Callback())
    moved = photos.rename(tmp_path / "moved")
    parts = divide(moved, tmp_path / "out", cache_dir, Callback())
    assert parts == replace(before, photos=moved)
    assert (parts.development / "images").resolve() == moved


def test_names_that_a_spreadsheet_takes_for_formulas_are_kept(photos, tmp_path, cache_dir):
    for folder, name in zip(sorted(photos.iterdir()), ["@home", "+1", "-20 C", "=x"], strict=False):
        folder.rename(photos / name)
    parts = divide(photos, tmp_path / "out", cache_dir, Callback())
    listed = open_dataset(Component("csv"), parts.development, cache_dir)
    assert set(listed.class_names) == {folder.name for folder in photos.iterdir()}
    assert set(parts.final()[1]) == set(listed.class_names)


@pytest.mark.parametrize("name", ["cola ", "nan", "1.0", "a\\b"])
def test_a_name_that_a_table_changes_is_refused_before_anything_is_run(
    name, photos, tmp_path, cache_dir
):
    first, second, *_ = sorted(photos.iterdir())
    first.rename(photos / name)
    second.rename(photos / "1")
    with pytest.raises(ValueError, match=r"^names in .*: \d+ \(first: .*\); rename them$"):
        divide(photos, tmp_path / "out", cache_dir, Callback())


def in_sessions(photos: Path, count: int) -> None:
    """Each class's photos go into so many folders."""
    for folder in sorted(photos.iterdir()):
        for place, file in enumerate(sorted(folder.iterdir())):
            session = folder / f"day{place % count}"
            session.mkdir(exist_ok=True)
            file.rename(session / file.name)


def sessions_by_role(parts: Parts) -> dict[str, set[str]]:
    """The sessions in which rows train, are compared, and are tested at the end."""
    session_of = {}
    by_role: dict[str, set[str]] = {"final": {Path(file).parent.name for file in parts.final()[0]}}
    for line in read_csv(parts.development / "train.csv"):
        session_of[line["path"]] = line["session"]
        by_role.setdefault(line.get("split", "rows"), set()).add(line["session"])
    assert all(Path(path).parent.name == session for path, session in session_of.items())
    return by_role


def test_a_session_is_in_the_final_part_or_among_the_other_photos(photos, tmp_path, cache_dir):
    in_sessions(photos, 4)
    parts = divide(photos, tmp_path, cache_dir, Callback(), group="parent")
    assert (parts.split, parts.kind) == ("grouped", "grouped by parent")
    by_role = sessions_by_role(parts)
    assert by_role["final"] and not by_role["final"] & by_role["rows"]
    assert "data.group=session" in parts.settings


def test_two_sessions_of_a_class_train_and_test_apart(photos, tmp_path, cache_dir):
    in_sessions(photos, 2)
    parts = divide(photos, tmp_path, cache_dir, Callback(), group="parent")
    assert parts.split == "given"
    by_role = sessions_by_role(parts)
    assert by_role["test"] == by_role["final"] == by_role["valid"]
    assert by_role["train"] and not by_role["train"] & by_role["final"]
    again = divide(photos, tmp_path, cache_dir, Callback(), group="parent")
    assert again == parts


def test_one_session_is_no_answer_where_a_person_named_it(photos, tmp_path, cache_dir):
    in_sessions(photos, 1)
    with pytest.raises(ValueError, match="in 2 sessions, got 0: add photos of other"):
        divide(photos, tmp_path, cache_dir, Callback(), group="parent")


def test_consecutive_numbers_of_a_camera_stay_on_one_side(photos, tmp_path, cache_dir):
    number = 0
    for block in range(3):
        for folder in sorted(photos.iterdir()):
            named = sorted(file for file in folder.iterdir() if not file.name.startswith("IMG"))
            for file in named[: len(named) // (3 - block)]:
                number += 1
                file.rename(folder / f"IMG_{number:04}{file.suffix}")
    parts = divide(photos, tmp_path, cache_dir, Callback())
    assert parts.rule == "runs"
    assert "beside one of their own session" in parts.reason
    sessions = [line["session"] for line in read_csv(parts.development / "train.csv")]
    assert len(set(sessions)) < len(sessions)


def test_boxes_of_a_data_set_reach_the_rows_and_the_final_part(
    birds, tmp_path, cache_dir, monkeypatch
):
    """Whole photos were listed, and all rows trained on these in silence."""
    alone = SessionRule("", "nothing shows sessions", np.full(64, "", object))
    monkeypatch.setattr(dividing, "session_rules", lambda *arguments: iter([alone]))
    cut = ("data.dataset=cub", "data.dataset.crop_to_box=true")
    parts = divide(birds, tmp_path, cache_dir, Callback(), overrides=cut)
    boxes = read_annotations(birds).objects
    files = [*parts.development_photos(), *parts.final()[0]]
    assert len(files) == 64
    for file in files:
        left, top, width, height = boxes[photo_file(file).relative_to(birds).as_posix()]
        corners = (left, top, left + width, top + height)
        assert box_of(file) == pytest.approx(corners, abs=0.51)
        sides = (box_of(file)[2] - box_of(file)[0], box_of(file)[3] - box_of(file)[1])
        assert decode(file).size == sides


def save_again(file: Path, number: int) -> None:
    """A copy beside it, byte by byte or in one of three other forms."""
    if number % 4 == 0:
        shutil.copy(file, file.with_name(f"copy_of_{file.name}"))
        return
    with Image.open(file) as image:
        if number % 4 == 1:
            image.save(file.with_name(f"copy_of_{file.stem}.png"))
        elif number % 4 == 2:
            image.save(file.with_name(f"copy_of_{file.name}"), quality=100, subsampling=0)
        else:
            image.resize((30, 30)).save(file.with_name(f"copy_of_{file.stem}.png"))


def test_copies_of_a_photo_in_any_form_are_in_no_other_part(photos, tmp_path, cache_dir):
    for number, file in enumerate(sorted(photos.glob("*/*.jpg"))):
        save_again(file, number)
    other_class = sorted(photos.iterdir())[1]
    with Image.open(min(photos.glob("*/*.jpg"))) as image:
        image.save(other_class / "mistaken.png")
    notes: list[str] = []
    warnings: list[str] = []
    listener = Callback()
    listener.note, listener.warn = notes.append, warnings.append
    parts = divide(photos, tmp_path / "decided", cache_dir, listener)
    assert parts.num_photos == 65  # one of each, and the one that two classes have
    [note] = notes
    assert note.startswith("left out, as copies of others in their class: 64 (first: ")
    [warning] = warnings
    assert warning.startswith("1 picture in two classes, of which at most one is right (first: ")
    assert f"{other_class.name}/mistaken.png" in warning
    assert (parts.copies, parts.in_two_classes) == (64, 1)
    used = [*parts.development_photos(), *parts.final()[0]]
    assert len({file.stem.removeprefix("copy_of_") for file in used}) == 65
    # A folder that an older version divided has copies on several sides, and says so.
    warnings.clear()
    assert divide(photos, tmp_path / "decided", cache_dir, listener) == parts
    assert (len(notes), warnings) == (1, [])
    facts = read_json(tmp_path / "decided" / "parts.json")
    del facts["parts"]["copies"]
    write_json(tmp_path / "decided" / "parts.json", facts)
    divide(photos, tmp_path / "decided", cache_dir, listener)
    assert len(notes) == 2
    assert warnings[0].startswith("an older version divided ")


@pytest.mark.parametrize("seed", range(6))
def test_what_more_photos_bring_is_no_difference_of_nearly_as_many_photos(seed):
    """Of classes of 21 photos it was taken from those with 20 and 21: up to 19 points by chance."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, 16))

    def photos(of_each: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(10), of_each)
        vectors = centres[labels] + 2 * rng.normal(size=(len(labels), 16))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit.astype(np.float32), labels

    (gallery, gallery_labels), (query, query_labels) = photos(21), photos(10)
    run = SimpleNamespace(
        embeddings=lambda phase: SimpleNamespace(gallery=gallery, query=query),
        neighbours={
            "all": SimpleNamespace(gallery_labels=gallery_labels, query_labels=query_labels)
        },
    )
    outlook = outlook_of(run, "photo", 100)
    assert outlook.photos_per_class == (1, 2, 5, 10, 21)
    assert outlook.gain < 0.06


def test_twice_the_photos_bring_what_the_last_doubling_brought():
    assert gain_of([10, 20], [0.5, 0.6], 20) == pytest.approx(0.1)
    assert gain_of([10, 20], [0.9, 0.98], 1000) == pytest.approx(0.02)
