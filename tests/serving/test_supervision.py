"""Replicas that die: restarted, with pauses, and never at the cost of those that live."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.test_handle import serving
from trio_serve.actors import ActorStopped
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.errors import BackPressureError, DeploymentUnavailable, ReplicaUnhealthy
from trio_serve.serving.request_context import get_replica_context
from trio_serve.serving.status import ApplicationStatus, DeploymentStatus


class Fate:
    """What a test decides about the replicas from outside."""

    def __init__(self) -> None:
        self.constructor_fails = False
        self.never_healthy = False
        self.unhealthy: set[str] = set()
        self.hanging: set[str] = set()
        self.constructed = 0


def mortal(fate: Fate) -> Any:
    @deployment(max_ongoing_requests=2, health_check_period_s=1, health_check_timeout_s=3)
    class Mortal:
        def __init__(self) -> None:
            fate.constructed += 1
            if fate.constructor_fails:
                raise OSError("the disk is gone")

        async def check_health(self) -> None:
            tag = get_replica_context().replica_tag
            if fate.never_healthy or tag in fate.unhealthy:
                raise RuntimeError("not well")
            if tag in fate.hanging:
                await trio.sleep_forever()

        async def __call__(self, seconds: float = 0) -> str:
            await trio.sleep(seconds)
            return get_replica_context().replica_tag

        async def kill(self) -> None:
            """Cancel the replica's own tasks, as only confused code does."""
            task = trio.lowlevel.current_task()
            assert task.parent_nursery is not None
            task.parent_nursery.cancel_scope.cancel()
            await trio.sleep_forever()

    return Mortal


@pytest.mark.parametrize("how", ["unhealthy", "hanging", "killed"])
async def test_a_replica_that_dies_is_replaced_within_a_tenth_of_a_second(how: str) -> None:
    fate = Fate()
    async with serving(mortal(fate).bind()) as (_, handle):
        first = await handle.remote()
        begun = trio.current_time()
        if how == "killed":
            with pytest.raises(ActorStopped):
                await handle.kill.remote()
            died_at = begun
        else:
            getattr(fate, how).add(first)
            died_at = begun + 3 * {"unhealthy": 1, "hanging": 1 + 3}[how]
            await trio.sleep_until(died_at + 0.001)
        second = await handle.remote()
        assert second != first
        assert trio.current_time() <= died_at + 0.1


async def test_health_that_comes_and_goes_takes_no_replica() -> None:
    """Only three failed checks in a row do, as in Ray Serve; one that succeeds begins the count anew."""
    fate = Fate()
    async with serving(mortal(fate).bind()) as (_, handle):
        first = await handle.remote()
        await trio.sleep(0.5)  # so that no check falls on a moment of change
        for _ in range(5):
            fate.unhealthy.add(first)
            await trio.sleep(2)
            fate.unhealthy.clear()
            await trio.sleep(1)
        assert await handle.remote() == first
        fate.unhealthy.add(first)
        await trio.sleep(3.1)
        assert await handle.remote() != first


async def test_a_replica_is_not_ready_before_it_is_healthy() -> None:
    fate = Fate()
    fate.never_healthy = True
    async with open_controller() as controller:
        with pytest.raises(ReplicaUnhealthy, match=r"check_health\(\) raised RuntimeError\('not well'\)"):
            await controller.deploy(mortal(fate).bind())
        assert fate.constructed == 3
        fate.never_healthy = False
        assert await (await controller.deploy(mortal(fate).bind())).remote()


async def test_only_the_calls_inside_it_fail_and_what_waits_is_served_by_a_sibling() -> None:
    async with serving(mortal(Fate()).options(num_replicas=2).bind()) as (_, handle):
        calls = [handle.remote(10) for _ in range(3)]
        killer = handle.kill.remote()
        waiting = [handle.remote(10) for _ in range(20)]
        outcomes = []
        for call in [*calls, killer, *waiting]:
            try:
                outcomes.append(await call)
            except ActorStopped:
                outcomes.append("failed")
        assert outcomes.count("failed") == 2  # the killer, and the one call beside it
        assert "failed" not in outcomes[4:]


async def test_a_call_in_the_moment_of_a_death_is_queued_or_refused_as_any_other() -> None:
    """The replica's tasks are cancelled, and it does not know yet; found by the simulation, seed 3039."""
    async with serving(mortal(Fate()).options(max_queued_requests=1).bind()) as (controller, handle):
        first = await handle.remote()
        [replica] = controller.applications["default"].fleets["Mortal"].replicas()
        busy = handle.remote(10)
        await wait_all_tasks_blocked()
        replica.actor._nursery.cancel_scope.cancel()
        queued, refused = handle.remote(), handle.remote()
        with pytest.raises(BackPressureError):
            await refused
        assert await queued != first
        with pytest.raises(ActorStopped):
            await busy


