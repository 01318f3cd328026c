"""What the lines of README.md and docs/ take for granted, made small: photos, tables, embeddings
and a finished run, under the names that the pages give them."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tiny import SETTINGS

import dml_bench as db
from dml_bench.system.files import write_csv

__all__ = ["DEMO", "copy_desk", "lay_out", "make_runs"]

COLOURS = ("red", "green", "blue", "orange", "purple", "teal", "olive", "pink")
NEW_COLOURS = ("black", "white", "yellow", "brown")
SIDE = 40
DEMO = (
    *("data.dataset.classes=8", "data.dataset.per_class=8", "data.dataset.size=40"),
    "data.test_fraction=0.25",
)
"""Eight drawn species with eight images each, two of them test images."""


class Photographer:
    """Photos of things that are told apart by their colour, no two of them alike."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(11)

    def take(self, colour: str, width: int = SIDE, height: int = SIDE) -> Image.Image:
        photo = Image.new("RGB", (width, height), colour)
        pencil = ImageDraw.Draw(photo)
        for shade in ("silver", "gray", "silver"):
            left, top = self.random.integers(0, (3 * width // 4, 3 * height // 4))
            right, bottom = self.random.integers(2, (width // 4, height // 4))
            pencil.rectangle((left, top, left + right, top + bottom), fill=shade)
        return photo

    def save(self, path: Path, colour: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.take(colour).save(path, quality=92)

    def fill(self, folder: Path, colours: tuple[str, ...], count: int) -> None:
        """A folder for each class."""
        for colour in colours:
            for number in range(count):
                self.save(folder / colour / f"{colour}_{number:02}.jpg", colour)


def lay_out(folder: Path) -> None:
    """All files of readers, but no run."""
    photographer = Photographer()
    photographer.fill(folder / "photos", COLOURS, 40)
    photographer.fill(folder / "new_classes", NEW_COLOURS, 8)
    photographer.fill(folder / "parts" / "train", (*COLOURS, *NEW_COLOURS), 6)
    photographer.fill(folder / "parts" / "test", (*COLOURS, *NEW_COLOURS), 3)
    photographer.fill(folder / "parts" / "catalogue", (*COLOURS, *NEW_COLOURS), 1)
    for name, colours in (("new_photos", COLOURS), ("holiday_photos", ("gold", "navy"))):
        for number, colour in enumerate(colours):
            photographer.save(folder / name / f"{number}.jpg", colour)
    for number, colour in enumerate(("red", "blue")):
        photographer.save(folder / "inbox" / f"{number}.jpg", colour)
    for name in ("photo", "mine", "yours", "first", "second"):
        photographer.save(folder / f"{name}.jpg", "green")
    (folder / "my.toml").write_text(
        'extends = "EPSHN_cosine_resnet18"\n[optimizer]\nname = "sgd"\n'
    )
    tables(folder, photographer)
    embeddings(folder)


def tables(folder: Path, photographer: Photographer) -> None:
    """Photos whose classes stand in a table."""
    leaves, labelled, tagged = [], [], []
    for number in range(40):
        colour = COLOURS[number % 4]
        photographer.save(folder / "leaves" / f"{number}.jpg", colour)
        leaves.append((str(number), colour))
    write_csv(folder / "leaves" / "train.csv", ("image_id", "species"), leaves)
    for number in range(64):
        first, second = COLOURS[number % 4], COLOURS[(number + number // 4 % 3) % 4]
        photographer.save(folder / "labelled" / f"{number}.jpg", first)
        labelled.append((f"{number}.jpg", ";".join(sorted({first, second}))))
    write_csv(folder / "labelled" / "train.csv", ("path", "label"), labelled)
    for path in sorted((folder / "parts").glob("t*/*/*.jpg")):
        part, colour, _ = path.relative_to(folder / "parts").parts
        tagged.append((path.relative_to(folder / "parts").as_posix(), colour, part))
    write_csv(folder / "parts" / "tags.csv", ("path", "class", "split"), tagged)
    shelves(folder, photographer)


def shelves(folder: Path, photographer: Photographer) -> None:
    """Photos of two products each, with the corners of their boxes."""
    columns = ("path", "class", "x0", "y0", "x1", "y1")
    boxes = []
    for number in range(24):
        pair = (COLOURS[number % 4], COLOURS[(number + 1) % 4])
        boxes += shelf(folder / "shelves" / f"shelf_{number}.jpg", photographer, pair)
    write_csv(folder / "shelves" / "train.csv", columns, boxes)
    new = shelf(folder / "shelf_8.jpg", photographer, ("black", "white"))
    write_csv(folder / "new_products.csv", columns, new)
    last = shelf(folder / "shelf_9.jpg", photographer, ("red", "green"))
    write_csv(folder / "boxes.csv", columns, last)


def shelf(
    path: Path, photographer: Photographer, colours: tuple[str, str]
) -> list[tuple[object, ...]]:
    """Save the photo; the rows of its two products."""
    photo, rows = Image.new("RGB", (460, 440)), []
    for left, colour in zip((10, 240), colours, strict=True):
        photo.paste(photographer.take(colour, 200, 400), (left, 20))
        rows.append((path.name, colour, left, 20, left + 200, 420))
    path.parent.mkdir(exist_ok=True)
    photo.save(path)
    return rows


def embeddings(folder: Path) -> None:
    """Of two models of another program, of which the second knows the last classes less well."""
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(8), 12)
    centres = random.normal(size=(8, 16))
    paths = np.array([f"{label}_{number}.jpg" for number, label in enumerate(labels)])
    names = {"embeddings": 0.6, "all": 0.6, "without": np.where(labels < 6, 0.6, 1.5)[:, None]}
    for name, noise in names.items():
        vectors = centres[labels] + noise * random.normal(size=(len(labels), 16))
        np.savez(folder / f"{name}.npz", embeddings=vectors.astype(np.float32), paths=paths)
    rows = [(path, f"class {label}") for path, label in zip(paths, labels, strict=True)]
    write_csv(folder / "labels.csv", ("path", "class"), rows)


def make_runs(folder: Path, cache_dir: Path) -> None:
    """Of an experiment called NAME: one run of the photos, and one of drawn birds."""
    where = {"out": folder, "cache_dir": cache_dir, "device": "cpu"}
    baseline = "EPSHN_cosine_resnet18_sgd_aug"
    of_photos = [*SETTINGS, "name=NAME", "data.dataset=folder", "data.valid_fraction=0.4"]
    db.run(baseline, overrides=of_photos, data_dir=folder / "photos", **where)
    db.run(baseline, demo=True, overrides=[*SETTINGS, *DEMO, "name=NAME"], **where)


def copy_desk(made: Path, desk: Path, dataset: str) -> None:
    """Everything that `lay_out` made, and of the runs the one of `photos` or of `demo`."""
    shutil.copytree(made, desk, dirs_exist_ok=True, ignore=shutil.ignore_patterns("NAME"))
    shutil.copytree(made / "NAME" / dataset, desk / "runs" / "NAME" / dataset)
