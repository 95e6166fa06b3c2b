"""Where scripts of the owner come in: a Unix socket of mode 0600, and gRPC on it.

    Ask      do this with the instance        > what it returns, or raises
    Call     call this handle                 > the answer
    Stream   call this handle                 > each item of the answer

Everything on it is pickled, so whoever can connect can run code as the owner: the socket's mode says who may,
and these methods are served nowhere else.

A client that leaves takes back what it has asked for.  Knows nothing of what is asked.
"""

import contextvars
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import outcome
import trio
from grpclib.const import Cardinality

from trio_serve.grpc import ConnectionOptions, Limits, Method, Server
from trio_serve.instance.far_deployment import ASK, CALL, STREAM, FarCall
from trio_serve.instance.far_instance import Asked
from trio_serve.instance.parcels import PARCEL_BYTES_MAX, pack_outcome, unpack
from trio_serve.serving.controller import Controller
from trio_serve.serving.request_context import RequestContext, current

CALLS_MAX = 10_000
"""Calls of all scripts that may be under way at a time."""
STREAMS_MAX = 1000
"""Those of one script; more of them wait there."""
STREAM_WINDOW_BYTES_MAX = 256 * 1024

Ask = Callable[[Asked], Awaitable[Any]]


class CodeDoor:
    """Serves the handles of ``controller``, and ``ask``, to scripts."""

    def __init__(self, controller: Controller, ask: Ask) -> None:
        self._controller = controller
        self._ask = ask
        limits = Limits(
            streams_max=STREAMS_MAX,
            stream_window_bytes_max=STREAM_WINDOW_BYTES_MAX,
            connection_window_bytes=STREAMS_MAX * STREAM_WINDOW_BYTES_MAX,
        )
        self._server = Server(
            health=False,
            reflection=False,
            message_bytes_max=PARCEL_BYTES_MAX,
            max_running=CALLS_MAX,
            options=ConnectionOptions(limits=limits),
        )
        self._register(ASK, Cardinality.UNARY_UNARY, self._answer_ask)
        self._register(CALL, Cardinality.UNARY_UNARY, self._answer_call)
        self._register(STREAM, Cardinality.UNARY_STREAM, self._answer_stream)

    async def serve(
        self, listener: socket.socket, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve on ``listener`` until `drain` or cancelled."""
        await self._server.serve_listeners([listener], task_status=task_status)

    async def drain(self, timeout_s: float) -> None:
        """Take no more, and give what is under way so many seconds to end."""
        await self._server.drain(timeout_s)

    def handle_to(self, kind: type, address: dict[str, Any]) -> Any:
        """A handle to something here."""
        return kind(self._controller, **address)

    def _register(self, path: str, cardinality: Cardinality, handler: Callable[..., Any]) -> None:
        service, _, name = path[1:].partition("/")
        self._server.register(Method(path, service, name, cardinality, None, None, bytes, bytes, handler))

    async def _answer_ask(self, request: bytes, context: object) -> bytes:
        try:
            return pack_outcome(outcome.Value(await self._ask(pickle.loads(request))))
        except Exception as error:
            return pack_outcome(outcome.Error(error))

    async def _answer_call(self, request: bytes, context: object) -> bytes:
        try:
            return pack_outcome(outcome.Value(await self._begin(request)))
        except Exception as error:
            return pack_outcome(outcome.Error(error))

    async def _answer_stream(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self._begin(request)) as items:
                async for item in items:
                    yield pack_outcome(outcome.Value(item))
        except Exception as error:
            yield pack_outcome(outcome.Error(error))

    def _begin(self, request: bytes) -> Any:
        """Make the call that ``request`` holds, under the id that it has at the script."""
        call: FarCall = pickle.loads(request)
        args, kwargs = unpack(call.parcel, self.handle_to)
        kind, address = call.to
        here = contextvars.copy_context()
        here.run(current.set, RequestContext(call.request_id, ""))
        return here.run(partial(self.handle_to(kind, address).remote, *args, **kwargs))
