"""Data in the shape in which people have it: a folder of faces with parts of its own, a table of
leaves with one-hot columns; and the statistics to normalise them by."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tiny import SETTINGS, tiny

from dml_bench.cli import app
from dml_bench.runs.execute import execute
from dml_bench.runs.request import Outcome, RunRequest
from dml_bench.system.callbacks import Callback

PEOPLE = {
    "Angela": "peru",
    "Barack": "sienna",
    "Boris": "khaki",
    "Emmanuel": "tan",
    "Justin": "salmon",
}
COUNTS = {"train": (14, 9, 6, 4, 3), "valid": (3, 2, 2, 2, 2), "test": (4, 3, 2, 2, 2)}
LEAVES = ("healthy", "multiple_diseases", "rust", "scab")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people in train, valid and test, most of one and few of another."""
    root = tmp_path_factory.mktemp("faces")
    chance = np.random.default_rng(3)
    for part, counts in COUNTS.items():
        for (name, colour), count in zip(PEOPLE.items(), counts, strict=True):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                width, height = (int(side) for side in chance.integers(50, 80, 2))
                image = Image.new(
                    "RGB",
                    (width, height),
                    tuple(int(level) for level in chance.integers(60, 200, 3)),
                )
                ImageDraw.Draw(image).ellipse((10, 8, width - 10, height - 8), fill=colour)
                image.save(root / part / name / f"{number:03}.jpg", quality=88)
    return root


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/Train_0.jpg, ... and train.csv with image_id and a column of zeros and ones for each
    disease."""
    root = tmp_path_factory.mktemp("leaves")
    (root / "images").mkdir()
    with open(root / "train.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_id", *LEAVES])
        for number in range(24):
            kind = number % 4
            image = Image.new("RGB", (60, 44), (40, 120 + 5 * (number % 7), 50))
            ImageDraw.Draw(image).rectangle(
                (10, 10, 20 + 5 * kind, 30), fill=("green", "brown", "orange", "black")[kind]
            )
            image.save(root / "images" / f"Train_{number}.jpg")
            table.writerow([f"Train_{number}", *(int(other == kind) for other in range(4))])
    return root


def small(
    root: Path, cache_dir: Path, out: Path, *more: str, callback: Callback | None = None
) -> Outcome:
    settings = ("unseen=last:1", "train.epochs=2", *more)
    request = RunRequest(
        experiment=tiny(*settings),
        data_dir=root,
        cache_dir=cache_dir,
        out=out,
        device="cpu",
        callback=callback or Callback(),
    )
    return execute(request)


def parts_of(folder: Path) -> dict[str, str]:
    with open(folder / "split.csv", newline="") as file:
        return {row["path"]: row["part"] for row in csv.DictReader(file)}


def test_the_parts_of_a_folder_of_faces_are_kept_and_valid_images_only_watch(
    faces: Path, cache_dir: Path, tmp_path: Path
):
    folder = small(
        faces,
        cache_dir,
        tmp_path,
        "data.dataset=folder",
        "data.split=given",
        "train.checkpoint=valid_accuracy",
    ).folder
    assert all(path.startswith(f"{part}/") for path, part in parts_of(folder).items())
    summary = json.loads((folder / "summary.json").read_text())
    assert [summary["split"][f"{part}_images"] for part in ("train", "valid", "test")] == [
        36,
        11,
        13,
    ]
    assert summary["unseen_classes"] == ["Justin"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(record.keys() & {"valid_accuracy", "valid_accuracy2"} for record in records)


def test_parts_of_its_own_that_are_not_used_are_pointed_out(
    faces: Path, leaves: Path, cache_dir: Path, tmp_path: Path
):
    class Listening(Callback):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    (faces / "train" / "Angela" / "notes.txt").write_text("no image")
    for root, dataset, said in (
        (faces, ["data.dataset=folder"], 1),
        (leaves, ["data.dataset=csv", "data.dataset.suffix=.jpg"], 0),
    ):
        callback = Listening()
        small(root, cache_dir, tmp_path, *dataset, callback=callback)
        hints = [
            note
            for note in callback.notes
            if "has train and test images of its own; --set data.split=given keeps them apart"
            in note
        ]
        assert len(hints) == said
        left_out = f"{faces}: 1 file is no image and is left out (first: train/Angela/notes.txt)"
        assert (left_out in callback.notes) == (root == faces)


def test_a_table_of_leaves_is_read_by_its_one_hot_columns(
    leaves: Path, cache_dir: Path, tmp_path: Path
):
    folder = small(
        leaves, cache_dir, tmp_path, "data.dataset=csv", "data.dataset.suffix=.jpg"
    ).folder
    with open(folder / "all_classes_metrics.csv", newline="") as file:
        assert [row["class name"] for row in csv.DictReader(file)] == list(LEAVES)


def test_file_names_without_an_ending_are_answered_with_the_one_that_is_there(
    leaves: Path, cache_dir: Path, tmp_path: Path
):
    with pytest.raises(
        ValueError, match=r"24 \(first: images/Train_0\); .* or --set data\.dataset\.suffix=\.jpg$"
    ):
        small(leaves, cache_dir, tmp_path, "data.dataset=csv")


def test_what_is_refused_before_training_leaves_no_folder_and_can_be_corrected_in_place(
    faces: Path, cache_dir: Path, tmp_path: Path
):
    with pytest.raises(
        ValueError, match="unseen is 'last:4', but .* has 5 classes: hold out 1 to 3"
    ):
        small(faces, cache_dir, tmp_path, "data.dataset=folder", "unseen=last:4")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        ValueError, match=r"optimizer\.alpha must be a number above 0, up to 1, got 2\.0"
    ):
        small(
            faces,
            cache_dir,
            tmp_path,
            "data.dataset=folder",
            "optimizer=ranger",
            "optimizer.alpha=2.0",
        )
    corrected = small(
        faces, cache_dir, tmp_path, "data.dataset=folder", "optimizer=ranger", "optimizer.alpha=0.8"
    )
    assert not corrected.already_finished
    with pytest.raises(
        ValueError, match=r"holds a run of another configuration \(differs in optimizer.alpha\)"
    ):
        small(
            faces,
            cache_dir,
            tmp_path,
            "data.dataset=folder",
            "optimizer=ranger",
            "optimizer.alpha=0.7",
        )


# Statistics


def command(root: Path, cache_dir: Path, *more: str) -> list[str]:
    settings = [part for setting in (*SETTINGS, "unseen=last:1") for part in ("--set", setting)]
    places = ["--dataset", "folder", "--data-dir", str(root), "--cache-dir", str(cache_dir)]
    return [
        "dml-bench",
        "data",
        "statistics",
        "EPSHN_cosine_resnet18_sgd_aug",
        *settings,
        *places,
        *more,
    ]


def exit_code_of(monkeypatch: pytest.MonkeyPatch, *command: str) -> int:
    monkeypatch.setattr(sys, "argv", list(command))
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(ended.value.code or 0)


def test_statistics_are_those_of_the_training_images_of_each_phase(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Three classes of one colour each; the test images and those of the unseen class are of other
    colours."""
    root = tmp_path / "colours"
    for part, colours in (("train", ("#ff0000", "#00ff00", "#0000ff")), ("test", ("#ffffff",) * 3)):
        for name, colour in zip("abc", colours, strict=True):
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (40, 40), colour).save(root / part / name / f"{number}.png")
    assert (
        exit_code_of(
            monkeypatch,
            *command(
                root,
                cache_dir,
                "--set",
                "data.split=given",
                "--out",
                str(tmp_path / "found" / "s.json"),
            ),
        )
        == 0
    )
    phases = json.loads((tmp_path / "found" / "s.json").read_text())["phases"]
    assert phases["all"] == {"mean": [0.3333] * 3, "std": [0.4714] * 3, "images": 6, "unseen": 0}
    assert phases["limited"] == {
        "mean": [0.5, 0.5, 0.0],
        "std": [0.5, 0.5, 0.0],
        "images": 4,
        "unseen": 1,
    }
    said = capsys.readouterr().out
    assert (
        "--set 'images.mean=[0.5, 0.5, 0.0]' --set 'images.std=[0.5, 0.5, 0.0]' in all phases: no"
        " held-out class is in them" in said
    )


