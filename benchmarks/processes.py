"""Processes pinned to a core, and what the kernel says they cost.

    core 0 | the side that is measured
    core 1 | the side that only loads or answers

CPU time is the process's own accounting, user and system, all threads; memory is its resident set.
Source: proc(5), /proc/[pid]/status; clock_getcpuclockid(3).  Linux only.
"""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

REPOSITORY = Path(__file__).resolve().parent.parent

MEASURED_CORE = 0
LOAD_CORE = 1


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside run on ``core`` only (on a machine with one core: on that one), or on any."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_descriptors(count: int) -> None:
    """For this process and those it starts from now on, as far as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Process:
    """A program on one core, stopped when its block is left."""

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        with pinned(core):
            self._popen = subprocess.Popen(
                command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=REPOSITORY
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def line(self) -> str:
        """Wait for the next line that the program prints."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._popen.args!r} ended with code {self._popen.wait()} and said nothing")
        return line.strip()

    def cpu_seconds(self) -> float:
        # The clock of a process, as clock_getcpuclockid(3) makes its id: exact, where /proc counts ticks
        # of 10 ms, which are 5 % of the shortest measurement.
        return time.clock_gettime(~self.pid << 3 | 2)

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.pid} has no memory left: it has ended")


class ServerProcess(Process):
    """A server that prints ``ready PORT`` once it listens on the loopback."""

    core: int | None = MEASURED_CORE

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command, self.core)
        word, _, port = self.line().partition(" ")
        if word != "ready":
            raise RuntimeError(f"{command!r} said {word!r} instead of 'ready PORT'")
        self.port = int(port)


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
