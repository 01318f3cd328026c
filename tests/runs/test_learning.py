"""Components of one's own that would leave nothing to learn, or give numbers of other classes, are
refused before anything is trained."""

import numpy as np
import pytest
import torch
from steps import Heard
from tiny import train
from torch import nn

import dml_bench as db
from dml_bench.runs.arrays import write_logits

pytestmark = pytest.mark.usefixtures("plugins_removed")


class Classifier(nn.Module):
    """A softmax classifier; `change` is what its logits go through."""

    def __init__(self, num_classes: int, dim: int, change) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, num_classes)
        self.change = change

    def forward(self, embeddings, labels):
        return nn.functional.cross_entropy(self.layer(embeddings), labels)

    def logits(self, embeddings):
        return self.change(self.layer(embeddings))


class Head(nn.Module):
    """A linear head that says it gives `dim` numbers; `change` is what they go through."""

    def __init__(self, num_features: int, change, dim: int = 8) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(num_features, 8)
        self.change = change

    def forward(self, features):
        return self.change(self.layer(features))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda logits: logits[:, :-1], r"(2, 7): mend"),
        (lambda logits: logits[:, 0], r"(2,): mend"),
        (lambda logits: logits.T, r"(8, 2): mend"),
        (lambda logits: logits.tolist(), "list: mend"),
        (lambda logits: logits * torch.nan, "numbers that are not finite: mend"),
    ],
)
def test_logits_that_are_not_one_finite_number_for_each_class_are_refused(refused, change, got):
    @db.register_loss("Mine", summary="a test", classifies=True)
    def mine(*, num_classes: int, dim: int):
        return Classifier(num_classes, dim, change)

    message = refused("loss=Mine", "miner=none")
    assert "loss Mine must have logits(embeddings) of one number for each class, (2, 8)" in message
    assert f"got {got}" in message


def test_logits_that_stop_being_finite_end_a_run(tmp_path):
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan]], np.float32)
    with pytest.raises(ValueError, match="logits of 1 of 2 queries are not finite: mend"):
        write_logits(tmp_path / "logits.safetensors", np.arange(2), probabilities)


def test_an_optimizer_that_lacks_parameters_is_refused(refused):
    @db.register_optimizer("Lazy", summary="a test")
    def lazy(parameters, *, lr: float = 0.1):
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)

    message = refused("optimizer=Lazy")
    assert "optimizer Lazy lacks" in message
    assert "(first: backbone.conv1.0.weight), which would stay as they are: hand it" in message


@pytest.mark.parametrize(
    ("batches", "got"), [(lambda images: [], "none"), (lambda images: [images[:1]], "one of 1")]
)
def test_a_sampler_without_batches_of_two_images_is_refused(refused, batches, got):
    @db.register_sampler("Empty", summary="a test")
    def empty(images, labels, batch_size, key):
        return batches(images)

    message = refused("sampler=Empty")
    assert (
        f"sampler Empty must give batches of at least 2 images in phase all, got {got}" in message
    )


def test_a_head_that_gives_other_numbers_than_it_says_is_refused(refused):
    @db.register_head("Wide", summary="a test")
    def wide(num_features):
        return Head(num_features, lambda outputs: outputs, dim=9)

    message = refused("model.head=Wide")
    assert "embeddings of shape (2, 9), as its head says by dim, got (2, 8)" in message


def test_a_head_by_which_queries_would_depend_on_each_other_is_refused(refused):
    @db.register_head("Centred", summary="a test")
    def centred(num_features):
        return Head(num_features, lambda outputs: outputs - outputs.mean(dim=0))

    message = refused("model.head=Centred")
    assert "gives an image another embedding beside another image" in message


@pytest.mark.parametrize(
    "change", [lambda outputs: outputs.detach(), lambda outputs: outputs.data + 1]
)
def test_a_head_that_learns_nothing_is_refused(refused, change):
    @db.register_head("Cut", summary="a test")
    def cut(num_features):
        return Head(num_features, change)

    message = refused("model.head=Cut")
    assert "head Cut has parameters, and the embeddings depend on none of them" in message


def test_a_backbone_that_learns_nothing_is_refused(refused):
    @db.register_backbone("Cut", summary="a test")
    def cut():
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.num_features = 8
        network.register_forward_hook(lambda _, inputs, outputs: outputs.detach())
        return network

    message = refused("model.backbone=Cut")
    assert "backbone Cut has parameters, and the embeddings depend on none of them" in message


class Scheduler(torch.optim.lr_scheduler.LRScheduler):
    """Keeps its rates as an array, which no checkpoint is read back with."""

    def __init__(self, optimizer, steps: int) -> None:
        self.rates = np.linspace(0.1, 0.01, steps + 1)
        super().__init__(optimizer)

    def get_lr(self):
        return [float(self.rates[self.last_epoch])] * len(self.base_lrs)


class Counting(torch.optim.SGD):
    """`keep` is called with its state at each step."""

    def __init__(self, parameters, lr: float, keep) -> None:
        super().__init__(parameters, lr=lr)
        self.keep, self.steps = keep, 0

    def step(self, closure=None):
        self.steps += 1
        self.keep(self.state[self.param_groups[0]["params"][0]])
        return super().step(closure)


def test_what_no_checkpoint_could_be_read_back_with_is_refused_after_an_epoch(refused):
    @db.register_schedule("Falling", summary="a test")
    def falling():
        return Scheduler

    @db.register_optimizer("Keeping", summary="a test")
    def keeping(parameters, *, lr: float = 0.1):
        return Counting(parameters, lr, lambda state: state.update(norm=np.float64(1)))

    message = refused("schedule=Falling")
    assert "schedule Falling keeps what no checkpoint could be read back with (numpy." in message
    message = refused("optimizer=Keeping")
    assert "optimizer Keeping keeps what no checkpoint could be read back with (numpy." in message


class Pull(nn.Module):
    """A loss that also keeps how often it was computed, in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(1))
        self.steps, self.same, self.lost = 0, [1, 2], torch.Generator()

    def forward(self, embeddings, labels, mined=None):
        self.kept += 1
        self.steps += 1
        torch.rand(1, generator=self.lost)
        return (embeddings @ embeddings.T).square().mean()


def test_what_a_run_that_goes_on_would_lack_is_said_after_an_epoch(birds, cache_dir, tmp_path):
    @db.register_loss("Own", summary="a test")
    def own():
        return Pull()

    @db.register_optimizer("Counted", summary="a test")
    def counted(parameters, *, lr: float = 0.1):
        return Counting(parameters, lr, lambda state: None)

    heard = Heard()
    settings = ("train.epochs=2", "loss=Own", "miner=none", "optimizer=Counted")
    train(birds, cache_dir, tmp_path / "runs", *settings, callback=heard)
    said = [
        text.partition(" as it trains, and no checkpoint keeps it")[0] for text in heard.warnings
    ]
    of_a_phase = [
        "loss Own changes lost",
        "loss Own changes steps",
        "optimizer Counted changes steps",
    ]
    assert [text for text in said if "changes" in text] == of_a_phase * 2
