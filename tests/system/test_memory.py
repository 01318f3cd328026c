"""Memory that is freed and allocated again costs no page faults."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from dml_bench.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    before = faults()
    for megabytes in (60, 100):
        torch.empty(megabytes * 2**20, dtype=torch.uint8).fill_(1)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that can be asked")
def test_blocks_that_were_freed_come_again_without_a_fault():
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, check=True
            ).stdout
        )
        for way in ("keep", "no")
    )
    assert kept < 100 and given_back > 160 * 2**20 / 4096 / 2
