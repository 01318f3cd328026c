"""Photos that a server answered are held against the calibration images: no false alarms, and no
drift that is missed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serving_here import running
from tiny import dml_bench, refusal

from dml_bench.evaluation.thresholds import SearchOutcomes, precision_curve
from dml_bench.gallery.calibration import calibration_set
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.store import GalleryFile, open_gallery_file
from dml_bench.serve import answer_log
from dml_bench.serve.answer_log import AnswerLog, LoggedAnswer, answers_gone, read_answers
from dml_bench.serve.drift import SIZE, find_drift, largest_gap


def outcomes(similarity: np.ndarray) -> SearchOutcomes:
    return SearchOutcomes(similarity, np.ones(len(similarity), bool))


def answers(similarity: np.ndarray, threshold: float = 0.6) -> list[LoggedAnswer]:
    return [
        LoggedAnswer(
            time=f"2026-01-01T00:00:{place:06}",
            similarity=float(value),
            known=bool(value >= threshold),
            class_name="gull",
            threshold=threshold,
            precision=0.9,
            unknown_share=0.0,
            images=8,
        )
        for place, value in enumerate(similarity)
    ]


def test_the_gap_is_that_of_scipy():
    from scipy.stats import ks_2samp

    dice = np.random.default_rng(3)
    for _ in range(20):
        one, other = dice.normal(size=90).round(1), dice.normal(0.3, size=70).round(1)
        gap = largest_gap(one, precision_curve(outcomes(other)))
        assert gap == pytest.approx(ks_2samp(one, other).statistic)


def test_photos_like_the_calibration_images_raise_an_alarm_in_at_most_5_of_100_galleries():
    dice = np.random.default_rng(1)
    alarms = 0
    for _ in range(300):
        curve = precision_curve(outcomes(dice.beta(8, 3, size=150)))
        drift = find_drift(answers(dice.beta(8, 3, size=5 * SIZE)), curve, 0.6, 150)
        alarms += any(window.differs for window in drift.windows)
    assert alarms <= 0.05 * 300


def test_photos_of_another_kind_are_seen_in_their_first_whole_window():
    dice = np.random.default_rng(1)
    curve = precision_curve(outcomes(dice.beta(8, 3, size=150)))
    usual, strange = dice.beta(8, 3, size=3 * SIZE), dice.beta(5, 4, size=SIZE)
    drift = find_drift(answers(np.concatenate([usual, strange])), curve, 0.6, 150)
    assert [window.differs for window in drift.windows] == [False, False, False, True]
    assert drift.drifted
    assert drift.windows[-1].unknown_share > drift.expected_unknown + 0.2


def test_an_expected_share_of_unknown_photos_is_no_drift():
    dice = np.random.default_rng(2)
    known, unknown = dice.beta(8, 3, size=400), dice.beta(4, 5, size=400)
    curve = precision_curve(outcomes(known), outcomes(unknown), unknown_share=0.3)
    mix = np.where(dice.random(SIZE) < 0.3, dice.beta(4, 5, SIZE), dice.beta(8, 3, SIZE))
    assert not find_drift(answers(mix), curve, 0.6, curve.total).drifted
    without = precision_curve(outcomes(known), outcomes(unknown))
    assert find_drift(answers(mix), without, 0.6, without.total).drifted


@pytest.fixture
def file(trained, tmp_path) -> GalleryFile:
    run = trained("train.precision=float32").folder
    (tmp_path / "gallery").mkdir()
    return GalleryFile(open_gallery_file(run, "all", None).run, "all", tmp_path / "gallery")


def test_a_log_is_read_over_a_damaged_line_and_over_two_files(file, monkeypatch):
    monkeypatch.setattr(answer_log, "LARGEST", 400)
    first, second, third = (answers(np.array([value])) for value in (0.1, 0.2, 0.3))
    log = AnswerLog(file)
    log.add(first)
    with open(log.path, "ab") as damaged:
        damaged.write(b'{"time": "2026-')
    log = AnswerLog(file)
    log.add(second)
    log.add(third)
    assert [answer.similarity for answer in read_answers(file)] == [0.1, 0.2, 0.3]
    assert len(list(file.path.parent.glob("*.jsonl"))) == 2


def test_windows_go_on_where_the_first_lines_of_the_log_are_gone(file, monkeypatch):
    """Else each file that is begun anew would be tested at the levels of the first windows."""
    dice = np.random.default_rng(1)
    curve = precision_curve(outcomes(dice.beta(8, 3, size=150)))
    photos = answers(dice.beta(8, 3, size=6 * SIZE))
    of_all = find_drift(photos, curve, 0.6, 150)
    monkeypatch.setattr(answer_log, "LARGEST", 60_000)
    log = AnswerLog(file)
    for first in range(0, len(photos), 50):
        log.add(photos[first : first + 50])
        if first == 600:
            log = AnswerLog(file)
    kept, gone = list(read_answers(file)), answers_gone(file)
    assert gone > 2 * SIZE
    assert gone % SIZE
    assert kept == photos[gone:]
    late = find_drift(kept, curve, 0.6, 150, gone)
    assert late.windows == of_all.windows[-len(late.windows) :]
    assert late.photos == len(kept)
    assert find_drift(photos[:30], curve, 0.6, 150, gone=30).windows == ()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is full")
def test_a_full_disk_costs_lines_of_the_log_and_no_answer(file):
    first, second, third = (answers(np.array([value])) for value in (0.1, 0.2, 0.3))
    log = AnswerLog(file)
    log.add(first)
    kept = log.path.rename(log.path.with_suffix(".kept"))
    log.path.symlink_to("/dev/full")
    log.add(second)
    kept.replace(log.path)
    with open(log.path, "ab") as torn:
        torn.write(b'{"time": "2026-')
    log.add(third)
    assert [answer.similarity for answer in read_answers(file)] == [0.1, 0.3]


def test_every_answer_is_logged_and_monitor_needs_some(file, monkeypatch, capsys):
    gallery = ("--gallery", file.path.parent)
    line = refusal(monkeypatch, capsys, "monitor", file.run.folder, *gallery)
    assert "holds no answers" in line
    photo = Path(file.read(new=True).entries[0].path)
    with running(file.run.folder, file.path.parent) as client:
        assert client.post("/predict", files=[("images", photo.read_bytes())] * 3).is_success
    (answer, *others) = read_answers(file)
    assert (answer.similarity, answer.known, len(others)) == (pytest.approx(1), True, 2)
    assert answer.embedder == embedder_digest(file.run, "all")


def test_answers_of_another_model_are_no_evidence(trained, tmp_path, monkeypatch, capsys):
    """As where a gallery's folder is that of a run that was trained anew."""
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", tmp_path)
    log = AnswerLog(file)
    of_another = answers(np.full(SIZE, -0.9))
    log.add([replace(answer, embedder="another") for answer in of_another])
    line = refusal(monkeypatch, capsys, "monitor", run, "--gallery", tmp_path)
    assert "holds no answers of this model" in line
    images = calibration_set(file.run, "all", file.read(new=True))
    usual = answers(np.resize(images.known.similarity, SIZE + 50))
    log.add([replace(answer, embedder=embedder_digest(file.run, "all")) for answer in usual])
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["photos"], printed["answered_before_this_model"]) == (SIZE + 50, SIZE)
    (window,) = printed["windows"]
    assert window["level"] == pytest.approx(0.05 / 6), "windows count on"
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "left out: 200 earlier answers of the log" in text
    assert "of the last whole window of 200 photos" in text


