"""A call on the wire: its requests, and the attempts to get them answered.

    start --> attempt 0 --(refused, retried, hedged)--> attempt 1 ...
                 |                                          |
                 | response headers: committed <------------+   the others are dropped, the requests forgotten
                 v
    messages --> the caller's task          end: trailers | deadline | cancel | no attempt is left

Until an attempt is committed the requests are kept, so that another one can send them again; over
``retry_buffer_bytes`` the call commits early and is not retried.  All of it runs in the turn of whoever
reports: the connection's reader, an alarm, the caller.

Source: gRFC A6 ("When Retries are Valid", "Memory Management"), gRPC over HTTP2.
Knows nothing of stubs, of addresses and of how attempts are spaced.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trio_serve.grpc.attempt import Attempt
from trio_serve.grpc.call_form import CallForm
from trio_serve.grpc.pending_call import PendingCall
from trio_serve.transport.writer import BACKLOG_HIGH
from trio_serve.wire.grpc import Fields, Metadata, Trailers, build_request_fields

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["Again", "OutgoingCall"]

REFUSALS_MAX = 5
REFUSAL_DELAY_S = 0.01


class Again(Protocol):
    """A policy that decides, for one call, whether another attempt follows (retrying.py)."""

    def started(self) -> None:
        """The call's first attempt has begun."""

    def attempt_ended(self, end: Trailers, *, committed: bool, others: bool) -> bool:
        """An attempt ended; whether the call goes on (``others``: attempts are still under way)."""

    def stop(self) -> None:
        """The call is over: make no more attempts."""


