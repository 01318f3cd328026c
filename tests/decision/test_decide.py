"""A decision on drawn birds: the final part has no say in the choice, time is kept, and the same
command goes on."""

import json
import shutil
import time
from pathlib import Path

import pytest

import dml_bench as db
from dml_bench.decision import rows
from dml_bench.decision.decide import gain_of, run_rows
from dml_bench.decision.parts import Parts, divide
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_csv

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
    monkeypatch.setattr("dml_bench.decision.rows.ROWS", rows.ROWS[:1])


@pytest.fixture
def two_rows(monkeypatch):
    monkeypatch.setattr("dml_bench.decision.rows.ROWS", rows.ROWS[:2])


def decided(photos: Path, out: Path, cache_dir: Path, minutes: float = 5) -> db.DecisionReport:
    return db.decide(
        photos, minutes=minutes, out=out, overrides=SMALL, device="cpu", cache_dir=cache_dir
    )


def test_the_choice_does_not_change_with_the_final_part(photos, one_row, tmp_path, cache_dir):
    first = decided(photos, tmp_path / "first", cache_dir)
    second = tmp_path / "second"
    divide(photos, second, cache_dir, Callback())
    lines = read_csv(second / "final.csv")
    classes = [line["class"] for line in lines]
    text = "path,class\n"
    for line, name in zip(lines, classes[1:] + classes[:1], strict=True):
        text += f"{line['path']},{name}\n"
        shutil.copy(photos / lines[0]["path"], photos / "other.jpg")
        (photos / "other.jpg").replace(photos / line["path"])
    (second / "final.csv").write_text(text)
    other = decided(photos, second, cache_dir)
    assert other.decision.choice.as_table() == first.decision.choice.as_table()
    assert other.decision.known.estimate != first.decision.known.estimate

    finals = {line["path"] for line in lines}
    for file in second.glob("runs/*/*/*/split.csv"):
        used = {row["path"].removeprefix("images/") for row in read_csv(file)}
        assert used and not used & finals


@pytest.mark.slow
def test_the_page_names_each_way_to_answer_and_stays_once_the_final_part_was_opened(
    photos, two_rows, tmp_path, cache_dir
):
    made = decided(photos, tmp_path / "out", cache_dir)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "dml-bench enrol" in page and "dml-bench predict" in page
    table = json.loads(made.as_json())
    assert table["final"]["regret"] >= 0
    assert set(table["choice"]["rows"]) == {
        "EfficientNet-Lite0, no training: nearest photo",
        "EfficientNet-Lite0, no training: class means",
        "EfficientNet-Lite0, linear probe: nearest photo",
        "EfficientNet-Lite0, linear probe: classifier",
    }
    again = decided(photos, tmp_path / "out", cache_dir, minutes=60)
    assert again.decision.known == made.decision.known
    assert again.decision.choice.as_table() == made.decision.choice.as_table()


def rows_run(monkeypatch, tmp_path, seconds: list[float], *, stopped: str = "") -> tuple:
    """The labels of the rows that were run in a minute, and of those that were skipped."""

    def run_row(row, *_):
        if row.spec.label == stopped:
            raise rows.TimeUp
        return row

    monkeypatch.setattr("dml_bench.decision.decide.run_row", run_row)
    planned = []
    for spec, duration in zip(rows.ROWS, seconds, strict=False):
        planned.append(rows.PlannedRow(spec, None, (), duration, 1.0))
    parts = Parts(photos=tmp_path, out=tmp_path, class_names=(), left_out=(), num_photos=0)
    clock = rows.Clock(60, time.monotonic())
    runs, skipped = run_rows(planned, parts, clock, tmp_path, "cpu", Callback())
    return tuple(runs), skipped


def test_a_row_that_does_not_fit_ends_the_order(monkeypatch, tmp_path):
    labels = tuple(spec.label for spec in rows.ROWS)
    assert rows_run(monkeypatch, tmp_path, [10, 50, 1]) == (labels[:1], labels[1:3])
    assert rows_run(monkeypatch, tmp_path, [10, 20, 30]) == (labels[:3], ())


def test_a_row_that_runs_out_of_time_leaves_those_before_it(monkeypatch, tmp_path):
    labels = tuple(spec.label for spec in rows.ROWS)
    outcome = rows_run(monkeypatch, tmp_path, [10, 20, 30], stopped=labels[1])
    assert outcome == (labels[:1], labels[1:3])


def test_too_little_time_is_said_with_what_is_needed(photos, tmp_path, cache_dir):
    with pytest.raises(ValueError, match=r"--minutes must be at least about \d+ for 64 photos"):
        decided(photos, tmp_path / "out", cache_dir, minutes=0.1)
    assert not (tmp_path / "out" / "choice.json").exists()


def test_too_few_photos_are_no_answer(photos, tmp_path, cache_dir):
    for folder in sorted(photos.iterdir()):
        for file in sorted(folder.iterdir())[2:]:
            file.unlink()
    with pytest.raises(ValueError, match="no answer: .* you need about 20 photos"):
        decided(photos, tmp_path / "out", cache_dir)


def test_other_photos_need_another_folder(photos, tmp_path, cache_dir):
    divide(photos, tmp_path, cache_dir, Callback())
    next(photos.glob("*/*")).unlink()
    with pytest.raises(ValueError, match="choose another folder with --out"):
        divide(photos, tmp_path, cache_dir, Callback())


def test_twice_the_photos_bring_what_the_last_doubling_brought():
    assert gain_of([10, 20], [0.5, 0.6], 20) == pytest.approx(0.1)
    assert gain_of([10, 20], [0.9, 0.98], 1000) == pytest.approx(0.02)
