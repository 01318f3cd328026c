import os
import signal
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # one process per core, one thread each: two threads that share a core wait for each other
os.environ["WANDB_MODE"] = "offline"
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore Ctrl-C, and so would the commands tested
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it


@pytest.fixture(scope="session")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn species with 8 images each at 40 px, in CUB's layout."""
    from dml_bench.data.synthetic import write

    return write(tmp_path_factory.mktemp("birds") / "CUB_200_2011", counts=[8] * 8, size=40, seed=3)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
