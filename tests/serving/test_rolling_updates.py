"""Changing what runs: new replicas are ready before the old ones go, and what fails changes nothing."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.parts import LOG, Broken, Configured, Part, under_load
from tests.serving.test_handle import serving
from trio_serve.actors import ActorStopped
from trio_serve.serving.application import Application
from trio_serve.serving.deployment import deployment
from trio_serve.serving.status import ApplicationStatus, DeploymentStatus


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


async def test_an_update_loses_no_call() -> None:
    async with serving(Part.options(num_replicas=2).bind("old")) as (controller, handle):
        answers = await under_load(controller, controller.deploy(Part.bind("new")))
        assert answers == {"old", "new"}
        assert await handle.remote() == "new"
        assert LOG == ["old begins", "old begins", "new begins", "old ends", "old ends"]


async def test_new_replicas_are_ready_before_old_ones_stop() -> None:
    @deployment
    class Slow:
        async def __init__(self, name: str) -> None:  # type: ignore[misc]
            await trio.sleep(5)
            self.name = name

        async def __call__(self) -> str:
            return self.name

    async with serving(Slow.bind("old")) as (controller, handle), trio.open_nursery() as nursery:
        nursery.start_soon(controller.deploy, Slow.bind("new"))
        await trio.sleep(4)
        status = controller.status().applications["default"]
        assert status.status is ApplicationStatus.DEPLOYING
        assert status.deployments["Slow"].status is DeploymentStatus.UPDATING
        assert await handle.remote() == "old"
        await trio.sleep(2)
        assert await handle.remote() == "new"


async def test_what_has_not_changed_is_left_alone() -> None:
    def app(name: str) -> Application:
        return Part.bind(name, Part.options(name="inner").bind("inner"))

    async with serving(app("a")) as (controller, _):
        await controller.deploy(app("a"))
        assert LOG == ["inner begins", "a begins"]
        await controller.deploy(app("b"))
        await wait_all_tasks_blocked(0.01)
        assert LOG == ["inner begins", "a begins", "b begins", "a ends"]


async def test_a_change_of_user_config_alone_calls_reconfigure() -> None:
    async with serving(Configured.options(num_replicas=2).bind()) as (controller, handle):
        LOG.clear()
        await controller.deploy(Configured.options(num_replicas=2, user_config={"word": "second"}).bind())
        assert LOG == ["reconfigure second"] * 2
        assert await handle.remote() == "second"


async def test_a_user_config_that_is_refused_leaves_the_old_one_in_force() -> None:
    async with serving(Configured.options(num_replicas=2).bind()) as (controller, handle):
        LOG.clear()
        with pytest.raises(ValueError, match="a bad word"):
            await controller.deploy(Configured.options(num_replicas=2, user_config={"word": "bad"}).bind())
        assert LOG == ["reconfigure bad", "reconfigure first"]
        assert {await handle.remote() for _ in range(10)} == {"first"}
        await controller.deploy(Configured.options(num_replicas=2, user_config={"word": "good"}).bind())
        assert await handle.remote() == "good"


async def test_an_update_that_fails_leaves_the_old_version_serving() -> None:
    """The first deployment could be updated, the second cannot: neither is."""
    old = Part.bind("ingress", Part.options(name="store").bind("store v1"), Part.options(name="x").bind("x"))
    async with serving(old) as (controller, handle):
        bad = Part.bind(
            "ingress",
            Part.options(name="store").bind("store v2"),
            Part.options(name="added").bind("added"),
            Broken.options(name="x").bind(),
        )
        with pytest.raises(KeyError):
            await controller.deploy(bad)
        status = controller.status().applications["default"]
        assert status.status is ApplicationStatus.DEPLOY_FAILED
        assert status.message == ("deployment 'x': KeyError: 'no such file'; the version before it serves on")
        assert list(status.deployments) == ["store", "x", "Part"]
        assert await handle.remote() == "ingress"
        assert await controller.get_deployment_handle("store").remote() == "store v1"
        assert "store v1 ends" not in LOG
        assert "store v2 ends" in LOG
        assert "added ends" in LOG
        await controller.deploy(old)
        assert controller.status().applications["default"].status is ApplicationStatus.RUNNING


async def test_a_deployment_that_the_new_version_has_not_serves_its_old_callers_to_the_end() -> None:
    async with serving(Part.bind("old", Part.options(name="store").bind("store"))) as (controller, handle):
        slow = handle.remote(5)
        await trio.sleep(1)
        await controller.deploy(Part.bind("new"))
        assert await handle.remote() == "new"
        assert list(controller.status().applications["default"].deployments) == ["Part"]
        assert await slow == "old"
        await trio.sleep(1)
        assert LOG[-2:] == ["old ends", "store ends"]


async def test_options_that_need_no_new_replicas_are_put_into_force() -> None:
    async with serving(Part.bind("p")) as (controller, _):
        changed = Part.options(
            num_replicas=3, max_ongoing_requests=1, max_queued_requests=2, health_check_period_s=1
        )
        await controller.deploy(changed.bind("p"))
        await trio.sleep(1)
        fleet = controller.applications["default"].fleets["Part"]
        assert LOG == ["p begins"] * 3
        assert [replica.actor.max_ongoing for replica in fleet.replicas()] == [1, 1, 1]
        assert fleet.state.mailbox.capacity == 2


async def test_a_delete_in_the_middle_of_an_update_gives_the_old_replicas_no_second_timeout() -> None:
    patient = Part.options(graceful_shutdown_timeout_s=7)
    async with serving(patient.bind("old")) as (controller, handle):
        call = handle.remote(1000)
        await trio.lowlevel.checkpoint()
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.deploy, patient.bind("new"))
            await trio.sleep(4)
            await controller.delete("default")
            with pytest.raises(ActorStopped):
                await call
            assert trio.current_time() <= begun + 4 + 7
            assert trio.current_time() == pytest.approx(begun + 7)


async def test_fifty_updates_under_load_fail_no_call() -> None:
    """A full queue all the time, replicas that come and go, no retries."""
    part = Part.options(num_replicas=2, max_ongoing_requests=2)
    async with serving(part.bind("0")) as (controller, _):
        answered = 0
        over = False

        async def caller() -> None:
            nonlocal answered
            handle = controller.get_app_handle("default")
            while not over:
                await handle.remote(0.01)
                answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(caller)
            for version in range(1, 51):
                replicas = part.options(num_replicas=1 + version % 3)
                await controller.deploy(replicas.bind(str(version)))
                await trio.sleep(0.2)
            over = True

    assert answered > 2000
    assert sum(line.endswith("begins") for line in LOG) == sum(line.endswith("ends") for line in LOG)


async def test_a_failed_update_leaves_the_route_as_it_was() -> None:
    async with serving(Part.bind("p"), route_prefix="/a") as (controller, _):
        with pytest.raises(KeyError):
            await controller.deploy(Broken.options(name="Part").bind(), route_prefix="/b")
        assert controller.status().applications["default"].route_prefix == "/a"
        await controller.deploy(Part.bind("q"), route_prefix="/b")
        assert controller.status().applications["default"].route_prefix == "/b"
