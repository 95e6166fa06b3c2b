"""Interceptors: what happens around every call of a server.

    first( second( handler ) )        in the order in which they are given

    async def timed(call: ServerCall, proceed: Run) -> None:
        started = trio.current_time()
        await proceed(call)
        logger.info("%s %s %.1f ms", call.path, call.status, (trio.current_time() - started) * 1e3)

An interceptor runs in the handler's own task, so a context variable that it sets reaches the handler.  It
may answer the call itself (`ServerCall.finish`) and not proceed, and it sees what the handler raises.  The
chain is composed when a method is registered: a server without interceptors pays nothing.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from trio_serve.grpc.call import ServerCall

Run = Callable[[ServerCall], Awaitable[None]]


class Interceptor(Protocol):
    """Any async function of these two."""

    def __call__(self, call: ServerCall, proceed: Run, /) -> Awaitable[None]: ...


def compose(interceptors: Sequence[Interceptor], run: Run) -> Run:
    """``run`` with all ``interceptors`` around it, the first one outermost."""
    for interceptor in reversed(interceptors):
        run = functools.partial(_around, interceptor, run)
    return run


def _around(interceptor: Interceptor, proceed: Run, call: ServerCall) -> Awaitable[None]:
    return interceptor(call, proceed)
