"""Whether `dml-bench decide` divides photos as it should and chooses a row that holds: six sets.

    python benchmarks/decide.py --data-dir DIR        # DIR holds grocery and omniglot, as fetched
    python benchmarks/decide.py --only drawn imbalance

Each set has the ten minutes that a few hundred photos are promised, on an idle machine. A choice is
right where the chosen row has at most 2 points less than the best one on the final part, which no
row was chosen by. Sets with known sessions must be divided by them. Two photos a class, and labels
that mean nothing, must be no answer. reports/decide has numbers only, and no photo.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import REPORTS, facts, save, table
from PIL import Image, ImageEnhance

FOLDER = REPORTS.parent / "decide"
NAME = "decide"
LARGEST_REGRET = 0.02
SIZE = 96

Outcome = dict[str, Any]


@dataclass(frozen=True)
class PhotoSet:
    """A folder of photos that is made, and what has to come of it."""

    name: str
    about: str
    make: Callable[[Path, Path], None]
    """Fills a folder, from the folder of published data sets."""
    group: str
    """What is given as --group; empty where sessions are to be seen, or where there are none."""
    split: str
    """How it must be divided."""
    answers: bool
    """False where there must be no answer."""


def birds(folder: Path, counts: list[int]) -> list[list[Path]]:
    """Drawn birds, a list of files for each class."""
    from dml_bench.data.synthetic import write

    root = write(folder / "drawn", counts=counts, size=SIZE, seed=11)
    return [sorted(place.iterdir()) for place in sorted((root / "images").iterdir())]


def copy_birds(out: Path, counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for number, files in enumerate(birds(Path(scratch), counts)):
            place = out / f"class_{number:02}"
            place.mkdir(parents=True)
            for file in files:
                shutil.copy(file, place / file.name)


def two_photos(out: Path, data_dir: Path) -> None:
    copy_birds(out, [2] * 30)


def imbalanced(out: Path, data_dir: Path) -> None:
    copy_birds(out, [6, 6, 6, 8, 12, 20, 40, 80, 160, 300])


def shuffled(out: Path, data_dir: Path) -> None:
    """Each photo goes into the folder of a class that is drawn for it."""
    copy_birds(out, [30] * 12)
    files = sorted(out.glob("*/*"))
    places = np.random.default_rng(5).permutation([file.parent.name for file in files])
    for number, (file, place) in enumerate(zip(files, places, strict=True)):
        file.rename(out / place / f"moved_{number:04}.jpg")
    for file in sorted(out.glob("*/moved_*")):
        file.rename(file.with_name(file.name.removeprefix("moved_")))


def drawn_in_sessions(out: Path, data_dir: Path) -> None:
    """Each bird is photographed five times in a row: moved a little, brighter or darker. A camera
    counts through the classes, day by day."""
    rng = np.random.default_rng(3)
    number = 0
    with tempfile.TemporaryDirectory() as scratch:
        classes = birds(Path(scratch), [8] * 14)
        for day in range(8):
            for label, files in enumerate(classes):
                place = out / f"class_{label:02}"
                place.mkdir(parents=True, exist_ok=True)
                with Image.open(files[day]) as opened:
                    picture = opened.convert("RGB")
                for _ in range(5):
                    number += 1
                    left, top = rng.integers(0, 8, 2).tolist()
                    shot = picture.crop((left, top, left + SIZE - 8, top + SIZE - 8))
                    shot = ImageEnhance.Brightness(shot).enhance(float(rng.uniform(0.8, 1.2)))
                    shot.save(place / f"IMG_{number:05}.jpg", quality=92)


def grocery(out: Path, data_dir: Path) -> None:
    """Photos of two kinds of shopping trips: the official training part, and the test part."""
    from dml_bench.config.experiments import resolve
    from dml_bench.data.datasets import open_dataset

    component = resolve("frozen_resnet18", overrides=["data.dataset=grocery"]).data.dataset
    dataset = open_dataset(component, data_dir, out.parent / "cache")
    assert dataset.parts is not None
    for label in range(0, dataset.num_classes, 3):
        for part, trip in (("train", "trip_1"), ("test", "trip_2")):
            place = out / dataset.class_names[label] / trip
            place.mkdir(parents=True)
            chosen = np.flatnonzero((dataset.labels == label) & (np.array(dataset.parts) == part))
            for image in chosen[:15]:
                source = dataset.root / dataset.paths[image]
                shutil.copy(source, place / source.name)


def omniglot(out: Path, data_dir: Path) -> None:
    """Characters; who drew one stands at the end of its name."""
    from dml_bench.config.experiments import resolve
    from dml_bench.data.datasets import open_dataset

    component = resolve("frozen_resnet18", overrides=["data.dataset=omniglot"]).data.dataset
    dataset = open_dataset(component, data_dir, out.parent / "cache")
    for label in range(0, dataset.num_classes, 8):
        place = out / dataset.class_names[label]
        place.mkdir(parents=True)
        for image in np.flatnonzero(dataset.labels == label):
            source = dataset.root / dataset.paths[image]
            shutil.copy(source, place / source.name)


SETS = (
    PhotoSet("grocery", "27 products, two trips", grocery, "parent", "grouped by parent", True),
    PhotoSet(
        "omniglot",
        "31 characters, 20 drawers",
        omniglot,
        r"regex:_(\d+)\.png",
        r"grouped by regex:_(\d+)\.png",
        True,
    ),
    PhotoSet("drawn", "14 birds in sessions of 5", drawn_in_sessions, "", "grouped by runs", True),
    PhotoSet("two photos", "30 birds, 2 photos each", two_photos, "", "", False),
    PhotoSet("imbalance", "10 birds, 6 to 300 photos", imbalanced, "", "random by class", True),
    PhotoSet("shuffled", "12 classes that mean nothing", shuffled, "", "random by class", False),
)


def tried(photos: PhotoSet, data_dir: Path, work: Path, minutes: float) -> Outcome:
    """One decision, and whether it is as it must be."""
    import dml_bench as db

    place = work / photos.name.replace(" ", "_")
    if not (place / "photos").exists():
        draft = place / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        photos.make(draft, data_dir)
        draft.rename(place / "photos")
    outcome: Outcome = {"set": photos.name, "about": photos.about}
    begun = time.perf_counter()
    try:
        report = db.decide(
            place / "photos",
            minutes=minutes,
            out=place / "decision",
            group=photos.group,
            overrides=[f"images.size={SIZE}"],
            device="cpu",
            cache_dir=work / "cache",
            callback=Said(),
        )
    except ValueError as problem:
        outcome |= {"answer": "no answer", "why": str(problem).replace(f"{place}/", "")}
        return outcome | {"seconds": time.perf_counter() - begun, "as_wanted": not photos.answers}
    numbers = json.loads(report.as_json())
    right_split = numbers["split"]["kind"] == photos.split
    answered = numbers["answer"] != "no answer"
    held = numbers["final"]["regret"] <= LARGEST_REGRET
    return outcome | {
        "photos": numbers["photos"],
        "answer": numbers["answer"],
        "why": numbers["no_answer"],
        "split": numbers["split"],
        "right_split": right_split,
        "chosen": f"{numbers['choice']['row']}: {numbers['choice']['way']}",
        "final": numbers["final"],
        "rows": numbers["choice"]["rows"],
        "minutes": {"allowed": minutes, "used": numbers["seconds"] / 60},
        "skipped": numbers["skipped_rows"],
        "unavailable": list(numbers["unavailable_rows"]),
        "held": held,
        "seconds": time.perf_counter() - begun,
        "as_wanted": right_split and (held if photos.answers else not answered),
    }


def line_of(outcome: Outcome) -> list[str]:
    """A row of the table on the page."""
    head = [outcome["set"], outcome["about"]]
    verdict = "yes" if outcome["as_wanted"] else "NO"
    if "final" not in outcome:
        return [*head, "-", "-", "no answer", "-", "-", "-", "-", verdict]
    known, final = outcome["final"]["known"], outcome["final"]
    estimate = f"{100 * known['estimate']:.1f}"
    if known["low"] is not None:
        estimate += f" [{100 * known['low']:.1f}, {100 * known['high']:.1f}]"
    answer = outcome["answer"] if not outcome["why"] else "no answer"
    ended = {name.rpartition(": ")[0] for name in outcome["rows"]}
    return [
        *head,
        str(len(ended)),
        f"`{outcome['split']['kind']}`" + " (wrong)" * (not outcome["right_split"]),
        answer,
        outcome["chosen"],
        estimate,
        f"{100 * final['regret']:.1f} ({final['best']})" if final["regret"] > 0 else "0",
        f"{outcome['minutes']['used']:.1f} of {outcome['minutes']['allowed']:g}",
        verdict,
    ]


def write(outcomes: list[Outcome], out: Path) -> None:
    """The record and its page."""
    heads = [
        "set",
        "photos",
        "rows",
        "split",
        "answer",
        "chosen",
        "P@1, final",
        "regret",
        "minutes",
        "as wanted",
    ]
    lines = ["# Six sets of photos, decided", "", *(__doc__ or "").splitlines()[5:], ""]
    lines += table(heads, [line_of(outcome) for outcome in outcomes])
    busy = os.getloadavg()[0]
    lines += ["", "Rows: how many ended in time, the first of decide's order."]
    lines += ["Regret: points that the best row on the final part has more."]
    lines += [f"Load average at the end: {busy:.1f}.", ""]
    done = {outcome["set"] for outcome in outcomes}
    missing = [photos.name for photos in SETS if photos.name not in done]
    if missing:
        lines += [f"Not decided yet: {', '.join(missing)}.", ""]
    from dml_bench.decision.rows import ROWS

    lines += [f"The order of the rows: {'; '.join(spec.label for spec in ROWS)}.", ""]
    for outcome in outcomes:
        name = outcome["set"]
        if outcome["why"]:
            lines += [f"- {name}: {outcome['why']}"]
        if outcome.get("skipped"):
            lines += [f"- {name}: not run for want of time: {'; '.join(outcome['skipped'])}"]
        if outcome.get("unavailable"):
            lines += [f"- {name}: without weights here: {'; '.join(outcome['unavailable'])}"]
    result = facts() | {"sets": outcomes}
    # Where photos lay says nothing to others.
    result["made_by"]["command"] = "python benchmarks/decide.py --data-dir DIR"
    save(NAME, result, "\n".join([*lines, ""]), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--only", nargs="+", default=[], help="names of sets; the rest stays")
    parser.add_argument("--minutes", type=float, default=10, help="for each set")
    parser.add_argument("--work", type=Path, help="photos and runs; kept if given")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    record = options.out / f"{NAME}.json"
    outcomes: dict[str, Outcome] = {}
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))["sets"]
        outcomes = {outcome["set"]: outcome for outcome in known}
    with tempfile.TemporaryDirectory() as scratch:
        for photos in SETS:
            if options.only and photos.name not in options.only:
                continue
            work = options.work or Path(scratch)
            outcome = tried(photos, options.data_dir, work, options.minutes)
            print(f"{photos.name}: {'as wanted' if outcome['as_wanted'] else 'NOT as wanted'}")
            outcomes[photos.name] = outcome
            write([outcomes[known.name] for known in SETS if known.name in outcomes], options.out)


if __name__ == "__main__":
    from dml_bench.system.callbacks import Callback

    class Said(Callback):
        """Notes go to the terminal."""

        def note(self, text: str) -> None:
            print(text, flush=True)

    main()
