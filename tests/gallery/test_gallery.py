"""A finished run's gallery: enlarged, changed and asked, while what the run sealed stays as it
is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import Vectors, experiment, finish, store
from PIL import Image
from tiny import dml_bench, refusal, train

from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.enrol import (
    Enrolment,
    GalleryChanges,
    change_gallery,
    named_images,
    parse_renamings,
    photos_by_class,
)
from dml_bench.gallery.format import as_json, describe_threshold
from dml_bench.gallery.predict import AppliedThreshold, Predictions, calibration_set, predict
from dml_bench.gallery.store import (
    Gallery,
    GalleryFile,
    GalleryImage,
    open_gallery_file,
    run_gallery,
)
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.runs.run import Run

NEW = "009.Newcomer"
SQUASH = ("images.fit=squash", "augment.random_crop_from=0")


@pytest.fixture(scope="module")
def finished(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / "experiment" / "birds" / "seed-42"))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two species that the run does not know, with three photos each."""
    from dml_bench.data.synthetic import write

    drawn = write(tmp_path / "drawn", counts=[3, 3], size=48, seed=77) / "images"
    first, second = sorted(drawn.iterdir())
    first.rename(drawn / NEW)
    second.rename(drawn / "010.Other")
    return drawn


def enrol(place: GalleryFile, photos: Path | None = None, **changes: object) -> Enrolment:
    chosen = photos_by_class(photos) if photos else ()
    return change_gallery(
        place,
        GalleryChanges(photos=chosen, **changes),
        lambda: GalleryEmbedder(place.run, place.phase, "cpu"),
    )


@pytest.mark.parametrize("phase", ["all", "limited"])
def test_an_image_of_the_run_embedded_again_has_its_stored_embedding(run, phase):
    place = open_gallery_file(run, phase, None)
    gallery = place.read()
    again = GalleryEmbedder(place.run, phase, "cpu").embed(
        [Path(entry.path) for entry in gallery.entries]
    )
    np.testing.assert_allclose(again.embeddings, gallery.embeddings, atol=1e-6)


def test_that_holds_in_bfloat16_and_with_statistics_of_the_training_images(
    birds, cache_dir, tmp_path
):
    outcome = train(
        birds,
        cache_dir,
        tmp_path,
        "train.precision=bfloat16",
        "images.normalization=train",
        *SQUASH,
    )
    place = open_gallery_file(outcome.folder, "limited", None)
    network = GalleryEmbedder(place.run, "limited", "cpu")
    gallery = place.read()
    assert network.precision == "bfloat16"
    again = network.embed([Path(entry.path) for entry in gallery.entries])
    np.testing.assert_allclose(again.embeddings, gallery.embeddings, atol=1e-3)


def test_the_gallery_has_the_images_and_classes_that_the_run_searched(run):
    place = open_gallery_file(run, "all", None)
    gallery = place.read()
    stored = read_neighbours(run / "all" / "neighbours.safetensors")
    assert [Path(entry.path).parent.name for entry in gallery.entries] == [
        entry.class_name for entry in gallery.entries
    ]
    assert gallery.labels.tolist() == stored.gallery_labels.tolist()


def test_an_enrolled_class_is_found_though_nothing_was_trained_on_it(run, photos):
    place = open_gallery_file(run, "limited", None)
    done = enrol(place, photos)
    assert (done.new_classes, len(done.enrolled), done.already_there) == ((NEW, "010.Other"), 6, 0)
    turned = photos.parent / "turned.jpg"
    Image.open(next((photos / NEW).iterdir())).rotate(2).save(turned, quality=90)
    (prediction,) = predict(
        place.read(), GalleryEmbedder(place.run, "limited", "cpu"), [turned], k=5, threshold=0.0
    ).predictions
    assert prediction.class_name == NEW
    assert len(prediction.closest) == 5
    assert prediction.closest[0][0].origin == "enrolled"


def test_the_sealed_result_is_accepted_and_unchanged_after_enrolment(run, photos):
    place = open_gallery_file(run, "all", None)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    enrol(place, photos)
    assert open_gallery_file(run, "all", None).run.summary == place.run.summary
    assert {path: path.read_bytes() for path in before} == before
    assert {path.parent for path in run.rglob("*") if path.is_file() and path not in before} == {
        run / "gallery"
    }


