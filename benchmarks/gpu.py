"""Everything that is to be known about a GPU, in one run of less than nine minutes.

    python benchmarks/gpu.py                       # on the machine with the GPU
    python benchmarks/gpu.py --device cpu --quick  # shows that it runs

Needs no download, no image files and no weights: images are numbers, as many and as large as those
of CUB-200-2011. Stages come in the order of their worth. Each is caught by itself and written to
gpu.json as it ends, so that one failure, or the end of a lease, costs only what was not begun; the
next start goes on with the stages that are not there. The page gpu.md is made from gpu.json.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from common import facts
from floor import Floor
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from usual_loop import UsualLoop

from dml_bench.config import Experiment
from dml_bench.config.experiments import resolve
from dml_bench.data.cache import ImageCache
from dml_bench.data.crops import DeviceCrops
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import ImageInputs
from dml_bench.data.split import Phase, Split, make_split
from dml_bench.evaluation.search import search
from dml_bench.registry import losses, miners, starts
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import choose_precision
from dml_bench.system.seeding import deterministic, seed_everything
from dml_bench.training import checkpoint, loop, validation
from dml_bench.training.batches import epoch_batches
from dml_bench.training.build import build
from dml_bench.training.cuda_graphs import GraphedNetwork
from dml_bench.training.training_state import TrainingState

MAIN = "EPSHN_cosine_resnet18_sgd_aug"
TRAINED, EMBEDDED = 1.791e6, 2.263e6
"""Images that one row of the study trains on and embeds, both phases and all epochs together."""
STUDY = Path(__file__).parent.parent / "experiments" / "tables" / "study.toml"


@dataclasses.dataclass(eq=False)
class Bench:
    """Images, a split, and the device on which they are measured."""

    device: torch.device
    quick: bool
    out: Path
    resident: dict[Path, DeviceCrops] = dataclasses.field(default_factory=dict)
    """What the device's memory holds of the images, for every network that is built."""
    made: dict[str, ImageCache] = dataclasses.field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sides in pixels: what the network sees, and height and width that crops are cut from."""
        return (32, 36, 48) if self.quick else (224, 246, 328)

    @property
    def num_steps(self) -> int:
        return 2 if self.quick else 30

    @cached_property
    def dataset(self) -> Dataset:
        num_classes, per_class = (6, 12) if self.quick else (200, 59)  # 11,800; CUB has 11,788
        labels = np.repeat(np.arange(num_classes), per_class)
        values = {
            "name": "numbers",
            "root": Path("/nowhere"),
            "paths": tuple(f"{label:03}/{image}.jpg" for image, label in enumerate(labels)),
            "labels": labels,
            "class_names": tuple(f"{label:03}" for label in range(num_classes)),
        }
        return Dataset(**values)

    @cached_property
    def split(self) -> Split:
        return make_split(self.dataset, method="stratified", test_fraction=0.2, seed=42)

    def images(self, height: int, width: int, name: str) -> ImageCache:
        """Images in memory: a tint per class, and noise."""
        if name in self.made:
            return self.made[name]
        labels, rng = self.dataset.labels, np.random.default_rng(0)
        tints = rng.integers(0, 128, (labels.max() + 1, 3), np.uint8)
        noise = rng.integers(0, 64, (height * width, 3), np.uint8)
        pixels = np.empty((len(labels), height * width, 3), np.uint8)
        for image, label in enumerate(labels):
            pixels[image] = noise + tints[label] + np.uint8(image % 64)
        num_bytes = height * width * 3
        self.made[name] = ImageCache(
            Path(f"/nowhere/{name}"),
            pixels.reshape(-1),
            np.arange(len(labels)) * num_bytes,
            np.full(len(labels), height),
            np.full(len(labels), width),
        )
        return self.made[name]

    def experiment(self, *overrides: str, name: str = MAIN) -> Experiment:
        size, height, _ = self.sizes
        fitting = ["model.weights=none", f"images.size={size}"]
        if resolve(name).augment.random_crop_from:
            fitting.append(f"augment.random_crop_from={height}")
        if self.quick:
            fitting.append("train.batch_size=16")
        return resolve(name, overrides=[*fitting, *overrides])

    def inputs(
        self, experiment: Experiment, device: torch.device, resident: bool = True
    ) -> ImageInputs:
        size, height, width = self.sizes
        view, larger = self.images(size, size, "view"), self.images(height, width, "train")
        needs_larger = experiment.augment.random_crop_from or experiment.augment.resized_crop
        trained = larger if needs_larger else view
        inputs = ImageInputs(experiment, len(self.dataset), trained, view, device)
        if not resident:
            inputs.keep_on_device = lambda: None  # type: ignore[method-assign]
        elif device.type == "cuda":
            inputs.resident = self.resident
        return inputs

    def state(
        self,
        experiment: Experiment,
        *,
        device: torch.device | None = None,
        precision: str | None = None,
        resident: bool = True,
    ) -> TrainingState:
        """A phase of an experiment, ready to train, as `dml-bench run` builds it."""
        device = device or self.device
        return build(
            experiment,
            Phase("all"),
            self.dataset,
            self.split,
            self.inputs(experiment, device, resident),
            device=device,
            precision=precision or choose_precision("auto", device),
            callback=Callback(),
        )

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], times: int = 5, warm: int = 2) -> float:
        """Median, after the device has done all that it was asked for."""
        for _ in range(warm):
            work()
        taken = []
        for _ in range(times):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def train(self, state: TrainingState, num_steps: int, first: int = 0) -> None:
        """Steps of an epoch, as `loop.train_epoch` does them."""
        state.embedder.train()
        state.objective.train()
        for step, images in enumerate(epoch_batches(state, 1)[first : first + num_steps]):
            loop.train_step(state, images, 1, step)

    def train_rate(self, state: TrainingState, num_steps: int = 0) -> float:
        """Training images a second."""
        num_steps = num_steps or self.num_steps
        images = sum(map(len, epoch_batches(state, 1)[:num_steps]))
        return images / self.seconds(lambda: self.train(state, num_steps), times=3, warm=1)

    def embed_rate(self, state: TrainingState) -> float:
        """Embedded images a second, of the whole data set."""
        images = np.concatenate([self.split.train, self.split.test])
        return len(images) / self.seconds(lambda: state.embed(images), times=2, warm=1)


def say(*values: Any) -> None:
    print(*values, flush=True)


def ceilings(bench: Bench) -> dict[str, Any]:
    """What the GPU is, and its two ceilings: arithmetic and memory."""
    result: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count()}
    if not bench.is_cuda:
        return result
    side = 8192
    left, right = (
        torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2)
    )
    source = torch.randint(256, (2**31,), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    product, copy = (
        bench.seconds(lambda: left @ right, 10),
        bench.seconds(lambda: target.copy_(source), 10),
    )
    return result | {
        "gpu": torch.cuda.get_device_name(),
        "cudnn": torch.backends.cudnn.version(),
        "precision_auto": choose_precision("auto", bench.device),
        "bfloat16_teraflops": 2 * side**3 / product / 1e12,
        "copy_terabytes_per_second": 2 * 2**31 / copy / 1e12,
    }


def parity(bench: Bench) -> dict[str, Any]:
    """Embeddings, loss and one step on the device against the CPU in float32; crops and
    augmentations against the CPU's, in levels; whether a seed gives the same bits again, and after
    an interruption."""
    return {
        "against_cpu": against_cpu(bench),
        "pixels": pixels_against_cpu(bench),
        "repeats": repeats(bench),
    }


def against_cpu(bench: Bench) -> dict[str, Any]:
    experiment = bench.experiment("augment.horizontal_flip=0")
    images = bench.split.train[:: max(1, len(bench.split.train) // 32)][:32]

    def one(device: torch.device, precision: str) -> tuple[np.ndarray, float, Tensor]:
        state = bench.state(experiment, device=device, precision=precision)
        embeddings, before = state.embed(images), flat(state)
        state.embedder.train()
        loss, _ = loop.train_step(state, images, 1, 0)
        return embeddings, float(loss), flat(state) - before

    embeddings, loss, update = one(torch.device("cpu"), "float32")
    result = {}
    for name, precision in (
        ("float32", "float32"),
        ("float32, TF32 allowed", "tf32" if bench.is_cuda else "float32"),
        ("bfloat16", "bfloat16"),
    ):
        other_embeddings, other_loss, other_update = one(bench.device, precision)
        result[name] = {
            "embeddings_max": float(np.abs(other_embeddings - embeddings).max()),
            "loss_relative": abs(other_loss - loss) / max(abs(loss), 1e-9),
            "update_relative": float((other_update - update).norm() / update.norm()),
        }
    return result


def flat(state: TrainingState) -> Tensor:
    """All tensors of the network, on the CPU, in a row."""
    return torch.cat(
        [part.flatten().float().cpu() for part in state.embedder.state_dict().values()]
    )


def pixels_against_cpu(bench: Bench) -> dict[str, Any]:
    result: dict[str, Any] = {}
    images = bench.split.train[:64]
    for name, overrides in {
        "crop": (),
        "colours": (
            "augment.color_jitter=0.8",
            "augment.grayscale=0.5",
            "augment.gaussian_blur=0.5",
            "augment.lighting=0.3",
        ),
        "geometry": (
            "augment.dihedral=0.5",
            "augment.rotate=20",
            "augment.zoom=1.3",
            "augment.warp=0.2",
        ),
        "resized_crop": ("augment.resized_crop=0.2",),
    }.items():
        experiment = bench.experiment(*overrides)
        here = bench.inputs(experiment, torch.device("cpu"))
        there = bench.inputs(experiment, bench.device)
        there.keep_on_device()
        expected, made = (
            inputs.train(images, phase="all", epoch=1).cpu().int() for inputs in (here, there)
        )
        rate = len(images) / bench.seconds(
            partial(there.train, images, phase="all", epoch=1), times=3, warm=1
        )
        result[name] = {
            "levels_max": int((expected - made).abs().max()),
            "images_per_second": rate,
        }
    return result


def repeats(bench: Bench) -> dict[str, bool]:
    weights: dict[str, Tensor] = {}
    kept = bench.out / "state.pt"
    for way in ("once", "again", "resumed", "kernel_by_kernel"):
        seed_everything(42)
        state = bench.state(bench.experiment())
        if way == "kernel_by_kernel":
            state.replica = None
        bench.train(state, bench.num_steps)
        if way == "resumed":
            checkpoint.save(state, kept)
            state = bench.state(bench.experiment())
            checkpoint.load(state, kept)
            kept.unlink()
        seed_everything(43)
        bench.train(state, bench.num_steps, first=2)
        weights[way] = flat(state)
    once = weights.pop("once")
    return {f"same_bits_{way}": torch.equal(once, other) for way, other in weights.items()}


def study(bench: Bench) -> dict[str, Any]:
    """Hours for the study's sixteen rows, from measured steps of each; and whether the parts of one
    row add up to a whole epoch is in `epoch`."""
    rows = tomllib.loads(STUDY.read_text(encoding="utf-8"))["rows"]
    result: dict[str, Any] = {}
    for name in rows if not bench.quick else (rows[0], rows[14]):
        try:
            result[name] = row_hours(bench, name)
        except Exception as error:
            result[name] = {"failed": in_short(error)}
        say("  ", name, result[name])
    hours = [row["hours"] for row in result.values() if "hours" in row]
    return {"rows": result, "hours": sum(hours), "rows_measured": len(hours)}


def row_hours(bench: Bench, name: str) -> dict[str, float]:
    state = bench.state(bench.experiment(name=name))
    train, embed = bench.train_rate(state, 20), bench.embed_rate(state)
    row = {"train_rate": train, "embed_rate": embed}
    seconds = TRAINED / train + EMBEDDED / embed
    start = state.experiment.start
    if start.name != "none":
        experiment = starts[start.name].build(state.experiment, **start.options)
        model = dataclasses.replace(experiment.model, weights="none")
        row["start_rate"] = bench.train_rate(
            bench.state(dataclasses.replace(experiment, model=model)), 10
        )
        seconds += TRAINED / row["start_rate"]
    return row | {"hours": seconds / 3600}


def epoch(bench: Bench) -> dict[str, Any]:
    """One epoch over the images of CUB as it comes, three times; what of it the GPU is busy, what
    the host needs for a step, and the most memory."""
    state = bench.state(bench.experiment())
    bench.train(state, 3)
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    train, embed, records = [], [], []
    for number in range(1, 2 if bench.quick else 4):
        bench.wait()
        start = time.perf_counter()
        records.append(loop.train_epoch(state, number))
        bench.wait()
        middle = time.perf_counter()
        validation.validate(state)
        bench.wait()
        train.append(records[-1]["train_images"] / (middle - start))
        embed.append(state.monitored.num_images / (time.perf_counter() - middle))
    kept = bench.out / "state.pt"
    result: dict[str, Any] = {
        "train_rates": train,
        "embed_rates": embed,
        "steps_only_rate": bench.train_rate(state),
        "embed_only_rate": bench.embed_rate(state),
        "checkpoint_seconds": bench.seconds(lambda: checkpoint.save(state, kept), 3, 1),
    }
    kept.unlink()
    trained = TRAINED / statistics.median(train)
    result["row_minutes"] = (trained + EMBEDDED / statistics.median(embed)) / 60
    if bench.is_cuda:
        result["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        result |= profiled(bench, state, 128 / result["steps_only_rate"])
    return result


def profiled(bench: Bench, state: TrainingState, step_seconds: float) -> dict[str, Any]:
    """Kernels of a step and their milliseconds; their share of a step that nobody watches is how
    busy the GPU is. Also the host's milliseconds for a step, which it does not wait in."""
    from torch.profiler import ProfilerActivity, profile

    num_steps = 10
    bench.train(state, 3)
    bench.wait()
    start = time.perf_counter()
    bench.train(state, num_steps)
    host = (time.perf_counter() - start) / num_steps
    bench.wait()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        bench.train(state, num_steps)
        bench.wait()
    rows = profiler.key_averages()
    # Rows of operators repeat the time of the kernels that they start.
    kernels = [row for row in rows if row.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(row.self_device_time_total for row in kernels) / num_steps / 1e6
    longest = sorted(kernels, key=lambda row: -row.self_device_time_total)
    profiler.export_chrome_trace(str(bench.out / "trace.json"))
    return {
        "step_ms": step_seconds * 1e3,
        "busy_ms": busy * 1e3,
        "busy_share": busy / step_seconds,
        "host_ms": host * 1e3,
        "kernels": sum(row.count for row in kernels) / num_steps,
        "longest_ms": {
            row.key[:90]: row.self_device_time_total / num_steps / 1e3 for row in longest[:16]
        },
    }


def loops(bench: Bench) -> dict[str, Any]:
    """The network alone on one batch that is there; the bare loop; the loop that people write, with
    0, 8 and 16 workers, as it is and with its two lines of bfloat16 and channels-last, on JPEG
    files."""
    result: dict[str, Any] = {"network_alone": network_alone(bench)}
    few = 64 if bench.quick else 4096
    numbers = np.arange(few)
    size, height, width = bench.sizes
    larger, view = bench.images(height, width, "train"), bench.images(size, size, "view")
    bare = Floor(
        [np.array(larger[image]) for image in numbers],
        np.stack([view[image] for image in numbers]),
        bench.dataset.labels[:few],
        numbers[numbers % 5 > 0],
        numbers[::5],
        batch_size=16 if bench.quick else 128,
        device=bench.device,
        dtype=torch.bfloat16,
    )
    result["bare"] = {
        "train_rate": len(bare.train_images) / bench.seconds(bare.train_epoch, 2, 1),
        "embed_rate": few / bench.seconds(bare.evaluate, 2, 1),
    }
    say("  ", result)
    classes, per_class = (4, 10) if bench.quick else (128, 24)
    root = photographs(bench.out / "photographs", classes, per_class)
    images = np.arange(classes * per_class)
    ways = [(workers, lines) for lines in (False, True) for workers in (0, 8, 16)]
    for workers, two_lines in [(0, False), (1, True)] if bench.quick else ways:
        usual = UsualLoop(
            root,
            images[images % 5 > 0].tolist(),
            images[images % 5 == 0].tolist(),
            size=size,
            crop_from=height,
            batch_size=16 if bench.quick else 128,
            workers=workers,
            device=bench.device,
            two_lines=two_lines,
        )
        name = f"usual, {workers} workers" + (", two lines" if two_lines else "")
        train, embed = bench.seconds(usual.train_epoch, 1, 0), bench.seconds(usual.evaluate, 1, 0)
        result[name] = {
            "train_rate": int((images % 5 > 0).sum()) / train,
            "embed_rate": len(images) / embed,
        }
        say("  ", name, result[name])
    return result


def network_alone(bench: Bench) -> dict[str, float]:
    """torchvision's network with a classifier on one batch: no loading, no mining, nothing equal
    from run to run. Nobody's loop is faster without changing the network."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    batch = 16 if bench.quick else 128
    network = models.resnet18(weights=None).to(bench.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, fused=bench.is_cuda)
    size = bench.sizes[0]
    pixels = torch.randn(batch, 3, size, size, device=bench.device)
    pixels = pixels.to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=bench.device)

    def train() -> None:
        for _ in range(bench.num_steps):
            with torch.autocast(bench.device.type, dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(network(pixels), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def embed() -> None:
        for _ in range(bench.num_steps):
            with torch.autocast(bench.device.type, dtype=torch.bfloat16):
                network(pixels)

    images = batch * bench.num_steps
    rates = {"train_rate": images / bench.seconds(train, 3, 1)}
    network.eval()
    rates["embed_rate"] = images / bench.seconds(embed, 3, 1)
    torch.backends.cudnn.benchmark = False
    deterministic()
    return rates


def draw(root: Path, per_class: int, label: int) -> None:
    """Photographs of the size and weight of CUB's."""
    rng, folder = np.random.default_rng(label), root / f"{label:03}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(per_class):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        large = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 14, large.shape).astype(np.int16)
        image = Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))
        image.save(folder / f"{number:02}.jpg", quality=90)


