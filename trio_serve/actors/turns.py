"""Methods that compute for long take turns: one of them, then everybody else, then the next.

    scheduler's turn    1            2 and 3                   4            5 and 6
                        A computes   sockets are read, calls   B computes   sockets ...
                                     refused, answers sent

Trio looks at its sockets once a turn, and in between it runs every task that is ready.  Five methods that
compute for 5 ms each, and never await, then hold the loop for 25 ms, and a call that has only to be refused
waits as long.  So after a long computation the loop is *held*: envelopes that would be begun give way, first
come first served, and are let go one a turn, or twice as many each time as long as they turn out short.

A computation counts when it began with its envelope's work and reached its end without a wait; what comes
after a wait is not seen.  Source: Trio's scheduler, which runs what becomes ready in a turn in the next one.
"""

from collections import deque

from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    RunVar,
    Task,
    cancel_shielded_checkpoint,
    current_task,
    reschedule,
    spawn_system_task,
    wait_task_rescheduled,
)

LONG_S = 0.002


class Turns:
    """Who may begin to compute, in one Trio run; ``held``: envelopes that would be begun should give way."""

    __slots__ = ("_giving_way", "_long", "held")

    def __init__(self) -> None:
        self.held = False
        self._long = False
        self._giving_way: deque[Task] = deque()

    def took_long(self) -> None:
        """This task's work took longer than ``LONG_S``; whether it held the loop meanwhile is found out here.

        The worker has put this object into the task's ``custom_sleep_data``, which Trio clears when it
        reschedules a task: where it still is, the task has not waited.
        """
        if current_task().custom_sleep_data is not self:
            return
        self._long = True
        if not self.held:
            self.held = True
            spawn_system_task(self._let_go)

    async def give_way(self) -> None:
        """Wait until it is this task's turn; cancelling leaves the line."""
        task = current_task()
        line = self._giving_way
        line.append(task)

        def leave(_: RaiseCancelT) -> Abort:
            line.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)

    async def _let_go(self) -> None:
        line = self._giving_way
        at_once = 1
        let_go = 0
        while line or self._long:
            if self._long:
                at_once = 1
            elif let_go:  # and none of them computed for long
                at_once *= 2
            self._long = False
            let_go = min(at_once, len(line))
            for _ in range(let_go):
                reschedule(line.popleft())
            await cancel_shielded_checkpoint()  # the turn of those, before or after this task
            await cancel_shielded_checkpoint()  # one for what their turn kept waiting
        self.held = False


_of_this_run: RunVar[Turns] = RunVar("turns")


def turns_of_this_run() -> Turns:
    """The one instance of the current Trio run."""
    try:
        return _of_this_run.get()
    except LookupError:
        turns = Turns()
        _of_this_run.set(turns)
        return turns
