"""What logs and metrics cost: each step by itself, microseconds of CPU, in this process.

    best of five runs of so many times that a run takes some milliseconds; the empty loop is taken off

The record of a replica is logged within a request's context and written to a file that forgets it; a scrape
is of the instance that has served one call.
"""

import contextvars
import io
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import trio

import trio_serve as serve
from trio_serve import metrics
from trio_serve.config import LoggingConfig
from trio_serve.observe.log_files import RotatingFile
from trio_serve.observe.logs import Outlet
from trio_serve.proxy.access_log import AccessLog
from trio_serve.proxy.counters import ProxyCounters
from trio_serve.serving.counters import MethodCounters
from trio_serve.serving.request_context import current_request

RUNS = 5
logger = logging.getLogger("trio_serve.benchmark")


def costs(seconds: float) -> list[tuple[str, float]]:
    """(what, microseconds) of each step; each is measured for about so long."""
    with redirect_stderr(io.StringIO()):
        return trio.run(_costs, seconds)


async def _costs(seconds: float) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []

    def measure(what: str, step: Callable[[], object]) -> None:
        found.append((what, cost_us(step, seconds)))

    at_replica, at_proxy = MethodCounters(), ProxyCounters()
    path = "/benchmarks.Greeter/SayHello"

    def count_at_replica() -> None:
        at_replica.started += 1
        at_replica.succeeded += 1
        at_replica.took(0.0004)

    measure("metrics: a call at its replica", count_at_replica)
    measure("metrics: a call at its proxy", lambda: at_proxy.of(path, "app", path).ended(0, 0.0004))
    counter = metrics.Counter("benchmark_words", tag_keys=("backend",))
    counter.set_default_tags({"backend": "f"})
    measure("metrics: Counter.inc() of the user's", counter.inc)
    access = AccessLog()

    def answered() -> None:
        if access.enabled:
            access.grpc(path, "app", "OK", 0.0004, "39729599-da34-4963-b553-e61ca073fcb3")

    measure("logs: access line, off", answered)
    for encoding in ("TEXT", "JSON"):
        with _written_nowhere(encoding):
            access.refresh()
            measure(f"logs: access line, {encoding}", answered)
            inside = await _context_of_a_call()
            measure(
                f"logs: record in a replica, {encoding}",
                lambda: inside.run(logger.info, "greeting %s", "you"),  # noqa: B023  # called at once
            )
            measure(f"logs: record below the level, {encoding}", lambda: logger.debug("greeting %s", "you"))
    async with serve.open_instance(grpc_options={"port": 0}) as instance:
        await (await instance.run(_Context.bind())).remote()
        measure("metrics: a scrape, one deployment", instance.metrics_text)
    return found


def cost_us(step: Callable[[], object], seconds: float) -> float:
    """Microseconds of one ``step()``, without the call of it."""
    times = 1
    while (spent := _run(step, times)) < seconds / RUNS:
        times = max(2 * times, int(times * 0.8 * seconds / RUNS / max(spent, 1e-6)))
    best = min(_run(step, times) for _ in range(RUNS))
    empty = min(_run(_nothing, times) for _ in range(RUNS))
    return max(0.0, best - empty) / times * 1e6


def _run(step: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        step()
    return time.thread_time() - began


def _nothing() -> None:
    pass


@contextmanager
def _written_nowhere(encoding: str) -> Iterator[None]:
    """The log as an instance opens it, into a file that forgets."""
    target = logging.getLogger("trio_serve")
    file = RotatingFile(pathlib.Path("/dev/null"))
    outlet = Outlet("/dev/null", LoggingConfig(encoding=encoding), file.write)
    target.addHandler(outlet)
    before = target.level
    target.setLevel(logging.INFO)
    try:
        yield
    finally:
        target.setLevel(before)
        target.removeHandler(outlet)
        file.close()


@serve.deployment(sync_methods="inline")
class _Context:
    async def __call__(self) -> Any:
        assert current_request() is not None
        return contextvars.copy_context()


async def _context_of_a_call() -> contextvars.Context:
    async with serve.open_instance() as instance:
        context: contextvars.Context = await (await instance.run(_Context.bind())).remote()
        return context