def photographs(root: Path, classes: int, per_class: int) -> Path:
    """A folder per class of JPEG files."""
    root = Path("/tmp") / f"{root.name}-{classes}x{per_class}"
    if not root.exists():
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
            list(pool.map(partial(draw, root, per_class), range(classes)))
    return root


def audit(bench: Bench) -> dict[str, Any]:
    """Of every loss and miner one step: how often the host waits for the device, and what has no
    deterministic form."""
    result: dict[str, Any] = {}
    entries = [("loss", entry.name) for entry in losses] + [("miner", e.name) for e in miners]
    for kind, name in entries:
        chosen = (f"loss={name}", "miner=none")
        if kind == "miner":
            chosen = ("loss=TripletMargin", f"miner={name}")
        try:
            state = bench.state(bench.experiment(*chosen))
            bench.train(state, 1)
            result[f"{kind} {name}"] = heard(bench, state)
        except Exception as error:
            result[f"{kind} {name}"] = {"failed": in_short(error)}
    return result


def heard(bench: Bench, state: TrainingState) -> dict[str, Any]:
    """What torch warns of in one step."""
    with warnings.catch_warnings(record=True) as caught, host_waits(bench):
        warnings.simplefilter("always")
        bench.train(state, 1)
    texts = [str(warning.message) for warning in caught]
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    return {
        "waits": len(waits),
        "where": sorted({f"{Path(wait.filename).name}:{wait.lineno}" for wait in waits}),
        "not_deterministic": sorted(
            {text.split(" does not")[0] for text in texts if "deterministic" in text}
        ),
    }


