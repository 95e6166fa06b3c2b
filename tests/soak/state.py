"""What there is at a moment at which nothing is under way, and how a long run gets there."""

import gc
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

SOAK = bool(os.environ.get("TRIO_SERVE_SOAK"))
IN_FLIGHT = 50
MIB = 1024 * 1024
MEMORY_MAX = (1 if SOAK else 8) * MIB  # a short run is mostly the allocator's noise
MEMORY_AFTER_CANCELS_MAX = (4 if SOAK else 8) * MIB

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc"
)


def times(quick: int, soak: int) -> int:
    """How often this run does a thing."""
    return soak if SOAK else quick


class State:
    """Tasks, threads, descriptors, memory, and how many objects there are of each of ``kinds``."""

    def __init__(self, *kinds: type) -> None:
        gc.collect()
        self.tasks = trio.lowlevel.current_statistics().tasks_living
        self.threads = threading.active_count()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.objects = {kind: sum(type(each) is kind for each in gc.get_objects()) for kind in kinds}
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def grown(self, before: Self) -> str:
        return f"{(self.resident - before.resident) / MIB:+.2f} MiB"

    def assert_nothing_left(self, before: Self, memory_max: int) -> None:
        assert self.tasks == before.tasks
        assert self.threads <= before.threads  # Trio lets an idle one go after a while
        assert self.descriptors <= before.descriptors
        for kind, count in self.objects.items():
            assert count <= before.objects[kind], kind
        assert self.resident - before.resident <= memory_max


async def many(count: int, once: Callable[[int], Awaitable[None]]) -> None:
    """``once(0)``, ``once(1)``, ... from `IN_FLIGHT` tasks; returns when everything has come to rest."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await once(number)

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(caller)
    await wait_all_tasks_blocked()