class OutgoingCall(PendingCall):
    """What all kinds of call share.  Subclasses (replies.py) differ in what becomes of the messages."""

    __slots__ = (
        "_buffered",
        "_refusals",
        "again",
        "attempts",
        "committed",
        "form",
        "metadata",
        "requests",
    )

    def __init__(self, channel: Channel, form: CallForm, metadata: Fields, deadline: float) -> None:
        super().__init__(channel, form.path, deadline)
        self.form = form
        self.metadata = metadata
        self.again: Again | None = None
        self.requests: list[bytes] = []
        self.attempts: list[Attempt] = []
        self.committed: Attempt | None = None
        self._buffered = 0
        self._refusals = 0

    # What the caller does.

    def start(self) -> None:
        """Begin the first attempt; never waits."""
        if self.end is None:
            self.try_now(0)
            if self.again is not None:
                self.again.started()

    def try_now(self, number: int) -> None:
        """Begin another attempt, after ``number`` earlier ones."""
        if self.end is None:
            attempt = Attempt(self, number)
            self.attempts.append(attempt)
            self.channel.submit(attempt)

    def send(self, request: Any, end: bool = False) -> None:
        data = self.form.frame(request)
        self.requests_ended = end
        if self.committed is not None:
            self.committed.send(data, end)
            return
        self.requests.append(data)
        self._buffered += len(data)
        if self.attempts:
            self._push()

    def send_end(self) -> None:
        self.requests_ended = True
        if self.committed is not None:
            self.committed.send(b"", True)
        else:
            self._push()

    def _push(self) -> None:
        for attempt in self.attempts:
            attempt.push()
        self._commit_if_too_much()

    @property
    def _leading(self) -> Attempt | None:
        return self.committed or (self.attempts[-1] if self.attempts else None)

    @property
    def crowded(self) -> bool:
        if self.end is not None:
            return False
        attempt = self._leading
        if attempt is None or attempt.stream is None or attempt.connection is None:
            return self._buffered >= self.channel.retry_buffer_bytes
        connection = attempt.connection
        if attempt.stream.unsent > connection.wire.limits.send_high_water:
            return True
        return connection.writer.backlog > BACKLOG_HIGH and connection.wire.closed is None

    async def room(self, *, abandon: bool) -> None:
        asked: _Room | None = None
        while self.crowded:
            attempt = self._leading
            connection = attempt.connection if attempt is not None else None
            if connection is not None and connection.writer.backlog > BACKLOG_HIGH and not asked:
                asked = _Room(self)
                connection.writer.wake_when_room(asked)
            await self.park(abandon=abandon)
            if asked is not None and asked.woken:
                asked = None

    # What is known of it.

    @property
    def is_sent(self) -> bool:
        return self.end is not None or any(attempt.stream is not None for attempt in self.attempts)

    @property
    def has_headers(self) -> bool:
        return self.committed is not None and self.committed.head is not None

    @property
    def initial_metadata(self) -> Metadata:
        attempt = self.committed
        return attempt.head.metadata if attempt is not None and attempt.head is not None else ()

    @property
    def peer(self) -> str:
        attempt = self.committed
        return (
            attempt.connection.peer if attempt is not None and attempt.connection is not None else "no peer"
        )

    @property
    def lateness(self) -> str:
        opened = bool(self.attempts) and self.attempts[-1].stream is not None
        return super().lateness + ("" if opened else self.channel.waiting_for())

    # What attempts report.

    def changing_fields(self, number: int) -> Fields:
        """The header fields that follow ``form.prefix`` in an attempt after ``number`` earlier ones."""
        timeout_s = None if self.deadline == math.inf else self.deadline - self.channel.now()
        metadata = self.metadata
        if number:
            metadata = (*metadata, (b"grpc-previous-rpc-attempts", b"%d" % number))
        return build_request_fields((), timeout_s, metadata)

    def attempt_opened(self) -> None:
        if self._buffered > self.channel.retry_buffer_bytes:
            self._commit_if_too_much()
        if self._crowd:
            self.wake()

    def attempt_answered(self, attempt: Attempt) -> None:
        """Response headers came: this attempt is the call from now on."""
        self._commit(attempt)
        if self._crowd:
            self.wake()

    def attempt_ended(self, attempt: Attempt, end: Trailers, *, processed: bool = True) -> None:
        """An attempt is over, for the better or the worse."""
        if self.end is not None:
            return
        self.attempts.remove(attempt)
        committed = self.committed is not None
        if not processed and not committed and self._retry_refused(attempt.number):
            return
        again = self.again
        if again is not None and again.attempt_ended(end, committed=committed, others=bool(self.attempts)):
            return
        if not committed and attempt.connection is not None:
            self.committed = attempt
        self.finish(self.answered_by(end))

    def _retry_refused(self, number: int) -> bool:
        """Whether another attempt follows one of which the server has promised that it did nothing.

        gRFC A6 has one such retry, then the policy.  Without a policy we make a few more, each a little
        later: a server frees a stream's place some time after the client has seen its end, so a busy
        client at the limit of streams may meet refusals in a row.
        """
        refusals, self._refusals = self._refusals, self._refusals + 1
        if refusals == 0:
            self.try_now(number)
            return True
        if self.again is not None or refusals >= REFUSALS_MAX:
            return False
        delay_s = REFUSAL_DELAY_S * 2 ** (refusals - 1)
        self.channel.alarms.at(trio.current_time() + delay_s, functools.partial(self.try_now, number))
        return True

    def data_received(self, attempt: Attempt, data: bytes) -> None:
        raise NotImplementedError

    def answered_by(self, end: Trailers) -> Trailers:
        """How the call ends, of which the server says that it ends with ``end``."""
        return end

    def writable(self) -> None:
        self.wake()

    def finish(self, end: Trailers) -> None:
        if self.again is not None:
            self.again.stop()
        if self.attempts:
            attempts, self.attempts = self.attempts, []
            for attempt in attempts:
                attempt.drop()
        self._forget_requests()
        super().finish(end)

    def _commit(self, attempt: Attempt) -> None:
        self.committed = attempt
        self._forget_requests()
        if len(self.attempts) > 1:
            others = [other for other in self.attempts if other is not attempt]
            self.attempts = [attempt]
            for other in others:
                other.drop()

    def _commit_if_too_much(self) -> None:
        if self.committed is None and self._buffered > self.channel.retry_buffer_bytes:
            opened = [attempt for attempt in self.attempts if attempt.stream is not None]
            if opened:
                self._commit(opened[0])

    def _forget_requests(self) -> None:
        if self.requests:
            self.requests = []


class _Room:
    """A call's place among those that wait for a connection's backlog to fall."""

    __slots__ = ("_call", "woken")

    def __init__(self, call: OutgoingCall) -> None:
        self._call = call
        self.woken = False

    def wake(self) -> None:
        self.woken = True
        self._call.wake()
