"""Batches of an async generator: each step yields a list, each caller reads a stream of its own.

                      ┌─ items ─> BatchStream of a, which waits for more
    step: [x, y, z] ──┼─ items ─> BatchStream of b, which reads slowly: kept for it, up to STREAM_AHEAD_MAX
                      └─ ...      c's has ended: its place in the list stays, its value is ignored

The generator is stepped when a caller waits for an item that is not there, and only then: when nobody
reads, it rests.  A slow reader is waited for once so many items are kept for it, so memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import trio

from trio_serve.serving.batch_queue import Member, one_for_each
from trio_serve.serving.shared_work import Failure, SharedWork

R = TypeVar("R")

STREAM_AHEAD_MAX = 1000
"""Items kept for one caller that reads more slowly than the others of its batch, before all wait for it."""

_END = object()


class StreamMember(Member):
    """One caller's place in a batch of streams: what was yielded for it and not yet read."""

    __slots__ = ("ended", "failure", "items", "steps")

    def __init__(self, instance: object | None, arguments: tuple[Any, ...]) -> None:
        super().__init__(instance, arguments)
        self.items: deque[Any] = deque()
        self.ended = False
        self.failure: Failure | None = None
        self.steps: _Steps | None = None

    def feed(self, result: Any) -> None:
        """The generator yielded this."""
        if self.waiting:
            self.answer(result)
        else:
            self.items.append(result)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.answer(_END)

    def fail(self, failure: Failure) -> None:
        """The stream ends with an error, after what was yielded before."""
        if self.ended:
            return
        self.ended = True
        if self.waiting:
            self.answer(failure)
        else:
            self.failure = failure

    def leave(self) -> bool:
        """The caller reads no further; what was kept for it is dropped."""
        self.items.clear()
        self.failure = None
        if self.ended:
            return False
        self.ended = True
        self.look_again()
        return super().leave()

    def look_again(self) -> None:
        """The caller's wants have changed."""
        if self.steps is not None:
            self.steps.look_again()


class BatchStream(AsyncGenerator[R, None]):
    """What a call of a batched async generator returns: the items yielded for this caller.

    Joined its batch when it was made.  Ending it early, by ``aclose()``, by cancelling its reader, or by
    dropping it, leaves the other streams of the batch alone.
    """

    __slots__ = ("_member", "_token")

    def __init__(self, member: StreamMember) -> None:
        self._member = member
        self._token = trio.lowlevel.current_trio_token()

    def __aiter__(self) -> BatchStream[R]:
        return self

    async def __anext__(self) -> R:
        """Wait for the next item; a cancelled wait ends the stream."""
        member = self._member
        if member.waiting:
            raise RuntimeError("this stream is being read by another task already")
        if member.items:
            await trio.lowlevel.checkpoint()
            item = member.items.popleft()
            member.look_again()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            item = await self._next()
        if item is _END:
            raise StopAsyncIteration
        result: R = item
        return result

    async def _next(self) -> Any:
        member = self._member
        if member.failure is not None:
            failure, member.failure = member.failure, None
            try:
                raise failure.error.with_traceback(failure.traceback)
            finally:
                del failure  # as in Waiter.wait
        if member.ended:
            return _END
        member.look_again()
        return await member.wait()

    async def aclose(self) -> None:
        """End the stream; when it was the batch's last, wait until the batch has really ended."""
        if self._member.waiting:
            raise RuntimeError("this stream is being read by another task; cancel that one instead")
        if self._member.leave() and self._member.work is not None:
            # The batch has just been cancelled; not to wait would let it outlive its last caller.
            with trio.CancelScope(shield=True):
                await self._member.work.wait_ended()
        else:
            await trio.lowlevel.checkpoint()

    async def asend(self, value: None) -> R:
        """The next item; there is no way to send a value into a batch."""
        if value is not None:
            raise TypeError("a batched stream takes no values: several callers share the generator")
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> R:
        """End this stream and raise the error here; the generator, which others share, does not see it."""
        await self.aclose()
        error = val if isinstance(val, BaseException) else typ
        raise error.with_traceback(tb) if isinstance(error, BaseException) else error

    def __del__(self) -> None:
        if not self._member.ended:
            try:
                # The collector may run in any thread.
                self._token.run_sync_soon(self._member.leave)
            except trio.RunFinishedError:
                pass  # the loop is over, and the batch with it


class _Steps:
    """Where the batch waits until it may step the generator."""

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed = trio.Event()

    def look_again(self) -> None:
        self._changed.set()

    async def until_wanted(self, members: Sequence[StreamMember]) -> bool:
        """True when a caller waits and none is too far behind; False when all streams have ended."""
        while reading := [member for member in members if not member.ended]:
            if any(member.waiting for member in reading) and not any(
                len(member.items) >= STREAM_AHEAD_MAX for member in reading
            ):
                return True
            self._changed = trio.Event()
            await self._changed.wait()
        return False


async def hand_out(
    name: str, generator: AsyncGenerator[Any, None], members: Sequence[Any], work: SharedWork
) -> None:
    """Step ``generator`` as its callers read, and give each its part of every step.

    ``StopIteration`` or ``StopAsyncIteration`` (the class, or an instance) in a caller's place ends that
    caller's stream.  The generator is closed when it ends, or when no caller is left.
    """
    steps = _Steps()
    streams: list[StreamMember] = list(members)
    for member in streams:
        member.steps = steps
    async with aclosing(generator):
        while await steps.until_wanted(streams):
            try:
                results = one_for_each(name, await anext(generator), streams)
            except StopAsyncIteration:
                break
            for member, result in zip(streams, results, strict=True):
                if member.ended:
                    continue
                if _is_end(result):
                    work.wanted_by -= 1
                    member.end()
                else:
                    member.feed(result)
    for member in streams:
        member.end()


def _is_end(result: Any) -> bool:
    # By identity, since results may be arrays, which have no plain "==".
    return (
        result is StopIteration
        or result is StopAsyncIteration
        or isinstance(result, StopIteration | StopAsyncIteration)
    )
