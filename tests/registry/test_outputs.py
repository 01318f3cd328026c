"""What components of one's own return is held against what their kind has to be."""

import numpy as np
import pytest
import torch
from tiny import StopsAfter, train
from torch import nn
from torch.nn import functional

import dml_bench as db
from dml_bench.system.failures import describe_error

pytestmark = pytest.mark.usefixtures("plugins_removed")


class Mined(nn.Module):
    """A miner of all pairs; `change` is what embeddings, labels and pairs go through."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, embeddings, labels):
        same = labels[:, None] == labels
        itself = torch.eye(len(labels), dtype=torch.bool)
        pairs = (*torch.where(same & ~itself), *torch.where(~same))
        return self.change(embeddings, labels, pairs)


class Classifier(nn.Module):
    """A softmax classifier by `proxies`; `change` makes its loss of itself and its inputs."""

    def __init__(self, num_classes: int, dim: int, change) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.zeros(num_classes, dim))
        self.change = change

    def forward(self, embeddings, labels):
        return self.change(embeddings, labels, self.proxies)


def scaled(embeddings, labels, pairs):
    embeddings.mul_(2)
    return pairs


def relabelled(embeddings, labels, pairs):
    labels[:] = 0
    return pairs


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e, y, pairs: tuple(-part - 1 for part in pairs), "from 0 to 15, of the batch"),
        (lambda e, y, pairs: tuple(part + 16 for part in pairs), "from 0 to 15, of the batch"),
        (lambda e, y, pairs: tuple(part.float() for part in pairs), "as int64, got torch.float32"),
        (lambda e, y, pairs: (y == y[0],) * 3, "as int64, got torch.bool: of a mask"),
        (lambda e, y, pairs: (*pairs[:3], pairs[3][:-1]), "as many anchors as images beside them"),
        (lambda e, y, pairs: (*pairs[2:], *pairs[:2]), "images of another class as positives"),
        (lambda e, y, pairs: (*pairs[:2], *pairs[:2]), "images of the same class as negatives"),
        (lambda e, y, pairs: (*pairs[2:], pairs[2]), "images of another class as positives"),
        (scaled, "changes the embeddings that it gets"),
        (relabelled, "changes the labels that it gets"),
    ],
)
def test_a_miner_that_gives_no_places_of_its_classes_or_changes_its_inputs_is_refused(
    refused, change, reason
):
    @db.register_miner("Mine", summary="a test")
    def mine():
        return Mined(change)

    message = refused("miner=Mine")
    assert message.startswith("miner Mine ")
    assert reason in message


@pytest.mark.parametrize(
    ("made", "got"), [(None, "NoneType"), (Mined, "the class Mined"), (np.ones(3), "ndarray")]
)
def test_a_function_that_returns_no_miner_is_refused_and_not_taken_for_none(refused, made, got):
    @db.register_miner("Mine", summary="a test")
    def mine():
        return made

    assert f"miner Mine must return a torch Module, got {got}" in refused("miner=Mine")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda e, y, proxies: functional.cross_entropy(e.detach() @ proxies.T, y),
            "does not depend on the embeddings",
        ),
        (
            lambda e, y, proxies: functional.cross_entropy(e @ (proxies.detach() + 1).T, y),
            "has parameters, and depends on none of them",
        ),
        (
            lambda e, y, proxies: functional.cross_entropy(e.sub_(1) @ proxies.T, y),
            "changes the embeddings that it gets",
        ),
    ],
)
def test_a_loss_from_which_a_part_learns_nothing_is_refused(refused, change, reason):
    @db.register_loss("Mine", summary="a test")
    def mine(*, num_classes: int, dim: int):
        return Classifier(num_classes, dim, change)

    message = refused("loss=Mine", "miner=none")
    assert message.startswith("loss Mine ")
    assert reason in message


class Pooled(nn.Module):
    """A backbone of one convolution."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.layer(images).mean((2, 3))