def test_the_same_file_is_enrolled_once_by_whatever_name(run, photos):
    place = open_gallery_file(run, "all", None)
    enrol(place, photos)
    first = next((photos / NEW).iterdir())
    shutil.copy(first, photos / NEW / "copy.jpg")
    again = enrol(place, photos)
    assert (len(again.enrolled), again.already_there, len(again.gallery.entries)) == (
        0,
        7,
        len(run_gallery(place.run, "all").entries) + 6,
    )


def test_a_photo_that_changes_while_it_is_enrolled_is_not_embedded_under_its_old_digest(
    run, photos
):
    place, first = open_gallery_file(run, "all", None), next((photos / NEW).iterdir())

    def changing() -> GalleryEmbedder:  # is asked for when the photos have their digests
        Image.new("RGB", (48, 48)).save(first)
        return GalleryEmbedder(place.run, place.phase, "cpu")

    with pytest.raises(ValueError, match=rf"{first.name} changed after its fingerprint was taken"):
        change_gallery(place, GalleryChanges(photos=photos_by_class(photos)), changing)
    assert NEW not in place.read().class_names


def test_a_copy_of_an_image_of_the_run_is_known_and_can_not_get_another_class(run, tmp_path):
    place = open_gallery_file(run, "all", None)
    own = place.read().entries[0]
    same, other = tmp_path / "same" / own.class_name, tmp_path / "other" / NEW
    for folder in (same, other):
        folder.mkdir(parents=True)
        shutil.copy(own.path, folder / "copy.jpg")
    assert enrol(place, same.parent).already_there == 1
    with pytest.raises(ValueError, match=f"same bytes as .* of class {own.class_name}"):
        enrol(place, other.parent)


def test_more_photos_of_a_known_class_join_it(run, photos):
    place = open_gallery_file(run, "all", None)
    known = place.read().class_names[0]
    (photos / NEW).rename(photos / known)
    done = enrol(place, photos)
    assert done.new_classes == ("010.Other",)
    assert sum(entry.class_name == known for entry in done.gallery.entries) == 6 + 3


def test_a_removed_class_is_no_longer_an_answer_and_a_renamed_one_answers_by_its_new_name(
    run, photos
):
    place = open_gallery_file(run, "all", None)
    enrol(place, photos)
    photo = next((photos / NEW).iterdir())
    network = GalleryEmbedder(place.run, "all", "cpu")

    def nearest() -> str:
        return predict(place.read(), network, [photo], k=3, threshold=0.0).predictions[0].class_name

    assert nearest() == NEW
    enrol(place, rename=((NEW, "Shrike"),))
    assert nearest() == "Shrike"
    enrol(place, remove=("Shrike",))
    assert nearest() != "Shrike"
    assert enrol(place, photos).new_classes == (NEW,)
    assert nearest() == NEW


def test_a_change_that_is_refused_leaves_the_gallery_as_it_was(run, photos):
    place = open_gallery_file(run, "all", None)
    enrol(place, photos)
    before = place.path.read_bytes()
    with pytest.raises(ValueError, match="has a class 010.Other already"):
        enrol(place, remove=(place.read().class_names[0],), rename=((NEW, "010.Other"),))
    assert place.path.read_bytes() == before


def test_the_only_class_can_not_be_removed():
    one = Gallery((GalleryImage("A", "a.jpg", "", "enrolled"),), np.eye(1, 2, dtype=np.float32))
    with pytest.raises(ValueError, match="the only class"):
        one.removed("A")


def test_two_processes_do_not_change_a_gallery_at_once(run, photos):
    place = open_gallery_file(run, "all", None)
    with place.lock(), pytest.raises(ValueError, match="another process is changing"):
        enrol(open_gallery_file(run, "all", None), photos)


def test_the_threshold_is_chosen_on_the_queries_of_the_run(run):
    place = open_gallery_file(run, "limited", None)
    stored = read_neighbours(run / "limited" / "neighbours.safetensors")
    calibration = calibration_set(place.run, "limited", place.read())
    np.testing.assert_allclose(
        calibration.outcomes.similarity, stored.similarities[:, 0], atol=1e-6
    )
    assert (
        calibration.outcomes.correct.tolist()
        == (stored.labels[:, 0] == stored.query_labels).tolist()
    )
    assert (calibration.part, calibration.num_run_images, calibration.queries) == (
        "query",
        len(stored.query_labels),
        None,
    )


