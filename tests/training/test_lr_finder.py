"""The learning-rate finder: what it reads off a curve, and that it trains on training images alone
and leaves nothing behind."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SETTINGS, tiny

from dml_bench.cli import app
from dml_bench.config.experiments import resolve
from dml_bench.data.inputs import ImageInputs
from dml_bench.system.callbacks import Callback
from dml_bench.training.lr_finder import RateSweep, begun, explodes, smoothed, sweep, swept

RATES = np.geomspace(1e-6, 1.0, 61)
"""Ten steps for each power of ten."""


def valley() -> np.ndarray:
    """Loss 3 up to 1e-4, down a straight line to 1 at 1e-2, flat to 1e-1, then up."""
    powers = np.log10(RATES)
    return np.interp(powers, [-6, -4, -2, -1, 0], [3, 3, 1, 1, 9])


def test_the_suggestion_is_where_the_loss_falls_fastest_and_a_tenth_of_where_it_is_lowest():
    sweep = RateSweep("mine", RATES, valley() + 0.01 * np.sin(np.arange(61)))
    assert sweep.lowest is not None and sweep.steepest is not None
    assert 1e-2 < RATES[sweep.lowest] < 1e-1
    assert 10**-3.5 < RATES[sweep.steepest] < 10**-2.5
    low, fast = f"{RATES[sweep.lowest] / 10:.2g}", f"{RATES[sweep.steepest]:.2g}"
    assert sweep.suggestion().startswith(
        f"optimizer.lr = {fast}, where the loss falls fastest, or {low}, a tenth of the rate"
    )
    assert sweep.suggestion().endswith("the loss exploded at 1")


def test_there_is_no_suggestion_where_the_loss_never_fell():
    sweep = RateSweep("mine", RATES, np.linspace(1, 2, 61))
    assert (sweep.lowest, sweep.steepest) == (None, None)
    assert sweep.suggestion() == "no suggestion: the loss never fell between 1e-06 and 1"


@pytest.mark.parametrize(
    ("losses", "answer"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, float("nan")], True),
        ([float("inf")], True),
        ([1.0] * 6 + [9.0], False),  # a single batch
        ([1.0] * 6 + [4.1] * 5, True),
        ([1.0] * 6 + [3.9] * 5, False),
        ([5.0] * 6 + [1.0] * 5 + [4.1] * 5, True),
        ([4.1] * 6 + [1.0] * 5, False),
    ],
)
def test_a_loss_explodes_where_its_mean_over_five_steps_is_four_times_the_lowest_such_mean(
    losses, answer
):
    assert explodes(np.array(losses)) is answer


def test_losses_are_smoothed_over_nine_steps_around_each():
    impulse = np.zeros(21)
    impulse[10] = 9.0
    assert smoothed(impulse) == pytest.approx([0] * 6 + [1] * 9 + [0] * 6)
    assert smoothed(np.arange(20.0))[0] == pytest.approx(2.0)  # the mean of 0 to 4


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Indices of the images that were looked at, by what for."""
    seen: dict[str, set[int]] = {"train": set(), "view": set()}
    train, view = ImageInputs.train, ImageInputs.view

    def spied_train(self: ImageInputs, images: np.ndarray, **how: object) -> torch.Tensor:
        seen["train"].update(images.tolist())
        return train(self, images, **how)

    def spied_view(self: ImageInputs, images: np.ndarray) -> torch.Tensor:
        seen["view"].update(images.tolist())
        return view(self, images)

    monkeypatch.setattr(ImageInputs, "train", spied_train)
    monkeypatch.setattr(ImageInputs, "view", spied_view)
    return seen


