"""A program with all the processes that it starts: what the kernel says they cost together.

Memory is the proportional set (PSS): a page that several share counts once.  They run on any core, as a
program of many processes has more to do than one core's share.
Source: proc(5), /proc/[pid]/stat, /proc/[pid]/smaps_rollup.  Linux only.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from benchmarks.processes import ServerProcess

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 30.0


class ServerTree(ServerProcess):
    """A server that prints ``ready PORT``, and whatever it has started; all of it ends with its block."""

    core = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tree = self.pids()
        self._popen.terminate()
        give_up = time.monotonic() + PATIENCE_S
        while any(is_alive(pid) for pid in tree) and time.monotonic() < give_up:
            time.sleep(0.1)
            self._popen.poll()
        for pid in filter(is_alive, tree):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().__exit__(kind, error, trace)

    def pids(self) -> list[int]:
        """The process, those that it has started, those that these have, and so on."""
        children: dict[int, list[int]] = {}
        for pid, parent in _parents():
            children.setdefault(parent, []).append(pid)
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS_A_SECOND

    def resident_bytes(self) -> int:
        return sum(_proportional_bytes(pid) for pid in self.pids())


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            fields = _stat(int(folder.name))
            if fields:
                yield int(folder.name), int(fields[1])


def _stat(pid: int) -> list[str]:
    """The fields of its ``stat`` from the third one on; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether the process is there, and not just waiting for its parent to look."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
