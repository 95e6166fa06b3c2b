"""What a caller holds: the answer to come of one call, or the items to come of one stream.

    await response            response.result(timeout_s)        in a task / in a thread
    async for item in items   for item in items

A response may be awaited as often as one likes, by several tasks, and may be an argument of other calls.
Cancelling the only task that awaits it cancels the call: who has stopped waiting wants no answer.

Source: Ray Serve's DeploymentResponse and DeploymentResponseGenerator.
"""

from collections.abc import Generator
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

import outcome
import trio
from trio.lowlevel import TrioToken

from trio_serve.actors import CallCancelled, DeadlinePassed, Deliver, Envelope, ask
from trio_serve.serving.errors import ServeError
from trio_serve.serving.replies import EndOfStream, StreamReply, UnaryReply

if TYPE_CHECKING:  # a default, so that the bare name stays a type, which the running Python may not know
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class Home(Protocol):
    """The Trio run in which deployments live."""

    @property
    def token(self) -> TrioToken: ...

    @property
    def thread_ident(self) -> int: ...


class InstanceEnded(ServeError):
    """The Trio run in which the deployment lived is over."""

    def __init__(
        self, text: str = "the instance that served this deployment has ended; start it again with run(...)"
    ) -> None:
        super().__init__(text)


class CallUnderWay:
    """One call that has been made, from the caller's side."""

    __slots__ = ("_cancelled", "_envelope", "_home", "request_id")

    def __init__(self, home: Home, request_id: str) -> None:
        self._home = home
        self.request_id = request_id
        self._envelope: Envelope | None = None
        self._cancelled: str | None = None

    @property
    def _finished(self) -> bool:
        raise NotImplementedError

    def cancel(self) -> None:
        """Take the call back, from any thread; without effect once it is answered.

        A call that waits in a queue is never started, one at work has its tasks cancelled, and so have all
        calls that it made.  Who waits for the answer gets ``CallCancelled``.  Returns at once.
        """
        self._cancel("it was cancelled by its caller")

    def cancelled(self) -> bool:
        """Whether the call was taken back before it was answered."""
        if self._cancelled is not None:
            return True
        return self._envelope is not None and self._envelope.cancelled is not None

    def _cancel(self, why: str) -> None:
        if self._finished or self._cancelled is not None:
            return
        self._cancelled = why
        if get_ident() == self._home.thread_ident:
            self._take_back()
            return
        try:
            self._home.token.run_sync_soon(self._take_back)
        except trio.RunFinishedError:
            pass  # with the run, the call has ended

    def _take_back(self) -> None:
        if self._envelope is not None and self._cancelled is not None:
            self._envelope.cancel(CallCancelled(f"request {self.request_id}: {self._cancelled}"))

    def sent_as(self, envelope: Envelope) -> None:
        """The call has left as ``envelope``; one that was cancelled before is taken back now."""
        self._envelope = envelope
        if self._cancelled is not None:
            self._take_back()

    def _in_thread(self, what: str, instead: str) -> None:
        """Refuse to block the very thread that would have to give the answer."""
        if get_ident() == self._home.thread_ident:
            raise RuntimeError(f"{what} would block the event loop that is to give the answer; {instead}")

    def _in_trio(self, what: str, instead: str) -> None:
        if get_ident() != self._home.thread_ident:
            raise RuntimeError(f"{what} works in the event loop of the instance only; {instead}")


