"""An ASGI application's lifespan: its startup before a replica serves, its shutdown after.

    start ──lifespan.startup──> application ──complete──> serving ... stop ──lifespan.shutdown──> complete

The application's own task lives in the replica's nursery, and ends with it whatever happens.

Source: ASGI 3.0, "Lifespan Protocol" 2.0.
Knows nothing of requests.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_serve.serving.replica_scope import current_replica_scope

logger = logging.getLogger("trio_serve.proxy")

SHUTDOWN_S = 10.0
"""Seconds for an application to shut down, before it is cancelled."""

State = dict[str, Any]


class LifespanFailed(RuntimeError):
    """The application said that it could not start."""


@asynccontextmanager
async def lifespan(application: Any) -> AsyncIterator[State]:
    """Keep ``application`` started for the length of the block; gives the state that requests get.

    One that does not know the protocol is served without.

    Raises:
        Exception: what kept it from starting; `LifespanFailed` where it only said so.
    """
    running = _Lifespan(application)
    await running.start()
    try:
        yield running.state
    finally:
        with trio.move_on_after(SHUTDOWN_S, shield=True):
            await running.stop()


class _Lifespan:
    def __init__(self, application: Any) -> None:
        self.state: State = {}
        self._application = application
        self._started = trio.Event()
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._asked = 0
        self._failure: Exception | None = None

    async def start(self) -> None:
        current_replica_scope("@ingress").start_soon(self._run)
        await self._started.wait()
        if self._failure is not None:
            await self._ended.wait()  # what it raised says more than what it sent
            raise self._failure

    async def stop(self) -> None:
        self._stop.set()
        await self._ended.wait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as error:
            if self._failure is not None:
                self._failure = error
            elif self._started.is_set():
                logger.exception("an ASGI application failed in its lifespan")
            else:
                logger.debug("an ASGI application without a lifespan", exc_info=True)
        finally:
            self._started.set()
            self._ended.set()

    async def _receive(self) -> dict[str, str]:
        self._asked += 1
        if self._asked == 1:
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        kind, text = message["type"], message.get("message", "")
        if kind == "lifespan.startup.failed":
            self._failure = LifespanFailed(f"the ASGI application did not start: {text}")
        elif kind == "lifespan.shutdown.failed":
            logger.error("an ASGI application did not shut down well: %s", text)
        if kind.startswith("lifespan.startup."):
            self._started.set()
        else:
            self._ended.set()
