"""Objectives: EPSHN over NT-Xent against a slow loop from the definitions, in float32, batches
without triplets counted."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import tiny
from torch import nn
from torch.nn import functional

import dml_bench as db
from dml_bench.config import experiments
from dml_bench.losses.objective import Objective, build_objective
from dml_bench.registry import losses, miners

pytestmark = pytest.mark.usefixtures("plugins_removed")


def batch(
    seed: int, size: int = 14, dim: int = 5, classes: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=generator), torch.randint(
        classes, (size,), generator=generator
    )


def epshn(distance: str = "cosine", temperature: float = 0.1) -> Objective:
    loss = losses["NTXent"].build(4, 5, temperature=temperature, distance=distance)
    return Objective(loss, miners["EPSHN"].build(distance=distance), unit_vectors=True)


def closeness(first: list[float], second: list[float], distance: str) -> float:
    """Higher is closer: the cosine, or the Euclidean distance of the unit vectors turned round."""

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(x * x for x in vector))
        return [x / length for x in vector]

    one, other = unit(first), unit(second)
    if distance == "cosine":
        return sum(x * y for x, y in zip(one, other, strict=True))
    return -math.sqrt(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)))


def triplets_by_definition(
    embeddings: list[list[float]], labels: list[int], distance: str
) -> list[tuple[int, int, int]]:
    """Per anchor: its most similar positive, and the most similar negative that is less similar
    than that positive."""
    triplets = []
    for anchor in range(len(labels)):
        similarity = [closeness(embeddings[anchor], other, distance) for other in embeddings]
        positives = [i for i in range(len(labels)) if labels[i] == labels[anchor] and i != anchor]
        if not positives:
            continue
        positive = max(positives, key=lambda i: similarity[i])
        negatives = [
            i
            for i in range(len(labels))
            if labels[i] != labels[anchor] and similarity[i] < similarity[positive]
        ]
        if negatives:
            triplets.append((anchor, positive, max(negatives, key=lambda i: similarity[i])))
    return triplets


def nt_xent_by_definition(
    embeddings: list[list[float]],
    triplets: list[tuple[int, int, int]],
    distance: str,
    temperature: float,
) -> float:
    """Mean over triplets of -log(exp(s_ap/t) / (exp(s_ap/t) + exp(s_an/t)))."""
    terms = []
    for anchor, positive, negative in triplets:
        near = math.exp(closeness(embeddings[anchor], embeddings[positive], distance) / temperature)
        far = math.exp(closeness(embeddings[anchor], embeddings[negative], distance) / temperature)
        terms.append(-math.log(near / (near + far)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(4))
def test_the_miner_takes_the_easiest_positive_and_the_hardest_negative_beyond_it(seed, distance):
    embeddings, labels = batch(seed)
    anchors, positives, again, negatives = miners["EPSHN"].build(distance=distance)(
        embeddings, labels
    )
    assert anchors.tolist() == again.tolist()
    expected = triplets_by_definition(embeddings.tolist(), labels.tolist(), distance)
    assert expected
    assert (
        list(zip(anchors.tolist(), positives.tolist(), negatives.tolist(), strict=True)) == expected
    )


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_epshn_is_nt_xent_over_the_mined_triplets(seed, distance, temperature):
    embeddings, labels = batch(seed)
    triplets = triplets_by_definition(embeddings.tolist(), labels.tolist(), distance)
    expected = nt_xent_by_definition(embeddings.tolist(), triplets, distance, temperature)
    assert epshn(distance, temperature)(embeddings, labels).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_epshn_of_four_unit_vectors_worked_out_by_hand():
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 0, 1, 1])
    # Vector 0: positive 1 (cosine .5), negative 2 (0). Vector 1: its positive (.5) is farther than
    # 2 (.866), so negative 3 (-.5). Vector 2: positive 3 (0), nothing of the other class is
    # farther. Vector 3: positive 2 (0), negative 1 (-.5).
    expected = (
        math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-0.5))
    ) / 3
    assert epshn(temperature=1.0)(embeddings, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_length_of_an_embedding_does_not_change_the_loss():
    embeddings, labels = batch(0)
    lengths = torch.linspace(0.1, 30, len(labels))[:, None]
    assert epshn()(embeddings * lengths, labels).item() == pytest.approx(
        epshn()(embeddings, labels).item(), rel=1e-4
    )


def test_the_names_of_the_classes_and_the_order_of_the_batch_do_not_change_the_loss():
    embeddings, labels = batch(1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    renamed = torch.tensor([3, 0, 2, 1])[labels]
    expected = epshn()(embeddings, labels).item()
    assert epshn()(embeddings[order], labels[order]).item() == pytest.approx(expected, rel=1e-5)
    assert epshn()(embeddings, renamed).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["no positives", "no negatives"]
)
def test_a_batch_without_a_valid_triplet_gives_loss_0_with_a_gradient_and_is_counted(labels):
    objective = epshn()
    embeddings = torch.randn(4, 5, requires_grad=True)
    value = objective(embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0.0
    assert embeddings.grad.tolist() == [[0.0] * 5] * 4
    assert objective.batches_without_tuples == 1
    objective(*batch(0))
    assert objective.batches_without_tuples == 1


def test_a_batch_with_a_single_valid_triplet_is_not_lost_uncounted():
    # Of the pair only the first has a negative that is farther than its positive.
    angles = torch.tensor([0.0, 40.0, 75.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 0, 1])
    assert triplets_by_definition(embeddings.tolist(), labels.tolist(), "cosine") == [(0, 1, 2)]
    objective = epshn()
    value = objective(embeddings, labels)
    assert value > 0 or objective.batches_without_tuples == 1


@pytest.mark.parametrize("name", losses.names())
def test_the_loss_is_float32_for_bfloat16_embeddings_inside_autocast(name):
    entry = losses[name]
    torch.manual_seed(0)
    miner = miners["EPSHN"].build() if entry.facts["takes_miner"] else None
    objective = Objective(
        entry.build(4, 5, **entry.resolve({}, "loss")), miner, entry.facts["unit_vectors"]
    )
    embeddings, labels = batch(2)
    narrow = embeddings.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = objective(narrow, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(
        objective(embeddings.bfloat16().float(), labels).item(), rel=1e-6
    )
    assert torch.isfinite(narrow.grad).all() and narrow.grad.abs().sum() > 0


def test_crossentropy_is_the_mean_of_minus_log_softmax_of_a_linear_layer_on_the_embedding_itself():
    objective = Objective(
        losses["crossentropy"].build(4, 5, label_smoothing=0.0),
        None,
        losses["crossentropy"].facts["unit_vectors"],
    )
    embeddings, labels = batch(3)
    logits = embeddings @ objective.loss.classifier.weight.T + objective.loss.classifier.bias
    expected = -functional.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels].mean()
    assert objective(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_label_smoothing_moves_part_of_the_target_to_all_classes():
    loss = losses["crossentropy"].build(4, 5, label_smoothing=0.2)
    embeddings, labels = batch(3)
    logarithms = functional.log_softmax(loss.classifier(embeddings), dim=1)
    target = functional.one_hot(labels, 4) * 0.8 + 0.05
    assert loss(embeddings, labels).item() == pytest.approx(
        -(target * logarithms).sum(dim=1).mean().item(), rel=1e-5
    )


def test_nt_xent_without_a_miner_sets_each_positive_pair_against_all_negatives_of_its_anchor():
    embeddings, labels = batch(4, size=8)
    vectors, classes = embeddings.tolist(), labels.tolist()
    terms = []
    for anchor in range(8):
        similarity = [
            math.exp(closeness(vectors[anchor], other, "cosine") / 0.1) for other in vectors
        ]
        negatives = sum(similarity[i] for i in range(8) if classes[i] != classes[anchor])
        positives = [i for i in range(8) if classes[i] == classes[anchor] and i != anchor]
        terms += [-math.log(similarity[i] / (similarity[i] + negatives)) for i in positives]
    objective = Objective(losses["NTXent"].build(4, 5), None, unit_vectors=True)
    assert objective(embeddings, labels).item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_the_objective_of_an_experiment_has_its_loss_its_miner_and_its_distance():
    objective = build_objective(experiments.resolve("EPSHN_euclidean_resnet18"), 180, 128)
    assert type(objective.loss).__name__ == "NTXentLoss"
    assert objective.loss.temperature == 0.1
    assert (objective.miner.pos_strategy, objective.miner.neg_strategy) == ("easy", "semihard")
    assert (
        type(objective.loss.distance).__name__
        == type(objective.miner.distance).__name__
        == "LpDistance"
    )
    assert objective.unit_vectors


def test_the_same_seed_gives_the_same_proxies_and_another_seed_others():
    def classifier(seed: int) -> torch.Tensor:
        overrides = ["loss=crossentropy", "miner=none", f"seed={seed}"]
        return build_objective(
            experiments.resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=overrides), 10, 8
        ).loss.classifier.weight

    assert torch.equal(classifier(1), classifier(1))
    assert not torch.equal(classifier(1), classifier(2))


class Given(nn.Module):
    """A loss that gives what a function makes of the embeddings."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, embeddings, labels):
        return self.function(embeddings)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda embeddings: None, "NoneType"),
        (lambda embeddings: {"loss": embeddings.mean()}, "dict"),
        (lambda embeddings: embeddings.mean(dim=1), r"a tensor of shape \(4,\)"),
        (lambda embeddings: embeddings.mean().detach(), "a tensor without gradient"),
    ],
)
def test_a_loss_that_gives_no_number_to_learn_from_is_named_with_what_it_gave(function, got):
    objective = Objective(Given(function), None, unit_vectors=True)
    embeddings = torch.ones(4, 5, requires_grad=True)
    with pytest.raises(ValueError, match=f"loss Given must give one number .*, got {got}: compute"):
        objective(embeddings, torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("mined", "got"),
    [
        (torch.arange(4), "Tensor"),
        (None, "NoneType"),
        (torch.ones(4, 4) > 0, "Tensor"),
        ((torch.arange(4), torch.arange(4)), "2 tensors"),
        ((torch.ones(4, 4) > 0,) * 3, "tuple"),
    ],
)
def test_a_miner_that_gives_neither_triplets_nor_pairs_does_not_leave_the_loss_at_0(mined, got):
    """Each row of one tensor has at most one number, as a batch has that is left without triplets:
    nothing would be learned."""
    loss = losses["NTXent"].build(2, 5, temperature=0.1, distance="cosine")
    objective = Objective(loss, Mining(lambda embeddings: mined), unit_vectors=True)
    with pytest.raises(ValueError, match=f"miner Mining must give a tuple .*, got {got}: give one"):
        objective(torch.ones(4, 5, requires_grad=True), torch.tensor([0, 0, 1, 1]))