def test_names_may_hold_the_equals_sign_that_stands_between_the_old_and_the_new_one():
    assert parse_renamings(["=1+1=sum", "sum=a=b", "a=b=total"], ["=1+1", "c"]) == (
        ("=1+1", "sum"),
        ("sum", "a=b"),
        ("a=b", "total"),
    )
    with pytest.raises(ValueError, match="may rename 'a' or 'a=b'"):
        parse_renamings(["a=b=c"], ["a", "a=b"])


def test_queries_of_a_removed_class_are_left_out_and_those_of_a_renamed_class_have_its_new_name(
    run,
):
    place = open_gallery_file(run, "all", None)
    names = place.read().class_names
    stored = read_neighbours(run / "all" / "neighbours.safetensors")
    enrol(place, remove=(names[0],), rename=((names[1], "zzz"),))
    arrays = read_arrays(run / "all" / "embeddings.safetensors")
    right = []
    for query, label in zip(arrays["query"], stored.query_labels, strict=True):
        similarity = arrays["gallery"] @ query
        similarity[stored.gallery_labels == 0] = -2
        if label != 0:
            right.append(stored.gallery_labels[similarity.argmax()] == label)
    assert calibration_set(place.run, "all", place.read()).outcomes.correct.tolist() == right


def test_an_enrolled_image_is_evidence_by_its_nearest_other_image(run, photos):
    place = open_gallery_file(run, "all", None)
    shutil.rmtree(photos / "010.Other")
    gallery = enrol(place, photos).gallery
    calibration = calibration_set(place.run, "all", gallery)
    look_ups = calibration.outcomes
    rows = [row for row, entry in enumerate(gallery.entries) if entry.origin == "enrolled"]
    expected = []
    for row in rows:
        similarity = gallery.embeddings @ gallery.embeddings[row]
        similarity[row] = -2
        expected.append(
            (similarity.max(), gallery.entries[int(similarity.argmax())].class_name == NEW)
        )
    assert len(look_ups.correct) - calibration.num_run_images == 3
    np.testing.assert_allclose(
        look_ups.similarity[-3:], [similarity for similarity, _ in expected], atol=1e-6
    )
    assert look_ups.correct[-3:].tolist() == [right for _, right in expected]


def test_the_only_photo_of_a_class_is_no_evidence(run, photos):
    place = open_gallery_file(run, "all", None)
    for file in sorted((photos / NEW).iterdir())[1:]:
        file.unlink()
    shutil.rmtree(photos / "010.Other")
    calibration = calibration_set(place.run, "all", enrol(place, photos).gallery)
    assert len(calibration.outcomes.correct) == calibration.num_run_images


# Validation images, in a run written by hand: class 0 at 0 degrees, class 1 at 40, class 2 at 80


def by_hand(out: Path, **parts: Vectors) -> tuple[Run, Gallery]:
    run = finish(
        out, experiment(), {phase: [[1], [1], [1]] for phase in ("all", "limited")}, unseen=1
    )
    gallery = {"class 0": [0], "class 1": [40], "class 2": [80]}
    store(run, "all", gallery=gallery, **parts)
    return run, run_gallery(run, "all")


VALID = {"class 0": [5, 22], "class 1": [44, 53], "class 2": [88]}
"""Right at 5, 4, 13 and 8 degrees from the nearest; the one at 22 is wrong, 18 degrees from class
1."""
QUERY = {"class 0": [3, 35], "class 1": [50], "class 2": [71]}
"""Right at 3, 10 and 9 degrees; the one at 35 is wrong, 5 degrees from class 1."""


def test_the_threshold_is_chosen_on_validation_images_where_there_are_some_and_tried_on_queries(
    tmp_path,
):
    calibration = calibration_set(*with_phase(by_hand(tmp_path, query=QUERY, valid=VALID)))
    assert (calibration.part, calibration.num_run_images) == ("valid", 5)
    assert calibration.outcomes.correct.tolist() == [True, False, True, True, True]
    chosen = calibration.threshold(1.0)
    assert chosen.value == pytest.approx(np.cos(np.radians(13)), abs=1e-6)
    assert (chosen.precision, chosen.coverage) == (1.0, 0.8)
    assert calibration.realised(chosen) == (0.75, 1.0)