async def test_a_sole_replica_that_dies_leaves_its_queue_to_its_successor() -> None:
    async with serving(mortal(Fate()).options(max_ongoing_requests=1).bind()) as (_, handle):
        killer = handle.kill.remote()
        waiting = [handle.remote() for _ in range(5)]
        with pytest.raises(ActorStopped):
            await killer
        assert len({await call for call in waiting}) == 1


async def test_a_crash_loop_makes_the_deployment_unhealthy_with_the_reason_while_others_serve() -> None:
    fate = Fate()

    @deployment
    class Ingress:
        def __init__(self, mortal: Any) -> None:
            self.mortal = mortal

        async def __call__(self) -> str:
            return "ingress"

        async def ask(self) -> Any:
            return await self.mortal.remote()

    async with serving(Ingress.bind(mortal(fate).bind())) as (controller, handle):
        first = await handle.ask.remote()
        fate.constructor_fails = True
        fate.unhealthy.add(first)
        await trio.sleep(3.5)
        waiting = handle.ask.remote()
        await trio.sleep(10)
        overview = controller.status().applications["default"]
        assert overview.status is ApplicationStatus.UNHEALTHY
        assert overview.deployments["Mortal"].status is DeploymentStatus.UNHEALTHY
        assert overview.deployments["Ingress"].status is DeploymentStatus.HEALTHY
        assert "OSError: the disk is gone" in overview.message
        with pytest.raises(DeploymentUnavailable, match="OSError: the disk is gone"):
            await waiting
        with pytest.raises(DeploymentUnavailable, match="OSError: the disk is gone"):
            await handle.ask.remote()
        assert await handle.remote() == "ingress"
        # Restart intensity: five restarts a minute, however long it goes on.
        before = fate.constructed
        await trio.sleep(600)
        assert fate.constructed - before <= 51
        # And when the cause is gone, so is the trouble.
        fate.constructor_fails = False
        await trio.sleep(120)
        assert await handle.ask.remote() != first
        assert controller.status().applications["default"].status is ApplicationStatus.RUNNING
        assert controller.status().applications["default"].message == ""


async def test_one_of_several_that_crash_loops_does_not_take_the_others_along() -> None:
    fate = Fate()
    async with serving(mortal(fate).options(num_replicas=3).bind()) as (controller, handle):
        tags = {await handle.remote() for _ in range(50)}
        fate.constructor_fails = True
        fate.unhealthy.add(sorted(tags)[0])
        await trio.sleep(30)
        overview = controller.status().applications["default"].deployments["Mortal"]
        assert overview.status is DeploymentStatus.UNHEALTHY
        assert overview.replica_states["RUNNING"] == 2
        assert {await handle.remote() for _ in range(50)} == set(sorted(tags)[1:])


async def test_a_replica_dying_during_an_update_changes_nothing_about_it() -> None:
    fate = Fate()
    cls = mortal(fate)
    async with serving(cls.bind()) as (controller, handle):
        first = await handle.remote()
        fate.unhealthy.add(first)
        await trio.sleep(2.99)
        await controller.deploy(cls.options(sync_methods="inline").bind())
        await trio.sleep(5)
        assert await handle.remote() != first
        assert len(controller.applications["default"].fleets["Mortal"].replicas()) == 1


async def test_deleting_in_the_middle_of_a_restart() -> None:
    fate = Fate()
    async with serving(mortal(fate).bind()) as (controller, handle):
        fate.constructor_fails = True
        fate.unhealthy.add(await handle.remote())
        await trio.sleep(3.01)
        await controller.delete("default")
        constructed = fate.constructed
        await trio.sleep(1000)
        assert fate.constructed == constructed


async def test_a_sync_health_check_waits_its_turn_before_its_time_runs() -> None:
    import time

    @deployment(health_check_period_s=0.01, health_check_timeout_s=0.05)
    class Busy:
        def __init__(self) -> None:
            self.checks = 0

        def check_health(self) -> None:
            self.checks += 1

        def __call__(self) -> str:
            time.sleep(0.1)  # longer than a check may take
            return get_replica_context().replica_tag

        async def count(self) -> int:
            return self.checks

    async with serving(Busy.bind()) as (_, handle):
        calls = [handle.remote() for _ in range(3)]
        assert len({await call for call in calls}) == 1
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert await handle.count.remote() > 0
