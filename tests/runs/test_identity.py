"""A result belongs to its data: whatever exists already is used again only for the images, labels
and parts that it is of."""

import json
import os
import shutil
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from handmade import BASELINE, dataset_of, experiment, finish, photographed
from PIL import Image
from small_suite import call
from small_suite import command as suite_command
from steps import Heard
from tiny import refusal, train

from dml_bench.analysis.collect import why_not_beside
from dml_bench.config import Data, as_table, load
from dml_bench.config.experiments import find, read_profile, resolve
from dml_bench.config.tables import read_table
from dml_bench.data import digests
from dml_bench.data.datasets import Dataset
from dml_bench.data.digests import digests_of
from dml_bench.data.identity import (
    OtherData,
    copies_in_gallery,
    copies_trained_on,
    data_facts,
    describe_alike_groups,
    describe_copies,
    differing_data,
)
from dml_bench.data.split import disjoint_phases, make_disjoint_split, make_split, phases
from dml_bench.registry import UnknownName
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.run import find_run
from dml_bench.training import loop

GIVEN = ("data.split=given", "train.epochs=1")


def with_parts(birds: Path, place: Path) -> Path:
    """The drawn birds with a part for each: of every four images the fourth is asked."""
    copy = place / "data" / "CUB_200_2011"
    shutil.copytree(birds, copy)
    images = (copy / "images.txt").read_text().splitlines()
    (copy / "train_test_split.txt").write_text(
        "".join(f"{i} {int(i % 4 > 0)}\n" for i in range(1, len(images) + 1))
    )
    return copy


@pytest.fixture
def data(birds: Path, tmp_path: Path) -> Path:
    return with_parts(birds, tmp_path)


