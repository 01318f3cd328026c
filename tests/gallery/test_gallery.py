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

import dml_bench as db
from dml_bench.config import Data
from dml_bench.evaluation.thresholds import SearchOutcomes
from dml_bench.gallery.calibration import (
    CalibrationSet,
    HeldOutQueries,
    calibration_set,
    enrolled_queries,
    search_outcomes,
)
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.enrol import (
    Enrolment,
    GalleryChanges,
    change_gallery,
    named_images,
    parse_renamings,
    photos_by_class,
)
from dml_bench.gallery.format import as_json, describe_enrolment, describe_threshold
from dml_bench.gallery.index_store import exact_search
from dml_bench.gallery.mean_search import mean_search
from dml_bench.gallery.model_card import threshold_cells
from dml_bench.gallery.predict import (
    AppliedThreshold,
    NoPromise,
    Predictions,
    describe_lack,
    predict,
    threshold_of,
)
from dml_bench.gallery.store import (
    Gallery,
    GalleryFile,
    GalleryImage,
    open_gallery_file,
    run_gallery,
)
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.runs.run import Run, open_run
from dml_bench.system.files import read_csv, write_csv

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


@pytest.mark.parametrize(
    ("precision", "backbone"),
    [("bfloat16", "timm:test_resnet"), ("bfloat16_dense", "timm:test_efficientnet")],
)
def test_that_holds_in_bfloat16_and_with_statistics_of_the_training_images(
    birds, cache_dir, tmp_path, precision, backbone
):
    outcome = train(
        birds,
        cache_dir,
        tmp_path,
        f"train.precision={precision}",
        f"model.backbone={backbone}",
        "images.normalization=train",
        *SQUASH,
    )
    place = open_gallery_file(outcome.folder, "limited", None)
    network = GalleryEmbedder(place.run, "limited", "cpu")
    gallery = place.read()
    assert network.precision == precision
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
        place.read(),
        GalleryEmbedder(place.run, "limited", "cpu").embed([turned]),
        k=5,
        threshold=0.0,
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
        embedded = network.embed([photo])
        return predict(place.read(), embedded, k=3, threshold=0.0).predictions[0].class_name

    assert nearest() == NEW
    enrol(place, rename=((NEW, "Shrike"),))
    assert nearest() == "Shrike"
    enrol(place, remove=("Shrike",))
    assert nearest() != "Shrike"
    assert enrol(place, photos).new_classes == (NEW,)
    assert nearest() == NEW


def test_a_class_of_a_table_has_a_name_on_one_line(run, photos):
    file = next(photos.rglob("*.jpg"))
    (photos / "new.csv").write_text(f'path,class\n{file.relative_to(photos)},"two\nlines"\n')
    with pytest.raises(ValueError, match=r"not Unicode text on one line: 1 \(first: 'two\\nlines'"):
        db.Gallery(run, device="cpu").enrol(photos / "new.csv")


def test_boxes_that_reach_beyond_their_photo_are_named(run, photos):
    file = next(photos.rglob("*.jpg"))
    gallery = db.Gallery(run, device="cpu")
    answers = gallery.predict(file, boxes=[(0, 0, 20, 20), (10, 10, 49, 48), (20, 20, 300, 300)])
    sentence = f"1 of 3 boxes that were looked at reach beyond their photo (first: {file}#20,20,300"
    assert sentence in answers.notes()[-1]
    (photos / "new.csv").write_text(f"path,class,box\n{file.relative_to(photos)},x,0 0 480 480\n")
    enrolment = gallery.enrol(photos / "new.csv")
    assert "1 of 1 boxes that were looked at reach" in describe_enrolment(gallery.run, enrolment)


def test_names_in_a_mapping_are_taken_as_they_are(run):
    gallery = db.Gallery(run, device="cpu")
    first, second, *_ = gallery.class_names
    gallery.rename(first, "a=b")
    with pytest.raises(ValueError, match="has no class 'a'"):
        gallery.rename("a", "b=c")
    gallery.rename(second, "a")
    gallery.rename("a", "b=c")
    assert {"a=b", "b=c"} < set(gallery.class_names)
    for name in (None, 5, "", " ", "two\nlines"):
        with pytest.raises(ValueError, match="must be text on one line"):
            gallery.rename("a=b", name)


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


