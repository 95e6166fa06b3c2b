"""Freed memory stays with the process: measured in page faults, which no clock can disturb."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
from trio_serve.transport import freed_memory

if sys.argv[1] == "keep":
    freed_memory.keep()

def message():
    pieces = [bytes([1]) * 60_000 for _ in range(60)]
    return len(b"".join(pieces))

for _ in range(5):
    message()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    message()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_large_messages_find_the_memory_of_those_before_them() -> None:
    """A process of its own each, because what glibc has learned stays."""
    faults = {
        what: int(
            subprocess.run([sys.executable, "-c", _PROGRAM, what], capture_output=True, check=True).stdout
        )
        for what in ("keep", "leave")
    }

    assert faults["keep"] < 50
    assert faults["leave"] > 500  # else there is nothing to keep, and this can go