def command(birds: Path, cache_dir: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    places = [
        "--data-dir",
        str(birds),
        "--cache-dir",
        str(cache_dir),
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    return ["dml-bench", "lr-find", "EPSHN_cosine_resnet18_sgd_aug", *settings, *places, *more]


def test_the_command_writes_a_picture_and_its_numbers_and_nothing_else(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    fed: dict[str, set[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        command(
            birds, cache_dir, Path("found/lr.png"), "--steps", "20", "--low", "1e-4", "--high", "1"
        ),
    )
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["found", "lr.csv", "lr.png"]
    assert (tmp_path / "found" / "lr.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "found" / "lr.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"learning_rate", "loss", "smoothed_loss"}
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-4)
    assert len(rows) == 20 and float(rows[-1]["learning_rate"]) == pytest.approx(1)
    assert "lr.png: " in capsys.readouterr().out
    assert len(fed["train"]) == 37, "the training images of phase limited"
    assert max(fed["train"]) < 48, "a class that is held out has no say in the rate"
    assert fed["view"] == set(), "nothing is evaluated"


def test_a_sweep_is_the_same_each_time_and_starts_at_the_lowest_rate(birds: Path, cache_dir: Path):
    where = {
        "data_dir": birds,
        "cache_dir": cache_dir,
        "device": "cpu",
        "callback": Callback(),
        "steps": 9,
    }
    one, other = (sweep(tiny(), low=1e-3, high=1e-1, **where) for _ in range(2))
    assert np.array_equal(one.losses, other.losses)
    lower = sweep(tiny(), low=1e-4, high=1e-1, **where)
    assert lower.losses[0] == one.losses[0], "the loss is that from before the step"
    assert lower.losses[1] != one.losses[1]


@pytest.mark.parametrize(("holdouts", "trained", "warnings"), [(3, 2, 0), (4, 6, 1)])
def test_the_rate_knows_no_class_that_a_rotated_hold_out_holds_out_where_two_are_left(
    birds: Path, cache_dir: Path, holdouts: int, trained: int, warnings: int
):
    said: list[str] = []
    callback = Callback()
    callback.warn = said.append
    state = begun(tiny(f"unseen=random:2 x {holdouts}"), birds, cache_dir, "cpu", callback)
    assert len(set(state.dataset.labels[state.images])) == trained
    assert len(said) == warnings


def test_a_sampler_without_batches_ends_a_sweep(birds: Path, cache_dir: Path, monkeypatch):
    """It was asked again and again, without end."""
    state = begun(tiny(), birds, cache_dir, "cpu", Callback())
    monkeypatch.setattr("dml_bench.training.lr_finder.epoch_batches", lambda state, epoch: [])
    with pytest.raises(ValueError, match="sampler .* gives no batch in epoch 1, of which a rate"):
        swept(state, RATES)


def test_the_proxies_keep_their_multiple_of_the_rate(birds: Path, cache_dir: Path):
    experiment = tiny(
        "loss=ProxyNCA", "miner=none", "train.proxy_lr_factor=50.0", "schedule=one_cycle"
    )
    run = begun(experiment, birds, cache_dir, "cpu", Callback())
    steps: list[list[float]] = []
    run.optimizer.register_step_pre_hook(
        lambda learner, *_: steps.append([group["lr"] for group in learner.param_groups])
    )
    swept(run, np.array([0.001, 0.002, 0.004]))
    assert np.array(steps) == pytest.approx(np.array([[0.001, 0.05], [0.002, 0.1], [0.004, 0.2]]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--low", "1", "--high", "0.1"],
            "--low and --high must be positive rates, the lower one first, got 1 and 0.1",
        ),
        (
            ["--low", "0"],
            "--low and --high must be positive rates, the lower one first, got 0 and 10",
        ),
        (["--steps", "5"], "--steps must be at least 9, got 5"),
        (["--out", "lr.pdf"], "--out lr.pdf: the name must end in .png or .svg, e.g. --out lr.png"),
    ],
)
def test_a_sweep_that_can_t_be_is_refused_in_one_line(
    birds: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more,
    message,
):
    monkeypatch.setattr(sys, "argv", command(birds, cache_dir, tmp_path / "lr.png", *more))
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("experiment", "rates", "message"),
    [
        (tiny("optimizer.lr=0"), {}, "lr-find needs an optimizer.lr above 0, .*: --set optimiz"),
        (resolve("linearprobe_resnet18"), {}, "optimizer linear_probe makes no steps, .*: name"),
        (tiny(), {"high": float("inf")}, "--low and --high must be positive rates, .* and inf"),
    ],
)
def test_an_experiment_without_a_rate_is_one_line(experiment, rates, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep(experiment, data_dir=None, cache_dir=tmp_path, callback=Callback(), **rates)
