"""What an envelope carries to a replica, and what holds it back while its arguments are on their way.

h.remote(g.remote(1), 2)      g's response is an argument: the call to h is made at once, but goes to
                              h's mailbox only when g has answered; an error of g is h's answer too
"""

from collections.abc import Awaitable, Callable
from typing import Any

from trio_serve.actors import Envelope
from trio_serve.serving.replies import UnaryReply
from trio_serve.serving.request_context import RequestContext


class Call:
    """Which method, with what, for which request; ``stream``: whether items or one answer is wanted.

    ``respond``, where a proxy has set it, is given what the method returns (a generator, too) and awaited as
    a part of the call: what it sends to the client is sent within the call's scope, and counts as its work.
    ``queued_at`` (Trio time): when it had to queue for a replica; None for a call that found one with room.
    """

    __slots__ = ("args", "kwargs", "method", "queued_at", "request", "respond", "stream")

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestContext,
        stream: bool,
    ) -> None:
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.request = request
        self.stream = stream
        self.queued_at: float | None = None
        self.respond: Callable[[Any], Awaitable[None]] | None = None


class AwaitedArguments:
    """Holds one envelope back until its arguments are there; costs no task.

    ``replies`` are the arguments not yet known, by their place: an index or a keyword.  ``place`` sends the
    envelope on its way.
    """

    def __init__(
        self,
        envelope: Envelope,
        replies: dict[int | str, UnaryReply],
        place: Callable[[Envelope], None],
    ) -> None:
        self._envelope: Envelope | None = envelope
        self._replies = replies
        self._place = place
        self._missing = len(replies)
        envelope.queue = self
        for reply in list(replies.values()):
            reply.listen(self._arrived)

    def remove(self, envelope: Envelope) -> None:
        """The call was cancelled; its arguments may come or not."""
        envelope.queue = None
        self._envelope = None

    def _arrived(self, reply: UnaryReply) -> None:
        envelope = self._envelope
        if envelope is None:
            return
        self._missing -= 1
        try:
            reply.unwrap()
            if self._missing:
                return
            self._fill_in(envelope.message)
            envelope.queue = None
            self._envelope = None
            self._place(envelope)
        except Exception as error:
            envelope.queue = None
            self._envelope = None
            envelope.fail(error)
            envelope.release()

    def _fill_in(self, call: Call) -> None:
        args = list(call.args)
        kwargs = dict(call.kwargs)
        for place, reply in self._replies.items():
            if isinstance(place, int):
                args[place] = reply.unwrap()
            else:
                kwargs[place] = reply.unwrap()
        call.args, call.kwargs = tuple(args), kwargs
