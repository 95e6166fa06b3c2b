"""An envelope: one call on its way to an actor, and the right to take it back.

    new ──put──> queued ──take──> delivered ──start──> at work ──> answered ──> ended
                   │                  │                    │           ^          ^
                   └──────────── cancel: answered at once ─┴───────────┘          │
                        never started: ends at once ──────────────────────────────┤
                        at work: ends when its task, its thread jobs and the      │
                        calls that it started have really ended ──────────────────┘

Two moments are kept apart.  *Answered*: the sender has its outcome; happens exactly once, and a cancel
or a deadline brings it about at once.  *Ended*: nothing runs on the envelope's behalf any more; only
then is its slot at the actor free, so what cannot be interrupted still counts.

Envelopes form a tree: a call made while serving another is its child.  Work belongs to the actor that
does it, the right to cancel it to the parent: an answered envelope cancels the children still under way,
all generations in one sweep, and has not ended before they have.

Source: the actor model's message, Trio's cancel scope, and structured concurrency's rule that no child
outlives its parent.  Knows nothing of protocols, deployments or threads.
"""

import contextvars
import logging
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import trio

from trio_serve.actors.errors import CallCancelled, DeadlinePassed

_log = logging.getLogger("trio_serve.actors")


class Reply(Protocol):
    """Where the answer goes: to `succeed` or to `fail`, once, synchronously.  Neither may raise.

    Two methods and not one that takes an outcome: to make one costs as much as a small call's whole delivery.
    """

    def succeed(self, value: Any, /) -> None:
        """Take the answer of work that came to its end."""

    def fail(self, error: BaseException, /) -> None:
        """Take the error that the work ended with, or the reason why there will be no answer."""

    async def send(self, item: Any, /) -> None:
        """Take one item of a streamed answer; return when the receiver has room for the next."""


class _Answered:
    """What an envelope has in place of its reply, once that was used."""

    def succeed(self, value: Any, /) -> None:
        raise AssertionError("an envelope is answered once")

    fail = succeed

    async def send(self, item: Any, /) -> None:
        raise AssertionError("an envelope that is answered sends no more items")


_ANSWERED = _Answered()
_NOWHERE = contextvars.Context()


class SlotOwner(Protocol):
    """Who is told when an envelope has ended: the actor that counts it."""

    def slot_freed(self) -> None: ...


class WaitingPlace(Protocol):
    """Where an envelope waits for its turn; a cancelled one is taken out."""

    def remove(self, envelope: "Envelope", /) -> None: ...


