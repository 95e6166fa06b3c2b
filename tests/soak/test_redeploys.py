"""An application that is deployed anew and anew while it is called: the old versions leave nothing.

In full: 10,000 redeploys, each with a call before, during and after; none of them fails.
"""

from typing import Any

import trio

from tests.soak.state import MEMORY_MAX, State, needs_proc, times
from trio_serve.actors import Actor, Envelope
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.replica import Replica

KINDS = (Actor, Envelope, Replica)
GRACE_S = 30
"""The last version has left by then."""

pytestmark = needs_proc


class Versioned:
    def __init__(self, version: int) -> None:
        self.version = version

    async def __call__(self) -> int:
        await trio.sleep(0.01)
        return self.version


async def redeploy(controller: Any, handle: Any, versions: range) -> None:
    for version in versions:
        seen: list[int] = []

        async def call(handle: Any, seen: list[int] = seen) -> None:
            seen.append(await handle.remote())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, handle)
            await trio.lowlevel.checkpoint()
            await call(await controller.deploy(deployment(Versioned).bind(version)))
        assert set(seen) <= {version - 1, version}
        assert version in seen
    await trio.sleep(GRACE_S)


async def test_redeploys_leave_nothing() -> None:
    async with open_controller() as controller:
        handle = await controller.deploy(deployment(Versioned).bind(0))
        warm, count = times(30, 2000), times(100, 10_000)
        await redeploy(controller, handle, range(1, warm))
        before = State(*KINDS)
        await redeploy(controller, handle, range(warm, warm + count))
        after = State(*KINDS)

        print(f"\nredeploys: {after.grown(before)}")
        after.assert_nothing_left(before, MEMORY_MAX)
