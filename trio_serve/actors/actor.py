"""An actor: a nursery of parked workers that serve envelopes, so many at a time and no more.

    deliver ──> an idle worker, rescheduled with the envelope
            ├─> a new worker, while fewer than max_ongoing envelopes are counted
            └─> the mailbox, which refuses when it is full
    slot freed ──> the mailbox's oldest envelope goes to an idle worker

Starting a task costs more than a small call's whole work, so a worker that has finished parks itself and
is woken with the next envelope; each call still has its own context and its own cancellation.  A worker
keeps one cancel scope over many calls and replaces it only after it was cancelled.

The slot of an envelope is free when the envelope has *ended* (see ``envelope``), not when it is answered.

Knows Trio only: what ``serve`` does with an envelope is its own affair.
"""

import contextvars
import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from trio_serve.actors.envelope import Envelope
from trio_serve.actors.errors import (
    ActorStopped,
    DeadlinePassed,
    as_exception,
    is_cancellation,
    is_interrupt,
)
from trio_serve.actors.mailbox import Mailbox
from trio_serve.actors.turns import Turns, turns_of_this_run

_log = logging.getLogger("trio_serve.actors")

Serve = Callable[[Envelope], Awaitable[Any]]


class Actor:
    """Serves envelopes with ``serve``, at most ``max_ongoing`` at a time.

    What ``serve`` returns is the answer, and what it raises is the answer too; it may also answer earlier
    itself, with ``envelope.succeed``.  Nothing that it raises ends the actor, ``KeyboardInterrupt`` apart.
    """

    def __init__(self, name: str, serve: Serve, max_ongoing: int, mailbox: Mailbox) -> None:
        self.name = name
        self.serve = serve
        self.max_ongoing = max_ongoing
        self.mailbox = mailbox
        self.ongoing = 0
        self.receiving = False
        self.turns: Turns
        """For ``serve``, which tells what took long; while it runs."""
        self._idle: list[_Worker] = []
        self._home = contextvars.Context()
        self._now: Callable[[], float] = trio.current_time
        self._nursery: trio.Nursery | None = None
        self._became_idle = trio.Event()
        self._stop = trio.Event()
        self._stopped = trio.Event()

    @property
    def has_room(self) -> bool:
        """Whether an envelope delivered now would be started at once."""
        return self.receiving and self.ongoing < self.max_ongoing

    # -- delivery --------------------------------------------------------------------------------------

    def deliver(self, envelope: Envelope) -> None:
        """Start serving ``envelope``, or queue it when there is no room; never waits.

        Raises:
            MailboxFull, MailboxClosed: from the mailbox; the envelope is as it was.
        """
        if not self.start(envelope):
            self.mailbox.put_nowait(envelope)

    def start(self, envelope: Envelope) -> bool:
        """Start serving ``envelope``; False, having done nothing, when there is no room."""
        if self._idle and self.receiving and self.ongoing < self.max_ongoing:
            self._wake(envelope)
        elif self._may_hire():
            self._hire(envelope)
        else:
            return False
        return True

    def pull(self) -> None:
        """Take from the mailbox as long as there is room."""
        mailbox = self.mailbox
        while mailbox.waiting and self._may_hire():
            envelope = mailbox.take_nowait()
            if envelope is None:
                return
            if self._idle:
                self._wake(envelope)
            else:
                self._hire(envelope)

    def _wake(self, envelope: Envelope) -> None:
        self.ongoing += 1
        envelope.owner = self
        worker = self._idle.pop()
        worker.envelope = envelope
        worker.task.context = envelope.context
        reschedule(worker.task, WOKEN)

    def _may_hire(self) -> bool:
        """Room for one more, and a nursery that is not being cancelled."""
        if not self.receiving or self.ongoing >= self.max_ongoing:
            return False
        return self._nursery is not None and not self._nursery.cancel_scope.cancel_called

    def _hire(self, envelope: Envelope) -> None:
        self.ongoing += 1
        envelope.owner = self
        assert self._nursery is not None
        self._nursery.start_soon(_Worker(self, envelope).run, name=self.name)

    def slot_freed(self) -> None:
        self.ongoing -= 1
        if self.mailbox.waiting:
            self.pull()
        if not self.ongoing:
            self._became_idle.set()

    def resize(self, max_ongoing: int) -> None:
        """Change how many envelopes are served at a time; those above a lower number finish first."""
        self.max_ongoing = max_ongoing
        self.pull()

    # -- life ------------------------------------------------------------------------------------------

    async def run(
        self, *, receive: bool = True, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until ``stop``; cancelling it answers what is at work with ``ActorStopped``.

        With ``receive=False`` it takes nothing before ``receive`` is called.

        Raises:
            ActorStopped: something other than ``stop`` ended the actor's tasks: user code cancelled its
                nursery.
        """
        self.turns = turns_of_this_run()
        self._now = trio.lowlevel.current_clock().current_time  # the same time in a third of the steps
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if receive:
                    self.receive()
                task_status.started()
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.receiving = False
            self._nursery = None
            self._idle.clear()
            self._stopped.set()
        if not self._stop.is_set():
            raise ActorStopped(f"{self.name}: its tasks were cancelled from within")

    def receive(self) -> None:
        """Take envelopes from now on."""
        self.receiving = self._nursery is not None and not self._stop.is_set()
        self.pull()

    async def wait_idle(self) -> None:
        """Wait until nothing is at work and, while the actor receives, nothing waits in its mailbox."""
        await trio.lowlevel.checkpoint()
        while self.ongoing or (self.receiving and self.mailbox):
            self._became_idle = trio.Event()
            await self._became_idle.wait()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Receive no more, wait up to ``grace_s`` seconds for what is at work, then cancel it.

        What waits in the mailbox stays there, for the actors that share it or for the mailbox's owner.
        Cancelling this ends the wait and skips the rest of the grace.
        """
        self.receiving = False
        try:
            with trio.move_on_after(grace_s):
                await self.wait_idle()
        finally:
            self._stop.set()
        if self._nursery is not None:
            await self._stopped.wait()

    async def wait_stopped(self) -> None:
        """Wait until the actor has stopped, or was killed."""
        await self._stopped.wait()

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a background task of this actor's own; an error that it lets out ends the actor.

        Raises:
            ActorStopped: the actor is not running.
        """
        if self._nursery is None:
            raise ActorStopped(f"{self.name} is not running")
        self._nursery.start_soon(async_fn, *args)


class _Woken:
    """What a task is rescheduled with that has, or knows where to find, what it waited for.

    It stands where Trio takes an ``outcome.Value``: one made for each call, and unwrapped, would cost as much
    as all of the delivery.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        pass


WOKEN: Any = _Woken()


class _Worker:
    """One task that serves one envelope after another."""

    __slots__ = ("actor", "envelope", "scope", "task")

    def __init__(self, actor: Actor, first: Envelope) -> None:
        self.actor = actor
        self.envelope: Envelope | None = first
        self.scope: trio.CancelScope
        self.task: Task

    async def run(self) -> None:
        # All in one frame with few names: a stream that is open and idle holds the frames that its worker
        # waits in, and Trio makes a second object of the outermost.
        self.task = current_task()
        while True:
            envelope: Envelope | None = None
            try:
                with trio.CancelScope() as self.scope:
                    if self.envelope is not None:
                        # A new worker: its first step ran in the context of whoever delivered.
                        self.task.context = self.envelope.context
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    while True:
                        if self.envelope is None:
                            self.actor._idle.append(self)
                            await wait_task_rescheduled(self)
                        if self.actor.turns.held:
                            await self.actor.turns.give_way()
                        envelope = self.envelope
                        assert envelope is not None
                        if envelope.start(self.scope, self.actor._now):
                            self.task.custom_sleep_data = self.actor.turns
                            envelope.done(await self.actor.serve(envelope))
                        if envelope.deadline != inf:
                            envelope.disarm(self.scope)
                        self.task.context = self.actor._home
                        self.envelope = None
                        envelope.release()
                        envelope = None  # a parked worker keeps nothing of its last call alive
                        # If the scope was cancelled all the same, as the work was about to return, the next
                        # wait says so with no envelope in hand.
            except BaseException as failure:
                self._fail(failure)
            else:
                self._fail(None)

    # Called by Trio when the parked worker is cancelled; no method with a name, which bound to this worker
    # would be an object more for each that is parked.
    def __call__(self, _: RaiseCancelT) -> Abort:
        self.actor._idle.remove(self)
        if not self.scope.cancel_called:  # but a scope around it was
            self.actor.receiving = False
        return Abort.SUCCEEDED

    def _fail(self, failure: BaseException | None) -> None:
        """The work at hand, if any, ended with ``failure``, or (None) by its scope's being cancelled."""
        self.task.context = self.actor._home
        if self.envelope is None:
            if failure is not None:  # cancelled while parked: the actor is ending
                raise failure
            return
        envelope, self.envelope = self.envelope, None
        envelope.stop()
        try:
            self._answer_failure(envelope, failure)
        finally:
            envelope.release()

    def _answer_failure(self, envelope: Envelope, failure: BaseException | None) -> None:
        if failure is None:
            # The scope caught its own cancellation: by ``cancel``, which has answered, or by the deadline.
            envelope.cancel(DeadlinePassed("the deadline passed while the call was at work"))
        elif is_interrupt(failure):
            envelope.cancel(ActorStopped(f"{self.actor.name} was interrupted from the keyboard"))
            raise failure
        elif is_cancellation(failure):
            # From outside the scope: the actor is being cancelled, and the next wait will say so again.
            if trio.current_effective_deadline() == -inf:
                self.actor.receiving = False  # what waits is for actors that live
            envelope.cancel(ActorStopped(f"{self.actor.name} was stopped while it served this call"))
        elif not envelope.fail(as_exception(failure, self.actor.name)):
            _log.debug("%s: an error after the answer", self.actor.name, exc_info=failure)