class Envelope:
    """One call: ``message`` for the actor, ``context`` to serve it in, ``deadline`` (absolute Trio time).

    An envelope that has ended has forgotten its message and its context, and an answered one its reply.
    """

    __slots__ = (
        "_holds",
        "_scope",
        "answered",
        "cancelled",
        "children",
        "context",
        "deadline",
        "message",
        "owner",
        "parent",
        "queue",
        "reply",
        "watched",
    )

    def __init__(
        self,
        message: Any,
        reply: Reply,
        context: contextvars.Context,
        deadline: float = inf,
        parent: "Envelope | None" = None,
    ) -> None:
        self.message = message
        self.reply = reply
        self.context = context
        self.deadline = deadline
        self.watched = False
        """Whether its sender has an alarm set, and cancels it at its deadline."""
        self.answered = False
        self.cancelled: BaseException | None = None
        self.queue: WaitingPlace | None = None
        self.owner: SlotOwner | None = None
        self.children: set[Envelope] | None = None
        self._scope: trio.CancelScope | None = None
        self._holds = 1  # the work itself
        self.parent = parent
        if parent is not None:
            parent._holds += 1
            if parent.children is None:
                parent.children = {self}
            else:
                parent.children.add(self)

    @property
    def ended(self) -> bool:
        """True when nothing runs on this envelope's behalf any more."""
        return self._holds == 0

    # -- the answer ------------------------------------------------------------------------------------

    def succeed(self, value: Any) -> bool:
        """Answer with ``value``, and cancel the calls that are still under way for this one.

        Returns False, having done nothing, when the answer has gone already.
        """
        if self.answered:
            return False
        self.answered = True
        reply, self.reply = self.reply, _ANSWERED
        try:
            reply.succeed(value)
        except Exception:
            # A reply that breaks its promise must not take the worker, or a sweep half done, with it.
            _log.exception("a reply raised while it was given its answer")
        if self.children:
            self._cancel_children()
        return True

    def fail(self, error: BaseException) -> bool:
        """As ``succeed``, with an error."""
        if self.answered:
            return False
        self._fail(error)
        if self.children:
            self._cancel_children()
        return True

    def _fail(self, error: BaseException) -> None:
        self.answered = True
        reply, self.reply = self.reply, _ANSWERED
        try:
            reply.fail(error)
        except Exception:
            _log.exception("a reply raised while it was given its answer")

    def _cancel_children(self) -> None:
        gone = CallCancelled("the request that made this call has ended")
        for child in list(self.children or ()):
            child.cancel(gone)

    def cancel(self, reason: BaseException) -> None:
        """Take the call back: it is answered with ``reason`` now, and its children with it.

        A queued envelope leaves its mailbox and is never started; one at work has its scope cancelled.
        Never waits; a second call does nothing.
        """
        tree = [self]
        while tree:  # a loop, because compositions may be deeper than Python's stack
            envelope = tree.pop()
            if envelope.cancelled is not None:
                continue
            envelope.cancelled = reason
            if envelope.children:
                tree.extend(envelope.children)
            if envelope._scope is not None:
                # Before the answers of its children: then its task sees Cancelled, not their errors.
                envelope._scope.cancel()
            if not envelope.answered:
                envelope._fail(reason)
            if envelope.queue is not None:
                envelope.queue.remove(envelope)
                envelope.release()

    # -- the work --------------------------------------------------------------------------------------

    def start(self, scope: trio.CancelScope, now: Callable[[], float] = trio.current_time) -> bool:
        """Begin the work inside ``scope``; False when there is no longer any point in it.

        Arms the scope's deadline, so that the work sees it as any Trio code does.  ``now`` tells Trio's time,
        for whoever has a shorter way to it.
        """
        if self.answered:
            return False
        if self.deadline != inf:
            if now() >= self.deadline:
                self.cancel(DeadlinePassed("the deadline passed before the work began"))
                return False
            if self.watched:
                # A second timer for one deadline would be a tenth of a call's whole cost.  This lets the work
                # see its deadline as any Trio code does, and leaves the watching to the sender.
                scope._deadline = self.deadline
            else:
                scope.deadline = self.deadline
        self._scope = scope
        return True

    def disarm(self, scope: trio.CancelScope) -> None:
        """Take the deadline off ``scope``, which is for the next envelope now."""
        if self.watched:
            scope._deadline = inf
        else:
            scope.deadline = inf

    def done(self, result: Any) -> None:
        """The task has done its work: ``result`` is the answer, unless that was given before."""
        self._scope = None
        self.succeed(result)

    def stop(self) -> None:
        """The task has done its work; a cancel from now on has no scope to reach."""
        self._scope = None

    def discard(self) -> None:
        """Undo the making of an envelope that could not be sent: no answer, and its parent is rid of it."""
        self.answered = True
        self.release()

    def hold(self) -> None:
        """Something further runs on this envelope's behalf: it does not end before ``release``."""
        self._holds += 1

    def release(self) -> None:
        """The work, or something that held the envelope, is over; the last one ends it."""
        envelope: Envelope | None = self
        while envelope is not None:
            envelope._holds -= 1
            if envelope._holds:
                return
            # What it carried often leads back to it; an ended envelope must be no garbage collector's work.
            envelope.message = None
            envelope.context = _NOWHERE
            parent = envelope.parent
            if parent is not None:
                assert parent.children is not None
                parent.children.discard(envelope)
            if envelope.owner is not None:
                envelope.owner.slot_freed()
            envelope = parent