def test_test_images_are_reported_and_choose_nothing(run):
    place = open_gallery_file(run, "limited", None)
    stored = read_neighbours(run / "limited" / "neighbours.safetensors")
    calibration = calibration_set(place.run, "limited", place.read())
    np.testing.assert_allclose(calibration.queries.similarity, stored.similarities[:, 0], atol=1e-6)
    right = stored.labels[:, 0] == stored.query_labels
    assert calibration.queries.correct.tolist() == right.tolist()
    assert len(calibration.known.correct) == 0
    with pytest.raises(NoPromise, match="there are no validation images, and about 59 are needed"):
        threshold_of(place, place.read(), precision=0.95)
    assert threshold_of(place, place.read()).value == -np.inf


def test_images_of_classes_that_the_network_never_saw_stand_for_those_that_are_not_enrolled(run):
    """Each is searched without its own class, among images of all the others."""
    place = open_gallery_file(run, "limited", None)
    gallery = place.read()
    unseen = place.run.summary["unseen_classes"]
    unknown = calibration_set(place.run, "limited", gallery).unknown
    assert set(unknown.groups) == set(unseen)
    assert not unknown.correct.any()
    expected = []
    for entry, vector in zip(gallery.entries, gallery.embeddings, strict=True):
        if entry.class_name in unseen:
            others = [other.class_name != entry.class_name for other in gallery.entries]
            expected.append((gallery.embeddings[others] @ vector).max())
    np.testing.assert_allclose(unknown.similarity, expected, atol=1e-6)
    trained_on_all = calibration_set(place.run, "all", run_gallery(place.run, "all"))
    assert len(trained_on_all.unknown.correct) == 0


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
    assert calibration_set(place.run, "all", place.read()).queries.correct.tolist() == right


def test_an_enrolled_image_is_evidence_by_its_nearest_other_image(run, photos):
    place = open_gallery_file(run, "all", None)
    shutil.rmtree(photos / "010.Other")
    gallery = enrol(place, photos).gallery
    calibration = calibration_set(place.run, "all", gallery)
    rows = [row for row, entry in enumerate(gallery.entries) if entry.origin == "enrolled"]
    expected = []
    without_class = []
    for row in rows:
        similarity = gallery.embeddings @ gallery.embeddings[row]
        similarity[row] = -2
        expected.append(
            (similarity.max(), gallery.entries[int(similarity.argmax())].class_name == NEW)
        )
        similarity[rows] = -2
        without_class.append(similarity.max())
    assert (calibration.source, len(calibration.known.correct)) == ("enrolled", 3)
    np.testing.assert_allclose(
        calibration.known.similarity, [similarity for similarity, _ in expected], atol=1e-6
    )
    assert calibration.known.correct.tolist() == [right for _, right in expected]
    np.testing.assert_allclose(calibration.unknown.similarity, without_class, atol=1e-6)
    assert calibration.unknown.groups.tolist() == [NEW] * 3


def test_the_only_photo_of_a_class_is_no_evidence(run, photos):
    place = open_gallery_file(run, "all", None)
    for file in sorted((photos / NEW).iterdir())[1:]:
        file.unlink()
    shutil.rmtree(photos / "010.Other")
    calibration = calibration_set(place.run, "all", enrol(place, photos).gallery)
    assert len(calibration.known.correct) == 0


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


def test_the_threshold_is_chosen_on_validation_images_and_tried_on_test_images(tmp_path):
    calibration = calibration_set(*with_phase(by_hand(tmp_path, query=QUERY, valid=VALID)))
    assert calibration.source == "validation"
    assert calibration.known.correct.tolist() == [True, False, True, True, True]
    curve = calibration.curve()
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.precision.tolist() == pytest.approx([1, 1, 1, 1, 0.8])
    strict = calibration.promise(0.4)
    assert strict.value == pytest.approx(np.cos(np.radians(13)), abs=1e-6)
    assert calibration.on_queries(strict.value) == (0.75, 1.0)


