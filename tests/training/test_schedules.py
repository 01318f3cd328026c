"""Learning rates from step to step, pinned by numbers and by torch's own schedulers, and Ranger's
second pair of weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import photographed
from tiny import tiny, train
from torch import nn

from dml_bench.registry import optimizers, samplers, schedules
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.request import Outcome
from dml_bench.system.files import read_json, read_json_lines, write_json
from dml_bench.training import checkpoint, loop
from dml_bench.training.training_state import TrainingState


def optimizer(name: str = "sgd", **options: object) -> torch.optim.Optimizer:
    """Of one weight with rate 1 and one with rate 10."""
    groups = [
        {"params": [nn.Parameter(torch.ones(1))]},
        {"params": [nn.Parameter(torch.ones(1))], "lr": 10.0},
    ]
    return optimizers[name].build(
        groups, **optimizers[name].resolve({"lr": 1.0, **options}, "optimizer")
    )


def walk(
    learner: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    steps: int,
    key: str = "lr",
) -> np.ndarray:
    """(steps, groups) what each step was made with."""
    taken = []
    for _ in range(steps):
        taken.append(
            [group[key] if key in group else group["betas"][0] for group in learner.param_groups]
        )
        for group in learner.param_groups:
            for weight in group["params"]:
                weight.grad = weight.detach().clone()
        learner.step()
        schedule.step()
    return np.array(taken)


def make(
    name: str, learner: torch.optim.Optimizer, steps: int, **options: object
) -> torch.optim.lr_scheduler.LRScheduler:
    return schedules[name].build(**schedules[name].resolve(options, "schedule"))(learner, steps)


def rates(name: str, steps: int = 10, **options: object) -> list[float]:
    learner = optimizer()
    return walk(learner, make(name, learner, steps, **options), steps)[:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant", {"warmup": 0.4}, [0.25, 0.4375, 0.625, 0.8125, 1, 1, 1, 1, 1, 1]),
        ("cosine", {}, [1, 0.9755, 0.9045, 0.7939, 0.6545, 0.5, 0.3455, 0.2061, 0.0955, 0.0245]),
        (
            "cosine",
            {"warmup": 0.2},
            [0.5, 0.75, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381],
        ),
        ("flat_cosine", {"flat_part": 0.6}, [1, 1, 1, 1, 1, 1, 1, 0.8536, 0.5, 0.1464]),
        (
            "flat_cosine",
            {"flat_part": 0.6, "warmup": 0.2},
            [0.5, 0.75, 1, 1, 1, 1, 1, 0.8536, 0.5, 0.1464],
        ),
        (
            "flat_cosine",
            {"flat_part": 0.2, "warmup": 0.2},
            [0.5, 0.75, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381],
        ),
        ("steps", {}, [1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (
            "steps",
            {"milestones": [0.3], "gamma": 0.5, "warmup": 0.2},
            [0.5, 0.75, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
        ),
        (
            "one_cycle",
            {"rise": 0.5, "anneal": "linear"},
            [0.04, 0.28, 0.52, 0.76, 1, 0.8, 0.6, 0.4, 0.2, 4e-6],
        ),
    ],
)
def test_the_rate_of_each_step_is_that_of_the_definition(name, options, expected):
    assert rates(name, **options) == pytest.approx(expected, abs=5e-5)


def test_the_rates_are_those_of_torch_s_own_schedulers():
    from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

    for name, theirs in (
        ("cosine", lambda learner: CosineAnnealingLR(learner, 30)),
        ("steps", lambda learner: MultiStepLR(learner, [15, 22], 0.1)),
        (
            "one_cycle",
            lambda learner: OneCycleLR(learner, [1.0, 10.0], total_steps=30, cycle_momentum=False),
        ),
    ):
        mine, other = optimizer(), optimizer()
        assert np.array_equal(
            walk(mine, make(name, mine, 30), 30), walk(other, theirs(other), 30)
        ), name


@pytest.mark.parametrize("entry", list(schedules), ids=lambda entry: entry.name)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 60])
def test_every_schedule_keeps_groups_apart_never_passes_the_base_rate_and_lasts_all_training(
    entry, steps
):
    learner = optimizer()
    taken = walk(learner, make(entry.name, learner, steps), steps)
    assert taken[:, 1] == pytest.approx(10 * taken[:, 0])
    assert (taken[:, 0] <= 1 + 1e-12).all()
    assert (taken >= 0).all()


def test_a_constant_schedule_leaves_the_rate_as_it_is_to_the_last_bit():
    learner = optimizer(lr=0.1)
    taken = walk(learner, make("constant", learner, 1000), 1000)
    assert (taken == [0.1, 10.0]).all()


def test_one_cycle_lowers_momentum_where_there_is_some():
    def momenta(learner: torch.optim.Optimizer) -> list[float]:
        return walk(
            learner, make("one_cycle", learner, 10, rise=0.5, anneal="linear"), 10, "momentum"
        )[:, 0].tolist()

    dip = [0.9, 0.875, 0.85, 0.825, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9]
    assert momenta(optimizer(momentum=0.9)) == pytest.approx(dip)
    assert momenta(optimizer("adam")) == pytest.approx(dip)
    assert momenta(optimizer("ranger")) == pytest.approx([momentum + 0.05 for momentum in dip])
    assert momenta(optimizer(momentum=0.0)) == [0.0] * 10
    without = torch.optim.Adagrad([torch.zeros(1, requires_grad=True)], lr=0.1)
    assert max(walk(without, make("one_cycle", without, 10), 10)[:, 0]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule=cosin", r"unknown schedule 'cosin' \(did you mean cosine\?\)"),
        (
            "schedule={name='cosine', warmup=1.0}",
            "schedule.warmup must be a number from 0 to less than 1, got 1.0",
        ),
        (
            "schedule={name='constant', warmup=-0.1}",
            "schedule.warmup must be a number from 0 to less than 1, got -0.1",
        ),
        (
            "schedule={name='flat_cosine', warmup=0.8}",
            r"schedule.warmup must be a number from 0 to schedule.flat_part \(0.72\), got 0.8",
        ),
        (
            "schedule={name='steps', milestones=[0.7, 0.5]}",
            r"schedule.milestones must be ascending parts of the training, .*, got \[0.7, 0.5\]",
        ),
        (
            "schedule={name='steps', milestones=[1]}",
            r"schedule.milestones must be .* below 1, got \[1.0\]",
        ),
        ("schedule={name='steps', milestones=[]}", r"schedule.milestones must be .*, got \[\]"),
        (
            "schedule={name='steps', gamma=1.5}",
            "schedule.gamma must be a number between 0 and 1, got 1.5",
        ),
        (
            "schedule={name='one_cycle', rise=0}",
            "schedule.rise must be a number between 0 and 1, got 0.0",
        ),
        (
            "schedule={name='one_cycle', end_divisor=0.5}",
            "schedule.end_divisor must be at least 1, got 0.5",
        ),
    ],
)
def test_a_schedule_that_can_t_be_is_refused_when_the_experiment_is_read(setting, message):
    with pytest.raises(ValueError, match=message):
        tiny(setting)


@pytest.mark.parametrize("entry", list(samplers), ids=lambda entry: entry.name)
def test_a_sampler_makes_as_many_batches_of_the_same_sizes_in_every_epoch(entry):
    labels = np.repeat(np.arange(7), [3, 5, 9, 4, 12, 8, 6])
    options = entry.resolve({}, "sampler")
    sizes = {
        tuple(map(len, entry.build(np.arange(47), labels, 10, (42, "all", epoch), **options)))
        for epoch in range(1, 9)
    }
    assert len(sizes) == 1


# Ranger


def drift(learner: torch.optim.Optimizer, gradients: list[float]) -> list[float]:
    (weight,) = learner.param_groups[0]["params"]
    path = []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=weight.dtype)
        learner.step()
        path.append(weight.item())
    return path


def test_lookahead_goes_the_part_alpha_of_the_way_every_k_steps():
    from dml_bench.training.lookahead import Lookahead

    weight = nn.Parameter(torch.tensor([1.0]))
    learner = Lookahead(torch.optim.SGD([weight], lr=0.1), k=3, alpha=0.25)
    # by hand: down by 0.1 a step; at the third from 0.7 back to 1 + 0.25 (0.7 - 1) = 0.925; at the
    # sixth 0.925 + 0.25 (-0.3)
    assert drift(learner, [1.0] * 6) == pytest.approx([0.9, 0.8, 0.925, 0.825, 0.725, 0.85])


def test_ranger_with_an_alpha_of_one_is_radam():
    one, other = (nn.Parameter(torch.tensor([1.0])) for _ in range(2))
    gradients = [0.5, -0.2, 0.9, 0.4, 0.1, 0.3, 0.8, -0.5, 0.2, 0.6]
    ranger = optimizers["ranger"].build([one], lr=0.01, alpha=1.0)
    assert drift(ranger, gradients) == drift(
        torch.optim.RAdam([other], lr=0.01, betas=(0.95, 0.999), eps=1e-5), gradients
    )


def test_decoupled_decay_shrinks_a_weight_by_its_rate_and_leaves_the_steps_alone():
    gradients = [0.5, -0.2, 0.9, 0.4, 0.1, 0.3, 0.8, -0.5, 0.2, 0.6]

    def path(**options: float) -> list[float]:
        weight = nn.Parameter(torch.tensor([1.0]))
        return drift(optimizers["ranger"].build([weight], lr=0.01, alpha=1.0, **options), gradients)

    weight, by_hand, before = 1.0, [], 1.0
    for plain in path():
        weight = weight * (1 - 0.01 * 0.5) + plain - before
        before = plain
        by_hand.append(weight)
    assert path(weight_decay=0.5, decoupled=True) == pytest.approx(by_hand, abs=1e-6)
    assert path(weight_decay=0.5) != pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("k=0", "optimizer.k must be at least 1, got 0"),
        ("alpha=0", "optimizer.alpha must be a number above 0, up to 1, got 0.0"),
    ],
)
def test_a_ranger_that_can_t_be_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        tiny("optimizer=ranger", f"optimizer.{option}")


# In a run


def weights(folder: Path) -> list[bytes]:
    return [(folder / phase / "weights.safetensors").read_bytes() for phase in ("all", "limited")]


def records(folder: Path) -> list[dict[str, float]]:
    return read_json_lines(folder / "metrics.jsonl")


@pytest.mark.parametrize(
    "settings",
    [
        (
            "optimizer=ranger",
            "optimizer.k=5",
            "optimizer.lr=0.01",
            "schedule=flat_cosine",
            "schedule.flat_part=0.5",
        ),
        ("optimizer.momentum=0.9", "schedule=one_cycle"),
        (
            "schedule=cosine",
            "schedule.warmup=0.4",
            "loss=ProxyNCA",
            "miner=none",
            "train.proxy_lr_factor=10.0",
        ),
        ("schedule=steps",),
        pytest.param(
            ("model.trainable=head", "augment.random_crop_from=0", "augment.horizontal_flip=0"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["ranger and flat_cosine", "one_cycle", "cosine with proxies", "steps", "only a head"],
)
def test_a_run_that_stops_after_each_epoch_and_is_resumed_has_the_bits_of_one_that_never_stopped(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    settings: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable[..., Outcome],
):
    uninterrupted = trained(*settings).folder
    write, loads = checkpoint.write, []

    def stopping(saved: dict[str, object], path: Path) -> None:
        write(saved, path)
        raise KeyboardInterrupt

    load = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda run, path: (loads.append(path), load(run, path)))
    monkeypatch.setattr(checkpoint, "write", stopping)
    for _ in range(3 + 3):  # epochs of both phases
        with pytest.raises(KeyboardInterrupt):
            train(birds, cache_dir, tmp_path / "stopped", *settings)
    monkeypatch.setattr(checkpoint, "write", write)
    resumed = train(birds, cache_dir, tmp_path / "stopped", *settings).folder
    assert len(loads) >= 5
    assert weights(resumed) == weights(uninterrupted)
    assert [record["learning_rate"] for record in records(resumed)] == [
        record["learning_rate"] for record in records(uninterrupted)
    ]


def test_the_record_of_an_epoch_has_the_rate_that_it_began_with(
    birds: Path, cache_dir: Path, tmp_path: Path
):
    folder = train(
        birds, cache_dir, tmp_path, "schedule={name='steps', milestones=[0.4, 0.75], gamma=0.1}"
    ).folder
    rates = [record["learning_rate"] for record in records(folder)]
    assert rates == pytest.approx(
        [0.05, 0.05, 0.005] * 2
    )  # the milestones fall inside epochs 2 and 3


def test_a_schedule_of_one_rate_without_warm_up_changes_no_bit(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable[..., Outcome],
):
    scheduled = trained().folder
    original = loop.train_epoch

    def without(run: TrainingState, epoch: int) -> dict[str, object]:
        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.lr_scheduler.LRScheduler, "step", lambda _: None)
            return original(run, epoch)

    monkeypatch.setattr(loop, "train_epoch", without)
    assert weights(train(birds, cache_dir, tmp_path / "without").folder) == weights(scheduled)


def test_a_run_from_before_there_were_schedules_is_still_that_of_its_experiment(tmp_path: Path):
    folder = RunFolder(tmp_path, tiny(), "birds")
    folder.path.mkdir(parents=True)
    folder.claim(photographed())
    folder.write_records([{"phase": "all", "epoch": 1}])
    path = folder.path / "experiment.json"
    old = read_json(path)
    del old["schedule"]
    write_json(path, old)
    folder.claim(photographed())
    with pytest.raises(ValueError, match=r"another configuration \(differs in schedule.name"):
        RunFolder(tmp_path, tiny("schedule=cosine"), "birds").claim(photographed())
