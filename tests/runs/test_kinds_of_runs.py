"""What is made of a finished run holds for every kind: rotated hold-outs, classes apart, cut to
boxes, with validation images, of folds, of images seen both ways."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import train

from dml_bench.cli.app import main
from dml_bench.plots import figures

KINDS = {
    "rotated": ("unseen=random:3:5 x 3",),
    "apart": ("protocol=class_disjoint", "data.split=half", "data.valid_fraction=0.25"),
    "boxed": ("data.dataset.crop_to_box=true",),
    "validated": ("data.valid_fraction=0.2",),
    "folds": ("train.folds=2",),
    "mirrored": ("evaluate.tta=mirror",),
}
"""By its name here, how a run differs from the others."""
COMPARED = ("rotated", "apart")
MAIN = {"apart": "disjoint"}
LIMITED = {"rotated": "limited-2", "apart": "disjoint"}
"""The phases whose model is asked, where they are not `all` and `limited`."""
NEW = "009.Newcomer"


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runs(kind, trained, tmp_path_factory) -> Path:
    """One run of each kind, and a second, called `other`, of those whose numbers are others than
    those of plain runs."""
    out = tmp_path_factory.mktemp(kind)
    for more in ((), ("name=other", "optimizer.lr=0.01")) if kind in COMPARED else ((),):
        run = trained("train.epochs=1", *KINDS[kind], *more).folder
        shutil.copytree(run, out.joinpath(*run.parts[-3:]))
    return out


@pytest.fixture
def run(runs, tmp_path) -> Path:
    """A copy of the first one, to be changed."""
    return Path(
        shutil.copytree(
            next(runs.glob("EPSHN*/*/seed-42")), tmp_path / "experiment" / "cub" / "seed-42"
        )
    )


@pytest.fixture
def photos(tmp_path) -> Path:
    from dml_bench.data.synthetic import write

    drawn = write(tmp_path / "drawn", counts=[4], size=48, seed=77) / "images"
    next(drawn.iterdir()).rename(drawn / NEW)
    return drawn


def dml_bench(monkeypatch, capsys, *arguments: object) -> str:
    """What a command prints; it has to succeed."""
    monkeypatch.setattr(sys, "argv", ["dml-bench", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, capsys.readouterr().err
    return capsys.readouterr().out


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("kind", COMPARED, indirect=True)
def test_runs_are_compared_by_what_was_measured_of_them(kind, runs, monkeypatch, capsys):
    output = dml_bench(monkeypatch, capsys, "compare", *sorted(runs.iterdir()), "--json")
    [comparison] = json.loads(output)
    metrics = {row["metric"] for row in comparison["overall"]}
    assert metrics >= (
        {"recall_at_1", "map_at_r"}
        if kind == "apart"
        else {"precision_at_1_macro", "precision_drop_unseen_classes"}
    )
    assert len(comparison["classes"]) == (4 if kind == "apart" else 8)


def test_they_are_reported(kind, runs, tmp_path, monkeypatch, capsys, request):
    if kind not in COMPARED:
        request.getfixturevalue("blank_figures")
    monkeypatch.setattr(
        figures,
        "FIGURES",
        ()
        if kind != "rotated"
        else (figures.holdout_dots, figures.class_bars, figures.accuracy_curves),
    )
    dml_bench(monkeypatch, capsys, "report", runs, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert ("- other, a claim on test_accuracy: its runs have none" in text) is (kind == "apart")
    if kind != "apart":
        chosen = {"validated": "validation images of the known classes"}.get(
            kind, "one half of the queries of the known classes"
        )
        assert f"Thresholds are chosen on {chosen}, and tested on the other queries." in text
    if kind == "rotated":
        figure_names = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
        of_answers = {name for name in figure_names if "-answer-" in name}
        assert len(of_answers) == 4
        assert sorted(name.rpartition("-")[2] for name in figure_names - of_answers) == [
            "classes",
            "holdouts",
            "test_accuracy",
        ]
        with open(tmp_path / "out" / "holdouts.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["experiment"] == "other"]
        summary = summary_of(runs / "other" / "cub" / "seed-42")
        assert [(row["phase"], float(row["precision_drop_unseen_classes"])) for row in rows] == [
            (holdout["phase"], pytest.approx(holdout["precision_drop_unseen_classes"]))
            for holdout in summary["holdouts"]
        ]
        deviation = 100 * np.std(
            [float(row["precision_drop_unseen_classes"]) for row in rows], ddof=1
        )
        assert deviation == pytest.approx(
            100 * summary["precision_drop_unseen_classes_between_holdouts"]
        )
        costs = [float(row["cost_of_being_unseen"]) for row in rows]
        assert np.std(costs, ddof=1) == pytest.approx(
            summary["cost_of_being_unseen_between_holdouts"]
        )
        assert "in each of 3 rotated hold-outs" in text
        assert "In brackets the standard deviation between hold-outs in points" in text


@pytest.mark.parametrize("phases", [MAIN, LIMITED], ids=["main", "limited"])
def test_a_class_is_enrolled_and_found(kind, phases, run, photos, tmp_path, monkeypatch, capsys):
    phase = phases.get(kind, "all" if phases is MAIN else "limited")
    output = dml_bench(monkeypatch, capsys, "enrol", run, "--images", photos, "--phase", phase)
    assert f"1 new: {NEW}" in output
    turned = tmp_path / "turned.png"
    Image.open(next((photos / NEW).iterdir())).rotate(1).save(turned)
    report = json.loads(
        dml_bench(
            monkeypatch,
            capsys,
            "predict",
            run,
            turned,
            "--phase",
            phase,
            "--json",
        )
    )
    [answer] = report["answers"]
    assert answer["closest_class"] == NEW
    chosen_on = report["threshold"]["chosen_on"]
    assert (chosen_on["validation"] > 0) is (kind == "validated")
    assert (chosen_on["enrolled"] > 0) is (kind != "validated")
    assert NEW in answer["class"]
    assert chosen_on["classes_never_trained_on"] > 0, "at least the new class"


def test_it_is_exported_with_a_card_that_says_what_its_model_did_not_see(
    kind, run, tmp_path, monkeypatch, capsys
):
    phase = LIMITED.get(kind, "limited")
    dml_bench(monkeypatch, capsys, "export", run, "--phase", phase, "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    summary = summary_of(run)
    unseen = next(
        (held["unseen_classes"] for held in summary.get("holdouts", ()) if held["phase"] == phase),
        summary["unseen_classes"],
    )
    assert f"The {len(unseen)} classes that it was not trained on: {', '.join(unseen)}." in card
    assert ("0 validation images of the run" in card) is (kind != "validated")
    assert ("cut yours out as well" in card) is (kind == "boxed")


@pytest.mark.parametrize(
    "settings", [("evaluate.tta=crops",), ("evaluate.tta=mirror", "evaluate.tta_by=max")]
)
def test_views_that_a_new_photo_is_not_given_are_refused_in_one_line(
    settings, birds, cache_dir, tmp_path, photos, monkeypatch, capsys
):
    folder = train(birds, cache_dir, tmp_path / "runs", "train.epochs=1", *settings).folder
    monkeypatch.setattr(sys, "argv", ["dml-bench", "predict", str(folder), str(photos)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert (
        "which new photos don't support: run it with --set evaluate.tta=mirror" in said
        and said.count("\n") == 1
    )
