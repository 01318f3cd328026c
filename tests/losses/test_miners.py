"""Miners: every registered one finds only true pairs and triplets, and each finds what its
definition says."""

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dml_bench.registry import miners

NAMES = [name for name in miners.names() if name != "none"]
LABELS = torch.tensor([2, 0, 1, 3, 3, 0, 2, 1, 0, 0, 1, 2, 3, 1, 0, 1])


def mine(name: str, embeddings: Tensor, labels: Tensor, **options: object) -> tuple[Tensor, ...]:
    return miners[name].build(**miners[name].resolve(options, "miner"))(embeddings, labels)


def vectors(seed: int, size: int = 16, dim: int = 6) -> Tensor:
    return functional.normalize(
        torch.randn(size, dim, generator=torch.Generator().manual_seed(seed)), dim=1
    )


def closeness(embeddings: Tensor, distance: str) -> list[list[float]]:
    """Distances as the options of miners mean them: Euclidean, or 1 - cosine."""
    points = embeddings.tolist()

    def between(x: list[float], y: list[float]) -> float:
        if distance == "euclidean":
            return math.dist(x, y)
        return 1 - sum(a * b for a, b in zip(x, y, strict=True))

    def to_all(x: list[float]) -> list[float]:
        return [between(x, y) for y in points]

    return [to_all(x) for x in points]


def positives_of(anchor: int) -> list[int]:
    return [i for i in range(16) if LABELS[i] == LABELS[anchor] and i != anchor]


def negatives_of(anchor: int) -> list[int]:
    return [i for i in range(16) if LABELS[i] != LABELS[anchor]]


def all_triplets() -> list[tuple[int, int, int]]:
    return [(a, p, n) for a in range(16) for p in positives_of(a) for n in negatives_of(a)]


def tuples(*indices: Tensor) -> list[tuple[int, ...]]:
    return sorted(zip(*(part.tolist() for part in indices), strict=True))