def test_statistics_are_taken_by_the_config_and_by_the_network(
    faces: Path, cache_dir: Path, tmp_path: Path
):
    statistics = ("images.mean=[0.5, 0.4, 0.3]", "images.std=[0.2, 0.25, 0.3]")
    folder = small(faces, cache_dir, tmp_path, "data.dataset=folder", *statistics).folder
    for phase in ("all", "limited"):
        weights = load_file(folder / phase / "weights.safetensors")
        assert torch.allclose(weights["mean"].flatten() / 255, torch.tensor([0.5, 0.4, 0.3]))
        assert torch.allclose(weights["std"].flatten() / 255, torch.tensor([0.2, 0.25, 0.3]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["images.mean=[0.5, 0.4, 0.3]"], r"must be three numbers each, 0-1, got \[.*\] and \[\]"),
        (["images.mean=[0.5]", "images.std=[0.5]"], "must be three numbers each, 0-1, got"),
        (
            ["images.mean=[123.0, 0.4, 0.3]", "images.std=[0.2, 0.2, 0.2]"],
            "images.mean must be three numbers from 0 to 1, got",
        ),
        (
            ["images.mean=[0.5, 0.4, 0.3]", "images.std=[0.2, 0.0, 0.2]"],
            "images.std must be three numbers above 0 and up to 1, got",
        ),
        (
            [
                "images.mean=[0.5, 0.4, 0.3]",
                "images.std=[0.2, 0.2, 0.2]",
                "images.normalization=train",
            ],
            "has no effect",
        ),
    ],
)
def test_statistics_that_can_t_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(*settings)


def test_a_file_that_is_no_json_is_refused(
    faces: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    assert (
        exit_code_of(monkeypatch, *command(faces, cache_dir, "--out", str(tmp_path / "s.txt"))) == 2
    )
    assert capsys.readouterr().err == f"error: --out {tmp_path}/s.txt: the name must end in .json\n"
