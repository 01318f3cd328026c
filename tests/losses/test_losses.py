"""Losses: every registered one is put through the same properties; `test_loss_definitions.py` says
what each of them computes."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.cli import catalogue
from dml_bench.registry import Entry, losses, miners

CLASSES, DIM = 4, 8
ON_A_TOY = {"PFML": {"alpha": 1.0}}
"""Options for a toy problem, where they are not the usual ones: forces that fade with the third
power leave an image near where it starts."""
TAKE_A_MINER = [entry.name for entry in losses if entry.facts["takes_miner"]]
MINERS = [name for name in miners.names() if name != "none"]


@pytest.fixture(autouse=True)
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def build(entry: Entry, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return entry.build(CLASSES, DIM, **entry.resolve(options, "loss"))


def vectors(entry: Entry, size: int = 16, seed: int = 1) -> Tensor:
    embeddings = torch.randn(size, DIM, generator=torch.Generator().manual_seed(seed))
    return (
        functional.normalize(embeddings, dim=1) if entry.facts["unit_vectors"] else embeddings
    ).requires_grad_()


def four_of_each() -> Tensor:
    """Labels of 16 embeddings in no order."""
    return torch.tensor([2, 0, 1, 3, 3, 0, 2, 1, 0, 0, 1, 2, 3, 1, 2, 3])


def value_and_gradients(
    loss: nn.Module, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    value = loss(embeddings, labels, None)
    value.backward()
    return value.detach(), [embeddings.grad, *(parameter.grad for parameter in loss.parameters())]


def assert_finite(value: Tensor, gradients: list[Tensor | None]) -> None:
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    assert gradients[0] is not None
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def precision_at_1(embeddings: Tensor, labels: Tensor) -> float:
    """Part of the embeddings whose nearest other one is of their class."""
    unit = functional.normalize(embeddings, dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
    return (labels[nearest] == labels).double().mean().item()


# Every loss ...


def is_a_finite_float32_scalar_whose_gradient_reaches_the_embeddings(entry: Entry) -> None:
    value, gradients = value_and_gradients(build(entry), vectors(entry), four_of_each())
    assert_finite(value, gradients)
    assert value > 0
    assert gradients[0].abs().sum() > 0


def has_parameters_that_learn_exactly_where_it_says_so(entry: Entry) -> None:
    loss = build(entry)
    _, (_, *gradients) = value_and_gradients(loss, vectors(entry), four_of_each())
    assert bool(gradients) == entry.facts["trains_proxies"]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def gives_the_same_bits_for_the_same_seed(entry: Entry) -> None:
    first, second = (
        value_and_gradients(build(entry), vectors(entry), four_of_each()) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(one, other) for one, other in zip(first[1], second[1], strict=True))


def has_parameters_that_come_from_the_seed(entry: Entry) -> None:
    parameters = [list(build(entry, seed).parameters()) for seed in (1, 2)]
    if entry.facts["classifies"]:
        assert not any(
            torch.equal(one, other)
            for one, other in zip(*parameters, strict=True)
            if one.ne(one.flatten()[0]).any()  # a norm's begin with ones or zeros
        )


def takes_classes_of_any_size(entry: Entry) -> None:
    labels = torch.tensor([0] * 7 + [3] * 5 + [1] * 3 + [2])
    value, gradients = value_and_gradients(build(entry), vectors(entry), labels)
    assert_finite(value, gradients)
    assert gradients[0].abs().sum() > 0


def does_not_care_about_the_order_of_the_batch(entry: Entry) -> None:
    if entry.name == "NPairs":  # the first pair of each class is its definition
        return
    embeddings, labels = vectors(entry), four_of_each()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    loss = build(entry)
    assert loss(embeddings[order], labels[order]).item() == pytest.approx(
        loss(embeddings, labels).item(), rel=1e-4
    )


def survives_a_batch_without_positives(entry: Entry) -> None:
    assert_finite(
        *value_and_gradients(build(entry), vectors(entry, size=4), torch.tensor([2, 0, 3, 1]))
    )


def survives_a_batch_of_one_class(entry: Entry) -> None:
    assert_finite(*value_and_gradients(build(entry), vectors(entry, size=6), torch.full((6,), 2)))


def survives_equal_images_of_one_class_and_of_two(entry: Entry) -> None:
    embeddings = vectors(entry).detach()
    embeddings[5] = embeddings[1]
    embeddings[2] = embeddings[0]
    embeddings[6] = -embeddings[0]
    assert_finite(*value_and_gradients(build(entry), embeddings.requires_grad_(), four_of_each()))


def continues_from_its_state_dict(entry: Entry) -> None:
    trained, other = build(entry, seed=1), build(entry, seed=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *trained.parameters()], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        trained(vectors(entry), four_of_each()).backward()
        optimizer.step()
    other.load_state_dict(trained.state_dict())
    expected, value = (
        value_and_gradients(loss, vectors(entry, seed=3), four_of_each())
        for loss in (trained.eval(), other.eval())
    )
    assert torch.equal(value[0], expected[0])
    assert torch.equal(value[1][0], expected[1][0])


def has_logits_exactly_where_it_classifies(entry: Entry) -> None:
    loss = build(entry)
    assert hasattr(loss, "logits") == entry.facts["classifies"]
    if entry.facts["classifies"]:
        logits = loss.logits(vectors(entry))
        assert logits.shape == (16, CLASSES) and torch.isfinite(logits).all()


def learns_a_toy_problem(entry: Entry) -> None:
    """4 classes that differ in 4 of 16 features, under noise as strong in the others; one linear
    layer learns to tell them."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(32) % CLASSES
    signal = 2 * functional.one_hot(labels, CLASSES) + 0.3 * torch.randn(
        32, CLASSES, generator=generator
    )
    features = torch.cat([signal, 2 * torch.randn(32, 12, generator=generator)], dim=1)
    loss = build(entry, seed=2, **ON_A_TOY.get(entry.name, {}))
    torch.manual_seed(2)
    model = nn.Linear(16, DIM, bias=False)

    def embed() -> Tensor:
        return (
            functional.normalize(model(features), dim=1)
            if entry.facts["unit_vectors"]
            else model(features)
        )

    def accuracy() -> float:
        return (loss.logits(embed()).argmax(dim=1) == labels).double().mean().item()

    assert precision_at_1(embed(), labels) == 0.25
    assert not entry.facts["classifies"] or accuracy() < 0.5
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.05)
    for _ in range(60):
        order = torch.randperm(32, generator=generator)
        optimizer.zero_grad()
        loss(embed()[order], labels[order], None).backward()
        optimizer.step()
    assert precision_at_1(embed(), labels) > 0.7
    assert not entry.facts["classifies"] or accuracy() > 0.95