def as_pairs(mined: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors and positives, anchors and negatives, of pairs or of triplets."""
    anchors, positives, *rest = mined
    return (
        (anchors, positives, rest[0], rest[1])
        if len(rest) == 2
        else (anchors, positives, anchors, rest[0])
    )


# Every miner ...


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_positives_share_the_class_of_their_anchor_and_negatives_do_not(name, seed):
    anchors, positives, against, negatives = as_pairs(mine(name, vectors(seed), LABELS))
    assert len(anchors) > 0 and len(against) > 0
    assert all(
        part.dtype == torch.long and set(part.tolist()) <= set(range(16))
        for part in (anchors, positives, against, negatives)
    )
    assert (LABELS[anchors] == LABELS[positives]).all() and (anchors != positives).all()
    assert (LABELS[against] != LABELS[negatives]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_of_torch_finds_the_same_tuples_whatever_other_generators_do(name):
    mined = []
    for other in (1, 2):
        torch.manual_seed(0)
        np.random.seed(other)
        random.seed(other)
        torch.use_deterministic_algorithms(True)
        try:
            mined.append(mine(name, vectors(0), LABELS))
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, again) for one, again in zip(*mined, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_positive_pair_is_found_among_images_of_different_classes(name):
    anchors, positives, _, _ = as_pairs(mine(name, vectors(0, size=6), torch.arange(6)))
    assert len(anchors) == len(positives) == 0


@pytest.mark.parametrize("name", NAMES)
def test_no_negative_pair_is_found_among_images_of_one_class(name):
    _, _, against, negatives = as_pairs(mine(name, vectors(0, size=6), torch.full((6,), 2)))
    assert len(against) == len(negatives) == 0


@pytest.mark.parametrize("name", ["EPSHN", "BatchHard", "BatchEasyHard", "HDC"])
def test_a_miner_that_only_ranks_finds_the_same_by_either_distance(name):
    by_cosine, by_distance = (
        mine(name, vectors(1), LABELS, distance=distance) for distance in ("cosine", "euclidean")
    )
    assert tuples(*by_cosine[:2]) == tuples(*by_distance[:2])
    assert tuples(*by_cosine[-2:]) == tuples(*by_distance[-2:])


def test_none_mines_nothing():
    assert miners["none"].build() is None


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("TripletMargin", {"margin": -0.1}, "margin must be at least 0, got -0.1"),
        ("DistanceWeighted", {"cutoff": 0.0}, "cutoff must be a number above 0, got 0.0"),
        (
            "DistanceWeighted",
            {"nonzero_loss_cutoff": 0.4},
            "nonzero_loss_cutoff must be a number from miner.cutoff \\(0.5\\) to 1.99, got 0.4",
        ),
        ("UniformHistogram", {"num_bins": 0}, "num_bins must be at least 1, got 0"),
        (
            "HDC",
            {"filter_percentage": 50.0},
            "filter_percentage must be a number from 0 to 1, got 50.0",
        ),
        (
            "BatchEasyHard",
            {"pos_strategy": "semihard"},
            "neg_strategy must be easy or hard beside semihard, got 'semihard' and 'semihard'",
        ),
        (
            "BatchEasyHard",
            {"pos_strategy": "all"},
            "neg_strategy must be easy or hard beside semihard, got 'all' and 'semihard'",
        ),
        (
            "BatchEasyHard",
            {"allowed_pos_range": [0.3]},
            r"allowed_pos_range must be two ascending distances from 0 to 2, or none, got \[0.3\]",
        ),
        (
            "BatchEasyHard",
            {"allowed_neg_range": [0.5, 0.3]},
            r"allowed_neg_range must be two ascending distances .*, got \[0.5, 0.3\]",
        ),
        (
            "BatchEasyHard",
            {"pos_strategy": "all", "neg_strategy": "hard", "allowed_pos_range": [0.1, 0.3]},
            "allowed_pos_range has no effect with the strategy all",
        ),
        (
            "BatchEasyHard",
            {"neg_strategy": "all", "allowed_neg_range": [0.1, 0.3]},
            "allowed_neg_range has no effect with the strategy all",
        ),
        (
            "BatchEasyHard",
            {"pos_strategy": "eazy"},
            r"pos_strategy must be one of .*, got 'eazy' \(did you mean easy\?\)",
        ),
    ],
)
def test_an_option_out_of_its_range_is_refused_with_its_name_its_value_and_what_is_wanted(
    name, options, problem
):
    with pytest.raises(ValueError, match=problem):
        mine(name, vectors(0), LABELS, **options)


# ... and each by its definition.


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative(seed, distance):
    far = closeness(vectors(seed), distance)
    expected = [
        (
            a,
            max(positives_of(a), key=far[a].__getitem__),
            min(negatives_of(a), key=far[a].__getitem__),
        )
        for a in range(16)
    ]
    assert tuples(*mine("BatchHard", vectors(seed), LABELS, distance=distance)) == expected


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("negative", ["easy", "semihard", "hard"])
@pytest.mark.parametrize("positive", ["easy", "semihard", "hard"])
def test_batch_easy_hard_takes_a_positive_and_a_negative_by_their_strategies(
    positive, negative, distance
):
    if positive == negative == "semihard":
        return
    far = closeness(vectors(4), distance)
    expected = []
    for a in range(16):
        others, against = positives_of(a), negatives_of(a)
        p = (
            min(others, key=far[a].__getitem__)
            if positive == "easy"
            else max(others, key=far[a].__getitem__)
        )
        n = (
            max(against, key=far[a].__getitem__)
            if negative == "easy"
            else min(against, key=far[a].__getitem__)
        )
        if negative == "semihard":
            beyond = [i for i in against if far[a][i] > far[a][p]]
            n = min(beyond, key=far[a].__getitem__) if beyond else -1
        if positive == "semihard":
            within = [i for i in others if far[a][i] < far[a][n]]
            p = max(within, key=far[a].__getitem__) if within else -1
        if min(n, p) >= 0:
            expected.append((a, p, n))
    anchors, positives, again, negatives = mine(
        "BatchEasyHard",
        vectors(4),
        LABELS,
        pos_strategy=positive,
        neg_strategy=negative,
        distance=distance,
    )
    assert expected
    assert torch.equal(anchors, again)
    assert tuples(anchors, positives, negatives) == expected


def test_batch_easy_hard_takes_every_positive_where_told_all():
    far = closeness(vectors(4), "cosine")
    anchors, positives, against, negatives = mine(
        "BatchEasyHard", vectors(4), LABELS, pos_strategy="all", neg_strategy="hard"
    )
    assert tuples(anchors, positives) == [(a, p) for a in range(16) for p in positives_of(a)]
    assert tuples(against, negatives) == [
        (a, min(negatives_of(a), key=far[a].__getitem__)) for a in range(16)
    ]


@pytest.mark.parametrize(
    ("distance", "least", "greatest"), [("cosine", 0.5, 1.1), ("euclidean", 1.0, 1.5)]
)
def test_batch_easy_hard_looks_only_at_distances_in_the_allowed_range(distance, least, greatest):
    far = closeness(vectors(4), distance)
    mined = mine(
        "BatchEasyHard",
        vectors(4),
        LABELS,
        pos_strategy="hard",
        neg_strategy="hard",
        allowed_pos_range=[least, greatest],
        allowed_neg_range=[least, greatest],
        distance=distance,
    )
    expected = []
    for a in range(16):
        others = [i for i in positives_of(a) if least <= far[a][i] <= greatest]
        against = [i for i in negatives_of(a) if least <= far[a][i] <= greatest]
        if others and against:
            expected.append(
                (a, max(others, key=far[a].__getitem__), min(against, key=far[a].__getitem__))
            )
    assert expected
    assert tuples(mined[0], mined[1], mined[3]) == expected
    unrestricted = mine(
        "BatchEasyHard",
        vectors(4),
        LABELS,
        pos_strategy="hard",
        neg_strategy="hard",
        distance=distance,
    )
    assert tuples(unrestricted[0], unrestricted[1], unrestricted[3]) != expected


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("kind", "belongs"),
    [
        ("all", lambda gap: gap <= 0.3),
        ("hard", lambda gap: gap <= 0),
        ("semihard", lambda gap: 0 < gap <= 0.3),
        ("easy", lambda gap: gap > 0.3),
    ],
)
def test_triplet_margin_takes_triplets_by_how_much_farther_the_negative_is(kind, belongs, distance):
    far = closeness(vectors(2), distance)
    expected = [(a, p, n) for a, p, n in all_triplets() if belongs(far[a][n] - far[a][p])]
    assert 0 < len(expected) < len(all_triplets())
    assert (
        tuples(
            *mine(
                "TripletMargin",
                vectors(2),
                LABELS,
                margin=0.3,
                type_of_triplets=kind,
                distance=distance,
            )
        )
        == expected
    )


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_multi_similarity_takes_pairs_beyond_the_extreme_of_the_other_kind_less_a_tolerance(
    seed, distance
):
    far = closeness(vectors(seed), distance)
    positives, negatives = [], []
    for a in range(16):
        nearest_negative = min(far[a][n] for n in negatives_of(a))
        farthest_positive = max(far[a][p] for p in positives_of(a))
        positives += [(a, p) for p in positives_of(a) if far[a][p] > nearest_negative - 0.1]
        negatives += [(a, n) for n in negatives_of(a) if far[a][n] < farthest_positive + 0.1]
    mined = mine("MultiSimilarity", vectors(seed), LABELS, epsilon=0.1, distance=distance)
    assert len(negatives) < 16 * 11
    assert tuples(*mined[:2]) == positives
    assert tuples(*mined[2:]) == negatives


@pytest.mark.parametrize(
    ("distance", "positive", "negative"), [("cosine", 0.6, 0.9), ("euclidean", 1.1, 1.3)]
)
def test_pair_margin_takes_far_positives_and_near_negatives(distance, positive, negative):
    far = closeness(vectors(2), distance)
    positives = [(a, p) for a in range(16) for p in positives_of(a) if far[a][p] > positive]
    negatives = [(a, n) for a in range(16) for n in negatives_of(a) if far[a][n] < negative]
    mined = mine(
        "PairMargin",
        vectors(2),
        LABELS,
        pos_margin=positive,
        neg_margin=negative,
        distance=distance,
    )
    assert positives and negatives
    assert tuples(*mined[:2]) == positives
    assert tuples(*mined[2:]) == negatives


def test_angular_takes_triplets_whose_angle_at_the_negative_exceeds_the_bound():
    x = vectors(2).tolist()

    def degrees(a: int, p: int, n: int) -> float:
        middle = [(one + other) / 2 for one, other in zip(x[a], x[p], strict=True)]
        return math.degrees(math.atan(math.dist(x[a], x[p]) / (2 * math.dist(x[n], middle))))

    expected = [triplet for triplet in all_triplets() if degrees(*triplet) > 30]
    assert 0 < len(expected) < len(all_triplets())
    assert tuples(*mine("Angular", vectors(2), LABELS, angle=30.0)) == expected


def test_hdc_keeps_the_hardest_part_of_each_kind_of_pair():
    far = closeness(vectors(2), "euclidean")
    positives = sorted(
        ((far[a][p], a, p) for a in range(16) for p in positives_of(a)), reverse=True
    )
    negatives = sorted((far[a][n], a, n) for a in range(16) for n in negatives_of(a))
    mined = mine("HDC", vectors(2), LABELS, filter_percentage=0.5)
    # A pair is there twice, once from each side, so each kind is cut after an even number.
    assert (len(positives), len(negatives)) == (52, 188)
    assert tuples(*mined[:2]) == sorted((a, p) for _, a, p in positives[:26])
    assert tuples(*mined[2:]) == sorted((a, n) for _, a, n in negatives[:94])


def test_uniform_histogram_takes_as_many_pairs_from_every_bin_that_is_not_empty():
    far = closeness(vectors(2), "euclidean")
    torch.manual_seed(0)
    mined = mine("UniformHistogram", vectors(2), LABELS, num_bins=5, pos_per_bin=7, neg_per_bin=4)
    for (anchors, others), candidates, per_bin in (
        (mined[:2], [far[a][p] for a in range(16) for p in positives_of(a)], 7),
        (mined[2:], [far[a][n] for a in range(16) for n in negatives_of(a)], 4),
    ):
        width = (max(candidates) - min(candidates)) / 5
        bins = [
            min(int((far[a][o] - min(candidates)) / width + 1e-4), 4)
            for a, o in tuples(anchors, others)
        ]
        assert [bins.count(index) for index in range(5)] == [per_bin] * 5


# Distance weighted sampling, which is our own.


def test_distance_weighted_draws_one_negative_for_each_positive_pair_whose_anchor_has_a_near_one():
    far = closeness(vectors(3), "euclidean")
    anchors, positives, negatives = mine(
        "DistanceWeighted", vectors(3), LABELS, nonzero_loss_cutoff=1.0
    )

    def nearest_negative(a: int) -> float:
        return min(far[a][n] for n in negatives_of(a))

    with_near = [a for a in range(16) if nearest_negative(a) < 1.0]
    assert 0 < len(with_near) < 16
    assert tuples(anchors, positives) == [(a, p) for a in with_near for p in positives_of(a)]
    assert all(far[a][n] < 1.0 for a, n in tuples(anchors, negatives))


def test_distance_weighted_draws_negatives_by_the_inverse_density_of_their_distance_on_the_sphere():
    dim, copies = 6, 60
    distances = [0.2, 0.5, 0.7, 0.9, 1.1, 1.3, 1.39, 1.45, 1.9]
    embeddings = torch.zeros(copies + len(distances), dim)
    embeddings[:copies, 0] = 1
    for row, distance in enumerate(distances, start=copies):
        angle = 2 * math.asin(distance / 2)
        embeddings[row, 0], embeddings[row, 1] = math.cos(angle), math.sin(angle)
    labels = torch.tensor([0] * copies + list(range(1, len(distances) + 1)))
    torch.manual_seed(0)
    anchors, _, negatives = mine("DistanceWeighted", embeddings, labels)
    assert len(anchors) == copies * (copies - 1)

    def weight(distance: float) -> float:
        near = max(distance, 0.5)
        return (
            1 / (near ** (dim - 2) * (1 - near**2 / 4) ** ((dim - 3) / 2))
            if distance < 1.4
            else 0.0
        )

    total = sum(map(weight, distances))
    for row, distance in enumerate(distances, start=copies):
        share = weight(distance) / total
        error = math.sqrt(share * (1 - share) / len(anchors))
        assert abs((negatives == row).double().mean().item() - share) <= 4 * error


@pytest.mark.parametrize("dim", [2, 3, 128, 512, 2048])
def test_distance_weighted_loses_no_anchor_in_any_dimension(dim):
    embeddings, labels = vectors(0, size=128, dim=dim), torch.arange(128) // 4
    embeddings[0] = functional.normalize(embeddings[4] + 0.3 * embeddings[0], dim=0)
    eligible = ((torch.cdist(embeddings, embeddings) < 1.4) & (labels[:, None] != labels)).any(
        dim=1
    )
    anchors, _, _ = mine("DistanceWeighted", embeddings, labels)
    assert anchors.unique().tolist() == torch.where(eligible)[0].tolist()


def test_distance_weighted_draws_anew_each_time():
    torch.manual_seed(0)
    first, second = (mine("DistanceWeighted", vectors(0), LABELS)[2] for _ in range(2))
    assert not torch.equal(first, second)
