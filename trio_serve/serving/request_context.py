"""What a task knows about the request that it works for.

    caller's context ──copy──> envelope's context: request = RequestContext(...) ──> the callee's task

The request rides in one context variable.  Each call gets a context of its own, copied from the caller's,
so nothing that the callee sets is seen by the caller, and the model id given for one call is not inherited
by the calls that it makes.

Knows nothing of how requests arrive.
"""

import contextvars
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import attrs

from trio_serve.actors import Envelope

if TYPE_CHECKING:
    from trio_serve.serving.replica import Replica


class RequestContext:
    """One request at one deployment; ``deadline`` in absolute Trio time."""

    __slots__ = (
        "application",
        "deadline",
        "envelope",
        "grpc_context",
        "multiplexed_model_id",
        "replica",
        "request_id",
        "route",
    )

    def __init__(
        self,
        request_id: str,
        application: str,
        multiplexed_model_id: str = "",
        deadline: float = inf,
        route: str = "",
        grpc_context: Any = None,
    ) -> None:
        self.request_id = request_id
        self.application = application
        self.multiplexed_model_id = multiplexed_model_id
        self.deadline = deadline
        self.route = route
        self.grpc_context = grpc_context
        self.envelope: Envelope | None = None
        self.replica: Replica | None = None


current: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar("request", default=None)
"""The request that this task works for, or None."""


def current_request() -> RequestContext | None:
    """The request that this task, or this thread of a replica, works for."""
    return current.get()


@attrs.frozen
class ReplicaContext:
    """Where a piece of user code runs; what ``get_replica_context()`` returns."""

    app_name: str
    deployment: str
    replica_tag: str
    servable_object: Any = attrs.field(default=None, eq=False, repr=False)

    @property
    def replica_id(self) -> str:
        """The part of the tag that tells the replicas of one deployment apart."""
        return self.replica_tag.rpartition("#")[2]

    @property
    def backend_tag(self) -> str:
        """The backend, as Ray Serve 1.3 called a deployment."""
        return self.deployment


def get_replica_context() -> ReplicaContext:
    """The replica that the calling code runs in: its constructor, a method, or a task that these started.

    Raises:
        RuntimeError: outside a replica.
    """
    request = current.get()
    if request is None or request.replica is None:
        raise RuntimeError(
            "get_replica_context() was called outside a replica; call it in the constructor or a method of "
            "a deployment"
        )
    return request.replica.context


def get_current_backend_tag() -> str | None:
    """The backend (the deployment) that the calling code runs in; None outside a replica."""
    request = current.get()
    return None if request is None or request.replica is None else request.replica.context.backend_tag


def get_multiplexed_model_id() -> str:
    """The model id that the current request asked for, or "" (also outside a request)."""
    request = current.get()
    return "" if request is None else request.multiplexed_model_id


class CurrentRequests:
    """How work that serves several requests at once, such as a batch, looks at them."""

    def model_id(self) -> str:
        """The model id of this task's request, or ""."""
        return get_multiplexed_model_id()

    def enter_shared(self, members: Sequence[contextvars.Context]) -> None:
        """Let this task work for all of ``members`` at once.

        They have an application, a replica and a model id in common.  No member's deadline or end
        reaches the calls that the task makes, for the others still want the answer.
        """
        requests = [request for member in members if (request := member.get(current)) is not None]
        if not requests:
            return
        first = requests[0]
        shared = RequestContext(
            first.request_id if len(requests) == 1 else "",
            first.application,
            first.multiplexed_model_id,
            route=first.route,
        )
        shared.replica = first.replica
        current.set(shared)
