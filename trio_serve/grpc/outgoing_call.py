"""One call of a client: its requests, its attempts, its end.  No task belongs to it.

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
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trio_serve.grpc.attempt import Attempt
from trio_serve.grpc.rpc_error import RpcError
from trio_serve.transport.alarms import Alarm
from trio_serve.transport.writer import BACKLOG_HIGH
from trio_serve.wire.grpc import (
    Fields,
    Metadata,
    Status,
    Trailers,
    build_request_fields,
)
from trio_serve.wire.grpc.compression import Compress

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["Again", "CallHead", "OutgoingCall"]

logger = logging.getLogger("trio_serve.grpc")

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


class CallHead:
    """What the caller said about one call, beside its requests."""

    __slots__ = ("compress", "deadline", "metadata", "prefix", "reply_bytes_max", "wait_for_ready")

    def __init__(
        self,
        prefix: Fields,
        metadata: Fields,
        deadline: float,
        compress: Compress | None,
        reply_bytes_max: int,
        wait_for_ready: bool,
    ) -> None:
        self.prefix = prefix
        self.metadata = metadata
        self.deadline = deadline
        self.compress = compress
        self.reply_bytes_max = reply_bytes_max
        self.wait_for_ready = wait_for_ready


class OutgoingCall:
    """What all kinds of call share.  Subclasses (replies.py) differ in what becomes of the messages."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_buffered",
        "_callbacks",
        "_crowd",
        "_enders",
        "_refusals",
        "again",
        "attempts",
        "channel",
        "committed",
        "end",
        "failure",
        "head",
        "path",
        "requests",
        "requests_ended",
    )

    def __init__(self, channel: Channel, path: str, head: CallHead) -> None:
        self.channel = channel
        self.path = path
        self.head = head
        self.failure: BaseException | None = None
        self.again: Again | None = None
        self.requests: list[bytes] = []
        self.requests_ended = False
        self.attempts: list[Attempt] = []
        self.committed: Attempt | None = None
        self.end: Trailers | None = None
        self._alarm: Alarm | None = None
        self._buffered = 0
        self._refusals = 0
        self._crowd: list[trio.lowlevel.Task] = []  # wait for any change,
        self._enders: list[trio.lowlevel.Task] = []  # and these for the end
        self._callbacks: list[Callable[[], None]] = []

    # What the caller does.

    def enter(self) -> None:
        """The call exists from now: its deadline runs, and closing the channel ends it."""
        self.channel.calls.add(self)
        deadline = self.head.deadline
        if deadline != math.inf:
            if deadline <= self.channel.now():
                self.deadline_passed()
            else:
                self._alarm = self.channel.alarms.at(deadline, self.deadline_passed)

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

    def send_only(self, data: bytes) -> None:
        """Make ``data`` the only request of a call that has not started."""
        self.requests.append(data)
        self.requests_ended = True
        self._buffered = len(data)

    def send(self, data: bytes, end: bool) -> None:
        """Send one framed request, or with ``end`` and no data only the end of them; never waits."""
        self.requests_ended = end
        if self.committed is not None:
            self.committed.send(data, end)
            return
        if data:
            self.requests.append(data)
            self._buffered += len(data)
        for attempt in self.attempts:
            attempt.push()
        self._commit_if_too_much()

    def cancel(self, status: Status = Status.CANCELLED, message: str = "the call was cancelled") -> bool:
        """End the call from this side; False when it was over already."""
        if self.end is not None:
            return False
        self.finish(Trailers(status, message, (), b""))
        return True

    def failed_by(self, failure: Exception, what: str, status: Status) -> None:
        """The caller's own code raised while the call was made: it ends, with that as the error's cause."""
        if self.end is None:
            self.failure = failure
            self.cancel(status, f"the {what} of {self.path} failed: {type(failure).__name__}: {failure}")

    def deadline_passed(self) -> None:
        waited = "" if self.attempts and self.attempts[-1].stream is not None else self.channel.waiting_for()
        self.cancel(Status.DEADLINE_EXCEEDED, f"the deadline of {self.path} has passed{waited}")

    @property
    def _leading(self) -> Attempt | None:
        return self.committed or (self.attempts[-1] if self.attempts else None)

    @property
    def crowded(self) -> bool:
        """Whether more requests should wait: the peer, or the connection to it, takes no more now."""
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
        """Wait until more requests may be sent, or the call is over."""
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

    async def until(self, ready: Callable[[OutgoingCall], bool], *, abandon: bool) -> None:
        """Wait until ``ready(call)``.  Cancelling cancels the call as well when ``abandon``."""
        while not ready(self):
            await self.park(abandon=abandon)

    async def park(self, *, abandon: bool) -> None:
        """Wait until anything about the call changes."""
        await self._wait_in(self._crowd, abandon)

    def over(self, *, abandon: bool) -> Awaitable[Any]:
        """Wait until the call, which is not over yet, is; it wakes the waiter then and at no step before."""
        return self._wait_in(self._enders, abandon)

    def _wait_in(self, crowd: list[trio.lowlevel.Task], abandon: bool) -> Awaitable[Any]:
        task = trio.lowlevel.current_task()
        crowd.append(task)

        def leave(_: object) -> trio.lowlevel.Abort:
            crowd.remove(task)
            if abandon:
                self.cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(leave)  # noqa: ASYNC105 (whoever waits awaits it)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call is over, now if it is."""
        if self.end is not None:
            callback()
        else:
            self._callbacks.append(callback)

    @property
    def initial_metadata(self) -> Metadata:
        attempt = self.committed
        return attempt.head.metadata if attempt is not None and attempt.head is not None else ()

    def error(self) -> RpcError:
        """The error that the call ended with."""
        assert self.end is not None
        status, message, metadata, details = self.end
        attempt = self.committed
        peer = (
            attempt.connection.peer if attempt is not None and attempt.connection is not None else "no peer"
        )
        error = RpcError(
            status,
            message,
            initial_metadata=self.initial_metadata,
            trailing_metadata=metadata,
            details_bin=details,
            debug=f"{self.path} ended with {status.name} ({peer}): {message}",
        )
        error.__cause__ = self.failure
        return error

    # What attempts report.

    def changing_fields(self, number: int) -> Fields:
        """The header fields that follow ``head.prefix`` in an attempt after ``number`` earlier ones."""
        head = self.head
        timeout_s = None if head.deadline == math.inf else head.deadline - self.channel.now()
        metadata = head.metadata
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
        self.finish(end)

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

    def writable(self) -> None:
        self.wake()

    def finish(self, end: Trailers) -> None:
        """The call is over; what is still under way is dropped."""
        self.end = end
        self.channel.calls.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()
        if self.again is not None:
            self.again.stop()
        if self.attempts:
            attempts, self.attempts = self.attempts, []
            for attempt in attempts:
                attempt.drop()
        self.requests = []
        if self._enders:
            _reschedule(self._enders)
        if self._crowd:
            self.wake()
        if self._callbacks:
            self._call_back()

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a done callback of %s failed", self.path)

    def _commit(self, attempt: Attempt) -> None:
        self.committed = attempt
        self.requests = []
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

    def wake(self) -> None:
        """Let every task that waits for a change look again."""
        _reschedule(self._crowd)


def _reschedule(crowd: list[trio.lowlevel.Task]) -> None:
    for task in crowd:
        trio.lowlevel.reschedule(task)
    crowd.clear()


class _Room:
    """A call's place among those that wait for a connection's backlog to fall."""

    __slots__ = ("_call", "woken")

    def __init__(self, call: OutgoingCall) -> None:
        self._call = call
        self.woken = False

    def wake(self) -> None:
        self.woken = True
        self._call.wake()
