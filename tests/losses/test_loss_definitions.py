"""Losses: each is what its paper defines, in slow loops over plain numbers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_losses import CLASSES, DIM, build, four_of_each, vectors
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.registry import losses

Vector = list[float]


def dot(one: Vector, other: Vector) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def length(vector: Vector) -> float:
    return math.sqrt(dot(vector, vector))


def cosine(one: Vector, other: Vector) -> float:
    return dot(one, other) / length(one) / length(other)


def distance(one: Vector, other: Vector) -> float:
    """Euclidean, of the vectors made unit length."""
    return math.sqrt(
        sum((x / length(one) - y / length(other)) ** 2 for x, y in zip(one, other, strict=True))
    )


def log_sum_exp(values: list[float]) -> float:
    greatest = max(values)
    return greatest + math.log(sum(math.exp(value - greatest) for value in values))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mean_of_violations(values: list[float]) -> float:
    """Of those above 0."""
    return mean([value for value in values if value > 0])


def hinge(value: float) -> float:
    return max(value, 0.0)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > 0 else math.exp(value) / (1 + math.exp(value))


class Batch:
    """16 embeddings in float64 lists, their labels, and the pairs among them."""

    def __init__(self, embeddings: Tensor, labels: Tensor):
        self.x, self.y = embeddings.tolist(), labels.tolist()
        self.anchors = range(len(self.y))
        self.positives: list[list[int]] = []
        self.negatives: list[list[int]] = []
        for i, label in enumerate(self.y):
            self.positives.append([j for j in self.anchors if j != i and self.y[j] == label])
            self.negatives.append([j for j in self.anchors if self.y[j] != label])
        self.positive_pairs = [(i, j) for i in self.anchors for j in self.positives[i]]
        self.negative_pairs = [(i, j) for i in self.anchors for j in self.negatives[i]]
        self.triplets = [(a, p, n) for a, p in self.positive_pairs for n in self.negatives[a]]

    def cosine(self, i: int, j: int) -> float:
        return cosine(self.x[i], self.x[j])

    def distance(self, i: int, j: int) -> float:
        return distance(self.x[i], self.x[j])

    def before(self, i: int, query: int, others: list[int]) -> float:
        """How many of `others` stand before i in the answer to `query`, smoothed."""
        own = self.cosine(query, i)
        return sum(sigmoid((self.cosine(query, j) - own) / 0.01) for j in others if j != i)


def softmax_loss(logits: list[list[float]], labels: list[int]) -> float:
    return mean([log_sum_exp(row) - row[label] for row, label in zip(logits, labels, strict=True)])


def contrastive(b: Batch, loss: nn.Module, pos: float = 0.0, neg: float = 1.0) -> float:
    return mean_of_violations(
        [b.distance(*pair) - pos for pair in b.positive_pairs]
    ) + mean_of_violations([neg - b.distance(*pair) for pair in b.negative_pairs])


def contrastive_of_cosines(b: Batch, loss: nn.Module) -> float:
    return mean_of_violations(
        [1 - b.cosine(*pair) - 0.1 for pair in b.positive_pairs]
    ) + mean_of_violations([0.8 - (1 - b.cosine(*pair)) for pair in b.negative_pairs])


def signal_to_noise(b: Batch, loss: nn.Module) -> float:
    def variance(vector: Vector) -> float:
        return sum((x - mean(vector)) ** 2 for x in vector) / (len(vector) - 1)

    def noise(i: int, j: int) -> float:
        return variance([x - y for x, y in zip(b.x[i], b.x[j], strict=True)]) / variance(b.x[i])

    return mean_of_violations([noise(*pair) for pair in b.positive_pairs]) + mean_of_violations(
        [1 - noise(*p) for p in b.negative_pairs]
    )


def margin_based(b: Batch, loss: nn.Module) -> float:
    beta = loss.beta.tolist()
    terms = [hinge(b.distance(a, p) - beta[b.y[a]] + 0.2) for a, p, n in b.triplets]
    terms += [hinge(beta[b.y[a]] - b.distance(a, n) + 0.2) for a, p, n in b.triplets]
    return mean_of_violations(terms)


def margin_based_with_a_price(b: Batch, loss: nn.Module) -> float:
    terms = [hinge(b.distance(a, p) - 1.1 + 0.1) for a, p, n in b.triplets]
    terms += [hinge(1.1 - b.distance(a, n) + 0.1) for a, p, n in b.triplets]
    return mean_of_violations(terms) + 0.05 * 1.1


def triplet_margin(b: Batch, loss: nn.Module) -> float:
    return mean_of_violations([b.distance(a, p) - b.distance(a, n) + 0.2 for a, p, n in b.triplets])


def triplet_margin_of_cosines_swapped_and_smooth(b: Batch, loss: nn.Module) -> float:
    return mean(
        [
            math.log1p(math.exp(max(b.cosine(a, n), b.cosine(p, n)) - b.cosine(a, p) + 0.3))
            for a, p, n in b.triplets
        ]
    )


def centroid_triplet(b: Batch, loss: nn.Module) -> float:
    def centroid(members: list[int]) -> Vector:
        columns = zip(*[b.x[i] for i in members], strict=True)
        return [mean(list(column)) for column in columns]

    def squared(i: int, centre: Vector) -> float:
        return sum((x - c) ** 2 for x, c in zip(b.x[i], centre, strict=True))

    terms = []
    for a in b.anchors:
        to_own = squared(a, centroid(b.positives[a]))
        for other in set(b.y) - {b.y[a]}:
            members = [i for i in b.anchors if b.y[i] == other]
            terms.append(to_own - squared(a, centroid(members)) + 0.5)
    return mean_of_violations(terms)


def tuplet_margin(b: Batch, loss: nn.Module) -> float:
    slack = math.radians(5.73)
    terms = []
    for a, p in b.positive_pairs:
        relaxed = math.cos(math.acos(b.cosine(a, p)) - slack)
        excess = [64 * (b.cosine(a, n) - relaxed) for n in b.negatives[a]]
        terms.append(log_sum_exp([0.0, *excess]))
    return mean(terms)


def angular(b: Batch, loss: nn.Module) -> float:
    tangent = math.tan(math.radians(40)) ** 2
    terms = []
    for a, p in b.positive_pairs:
        attraction = 2 * (1 + tangent) * b.cosine(a, p)
        excess = [
            4 * tangent * (b.cosine(a, n) + b.cosine(p, n)) - attraction for n in b.negatives[a]
        ]
        terms.append(log_sum_exp([0.0, *excess]))
    return mean(terms)


def multi_similarity(b: Batch, loss: nn.Module) -> float:
    terms = []
    for i in b.anchors:
        attraction = [-2 * (b.cosine(i, j) - 0.5) for j in b.positives[i]]
        repulsion = [50 * (b.cosine(i, j) - 0.5) for j in b.negatives[i]]
        terms.append(log_sum_exp([0.0, *attraction]) / 2 + log_sum_exp([0.0, *repulsion]) / 50)
    return mean(terms)


def lifted_structure(b: Batch, loss: nn.Module) -> float:
    terms = []
    for i in b.anchors:
        attraction = [b.distance(i, j) for j in b.positives[i]]
        repulsion = [1 - b.distance(i, j) for j in b.negatives[i]]
        terms.append(hinge(log_sum_exp(attraction) + log_sum_exp(repulsion)))
    return mean(terms)


def circle(b: Batch, loss: nn.Module) -> float:
    terms = []
    for i in b.anchors:
        attraction = [
            -80 * hinge(1.4 - b.cosine(i, j)) * (b.cosine(i, j) - 0.6) for j in b.positives[i]
        ]
        repulsion = [
            80 * hinge(b.cosine(i, j) + 0.4) * (b.cosine(i, j) - 0.4) for j in b.negatives[i]
        ]
        terms.append(log_sum_exp([0.0, log_sum_exp(attraction) + log_sum_exp(repulsion)]))
    return mean_of_violations(terms)


def sup_con(b: Batch, loss: nn.Module) -> float:
    terms = []
    for i in b.anchors:
        others = [b.cosine(i, j) / 0.1 for j in b.anchors if j != i]
        positives = [b.cosine(i, j) / 0.1 for j in b.positives[i]]
        terms.append(log_sum_exp(others) - mean(positives))
    return mean(terms)


def n_pairs(b: Batch, loss: nn.Module) -> float:
    anchors, positives = [], []
    for label in range(CLASSES):
        anchor, positive = min(pair for pair in b.positive_pairs if b.y[pair[0]] == label)
        anchors.append(anchor)
        positives.append(b.x[positive])

    def logits(anchor: int) -> list[float]:
        return [dot(b.x[anchor], positive) for positive in positives]

    rows = [logits(anchor) for anchor in anchors]
    return softmax_loss(rows, list(range(CLASSES))) + 0.002 * mean([length(x) ** 2 for x in b.x])


def fast_ap(b: Batch, loss: nn.Module) -> float:
    def histogram_of(squared: list[float]) -> list[float]:
        counts = [0.0] * 11
        for value in squared:
            for node in range(11):
                counts[node] += hinge(1 - abs(value - 0.4 * node) / 0.4)
        return counts

    terms = []
    for i in b.anchors:
        positive = histogram_of([b.distance(i, j) ** 2 for j in b.positives[i]])
        negative = histogram_of([b.distance(i, j) ** 2 for j in b.negatives[i]])
        precision = [
            positive[node]
            * sum(positive[: node + 1])
            / (sum(positive[: node + 1]) + sum(negative[: node + 1]))
            for node in range(11)
            if positive[node] > 0
        ]
        terms.append(1 - sum(precision) / len(b.positives[i]))
    return mean(terms)


def smooth_ap(b: Batch, loss: nn.Module) -> float:
    terms = []
    for query in b.anchors:
        relevant = [query, *b.positives[query]]
        precisions = []
        for i in relevant:
            rank = 1 + b.before(i, query, relevant)
            precisions.append(rank / (rank + b.before(i, query, b.negatives[query])))
        terms.append(1 - mean(precisions))
    return mean(terms)


def pnp(b: Batch, loss: nn.Module, penalty: Callable[[float], float] = float) -> float:
    """`penalty` of the number of negatives before a positive."""
    terms = []
    for query in b.anchors:
        relevant = [query, *b.positives[query]]
        penalties = [penalty(b.before(i, query, b.negatives[query])) for i in relevant]
        terms.append(mean(penalties))
    return mean(terms)


def pnp_of_logarithms(b: Batch, loss: nn.Module) -> float:
    return pnp(b, loss, math.log1p)


def pnp_that_grows_faster(b: Batch, loss: nn.Module) -> float:
    return pnp(b, loss, lambda number: (1 + number) * math.log1p(number))


def histogram(b: Batch, loss: nn.Module) -> float:
    def density(cosines: list[float], node: float) -> float:
        return mean([hinge(1 - abs(value - node) / 0.02) for value in cosines])

    nodes = [node * 0.02 - 1 for node in range(101)]
    of_positives = [b.cosine(*pair) for pair in b.positive_pairs]
    of_negatives = [b.cosine(*pair) for pair in b.negative_pairs]
    positive = [density(of_positives, node) for node in nodes]
    negative = [density(of_negatives, node) for node in nodes]
    return sum(negative[node] * sum(positive[: node + 1]) for node in range(101))


def proxy_distances(b: Batch, loss: nn.Module) -> list[list[float]]:
    proxies = loss.proxies.tolist()

    def squared(x: Vector) -> list[float]:
        return [distance(x, proxy) ** 2 for proxy in proxies]

    return [squared(x) for x in b.x]


def proxy_nca(b: Batch, loss: nn.Module) -> float:
    terms = []
    for row, y in zip(proxy_distances(b, loss), b.y, strict=True):
        closeness = [math.exp(-d) for d in row]
        terms.append(-math.log(closeness[y] / sum(closeness)))
    return mean(terms)


def proxy_nca_of_the_paper(b: Batch, loss: nn.Module) -> float:
    terms = []
    for row, y in zip(proxy_distances(b, loss), b.y, strict=True):
        others = [math.exp(-d) for label, d in enumerate(row) if label != y]
        terms.append(-math.log(math.exp(-row[y]) / sum(others)))
    return mean(terms)


def proxy_nca_plus_plus(b: Batch, loss: nn.Module) -> float:
    terms = []
    for row, y in zip(proxy_distances(b, loss), b.y, strict=True):
        closeness = [math.exp(-9 * d) for d in row]
        terms.append(-math.log(closeness[y] / sum(closeness)))
    return mean(terms)


def proxy_anchor(b: Batch, loss: nn.Module) -> float:
    proxies = loss.loss.proxies.tolist()
    attraction, repulsion = [], []
    for label, proxy in enumerate(proxies):
        own = [cosine(b.x[i], proxy) for i in b.anchors if b.y[i] == label]
        others = [cosine(b.x[i], proxy) for i in b.anchors if b.y[i] != label]
        attraction.append(log_sum_exp([0.0, *(-32 * (s - 0.1) for s in own)]))
        repulsion.append(log_sum_exp([0.0, *(32 * (s + 0.1) for s in others)]))
    return mean(attraction) + mean(repulsion)


def class_cosines(b: Batch, weights: Tensor) -> list[list[float]]:
    """`weights` (dim, classes)."""
    columns = weights.T.tolist()

    def cosines(x: Vector) -> list[float]:
        return [cosine(x, column) for column in columns]

    return [cosines(x) for x in b.x]


def with_target(
    rows: list[list[float]], labels: list[int], changed: Callable[[float], float], scale: float
) -> list[list[float]]:
    logits = []
    for row, label in zip(rows, labels, strict=True):
        logits.append([scale * similarity for similarity in row])
        logits[-1][label] = scale * changed(row[label])
    return logits


def arc(degrees: float) -> Callable[[float], float]:
    """cos(angle + margin) while that still falls with the angle, continued downwards beyond."""
    margin = math.radians(degrees)

    def changed(similarity: float) -> float:
        angle = math.acos(similarity)
        return (
            math.cos(angle + margin)
            if angle + margin <= math.pi
            else similarity - margin * math.sin(margin)
        )

    return changed


def arc_face(b: Batch, loss: nn.Module) -> float:
    return softmax_loss(with_target(class_cosines(b, loss.loss.W), b.y, arc(28.6), 64), b.y)


def sub_center_arc_face(b: Batch, loss: nn.Module) -> float:
    def of_nearest_centers(row: list[float]) -> list[float]:
        return [max(row[3 * j : 3 * j + 3]) for j in range(CLASSES)]

    cosines = [of_nearest_centers(row) for row in class_cosines(b, loss.loss.W)]
    return softmax_loss(with_target(cosines, b.y, arc(28.6), 64), b.y)


def cos_face(b: Batch, loss: nn.Module) -> float:
    return softmax_loss(
        with_target(class_cosines(b, loss.loss.W), b.y, lambda s: s - 0.35, 64), b.y
    )


def normalized_softmax(b: Batch, loss: nn.Module) -> float:
    return softmax_loss(with_target(class_cosines(b, loss.loss.W), b.y, lambda s: s, 1 / 0.05), b.y)


def soft_triple(b: Batch, loss: nn.Module) -> float:
    centers = loss.loss.fc.T.tolist()

    def similarity(x: Vector, label: int) -> float:
        own = [cosine(x, center) for center in centers[10 * label : 10 * label + 10]]
        total = log_sum_exp([s / 0.1 for s in own])
        return sum(s * math.exp(s / 0.1 - total) for s in own)

    def similarities(x: Vector) -> list[float]:
        return [similarity(x, label) for label in range(CLASSES)]

    rows = [similarities(x) for x in b.x]
    spread = [
        distance(centers[10 * label + t], centers[10 * label + s])
        for label in range(CLASSES)
        for t in range(10)
        for s in range(t + 1, 10)
    ]
    return softmax_loss(with_target(rows, b.y, lambda s: s - 0.01, 20), b.y) + 0.2 * sum(spread) / (
        CLASSES * 10 * 9
    )


def soft_triple_of_single_centers(b: Batch, loss: nn.Module) -> float:
    return softmax_loss(
        with_target(class_cosines(b, loss.loss.fc), b.y, lambda s: s - 0.01, 20), b.y
    )


def p2s_grad(b: Batch, loss: nn.Module) -> float:
    terms = []
    for row, y in zip(class_cosines(b, loss.weight.T), b.y, strict=True):
        squares = [(s - (j == y)) ** 2 for j, s in enumerate(row)]
        terms.append(sum(squares) / 2)
    return mean(terms)


def hist(b: Batch, loss: nn.Module) -> float:
    """As the authors' code computes it, step by step and in numpy."""
    x = np.array(b.x)
    of_loss = {name: value.double().numpy() for name, value in loss.state_dict().items()}
    means = of_loss["means"] / np.linalg.norm(of_loss["means"], axis=1, keepdims=True)
    variances = np.exp(np.clip(of_loss["log_variances"], 0, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances = ((unit[:, None] - means) ** 2 / variances).sum(axis=2)
    of_distributions = softmax_loss((-32 * distances).tolist(), b.y)
    one_hot = np.eye(CLASSES)[b.y]
    there = one_hot.sum(axis=0) > 0
    edges = (one_hot + np.exp(-0.9 * distances) * (1 - one_hot))[:, there]
    of_nodes = np.diag(edges.sum(axis=1) ** -0.5)
    spread = of_nodes @ edges @ np.diag(1 / edges.sum(axis=0)) @ edges.T @ of_nodes
    hidden = spread @ (x @ of_loss["first.weight"].T + of_loss["first.bias"])
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    classified = spread @ (hidden @ of_loss["second.weight"].T + of_loss["second.bias"])
    return of_distributions + softmax_loss(classified.tolist(), b.y)


def potential_field(
    b: Batch, loss: nn.Module, alpha: float = 3.0, delta: float = 0.2, of_each: int = 15
) -> float:
    """Eq. 1, 2, 4 and 6 of the paper."""
    vectors = b.x + loss.proxies.tolist()
    labels = b.y + [place // of_each for place in range(CLASSES * of_each)]
    energy = 0.0
    for i, (x, y) in enumerate(zip(vectors, labels, strict=True)):
        for j, (other, label) in enumerate(zip(vectors, labels, strict=True)):
            d = distance(x, other)
            if i != j and label == y:
                energy -= 1 / delta**alpha if d < delta else 1 / d**alpha
            elif i != j:
                energy += 1 / d**alpha if d < delta else 1 / delta**alpha
    return energy


def potential_field_that_reaches_far(b: Batch, loss: nn.Module) -> float:
    return potential_field(b, loss, alpha=1.5, delta=1.0, of_each=2)


def binary_cross_entropy(b: Batch, loss: nn.Module) -> float:
    terms = []
    for logits, y in zip(loss.logits(torch.tensor(b.x)).tolist(), b.y, strict=True):
        for place, logit in enumerate(logits):
            terms.append(-math.log(sigmoid(logit if place == y else -logit)))
    return mean(terms)


@pytest.mark.parametrize(
    ("name", "options", "definition"),
    [
        ("Contrastive", {}, contrastive),
        (
            "Contrastive",
            {"distance": "cosine", "pos_margin": 0.1, "neg_margin": 0.8},
            contrastive_of_cosines,
        ),
        ("SignalToNoiseRatio", {}, signal_to_noise),
        ("Margin", {}, margin_based),
        (
            "Margin",
            {"margin": 0.1, "beta": 1.1, "nu": 0.05, "per_class": False},
            margin_based_with_a_price,
        ),
        ("TripletMargin", {}, triplet_margin),
        (
            "TripletMargin",
            {"distance": "cosine", "margin": 0.3, "swap": True, "smooth_loss": True},
            triplet_margin_of_cosines_swapped_and_smooth,
        ),
        ("CentroidTriplet", {}, centroid_triplet),
        ("TupletMargin", {}, tuplet_margin),
        ("Angular", {}, angular),
        ("MultiSimilarity", {}, multi_similarity),
        ("LiftedStructure", {}, lifted_structure),
        ("Circle", {}, circle),
        ("SupCon", {}, sup_con),
        ("NPairs", {}, n_pairs),
        ("FastAP", {}, fast_ap),
        ("SmoothAP", {}, smooth_ap),
        ("PNP", {}, pnp),
        ("PNP", {"variant": "Ds"}, pnp_of_logarithms),
        ("PNP", {"variant": "Iu"}, pnp_that_grows_faster),
        ("Histogram", {}, histogram),
        ("ProxyNCA", {}, proxy_nca),
        ("ProxyNCA", {"denominator": "negatives"}, proxy_nca_of_the_paper),
        ("ProxyNCA++", {}, proxy_nca_plus_plus),
        ("ProxyAnchor", {}, proxy_anchor),
        ("ArcFace", {}, arc_face),
        ("SubCenterArcFace", {}, sub_center_arc_face),
        ("CosFace", {}, cos_face),
        ("NormalizedSoftmax", {}, normalized_softmax),
        ("SoftTriple", {}, soft_triple),
        ("SoftTriple", {"centers_per_class": 1}, soft_triple_of_single_centers),
        ("P2SGrad", {}, p2s_grad),
        ("HIST", {}, hist),
        ("PFML", {}, potential_field),
        (
            "PFML",
            {"alpha": 1.5, "delta": 1.0, "proxies_per_class": 2},
            potential_field_that_reaches_far,
        ),
        ("BCE", {}, binary_cross_entropy),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_loss_is_what_its_paper_defines(name, options, definition):
    entry = losses[name]
    loss, embeddings, labels = build(entry, **options), vectors(entry).detach(), four_of_each()
    if name in ("ArcFace", "SubCenterArcFace"):
        embeddings[0] = -functional.normalize(
            loss.loss.W.detach()[:, -1], dim=0
        )  # 180 degrees from its class's weight
        labels[0] = 3
    if name == "CentroidTriplet":
        labels = torch.tensor([0] * 6 + [1] * 4 + [2] * 2 + [3] * 4)
    expected = definition(Batch(embeddings, labels), loss)
    assert loss(embeddings, labels).item() == pytest.approx(expected, rel=1e-4)


def test_a_batch_without_some_classes_has_no_edges_for_them():
    loss = build(losses["HIST"])
    embeddings, labels = vectors(losses["HIST"], size=6).detach(), torch.tensor([0, 2, 2, 0, 0, 2])
    assert loss(embeddings, labels).item() == pytest.approx(hist(Batch(embeddings, labels), loss))


def test_the_forces_of_a_potential_field_are_the_derivatives_of_its_energy():
    loss = build(losses["PFML"], alpha=1.5, delta=1.0, proxies_per_class=2).double()
    embeddings = vectors(losses["PFML"], size=6).detach().double().requires_grad_()
    labels = torch.tensor([0, 2, 2, 0, 0, 2])
    assert torch.autograd.gradcheck(
        lambda x, proxies: torch.func.functional_call(loss, {"proxies": proxies}, (x, labels)),
        (embeddings, loss.proxies),
    )


def test_the_class_of_least_energy_has_the_greatest_logit():
    loss = build(losses["PFML"], proxies_per_class=2)
    embedding = vectors(losses["PFML"], size=1).detach()
    energies = []
    for label in range(CLASSES):
        together = loss(embedding, torch.tensor([label])) - loss(embedding[:0], torch.tensor([]))
        energies.append(together.item() / 2)
    share = torch.softmax(loss.logits(embedding)[0].double(), 0)
    # Of two classes, the one with more of the field is lower by that: the rest is the same for all.
    total = sum(distance(embedding[0].tolist(), proxy) ** -3 for proxy in loss.proxies.tolist())
    for label in range(1, CLASSES):
        assert energies[label] - energies[0] == pytest.approx(
            (total * (share[0] - share[label])).item(), abs=0.01
        )


def test_ranked_list_weighs_the_pairs_on_the_wrong_side_of_its_two_spheres():
    embeddings, labels = vectors(losses["RankedList"]), four_of_each()
    b = Batch(embeddings, labels)
    terms = []
    for i in b.anchors:
        far = [b.distance(i, j) - 0.8 for j in b.positives[i] if b.distance(i, j) > 0.8]
        near = [1.2 - b.distance(i, j) for j in b.negatives[i] if b.distance(i, j) < 1.2]
        weights = [math.exp(10 * depth) for depth in near]
        attraction = mean(far) if far else 0.0
        repulsion = (
            sum(w * depth for w, depth in zip(weights, near, strict=True)) / sum(weights)
            if near
            else 0.0
        )
        terms.append(0.5 * attraction + 0.5 * repulsion)
    # Its denominators carry 1e-5 for each image of the batch.
    assert build(losses["RankedList"])(embeddings, labels).item() == pytest.approx(
        mean(terms), rel=1e-3
    )


def test_proxy_nca_is_the_one_of_pytorch_metric_learning():
    from pytorch_metric_learning.losses import ProxyNCALoss

    for scale in (1.0, 7.0):
        ours, theirs = (
            build(losses["ProxyNCA"], softmax_scale=scale),
            ProxyNCALoss(CLASSES, DIM, softmax_scale=scale),
        )
        theirs.load_state_dict(ours.state_dict())
        embeddings, labels = vectors(losses["ProxyNCA"]), four_of_each()
        assert ours(embeddings, labels).item() == pytest.approx(
            theirs(embeddings, labels).item(), rel=1e-5
        )


def test_smooth_ap_is_the_one_of_pytorch_metric_learning_where_that_counts_rightly():
    from pytorch_metric_learning.losses import SmoothAPLoss

    embeddings, labels = vectors(losses["SmoothAP"]), torch.arange(16) // 4
    assert build(losses["SmoothAP"])(embeddings, labels).item() == pytest.approx(
        SmoothAPLoss()(embeddings, labels).item(), rel=1e-5
    )


def test_an_embedding_alone_in_its_class_asks_no_question_of_smooth_ap():
    embeddings, labels = vectors(losses["SmoothAP"]), four_of_each()
    loss = build(losses["SmoothAP"])
    labels[5:] = torch.tensor([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
    # Of the first five, only the two of class 3 have a positive.
    b = Batch(embeddings, labels)
    terms = []
    for query, other in ((3, 4), (4, 3)):
        before = [b.before(i, query, b.negatives[query]) for i in (query, other)]
        behind_itself = sigmoid((1 - b.cosine(query, other)) / 0.01)
        beyond = sigmoid((b.cosine(query, other) - 1) / 0.01)
        terms.append(
            1
            - mean(
                [
                    (1 + beyond) / (1 + beyond + before[0]),
                    (1 + behind_itself) / (1 + behind_itself + before[1]),
                ]
            )
        )
    assert loss(embeddings, labels).item() == pytest.approx(mean(terms), rel=1e-4)


def test_the_gradient_of_p2s_grad_is_the_papers():
    # Sum over classes of (cosine - 1 where the class is the own) times the derivative of the
    # cosine, (w - cosine x) / |x| for units.
    loss, embeddings, labels = build(losses["P2SGrad"]), vectors(losses["P2SGrad"]), four_of_each()
    loss(embeddings, labels).backward()
    for x, y, gradient in zip(
        embeddings.tolist(), labels.tolist(), embeddings.grad.tolist(), strict=True
    ):
        expected = [0.0] * DIM
        for label, weight in enumerate(loss.weight.tolist()):
            similarity = dot(x, weight) / length(weight)
            for k in range(DIM):
                slope = weight[k] / length(weight) - similarity * x[k]
                expected[k] += (similarity - (label == y)) * slope
        assert [16 * value for value in gradient] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_sub_center_arc_face_with_one_center_is_arc_face():
    plain, sub = build(losses["ArcFace"]), build(losses["SubCenterArcFace"], sub_centers=1)
    sub.load_state_dict(plain.state_dict())
    embeddings, labels = vectors(losses["ArcFace"]), four_of_each()
    assert torch.equal(sub(embeddings, labels), plain(embeddings, labels))
    assert torch.equal(sub.logits(embeddings), plain.logits(embeddings))


def test_the_margin_of_arc_face_is_in_degrees_and_its_scale_64():
    loss = build(losses["ArcFace"])
    with torch.no_grad():
        loss.loss.W.copy_(torch.eye(DIM)[:, :CLASSES])
    angle = math.radians(40)
    embedding = torch.tensor([[math.cos(angle), math.sin(angle), 0, 0, 0, 0, 0, 0]])
    target, *others = (64 * math.cos(math.radians(degrees)) for degrees in (40 + 28.6, 50, 90, 90))
    expected = log_sum_exp([target, *others]) - target
    assert loss(embedding, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)
    assert loss.logits(embedding)[0].tolist() == pytest.approx(
        [64 * math.cos(angle), 64 * math.sin(angle), 0, 0], abs=1e-4
    )


@pytest.mark.parametrize(
    ("name", "without_margin"),
    [
        ("crossentropy", {}),
        ("NormalizedSoftmax", {}),
        ("CosFace", {"margin": 0.0}),
        ("ArcFace", {"margin": 0.0}),
        ("SubCenterArcFace", {"margin": 0.0}),
        ("SoftTriple", {"margin": 0.0, "tau": 0.0}),
        ("ProxyNCA", {}),
        ("ProxyNCA++", {}),
    ],
)
def test_a_softmax_loss_without_margin_is_the_cross_entropy_of_its_logits_smoothed_where_wanted(
    name, without_margin
):
    smoothing = 0.2 if "label_smoothing" in losses[name].options else 0.0
    options = without_margin | ({"label_smoothing": smoothing} if smoothing else {})
    loss, embeddings, labels = build(losses[name], **options), vectors(losses[name]), four_of_each()
    target = functional.one_hot(labels, CLASSES) * (1 - smoothing) + smoothing / CLASSES
    expected = -(target * loss.logits(embeddings).log_softmax(dim=1)).sum(dim=1).mean()
    assert loss(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_logits_of_proxy_anchor_are_its_scaled_cosines():
    loss, embeddings = build(losses["ProxyAnchor"]), vectors(losses["ProxyAnchor"])
    expected = [
        32 * cosine(x, proxy) for x in embeddings.tolist() for proxy in loss.loss.proxies.tolist()
    ]
    assert loss.logits(embeddings).flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_a_margin_does_not_move_the_logits():
    for name in ("CosFace", "ArcFace", "SubCenterArcFace", "SoftTriple"):
        without, with_margin = build(losses[name], margin=0.0), build(losses[name])
        assert torch.equal(
            without.logits(vectors(losses[name])), with_margin.logits(vectors(losses[name]))
        )


def test_the_study_defaults():
    assert losses["ProxyNCA"].options["softmax_scale"].default == 1.0
    assert losses["ProxyNCA"].options["denominator"].default == "all"
    assert {
        name: option.default for name, option in losses["SubCenterArcFace"].options.items()
    } == {
        "margin": 28.6,
        "scale": 64.0,
        "sub_centers": 3,
        "label_smoothing": 0.0,
    }
    assert (
        losses["ArcFace"].options["margin"].default,
        losses["ArcFace"].options["scale"].default,
    ) == (28.6, 64.0)
