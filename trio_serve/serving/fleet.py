"""The replicas of one deployment: started, replaced when they die, counted up and down, exchanged.

    start     as many as wanted, all or none; a constructor that raises is tried again a few times
    died      the supervisor makes another, after a pause; too often: UNHEALTHY, with the reason
    exchange  prepare (the new ones become ready, and wait) -> commit (they receive, the old ones drain)
                                                            -> abandon (the new ones go, nothing happened)
    stop      the queue is worked off, then the replicas finish, within the graceful timeouts

Knows nothing of other deployments, or of the order among them.
"""

import logging
from collections.abc import Callable
from random import Random

import trio

from trio_serve.actors import Backoff, Death, RestartIntensity, Supervised, Supervisor
from trio_serve.serving.application import DeploymentSpec
from trio_serve.serving.autoscaling import Autoscaler, AutoscalingConfig
from trio_serve.serving.deployment_state import DeploymentState
from trio_serve.serving.errors import one_line
from trio_serve.serving.replica import Replica

_log = logging.getLogger("trio_serve.serving")

# Ray Serve gives each replica three attempts, within max_constructor_retry_count for the deployment.
_ATTEMPTS_PER_REPLICA = 3

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

Member = Supervised[Replica]


class Fleet:
    """Keeps the replicas of ``state``; runs in ``run``."""

    def __init__(
        self,
        state: DeploymentState,
        random: Random,
        changed: Callable[[], None],
        *,
        backoff: Backoff | None = None,
        intensity: RestartIntensity | None = None,
    ) -> None:
        self.state = state
        self.members: list[Member] = []
        self.target = 0
        self.trouble = ""
        self.updating = True
        self.replica_starts = 0
        self.replica_deaths = 0
        self._changed = changed
        self._random = random
        self._backoff = backoff or Backoff()
        self._supervisor: Supervisor[Replica] = Supervisor(self, backoff=self._backoff, intensity=intensity)
        self._nursery: trio.Nursery | None = None
        self._target_changed = trio.Event()
        self._autoscaling = trio.CancelScope()
        self._exchanging = trio.Lock()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the replicas until cancelled; then they are cancelled, and what waits is answered."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._supervisor.run)
                nursery.start_soon(self.state.mailbox.expire)
                nursery.start_soon(self._keep_target)
                task_status.started()
        finally:
            self.state.gone = True
            self.state.refuse_new(self.state.unavailable_because or "it was stopped")
            self.state.mailbox.answer_all(self.state.unavailable())
            self._ended.set()

    # -- starting --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the first replicas; return when all of them serve.

        Raises:
            Exception: the constructor's own, when it has raised too often; nothing is left running.
        """
        async with self._exchanging:
            config = self.state.options.autoscaling_config
            self.target = config.first_target() if config is not None else self.state.options.num_replicas
            self.members = await self._start_many(self.state.spec, self.target)
            for member in self.members:
                self.state.join(member.child)
            self._autoscale(config)
        self._settle()

    async def _start_many(self, spec: DeploymentSpec, count: int) -> list[Member]:
        """Start so many replicas at once, all or none."""
        attempts = min(spec.options.max_constructor_retry_count, _ATTEMPTS_PER_REPLICA * count)
        started: list[Member] = []
        failures: list[Exception] = []

        async def start_one() -> None:
            while True:
                try:
                    started.append(await self._supervisor.start(lambda: self._make(spec)))
                    return
                except Exception as error:
                    failures.append(error)
                    self.trouble = f"a replica could not start: {one_line(error)}"
                    _log.warning("%s: a replica could not start", self.state.name, exc_info=error)
                    self._changed()
                    if len(failures) >= attempts:
                        nursery.cancel_scope.cancel()
                        return
                    await trio.sleep(self._backoff.pause_s(len(failures)))

        whole = False
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(start_one)
            whole = len(started) == count
        finally:
            if not whole:
                with trio.CancelScope(shield=True):  # bounded: nothing is at work in them
                    await self._stop_all(started)
        if not whole:
            error = failures[-1]
            error.add_note(
                f"Raised by the constructor of deployment {spec.name!r} of application "
                f"{self.state.application!r}, which was tried {len(failures)} times."
            )
            raise error
        self.trouble = ""
        return started

    def _make(self, spec: DeploymentSpec) -> Replica:
        self.replica_starts += 1
        number = "".join(self._random.choice(_LETTERS) for _ in range(6))
        # A replica made again after a tune of the options has the newest of them.
        newest = self.state.spec if self.state.spec.same_code(spec) else spec
        return Replica(self.state, newest, number)

    def replicas(self) -> list[Replica]:
        """All that there are, also those that start or stop."""
        return [member.child for member in self._supervisor.children]

    # -- what the supervisor tells ---------------------------------------------------------------------

    def child_ready(self, child: Replica) -> None:
        """A replica is ready; one that replaces a dead one joins at once."""
        if any(member.child is child for member in self.members):
            self.state.join(child)
            self._settle()

    def child_died(self, child: Replica, death: Death) -> None:
        """A replica is dead, and its successor due after a pause."""
        self.replica_deaths += 1
        self.state.leave(child)
        cause = one_line(death.error)
        self.trouble = f"replica {child.tag} died: {cause}; the next one starts in {death.retry_in_s:g} s"
        if death.exhausted:
            self.trouble += f" ({death.failures} in a row have died)"
            if not self.state.receiving:
                self.state.make_unavailable(self.trouble)
        _log.error("%s: %s", self.state.name, self.trouble, exc_info=death.error)
        self._changed()

    def _settle(self) -> None:
        """Forget past trouble once as many serve as should."""
        if len(self.state.receiving) >= self.target and len(self.members) == self.target:
            self.trouble = ""
            self.updating = False
        self._changed()

    # -- how many --------------------------------------------------------------------------------------

    def load(self) -> int:
        """Calls queued and at work: what autoscaling goes by."""
        return self.state.ongoing + self.state.queued

    def running_replicas(self) -> int:
        return len(self.state.receiving)

    def target_replicas(self) -> int:
        return self.target

    def set_target_replicas(self, replicas: int) -> None:
        """Begin to start or stop replicas until there are so many; returns at once."""
        if replicas != self.target:
            self.target = replicas
            self._target_changed.set()
            self._changed()

    async def _keep_target(self) -> None:
        failures = 0
        while True:
            await self._target_changed.wait()
            self._target_changed = trio.Event()
            while self.target != len(self.members):
                async with self._exchanging:
                    try:
                        await self._step_to_target()
                        failures = 0
                    except Exception:  # told by _start_many; the deployment serves with what it has
                        failures += 1
                await trio.sleep(self._backoff.pause_s(failures) if failures else 0)
            self._settle()

    async def _step_to_target(self) -> None:
        missing = self.target - len(self.members)
        if missing > 0:
            for member in await self._start_many(self.state.spec, missing):
                self.members.append(member)
                self.state.join(member.child)
        elif missing < 0:
            # The least busy go first, so that the fewest calls have to finish.
            by_load = sorted(self.members, key=lambda member: member.child.ongoing)
            self._retire(by_load[:-missing])
            if self.state.autoscaler is not None and self.state.queued and not self.members:
                self.state.autoscaler.wake()  # these calls came before the last replica went

    def _autoscale(self, config: AutoscalingConfig | None) -> None:
        """Scale by ``config`` from now on, or not at all."""
        if config is None:
            self.state.autoscaler = None
            self._autoscaling.cancel()
        elif self.state.autoscaler is not None:
            self.state.autoscaler.reconfigure(config)
        else:
            self.state.autoscaler = Autoscaler(config, self)
            self._autoscaling = trio.CancelScope()
            assert self._nursery is not None
            self._nursery.start_soon(self._run_autoscaler, self.state.autoscaler, self._autoscaling)

    async def _run_autoscaler(self, autoscaler: Autoscaler, scope: trio.CancelScope) -> None:
        with scope:
            await autoscaler.run()

    # -- exchanging ------------------------------------------------------------------------------------

    async def prepare(self, spec: DeploymentSpec) -> list[Member]:
        """Make replicas of ``spec`` ready, as many as serve now should; they get no calls yet.

        Raises:
            Exception: the constructor's own; nothing is left running, and the old replicas serve on.
        """
        config = spec.options.autoscaling_config
        count = config.first_target(self.target) if config is not None else spec.options.num_replicas
        trouble = self.trouble
        try:
            return await self._start_many(spec, count)
        finally:
            self.trouble = trouble  # what serves now is as well as it was

    async def abandon(self, prepared: list[Member]) -> None:
        """Let go of replicas that were prepared and will not be used."""
        await self._stop_all(prepared)

    def commit(self, spec: DeploymentSpec, prepared: list[Member]) -> list[Member]:
        """Let the prepared replicas receive, and the old ones finish what they have; returns the old ones."""
        self.tune(spec)
        old, self.members = self.members, prepared
        self.target = len(prepared)
        for member in prepared:
            if member.ready:
                self.state.join(member.child)
        self._retire(old)
        self._settle()
        return old

    def tune(self, spec: DeploymentSpec) -> None:
        """Put options into force that need no new replicas."""
        state, options = self.state, spec.options
        state.spec = spec
        state.mailbox.capacity = options.queue_capacity
        for member in self.members:
            member.child.actor.resize(options.max_ongoing_requests)
        if options.autoscaling_config is None:
            self.set_target_replicas(options.num_replicas)
        self._autoscale(options.autoscaling_config)

    async def reconfigure(self, spec: DeploymentSpec) -> None:
        """Hand another ``user_config`` to each replica; when one refuses, all keep the old one.

        Raises:
            Exception: what ``reconfigure`` raised.
        """
        before = self.state.spec.options.user_config
        done: list[Replica] = []
        try:
            for member in list(self.members):
                done.append(member.child)
                await member.child.reconfigure(spec.options.user_config)
        except BaseException as error:
            if before is not None:
                with trio.move_on_after(self.state.options.graceful_shutdown_timeout_s, shield=True):
                    await self._go_back(done, before)
            error.add_note(
                f"reconfigure() of deployment {spec.name!r} of application {self.state.application!r} raised "
                "this; the user_config from before is in force."
            )
            raise

    async def _go_back(self, replicas: list[Replica], user_config: object) -> None:
        for replica in replicas:
            try:
                await replica.reconfigure(user_config)
            except Exception:
                _log.exception("%s: reconfigure() refused the user_config that it had before", replica.tag)

    # -- stopping --------------------------------------------------------------------------------------

    def _retire(self, members: list[Member]) -> None:
        """Take replicas out of service; they finish what they have, in the background."""
        assert self._nursery is not None
        for member in members:
            self.state.leave(member.child)
            if member in self.members:
                self.members.remove(member)
            self._nursery.start_soon(self._supervisor.stop, member)

    async def stop(self, cause: object) -> None:
        """Refuse new calls because of ``cause``, work off the queue, then stop the replicas.

        All of it within ``graceful_shutdown_timeout_s``; what is not done by then is cancelled.  Cancelling
        this leaves the rest to ``kill``.
        """
        self.state.refuse_new(cause)
        self._autoscale(None)
        if not self.members:
            self.state.mailbox.answer_all(self.state.unavailable())
        stop_by = trio.current_time() + self.state.options.graceful_shutdown_timeout_s
        with trio.CancelScope(deadline=stop_by):
            for member in list(self.members):
                await member.child.actor.wait_idle()
        for replica in self.replicas():
            replica.stop_by = min(replica.stop_by, stop_by)
        self.state.mailbox.answer_all(self.state.unavailable())
        self.target = 0
        await self._stop_all(list(self._supervisor.children))
        self.members.clear()
        self.kill()
        await self._ended.wait()

    def kill(self) -> None:
        """End everything now; what is at work is cancelled and answered."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def _stop_all(self, members: list[Member]) -> None:
        async with trio.open_nursery() as nursery:
            for member in members:
                self.state.leave(member.child)
                nursery.start_soon(self._supervisor.stop, member)
