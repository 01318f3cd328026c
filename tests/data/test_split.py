"""One split for both phases, a pure function of seed and paths; and which classes are held out."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import dataset_of

from dml_bench.config.experiments import resolve
from dml_bench.data.datasets import Dataset, ImageRow, assemble
from dml_bench.data.split import (
    Phase,
    Split,
    holdouts,
    make_disjoint_split,
    make_split,
    phases,
    thinned,
    unseen_classes,
)
from dml_bench.data.synthetic import cub_counts
from dml_bench.registry import UnknownName


def split_of(
    dataset: Dataset, *, seed: int = 42, fraction: float = 0.2, method: str = "stratified"
) -> Split:
    return make_split(dataset, method=method, test_fraction=fraction, seed=seed)


def queries_of(dataset: Dataset, split: Split, name: str = "") -> list[str]:
    return [dataset.paths[image] for image in split.test if dataset.paths[image].startswith(name)]


def test_every_image_is_in_exactly_one_part():
    dataset = dataset_of({"auk": 7, "jay": 12, "wren": 30})
    split = split_of(dataset)
    assert np.intersect1d(split.train, split.test).tolist() == []
    assert np.union1d(split.train, split.test).tolist() == list(range(49))
    assert (np.diff(split.train) > 0).all() and (np.diff(split.test) > 0).all()


@pytest.mark.parametrize(
    ("counts", "queries"),
    [((10, 10, 10), 6), ((7, 12, 30), 10), ((5, 5, 6), 4), ((11, 11, 11, 11), 9)],
)
def test_a_fifth_of_all_images_rounded_up_are_queries(counts, queries):
    dataset = dataset_of({f"c{label}": count for label, count in enumerate(counts)})
    assert len(split_of(dataset).test) == queries


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_each_class_has_a_query_and_a_gallery_image_however_small_it_is(fraction):
    dataset = dataset_of({"auk": 2, "jay": 3, "wren": 40})
    split = split_of(dataset, fraction=fraction)
    assert np.bincount(dataset.labels[split.test], minlength=3).min() >= 1
    assert np.bincount(dataset.labels[split.train], minlength=3).min() >= 1


def test_each_class_gives_its_share_within_one_image():
    dataset = dataset_of(cub_counts())
    wanted = np.array(list(cub_counts().values())) * 0.2
    taken = np.bincount(dataset.labels[split_of(dataset).test])
    assert (taken >= np.floor(wanted)).all() and (taken <= np.ceil(wanted)).all()


def test_the_counts_of_cub_give_2358_queries_and_9430_gallery_images():
    split = split_of(dataset_of(cub_counts()))
    assert (len(split.test), len(split.train)) == (2358, 9430)


def test_what_one_class_has_no_room_for_is_asked_of_another():
    # 94.5 queries are wanted; the class of 5 can give 4 and must keep one for the gallery, so the
    # other gives 91.
    dataset = dataset_of({"auk": 5, "jay": 100})
    assert len(split_of(dataset, fraction=0.9).test) == 95


def test_the_split_of_a_small_set_is_this_one_on_every_platform():
    dataset = dataset_of({"auk": 5, "jay": 7, "wren": 4})
    split = split_of(dataset)
    assert queries_of(dataset, split) == ["auk/01.jpg", "jay/00.jpg", "jay/02.jpg", "wren/01.jpg"]
    assert split.fingerprint == "82c5bf6d5c869e50211ccff68cd629f26f8f38a6911e01e01798a978074e05a3"


def test_the_order_in_which_files_are_found_changes_nothing():
    sorted_set = dataset_of({"auk": 9, "jay": 12, "wren": 8})
    rows = [
        ImageRow(path, int(label))
        for path, label in zip(sorted_set.paths, sorted_set.labels, strict=True)
    ]
    random.Random(0).shuffle(rows)
    assert [row.path for row in rows] != list(sorted_set.paths)
    dataset = assemble("birds", Path("nowhere"), sorted_set.class_names, rows)
    assert dataset.paths == sorted_set.paths
    assert split_of(dataset).fingerprint == split_of(sorted_set).fingerprint
    assert split_of(dataset).test.tolist() == split_of(sorted_set).test.tolist()


def test_the_split_depends_on_the_seed():
    dataset = dataset_of({"auk": 30, "jay": 30})
    assert split_of(dataset, seed=1).fingerprint == split_of(dataset, seed=1).fingerprint
    assert split_of(dataset, seed=1).fingerprint != split_of(dataset, seed=2).fingerprint
    assert queries_of(dataset, split_of(dataset, seed=1)) != queries_of(
        dataset, split_of(dataset, seed=2)
    )


def test_images_added_to_one_class_leave_the_queries_of_the_others_alone():
    before, after = (
        dataset_of({"auk": 10, "jay": 10, "wren": 10}),
        dataset_of({"auk": 10, "jay": 25, "wren": 10}),
    )
    for name in ("auk", "wren"):
        assert queries_of(before, split_of(before), name) == queries_of(
            after, split_of(after), name
        )
    assert len(queries_of(after, split_of(after), "jay")) == 5


def test_a_larger_share_of_queries_contains_the_smaller_one():
    dataset = dataset_of({"auk": 13, "jay": 29})
    small, large = split_of(dataset, fraction=0.2), split_of(dataset, fraction=0.4)
    assert set(small.test) < set(large.test)


def test_fewer_images_per_class_are_among_those_of_more_and_leave_queries_as_they_are():
    dataset = dataset_of({"auk": 7, "jay": 12, "wren": 30})
    full = split_of(dataset)
    few, more = (thinned(full, dataset, count, seed=42) for count in (5, 10))
    assert np.bincount(dataset.labels[few.train]).tolist() == [5, 5, 5]
    assert np.bincount(dataset.labels[more.train]).tolist() == [6, 9, 10]
    assert set(few.train) < set(more.train) < set(full.train)
    assert np.array_equal(few.test, full.test)
    assert few.gallery is few.train
    assert len({full.fingerprint, few.fingerprint, more.fingerprint}) == 3
    other = thinned(full, dataset, 5, seed=43)
    assert not np.array_equal(other.train, few.train)


def test_a_gallery_of_its_own_stays_as_it_is_where_training_images_are_fewer():
    dataset = dataset_of({"auk": 12, "jay": 12})
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=42)
    own = replace(split, train=split.train[1:], gallery=split.train[:1])
    assert np.array_equal(thinned(own, dataset, 2, seed=42).gallery, own.gallery)


def test_a_class_with_one_image_is_refused_by_name():
    with pytest.raises(ValueError, match=r"1 classes have fewer than 2 images \(jay\)"):
        split_of(dataset_of({"auk": 4, "jay": 1, "wren": 4}))


def test_given_parts_are_used_as_they_are_and_valid_images_are_in_neither():
    parts = ("train", "test", "valid", "test", "train", "train")
    dataset = dataset_of({"auk": 3, "jay": 3}, parts=parts)
    split = split_of(dataset, method="given", seed=1)
    assert split.train.tolist() == [0, 4, 5]
    assert split.test.tolist() == [1, 3]
    assert split_of(dataset, method="given", seed=2).fingerprint == split.fingerprint


def test_images_of_parts_that_a_protocol_has_no_use_for_are_told():
    parts = ("train",) * 8 + ("valid",) * 4 + ("test",) * 4
    by_class = dataset_of(dict.fromkeys("abcdefgh", 2), parts=parts)
    [note] = make_disjoint_split(by_class, method="given", valid_fraction=0.0).notes
    assert note.startswith("4 images of the part valid of birds are not used with this protocol")
    with_queries = dataset_of({"a": 4, "b": 4}, parts=("train", "test", "query", "valid") * 2)
    [note] = split_of(with_queries, method="given").notes
    assert note == "2 images of the part query of birds are not used with this protocol"
    with_gallery = dataset_of({"a": 4, "b": 4}, parts=("train", "test", "gallery", "valid") * 2)
    assert split_of(with_gallery, method="given").notes == ()


def test_the_fingerprint_of_given_parts_depends_on_who_asks():
    swapped = split_of(
        dataset_of({"auk": 2, "jay": 2}, parts=("train", "test", "test", "train")), method="given"
    )
    other = split_of(
        dataset_of({"auk": 2, "jay": 2}, parts=("train", "test", "train", "test")), method="given"
    )
    assert swapped.fingerprint != other.fingerprint


def test_a_gallery_of_its_own_takes_the_place_of_the_training_images():
    parts = ("gallery", "train", "test", "gallery", "train", "test")
    dataset = dataset_of({"auk": 3, "jay": 3}, parts=parts)
    split = split_of(dataset, method="given")
    assert (split.train.tolist(), split.test.tolist()) == ([1, 4], [2, 5])
    assert split.gallery.tolist() == [0, 3]
    assert split.has_own_gallery
    with pytest.raises(ValueError, match="data.split must be given where birds has a gallery of"):
        split_of(dataset, method="stratified")


def test_a_gallery_of_its_own_that_lacks_a_class_is_refused():
    parts = ("gallery", "train", "test", "train", "train", "test")
    with pytest.raises(ValueError, match=r"1 classes have no gallery image \(jay, ...\)"):
        split_of(dataset_of({"auk": 3, "jay": 3}, parts=parts), method="given")


def test_given_parts_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="has no train and test parts of its own"):
        split_of(dataset_of({"auk": 2, "jay": 2}), method="given")


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (("train", "test", "train", "train"), r"1 classes have no test image \(jay\)"),
        (("train", "test", "test", "valid"), r"1 classes have no training image \(jay\)"),
    ],
)
def test_given_parts_that_leave_a_class_without_gallery_or_query_are_refused_by_name(
    parts, problem
):
    with pytest.raises(ValueError, match=problem):
        split_of(dataset_of({"auk": 2, "jay": 2}, parts=parts), method="given")


def test_both_phases_share_the_one_split_and_limited_only_lacks_the_excluded_classes():
    dataset = dataset_of({"auk": 12, "jay": 9, "owl": 20, "wren": 15})
    split = split_of(dataset)
    everything, limited = phases(((1, 3),))
    trained, without = everything.trains_on(dataset, split), limited.trains_on(dataset, split)
    assert (everything.name, everything.held_out_classes) == ("all", ())
    assert (limited.name, limited.held_out_classes) == ("limited", (1, 3))
    assert trained.tolist() == split.train.tolist()
    assert without.tolist() == [image for image in trained if dataset.labels[image] in (0, 2)]


def test_no_phase_trains_on_a_test_image():
    dataset = dataset_of(cub_counts())
    split = split_of(dataset)
    for phase in phases((unseen_classes("last:20", dataset),)):
        assert np.intersect1d(phase.trains_on(dataset, split), split.test).tolist() == []


def test_an_excluded_class_never_enters_training():
    dataset = dataset_of(cub_counts())
    unseen = unseen_classes("random:20:3", dataset)
    labels = dataset.labels[Phase("limited", unseen).trains_on(dataset, split_of(dataset))]
    assert set(labels) == set(range(200)) - set(unseen)


def test_images_of_trained_classes_are_those_of_classes_that_the_phase_trains_on():
    dataset = dataset_of({"auk": 2, "jay": 2, "wren": 2})
    images = np.array([5, 0, 3, 2])
    assert Phase("limited", (1,)).of_trained_classes(dataset, images).tolist() == [5, 0]
    assert Phase("all").of_trained_classes(dataset, images).tolist() == [5, 0, 3, 2]


TEN = {f"c{label}": 2 for label in range(10)}


@pytest.mark.parametrize(
    ("rule", "ids"), [("last:1", (9,)), ("last:3", (7, 8, 9)), ("last:8", (2, 3, 4, 5, 6, 7, 8, 9))]
)
def test_last_n_is_exactly_the_last_n_classes(rule, ids):
    assert unseen_classes(rule, dataset_of(TEN)) == ids


def test_the_last_20_of_cub_are_20_classes_from_181_on():
    dataset = dataset_of(cub_counts())
    names = [dataset.class_names[label] for label in unseen_classes("last:20", dataset)]
    assert len(names) == 20
    assert (names[0][:4], names[-1][:4]) == ("181.", "200.")


def test_random_classes_are_pinned_by_their_own_seed():
    assert unseen_classes("random:3:7", dataset_of(TEN)) == (0, 4, 6)
    assert unseen_classes("random:3:8", dataset_of(TEN)) == (3, 7, 8)


def test_every_class_can_be_drawn_at_random():
    drawn = {
        label for seed in range(60) for label in unseen_classes(f"random:1:{seed}", dataset_of(TEN))
    }
    assert drawn == set(range(10))


def test_classes_can_be_named_in_any_order_and_twice():
    assert unseen_classes("c7,c2,c7", dataset_of(TEN)) == (2, 7)


ODD = {
    'a|b, "quoted"': 2,
    "7": 2,
    "true": 2,
    "C:\\new": 2,
    "shirt x 2": 2,
    "last:2": 2,
    "..": 2,
    "plain": 2,
}


@pytest.mark.parametrize("name", [name for name in ODD if name != "last:2"])
def test_every_class_can_be_named_as_it_is_written(name):
    experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[f"unseen={name}"])
    dataset = dataset_of(ODD)
    assert [dataset.class_names[label] for label in holdouts(experiment.unseen, dataset)[0]] == [
        name
    ]


def test_a_class_that_is_called_like_a_rule_is_named_in_double_quotes():
    dataset = dataset_of(ODD)
    assert [dataset.class_names[label] for label in unseen_classes('"last:2",plain', dataset)] == [
        "last:2",
        "plain",
    ]


def test_names_with_commas_can_stand_beside_others():
    dataset = dataset_of(ODD)
    names = {
        dataset.class_names[label] for label in unseen_classes('plain,a|b, "quoted",7', dataset)
    }
    assert names == {"plain", 'a|b, "quoted"', "7"}


def test_a_list_of_names_that_can_be_read_in_two_ways_is_asked_about_and_quotes_decide():
    dataset = dataset_of({"a": 2, "b": 2, "a,b": 2, "c": 2, "d": 2})
    with pytest.raises(
        ValueError, match="may mean 'a,b', or 'a' and 'b': put each name between double quotes"
    ):
        unseen_classes("a,b", dataset)
    assert [dataset.class_names[label] for label in unseen_classes('"a,b"', dataset)] == ["a,b"]
    assert [dataset.class_names[label] for label in unseen_classes('"a","b"', dataset)] == [
        "a",
        "b",
    ]


def test_a_class_with_a_comma_can_be_held_out_although_its_parts_are_classes_too():
    dataset = dataset_of({"a": 2, "b": 2, "a,b": 2, "c": 2, "d": 2})
    for rule, names in (('"a,b"', ["a,b"]), ('"a","b"', ["a", "b"]), ('"b,c"', ["b", "c"])):
        experiment = resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[f"unseen={rule}"])
        held_out = unseen_classes(experiment.unseen, dataset)
        assert [dataset.class_names[label] for label in held_out] == names


def test_an_unknown_class_name_is_refused_with_the_near_miss():
    with pytest.raises(UnknownName, match=r"'Jai', which birds has not \(did you mean jay\?\)"):
        unseen_classes("Jai", dataset_of({"auk": 2, "jay": 2, "wren": 2}))


@pytest.mark.parametrize(
    "rule",
    ["last:0", "last:9", "last:10", "random:9:1", "random:0:1", "c0,c1,c2,c3,c4,c5,c6,c7,c8"],
)
def test_at_least_one_class_is_held_out_and_two_stay(rule):
    with pytest.raises(ValueError, match=r"hold out 1 to 8|at least 2 must stay"):
        unseen_classes(rule, dataset_of(TEN))


@pytest.mark.parametrize(
    "rule",
    [
        "last",
        "last:",
        "last:x",
        "last:-1",
        "last:1:2",
        "random:",
        "random:3:",
        "random:3:1:2",
        "last:1.5",
        "last:²",
    ],
)
def test_a_rule_that_does_not_parse_is_explained(rule):
    with pytest.raises(ValueError, match=r"write last:N, random:N, random:N:SEED, or class names"):
        unseen_classes(rule, dataset_of(TEN))


# Rotated hold-outs


def test_a_rule_without_rotation_is_one_hold_out():
    assert holdouts("last:2", dataset_of(TEN)) == ((8, 9),)


def test_rotated_hold_outs_hold_each_class_out_once_before_any_twice():
    sets = holdouts("random:3:7 x 5", dataset_of(TEN))
    assert [len(chosen) for chosen in sets] == [3] * 5
    assert sets[0] == unseen_classes("random:3:7", dataset_of(TEN))
    first = [label for chosen in sets[:3] for label in chosen]
    assert len(set(first)) == 9
    assert set(sets[3]).isdisjoint(sets[4]), "the second order"
    assert holdouts("random:3 x 2", dataset_of(TEN)) == holdouts("random:3:0 x 2", dataset_of(TEN))
    assert holdouts("random:3:7 x 2", dataset_of(TEN)) == sets[:2]


@pytest.mark.parametrize("rule", ["last:3 x 2", "random:3 x 1", "random:3 x many"])
def test_what_can_not_be_rotated_is_refused(rule):
    with pytest.raises(
        ValueError,
        match="hold-outs are rotated by random:N:SEED x R with R of at least 2, e.g. random:20 x 5",
    ):
        holdouts(rule, dataset_of(TEN))


def test_each_hold_out_is_a_phase_with_names_of_its_own():
    named = phases(((1, 2), (3, 4), (5, 6)))
    assert [(phase.name, phase.held_out_classes, phase.suffix) for phase in named] == [
        ("all", (), ""),
        ("limited-1", (1, 2), "2"),
        ("limited-2", (3, 4), "3"),
        ("limited-3", (5, 6), "4"),
    ]