def enough(count: int = 60) -> Vectors:
    """Validation images within 9 degrees of their class, all of them right."""
    return {"class 0": list(np.linspace(-9, 9, count))}


def applied_to(tmp_path: Path, **arguments: object) -> AppliedThreshold:
    run, gallery = by_hand(tmp_path, query=QUERY, valid=enough())
    return threshold_of(GalleryFile(run, "all"), gallery, **arguments)


def test_unknown_photos_of_one_class_are_said_to_be_too_few_to_try_a_threshold_on():
    close = SearchOutcomes(np.linspace(0.5, 1, 200), np.ones(200, bool))
    of_one_class = SearchOutcomes(np.full(20, 0.4), np.zeros(20, bool), np.zeros(20, int))
    images = CalibrationSet(
        source="validation",
        known=close,
        unknown=of_one_class,
        queries=close,
        num_carved=200,
        held_out_phase="",
    )
    assert describe_lack(images.promise(0.95, 0.2), images) == (
        "a precision of 95% with 20% photos of classes that are not enrolled can't be promised:"
        " there are 200 validation images and 20 images of classes that were never trained on, of"
        " too few classes or groups to try a threshold on: enrol more of them, or set --threshold"
        " by hand, which promises nothing"
    )
    assert threshold_cells(images.promise(0.95, 0.2))[2:] == [
        "can't be promised: there are too few classes or groups to try a threshold on"
    ]
    alone = replace(images, known=replace(close, groups=np.zeros(200, int)))
    assert threshold_cells(alone.promise(0.95))[2:] == [
        "can't be promised: one group says nothing about others"
    ]


def test_a_promise_says_its_bound_what_it_answers_and_on_how_many_images(tmp_path):
    applied = applied_to(tmp_path, precision=0.95)
    said = list(describe_threshold(applied))
    assert said[0] == (
        "where no photo is of another class than those of the gallery: from a similarity of 0.9877"
        " on, at least 95% of the answers are right, with 95% confidence. It answers 100% of 60"
        " validation images; 100.0% of these answers are right (lower bound 95.1%)"
    )
    assert said[1].startswith(
        "a precision of 95% with 20% photos of classes that are not enrolled can't be promised:"
        " there are 60 validation images and 0 images of classes that were never trained on"
    )
    assert said[2] == (
        "of 4 test images, on which nothing was chosen, 50% are answered and 50.0% of these"
        " answers are right"
    )
    threshold = as_json(Predictions((), (), 1.0, 1.0), applied)["threshold"]
    assert threshold["value"] == pytest.approx(np.cos(np.radians(9)), abs=1e-6)
    assert threshold["chosen_on"]["validation"] == 60
    assert threshold["on_queries"] == {"queries": 4, "precision": 0.5, "coverage": 0.5}
    strict, mixed = threshold["promises"]
    assert (strict["unknown_share"], mixed["unknown_share"]) == (0.0, 0.2)
    assert (strict["known_images"], strict["known_images_needed"]) == (60, 60)
    assert (mixed["value"], mixed["known_images_needed"]) == (None, 59)
    last = threshold["curve"]["points"][-1]
    assert (last["coverage"], last["precision"]) == (1.0, 1.0)
    assert last["lower_bound"] == pytest.approx(0.05 ** (1 / 60))


def test_a_precision_that_can_not_be_promised_is_refused_with_what_is_needed(tmp_path):
    with pytest.raises(NoPromise) as refused:
        applied_to(tmp_path, precision=0.99)
    assert str(refused.value).startswith(
        "a precision of 99% can't be promised: there are 60 validation images, and about 299 are"
        " needed: train with"
    )


def in_sessions(tmp_path: Path, sessions: list[str], **arguments: object) -> AppliedThreshold:
    """The same sixty validation images where the split keeps sessions whole; an empty list is a run
    of a version that recorded none."""
    run = grouped_run(tmp_path, enough(), sessions)
    return threshold_of(GalleryFile(run, "all"), run_gallery(run, "all"), **arguments)


