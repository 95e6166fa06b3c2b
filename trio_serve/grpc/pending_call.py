"""A client's call until it is over, whoever answers it: its deadline, its end, and the tasks that wait.

    enter ──> deadline runs ──> finish(end): once ──> who waits is woken, callbacks are called
                 cancel, deadline_passed ──┘

Subclasses are outgoing_call.py, whose answer comes from a server, and intercepted_call.py, whose
answer comes from an interceptor.  What stubs return (client_call.py, client_stream.py) asks of either what
stands here, and for its replies.
No task belongs to it.

Knows nothing of attempts, connections and messages.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_serve.grpc.rpc_error import RpcError
from trio_serve.transport.alarms import Alarm
from trio_serve.wire.grpc import Metadata, Status, Trailers

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["ANSWERED", "SENT", "PendingCall"]

logger = logging.getLogger("trio_serve.grpc")

SENT: Callable[[PendingCall], bool] = operator.attrgetter("is_sent")
ANSWERED: Callable[[PendingCall], bool] = operator.attrgetter("is_answered")


class PendingCall:
    """One call: what its caller may do and wait for."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_callbacks",
        "_crowd",
        "_enders",
        "channel",
        "deadline",
        "end",
        "failure",
        "path",
        "requests_ended",
    )

    def __init__(self, channel: Channel, path: str, deadline: float) -> None:
        self.channel = channel
        self.path = path
        self.deadline = deadline
        self.end: Trailers | None = None
        self.failure: BaseException | None = None
        self.requests_ended = False
        self._alarm: Alarm | None = None
        self._crowd: list[trio.lowlevel.Task] | None = None  # wait for any change,
        self._enders: list[trio.lowlevel.Task] | None = None  # and these for the end
        self._callbacks: list[Callable[[], None]] | None = None

    # What subclasses are asked for.

    @property
    def is_sent(self) -> bool:
        """Whether a server is, or was, at it."""
        raise NotImplementedError

    @property
    def has_headers(self) -> bool:
        """Whether the initial metadata has come."""
        raise NotImplementedError

    @property
    def initial_metadata(self) -> Metadata:
        """What came before the first message."""
        raise NotImplementedError

    @property
    def peer(self) -> str:
        """Who answers, as text."""
        raise NotImplementedError

    @property
    def crowded(self) -> bool:
        """Whether more requests should wait: whoever takes them takes no more now."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin what leads to the answer; never waits."""
        raise NotImplementedError

    def send(self, request: Any, end: bool = False) -> None:
        """Send one request, which is the last one with ``end``; never waits.

        Raises:
            RpcError: RESOURCE_EXHAUSTED, when it is over the service config's limit.
            TypeError: it is no message of the rpc.
        """
        raise NotImplementedError

    def send_end(self) -> None:
        """Say that there are no more requests; never waits."""
        raise NotImplementedError

    async def room(self, *, abandon: bool) -> None:
        """Wait until more requests may be sent, or the call is over."""
        while self.crowded:
            await self.park(abandon=abandon)

    # What the caller does.

    def enter(self) -> None:
        """The call exists from now: its deadline runs, and closing the channel ends it."""
        self.channel.calls[self] = None
        deadline = self.deadline
        if deadline != math.inf:
            if deadline <= self.channel.now():
                self.deadline_passed()
            else:
                self._alarm = self.channel.alarms.at(deadline, self.deadline_passed)

    @property
    def is_answered(self) -> bool:
        """Whether the initial metadata is there, or will never be."""
        return self.end is not None or self.has_headers

    @property
    def failed(self) -> bool:
        """Whether the call is over, with another status than OK."""
        return self.end is not None and self.end.status is not Status.OK

    async def until(self, ready: Callable[[PendingCall], bool], *, abandon: bool) -> None:
        """Wait until the call is `SENT` or `ANSWERED`.  Cancelling cancels the call when ``abandon``."""
        while not ready(self):
            await self.park(abandon=abandon)

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
        """End the call: nobody waits longer than this."""
        self.cancel(Status.DEADLINE_EXCEEDED, self.lateness)

    @property
    def lateness(self) -> str:
        """What is said of the call when its deadline passes."""
        return f"the deadline of {self.path} has passed"

    def park(self, *, abandon: bool) -> Awaitable[Any]:
        """Wait until anything about the call changes.  Cancelling cancels the call when ``abandon``."""
        if self._crowd is None:
            self._crowd = []
        return self._wait_in(self._crowd, abandon)

    def over(self, *, abandon: bool) -> Awaitable[Any]:
        """Wait until the call, which is not over yet, is; it wakes the waiter then and at no step before."""
        if self._enders is None:
            self._enders = []
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
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    @property
    def story(self) -> str:
        """What is known of how the call ended."""
        assert self.end is not None
        return f"{self.path} ended with {self.end.status.name} ({self.peer}): {self.end.message}"

    def error(self) -> Exception:
        """The error that the call ended with."""
        assert self.end is not None
        status, message, metadata, details = self.end
        error = RpcError(
            status,
            message,
            initial_metadata=self.initial_metadata,
            trailing_metadata=metadata,
            details_bin=details,
            debug=self.story,
        )
        error.__cause__ = self.failure
        return error

    # How it ends.

    def finish(self, end: Trailers) -> None:
        """The call is over; what is still under way is dropped."""
        self.end = end
        self.channel.calls.pop(self, None)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._enders:
            _reschedule(self._enders)
        if self._crowd:
            _reschedule(self._crowd)
        if self._callbacks is not None:
            self._call_back(self._callbacks)

    def _call_back(self, callbacks: list[Callable[[], None]]) -> None:
        self._callbacks = None
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a done callback of %s failed", self.path)

    def wake(self) -> None:
        """Let every task that waits for a change look again."""
        if self._crowd:
            _reschedule(self._crowd)


def _reschedule(crowd: list[trio.lowlevel.Task]) -> None:
    for task in crowd:
        trio.lowlevel.reschedule(task)
    crowd.clear()
