"""What lives exactly as long as a replica: tasks that serve several of its requests, and what they keep.

    replica ── ReplicaScope ──┬── start_soon: the replica's nursery
                              ├── states: a batch queue, a model cache, ... for each decorated method
                              └── aclose: at the replica's stop, each state is closed, newest first

A batch belongs to none of its members, and a model to none of the requests that use it: both belong to the
replica.  The scope is found through the current request, so a decorated method needs no wiring, and a
function shared by several replicas has its own state in each of them.

Knows nothing of envelopes; the replica makes the scope and closes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from typing import Any, Protocol, TypeVar, cast

import trio

from trio_serve.serving.per_instance import Decorated, PerInstance
from trio_serve.serving.request_context import CurrentRequests, current

StartSoon = Callable[..., object]
RunSync = Callable[[Callable[[], object]], Awaitable[object]]


class ReplicaStopped(RuntimeError):
    """The replica ended before it had answered."""


class State(Protocol):
    """What a decorated method keeps for one instance in one replica."""

    async def aclose(self) -> None:
        """Let go of everything; called once, at the replica's stop."""


S = TypeVar("S", bound=State)


def _nobody_asks(model_ids: frozenset[str]) -> None:
    """Where no balancing listens."""


async def _run_inline(function: Callable[[], object]) -> object:
    await trio.lowlevel.checkpoint()
    return function()


class Requests(Protocol):
    """What shared work asks of the requests that it serves."""

    def model_id(self) -> str:
        """The multiplexed model id of the request that this task serves; "" when it has none."""

    def enter_shared(self, members: Sequence[Context]) -> None:
        """Let this task serve all of these requests at once, and none of them alone.

        No deadline or cancellation of a single one of them reaches the task's own calls; what the
        requests have in common, such as the model id, stays visible.
        """


class ReplicaScope:
    """The room of one replica.

    Args:
        name: for messages.
        start_soon: starts a task in the replica's nursery; no error ever leaves these tasks.
        requests: how to look at the requests that are served.
        run_sync: runs a plain function that may block, where the replica runs its sync methods;
            None: in the task that asks.
        models_changed: called with the ids of the models loaded or being loaded, at each change.
        max_ongoing_requests: None: not known.
    """

    __slots__ = (
        "__weakref__",
        "_start_soon",
        "_states",
        "closed",
        "max_ongoing_requests",
        "models_changed",
        "name",
        "requests",
        "run_sync",
    )

    def __init__(
        self,
        name: str,
        start_soon: StartSoon,
        *,
        requests: Requests | None = None,
        run_sync: RunSync | None = None,
        models_changed: Callable[[frozenset[str]], None] | None = None,
        max_ongoing_requests: int | None = None,
    ) -> None:
        self.name = name
        self._start_soon = start_soon
        self.requests = requests or CurrentRequests()
        self.run_sync = run_sync or _run_inline
        self.models_changed = models_changed or _nobody_asks
        self.max_ongoing_requests = max_ongoing_requests
        self.closed = False
        self._states: dict[Decorated, PerInstance[Any]] = {}

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task of the replica's own.

        Raises:
            ReplicaStopped: the replica is no longer there.
        """
        if self.closed:
            raise ReplicaStopped(f"{self.name} has stopped")
        self._start_soon(async_fn, *args)

    def state_of(self, owner: Decorated, instance: object | None, make: Callable[[], S]) -> S:
        """What ``owner`` keeps for ``instance`` in this replica; ``make()`` gives the first."""
        states = self._states.get(owner)
        if states is None:
            states = self._states[owner] = PerInstance()
        return cast(S, states.get(instance, make))

    def states(self, kind: type[S]) -> Iterator[S]:
        """All that is kept of one kind: for metrics and for balancing."""
        for states in self._states.values():
            for state in states:
                if isinstance(state, kind):
                    yield state

    async def aclose(self) -> None:
        """Close every state, newest first; each is given its chance even when cancelled."""
        for states in reversed(list(self._states.values())):
            for state in reversed(list(states)):
                await state.aclose()
        self.closed = True
        self._states.clear()


_alone: ContextVar[ReplicaScope] = ContextVar("replica_scope")
"""A scope without a replica."""


def current_replica_scope(wanted_by: str) -> ReplicaScope:
    """The scope of the replica that this task works for.

    Raises:
        RuntimeError: there is none; names ``wanted_by`` and the way out.
    """
    request = current.get()
    replica = None if request is None else request.replica
    scope = _alone.get(None) if replica is None else replica.scope
    if scope is None:
        raise RuntimeError(
            f"{wanted_by} was called outside a replica; call it from a deployment's methods, or, in a test, "
            f"within 'async with open_replica_scope():'"
        )
    return scope


@asynccontextmanager
async def open_replica_scope(
    name: str = "replica",
    *,
    requests: Requests | None = None,
    run_sync: RunSync | None = None,
    models_changed: Callable[[frozenset[str]], None] | None = None,
) -> AsyncIterator[ReplicaScope]:
    """Work as if in a replica: decorated methods can be called within the block, with no deployment.

    Leaving the block closes what they keep, and cancels what they still run.
    """
    async with trio.open_nursery() as nursery:
        scope = ReplicaScope(
            name, nursery.start_soon, requests=requests, run_sync=run_sync, models_changed=models_changed
        )
        token = _alone.set(scope)
        try:
            yield scope
        finally:
            _alone.reset(token)
            await scope.aclose()
            nursery.cancel_scope.cancel()