def grouped_run(tmp_path: Path, valid: Vectors, sessions: list[str]) -> Run:
    """With these sessions of its validation images."""
    data = Data(split="grouped", group="session", valid_fraction=0.2)
    answers = {phase: [[1], [1], [1]] for phase in ("all", "limited")}
    run = finish(tmp_path, experiment(data=data), answers, unseen=1)
    gallery = {"class 0": [0], "class 1": [40], "class 2": [80]}
    store(run, "all", gallery=gallery, query=QUERY, valid=valid)
    if sessions:
        rows = read_csv(run.folder / "split.csv")
        for row in rows:
            row["group"] = "another"
        validated = [row for row in rows if row["part"] == "valid"]
        for row, session in zip(validated, sessions, strict=True):
            row["group"] = session
        write_csv(run.folder / "split.csv", tuple(rows[0]), [list(row.values()) for row in rows])
    return run


def test_a_promise_on_new_sessions_counts_them_and_not_their_images(tmp_path):
    of_their_own = in_sessions(tmp_path / "1", [f"s{i}" for i in range(60)], precision=0.95)
    assert of_their_own.chosen is not None
    assert (of_their_own.chosen.known, of_their_own.chosen.known_groups) == (60, 60)
    assert "It answers 100% of 60 validation images of 60 groups" in next(
        describe_threshold(of_their_own)
    )
    with pytest.raises(NoPromise) as refused:
        in_sessions(tmp_path / "2", [f"s{i // 10}" for i in range(60)], precision=0.95)
    assert str(refused.value).startswith(
        "a precision of 95% can't be promised: there are 60 validation images of 6 groups, and"
        " about "
    )
    with pytest.raises(NoPromise, match="of 1 group, and one group says nothing about others"):
        in_sessions(tmp_path / "3", ["s"] * 60, precision=0.95)


def test_unknown_photos_count_by_their_class_and_by_the_trip_that_shows_several(tmp_path):
    valid: Vectors = {"class 7": [1, 2, 41], "class 8": [39, 78, 79], "class 9": [2, 40]}
    trips = ["a", "b", "a", "a", "b", "b", "b", "a"]
    run = grouped_run(tmp_path, valid, trips)
    unknown = calibration_set(run, "all", run_gallery(run, "all")).unknown
    assert unknown.groups.tolist() == ["class 7"] * 3 + ["class 8"] * 3 + ["class 9"] * 2
    assert unknown.crossed.tolist() == trips
    assert [int(ids.max()) + 1 for ids in unknown.ways] == [3, 2, 6]


def test_groups_that_a_run_did_not_record_promise_nothing(tmp_path):
    with pytest.raises(NoPromise, match="there are no validation images with a recorded group"):
        in_sessions(tmp_path, [], precision=0.95)


def test_without_a_precision_every_photo_is_answered(tmp_path):
    applied = applied_to(tmp_path)
    assert applied.value == -np.inf
    assert next(describe_threshold(applied)) == (
        "every photo is answered, because no --precision was asked for"
    )
    threshold = as_json(Predictions((), (), 1.0, 1.0), applied)["threshold"]
    assert threshold["value"] is None
    assert threshold["promises"][0]["value"] == pytest.approx(0.9877, abs=1e-4)


def test_validation_images_of_classes_that_the_gallery_lacks_are_unknown_photos(tmp_path):
    """As those of protocol class_disjoint, whose validation classes are not those that are looked
    up."""
    calibration = calibration_set(
        *with_phase(by_hand(tmp_path, query=QUERY, valid={"class 7": [0, 41]}))
    )
    assert len(calibration.known.correct) == 0
    np.testing.assert_allclose(
        calibration.unknown.similarity, np.cos(np.radians([0, 1])), atol=1e-6
    )
    assert len(calibration.queries.correct) == 4


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


CLASSIFIER = ("loss=crossentropy", "miner=none")


