"""What only a machine with GPUs chooses, where the answers of the driver are stand-ins."""

from functools import partial
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dml_bench.system import distributed
from dml_bench.system.devices import LaterNumber, choose_device
from dml_bench.training.fused_sgd import FusedSGD
from dml_bench.training.optimizers import all_on, sgd, tensors_of


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def torchrun(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    there = {"RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": 4}
    for name, value in {**there, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("two_gpus")
def test_a_process_takes_the_gpu_that_is_there(monkeypatch):
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    torchrun(monkeypatch, 1)
    assert choose_device("auto") == torch.device("cuda:1"), "a process of torchrun has its own"
    with pytest.raises(ValueError, match="--device cuda:0: torchrun gives each process a GPU"):
        choose_device("cuda:0")
    torchrun(monkeypatch, 3)
    with pytest.raises(ValueError, match="more processes than GPUs; --nproc-per-node 2, or"):
        choose_device("auto")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA device is visible to torch; --device cpu, or"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="--device must be auto, cpu, cuda or cuda:1, got 'tpu'"):
        choose_device("tpu")
    for name in ("cpu:abc", "cuda:", "cudafoo"):
        with pytest.raises(ValueError, match=f"cuda:1, got '{name}'"):
            choose_device(name)


def test_processes_of_a_gpu_exchange_by_nccl_and_decide_by_gloo(monkeypatch):
    calls: list[Any] = []
    torchrun(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: calls.append(backend)
    )
    here = distributed._here.get()
    try:
        distributed.init(torch.device("cuda:1"))
        assert calls == [torch.device("cuda:1"), "cpu:gloo,cuda:nccl"]
        assert distributed.world_size() == 4
    finally:
        distributed._here.set(here)


class Event:
    """Of a copy, as CUDA has them."""

    def __init__(self) -> None:
        self.recorded = self.done = False
        self.waits = 0

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waits, self.done = self.waits + 1, True


class NumberOnGPU:
    """A number that is copied without waiting."""

    device = torch.device("cuda")

    def detach(self) -> "NumberOnGPU":
        return self

    def to(self, device: str, *, non_blocking: bool) -> torch.Tensor:
        assert (device, non_blocking) == ("cpu", True)
        return torch.tensor(2.5)


def test_a_number_of_a_gpu_is_read_when_its_copy_is_done_and_no_sooner(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    number: Any = LaterNumber(NumberOnGPU())  # type: ignore[arg-type]
    assert number.copied.recorded
    assert not number.is_known()
    assert (float(number), number.copied.waits) == (2.5, 1)
    assert number.is_known()
    at_once = LaterNumber(torch.tensor(1.5))
    assert (at_once.is_known(), float(at_once)) == (True, 1.5)


def test_optimizers_are_fused_where_all_that_learns_is_on_one_kind_of_device():
    on_cpu = torch.zeros(2)
    with FakeTensorMode():
        on_gpu = torch.zeros(2, device="cuda")
    assert all_on("cuda", [on_gpu])
    assert all_on("cuda", tensors_of([{"params": [on_gpu]}]))
    assert not all_on("cuda", [on_gpu, on_cpu])
    assert not all_on("cpu", [on_gpu, on_cpu])
    assert not all_on("cuda", [])


@pytest.mark.parametrize("size", [10_007, 10_000])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.37])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_steps_of_fused_sgd_have_the_same_bits(size, momentum, weight_decay, nesterov):
    settings = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov, "lr": 0.3}
    begin = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ends = []
    for make in (sgd, partial(torch.optim.SGD, fused=False)):
        weights = torch.nn.Parameter(begin.clone())
        optimizer = make([weights], **settings)
        random = torch.Generator().manual_seed(1)
        for _ in range(5):
            weights.grad = torch.randn(weights.shape, generator=random)
            optimizer.step()
        ends.append(weights.detach())
    assert isinstance(sgd([weights]), FusedSGD) == (size == 10_000)
    assert torch.equal(*ends)
