"""Metrix against a slow loop over its definition (Venkataramanan et al. 2022), with the lambdas
that it drew."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dml_bench.config import Component
from dml_bench.losses import metrix
from dml_bench.losses.metrix import FORMS, Metrix
from dml_bench.registry import losses


def test_the_losses_that_say_they_interpolate_are_those_with_a_form():
    assert {entry.name for entry in losses if entry.facts["interpolates"]} == FORMS.keys()


def mixtures(
    anchors: Tensor, positives: list[list[bool]], embeddings: Tensor
) -> list[tuple[int, float, float]]:
    """(anchor, similarity, lambda) of every positive with every negative, in the order in which
    lambdas are drawn."""
    size = len(embeddings)

    def is_negative(a: int, n: int) -> bool:
        is_anchor = len(anchors) == size and a == n
        return not positives[a][n] and not is_anchor

    triples = [
        (a, p, n)
        for a, p, n in product(range(len(anchors)), range(size), range(size))
        if positives[a][p] and is_negative(a, n)
    ]
    kept = torch.distributions.Beta(2.0, 2.0).sample((len(triples),)).tolist()
    pairs = []
    for (a, p, n), share in zip(triples, kept, strict=True):
        mixed = share * embeddings[p] + (1 - share) * embeddings[n]
        pairs.append((a, float(anchors[a] @ mixed / mixed.norm()), share))
    return pairs


def by_definition(name: str, pairs: list[tuple[int, float, float]]) -> float:
    if name == "Contrastive":  # margins 0 and 1, Euclidean
        far = [(math.sqrt(2 - 2 * s), share) for _, s, share in pairs]
        near = [share * d for d, share in far if d > 0]
        apart = [(1 - share) * (1 - d) for d, share in far if d < 1]
        return sum(near) / len(near) + sum(apart) / len(apart)
    anchors = sorted({a for a, _, _ in pairs})
    total = 0.0
    for anchor in anchors:
        mine = [(s, share) for a, s, share in pairs if a == anchor]
        if name == "MultiSimilarity":
            total += math.log(1 + sum(share * math.exp(-2 * (s - 0.5)) for s, share in mine)) / 2
            total += (
                math.log(1 + sum((1 - share) * math.exp(50 * (s - 0.5)) for s, share in mine)) / 50
            )
        else:
            total += math.log(1 + sum(share * math.exp(-32 * (s - 0.1)) for s, share in mine))
            total += math.log(1 + sum((1 - share) * math.exp(32 * (s + 0.1)) for s, share in mine))
    return total / len(anchors)


@pytest.mark.parametrize("name", FORMS)
def test_the_term_is_what_its_definition_gives(name):
    torch.manual_seed(3)
    embeddings, labels = (
        functional.normalize(torch.randn(7, 5), dim=1).requires_grad_(),
        torch.tensor([0, 0, 1, 1, 2, 0, 2]),
    )
    entry = losses[name]
    loss = entry.build(3, 5, **entry.resolve({}, "loss"))
    term = Metrix(Component(name, entry.resolve({}, "loss")), alpha=2.0, weight=0.4)
    torch.manual_seed(11)
    value = term(embeddings, labels, loss)
    value.backward()
    assert embeddings.grad is not None and embeddings.grad.abs().sum() > 0
    torch.manual_seed(11)
    if name == "ProxyAnchor":
        anchors = functional.normalize(loss.loss.proxies.detach(), dim=1)
        positives = (torch.arange(3)[:, None] == labels).tolist()
    else:
        anchors = embeddings.detach()
        positives = ((labels[:, None] == labels) & ~torch.eye(7, dtype=torch.bool)).tolist()
    expected = 0.4 * by_definition(name, mixtures(anchors, positives, embeddings.detach()))
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_one_class_has_no_mixtures_and_gives_zero():
    embeddings = functional.normalize(torch.randn(4, 5), dim=1).requires_grad_()
    term = Metrix(
        Component("MultiSimilarity", {"alpha": 2.0, "beta": 50.0, "base": 0.5}),
        alpha=2.0,
        weight=0.4,
    )
    value = term(embeddings, torch.zeros(4, dtype=torch.long), torch.nn.Identity())
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 1, 1, 2, 0, 2], [0, 1, 2, 0, 1, 2, 2], [1] * 7],
    ids=["all classes", "in turn", "no mixtures"],
)
@pytest.mark.parametrize("name", FORMS)
def test_the_term_and_its_gradient_are_the_same_without_a_list_of_mixtures(
    name, labels, monkeypatch
):
    torch.manual_seed(3)
    embeddings, of_images = functional.normalize(torch.randn(7, 5), dim=1), torch.tensor(labels)
    entry = losses[name]
    loss = entry.build(3, 5, **entry.resolve({}, "loss"))
    term = Metrix(Component(name, entry.resolve({}, "loss")), alpha=2.0, weight=0.4)
    # The two ways draw in different orders.
    monkeypatch.setattr(metrix, "lambdas", lambda alpha, like: torch.full(like.shape, 0.3))
    results = []
    for way in ("list", "all"):
        if way == "all":
            all_triples = metrix.all_of_proxies(of_images)
            if name != "ProxyAnchor":
                same = of_images[:, None] == of_images
                all_triples = metrix.all_of_pairs(same & ~torch.eye(7, dtype=torch.bool), same)
            monkeypatch.setattr(metrix, "listed", lambda *_, triples=all_triples: triples)
        own = embeddings.clone().requires_grad_()
        value = term(own, of_images, loss)
        results.append([value.detach(), *torch.autograd.grad(value, own)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


# Against the authors' code (billpsomas/Metrix_ICLR22, train.py and mixup/utils.py), written out


CONTRASTIVE = Component(
    "Contrastive", {"pos_margin": 0.0, "neg_margin": 0.5, "distance": "euclidean"}
)
LABELS = torch.tensor([0, 0, 1, 1, 2, 3, 4])


def of_authors(anchor: Tensor, mixed: Tensor, kept: float, anchors: Tensor) -> float:
    """Their `loss_posneg_mixup` through pytorch-metric-learning's AvgNonZeroReducer, with the
    distances of (mixtures, dim) anchors and mixtures."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import AvgNonZeroReducer

    far = LpDistance()(anchor, mixed).diagonal()
    parts = {"pos": kept * far.relu(), "neg": (1 - kept) * (0.5 - far).relu()}
    total = 0.0
    for name, losses_of_pairs in parts.items():
        record = {
            "losses": losses_of_pairs,
            "indices": (anchors, anchors),
            "reduction_type": f"{name}_pair",
        }
        total += AvgNonZeroReducer()({name: record}, anchor, anchors).item()
    return total