class Mining(Given):
    """A miner that gives what a function makes of the embeddings."""


@pytest.mark.parametrize("hidden", [nn.Parameter, list], ids=["a tensor", "a list"])
def test_what_a_loss_would_learn_is_refused_where_it_is_neither_trained_nor_saved(hidden):
    @db.register_loss(summary="a test")
    def Hidden(num_classes: int, dim: int):
        loss = Given(lambda embeddings: embeddings.mean())
        proxies = torch.randn(num_classes, dim, requires_grad=True)
        if hidden is list:
            loss.proxies = [nn.Parameter(proxies)]
        else:
            loss.proxies = proxies
        return loss

    with pytest.raises(
        ValueError, match="loss Hidden has a tensor with gradient in proxies, where"
    ):
        build_objective(tiny("loss=Hidden", "miner=none"), 5, 8)


def test_a_loss_that_says_that_it_classifies_has_logits():
    @db.register_loss(summary="a test", classifies=True)
    def Silent():
        return Given(lambda embeddings: embeddings.mean())

    with pytest.raises(ValueError, match=r"loss Silent is .*, and Given has no method logits"):
        build_objective(tiny("loss=Silent", "miner=none"), 5, 8)


@pytest.mark.parametrize(
    ("built", "got"), [(lambda: None, "NoneType"), (lambda: Given, "the class Given")]
)
def test_what_builds_no_module_is_named_with_what_it_built(built, got):
    entry = replace(losses["NTXent"], name="Mine", build=built)
    with pytest.raises(ValueError, match=f"Mine must return a torch Module, got {got}: return one"):
        entry.built(nn.Module)