def test_a_backbone_that_was_trained_in_another_phase_is_refused(refused):
    network = Pooled()

    @db.register_backbone("Mine", summary="a test")
    def mine():
        return network

    message = refused("model.backbone=Mine")
    assert "Mine must build a new module at each call, got parameters of an earlier one" in message


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda features: (features, features), "tuple"),
        (lambda features: {"features": features}, "dict"),
        (lambda features: None, "NoneType"),
    ],
    ids=["tuple", "dict", "nothing"],
)
def test_a_backbone_that_gives_no_tensor_is_refused_in_a_line(
    birds, cache_dir, tmp_path, change, got
):
    class Several(Pooled):
        def forward(self, images):
            return change(super().forward(images))

    @db.register_backbone("Mine", summary="a test")
    def mine():
        return Several()

    with pytest.raises(TypeError) as problem:
        train(birds, cache_dir, tmp_path / "runs", "model.backbone=Mine")
    line = describe_error(problem.value)
    assert f"backbone Mine must give a tensor of features, (batch, num_features), got {got}" in line


def test_a_loss_that_learned_in_another_phase_is_refused(refused):
    proxies = Classifier(8, 128, lambda e, y, proxies: (e @ proxies.T).square().mean())

    @db.register_loss("Mine", summary="a test")
    def mine():
        return proxies

    message = refused("loss=Mine", "miner=none")
    assert "Mine must build a new module at each call, got parameters of an earlier one" in message


def divided(images):
    return np.array_split(images, 2)


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda images, key: divided(np.random.permutation(images)), "the same batches of the"),
        (lambda images, key: divided(images) * key[2], "2 of 51 images in epoch 1 and 4 of 102"),
        (lambda images, key: (batch for batch in divided(images)), "got generator"),
        (lambda images, key: None, "got NoneType"),
        (lambda images, key: [batch * 1.0 for batch in divided(images)], "got float64 of shape"),
        (lambda images, key: [batch > 0 for batch in divided(images)], "got bool of shape (26,)"),
        (lambda images, key: images[:32].reshape(2, 4, 4), "got int64 of shape (4, 4)"),
    ],
)
def test_a_sampler_whose_batches_can_t_be_drawn_again_or_counted_on_is_refused(
    refused, draw, reason
):
    @db.register_sampler("Mine", summary="a test")
    def mine(images, key):
        return draw(images, key)

    message = refused("sampler=Mine")
    assert message.startswith("sampler Mine must ")
    assert reason in message


def test_a_sampler_that_shuffles_its_images_draws_the_same_in_a_run_that_goes_on(
    birds, cache_dir, tmp_path
):
    @db.register_sampler("Mine", summary="a test")
    def mine(images, key):
        np.random.default_rng(key[2]).shuffle(images)
        return divided(images)

    with pytest.raises(KeyboardInterrupt):
        train(birds, cache_dir, tmp_path / "stopped", "sampler=Mine", callback=StopsAfter(2))
    last_losses = []
    for out in ("stopped", "whole"):
        outcome = train(birds, cache_dir, tmp_path / out, "sampler=Mine")
        last_losses.append(db.load_run(outcome.folder).records[2]["train_loss"])
    assert last_losses[0] == last_losses[1]


def test_an_optimizer_or_schedule_that_can_t_make_a_step_is_refused(refused):
    @db.register_optimizer("Closing", summary="a test")
    def closing(parameters, *, lr: float = 0.1):
        return torch.optim.LBFGS([one for group in parameters for one in group["params"]], lr=lr)

    assert "optimizer Closing must make a step without arguments" in refused("optimizer=Closing")
    schedulers = {
        "Plateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "Nothing": lambda optimizer: None,
    }
    for name in schedulers:

        @db.register_schedule(name, summary="a test")
        def made(*, kind: str = name):
            return lambda optimizer, steps: schedulers[kind](optimizer)

    message = refused("schedule=Plateau")
    assert "schedule Plateau must go on without arguments after each step" in message
    assert "its step() needs metrics" in message
    assert "schedule Nothing must make a scheduler of torch" in refused("schedule=Nothing")
    db.register_schedule("Direct", summary="a test")(lambda: None)
    assert "schedule Direct must return a function of an optimizer" in refused("schedule=Direct")