def test_positive_negative_mixtures_of_embeddings_are_those_of_the_authors():
    torch.manual_seed(5)
    embeddings = functional.normalize(torch.randn(7, 4), dim=1)
    term = Metrix(CONTRASTIVE, alpha=2.0, weight=0.4, share="batch")
    torch.manual_seed(9)
    value = term(embeddings, LABELS, torch.nn.Identity()).item()
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    triples = [(a, p, n) for a, p in pairs for n in range(7) if LABELS[n] != LABELS[a]]
    anchor, positive, negative = torch.tensor(triples).T
    torch.manual_seed(9)
    kept = torch.distributions.Beta(2.0, 2.0).sample((len(triples),))[0].item()
    mixed = kept * embeddings[positive] + (1 - kept) * embeddings[negative]
    expected = 0.4 * of_authors(embeddings[anchor], mixed, kept, anchor)
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hardest", [0, 1, 2])  # of images theirs takes 1, of maps all: 0
@pytest.mark.parametrize("pairs", ["positive_negative", "anchor_negative"])
def test_mixtures_of_images_are_embedded_and_taken_with_the_nearest_negatives(pairs, hardest):
    torch.manual_seed(5)
    images, network = torch.randn(7, 6), torch.nn.Linear(6, 4)

    def embed(values: Tensor) -> Tensor:
        return functional.normalize(network(values), dim=1)

    embeddings = embed(images)
    term = Metrix(
        CONTRASTIVE,
        alpha=2.0,
        weight=0.4,
        level="input",
        pairs=pairs,
        share="batch",
        hardest=hardest,
    )
    torch.manual_seed(9)
    value = term(embeddings, LABELS, torch.nn.Identity(), lambda level, mixed: embed(mixed(images)))
    similarity, triples = embeddings @ embeddings.T, []
    anchors_with = [(0, 1), (1, 0), (2, 3), (3, 2)]
    if pairs == "anchor_negative":
        anchors_with = [(a, a) for a in range(7)]
    for a, p in anchors_with:
        negatives = [n for n in range(7) if LABELS[n] != LABELS[a]]
        nearest = sorted(negatives, key=lambda n: -similarity[a, n].item())[: hardest or None]
        triples += [(a, p, n) for n in nearest]
    anchor, first, negative = torch.tensor(triples).T
    torch.manual_seed(9)
    kept = torch.distributions.Beta(2.0, 2.0).sample((len(triples),))[0].item()
    mixed = embed(kept * images[first] + (1 - kept) * images[negative])
    expected = 0.4 * of_authors(embeddings[anchor], mixed, kept, anchor)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert network.weight.grad is not None and network.weight.grad.abs().sum() > 0


def test_an_anchor_mixed_with_a_negative_may_be_a_proxy():
    torch.manual_seed(3)
    embeddings, labels = functional.normalize(torch.randn(4, 5), dim=1), torch.tensor([0, 0, 1, 2])
    entry = losses["ProxyAnchor"]
    loss = entry.build(3, 5, **entry.resolve({}, "loss"))
    options = {"alpha": 2.0, "weight": 1.0, "pairs": "anchor_negative", "share": "batch"}
    term = Metrix(Component("ProxyAnchor", entry.resolve({}, "loss")), **options)
    torch.manual_seed(9)
    value = term(embeddings, labels, loss).item()
    proxies = functional.normalize(loss.loss.proxies.detach(), dim=1)
    torch.manual_seed(9)
    kept = torch.distributions.Beta(2.0, 2.0).sample((8,))[0].item()
    pairs = []
    for a, n in product(range(3), range(4)):
        if labels[n] != a:
            mixed = functional.normalize(kept * proxies[a] + (1 - kept) * embeddings[n], dim=0)
            pairs.append((a, float(proxies[a] @ mixed), kept))
    assert len(pairs) == 8
    assert value == pytest.approx(by_definition("ProxyAnchor", pairs), rel=1e-4)


def test_either_kind_of_pair_is_drawn_for_half_of_the_batches():
    term = Metrix(CONTRASTIVE, alpha=2.0, weight=0.4, pairs="either")
    torch.manual_seed(0)
    assert 35 < sum(term._mixes_anchors() for _ in range(100)) < 65
    assert Metrix(CONTRASTIVE, alpha=2.0, weight=0.4)._mixes_anchors() is False
