import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dml_bench.data import synthetic
from dml_bench.data.synthetic import families, writing

PIXELS = {
    ("benchmark", 0, 64): "15e0608646facc34d1a5f783cea37cc6bbe299fb5e9c83aade4df632bef0584d",
    ("benchmark", 7, 64): "c48f08b28a7b51cc5d456f01e6031433abe827e90346f975fa3f9e72c6b7cb5b",
    ("source", 3, 96): "b8e8d708badcf4ffc4220acfb8fdd3a48ae36a76e1bf894cbd89697bbb9c7e26",
    ("source", 12, 256): "de43c1f35366067dcab0a70dc5ebc958c9ef42638bc0de23ca3eded364104eb9",
}
"""SHA-256 of raw pixels, by domain, species of twenty and size."""


def drawing(domain="benchmark", position=0, *, index=0, seed=3, size=64):
    return synthetic.draw(
        synthetic.species(20, seed=1, domain=domain)[position], index=index, seed=seed, size=size
    )


def kin(birds) -> list[list[synthetic.Species]]:
    """The birds by family."""
    families: dict[int, list[synthetic.Species]] = {}
    for bird in birds:
        families.setdefault(bird.family, []).append(bird)
    return [families[family] for family in sorted(families)]


def differences(one: synthetic.Species, other: synthetic.Species) -> set[str]:
    """The traits in which two birds differ."""
    traits = set(synthetic.Species.__dataclass_fields__) - {"name", "family"}
    return {trait for trait in traits if getattr(one, trait) != getattr(other, trait)}


def table(root: Path, name: str) -> list[list[str]]:
    return [line.split() for line in (root / name).read_text().splitlines()]


