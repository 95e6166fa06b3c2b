"""Where the answers of calls by handle go: one value, or a stream of items.

    UnaryReply   finish ──> every task, thread and call that waits for it, as often as they ask
    StreamReply  send ──┐ rendezvous: the sender goes on when its item has been taken
                        └─> receive

A stream has no buffer: its producer is never more than one item ahead of its consumer, through any number
of hops.

Source: Trio's memory channel of size 0.  Everything here belongs to the Trio thread.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from trio_serve.actors import WOKEN, Deliver


class UnaryReply:
    """One answer, for whoever wants it, now or later."""

    __slots__ = ("_error", "_listeners", "_tasks", "_traceback", "_value", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._tasks: list[Task] = []
        self._listeners: list[Callable[[UnaryReply], None]] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it now."""
        return bool(self._tasks or self._listeners)

    def succeed(self, value: Any, /) -> None:
        """Take the answer and wake all who wait."""
        self._value = value
        self._finish()

    def fail(self, error: BaseException, /) -> None:
        """As ``succeed``, with an error."""
        self._error = error
        self._traceback = error.__traceback__
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        for task in self._tasks:
            reschedule(task, WOKEN)
        self._tasks.clear()
        if self._listeners is not None:
            listeners, self._listeners = self._listeners, None
            for listener in listeners:
                listener(self)

    async def send(self, item: Any, /) -> None:
        raise AssertionError("a call for one answer was sent an item of a stream")

    def unwrap(self) -> Any:
        """Return the value, or raise the error; as often as one likes."""
        if self._error is not None:
            # Each raise adds frames to the one traceback that an error has; start from the callee's.
            raise self._error.with_traceback(self._traceback)
        return self._value

    async def wait(self, unwanted: Callable[[], None]) -> Any:
        """Wait for the answer; return it or raise it.

        When the wait is cancelled and nobody else waits, ``unwanted`` is called.
        """
        if self.finished:
            await trio.lowlevel.checkpoint()
        else:
            task = current_task()
            tasks = self._tasks

            def leave(_: RaiseCancelT) -> Abort:
                tasks.remove(task)
                return Abort.SUCCEEDED

            tasks.append(task)
            try:
                await wait_task_rescheduled(leave)
            except trio.Cancelled:
                if not self.wanted:
                    unwanted()
                raise
        if self._error is None:
            return self._value
        error, traceback = self._error, self._traceback
        try:
            raise error.with_traceback(traceback)
        finally:
            # The error holds its traceback, and that this frame: without this they would keep each
            # other, and the callee's frames, alive until the next garbage collection.
            del error, traceback, self, unwanted

    def listen(self, listener: "Callable[[UnaryReply], None]") -> None:
        """Call ``listener`` once the answer is there, which may be now."""
        if self.finished:
            listener(self)
        elif self._listeners is None:
            self._listeners = [listener]
        else:
            self._listeners.append(listener)

    def deliver_to(self, deliver: Deliver) -> None:
        """Deliver the answer as an outcome, once it is there."""
        self.listen(lambda reply: deliver(outcome.capture(reply.unwrap)))


class EndOfStream(Exception):
    """The stream has given its last item, in good order."""


class StreamReply:
    """A stream of items from one sender to one receiver at a time."""

    __slots__ = ("_end", "_item", "_receiver", "_sender")

    def __init__(self) -> None:
        self._item: Any = None
        self._sender: Task | None = None
        self._receiver: Deliver | None = None
        self._end: BaseException | None = None

    @property
    def finished(self) -> bool:
        """Whether the sender has sent all that it will."""
        return self._end is not None

    def succeed(self, value: Any, /) -> None:
        """Take the end: what is received from now on is ``EndOfStream``."""
        self._end = EndOfStream()
        self._finish()

    def fail(self, error: BaseException, /) -> None:
        """Take the end: what is received next is ``error``, and then ``EndOfStream``."""
        self._end = error
        self._finish()

    def _finish(self) -> None:
        self._item = None
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver(outcome.Error(self._last_word()))

    def _last_word(self) -> BaseException:
        """How the stream ended; an error is told once, and kept no longer than that."""
        assert self._end is not None
        end, self._end = self._end, EndOfStream()
        return end

    async def send(self, item: Any, /) -> None:
        """Hand over one item; returns when it has been taken."""
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver(outcome.Value(item))
            # Taken already, but a producer that never waits must let others run.
            await trio.lowlevel.checkpoint()
            return
        self._item = item
        self._sender = current_task()
        await wait_task_rescheduled(self._take_back)

    def _take_back(self, _: RaiseCancelT) -> Abort:
        self._sender = self._item = None
        return Abort.SUCCEEDED

    def receive_to(self, deliver: Deliver) -> None:
        """Deliver the next item, or the end, once it is there.

        Raises:
            trio.BusyResourceError: somebody waits for it already.
        """
        if self._sender is not None:
            item, self._item = self._item, None
            sender, self._sender = self._sender, None
            reschedule(sender)
            deliver(outcome.Value(item))
        elif self._end is not None:
            deliver(outcome.Error(self._last_word()))
        elif self._receiver is not None:
            raise trio.BusyResourceError("the stream is being read elsewhere; one reader at a time")
        else:
            self._receiver = deliver

    async def receive(self) -> Any:
        """Wait for the next item.

        Cancelling the wait loses nothing.

        Raises:
            EndOfStream: there is none.
            trio.BusyResourceError: somebody waits for it already.
        """
        if self._sender is not None or self._end is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._sender is not None:
                item, self._item = self._item, None
                sender, self._sender = self._sender, None
                reschedule(sender)
                await trio.lowlevel.cancel_shielded_checkpoint()
                return item
        if self._end is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise self._last_word()
        if self._receiver is not None:
            raise trio.BusyResourceError("the stream is being read elsewhere; one reader at a time")
        task = current_task()

        def leave(_: RaiseCancelT) -> Abort:
            self._receiver = None
            return Abort.SUCCEEDED

        self._receiver = lambda result: reschedule(task, outcome.Value(result))
        return (await wait_task_rescheduled(leave)).unwrap()  # in no variable: see UnaryReply.wait
