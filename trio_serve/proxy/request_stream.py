"""The messages of a client-streaming call, as the method that answers it receives them.

An async method iterates with ``async for``, a sync method (in its replica's thread) with ``for``; either way
the client is held back by flow control until the next message is asked for.
"""

from collections.abc import Coroutine
from typing import Any

import trio

from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.inbox import EndOfStream


class gRPCInputStream:  # noqa: N801 - the name that Ray Serve gives it
    """The request messages, in order, each parsed; iterate once.

    Raises, while iterating:
        GRPCError: a message that is over the limit or cannot be parsed; the call has ended with it.
        CallEnded: the call has ended, by the client or by its deadline.
    """

    __slots__ = ("_call", "_loop")

    def __init__(self, call: ServerCall, loop: trio.lowlevel.TrioToken) -> None:
        self._call = call
        self._loop = loop

    def __aiter__(self) -> "gRPCInputStream":
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._call.receive_message()  # which ends with a StopAsyncIteration

    def __iter__(self) -> "gRPCInputStream":
        return self

    def __next__(self) -> Any:
        try:
            return trio.from_thread.run(self._call.receive_message, trio_token=self._loop)
        except EndOfStream:
            raise StopIteration from None