def test_monitor_says_that_a_promise_no_longer_applies(trained, tmp_path, monkeypatch, capsys):
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", tmp_path)
    log = AnswerLog(file)
    log.add(answers(np.full(SIZE, -0.9)))
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path, "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["drifted"], printed["windows"][0]["unknown_share"]) == (True, 1.0)
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path) == 1
    verdict = " ".join(capsys.readouterr().out.split())
    assert "the promise of a precision of 90% no longer applies" in verdict


def test_monitor_says_that_a_precision_could_not_be_promised(
    trained, tmp_path, monkeypatch, capsys
):
    """After a change of the gallery a server may have no threshold left, and all photos are
    unknown. Monitor expected none of them to be, and found nothing against the promise."""
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", tmp_path)
    images = calibration_set(file.run, "all", file.read(new=True))
    usual = np.resize(images.known.similarity, SIZE)
    log = AnswerLog(file)
    log.add([replace(answer, threshold=None, known=False) for answer in answers(usual)])
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["expected_unknown"], printed["promised"]) == (1, False)
    assert dml_bench(monkeypatch, "monitor", run, "--gallery", tmp_path) == 0
    verdict = " ".join(capsys.readouterr().out.split())
    assert "a precision of 90% can't be promised any more, so every photo is unknown" in verdict
    assert "nothing speaks against" not in verdict


def test_monitor_names_the_images_of_other_classes_that_it_lacks(
    trained, tmp_path, monkeypatch, capsys
):
    run = trained("train.precision=float32", "data.valid_fraction=0.3").folder
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", tmp_path)
    log = AnswerLog(file)
    log.add([replace(answer, unknown_share=0.3) for answer in answers(np.full(SIZE, 0.9))])
    line = refusal(monkeypatch, capsys, "monitor", run, "--gallery", tmp_path)
    assert "no images of classes that are not enrolled, which stand for 30% of the photos" in line
    assert "valid_fraction" not in line