class DeploymentResponse(CallUnderWay, Generic[T]):
    """The answer to come of one call."""

    __slots__ = ("_deadline", "reply")

    def __init__(self, home: Home, request_id: str) -> None:
        CallUnderWay.__init__(self, home, request_id)
        self.reply = UnaryReply()
        self._deadline = inf

    @property
    def _finished(self) -> bool:
        return self.reply.finished

    def leave_at(self, deadline: float) -> None:
        """Let nobody wait for the answer past ``deadline`` (absolute Trio time), come what may."""
        self._deadline = deadline

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the answer; return it, or raise what the method raised.

        Cancelling the wait cancels the call, unless others wait for it too.

        Raises:
            BackPressureError: the deployment's queue was full.
            DeploymentUnavailable: nothing serves it.
            MethodNotFound, WrongMethodKind: it cannot be called like this.
            CallCancelled, DeadlinePassed: it ended early.
        """
        if get_ident() != self._home.thread_ident:
            self._in_trio("awaiting a DeploymentResponse", "use response.result() here")
        if self._deadline == inf:
            return self.reply.wait(self._unwanted).__await__()
        return self._wait_until_deadline().__await__()

    def _unwanted(self) -> None:
        if trio.current_time() < self._deadline:  # past it, the deadline itself is the reason
            self._cancel("the task that awaited it was cancelled")

    async def _wait_until_deadline(self) -> T:
        try:
            with trio.CancelScope(deadline=self._deadline):
                return await self.reply.wait(self._unwanted)  # type: ignore[no-any-return]
        except BaseException:
            del self  # the error's traceback holds this frame, and the reply the error
            raise
        # Work that shields itself outlives its deadline; its answer does not.
        if self._envelope is not None:
            self._envelope.cancel(DeadlinePassed("the deadline passed before the answer came"))
        return await self.reply.wait(self._unwanted)  # type: ignore[no-any-return]

    def result(self, timeout_s: float | None = None) -> T:
        """Block the calling thread until the answer is there; return it, or raise what the method raised.

        Raises:
            TimeoutError: no answer within ``timeout_s`` seconds; the call goes on.
            RuntimeError: called in the event loop's own thread, which would block itself.
            InstanceEnded: the instance has ended, a `ServeError`.
        """
        self._in_thread("response.result()", "await the response instead")
        try:
            return ask(self._home.token, self.reply.deliver_to, timeout_s)  # type: ignore[no-any-return]
        except trio.RunFinishedError:
            raise InstanceEnded from None

    def __repr__(self) -> str:
        return f"<DeploymentResponse to request {self.request_id}>"


class DeploymentResponseGenerator(CallUnderWay, Generic[T]):
    """The items to come of one stream.

    The producer is never more than one item ahead.  When the generator is dropped before its end, the call
    is cancelled.
    """

    __slots__ = ("_over", "reply")

    def __init__(self, home: Home, request_id: str) -> None:
        super().__init__(home, request_id)
        self.reply = StreamReply()
        self._over = False

    @property
    def _finished(self) -> bool:
        return self.reply.finished

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next item; what the method raises is raised here after the items before it.

        Cancelling the wait cancels the call.
        """
        self._in_trio("iterating with 'async for'", "use a plain 'for' here")
        if self._over:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        try:
            return await self.reply.receive()  # type: ignore[no-any-return]
        except EndOfStream:
            self._over = True
            raise StopAsyncIteration from None
        except trio.Cancelled:
            self._cancel("the task that read the stream was cancelled")
            raise
        except trio.BusyResourceError:
            raise
        except BaseException:
            self._over = True
            raise

    async def aclose(self) -> None:
        """Cancel the call, unless it is over; for ``contextlib.aclosing``."""
        self.cancel()
        await trio.lowlevel.checkpoint()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """Block the calling thread until the next item is there."""
        self._in_thread("iterating with 'for'", "use 'async for' instead")
        if self._over:
            raise StopIteration
        try:
            return ask(self._home.token, self._next_to)  # type: ignore[no-any-return]
        except EndOfStream:
            self._over = True
            raise StopIteration from None
        except trio.RunFinishedError:
            self._over = True
            raise InstanceEnded from None
        except Exception:
            self._over = True
            raise

    def _next_to(self, deliver: Deliver) -> None:
        try:
            self.reply.receive_to(deliver)
        except trio.BusyResourceError as error:
            deliver(outcome.Error(error))

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError(
            "this call was made with stream=True and answers with a stream: read it with 'async for', or "
            "call it without stream=True"
        )

    def __del__(self) -> None:
        if self._envelope is not None and not self._finished and self._cancelled is None:
            self._cancel("its stream was dropped before the end")

    def __repr__(self) -> str:
        return f"<DeploymentResponseGenerator of request {self.request_id}>"
