"""Interceptors: what happens around every call of a channel.

    first( second( the call ) )        in the order in which they are given

    async def with_token(call: CallDetails, proceed: Proceed) -> Any:
        return proceed(attrs.evolve(call, metadata=(*call.metadata, ("token", await fresh_token()))))

An interceptor stands where the stub's method stood: it is given what the caller asked for, and returns what
the caller gets.  ``proceed(call)`` makes the call as the stub would, with what may have been changed by then,
and gives back what the stub would: a call, to await or to iterate.  The interceptor returns that call, or the
reply itself, or for a streamed reply any async iterable; it may proceed again, or not at all.  What it raises
is what the caller's ``await`` raises.

It runs in a task of its own with a copy of the caller's context, so a context variable that it sets is seen
by the interceptors after it and by nobody else; the task ends with the call, and the caller's deadline holds
for all of it.  The chain is composed when a method is made: a channel without interceptors pays nothing.

Knows nothing of how that is done (intercepted_call.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
from grpclib.const import Cardinality

from trio_serve.wire.grpc import Metadata

if TYPE_CHECKING:
    from trio_serve.grpc.client_method import Credentials

__all__ = ["CallDetails", "ClientInterceptor", "Proceed"]


@attrs.frozen(kw_only=True)
class CallDetails:
    """What a stub's method was asked for; `attrs.evolve` makes one with changes.

    Args:
        path: the method, as ``/package.Service/Method``.
        cardinality: its kind: ``cardinality.client_streaming``, ``cardinality.server_streaming``.
        request: the request message; of streamed requests an async iterator, which gives each once.
        timeout: in seconds, as the caller gave it.  A longer one cannot outlive the caller's.
        metadata: the caller's, without the channel's; pairs.
        credentials, wait_for_ready, compression: as for a call.
    """

    path: str
    cardinality: Cardinality
    request: Any
    timeout: float | None = None
    metadata: Metadata = ()
    credentials: Credentials | None = None
    wait_for_ready: bool | None = None
    compression: Any = None


Proceed: TypeAlias = Callable[[CallDetails], Any]
"""Makes the call, and returns it as the stub's method would: nothing is waited for."""


class ClientInterceptor(Protocol):
    """Any async function of these two."""

    def __call__(self, call: CallDetails, proceed: Proceed, /) -> Awaitable[Any]: ...
