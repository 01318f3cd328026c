"""Weights of images in a loss: what they mean for softmax, pair and triplet losses, and which
losses can't have them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.losses.objective import Objective, Targets
from dml_bench.losses.reimplemented import SoftmaxClassifier
from dml_bench.losses.sample_weights import weigh, weighing
from dml_bench.registry import Entry, losses, miners

BY_IMAGE = [entry for entry in losses if not entry.facts["one_number"]]


def batch(entry: Entry) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    embeddings = torch.randn(12, 8)
    embeddings = (
        functional.normalize(embeddings, dim=1) if entry.facts["unit_vectors"] else embeddings
    )
    return weigh(entry.build(4, 8)), embeddings, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])


def value(loss: nn.Module, embeddings: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    with weighing(loss, weights):
        return loss(embeddings, labels, None).detach()


@pytest.mark.parametrize("entry", BY_IMAGE, ids=lambda entry: entry.name)
def test_weights_of_one_change_nothing_and_a_common_weight_is_a_factor(entry: Entry):
    loss, embeddings, labels = batch(entry)
    plain = value(loss, embeddings, labels, None)
    assert value(loss, embeddings, labels, torch.ones(12)) == pytest.approx(plain.item(), rel=1e-6)
    assert value(loss, embeddings, labels, torch.full((12,), 0.25)) == pytest.approx(
        0.25 * plain.item(), rel=1e-5
    )
    assert torch.equal(value(loss, embeddings, labels, None), plain)  # nothing stays behind


@pytest.mark.parametrize("entry", BY_IMAGE, ids=lambda entry: entry.name)
def test_the_weight_of_one_image_counts_without_the_others(entry: Entry):
    """Where every part of the loss is about one image, the images' parts add up to the whole."""
    loss, embeddings, labels = batch(entry)
    parts = [
        value(loss, embeddings, labels, functional.one_hot(torch.tensor(i), 12).float())
        for i in range(12)
    ]
    assert sum(parts).item() == pytest.approx(
        value(loss, embeddings, labels, None).item(), rel=1e-4
    )
    assert len({round(part.item(), 6) for part in parts}) > 1


@pytest.mark.parametrize("miner", ["none", "BatchHard"])
@pytest.mark.parametrize("entry", list(losses), ids=lambda entry: entry.name)
def test_a_weight_of_0_is_the_limit_of_small_weights(entry: Entry, miner: str):
    if miner != "none" and not entry.facts["takes_miner"]:
        return
    loss, embeddings, labels = batch(entry)
    objective = Objective(loss, miners[miner].build(), entry.facts["unit_vectors"])
    few = torch.tensor([0.3, 0.3] + [0.0] * 10)
    if entry.facts["one_number"]:
        few = torch.tensor(0.0)
    almost = objective(embeddings, labels, few.clamp_min(1e-10)).item()
    assert objective(embeddings, labels, few).item() == pytest.approx(almost, rel=1e-3, abs=1e-4)


def test_six_of_64_images_that_are_weighed_don_t_take_the_whole_loss_over():
    torch.manual_seed(0)
    loss, labels = weigh(losses["SupCon"].build(4, 8)), torch.arange(64) % 4
    embeddings = functional.normalize(torch.randn(64, 8), dim=1)
    weights = torch.tensor([0.3] * 6 + [0.0] * 58)
    mean_of_all = value(loss, embeddings, labels, torch.full((64,), 0.3)).item()
    assert value(loss, embeddings, labels, weights).item() == pytest.approx(
        mean_of_all * 6 / 64, rel=0.2
    )


def test_weights_of_a_softmax_classifier_weigh_each_image_s_cross_entropy():
    classifier = SoftmaxClassifier(2, 2, 0.0)
    with torch.no_grad():
        classifier.classifier.weight.copy_(torch.eye(2))
        classifier.classifier.bias.zero_()
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    with weighing(classifier, torch.tensor([0.25, 0.75])):
        actual = classifier(embeddings, torch.tensor([0, 1]))
    # -log(e^2 / (e^2 + 1)) = .126928, -log(1/2) = .693147; their weighted sum over two images
    assert actual.item() == pytest.approx((0.25 * 0.126928 + 0.75 * 0.693147) / 2, abs=1e-6)