@contextmanager
def host_waits(bench: Bench) -> Iterator[None]:
    """Torch warns when the host waits for the GPU."""
    if not bench.is_cuda:
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def what_if(bench: Bench) -> dict[str, Any]:
    """One change at a time against what is shipped: training images a second, and embedded ones by
    the size of a batch."""
    result: dict[str, Any] = {}

    def timed(name: str, change: Callable[[TrainingState], None] | None = None, **options: Any):
        overrides = options.pop("overrides", ())
        start = time.perf_counter()
        try:
            state = bench.state(bench.experiment(*overrides), **options)
            if change:
                change(state)
            result[name] = bench.train_rate(state)
        except Exception as error:
            result[name] = in_short(error)
        say("  ", name, result[name], f"({time.perf_counter() - start:.1f} s)")

    timed("as it comes")
    timed("float32", precision="float32")
    timed("batches uploaded", resident=False)
    timed("no miner (crossentropy)", overrides=("loss=crossentropy", "miner=none"))
    if not bench.quick:
        timed("batches of 32", overrides=("train.batch_size=32",))
        timed("batches of 512", overrides=("train.batch_size=512",))
    timed("contiguous memory", contiguous)
    timed("kernel by kernel", kernel_by_kernel)
    if bench.is_cuda:
        timed("fused optimizer", fused)
    torch.use_deterministic_algorithms(False)
    timed("not deterministic")
    if bench.is_cuda:
        torch.backends.cudnn.benchmark = True
        timed("not deterministic, cudnn.benchmark")
        timed("the same, fused optimizer", fused)
        if not bench.quick:
            timed("the same, torch.compile", compiled)
        torch.backends.cudnn.benchmark = False
    deterministic()
    for size in (16,) if bench.quick else (128, 256, 512, 1024):
        state = bench.state(bench.experiment(f"evaluate.batch_size={size}"))
        result[f"embedding, batches of {size}"] = bench.embed_rate(state)
        say("   embedding", size, result[f"embedding, batches of {size}"])
    return result


