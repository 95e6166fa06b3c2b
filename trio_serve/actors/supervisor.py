"""A supervisor: starts children, restarts those that die, stops them in reverse order.

    start(make) ── child.run ── ready ────────────────> died ── pause ── make() ── child.run ── ready ...
                       │ error: raised to the starter     │
                       └ nothing is restarted that        └ too often: reported as exhausted, and
                         never was ready                    left alone until the intensity allows again

One child's death touches no other (OTP's one_for_one).  A child is *ready* when its ``run`` calls
``task_status.started()``, and has *died* when its ``run`` ends before it was asked to stop.

Source: Erlang/OTP, supervisor behaviour.  Knows nothing of what its children are.
"""

from collections.abc import Callable
from math import inf
from typing import Generic, Protocol, TypeVar

import trio
from attrs import frozen

from trio_serve.actors.errors import as_exception, is_cancellation, is_interrupt
from trio_serve.actors.restarting import Backoff, RestartIntensity


class Child(Protocol):
    """What a supervisor looks after."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live; ``started()`` means ready.  Ending before ``stop`` was called is a death."""

    async def stop(self) -> None:
        """End in an orderly way, within a bound of the child's own."""


C = TypeVar("C", bound=Child)
C_contra = TypeVar("C_contra", bound=Child, contravariant=True)


@frozen
class Death:
    """What became of a child: ``retry_in_s`` says when the next attempt is due.

    ``exhausted``: the restart intensity is used up, so the pause is long and somebody should be told.
    """

    error: Exception
    failures: int
    retry_in_s: float
    exhausted: bool


class Observer(Protocol[C_contra]):
    """Whom a supervisor tells; the calls are synchronous and must not raise."""

    def child_ready(self, child: C_contra) -> None: ...

    def child_died(self, child: C_contra, death: Death) -> None: ...


class Died(Exception):
    """A child's ``run`` returned though nobody had asked it to stop."""


class Supervised(Generic[C]):
    """One place in the supervisor: the child that fills it now, and how it has fared."""

    def __init__(self, make: Callable[[], C]) -> None:
        self.make = make
        self.child = make()
        self.failures = 0
        self.ready = False
        self.was_ready = False
        self.ready_since = inf
        self.stopping = False
        self.scope = trio.CancelScope()
        self.gone = trio.Event()


class Supervisor(Generic[C]):
    """Keeps children alive inside ``run``."""

    def __init__(
        self,
        observer: Observer[C],
        *,
        backoff: Backoff | None = None,
        intensity: RestartIntensity | None = None,
    ) -> None:
        self.children: list[Supervised[C]] = []
        self._observer = observer
        self._backoff = backoff or Backoff()
        self._intensity = intensity or RestartIntensity()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the children until cancelled; a cancel cancels them all."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def start(self, make: Callable[[], C]) -> Supervised[C]:
        """Start a child and return once it is ready; from then on it is restarted when it dies.

        Cancelling this cancels the start.  What ``run`` raises before it is ready is raised here, and the
        child is not kept.
        """
        assert self._nursery is not None, "the supervisor is not running"
        supervised = Supervised(make)
        self.children.append(supervised)
        try:
            await self._nursery.start(self._keep, supervised)
        except BaseException:
            self.children.remove(supervised)
            raise
        return supervised

    async def stop(self, supervised: Supervised[C]) -> None:
        """Stop one child in its own orderly way; cancelling this ends it at once."""
        supervised.stopping = True
        try:
            if supervised.ready:
                await supervised.child.stop()
        finally:
            supervised.scope.cancel()
            if supervised in self.children:
                self.children.remove(supervised)
        await supervised.gone.wait()

    async def stop_all(self) -> None:
        """Stop the children one after the other, the youngest first."""
        for supervised in reversed(list(self.children)):
            await self.stop(supervised)

    # -- one child's life ------------------------------------------------------------------------------

    async def _keep(self, supervised: Supervised[C], *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with supervised.scope:
                error = await self._live(supervised, task_status.started)
                if not supervised.was_ready:
                    raise error
                while not supervised.stopping:
                    await self._bury(supervised, error)
                    supervised.child = supervised.make()
                    error = await self._live(supervised, lambda: None)
        finally:
            supervised.gone.set()

    async def _live(self, supervised: Supervised[C], first_ready: Callable[[], None]) -> Exception:
        """One child from its start to its death; returns what it died of."""
        child = supervised.child
        supervised.ready_since = inf

        def ready() -> None:
            supervised.ready = True
            supervised.ready_since = trio.current_time()
            self._observer.child_ready(child)
            if not supervised.was_ready:
                supervised.was_ready = True
                first_ready()

        try:
            await child.run(task_status=_Ready(ready))
        except BaseException as error:
            if is_interrupt(error):
                raise
            if is_cancellation(error):
                # Cancelled again, and alone: errors that came with it have nobody left to be told to.
                await trio.lowlevel.checkpoint_if_cancelled()
            return as_exception(error, "a supervised child")
        finally:
            supervised.ready = False
        return Died("it ended though nobody had asked it to stop")

    async def _bury(self, supervised: Supervised[C], error: Exception) -> None:
        """Tell of a death, and wait until the next attempt is due."""
        now = trio.current_time()
        if now - supervised.ready_since >= self._backoff.longest_s:
            supervised.failures = 0  # it had lived, so this is not yet a crash loop
        supervised.failures += 1
        left_alone_s = self._intensity.wait_s(now)
        pause_s = max(self._backoff.pause_s(supervised.failures), left_alone_s)
        death = Death(error, supervised.failures, pause_s, exhausted=left_alone_s > 0)
        self._observer.child_died(supervised.child, death)
        await trio.sleep(pause_s)
        self._intensity.record(trio.current_time())


class _Ready:
    """A ``task_status`` for a function that runs in its caller's own task."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def started(self, value: None = None) -> None:
        self._tell()
