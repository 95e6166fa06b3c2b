"""From a call to its handler: an envelope into the server's own actor, and the answer back.

    dispatch(call) --> Envelope --> actor: parked worker --> run(call) --> handler
         ^  reader's turn                                       |
         +--- on_cancel: the envelope is cancelled    what it raises becomes the status

At most ``max_running`` handlers run and ``max_queued`` calls wait for one; what comes beyond is refused at
once.  A call that is reset frees its place only when its handler has really ended.

Knows nothing of streams.
"""

import contextvars
import logging
import math
from collections.abc import Coroutine
from typing import Any

import trio

from trio_serve.actors import Actor, Envelope, Mailbox, MailboxClosed, MailboxFull
from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.call_ended import CallEnded, CancelReason
from trio_serve.grpc.deadline import current_deadline
from trio_serve.grpc.ending import Ending, ending_of, is_expected
from trio_serve.grpc.interceptors import Run
from trio_serve.grpc.registration import Dispatch
from trio_serve.wire.grpc import Status

logger = logging.getLogger("trio_serve.grpc")


class Handlers:
    """The running handlers of one server."""

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._mailbox = Mailbox(max_queued, name="grpc.Server")
        self._actor = self._new_actor()

    def _new_actor(self) -> Actor:
        return Actor("grpc.Server", _serve, self._max_running, self._mailbox)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run handlers until cancelled, which cancels them; may be run again afterwards."""
        self._actor = self._new_actor()
        await self._actor.run(task_status=task_status)

    def dispatch_to(self, run: Run) -> Dispatch:
        """What to register for a method that ``run`` serves."""

        def dispatch(call: ServerCall) -> None:
            context = contextvars.copy_context()
            if call.deadline != math.inf:
                # Outgoing calls of the handler inherit it.  Its cancel scope needs no deadline of its
                # own: the call's alarm cancels the envelope, at the same moment and for less.
                context.run(current_deadline.set, call.deadline)
            handling = _Handling(call)
            handling.envelope = envelope = Envelope(run, handling, context)
            call.on_cancel = handling
            try:
                self._actor.deliver(envelope)
            except (MailboxFull, MailboxClosed) as error:
                call.finish(*ending_of(error))

        return dispatch


def _serve(envelope: Envelope) -> Any:
    run: Run = envelope.message
    handling: Any = envelope.reply
    return run(handling.call)


class _Handling:
    """One call at its handler: the reply of its envelope, and what the call calls to cancel that."""

    __slots__ = ("call", "envelope")

    def __init__(self, call: ServerCall) -> None:
        self.call = call
        self.envelope: Envelope | None = None

    # Not a method with a name: bound, it would be an object more for each open call.
    def __call__(self, reason: CancelReason) -> None:
        if self.envelope is not None:
            self.envelope.cancel(CallEnded(reason))

    def succeed(self, value: Any, /) -> None:
        """The handler has returned: what it had to answer, it has answered."""
        self.envelope = None
        if not self.call.over:
            self.call.finish(Status.UNKNOWN, f"{self.call.path}: nobody answered the call")

    def fail(self, error: BaseException, /) -> None:
        self.envelope = None
        end_with(self.call, error)

    def send(self, item: Any, /) -> Coroutine[Any, Any, None]:
        return self.call.send_message(item)


def end_with(call: ServerCall, error: BaseException) -> None:
    """End ``call`` with the status that ``error`` means, and log what was not meant to happen."""
    if call.over:
        if not isinstance(error, CallEnded):
            logger.debug("%s: the handler failed after the call had ended", call.path, exc_info=error)
        return
    if not is_expected(error):
        logger.error("%s: the handler raised", call.path, exc_info=error)
    ending = ending_of(error)
    try:
        call.finish(*ending)
    except (ValueError, TypeError) as bad_metadata:
        call.finish(*Ending(Status.INTERNAL, f"the handler's status cannot be sent: {bad_metadata}"))
