"""``python -m benchmarks.hops``: what a call from handle to handle costs, in one process.

    0 hops   client task ──> Chain                       1 hop   client task ──> Chain ──> Chain  ...

The price of a hop is the slope from no hop to ``HOPS``, CPU of the whole process, best of some runs.
"""

import argparse
import time
from typing import Any

import trio

from trio_serve.serving.application import Application
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment

HOPS = 5
RUNS = 5


class Chain:
    """Adds one, and hands the number on."""

    def __init__(self, following: Any = None) -> None:
        self.following = following

    async def __call__(self, number: int) -> int:
        if self.following is None:
            return number
        answer: int = await self.following.remote(number + 1)
        return answer


def chain(hops: int) -> Application:
    application: Application | None = None
    for k in range(hops + 1):
        hop = deployment(name=f"hop{k}", max_ongoing_requests=100)(Chain)
        application = hop.bind(application)
    assert application is not None
    return application


async def cost_us(hops: int, in_flight: int, calls: int) -> float:
    """CPU microseconds of one whole call through so many hops."""
    async with open_controller() as controller:
        handle = await controller.deploy(chain(hops))

        async def caller(times: int) -> None:
            for _ in range(times):
                assert await handle.remote(0) == hops

        async def once(times: int) -> float:
            began = time.thread_time()
            async with trio.open_nursery() as nursery:
                for _ in range(in_flight):
                    nursery.start_soon(caller, times // in_flight)
            return (time.thread_time() - began) / (times // in_flight * in_flight) * 1e6

        await once(calls // 5 + in_flight)
        return min([await once(calls) for _ in range(RUNS)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hops", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=4000, help="a run's length")
    calls = parser.parse_args().calls
    print("| in flight | one call, µs | calls/s | a hop more, µs |\n|---|---|---|---|")
    for in_flight in (1, 64):
        nearest = trio.run(cost_us, 0, in_flight, calls)
        farthest = trio.run(cost_us, HOPS, in_flight, calls)
        a_hop = (farthest - nearest) / HOPS
        print(f"| {in_flight} | {nearest:.1f} | {1e6 / nearest:,.0f} | {a_hop:.1f} |", flush=True)


if __name__ == "__main__":
    main()