PROPERTIES: list[Callable[[Entry], None]] = [
    is_a_finite_float32_scalar_whose_gradient_reaches_the_embeddings,
    has_parameters_that_learn_exactly_where_it_says_so,
    gives_the_same_bits_for_the_same_seed,
    has_parameters_that_come_from_the_seed,
    takes_classes_of_any_size,
    does_not_care_about_the_order_of_the_batch,
    survives_a_batch_without_positives,
    survives_a_batch_of_one_class,
    survives_equal_images_of_one_class_and_of_two,
    continues_from_its_state_dict,
    has_logits_exactly_where_it_classifies,
    learns_a_toy_problem,
]


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
@pytest.mark.parametrize("name", losses.names())
def test_every_loss(name, holds):
    holds(losses[name])


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", TAKE_A_MINER)
def test_a_loss_that_takes_a_miner_learns_from_what_each_of_them_finds(name, miner):
    entry = losses[name]
    loss, embeddings, labels = build(entry), vectors(entry), four_of_each()
    mined = miners[miner].build(**miners[miner].resolve({}, "miner"))(embeddings, labels)
    value = loss(embeddings, labels, mined)
    value.backward()
    assert_finite(value, [embeddings.grad])
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], [1, 1, 1, 1]], ids=["no positives", "no negatives"]
)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", TAKE_A_MINER)
def test_a_loss_that_takes_a_miner_survives_a_batch_in_which_it_finds_no_tuple(name, miner, labels):
    entry = losses[name]
    embeddings, labels = vectors(entry, size=4), torch.tensor(labels)
    mined = miners[miner].build(**miners[miner].resolve({}, "miner"))(embeddings, labels)
    value = build(entry)(embeddings, labels, mined)
    value.backward()
    assert_finite(value, [embeddings.grad])