def test_what_it_was_chosen_on_is_said(tmp_path):
    calibration = calibration_set(*with_phase(by_hand(tmp_path, query=QUERY, valid=VALID)))
    assert (
        describe_threshold(calibration.threshold(1.0), calibration)
        == "threshold 0.9744: of 5 validation images of the run, 80% are predicted and 100% of"
        " these predictions are right; of 4 query images, on which it was not chosen, 100% are"
        " predicted and 75% of these are right. The network was not trained on any of them. All are"
        " of classes in the gallery: expect more wrong predictions where photos are of others"
    )
    threshold = as_json(
        Predictions((), (), 1.0, 1.0),
        AppliedThreshold(0.9744, calibration.threshold(1.0), calibration),
    )["threshold"]
    assert threshold["chosen_on"] == {"validation": 5, "queries": 0, "enrolled": 0}
    assert threshold["on_queries"] == {"queries": 4, "precision": 0.75, "coverage": 1.0}


def test_validation_images_of_classes_that_the_gallery_lacks_choose_nothing(tmp_path):
    """As those of protocol class_disjoint, whose validation classes are not those that are looked
    up."""
    calibration = calibration_set(
        *with_phase(by_hand(tmp_path, query=QUERY, valid={"class 7": [0, 40]}))
    )
    assert (calibration.part, calibration.num_run_images, calibration.queries) == ("query", 4, None)
    assert calibration.realised(calibration.threshold(0.5)) is None


def with_phase(made: tuple[Run, Gallery]) -> tuple[Run, str, Gallery]:
    return made[0], "all", made[1]


def test_folders_of_photos_are_walked_and_a_photo_named_twice_is_asked_once(photos):
    first = sorted((photos / NEW).iterdir())[0]
    assert named_images([first, photos]) == [
        first,
        *(file for file in sorted(photos.rglob("*.jpg")) if file != first),
    ]


def test_photos_of_any_ending_are_found_in_a_folder_and_other_files_are_counted(photos):
    for file in sorted((photos / NEW).iterdir()):
        file.rename(file.with_suffix("" if file.stem.endswith("1") else ".jpg_large"))
    (photos / NEW / "notes.txt").write_text("no photo")
    said: list[str] = []
    assert len(named_images([photos], said.append)) == 6
    assert said == [f"{photos}: 1 file is no image and is left out (first: {NEW}/notes.txt)"]
    said.clear()
    assert len(photos_by_class(photos, said.append)) == 6
    assert said == [f"{photos / NEW}: 1 file is no image and is left out (first: notes.txt)"]


def test_a_class_is_enrolled_renamed_and_removed_by_its_name_in_whatever_form(run, photos):
    stored, typed = "Cafe\u0301", "Caf\u00e9"
    (photos / NEW).rename(photos / stored)
    place = open_gallery_file(run, "all", None)
    assert enrol(place, photos).new_classes == ("010.Other", stored)
    (photos / stored).rename(photos / typed)
    again = enrol(place, photos)
    assert (again.new_classes, again.already_there) == ((), 6)
    with pytest.raises(ValueError, match="the gallery has a class"):
        enrol(place, rename=(("010.Other", typed),))
    assert stored in place.read().class_names
    assert parse_renamings([f"{typed}=tea"], place.read().class_names) == ((typed, "tea"),)
    assert enrol(place, remove=(typed,)).gallery.class_names == place.read().class_names
    assert stored not in place.read().class_names


