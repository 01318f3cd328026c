"""Memory that is freed and allocated again costs no page faults."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from dml_bench.system.memory import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def faults_of_the_last_round():
    for _ in range(8):
        before = faults()
        for megabytes in (60, 100):
            torch.empty(megabytes * 2**20, dtype=torch.uint8).fill_(1)
    return faults() - before
print(faults_of_the_last_round())
assert keep_freed_memory()
print(faults_of_the_last_round())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that can be asked")
def test_blocks_that_were_freed_come_again_without_a_fault():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    assert kept < 100 and given_back > 160 * 2**20 / 4096 / 2