def contiguous(state: TrainingState) -> None:
    state.embedder.to(memory_format=torch.contiguous_format)


def fused(state: TrainingState) -> None:
    for group in state.optimizer.param_groups:
        group["fused"], group["foreach"] = True, False


def kernel_by_kernel(state: TrainingState) -> None:
    state.replica = None


def compiled(state: TrainingState) -> None:
    """The replay of a network whose layers torch has joined."""
    assert isinstance(state.replica, GraphedNetwork)
    state.replica.network = torch.compile(state.embedder)  # type: ignore[assignment]


def searching(bench: Bench) -> dict[str, Any]:
    """Exact search, seconds: FAISS on the CPU, as it comes; one matrix product with topk on the
    device."""
    result, rng = {}, np.random.default_rng(0)
    for count, dim, k in (
        ((500, 32, 10),) if bench.quick else ((12_000, 128, 60), (60_000, 512, 60))
    ):
        vectors = rng.normal(size=(count, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        labels = np.arange(count) // 60
        on_device = torch.from_numpy(vectors).to(bench.device)

        def product(on_device: Tensor = on_device, k: int = k) -> None:
            for part in on_device.split(4096):
                torch.topk(part @ on_device.T, k + 1)

        result[f"{count} x {dim}"] = {
            "faiss_seconds": bench.seconds(
                partial(search, vectors, vectors, labels, labels, k), 1, 0
            ),
            "device_seconds": bench.seconds(product, 3, 1),
        }
    return result


STAGES: tuple[Callable[[Bench], dict[str, Any]], ...] = (
    ceilings,
    parity,
    study,
    epoch,
    loops,
    audit,
    what_if,
    searching,
)


def in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works")
    parser.add_argument("--only", default="", help="stages, with commas between them")
    parser.add_argument("--again", action="store_true", help="also what gpu.json already holds")
    parser.add_argument("--seconds", type=float, default=520, help="begin no stage after these")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    begun = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    deterministic()
    bench = Bench(torch.device(options.device), options.quick, options.out)
    kept = options.out / "gpu.json"
    result: dict[str, Any] = facts()
    if kept.exists() and not options.again:
        result |= json.loads(kept.read_text(encoding="utf-8"))
    for stage in STAGES:
        name = stage.__name__
        if name in result or (options.only and name not in options.only.split(",")):
            continue
        if time.perf_counter() - begun > options.seconds:
            say(f"no time left for {name}")
            continue
        start = time.perf_counter()
        try:
            result[name] = stage(bench)
        except Exception as error:
            traceback.print_exc()
            result[name] = {"failed": in_short(error)}
        result[name]["stage_seconds"] = time.perf_counter() - start
        say(f"[{time.perf_counter() - begun:5.0f} s] {name}: {json.dumps(result[name])[:4000]}")
        kept.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