def test_predict_prints_answers_as_json(run, photos, monkeypatch, capsys):
    assert (
        dml_bench(
            monkeypatch,
            "enrol",
            run.parents[1],
            "--images",
            photos,
            "--phase",
            "limited",
            "--device",
            "cpu",
        )
        == 0
    )
    assert "2 new: 009.Newcomer, 010.Other" in capsys.readouterr().out
    photo = next((photos / NEW).iterdir())
    assert (
        dml_bench(
            monkeypatch,
            "predict",
            run.parents[1],
            photo,
            "--phase",
            "limited",
            "--json",
            "--k",
            4,
            "--threshold",
            0.9,
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    (answer,) = report["answers"]
    assert (answer["class"], answer["vote"]["k"], answer["closest"][0]["path"]) == (
        NEW,
        4,
        str(photo),
    )
    assert answer["similarity"] == pytest.approx(1, abs=1e-5)
    assert report["threshold"] == {"value": 0.9}
    assert (
        report["milliseconds_per_image"]["embedding"]
        > 0
        < report["milliseconds_per_image"]["look_up"]
    )


def test_below_the_threshold_the_answer_is_unknown(run, photos, monkeypatch, capsys):
    photo = next((photos / NEW).iterdir())
    for threshold, known in ((-1, True), (1, False)):
        assert (
            dml_bench(monkeypatch, "predict", run, photo, "--json", "--threshold", threshold) == 0
        )
        (answer,) = json.loads(capsys.readouterr().out)["answers"]
        assert (answer["class"] is not None) is known
        assert answer["closest_class"] == answer["closest"][0]["class"]


def test_without_a_threshold_it_is_chosen_for_a_precision_and_what_it_does_is_said(
    run, photos, monkeypatch, capsys
):
    assert dml_bench(monkeypatch, "predict", run, photos, "--precision", 0.05) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of 13 query images of the run, 100% are predicted" in said
    assert "The network was not trained on any of them" in said


def test_an_unreadable_photo_is_named_and_the_others_are_answered(run, photos, monkeypatch, capsys):
    broken = photos / NEW / "broken.jpg"
    broken.write_bytes(b"no picture")
    assert dml_bench(monkeypatch, "predict", run, photos, "--json", "--threshold", 0) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (len(report["answers"]), [problem["image"] for problem in report["unreadable"]]) == (
        6,
        [str(broken)],
    )
    assert captured.err.splitlines() == [
        f"unreadable: {broken}: not an image, or of a format that is not read"
    ]
    assert dml_bench(monkeypatch, "predict", run, broken, "--json", "--threshold", 0) == 1
    assert json.loads(capsys.readouterr().out)["answers"] == []
    assert dml_bench(monkeypatch, "enrol", run, "--images", photos) == 1
    assert "enrolled 6 images" in capsys.readouterr().out


def test_what_can_not_be_done_is_one_line(run, photos, tmp_path, monkeypatch, capsys):
    empty = tmp_path / "empty"
    (empty / "Nothing").mkdir(parents=True)

    def line(*arguments: object) -> str:
        return refusal(monkeypatch, capsys, *arguments)

    assert dml_bench(monkeypatch, "enrol", run, "--images", photos) == 0
    capsys.readouterr()
    assert "has no class '009.Newcommer' (did you mean 009.Newcomer?)" in line(
        "enrol", run, "--remove", "009.Newcommer"
    )
    assert "has no phase 'limitd' (did you mean limited?)" in line(
        "predict", run, photos, "--phase", "limitd"
    )
    assert "holds no images" in line("enrol", run, "--images", empty)
    assert "holds no images" in line("predict", run, empty)
    assert "does not exist: give image files" in line("predict", run, tmp_path / "gone.jpg")
    assert "nothing to do" in line("enrol", run)
    assert "--rename OLD=NEW" in line("enrol", run, "--rename", "old")
    assert "has no class 'old'" in line("enrol", run, "--rename", "old=new")
    assert "holds no gallery of phase all" in line(
        "predict", run, photos, "--gallery", tmp_path / "elsewhere"
    )
    assert "holds no run" in line("predict", photos, photos)


def test_a_run_that_is_unfinished_changed_or_one_of_several_is_refused(
    run, photos, monkeypatch, capsys
):
    shutil.copytree(run, run.with_name("seed-43"))
    assert "holds 2 runs: name one of them" in refusal(
        monkeypatch, capsys, "predict", run.parents[1], photos
    )
    (run / "summary.json").unlink()
    assert "is not finished" in refusal(monkeypatch, capsys, "predict", run, photos)
    (run.with_name("seed-43") / "all" / "weights.safetensors").write_bytes(b"changed")
    assert "was changed after the run" in refusal(
        monkeypatch, capsys, "predict", run.with_name("seed-43"), photos
    )


def test_a_gallery_of_other_weights_or_a_damaged_one_is_refused(
    run, photos, tmp_path, monkeypatch, capsys
):
    place = open_gallery_file(run, "all", tmp_path / "mine")
    enrol(place, photos)
    shutil.copy(place.path, place.path.with_name("limited.safetensors"))
    command = ("predict", run, photos, "--gallery", tmp_path / "mine")
    assert "was made with other weights" in refusal(
        monkeypatch, capsys, *command, "--phase", "limited"
    )
    summary = place.run.summary
    others = replace(
        place.run, summary=summary | {"dataset": summary["dataset"] | {"fingerprint": "e" * 64}}
    )
    with pytest.raises(
        ValueError,
        match=(
            r"is of a run on other data \(fingerprint [0-9a-f]{12}; .* has eeeeeeeeeeee\):"
            r" remove it"
        ),
    ):
        replace(place, run=others).read()
    place.path.write_bytes(place.path.read_bytes()[:1000])
    assert f"{place.path} can't be read: it was changed after it was written" in refusal(
        monkeypatch, capsys, *command
    )
    assert not (run / "gallery").exists()
