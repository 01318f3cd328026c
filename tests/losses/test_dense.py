"""What a GPU computes from matrices of a batch is what a CPU computes from lists of pairs and
triplets: miners, losses, gradients and weights of images."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.losses.dense import dense_loss, is_dense
from dml_bench.losses.dense_miners import mine
from dml_bench.losses.objective import Objective
from dml_bench.losses.reimplemented import CentroidTriplet
from dml_bench.losses.sample_weights import weigh, weighing
from dml_bench.registry import losses, miners

TAKE_A_MINER = [entry.name for entry in losses if entry.facts["takes_miner"]]
DENSE = [*TAKE_A_MINER, "Angular", "FastAP", "NPairs", "PNP", "RankedList"]
WITH_MINERS = [(name, "none") for name in DENSE] + [
    (name, miner)
    for name in TAKE_A_MINER
    for miner in ("EPSHN", "TripletMargin", "MultiSimilarity", "PairMargin")
]
DRAW = ("DistanceWeighted", "UniformHistogram")
"""Miners that draw at random, as many tuples by either way but not the same."""
BATCHES = {
    "every class": [2, 0, 1, 3, 3, 0, 2, 1, 0, 0, 1, 2, 3, 1, 0, 1],
    "some images alone": [0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 7, 8, 9, 7, 10, 11],
    "no positives": list(range(16)),
    "no negatives": [3] * 16,
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "EPSHN": [{}, {"distance": "euclidean"}],
    "BatchHard": [{}, {"distance": "cosine"}],
    "BatchEasyHard": [
        {"pos_strategy": of_positives, "neg_strategy": of_negatives, "distance": distance}
        for of_positives in ("easy", "semihard", "hard", "all")
        for of_negatives in ("easy", "semihard", "hard", "all")
        for distance in ("cosine", "euclidean")
        if "semihard" not in (of_positives, of_negatives)
        or (of_positives != of_negatives and "all" not in (of_positives, of_negatives))
    ]
    + [{"allowed_pos_range": [0.3, 1.2], "allowed_neg_range": [0.5, 1.4]}],
    "TripletMargin": [
        {"type_of_triplets": kind, "distance": distance}
        for kind in ("all", "hard", "semihard", "easy")
        for distance in ("cosine", "euclidean")
    ],
    "MultiSimilarity": [{}, {"distance": "euclidean"}],
    "PairMargin": [{}, {"distance": "cosine"}],
    "HDC": [{"filter_percentage": 0.3}, {"filter_percentage": 0.0}, {"distance": "cosine"}],
    "Angular": [{}, {"angle": 40.0}],
}


def vectors(seed: int, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(16, dim, generator=generator), dim=1)


def counted(mined: tuple[Tensor, ...]) -> list[Tensor]:
    """What lists hold, as counts: of positive and negative pairs, and of triplets."""
    anchors, positives, *rest = mined
    against, negatives = rest if len(rest) == 2 else (anchors, rest[0])
    pairs = [torch.zeros(16, 16), torch.zeros(16, 16)]
    pairs[0].index_put_((anchors, positives), torch.ones(len(anchors)), accumulate=True)
    pairs[1].index_put_((against, negatives), torch.ones(len(against)), accumulate=True)
    triplets = torch.zeros(16, 16, 16)
    if len(rest) == 1:
        triplets[anchors, positives, negatives] = 1
        pairs.append(triplets)
    return pairs


def sorted_distances(embeddings: Tensor, pairs: Tensor) -> Tensor:
    distances = torch.cdist(embeddings, embeddings)
    return ((distances + distances.T) / 2)[pairs > 0].sort().values


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", [name for name in miners.names() if name not in ("none", *DRAW)])
def test_a_miner_finds_the_same_without_lists(name: str, labels: list[int]):
    for options in OPTIONS[name]:
        miner = miners[name].build(**miners[name].resolve(options, "miner"))
        for seed in range(2):
            embeddings, of_images = vectors(seed), torch.tensor(labels)
            expected = counted(miner(embeddings, of_images))
            counts = mine(miner, embeddings, of_images)
            if counts.triplets is None:
                expected = expected[:2]
            for one, other in zip(expected, counts, strict=False):
                if name == "HDC":  # of (i, j) and (j, i), as far as each other, either may be cut
                    distances = [sorted_distances(embeddings, pairs) for pairs in (one, other)]
                    assert torch.equal(*distances), options
                else:
                    assert torch.equal(one, other), options


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", DRAW)
def test_a_miner_that_draws_draws_as_many_of_the_same_kinds_without_lists(name, labels):
    miner, of_images = miners[name].build(), torch.tensor(labels)
    torch.manual_seed(0)
    listed, counts = miner(vectors(0), of_images), mine(miner, vectors(0), of_images)
    same = of_images[:, None] == of_images
    assert (counts.positives * ~same).sum() == (counts.negatives * same).sum() == 0
    assert counts.positives.diagonal().sum() == 0
    for one, other in zip(counted(listed)[:2], counts, strict=False):
        assert one.sum() == other.sum()
        if name == "DistanceWeighted":
            assert torch.equal(one.sum(dim=1), other.sum(dim=1))


def test_negatives_are_drawn_without_lists_by_the_weights_of_the_miner():
    torch.manual_seed(0)
    miner = miners["DistanceWeighted"].build(cutoff=0.5, nonzero_loss_cutoff=1.4)
    embeddings, labels = vectors(3), torch.tensor(BATCHES["every class"])
    distances, eligible = miner.eligible(embeddings, labels[:, None] != labels)
    weights = miner.log_weights(distances, 6).masked_fill(~eligible, -torch.inf)
    times = 400
    drawn = sum(mine(miner, embeddings, labels).negatives for _ in range(times))
    anchors = eligible.any(dim=1)
    shares = (drawn / drawn.sum(dim=1, keepdim=True))[anchors]
    assert torch.allclose(shares, weights.softmax(dim=1)[anchors], atol=0.08)


def test_pairs_are_drawn_without_lists_from_all_bins_alike_and_in_a_bin_alike():
    torch.manual_seed(0)
    miner = miners["UniformHistogram"].build(num_bins=4, pos_per_bin=5000, neg_per_bin=7)
    embeddings, labels = vectors(3), torch.tensor(BATCHES["every class"])
    same = (labels[:, None] == labels).fill_diagonal_(False)
    distances = torch.cdist(embeddings, embeddings)
    drawn = mine(miner, embeddings, labels).positives
    edges = torch.linspace(distances[same].min(), distances[same].max(), 5)
    bins = torch.bucketize(distances, edges[1:-1], right=True)
    for place in range(4):
        of_bin = drawn[same & (bins == place)]
        assert of_bin.sum() == 5000
        assert torch.allclose(of_bin, of_bin.mean().expand_as(of_bin), rtol=0.3)


LOSS_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "PNP": [{}, {"variant": "Ds"}, {"variant": "Iu"}],
    "RankedList": [{}, {"pos_temperature": 2.0, "imbalance": 0.3}],
    "NTXent": [{}, {"distance": "euclidean", "temperature": 0.5}, {"temperature": 0.03}],
    "Contrastive": [{}, {"distance": "cosine", "pos_margin": 0.1, "neg_margin": 0.7}],
    "TripletMargin": [{}, {"swap": True}, {"smooth_loss": True, "distance": "cosine"}],
    "Margin": [{}, {"nu": 0.1}, {"nu": 0.1, "per_class": False}],
}


def value_and_gradients(
    objective: Objective, embeddings: Tensor, labels: Tensor, weights: Tensor | None, way: str
) -> list[Tensor]:
    own = embeddings.clone().requires_grad_()
    if way == "lists":
        value = objective(own, labels, weights)
    else:
        with weighing(objective.loss, weights):
            value, _ = dense_loss(
                objective.loss, objective.miner, objective._as_wanted(own), labels
            )
    leaves = [own, *objective.parameters()]
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    filled = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]
    return [value.detach(), *filled]


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("name", "miner"), WITH_MINERS)
def test_a_loss_and_its_gradients_are_the_same_without_lists(name, miner, labels):
    of_images = torch.tensor(labels)
    for options in LOSS_OPTIONS.get(name, [{}]):
        torch.manual_seed(0)
        loss = weigh(losses[name].build(16, 6, **losses[name].resolve(options, "loss")))
        objective = Objective(
            loss, miners[miner].build(), unit_vectors=losses[name].facts["unit_vectors"]
        )
        assert objective.without_lists
        one_number = losses[name].facts["one_number"]
        for weights in (None,) if one_number else (None, torch.linspace(0, 2, 16)):
            arguments = (objective, vectors(1), of_images, weights)
            by_lists = value_and_gradients(*arguments, "lists")
            by_matrices = value_and_gradients(*arguments, "matrices")
            for one, other in zip(by_lists, by_matrices, strict=True):
                furthest = (one - other).abs().max()
                assert furthest <= 2e-6 * one.abs().max().clamp_min(1), (options, furthest)


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_centroids_are_the_same_with_a_column_for_each_image(monkeypatch, labels):
    results, of_images = [], torch.tensor(labels)
    for columns in (None, "for each image"):
        if columns:
            same = of_images[:, None] == of_images
            of_first = same & ~same.tril(-1).any(dim=1)
            monkeypatch.setattr("dml_bench.losses.reimplemented.members", lambda _, m=of_first: m)
        own = vectors(2).requires_grad_()
        value = CentroidTriplet(0.5)(own, of_images)
        results.append([value.detach(), *torch.autograd.grad(value, own)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize(("name", "miner"), WITH_MINERS)
def test_a_gpu_computes_what_a_cpu_does_and_is_not_waited_for(name, miner):
    torch.manual_seed(0)
    entry = losses[name]
    built = weigh(entry.build(16, 6, **entry.resolve({}, "loss")))
    objective = Objective(built, miners[miner].build(), entry.facts["unit_vectors"])
    labels, results = torch.tensor(BATCHES["every class"]), []
    for device in ("cpu", "cuda"):
        objective.to(device)
        own, of_images = vectors(1).to(device).requires_grad_(), labels.to(device)
        objective(own, of_images).backward()  # what is made once may be waited for
        own.grad = None
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            value = objective(own, of_images)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results.append([value.detach().cpu(), own.grad.cpu()])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-4 * one.abs().max().clamp_min(1)


def test_every_miner_and_every_loss_that_takes_one_can_do_without_lists():
    loss = losses["NTXent"].build(4, 5)
    built = {name: miners[name].build() for name in miners.names()}
    assert {name for name, miner in built.items() if not is_dense(loss, miner)} == set()
    named = {name: losses[name].build(4, 5) for name in TAKE_A_MINER}
    assert {name for name, loss in named.items() if not is_dense(loss, None)} == set()


def test_batches_without_tuples_are_counted_on_the_device(monkeypatch):
    objective = Objective(losses["NTXent"].build(4, 5), miners["EPSHN"].build(), unit_vectors=True)
    meta = torch.randn(4, 5, device="meta")  # any device but the CPU
    devices = []

    def counted(loss: nn.Module, miner: nn.Module, embeddings: Tensor, labels: Tensor):
        devices.append(embeddings.device.type)
        return torch.zeros(()), torch.tensor(True)

    monkeypatch.setattr("dml_bench.losses.objective.dense_loss", counted)
    objective._mined_loss(meta, torch.zeros(4, dtype=torch.long, device="meta"))
    objective._mined_loss(meta, torch.zeros(4, dtype=torch.long, device="meta"))
    assert devices == ["meta", "meta"] and objective.batches_without_tuples == 2
    objective.batches_without_tuples = 0
    assert objective.batches_without_tuples == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "name", ["ArcFace", "SubCenterArcFace", "CosFace", "ProxyAnchor", "SoftTriple"]
)
def test_a_loss_with_class_vectors_is_that_of_the_library_bit_for_bit(name, smoothing):
    torch.manual_seed(0)
    options = {"label_smoothing": smoothing} if "label_smoothing" in losses[name].options else {}
    if smoothing and not options:
        return
    loss = losses[name].build(12, 6, **losses[name].resolve(options, "loss"))
    results = []
    for way in (loss, loss.loss):
        own = vectors(4).requires_grad_()
        value = way(own, torch.tensor(BATCHES["some images alone"]))
        value.backward()
        results.append([value.detach(), own.grad, *(p.grad.clone() for p in loss.parameters())])
        loss.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