def test_adding_a_loss_is_one_function_that_the_catalogue_lists_and_the_properties_try():
    @losses.register(
        "pull", summary="cosine of positives", source="this test, 2024", takes_miner=True
    )
    def pull(num_classes: int, dim: int, *, power: float = 1.0) -> nn.Module:
        class Pull(nn.Module):
            def forward(
                self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
            ) -> Tensor:
                same = (labels[:, None] == labels).float().fill_diagonal_(0)
                unlike = 1 - embeddings @ embeddings.T
                return (same * unlike**power).sum() / len(labels) - ((1 - same) * unlike).mean() + 2

        return Pull()

    try:
        assert losses.names().count("pull") == 1
        (record,) = [record for record in catalogue.entries("losses") if record["name"] == "pull"]
        assert (record["summary"], record["options"], record["takes_miner"]) == (
            "cosine of positives",
            {"power": 1.0},
            True,
        )
        for holds in PROPERTIES:
            holds(losses["pull"])
    finally:
        losses.remove("pull")


def test_the_properties_catch_a_loss_that_lies_about_its_facts():
    @losses.register(
        "liar",
        summary="cross-entropy",
        source="this test, 2024",
        trains_proxies=False,
        classifies=False,
    )
    def liar(num_classes: int, dim: int) -> nn.Module:
        return build(losses["crossentropy"])

    try:
        for holds in (
            has_parameters_that_learn_exactly_where_it_says_so,
            has_logits_exactly_where_it_classifies,
        ):
            with pytest.raises(AssertionError):
                holds(losses["liar"])
    finally:
        losses.remove("liar")


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("NTXent", {"temperature": 0.0}, "temperature must be a number above 0, got 0.0"),
        ("NTXent", {"temperature": float("nan")}, "temperature must be a finite number, got nan"),
        ("SmoothAP", {"temperature": -1.0}, "temperature must be a number above 0, got -1.0"),
        ("ArcFace", {"margin": -0.5}, "margin must be a number from 0 to 90, got -0.5"),
        (
            "ArcFace",
            {"label_smoothing": 1.5},
            "label_smoothing must be a number from 0 to 1, got 1.5",
        ),
        ("SubCenterArcFace", {"sub_centers": 0}, "sub_centers must be at least 1, got 0"),
        ("SoftTriple", {"centers_per_class": 0}, "centers_per_class must be at least 1, got 0"),
        ("TripletMargin", {"margin": -0.1}, "margin must be at least 0, got -0.1"),
        (
            "Contrastive",
            {"pos_margin": 0.5, "neg_margin": 0.4},
            "neg_margin must be a number from loss.pos_margin \\(0.5\\) to 2, got 0.4",
        ),
        ("FastAP", {"num_bins": 1}, "num_bins must be at least 2, got 1"),
        (
            "Contrastive",
            {"distance": "cosin"},
            r"loss.distance must be one of .*, got 'cosin' \(did you mean cosine\?\)",
        ),
    ],
)
def test_an_option_out_of_its_range_is_refused_with_its_name_its_value_and_what_is_wanted(
    name, options, problem
):
    with pytest.raises(ValueError, match=problem):
        build(losses[name], **options)
