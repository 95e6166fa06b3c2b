"""A thread that does one job at a time, in order, for tasks that wait.

    task: run(fn) ──> queue ──> the thread: fn() ──run_sync_soon──> the task goes on

State that only such jobs touch is never touched by two of them at once, and a job that blocks holds up
nobody but the next job.  A job that has not begun can be withdrawn, and does not begin past its envelope's
deadline, even while the loop is held up; one that has begun cannot be stopped: its task leaves at once when
it is cancelled, and the envelope that the job ran for ends only when the job has (``Envelope.hold``).

The thread starts with the first job and is a daemon: a job that never returns cannot keep the
interpreter from exiting.
"""

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, TrioToken, current_task, reschedule

from trio_serve.actors.envelope import Envelope
from trio_serve.actors.errors import DeadlinePassed
from trio_serve.actors.threads_at_work import ThreadsAtWork, enter_counted_thread, threads_at_work

T = TypeVar("T")


class SerialThread:
    """Runs jobs one at a time in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._token: TrioToken | None = None
        self._clock: trio.abc.Clock
        self._closed = False
        self._ended = trio.Event()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun, those included that were withdrawn meanwhile."""
        return self._jobs.qsize()

    async def run(self, fn: Callable[[], T], owner: Envelope | None = None) -> T:
        """Run ``fn`` when its turn comes, in a copy of the task's context, and return what it returns.

        When the waiting task is cancelled, a job that has not begun never begins, and one that has begun
        goes on unattended; ``owner`` is held until it ends.

        Raises:
            DeadlinePassed: ``owner``'s turn came too late.
            RuntimeError: the thread was closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = self._make_job(fn, owner)
        job.task = current_task()
        self._jobs.put(job)
        # In no variable: an error would hold its traceback, that this frame, and this the error again.
        return (await trio.lowlevel.wait_task_rescheduled(job.leave)).unwrap()  # type: ignore[no-any-return]

    def run_unattended(self, fn: Callable[[], object], owner: Envelope | None = None) -> None:
        """Run ``fn`` when its turn comes, with nobody waiting; ``owner`` is held until it ends."""
        job = self._make_job(fn, owner)
        if owner is not None:
            owner.hold()
            job.holding = True
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread once the jobs already queued are done; never waits."""
        if self._thread is not None and not self._closed:
            threads_at_work().begin()
            self._jobs.put(None)
        self._closed = True

    async def join(self) -> None:
        """Wait until a closed thread has ended."""
        if self._thread is None:
            await trio.lowlevel.checkpoint()
            return
        await self._ended.wait()
        self._thread.join()  # it has said its last word, so this takes microseconds

    def _make_job(self, fn: Callable[[], T], owner: Envelope | None) -> "_Job[T]":
        if self._closed:
            raise RuntimeError(f"thread {self.name!r} is closed")
        if self._thread is None:
            self._token = trio.lowlevel.current_trio_token()
            self._clock = trio.lowlevel.current_clock()
            self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)
            self._thread.start()
        job = _Job(fn, owner, threads_at_work())
        job.at_work.begin()
        return job

    def _main(self) -> None:
        assert self._token is not None
        enter_counted_thread()
        try:
            while (job := self._jobs.get()) is not None:
                if job.begin():
                    job.compute(self._clock)
                    self._token.run_sync_soon(job.land)
                del job  # an idle thread keeps nothing alive
            self._token.run_sync_soon(self._end)
        except trio.RunFinishedError:
            pass  # nobody is left to tell

    def _end(self) -> None:
        threads_at_work().end()
        self._ended.set()


class _Job(Generic[T]):
    __slots__ = ("_ticket", "at_work", "context", "fn", "holding", "owner", "result", "task")

    def __init__(self, fn: Callable[[], T], owner: Envelope | None, at_work: ThreadsAtWork) -> None:
        self.fn = fn
        self.owner = owner
        self.at_work = at_work
        # A copy: the task's own context cannot be entered by two threads at once.
        self.context = contextvars.copy_context()
        self.task: Task | None = None
        self.holding = False
        self.result: outcome.Outcome[T] | None = None
        # Popping a list is atomic: the thread that begins the job and the task that withdraws it
        # cannot both have the ticket.
        self._ticket = [True]

    def begin(self) -> bool:
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def compute(self, clock: trio.abc.Clock) -> None:
        owner = self.owner
        if owner is None or self.task is None or clock.current_time() < owner.deadline:
            self.result = outcome.capture(self.context.run, self.fn)
        else:
            self.result = outcome.Error(
                DeadlinePassed("the deadline passed while the call waited for the thread")
            )

    def leave(self, _: RaiseCancelT) -> Abort:
        """The waiting task is cancelled."""
        self.task = None
        if self.begin():
            self.at_work.end()
        elif self.owner is not None:
            self.owner.hold()
            self.holding = True
        return Abort.SUCCEEDED

    def land(self) -> None:
        """Back in the Trio thread."""
        self.at_work.end()
        result, self.result = self.result, None
        if self.task is not None:
            reschedule(self.task, outcome.Value(result))
        if self.holding:
            assert self.owner is not None
            self.owner.release()
