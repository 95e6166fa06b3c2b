"""An instance inside an asyncio program: Trio as a guest on asyncio's loop, in the same thread.

    async with open_instance_in_asyncio(grpc_options={...}) as guest:      asyncio's own ``async with``
        await guest.run(app)
        reply = await guest.answer(handle.SayHello.remote(request))

Trio's tasks and asyncio's take turns on one loop.  Deployments stay Trio code, and clients such as grpc.aio
stay asyncio code; `GuestInstance.call` is the door between the two, and cancelling goes through it.

Source: Trio's guest mode.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import outcome
import trio

from trio_serve.instance.instance import Handle, Instance, open_instance
from trio_serve.serving.application import Application
from trio_serve.serving.responses import DeploymentResponse
from trio_serve.serving.status import ServeStatus

T = TypeVar("T")


class GuestInstance:
    """An instance, for asyncio code.  All that waits here is awaited in asyncio."""

    def __init__(self, instance: Instance, nursery: trio.Nursery) -> None:
        self.instance = instance
        self._nursery = nursery

    async def run(self, target: Application, **options: Any) -> Handle:
        """As `Instance.run`."""

        async def run() -> Handle:
            return await self.instance.run(target, **options)

        return await self.call(run)

    async def delete(self, name: str) -> None:
        """As `Instance.delete`."""
        await self.call(self.instance.delete, name)

    async def answer(self, response: DeploymentResponse[T]) -> T:
        """What a response gives when it is awaited; cancelling takes the call back."""

        async def wait() -> T:
            return await response

        return await self.call(wait)

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens; as `Instance.addresses`."""
        return self.instance.addresses

    def status(self) -> ServeStatus:
        """What runs, and how it is."""
        return self.instance.status()

    async def call(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``async_fn(*args)`` in a Trio task; return what it returns, or raise what it raises.

        Cancelling the asyncio task cancels it, and waits for its end.
        """
        done: asyncio.Future[outcome.Outcome[T]] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()

        async def work() -> None:
            result: outcome.Outcome[T] = outcome.Error(asyncio.CancelledError())
            try:
                with scope:
                    result = await outcome.acapture(async_fn, *args)
                    if isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
                        error, result = result.error, outcome.Error(asyncio.CancelledError())
                        raise error
            finally:
                if not done.done():
                    done.set_result(result)

        self._nursery.start_soon(work)
        try:
            result = await asyncio.shield(done)
        except asyncio.CancelledError:
            self.instance.trio_token.run_sync_soon(scope.cancel)
            await done
            raise
        return result.unwrap()


@asynccontextmanager
async def open_instance_in_asyncio(**options: Any) -> AsyncIterator[GuestInstance]:
    """Open an instance in the running asyncio loop; ``options`` and errors are those of `open_instance`.

    Leaving the block drains; an error that leaves it ends everything at once.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[GuestInstance] = loop.create_future()
    ended: asyncio.Future[outcome.Outcome[None]] = loop.create_future()
    closing = trio.Event()
    cut = trio.CancelScope()

    async def serve() -> None:
        with cut:
            async with open_instance(**options) as instance, trio.open_nursery() as nursery:
                opened.set_result(GuestInstance(instance, nursery))
                await closing.wait()
                nursery.cancel_scope.cancel()

    trio.lowlevel.start_guest_run(
        serve,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    either: list[asyncio.Future[Any]] = [opened, ended]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not opened.done():
        ended.result().unwrap()
    guest = opened.result()
    token = guest.instance.trio_token
    try:
        yield guest
    except BaseException:
        token.run_sync_soon(cut.cancel)
        await ended
        raise
    token.run_sync_soon(closing.set)
    (await ended).unwrap()