def test_a_classifier_answers_as_its_logits_did_and_names_no_enrolled_class(
    copy_of_trained, photos, monkeypatch, capsys
):
    folder = copy_of_trained(*CLASSIFIER)
    run = open_run(folder)
    enrol(open_gallery_file(folder, "limited", None), photos)
    queries = run.embeddings("limited").query_images
    files = [run.images.located(run.images.recorded(image)) for image in queries]
    said = db.Gallery(folder, phase="limited", device="cpu").predict(files, by="classifier")
    logits = run.logits("limited")
    names = [run.class_names[label] for label in logits.predicted.tolist()]
    assert [prediction.class_name for prediction in said] == names
    probabilities = [prediction.probability for prediction in said]
    np.testing.assert_allclose(probabilities, logits.probabilities.max(axis=1), atol=1e-5)
    note = said.notes()[-1]
    assert "always names one of the 6 classes it was trained on" in note
    assert "never names the other 4 classes of the gallery (" in note
    assert NEW in note

    photo = next((photos / NEW).iterdir())
    by_classifier = ("predict", folder, photo, "--phase", "limited", "--by", "classifier")
    assert dml_bench(monkeypatch, *by_classifier) == 0
    assert "classifier: " in capsys.readouterr().out
    assert dml_bench(monkeypatch, *by_classifier, "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["class"] in names and 0 < answer["probability"] <= 1
    assert answer["closest_class"] == NEW
    for more in ((), ("--out", folder / "answers.csv")):
        line = refusal(monkeypatch, capsys, *by_classifier, "--precision", 0.9, *more)
        assert "go by similarity" in line


def test_a_classifier_calls_a_renamed_class_as_the_gallery_does(copy_of_trained):
    folder = copy_of_trained(*CLASSIFIER)
    run = open_run(folder)
    predicted = run.logits("all").predicted
    old = run.class_names[int(predicted[0])]
    enrol(open_gallery_file(folder, "all", None), rename=((old, "Gull"),))
    file = run.images.file(run.embeddings("all").query_images[0])
    said = db.Gallery(folder, device="cpu").predict(file, by="classifier")
    assert said[0].class_name == "Gull"
    assert "never names" not in said.notes()[-1]


def test_a_run_without_logits_has_no_classifier(run, photos, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "predict", run, photos, "--by", "classifier")
    assert "has no classifier, as its loss NTXent has no logits: use --by photo" in line


def test_below_the_threshold_the_answer_is_unknown(run, photos, monkeypatch, capsys):
    photo = next((photos / NEW).iterdir())
    for threshold, known in ((-1, True), (1, False)):
        assert (
            dml_bench(monkeypatch, "predict", run, photo, "--json", "--threshold", threshold) == 0
        )
        (answer,) = json.loads(capsys.readouterr().out)["answers"]
        assert (answer["class"] is not None) is known
        assert answer["closest_class"] == answer["closest"][0]["class"]


def test_without_a_threshold_the_class_and_its_vote_are_answered(run, photos, monkeypatch, capsys):
    assert dml_bench(monkeypatch, "predict", run, photos, "--other", photos / NEW) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "unknown" not in said.partition("every photo is answered")[0]
    assert "a precision of 95% can't be promised: there are no validation images" in said
    assert "of 3 photos of --other, 100% are answered, all wrongly" in said


def test_a_precision_without_validation_images_is_refused(run, photos, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "predict", run, photos, "--precision", 0.95)
    assert "can't be promised: there are no validation images, and about 59 are needed" in line
    assert "train with" in line
    both = ("predict", run, photos, "--precision", 0.95, "--threshold", 0.5)
    assert "give one of them" in refusal(monkeypatch, capsys, *both)
    alone = ("predict", run, photos, "--unknown-share", 0.2)
    assert "needs a precision" in refusal(monkeypatch, capsys, *alone)


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
    assert "--rename OLD=NEW" in line("enrol", run, "--rename", "old= ")
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


def test_the_closest_mean_is_not_misled_by_one_photo():
    """Class a has a photo exactly like the query, and otherwise lies far from it."""
    angles = {"a": [0.0, 2.0, 2.2], "b": [0.3, 0.4, 0.5]}
    entries, vectors = [], []
    for name, several in angles.items():
        for angle in several:
            entries.append(GalleryImage(name, f"{name}{angle}.jpg", "", "run"))
            vectors.append((np.cos(angle), np.sin(angle)))
    gallery = Gallery(tuple(entries), np.array(vectors, np.float32))
    query, label = np.array([[1, 0]], np.float32), np.array([-1])
    assert exact_search(gallery, query, label, 1).labels[0, 0] == 0
    by_mean = mean_search(gallery, query, label, 5)
    assert by_mean.labels.tolist() == [[1, 0]]
    assert by_mean.similarities[0, 0] == pytest.approx(np.cos(0.4), abs=1e-6)
    assert [gallery.entries[index].path for index in by_mean.indices[0]] == ["b0.4.jpg", "a2.0.jpg"]


def test_an_enrolled_image_has_no_part_in_the_class_mean_that_it_is_searched_with():
    """Of 12 classes of 2 to 4 images with next to no likeness. An image that is in its own mean
    finds its class far too often, and the one nearest to its mean was searched without its
    class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), [2, 3, 4] * 4)
    vectors = rng.normal(size=(12, 8))[labels] + 2 * rng.normal(size=(len(labels), 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    images = zip(labels.tolist(), range(len(labels)), strict=True)
    entries = tuple(GalleryImage(f"{c:02}", f"{i}.jpg", "", "enrolled") for c, i in images)
    gallery, rows, nothing = Gallery(entries, vectors), np.arange(len(labels)), np.full(36, "")
    queries = HeldOutQueries(vectors, labels, rows, nothing, nothing)
    outcomes = search_outcomes(gallery, queries, mean_search)
    for row in rows:
        others = Gallery(entries[:row] + entries[row + 1 :], np.delete(vectors, row, axis=0))
        nearest = mean_search(others, vectors[row : row + 1], np.array([-1]), 1)
        assert outcomes.correct[row] == (nearest.labels[0, 0] == labels[row])
        assert outcomes.similarity[row] == pytest.approx(nearest.similarities[0, 0], abs=1e-6)
    assert 0 < outcomes.correct.mean() < 0.5
    elsewhere = search_outcomes(gallery, replace(queries, own_rows=rows * 0 - 1), mean_search)
    assert elsewhere.correct.mean() > 0.6


def test_images_of_the_run_that_are_enrolled_too_find_others_than_themselves(
    trained, birds, tmp_path
):
    """As where a person enrols the folder that the run is of, with what was added to it since."""
    run = open_run(trained("train.precision=float32", "data.valid_fraction=0.3").folder)
    place = GalleryFile(run, "all", tmp_path / "gallery")
    before = calibration_set(run, "all", run_gallery(run, "all"))
    (folder,) = (path.parent.parent for path in list(birds.rglob("*.jpg"))[:1])
    copies = Path(shutil.copytree(folder, tmp_path / "copies"))
    gallery = enrol(place, copies, remove=(run_gallery(run, "all").class_names[0],)).gallery
    assert len(gallery.entries) == len(run.split)
    calibration = calibration_set(run, "all", gallery)
    assert calibration.source == "validation"
    for part in ("known", "queries"):
        outcomes, of_run = getattr(calibration, part), getattr(before, part)
        assert len(outcomes.correct) == len(of_run.correct)
        assert outcomes.similarity.max() < 1 - 1e-6
    digests = [entry.sha256 for entry in gallery.entries]
    embeddings = run.embeddings("all")
    expected = []
    for image, vector in zip(embeddings.images("valid"), embeddings.vectors("valid"), strict=True):
        similarity = gallery.embeddings @ vector
        similarity[digests.index(run.split[image].sha256)] = -2
        nearest = gallery.entries[int(similarity.argmax())].class_name
        expected.append(nearest == run.split[image].class_name)
    assert calibration.known.correct.tolist() == expected
    assert not len(enrolled_queries(run, embeddings, gallery).labels)


def test_a_run_whose_validation_classes_are_not_looked_up_is_told_to_enrol(trained):
    """It would not help to train with more validation images."""
    run = open_run(trained("protocol=class_disjoint", "data.split=half").folder)
    place = GalleryFile(run, "disjoint")
    with pytest.raises(NoPromise) as lack:
        threshold_of(place, place.read(), precision=0.95)
    assert str(lack.value) == (
        "a precision of 95% can't be promised: there are no enrolled images, and about 59 are"
        " needed: enrol more photos, or set --threshold by hand, which promises nothing"
    )
