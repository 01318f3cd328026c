"""Sessions that nobody named are seen in the photos, and kept apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from steps import Heard

from dml_bench.data.synthetic import write
from dml_bench.decision.parts import Parts, divide
from dml_bench.decision.session_rule import ALIKE
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_csv

CLASSES, MOMENTS, SHOTS, SIZE = 5, 8, 4, 72


def photograph(picture: Path, out: Path, rng: np.random.Generator) -> None:
    with Image.open(picture) as opened:
        left, top = rng.integers(0, 6, 2).tolist()
        shot = opened.convert("RGB").crop((left, top, left + SIZE - 6, top + SIZE - 6))
    ImageEnhance.Brightness(shot).enhance(float(rng.uniform(0.85, 1.15))).save(out, quality=92)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    return (
        write(folder / "birds", counts=[MOMENTS * SHOTS] * CLASSES, size=SIZE, seed=11) / "images"
    )


@pytest.fixture
def renamed(drawn, tmp_path) -> Path:
    """Each bird photographed four times in a row, under names that say nothing to a program: how
    many z stand at the end tells the test the moment."""
    rng = np.random.default_rng(3)
    for species in sorted(drawn.iterdir()):
        place = tmp_path / "photos" / species.name
        place.mkdir(parents=True)
        for moment, picture in enumerate(sorted(species.iterdir())[:MOMENTS]):
            for _ in range(SHOTS):
                letters = "".join(rng.choice([*"abcdefghijk"], 12))
                photograph(picture, place / f"{letters}{'z' * moment}.jpg", rng)
    return tmp_path / "photos"


def torn(parts: Parts, old_names: Mapping[str, str] | None = None) -> int:
    """How many photos beside the final part are of one moment with a final one."""
    final = {*moments(parts.out / "final.csv", old_names or {})}
    rest = moments(parts.development / "train.csv", old_names or {})
    return sum(moment in final for moment in rest)


def moments(table: Path, old_names: Mapping[str, str]) -> list[tuple[str, int]]:
    places = [Path(row["path"].removeprefix("images/")) for row in read_csv(table)]
    names = [old_names.get(place.as_posix(), place.name) for place in places]
    return [(place.parent.name, name.count("z")) for place, name in zip(places, names, strict=True)]


def test_photos_of_one_moment_are_on_one_side_whatever_their_names(renamed, tmp_path, cache_dir):
    parts = divide(renamed, tmp_path / "decision", cache_dir, Callback())
    assert parts.rule == ALIKE
    assert parts.kind == "grouped by near-identical photos"
    assert "beside one of their own session (chance " in parts.reason
    assert {"data.split=grouped", "data.group=session"} <= {*parts.settings}
    at_random = divide(renamed, tmp_path / "random", cache_dir, Callback(), seconds=0.0)
    assert torn(parts) < torn(at_random) / 3


def test_photos_of_one_moment_each_are_divided_at_random(drawn, tmp_path, cache_dir):
    parts = divide(drawn, tmp_path / "decision", cache_dir, Callback())
    assert parts.rule == ""
    assert parts.reason.startswith("file names, EXIF data and embeddings don't show")


def test_a_look_at_the_photos_takes_a_part_of_the_time_at_most(renamed, tmp_path, cache_dir):
    heard = Heard()
    parts = divide(renamed, tmp_path / "decision", cache_dir, heard, seconds=0.0)
    assert parts.rule == ""
    assert any("no time to look for sessions" in note for note in heard.notes)


def test_photos_are_looked_at_where_names_show_too_few_sessions(renamed, tmp_path, cache_dir):
    """Three of five classes have two sessions by their names: four are needed."""
    old_names = {}
    for label, species in enumerate(sorted(renamed.iterdir())):
        for number, file in enumerate(sorted(species.iterdir())):
            session = 1 + (label < 3 and number % 2)
            renamed_to = file.rename(file.with_name(f"{label}s{session}_{number:03}.jpg"))
            old_names[f"{species.name}/{renamed_to.name}"] = file.name
    parts = divide(renamed, tmp_path / "decision", cache_dir, Callback())
    assert parts.rule == ALIKE
    at_random = divide(renamed, tmp_path / "random", cache_dir, Callback(), seconds=0.0)
    assert at_random.rule == ""
    assert at_random.reason.endswith("but sessions are too few to be kept apart")
    assert torn(parts, old_names) < torn(at_random, old_names) / 3