def test_pairs_and_triplets_are_weighed_by_their_anchor():
    """NT-Xent has two positive pairs here, (0, 1) and (1, 0); with weights 1 and 0 only the first
    is left of the mean."""
    embeddings = functional.normalize(torch.tensor([[1.0, 0.2], [1.0, -0.3], [0.0, 1.0]]), dim=1)
    labels = torch.tensor([0, 0, 1])
    loss = weigh(losses["NTXent"].build(2, 2, temperature=0.5))
    similarity = embeddings @ embeddings.T / 0.5
    first = -(similarity[0, 1] - torch.logsumexp(similarity[0, [1, 2]], 0))
    assert value(loss, embeddings, labels, torch.tensor([1.0, 0.0, 9.0])).item() == pytest.approx(
        first.item() / 2, rel=1e-5
    )


def test_two_readings_are_the_weighted_sum_of_their_losses_each_mined_by_itself():
    torch.manual_seed(1)
    embeddings, first, second = torch.randn(10, 6), torch.arange(10) % 3, torch.arange(10) % 2
    objective = Objective(
        weigh(losses["NTXent"].build(3, 6)), miners["EPSHN"].build(), unit_vectors=True
    )
    share = torch.full((10,), 0.7)
    actual = objective.weighted_loss(
        embeddings, (Targets(first, share), Targets(second, 1 - share))
    )
    assert actual.item() == pytest.approx(
        0.7 * objective(embeddings, first).item() + 0.3 * objective(embeddings, second).item(),
        rel=1e-5,
    )


def test_a_loss_of_one_number_takes_one_weight_for_the_whole_batch():
    torch.manual_seed(1)
    embeddings, labels = torch.randn(6, 8), torch.arange(6) % 3
    objective = Objective(weigh(losses["ProxyAnchor"].build(3, 8)), None, unit_vectors=True)
    assert objective(embeddings, labels, torch.tensor(0.3)).item() == pytest.approx(
        0.3 * objective(embeddings, labels).item(), rel=1e-6
    )


@pytest.mark.parametrize("name", ["Contrastive", "TripletMargin"])
def test_a_pair_or_triplet_may_count_by_the_product_of_all_its_images(name: str):
    """Against a loop over the definition: the mean over what is not zero, each part weighed."""
    _, embeddings, labels = batch(losses[name])
    weights = torch.linspace(0.1, 1.0, 12)
    entry = losses[name]
    loss = weigh(entry.build(4, 8, **entry.resolve({}, "loss")), all_images=True)
    far = torch.cdist(embeddings, embeddings)
    parts: dict[str, list[tuple[float, float]]] = {"near": [], "apart": []}
    for a in range(12):
        for b in range(12):
            if name == "Contrastive" and a != b:
                is_positive = bool(labels[a] == labels[b])
                value_of_pair = far[a, b] if is_positive else (1 - far[a, b]).relu()
                share = (weights[a] * weights[b]).item()
                parts["near" if is_positive else "apart"].append((value_of_pair.item(), share))
            elif a != b and labels[a] == labels[b]:
                for n in range(12):
                    if labels[n] != labels[a]:
                        excess = (far[a, b] - far[a, n] + 0.2).relu().item()
                        share = (weights[a] * weights[b] * weights[n]).item()
                        parts["near"].append((excess, share))
    expected = 0.0
    for of_kind in parts.values():
        counted = [(part, share) for part, share in of_kind if part > 0]
        expected += sum(part * share for part, share in counted) / max(len(counted), 1)
    assert value(loss, embeddings, labels, weights).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("entry", [entry for entry in losses if entry.facts["takes_miner"]])
def test_a_loss_adds_tuples_exactly_where_the_other_image_of_a_pair_changes_it(entry: Entry):
    _, embeddings, labels = batch(entry)
    weights = torch.linspace(0.1, 1.0, 12)
    values = set()
    for all_images in (False, True):
        torch.manual_seed(0)
        loss = weigh(entry.build(4, 8, **entry.resolve({}, "loss")), all_images=all_images)
        values.add(value(loss, embeddings, labels, weights).item())
    assert (len(values) == 2) == entry.facts["adds_tuples"]
