"""Reused memory causes no page faults."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from openfold_opt.train.process_memory import keep_freed_memory

assert sys.argv[1] == "default" or keep_freed_memory()

def step():
    kept = [bytearray(6 * 2**20) for _ in range(8)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(5):
    before = faults()
    step()
print(faults() - before)
"""


def faults_of_last_step(setting: str) -> int:
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, setting], capture_output=True, text=True, check=True
    )
    return int(finished.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_a_later_step_reuses_the_memory_of_the_first() -> None:
    # The 48 MiB of a step are 12,288 pages of 4 KiB, or 24 huge pages.
    assert faults_of_last_step("default") >= 12
    assert faults_of_last_step("kept") < 12