def inside(inner, outer, slack=0.0):
    return (
        inner[0] >= outer[0] - slack
        and inner[1] >= outer[1] - slack
        and inner[0] + inner[2] <= outer[0] + outer[2] + slack
        and inner[1] + inner[3] <= outer[1] + outer[3] + slack
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return synthetic.write(
        tmp_path_factory.mktemp("demo") / "birds", counts=[3, 1, 2, 4, 2, 3, 1], size=64, seed=5
    )


@pytest.mark.parametrize(("domain", "position", "size"), PIXELS)
def test_the_pixels_of_a_drawing_never_change(domain, position, size):
    image = drawing(domain, position, size=size).image
    assert hashlib.sha256(image.tobytes()).hexdigest() == PIXELS[domain, position, size]


def test_the_same_arguments_draw_the_same_image_and_others_another():
    first = drawing()
    assert first.image.tobytes() == drawing().image.tobytes()
    assert first.box == drawing().box
    others = [drawing(seed=4), drawing(index=1), drawing(position=1), drawing("source")]
    assert len({image.image.tobytes() for image in [first, *others]}) == 5


@pytest.mark.parametrize("size", [32, 64, 200])
def test_a_drawing_is_a_square_rgb_image_of_the_wanted_size(size):
    image = drawing(size=size).image
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_a_scene_is_the_same_at_every_size():
    small, large = drawing(size=64), drawing(size=256)
    assert small.box == pytest.approx([value / 4 for value in large.box], abs=1.5)


@pytest.mark.parametrize("domain", ["benchmark", "source"])
def test_every_part_lies_within_the_bird_and_the_bird_within_the_image(domain):
    for i, bird in enumerate(synthetic.species(12, seed=2, domain=domain)):
        for index in range(4):
            drawing = synthetic.draw(bird, index=10 * i + index, seed=1, size=48)
            assert inside(drawing.box, (0, 0, 48, 48))
            assert drawing.box[2] > 8 and drawing.box[3] > 8
            assert set(drawing.parts) <= set(synthetic.PARTS)
            assert all(
                inside(box, drawing.box, slack=1e-6) and box[2] > 0 and box[3] > 0
                for box in drawing.parts.values()
            )


def test_almost_every_part_is_seen_in_almost_every_image():
    bird = replace(synthetic.species(1, seed=2)[0], crest="peak")
    seen = Counter(
        part
        for index in range(20)
        for part in synthetic.draw(bird, index=index, seed=1, size=48).parts
    )
    assert set(seen) == set(synthetic.PARTS)
    assert min(seen.values()) >= 15


@pytest.mark.parametrize("domain", ["benchmark", "source"])
def test_no_two_species_look_or_are_called_alike(domain):
    birds = synthetic.species(200, seed=7, domain=domain)
    assert len({bird.name for bird in birds}) == 200
    assert len({replace(bird, name="", family=0) for bird in birds}) == 200


def test_siblings_can_be_told_apart_at_64_pixels():
    birds = synthetic.species(20, seed=7)
    poses = []
    for bird in birds:
        unnamed = replace(bird, name="any")
        drawings = [synthetic.draw(unnamed, index=k, seed=1, size=64) for k in range(3)]
        poses.append([np.asarray(drawing.image, int) for drawing in drawings])
    for i, one in enumerate(birds):
        for j, other in enumerate(birds[:i]):
            if one.family == other.family:
                changed = [
                    (abs(a - b).max(axis=2) > 24).sum()
                    for a, b in zip(poses[i], poses[j], strict=True)
                ]
                assert max(changed) >= 12, (one.name, other.name)


def test_the_same_count_seed_and_domain_give_the_same_species():
    assert synthetic.species(40, seed=7) == synthetic.species(40, seed=7)
    assert synthetic.species(40, seed=7) != synthetic.species(40, seed=8)


def test_source_and_benchmark_share_no_species_no_name_and_no_body():
    benchmark, source = (
        synthetic.species(200, seed=7, domain=domain) for domain in ("benchmark", "source")
    )
    assert not {bird.name for bird in benchmark} & {bird.name for bird in source}
    assert not {bird.body for bird in benchmark} & {bird.body for bird in source}


@pytest.mark.parametrize("domain", ["benchmark", "source"])
def test_each_member_of_a_family_changed_a_colour_and_a_mark_of_its_ancestor(domain):
    for members in kin(synthetic.species(40, seed=7, domain=domain)):
        from_ancestor = []
        for one in members:
            changes = [differences(one, other) for other in members if other is not one]
            if all(len(traits) == 2 for traits in changes):
                from_ancestor.append(changes)
        assert len(from_ancestor) == 1
        colours = [traits & families.AREAS.keys() for traits in from_ancestor[0]]
        assert [len(colour) for colour in colours] == [1, 1, 1, 1]
        assert len(set.union(*colours)) == 4


@pytest.mark.parametrize("domain", ["benchmark", "source"])
def test_siblings_differ_in_at_least_one_clearly_visible_trait(domain):
    for members in kin(synthetic.species(200, seed=7, domain=domain)):
        for one, other in combinations(members, 2):
            contrasts = [
                families.contrast(getattr(one, area), getattr(other, area))
                for area in families.AREAS
            ]
            assert max(contrasts) > 0.22, (one.name, other.name)


@pytest.mark.parametrize("domain", ["benchmark", "source"])
def test_a_name_says_colour_then_mark_then_genus_and_no_part_of_the_bird_twice(domain):
    for bird in synthetic.species(200, seed=7, domain=domain):
        match = re.fullmatch(r"([A-Z][a-z]+(?:_[a-z]+)*)_(?:[A-Z][a-z]+_)?[A-Z][a-z]+", bird.name)
        assert match, bird.name
        parts = [word for word in match[1].split("_") if word.endswith("ed")]
        assert len(parts) == len(set(parts)), bird.name


def test_two_marks_of_the_wing_are_named_once():
    names = {bird.name for bird in synthetic.species(40, seed=7)}
    assert {
        "Rose_throated_long_billed_Wren",
        "Green_mirror_winged_Swallow",
        "Orange_breasted_Swallow",
    } <= names


def test_the_last_fifth_of_the_classes_has_a_sibling_among_the_first():
    families = [bird.family for bird in synthetic.species(40, seed=7)]
    assert set(families[32:]) <= set(families[:32])


def test_a_data_set_has_the_files_of_cub(written):
    images, labels = table(written, "images.txt"), table(written, "image_class_labels.txt")
    assert [number for number, _ in images] == [str(i) for i in range(1, 17)]
    assert Counter(label for _, label in labels) == {
        "1": 3,
        "2": 1,
        "3": 2,
        "4": 4,
        "5": 2,
        "6": 3,
        "7": 1,
    }
    classes = dict(table(written, "classes.txt"))
    for (_, file), (_, label) in zip(images, labels, strict=True):
        assert file.startswith(f"{classes[label]}/") and classes[label].startswith(f"00{label}.")
        with Image.open(written / "images" / file) as image:
            assert (image.format, image.size) == ("JPEG", (64, 64))
    assert sorted(file for _, file in images) == sorted(
        p.relative_to(written / "images").as_posix() for p in written.glob("images/*/*")
    )


def test_the_written_boxes_are_those_of_the_drawings(written):
    boxes = {row[0]: tuple(map(float, row[1:])) for row in table(written, "bounding_boxes.txt")}
    parts = dict(table(written, "parts/parts.txt"))
    assert tuple(parts.values()) == synthetic.PARTS
    assert len(boxes) == 16 and all(inside(box, (0, 0, 64, 64)) for box in boxes.values())
    bird = synthetic.species(7, seed=5)[0]
    truth = synthetic.draw(bird, index=2, seed=5, size=64)
    assert boxes["3"] == pytest.approx(truth.box, abs=1e-3)
    rows = [row for row in table(written, "parts/part_boxes.txt") if row[0] == "3"]
    part_boxes = {parts[row[1]]: tuple(map(float, row[2:])) for row in rows}
    assert part_boxes.keys() == truth.parts.keys()
    assert all(
        part_boxes[part] == pytest.approx(truth.parts[part], abs=1e-3) for part in part_boxes
    )


def test_other_processes_write_the_same_files(written, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FEW_IMAGES", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    again = synthetic.write(tmp_path / "birds", counts=[3, 1, 2, 4, 2, 3, 1], size=64, seed=5)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((written / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_progress_is_told_of_every_image(tmp_path):
    steps: list[int] = []
    synthetic.write(tmp_path / "birds", counts=[2, 3], size=32, seed=5, progress=steps.append)
    assert steps == [1, 1, 1, 1, 1]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path / "birds", counts=[2, 3], size=32, seed=5, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(written):
    with pytest.raises(FileExistsError, match="exists already"):
        synthetic.write(written, counts=[1], size=32, seed=5)


def test_given_class_names_are_kept_and_numbered_once(tmp_path):
    root = synthetic.write(
        tmp_path / "birds",
        counts=[1, 1],
        size=32,
        seed=5,
        class_names=["001.Sooty_Albatross", "Least_Auklet"],
    )
    assert (root / "images.txt").read_text() == (
        "1 001.Sooty_Albatross/Sooty_Albatross_0001.jpg\n2 002.Least_Auklet/Least_Auklet_0001.jpg\n"
    )
    with pytest.raises(ValueError, match="2 classes must have as many different names, got 1"):
        synthetic.write(
            tmp_path / "others", counts=[1, 1], size=32, seed=5, class_names=["Sooty_Albatross"]
        )


def test_cub_has_200_classes_and_11788_images():
    counts = synthetic.cub_counts()
    assert (len(counts), sum(counts.values())) == (200, 11_788)
    assert next(iter(counts)) == "001.Black_footed_Albatross"
    assert list(counts) == sorted(counts)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"count": 0}, "at least one"), ({"domain": "sauce"}, "'benchmark', 'source'")],
)
def test_wrong_arguments_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        synthetic.species(**{"count": 3, "seed": 1} | wrong)
