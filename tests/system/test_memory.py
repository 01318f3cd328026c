"""Memory that is freed and allocated again costs no page faults."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

TOUCH = """
import ctypes, resource
from dml_bench.system.memory import keep_freed_memory
library = ctypes.CDLL(None)
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
def touch(megabytes):  # as torch takes its tensors
    block = ctypes.c_void_p()
    assert not library.posix_memalign(ctypes.byref(block), 64, megabytes * 2**20)
    library.memset(block, 1, megabytes * 2**20)
    return block
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""
SCRIPT = (
    TOUCH
    + """
def faults_of_the_last_round():
    for _ in range(4):
        before = faults()
        for megabytes in (60, 100):
            library.free(touch(megabytes))
    return faults() - before
print(faults_of_the_last_round())
assert keep_freed_memory()
print(faults_of_the_last_round())
"""
)
FRESH = (
    TOUCH
    + """
assert keep_freed_memory()
before = faults()
touch(400)
print(faults() - before)
"""
)
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is glibc that can be asked"
)


def printed_by(script: str) -> str:
    """By a process to which glibc gives small pages by itself."""
    environment = {**os.environ, "GLIBC_TUNABLES": ""}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_blocks_that_were_freed_come_again_without_a_fault():
    given_back, kept = map(int, printed_by(SCRIPT).split())
    assert kept < 100 and given_back > 160 * 2**20 / 4096 / 2


@pytest.mark.slow
@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(encoding="utf-8"),
    reason="this kernel has no large pages for whoever asks",
)
def test_new_blocks_come_in_large_pages():
    assert int(printed_by(FRESH)) < 400 * 2**20 / 4096 / 10
