"""A running deployment as its callers see it: one queue, and the replicas that receive from it.

    call ── a replica with room? ── yes ──> the replica
                    │ no
                    └──> the queue, bounded by max_queued_requests ──> the first replica that has room
                           │ full, or too long (see          │ none left: DeploymentUnavailable
                           │ admission): BackPressureError

Everything here is synchronous.  How replicas come and go is ``fleet``'s affair.
"""

import contextvars
from collections.abc import Awaitable, Callable
from math import inf
from random import Random
from typing import Any

import trio

from trio_serve.actors import Envelope, Mailbox, Reply
from trio_serve.serving.admission import why_not
from trio_serve.serving.application import DeploymentSpec
from trio_serve.serving.autoscaling import Autoscaler
from trio_serve.serving.balancing import choose
from trio_serve.serving.calls import Call
from trio_serve.serving.errors import BackPressureError, DeploymentUnavailable, MethodNotFound, one_line
from trio_serve.serving.handle import DeploymentHandle, Directory
from trio_serve.serving.methods import names_for_callers
from trio_serve.serving.options import DeploymentOptions
from trio_serve.serving.replica import Replica
from trio_serve.serving.request_context import RequestContext

_REMEMBERED_MODELS = 1024


class DeploymentState:
    """One deployment of a running application."""

    def __init__(self, application: str, spec: DeploymentSpec, directory: Directory, random: Random) -> None:
        self.application = application
        self.spec = spec
        self.receiving: list[Replica] = []
        self.mailbox = Mailbox(spec.options.queue_capacity, spec.name)
        self.autoscaler: Autoscaler | None = None
        self.unavailable_because: str | None = None
        self.closing = False
        self.gone = False
        self.refused = 0
        self.routed = 0
        """Calls sent here, from outside or by handles; ``refused`` are among them."""
        self.by_handles = 0
        """Calls made by handles."""
        self._directory = directory
        self._random = random
        self._last_with_model: dict[str, Replica] = {}

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def options(self) -> DeploymentOptions:
        """The options now in force."""
        return self.spec.options

    @property
    def queued(self) -> int:
        """Calls that wait for a replica with room."""
        return len(self.mailbox)

    @property
    def ongoing(self) -> int:
        """Calls at work at the replicas that receive."""
        return sum(replica.ongoing for replica in self.receiving)

    def handle_to(self, deployment: str) -> Any:
        """A handle to another deployment of the same application."""
        handle: DeploymentHandle[Any] = DeploymentHandle(self._directory, self.application, deployment)
        return handle

    # -- calls -----------------------------------------------------------------------------------------

    def refusal(self, deadline: float, now: float) -> BackPressureError | None:
        """What `call` would refuse a call with, which then counts as refused; None when it would not.

        For who has much to spare by asking before: there may be very many calls to refuse.
        """
        if not self.mailbox.waiting:
            return None  # a replica may have room
        error = self._refusal(deadline, now)
        if error is not None:
            self.routed += 1
        return error

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestContext,
        reply: Reply,
        deadline: float = inf,
        stream: bool = False,
        respond: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Envelope:
        """Send a call that belongs to no other: a request from outside.

        ``reply`` gets the answer; it may get it before this returns.  ``deadline`` is absolute Trio time.
        ``respond`` gets what the method returns instead, and ``reply`` only how that ended.

        Raises:
            MethodNotFound, BackPressureError, DeploymentUnavailable: at once; ``reply`` hears nothing then.
        """
        envelope = self.prepare(
            method, args, kwargs, request, reply, deadline, stream, None, contextvars.copy_context()
        )
        envelope.message.respond = respond
        self.place(envelope)
        return envelope

    def prepare(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestContext,
        reply: Reply,
        deadline: float,
        stream: bool,
        parent: Envelope | None,
        context: contextvars.Context,
    ) -> Envelope:
        """Make the envelope of a call, to be placed later.

        Raises:
            MethodNotFound: neither the class nor an instance has this method.
        """
        if method not in self.spec.methods and not any(each.has_method(method) for each in self.receiving):
            raise MethodNotFound(self.name, method, names_for_callers(dict(self.spec.methods)))
        envelope = Envelope(Call(method, args, kwargs, request, stream), reply, context, deadline, parent)
        request.envelope = envelope
        return envelope

    def place(self, envelope: Envelope) -> None:
        """Send an envelope to a replica with room, or to the queue.

        Raises:
            BackPressureError: the queue is full, or too long for the call's deadline.
            DeploymentUnavailable: nothing serves this deployment, nor is about to.
        """
        self.routed += 1
        if self.unavailable_because is not None:
            raise self.unavailable()
        model_id = envelope.message.request.multiplexed_model_id
        if model_id:
            replica = self._choose_for_model(model_id)
        elif len(self.receiving) == 1:
            replica = self.receiving[0]  # nothing to choose
        else:
            replica = choose(self.receiving, self._random)
        if replica is not None and replica.actor.start(envelope):
            return
        envelope.message.queued_at = now = trio.current_time()
        error = self._refusal(envelope.deadline, now)
        if error is not None:
            raise error
        self.mailbox.put_nowait(envelope)
        if not self.receiving and self.autoscaler is not None:
            self.autoscaler.wake()

    def _refusal(self, deadline: float, now: float) -> BackPressureError | None:
        """Why the queue has no room for a call, or the call should not wait there."""
        mailbox = self.mailbox
        options = self.spec.options
        why = ""
        if not mailbox.full:
            waiting = len(mailbox.waiting)
            if not waiting or deadline == inf or not options.load_shedding:
                return None
            slots = len(self.receiving) * options.max_ongoing_requests
            why = why_not(mailbox.pace, waiting, slots, deadline - now, now)
            if not why:
                return None
        self.refused += 1
        return BackPressureError(len(mailbox.waiting), options.max_queued_requests, why)

    def _choose_for_model(self, model_id: str) -> Replica | None:
        # A replica tells of a model when it begins to load it; a second call may come sooner.
        last = self._last_with_model.get(model_id)
        replica = choose(self.receiving, self._random, model_id)
        unloaded = replica is not None and model_id not in replica.model_ids
        if unloaded and last is not None and last.has_room and last in self.receiving:
            return last
        if replica is not None and replica is not last:
            self._last_with_model[model_id] = replica
            if len(self._last_with_model) > _REMEMBERED_MODELS:
                del self._last_with_model[next(iter(self._last_with_model))]
        return replica

    # -- who serves ------------------------------------------------------------------------------------

    def join(self, replica: Replica) -> None:
        """``replica`` is ready: from now on it gets calls, those that wait first."""
        if not self.closing:
            self.unavailable_because = None
        if not self.receiving:
            self.mailbox.pace.restart(trio.current_time(), len(self.mailbox))
        self.receiving.append(replica)
        replica.actor.receive()

    def leave(self, replica: Replica) -> None:
        """``replica`` gets no more calls; what it had not received stays queued for the others."""
        if replica in self.receiving:
            self.receiving.remove(replica)

    def make_unavailable(self, cause: object) -> None:
        """No replica is left and none will come soon: refuse calls, and answer those that wait.

        The next replica that joins ends this.
        """
        self.unavailable_because = one_line(cause)
        self.mailbox.answer_all(self.unavailable())

    def refuse_new(self, cause: object) -> None:
        """For good, accept nothing more; what waits is still served."""
        self.closing = True
        self.unavailable_because = one_line(cause)

    def unavailable(self) -> DeploymentUnavailable:
        """The error that tells why nothing serves this deployment."""
        return DeploymentUnavailable(self.application, self.name, self.unavailable_because)
