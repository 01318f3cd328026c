"""Samplers: batches are a pure function of the key, and hold what their name says."""

import math

import numpy as np
import pytest

from dml_bench.registry import samplers

IMAGES = np.sort(np.random.default_rng(0).permutation(500)[:203])
"""Indices of a phase's training images; the others were held out."""
LABELS = np.random.default_rng(1).choice(
    [2, 3, 5, 8, 11, 12, 17, 40], 203, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]
)
LABEL_OF = dict(zip(IMAGES.tolist(), LABELS.tolist(), strict=True))


def sampled(
    name: str, *, images=IMAGES, labels=LABELS, batch_size: int = 16, epoch: int = 0, **options
) -> list[list[int]]:
    images, labels = np.asarray(images), np.asarray(labels)
    return [
        batch.tolist()
        for batch in samplers[name].build(images, labels, batch_size, (42, "all", epoch), **options)
    ]


def counts(items) -> list[int]:
    return np.unique(items, return_counts=True)[1].tolist()


def in_classes(*sizes: int) -> dict[str, np.ndarray]:
    """Images 0, 1, 2, ... whose classes have these sizes, classes interleaved."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return {"images": np.arange(sum(sizes)), "labels": np.random.default_rng(5).permutation(labels)}


@pytest.mark.parametrize("name", samplers.names())
class TestEverySampler:
    def test_batches_are_a_pure_function_of_the_key(self, name):
        first = sampled(name, epoch=3)
        np.random.default_rng().random(7)
        sampled(name, epoch=4)
        assert sampled(name, epoch=3) == first

    def test_each_seed_phase_and_epoch_has_its_own_batches(self, name):
        keys = [(42, "all", 0), (42, "all", 1), (42, "limited", 0), (43, "all", 0)]
        epochs = [
            np.concatenate(samplers[name].build(IMAGES, LABELS, 16, key)).tolist() for key in keys
        ]
        assert len(set(map(tuple, epochs))) == 4

    def test_only_the_given_images_are_drawn(self, name):
        for epoch in range(5):
            assert set(np.concatenate(sampled(name, epoch=epoch)).tolist()) <= set(IMAGES.tolist())

    def test_every_image_is_drawn_within_some_epochs(self, name):
        assert {
            image for epoch in range(12) for batch in sampled(name, epoch=epoch) for image in batch
        } == set(IMAGES.tolist())

    @pytest.mark.parametrize("batch_size", [8, 16, 50, 101, 202, 1000])
    def test_batches_have_at_most_their_size_and_at_least_two_images(self, name, batch_size):
        sizes = [len(batch) for batch in sampled(name, batch_size=batch_size)]
        assert min(sizes) >= 2 and max(sizes) <= batch_size
        assert len(set(sizes[:-1])) <= 1, "only the last may be smaller"

    @pytest.mark.parametrize("batch_size", [8, 16, 64])
    def test_an_epoch_draws_as_many_images_as_there_are_to_within_a_batch(self, name, batch_size):
        assert abs(sum(map(len, sampled(name, batch_size=batch_size))) - 203) < batch_size

    def test_its_arguments_are_left_as_they_were(self, name):
        images, labels = IMAGES.copy(), LABELS.copy()
        samplers[name].build(images, labels, 16, (1, "all", 0))
        assert np.array_equal(images, IMAGES) and np.array_equal(labels, LABELS)

    def test_eleven_thousand_classes_are_drawn_from(self, name):
        labels = np.arange(40_000) % 11_318
        drawn = np.concatenate(
            sampled(name, images=np.arange(40_000), labels=labels, batch_size=128)
        )
        assert len(drawn) >= 39_936
        assert len(np.unique(labels[drawn])) > 9_900


def test_the_batches_of_a_key_are_these_on_every_platform():
    small = {"images": np.arange(10, 18), "labels": [0, 1, 2, 0, 1, 2, 0, 1], "batch_size": 4}
    assert sampled("shuffled", **small) == [[17, 15, 14, 11], [16, 10, 13, 12]]
    assert sampled("m_per_class", **small, m=2) == [[14, 11, 10, 16], [15, 12, 17, 14]]
    assert sampled("class_balanced", **small) == [[10, 15, 16, 13], [14, 11, 17, 12]]


def test_shuffled_draws_each_image_once_and_drops_a_last_batch_of_one():
    batches = sampled("shuffled", batch_size=101)
    assert [len(batch) for batch in batches] == [101, 101]
    assert counts(np.concatenate(batches)) == [1] * 202


@pytest.mark.parametrize(
    ("batch_size", "m", "classes"), [(16, 4, 4), (16, 2, 8), (19, 4, 4), (9, 3, 3), (12, 6, 2)]
)
def test_each_batch_of_m_per_class_has_m_images_of_each_of_its_classes(batch_size, m, classes):
    for epoch in range(5):
        for batch in sampled("m_per_class", batch_size=batch_size, m=m, epoch=epoch):
            labels = [LABEL_OF[image] for image in batch]
            assert counts(labels) == [m] * classes
            assert labels == [label for label in labels[::m] for _ in range(m)], "class by class"


def test_m_per_class_takes_four_images_of_a_class_if_not_told_otherwise():
    assert counts([LABEL_OF[image] for image in sampled("m_per_class")[0]]) == [4, 4, 4, 4]


@pytest.mark.parametrize(("batch_size", "m"), [(16, 4), (16, 2), (12, 2), (28, 4), (20, 4), (6, 3)])
def test_m_per_class_visits_every_class_as_often_as_any_other(batch_size, m):
    for epoch in range(5):
        batches = sampled("m_per_class", batch_size=batch_size, m=m, epoch=epoch)
        assert len(batches) == math.ceil(203 / batch_size)
        visits = counts([LABEL_OF[image] for batch in batches for image in batch[::m]])
        assert len(visits) == 8 and max(visits) - min(visits) <= 1


def test_m_per_class_deals_all_images_of_a_class_before_any_comes_again():
    sizes = {label: LABELS.tolist().count(label) for label in set(LABELS.tolist())}
    dealt: dict[int, list[int]] = {label: [] for label in sizes}
    for batch in sampled("m_per_class", m=3, batch_size=9):
        for image in batch:
            dealt[LABEL_OF[image]].append(image)
    rounds = {}
    for label, hand in dealt.items():
        size = sizes[label]
        rounds[label] = [hand[i : i + size] for i in range(0, len(hand), size)]
    assert (
        max(len(hands) for hands in rounds.values()) > 3
        and min(len(hands) for hands in rounds.values()) == 1
    )
    for hands in rounds.values():
        assert all(len(set(hand)) == len(hand) for hand in hands)


def test_m_per_class_repeats_images_in_a_batch_only_of_classes_that_have_fewer_than_m():
    some = in_classes(3, 5, 9, 20, 30)
    for batch in sampled("m_per_class", **some, batch_size=20, m=4):
        for start in range(0, 20, 4):
            group = batch[start : start + 4]
            size = {0: 3}.get(int(some["labels"][group[0]]), 4)
            assert len(set(group)) == size


def test_m_per_class_uses_all_classes_where_there_are_fewer_than_a_batch_holds():
    some = in_classes(10, 20, 30)
    batches = sampled("m_per_class", **some, batch_size=32, m=4)
    assert len(batches) == 5
    for batch in batches:
        assert counts(some["labels"][batch]) == [4, 4, 4]


def test_m_per_class_mixes_classes_with_all_others():
    met = {
        (some, other)
        for epoch in range(40)
        for batch in sampled("m_per_class", m=2, batch_size=4, epoch=epoch)
        for some in (LABEL_OF[batch[0]],)
        for other in (LABEL_OF[batch[2]],)
    }
    assert len(met) == 8 * 7


@pytest.mark.parametrize(
    ("batch_size", "m", "message"),
    [
        (16, 1, "sampler.m must be at least 2, got 1"),
        (
            7,
            4,
            ("train.batch_size must be at least 8, 4 images (sampler.m) of two classes, got 7"),
        ),
    ],
)
def test_m_per_class_refuses_batches_without_pairs(batch_size, m, message):
    with pytest.raises(ValueError) as error:
        sampled(
            "m_per_class",
            batch_size=batch_size,
            **samplers["m_per_class"].resolve({"m": m}, "sampler"),
        )
    assert str(error.value) == message
    assert sampled("m_per_class", batch_size=8, m=4)


def test_class_balanced_draws_every_class_equally_often():
    for epoch in range(5):
        batches = sampled("class_balanced", epoch=epoch)
        assert [len(batch) for batch in batches] == [16] * 12 + [11]
        per_class = counts([LABEL_OF[image] for batch in batches for image in batch])
        assert sorted(per_class) == [25] * 5 + [26] * 3


def test_class_balanced_gives_the_odd_draw_to_any_class():
    odd = set()
    for epoch in range(40):
        drawn, per_class = np.unique(
            [
                LABEL_OF[image]
                for batch in sampled("class_balanced", epoch=epoch)
                for image in batch
            ],
            return_counts=True,
        )
        odd |= set(drawn[per_class == 26].tolist())
    assert odd == set(LABELS.tolist())


def test_class_balanced_draws_the_images_of_a_class_equally_often():
    drawn = np.concatenate(sampled("class_balanced")).tolist()
    for label in set(LABELS.tolist()):
        times = [drawn.count(image) for image in IMAGES[label == LABELS].tolist()]
        assert max(times) - min(times) <= 1


def test_class_balanced_spreads_a_class_over_the_epoch():
    small = []
    for epoch in range(20):
        for batch in sampled("class_balanced", epoch=epoch)[:12]:
            labels = [LABEL_OF[image] for image in batch]
            small.append(labels.count(40))
    assert np.mean(small) == pytest.approx(2, abs=0.15)
    assert 0 in small and max(small) < 9


@pytest.mark.parametrize(("balance", "times"), [("oversample", 12), ("undersample", 3)])
def test_each_class_is_drawn_as_often_as_the_largest_or_the_smallest_has_images(balance, times):
    some = in_classes(3, 5, 9, 12)
    for epoch in range(5):
        drawn = np.concatenate(
            sampled("class_balanced", **some, batch_size=8, balance=balance, epoch=epoch)
        )
        assert counts(some["labels"][drawn]) == [times] * 4


def test_oversampling_misses_no_image_and_undersampling_repeats_none():
    some = in_classes(3, 5, 9, 12)
    assert (
        len(
            set(
                np.concatenate(
                    sampled("class_balanced", **some, batch_size=8, balance="oversample")
                ).tolist()
            )
        )
        == 29
    )
    epochs = [
        np.concatenate(
            sampled("class_balanced", **some, batch_size=8, balance="undersample", epoch=e)
        ).tolist()
        for e in range(40)
    ]
    assert {len(set(drawn)) for drawn in epochs} == {12}
    assert len({image for drawn in epochs for image in drawn}) == 29, "each epoch leaves out others"


def test_another_balance_is_refused():
    with pytest.raises(
        ValueError,
        match=r"sampler.balance must be one of 'both', 'oversample', 'undersample', got 'over'",
    ):
        samplers["class_balanced"].resolve({"balance": "over"}, "sampler")


@pytest.mark.parametrize(("factor", "times"), [(1.0, 1.0), (2.0, 2.0), (3.5, 3.5)])
def test_a_repeated_class_is_drawn_a_factor_as_often_and_the_others_once(factor, times):
    drawn = np.concatenate(sampled("repeated_class", label=5, factor=factor))
    of_class = IMAGES[LABELS == 5]
    others = np.isin(drawn, of_class, invert=True)
    assert sorted(drawn[others]) == sorted(np.setdiff1d(IMAGES, of_class))
    visits = counts(drawn[~others])
    assert sum(visits) == round(times * len(of_class)) and len(visits) == len(of_class)
    assert max(visits) - min(visits) <= 1


def test_without_its_class_the_sampler_shuffles():
    assert sorted(np.concatenate(sampled("repeated_class", label=4))) == sorted(IMAGES)