@pytest.fixture(scope="module")
def runs(birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run on the birds of `data`."""
    place = tmp_path_factory.mktemp("identity")
    train(with_parts(birds, place), cache_dir, place / "runs", *GIVEN)
    return place / "runs"


def other_pixels(data: Path) -> None:
    first, *_, last = sorted((data / "images").glob("*/*.jpg"))
    first.write_bytes(last.read_bytes())


def corrected_label(data: Path) -> None:
    lines = (data / "image_class_labels.txt").read_text().splitlines()
    (data / "image_class_labels.txt").write_text("\n".join(["1 2", *lines[1:]]) + "\n")


def another_class(data: Path) -> None:
    with open(data / "classes.txt", "a") as classes, open(data / "images.txt", "a") as images:
        classes.write("9 zebra_finch\n")
        images.writelines(f"{image} zebra/{image}.jpg\n" for image in (65, 66))
    with (
        open(data / "image_class_labels.txt", "a") as labels,
        open(data / "train_test_split.txt", "a") as parts,
    ):
        labels.write("65 9\n66 9\n")
        parts.write("65 1\n66 0\n")
    (data / "images" / "zebra").mkdir()
    for image, source in zip((65, 66), sorted((data / "images").glob("*/*.jpg")), strict=False):
        shutil.copy(source, data / "images" / "zebra" / f"{image}.jpg")


def another_part(data: Path) -> None:
    lines = (data / "train_test_split.txt").read_text().splitlines()
    (data / "train_test_split.txt").write_text("\n".join(["1 0", *lines[1:]]) + "\n")


CHANGES = pytest.mark.parametrize(
    ("change", "difference"),
    [
        (other_pixels, "other images or labels"),
        (corrected_label, "other images or labels"),
        (another_class, "other images or labels"),
        (another_part, "other parts of the images"),
    ],
)


@CHANGES
def test_a_finished_run_is_no_answer_for_other_images_labels_classes_or_parts(
    runs, data, cache_dir, change, difference
):
    change(data)
    with pytest.raises(
        OtherData,
        match=(
            rf"seed-42 holds a run on {difference} \(fingerprint [0-9a-f]{{12}}; .*CUB_200_2011 has"
            r" [0-9a-f]{12}\)"
        ),
    ):
        train(data, cache_dir, runs, *GIVEN)


def test_the_same_data_at_another_place_are_the_same(runs, data, cache_dir):
    assert train(data, cache_dir, runs, *GIVEN).already_finished


def test_a_run_that_was_begun_on_other_data_is_not_gone_on_with_and_forced_it_starts_anew(
    data, cache_dir, tmp_path
):
    folder = train(data, cache_dir, tmp_path / "runs", *GIVEN).folder
    before = json.loads((folder / "environment.json").read_text())["dataset"]["fingerprint"]
    (folder / "summary.json").unlink()
    corrected_label(data)
    with pytest.raises(
        OtherData, match="--data-dir; `run --force` replaces it, --out DIR keeps both"
    ):
        train(data, cache_dir, tmp_path / "runs", *GIVEN)
    summary = train(data, cache_dir, tmp_path / "runs", *GIVEN, force=True).summary
    assert summary["dataset"]["fingerprint"] != before


def test_a_run_that_never_trained_is_no_loss_and_gives_way_to_other_data(
    data, cache_dir, tmp_path, monkeypatch
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, cache_dir, tmp_path / "runs", *GIVEN)
    corrected_label(data)
    assert not train(data, cache_dir, tmp_path / "runs", *GIVEN).already_finished


def test_a_suite_makes_no_table_of_other_data_and_begins_nothing(
    data, cache_dir, tmp_path, monkeypatch, capsys
):
    arguments = suite_command(
        tmp_path,
        data,
        cache_dir,
        tmp_path / "runs",
        "EPSHN_cosine_resnet18_sgd_aug",
        "--set",
        "train.epochs=1",
    )
    train(data, cache_dir, tmp_path / "runs", "train.epochs=1", "optimizer.lr=0.001")
    assert call(monkeypatch, [*arguments, "--print-jobs"]) == 0
    assert capsys.readouterr().out == "", "the run is found as long as the data are the same"
    corrected_label(data)
    for more in ((), ("--jobs", "2"), ("--print-jobs",)):
        assert call(monkeypatch, [*arguments, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "holds a run on other images or labels (fingerprint" in line
    assert not (tmp_path / "runs" / "suite").exists()


def test_a_suite_does_not_write_over_a_table_that_no_suite_wrote(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    """`--report .` beside a table of photos lost it; what a suite wrote, it writes anew."""
    train(birds, cache_dir, tmp_path, "train.epochs=1", "optimizer.lr=0.001")
    name, page, photos = "EPSHN_cosine_resnet18_sgd_aug", tmp_path / "page", "path,class\na.jpg,b\n"
    places = (tmp_path, birds, cache_dir, tmp_path)
    arguments = suite_command(*places, name, "--set", "train.epochs=1", "--report", str(page))
    page.mkdir()
    (page / "table.csv").write_text(photos)
    assert call(monkeypatch, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("made by no report and would be lost: choose another --report DIR")
    assert [(page / "table.csv").read_text(), len(list(page.iterdir()))] == [photos, 1]
    (page / "table.csv").unlink()
    for _ in range(2):
        assert call(monkeypatch, arguments) == 0
        assert (page / "table.csv").read_text().startswith("experiment,")


def test_a_second_suite_that_would_write_the_same_page_is_refused_and_the_first_one_s_record_stays(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    train(birds, cache_dir, tmp_path, "train.epochs=1", "optimizer.lr=0.001")
    arguments = suite_command(
        tmp_path,
        birds,
        cache_dir,
        tmp_path,
        "EPSHN_cosine_resnet18_sgd_aug",
        "--set",
        "train.epochs=1",
    )
    page = tmp_path / "suite" / "own-cub"
    page.mkdir(parents=True)
    with FileLock(page / ".lock"):
        assert call(monkeypatch, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == f"error: another suite is writing {page}: wait for it, or choose another folder with"
        " --report DIR"
    )
    assert not (page / "suite.json").exists()
    assert call(monkeypatch, arguments) == 0
    assert (page / "suite.json").exists()


def test_a_run_from_before_there_was_a_setting_is_found_by_a_suite(tmp_path):
    mine = experiment("mine")
    run = finish(tmp_path, mine, {"all": [[1], [0], [1]], "limited": [[1], [0], [0]]})
    table = json.loads((run.folder / "experiment.json").read_text())
    del table["schedule"], table["digest"]
    (run.folder / "experiment.json").write_text(json.dumps(table))
    RunFolder(tmp_path, mine, "cub").write_summary(run.summary)
    assert find_run(tmp_path, mine, photographed())


# Images that were left out


def written(root: Path, **contents: bytes) -> Dataset:
    root.mkdir(exist_ok=True)
    for name, content in contents.items():
        (root / name).write_bytes(content)
    labels = np.arange(len(contents)) % 2
    return Dataset(
        name="photos", root=root, paths=tuple(contents), labels=labels, class_names=("x", "y")
    )


def told_of(dataset: Dataset, tmp_path: Path) -> dict[str, object]:
    split = make_split(dataset, method="stratified", test_fraction=0.5, seed=42)
    return data_facts(dataset, split, tmp_path, "stratified")


def test_a_left_out_image_may_stay_or_go_and_is_missed_once_it_is_repaired(tmp_path):
    contents = {"a": b"1", "b": b"2", "c": b"3", "d": b"4", "e": b"broken"}
    opened = written(tmp_path / "photos", **contents)
    summary = told_of(replace(opened.without({4}), opened_fingerprint=opened.fingerprint), tmp_path)
    mine = experiment("mine")
    assert differing_data(summary, mine, opened) == ""
    assert differing_data(summary, mine, opened.without({4})) == "", "it was removed"
    repaired = written(tmp_path / "photos", **contents | {"e": b"5"})
    assert "other images or labels" in differing_data(summary, mine, repaired)
    del summary["dataset"]["opened_fingerprint"]  # as runs had it before that was kept
    assert differing_data(summary, mine, opened) == ""


def test_a_run_is_of_other_parts_where_images_came_into_the_catalogue_or_left_it(tmp_path):
    photos = written(tmp_path / "photos", a=b"1", b=b"2", c=b"3", d=b"4", e=b"5", f=b"6")
    with_catalogue = replace(photos, parts=("train",) * 4 + ("catalogue",) * 2)
    mine = experiment("mine", data=Data(test_fraction=0.5))
    assert differing_data(told_of(photos, tmp_path), mine, photos) == ""
    assert differing_data(told_of(with_catalogue, tmp_path), mine, with_catalogue) == ""
    come = differing_data(told_of(photos, tmp_path), mine, with_catalogue)
    gone = differing_data(told_of(with_catalogue, tmp_path), mine, photos)
    assert come.startswith("other parts of the images")
    assert gone.startswith("other parts of the images")


# Digests that are remembered


@pytest.fixture
def long_ago(monkeypatch):
    """Files count as settled however recently they were changed."""
    monkeypatch.setattr(digests, "SETTLED_NANOSECONDS", -(10**12))


@pytest.fixture
def read_files(monkeypatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    original = digests.hashlib.file_digest

    def spy(file, kind):
        names.append(Path(file.name).name)
        return original(file, kind)

    monkeypatch.setattr(digests.hashlib, "file_digest", spy)
    return names


def photos(root: Path) -> list[str]:
    root.mkdir()
    for name in "abc":
        (root / name).write_bytes(name.encode())
    return list("abc")


A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
"""SHA-256 of the letter a."""


def test_a_file_is_read_once_as_long_as_nothing_was_done_to_it(tmp_path, long_ago, read_files):
    names = photos(tmp_path / "photos")
    first = digests_of(tmp_path / "photos", names, tmp_path / "cache")
    assert first[0] == A
    assert sorted(read_files) == ["a", "b", "c"]
    assert digests_of(tmp_path / "photos", names, tmp_path / "cache") == first
    assert len(read_files) == 3


def test_a_change_is_noticed_though_size_and_times_are_set_back(tmp_path, long_ago, read_files):
    names, file = photos(tmp_path / "photos"), tmp_path / "photos" / "b"
    first = digests_of(tmp_path / "photos", names, tmp_path / "cache")
    about = file.stat()
    time.sleep(0.02)
    file.write_bytes(b"x")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    second = digests_of(tmp_path / "photos", names, tmp_path / "cache")
    assert (second[0], second[2]) == (first[0], first[2])
    assert second[1] != first[1]
    assert sorted(read_files) == ["a", "b", "b", "c"]


def test_a_file_that_was_changed_just_now_is_read_again(tmp_path, monkeypatch, read_files):
    monkeypatch.setattr(digests, "SETTLED_NANOSECONDS", 10**12)  # however slow this machine is
    names = photos(tmp_path / "photos")
    for _ in range(2):
        digests_of(tmp_path / "photos", names, tmp_path / "cache")
    assert len(read_files) == 6


def test_a_damaged_memory_is_no_memory(tmp_path, long_ago):
    names = photos(tmp_path / "photos")
    first = digests_of(tmp_path / "photos", names, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    memory.write_bytes(memory.read_bytes().replace(A.encode(), b"0" * 64))
    assert digests_of(tmp_path / "photos", names, tmp_path / "cache") == first


# Copies


def test_queries_that_are_copies_of_gallery_images_are_counted_with_an_example(tmp_path):
    names = {f"{name}{number}": f"{name}{number}".encode() for number in range(4) for name in "ab"}
    dataset = written(tmp_path / "photos", **names)
    split = make_split(dataset, method="stratified", test_fraction=0.25, seed=42)
    assert copies_in_gallery(dataset, split, dataset.digests) == {
        "queries": 0,
        "of": 2,
        "example": [],
    }
    query, other = dataset.paths[split.test[0]], dataset.paths[split.gallery[1]]
    dataset = written(tmp_path / "photos", **names | {query: names[other]})
    assert copies_in_gallery(dataset, split, dataset.digests) == {
        "queries": 1,
        "of": 2,
        "example": [query, other],
    }


def test_a_query_is_no_copy_of_itself_where_all_are_asked_among_each_other(tmp_path):
    dataset = written(tmp_path / "photos", a=b"1", b=b"2", c=b"1", d=b"4")
    split = make_split(dataset, method="stratified", test_fraction=0.5, seed=42)
    everything = np.arange(4)
    among_each_other = replace(split, test=everything, gallery=everything)
    assert copies_in_gallery(dataset, among_each_other, dataset.digests) == {
        "queries": 2,
        "of": 4,
        "example": ["a", "c"],
    }


def test_an_image_of_a_held_out_class_that_is_trained_on_under_another_name_is_counted():
    dataset = dataset_of({"auk": 4, "jay": 4, "wren": 4})
    split = make_split(dataset, method="stratified", test_fraction=0.25, seed=42)
    both = phases(((2,),))
    jay, wren = (split.train[dataset.labels[split.train] == label][0] for label in (1, 2))
    own = [f"picture {image}" for image in range(12)]
    assert copies_trained_on(dataset, split, both, own) == {}
    digests = [own[jay] if image == wren else own[image] for image in range(12)]
    copies = copies_in_gallery(dataset, split, digests)
    assert copies["queries"] == 0, "it is in the gallery, as the other"
    trained = copies_trained_on(dataset, split, both, digests)
    paths = [dataset.paths[image] for image in (wren, jay)]
    assert trained == {"trained_on": 1, "trained_example": paths}
    (line,) = describe_copies({**copies, **trained})
    assert line == (
        "the pixels of 1 image that must stay unseen are trained on, e.g."
        f" {paths[0]} as {paths[1]}; `dml-bench data check` lists them"
    )


def test_a_query_that_is_trained_on_is_counted_where_the_gallery_is_of_other_images():
    dataset = dataset_of({"auk": 3, "jay": 3, "wren": 3, "owl": 3})
    split = make_disjoint_split(dataset, method="half", valid_fraction=0.0)
    digests = [f"picture {image}" for image in range(12)]
    digests[7] = digests[2]
    one = disjoint_phases(dataset, split)
    assert copies_in_gallery(dataset, split, digests)["queries"] == 0
    assert copies_trained_on(dataset, split, one, digests) == {
        "trained_on": 1,
        "trained_example": ["owl/01.jpg", "auk/02.jpg"],
    }


def test_groups_that_may_be_one_are_pointed_out_where_a_person_wrote_them():
    dataset = replace(
        dataset_of({"auk": 4, "jay": 4}),
        columns={"shop": ("Kiosk", "kiosk", "2", "02", "Inn", "Inn ", "3", "4")},
    )
    data = Data(split="grouped", group="shop")
    groups = np.array(dataset.columns["shop"], object)
    split = replace(
        make_split(dataset, method="stratified", test_fraction=0.5, seed=42), groups=groups
    )
    assert [line.partition(";")[0] for line in describe_alike_groups(data, split)] == [
        "groups of data.group = shop that differ only in case or in zeros: 2 (first: Kiosk and"
        " kiosk)",
        "groups of data.group = shop that differ only in blanks, or in characters that look the"
        " same: 1 (first: 'Inn' and 'Inn ')",
    ]
    assert describe_alike_groups(replace(data, group="photo"), split) == []


def test_a_run_says_that_queries_are_copies_though_they_were_saved_again_and_says_so_again(
    data, cache_dir, tmp_path
):
    images = sorted((data / "images").glob("*/*.jpg"))
    shutil.copy(images[0], images[3])  # the fourth is asked
    Image.open(images[1]).save(images[7], "PNG")  # and the eighth
    paths = [image.relative_to(data).as_posix() for image in (images[3], images[0])]
    line = (
        f"2 of 16 queries have the same pixels as a gallery image, e.g. {paths[0]} and {paths[1]}: "
        "they are found whatever was learnt; `dml-bench data check` lists them"
    )
    for already in (False, True):
        callback = Heard()
        outcome = train(data, cache_dir, tmp_path / "runs", *GIVEN, callback=callback)
        assert outcome.already_finished is already
        assert line in callback.warnings
        assert outcome.summary["copies"] == {"queries": 2, "of": 16, "example": paths}


def test_runs_of_one_name_on_other_parts_share_no_row(tmp_path):
    base = experiment("mine", data=replace(experiment().data, split="given"))
    right = {"all": [[1], [0], [1]], "limited": [[1], [0], [0]]}
    first, second = (
        finish(tmp_path / part, replace(base, seed=seed), right, split=part * 64)
        for part, seed in (("a", 42), ("b", 43))
    )
    assert (
        why_not_beside(second, [first])
        == f"{first.folder} has the same experiment on other parts of the images"
    )
    third = finish(tmp_path / "c", replace(base, seed=43), right, split="a" * 64)
    assert why_not_beside(third, [first]) == ""


def test_seeds_that_thin_a_given_split_each_in_their_way_share_a_row(tmp_path):
    base = experiment("mine", data=replace(experiment().data, split="given", per_class=5))
    right = {"all": [[1], [0], [1]], "limited": [[1], [0], [0]]}
    first, second = (
        finish(tmp_path / part, replace(base, seed=seed), right, split=part * 64)
        for part, seed in (("a", 42), ("b", 43))
    )
    assert why_not_beside(second, [first]) == ""


# Names


@pytest.mark.parametrize(
    "name",
    [
        "EPSHN_cosine_resnet18+1dBN_sgd_aug",
        "ProxyNCA++_resnet50x2048_disjoint",
        "my trial 2",
        "Café",
        "v1.2-b",
        "鳥",
    ],
)
def test_a_name_may_have_letters_digits_spaces_and_a_few_signs(name):
    assert resolve(BASELINE, overrides=[f"name={name}"]).name == name
    decomposed = unicodedata.normalize("NFD", name)
    assert resolve(BASELINE, overrides=[f"name={decomposed}"]).name == decomposed


@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "..",
        ".",
        "",
        "a/b",
        "/tmp/x",
        "a\\b",
        ".hidden",
        "-rf",
        " a",
        "a ",
        "a\nb",
        "a\0b",
        "a:b",
        "*",
        "x" * 151,
        "é" * 76,
    ],
)
def test_a_name_that_is_more_than_one_folder_s_name_is_refused(name):
    table = as_table(resolve(BASELINE))
    with pytest.raises(
        ValueError,
        match=(
            r"^name must be a letter or digit, then letters, digits, spaces and \. _ \+ -, at most"
            r" \d+ bytes, got '.*'$"
        ),
    ):
        load(table | {"name": name})


def test_force_empties_no_folder_that_a_name_leads_to(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    victim = tmp_path / "victim" / "cub" / "seed-42" / "diary.txt"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    arguments = (
        "run",
        BASELINE,
        "--set",
        "name=../victim",
        "--force",
        "--data-dir",
        birds,
        "--cache-dir",
        cache_dir,
        "--out",
        tmp_path / "runs",
    )
    assert "bytes, got '../victim'" in refusal(monkeypatch, capsys, *arguments)
    assert victim.read_text() == "mine"


def test_what_is_called_by_a_name_is_not_called_by_a_path(tmp_path):
    for named, kind in ((find, "experiment"), (read_table, "table"), (read_profile, "profile")):
        for name in (
            "../experiments/profiles/demo",
            "tables/study",
            "../tables/study",
            "profiles/demo",
            "../profiles/demo",
            "./study",
            "./demo",
        ):
            with pytest.raises(UnknownName, match=f"^unknown {kind}"):
                named(name)
