"""Something that lives in a Trio program, for a script that has none: in a thread of its own.

    script's thread            the thread, the only one that runs Trio
    ------------------------------------------------------------------
    open()            ──>      async with make() as value:
    close()           ──>      leaves the block, and ends

Knows nothing of what lives there.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import outcome
import trio

logger = logging.getLogger("trio_serve.instance")

T = TypeVar("T")


class InThread(Generic[T]):
    """What ``make()`` opens, from `open` to `close`."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self.value: T
        self._make = make
        self._token: trio.lowlevel.TrioToken
        self._closing: trio.Event
        self._cut: trio.CancelScope
        self._thread: threading.Thread

    def open(self) -> None:
        """Start the thread and wait until the block is entered; raises what kept it from that."""
        opened: queue.SimpleQueue[outcome.Outcome[T]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="trio_serve", daemon=True)
        self._thread.start()
        self.value = opened.get().unwrap()

    def _run(self, opened: "queue.SimpleQueue[outcome.Outcome[T]]") -> None:
        try:
            trio.run(self._live, opened)
        except Exception as error:
            if hasattr(self, "value"):
                logger.exception("the instance has failed, and nothing is served any more")
            opened.put(outcome.Error(error))

    async def _live(self, opened: "queue.SimpleQueue[outcome.Outcome[T]]") -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._closing = trio.Event()
        with trio.CancelScope() as self._cut:
            async with self._make() as value:
                opened.put(outcome.Value(value))
                await self._closing.wait()

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Leave the block and wait for its end; Ctrl-C meanwhile cuts it short."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closing.set)
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.cut()
            self._thread.join()

    def cut(self) -> None:
        """End everything at once, from any thread."""
        logger.warning("cutting off what is still in flight")
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cut.cancel)
