"""Every numeric option of every component: a value that it can't be is refused where the
configuration is read, and any other works."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import refusal, tiny
from torch import nn
from torch.nn import functional

from dml_bench import registry
from dml_bench.data.datasets.dataset import Where
from dml_bench.data.mixing import BatchRng
from dml_bench.losses.objective import Objective
from dml_bench.registry import Entry

VALUES = (math.nan, math.inf, -1, 0)
LABELS = torch.arange(16) % 4


def step(modules: list[nn.Module], loss: Callable[[], torch.Tensor]) -> None:
    """A step of training; all that it makes is finite."""
    value = loss()
    value.backward()
    assert torch.isfinite(value).all()
    assert all(
        p.grad is None or torch.isfinite(p.grad).all()
        for module in modules
        for p in module.parameters()
    )


def try_loss(entry: Entry, options: dict[str, Any], miner: nn.Module | None = None) -> None:
    torch.manual_seed(0)
    embed, loss = nn.Linear(6, 8), entry.build(4, 8, **options)
    objective = Objective(loss, miner, entry.facts["unit_vectors"])
    step([embed, loss], lambda: objective(embed(torch.randn(16, 6)), LABELS))


def try_miner(entry: Entry, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    try_loss(
        registry.losses["NTXent"],
        registry.losses["NTXent"].resolve({}, "loss"),
        entry.build(**options),
    )


def try_optimizer(entry: Entry, options: dict[str, Any]) -> None:
    model = nn.Linear(3, 2)
    optimizer = entry.build([{"params": model.parameters()}], **options)
    for _ in range(7):
        optimizer.zero_grad()
        functional.mse_loss(model(torch.ones(2, 3)), torch.zeros(2, 2)).backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())


def try_schedule(entry: Entry, options: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    schedule = entry.build(**options)(optimizer, 12)
    for _ in range(11):
        optimizer.step()
        schedule.step()
        assert math.isfinite(optimizer.param_groups[0]["lr"])


def try_head(entry: Entry, options: dict[str, Any]) -> None:
    head = entry.build(6, **options)
    features = torch.randn(5, 6, 4, 4) if entry.facts["takes_map"] else torch.randn(5, 6)
    step([head], lambda: head(features).square().mean())


def try_pooling(entry: Entry, options: dict[str, Any]) -> None:
    pooling = entry.build(**options)
    step([pooling], lambda: pooling(torch.rand(5, 6, 4, 4).requires_grad_()).mean())


def try_sampler(entry: Entry, options: dict[str, Any]) -> None:
    assert entry.build(np.arange(16), LABELS.numpy(), 8, (1,), **options)


def try_mixing(entry: Entry, options: dict[str, Any]) -> None:
    mixer = entry.build(**options)
    if mixer is not None:
        mix = mixer.mix(BatchRng(np.arange(8), 20, (1,), 0), np.arange(20), 32)
        assert np.isfinite(mix.kept).all() and np.isfinite(mix.share).all()


def try_labelling(entry: Entry, options: dict[str, Any]) -> None:
    entry.build(**options)


def try_start(entry: Entry, options: dict[str, Any]) -> None:
    stage = entry.build(tiny(), **options)
    assert stage.train.epochs >= 1


def try_dataset(entry: Entry, options: dict[str, Any]) -> None:
    small = options | {"classes": 2, "per_class": 2, "size": 16}
    with tempfile.TemporaryDirectory() as cache:
        where = Where(data_dir=None, cache_dir=Path(cache), progress=lambda *_: None)
        assert len(entry.build(where, **{key: small[key] for key in options}))


COMPONENTS = {
    registry.losses: ("loss", try_loss),
    registry.miners: ("miner", try_miner),
    registry.optimizers: ("optimizer", try_optimizer),
    registry.schedules: ("schedule", try_schedule),
    registry.heads: ("model.head", try_head),
    registry.poolings: ("model.pooling", try_pooling),
    registry.samplers: ("sampler", try_sampler),
    registry.mixings: ("mixing.technique", try_mixing),
    registry.labellings: ("labelling", try_labelling),
    registry.starts: ("start", try_start),
    registry.datasets: ("data.dataset", try_dataset),
}
NUMBERS = [
    pytest.param(where, attempt, entry, name, id=f"{where}-{entry.name}-{name}")
    for kind, (where, attempt) in COMPONENTS.items()
    for entry in kind
    for name, option in entry.options.items()
    if option.type in (int, float)
    and not (entry.name == "cub_shape" and name == "seed")  # 11,788 drawings
]


@pytest.mark.parametrize(("where", "attempt", "entry", "name"), NUMBERS)
def test_a_number_is_refused_in_one_line_or_trains_a_finite_step(
    where: str, attempt: Callable[..., None], entry: Entry, name: str
):
    for value in VALUES:
        try:
            options = entry.resolve({name: value}, where)
        except ValueError as problem:
            assert str(problem).startswith(f"{where}.") and "\n" not in str(problem)
            assert len(str(problem).split()) < 25
        else:
            assert math.isfinite(value)
            attempt(entry, options)


def test_there_is_no_number_without_a_range_but_seeds():
    unbounded = {
        name
        for kind in COMPONENTS
        for entry in kind
        for name, o in entry.options.items()
        if o.type in (int, float) and not o.range
    }
    assert unbounded == {"seed"}


def test_a_bound_may_be_another_option():
    resolve = registry.losses["Contrastive"].resolve
    assert resolve({"pos_margin": 0.5, "neg_margin": 0.5}, "loss")["neg_margin"] == 0.5
    with pytest.raises(
        ValueError,
        match=r"^loss\.neg_margin must be a number from loss\.pos_margin \(0\.5\) to 2, got 0\.4$",
    ):
        resolve({"pos_margin": 0.5, "neg_margin": 0.4}, "loss")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("optimizer.lr=-1", "error: optimizer.lr must be at least 0, got -1.0"),
        ("optimizer.lr=nan", "error: optimizer.lr must be a finite number, got nan"),
        ("loss.temperature=0", "error: loss.temperature must be a number above 0, got 0.0"),
        ("model.head.dim=0", "error: model.head.dim must be at least 1, got 0"),
        ("data.test_fraction=nan", "error: data.test_fraction must be a finite number, got nan"),
        (
            "train.proxy_lr_factor=inf",
            "error: train.proxy_lr_factor must be a finite number, got inf",
        ),
        ("optimizer.lr=1" + "0" * 400, "optimizer.lr must be a finite number, got 10000"),
    ],
)
def test_show_refuses_a_number_out_of_range(setting, line, monkeypatch, capsys):
    assert line in refusal(monkeypatch, capsys, "show", "EPSHN_cosine_resnet18", "--set", setting)
