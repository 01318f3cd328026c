"""`dml-bench evidence`: the images behind an answer."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dml_bench.cli.app import main
from dml_bench.explain.images import RunImages
from dml_bench.explain.neighbour_panels import query_neighbours, write_neighbour_panels
from dml_bench.runs.run import read_folder


@pytest.fixture(scope="module")
def run(trained) -> Path:
    return trained("train.epochs=1").folder


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_query_is_shown_with_the_ten_closest_gallery_images_that_the_run_found(run):
    run_images = RunImages(read_folder(run))
    predicted = {row["query"]: row for row in rows(run / "predictions.csv")}
    for phase in ("all", "limited"):
        panel = query_neighbours(run_images, run_images.image(run_images.queries[3]), phase)
        row = predicted[panel.image.path]
        assert panel.neighbours[0].path == row[f"{phase}_nearest"]
        assert run_images.run.class_names[panel.neighbours[0].label] == row[f"{phase}_predicted"]
        assert run_images.run.class_names[panel.elected] == row[f"{phase}_vote"]
        assert panel.votes / 10 == pytest.approx(float(row[f"{phase}_vote_share"]))
        assert panel.unseen == (phase == "limited" and row["unseen"] == "True")
        assert list(panel.similarities) == sorted(panel.similarities, reverse=True)
        assert len(panel.neighbours) == 10


def test_every_mistaken_query_gets_a_panel_and_rows_for_both_phases(run, tmp_path):
    written = write_neighbour_panels(run, tmp_path / "out")
    predicted = rows(run / "predictions.csv")
    wrong = {
        row["query"]
        for row in predicted
        if row["all_correct"] == "False" or row["limited_correct"] == "False"
    }
    shown = rows(tmp_path / "out" / "evidence.csv")
    assert {row["image"] for row in shown} == wrong
    assert len(written) == len(wrong) > 0
    assert len(shown) == 2 * 10 * len(wrong)
    with Image.open(written[0]) as picture:
        assert picture.size == (6 + 11 * 174, 50 + 2 * 232)
        assert np.asarray(picture).std() > 20


def test_queries_are_chosen_by_class_or_by_file(run, tmp_path):
    names = [row["query"] for row in rows(run / "predictions.csv")]
    assert len(write_neighbour_panels(run, tmp_path / "one", images=[Path(names[0])])) == 1
    label = names[0].split("/")[-2]
    assert len(write_neighbour_panels(run, tmp_path / "class", class_name=label)) == sum(
        f"/{label}/" in f"/{name}" for name in names
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "001.Nobody"], "the run has no class '001.Nobody'"),
        (
            ["--mistakes", "1", "--class", "x"],
            "--class and --mistakes choose images in different ways",
        ),
        (["--images", "nowhere.jpg"], "nowhere.jpg is not a file"),
    ],
)
def test_what_can_t_be_shown_is_one_line(options, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["dml-bench", "evidence", str(run), "--out", str(tmp_path / "out"), *options]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_gallery_image_is_no_query(run, tmp_path):
    run_images = RunImages(read_folder(run))
    enrolled = run_images.image(run_images.gallery("all")[0])
    with pytest.raises(ValueError, match="is no query of .*: `dml-bench predict` takes new photos"):
        write_neighbour_panels(run, tmp_path / "out", images=[Path(enrolled.path)])


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else: name a new folder with --out"):
        write_neighbour_panels(run, tmp_path, mistakes=1)


def test_a_folder_that_is_written_again_has_no_panel_of_the_queries_before(run, tmp_path):
    write_neighbour_panels(run, tmp_path / "out", mistakes=3)
    (tmp_path / "out" / "001-mine.png").write_bytes(b"")
    (panel,) = write_neighbour_panels(run, tmp_path / "out", mistakes=1)
    panels = set((tmp_path / "out").glob("*.png"))
    assert panels == {panel, tmp_path / "out" / "001-mine.png"}


def test_panels_that_were_stopped_half_way_can_be_made_again(run, tmp_path, monkeypatch):
    import dml_bench.explain.neighbour_panels as module

    made, panel = [], module.neighbour_panel

    def stopped(*arguments):
        made.append(panel(*arguments))
        if len(made) == 2:
            raise KeyboardInterrupt
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(module, "neighbour_panel", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_neighbour_panels(run, tmp_path / "out", mistakes=2)
    assert rows(tmp_path / "out" / "evidence.csv") == []
    assert len(write_neighbour_panels(run, tmp_path / "out", mistakes=2)) == 2
    assert len(rows(tmp_path / "out" / "evidence.csv")) > 0
