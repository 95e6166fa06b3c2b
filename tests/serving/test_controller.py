"""Deploying, updating, scaling and deleting applications; what fails, and what serves on."""

import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.parts import LOG, Broken, Part, under_load
from tests.serving.test_handle import serving
from trio_serve.actors import ActorStopped
from trio_serve.serving.controller import NoSuchApplication, open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.errors import DeploymentUnavailable
from trio_serve.serving.options import OptionsError
from trio_serve.serving.status import ApplicationStatus


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


# -- first deploy --------------------------------------------------------------------------------------


async def test_start_in_the_order_of_dependency_and_stop_in_reverse() -> None:
    store = Part.options(name="store").bind("store")
    async with serving(Part.bind("ingress", Part.options(name="ranker").bind("ranker", store), store)):
        pass
    assert LOG == [
        "store begins", "ranker begins", "ingress begins",
        "ingress ends", "ranker ends", "store ends",
    ]  # fmt: skip


async def test_a_constructors_own_error_is_raised_and_nothing_is_left() -> None:
    async with open_controller() as controller:
        with pytest.raises(KeyError, match="no such file") as caught:
            await controller.deploy(Part.bind("p", Broken.bind(Part.bind("inner"))), name="app")
        assert isinstance(caught.value.__cause__, ValueError)
        assert any("deployment 'Broken' of application 'app'" in note for note in caught.value.__notes__)
        assert ["inner begins", *["Broken begins"] * 3, "inner ends"] == LOG
        overview = controller.status().applications["app"]
        assert overview.status is ApplicationStatus.DEPLOY_FAILED
        assert overview.message == "deployment 'Broken': KeyError: 'no such file'"


async def test_an_application_that_failed_tells_its_callers_why() -> None:
    async with open_controller() as controller:
        with pytest.raises(KeyError):
            await controller.deploy(Part.bind("p", Broken.bind()), name="app")
        with pytest.raises(DeploymentUnavailable) as caught:
            await controller.get_app_handle("app").remote()
        assert str(caught.value) == (
            "deployment 'Part' of application 'app' is unavailable: "
            "deployment 'Broken': KeyError: 'no such file'"
        )
        handle = await controller.deploy(Part.bind("mended"), name="app")
        assert await handle.remote() == "mended"


async def test_a_constructor_that_succeeds_at_last_is_no_error() -> None:
    @deployment
    class Flaky:
        attempts = 0

        def __init__(self) -> None:
            Flaky.func_or_class.attempts += 1
            if Flaky.func_or_class.attempts < 3:
                raise OSError("not yet")

        async def __call__(self) -> str:
            return "up"

    async with serving(Flaky.bind()) as (controller, handle):
        assert await handle.remote() == "up"
        assert controller.status().applications["default"].status is ApplicationStatus.RUNNING


async def test_a_constructor_is_tried_again_after_pauses_that_grow() -> None:
    tried: list[float] = []

    @deployment
    class Flaky:
        async def __init__(self) -> None:
            tried.append(trio.current_time())
            raise OSError("not yet")

    async with open_controller() as controller:
        with pytest.raises(OSError, match="not yet"):
            await controller.deploy(Flaky.options(num_replicas=2).bind())
    assert len(tried) == 6
    pauses = sorted({round(time - tried[0], 9) for time in tried})
    assert pauses[0] == 0
    assert pauses[-1] > 0.4


async def test_max_constructor_retry_count_bounds_the_attempts() -> None:
    async with open_controller() as controller:
        with pytest.raises(KeyError):
            await controller.deploy(Broken.options(max_constructor_retry_count=1).bind())
        assert LOG == ["Broken begins"]


async def test_a_constructor_that_exits_is_an_error_like_others() -> None:
    @deployment
    class Exits:
        def __init__(self) -> None:
            raise SystemExit(3)

    async with open_controller() as controller:
        with pytest.raises(Exception, match=r"SystemExit\(3\)"):
            await controller.deploy(Exits.bind())


async def test_cancelling_a_deploy_leaves_nothing() -> None:
    @deployment
    class Slow:
        async def __init__(self, inner: Any) -> None:  # type: ignore[misc]
            await trio.sleep(100)

    async with open_controller() as controller:
        with trio.move_on_after(5) as scope:
            await controller.deploy(Slow.bind(Part.bind("inner")))
        assert scope.cancelled_caught
        assert LOG == ["inner begins", "inner ends"]


async def test_calls_wait_for_a_deployment_that_is_still_starting() -> None:
    @deployment
    class Slow:
        async def __init__(self) -> None:  # type: ignore[misc]
            await trio.sleep(5)

        async def __call__(self) -> str:
            return "up"

    async with open_controller() as controller, trio.open_nursery() as nursery:
        nursery.start_soon(controller.deploy, Slow.bind())
        await wait_all_tasks_blocked()
        assert controller.status().applications["default"].status is ApplicationStatus.DEPLOYING
        assert await controller.get_app_handle("default").remote() == "up"


async def test_deleting_an_application_that_is_being_deployed_ends_the_deploy() -> None:
    @deployment
    class Hanging:
        async def __init__(self) -> None:  # type: ignore[misc]
            await trio.sleep_forever()

    async with open_controller() as controller, trio.open_nursery() as nursery:

        async def deploy() -> None:
            with pytest.raises(DeploymentUnavailable, match="deleted while it was being deployed"):
                await controller.deploy(Hanging.bind())

        nursery.start_soon(deploy)
        await wait_all_tasks_blocked()
        await controller.delete("default")
        assert controller.applications == {}


async def test_overrides_reach_deployments_and_bad_ones_change_nothing() -> None:
    async with open_controller() as controller:
        await controller.deploy(Part.bind("p"), overrides={"Part": {"num_replicas": 3}})
        assert controller.status().applications["default"].deployments["Part"].replica_states == {
            "RUNNING": 3
        }
        before = list(LOG)
        with pytest.raises(OptionsError, match="there is no deployment 'Prat'"):
            await controller.deploy(Part.bind("p"), overrides={"Prat": {}})
        assert before == LOG
        assert controller.status().applications["default"].status is ApplicationStatus.RUNNING


# -- scaling -------------------------------------------------------------------------------------------


async def test_the_number_of_replicas_changes_while_calls_are_made() -> None:
    async with serving(Part.bind("p")) as (controller, _):
        fleet = controller.applications["default"].fleets["Part"]

        async def scale() -> None:
            for number in (4, 2, 7, 1):
                fleet.set_target_replicas(number)
                await trio.sleep(1)
                assert fleet.running_replicas() == number

        assert await under_load(controller, scale()) == {"p"}
        await trio.sleep(1)
        assert len(fleet.replicas()) == 1
        assert fleet.load() == 0


async def test_a_call_that_finds_no_replica_wakes_the_deployment() -> None:
    scaled = Part.options(
        autoscaling_config={
            "min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 60, "upscale_delay_s": 5,
            "initial_replicas": 0,
        }
    )  # fmt: skip
    async with serving(scaled.bind("p")) as (controller, handle):
        fleet = controller.applications["default"].fleets["Part"]
        assert fleet.running_replicas() == 0
        assert controller.status().applications["default"].status is ApplicationStatus.RUNNING
        begun = trio.current_time()
        assert await handle.remote() == "p"
        assert trio.current_time() == pytest.approx(begun)
        await trio.sleep(300)
        assert fleet.running_replicas() == 0
        assert await handle.remote() == "p"


async def test_replicas_follow_the_load() -> None:
    scaled = Part.options(
        max_ongoing_requests=100,
        autoscaling_config={
            "max_replicas": 5, "target_ongoing_requests": 2, "upscale_delay_s": 5, "downscale_delay_s": 20,
            "look_back_period_s": 5, "metrics_interval_s": 1,
        },
    )  # fmt: skip
    async with serving(scaled.bind("p")) as (controller, handle):
        fleet = controller.applications["default"].fleets["Part"]
        calls = [handle.remote(60) for _ in range(10)]
        await trio.sleep(30)
        assert fleet.running_replicas() == 5
        for call in calls:
            await call
        await trio.sleep(60)
        assert fleet.running_replicas() == 1


# -- deleting ------------------------------------------------------------------------------------------


async def test_delete_lets_what_is_at_work_and_what_waits_finish() -> None:
    narrow = Part.options(max_ongoing_requests=1)
    async with serving(narrow.bind("p", Part.options(name="inner").bind("inner"))) as (controller, handle):
        calls = [handle.remote(1) for _ in range(4)]
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.delete, "default")
            await wait_all_tasks_blocked()
            assert controller.status().applications["default"].status is ApplicationStatus.DELETING
            with pytest.raises(DeploymentUnavailable, match="was deleted"):
                await handle.remote()
            assert [await call for call in calls] == ["p"] * 4
        assert controller.applications == {}


async def test_delete_cuts_what_is_not_done_within_the_graceful_timeout() -> None:
    narrow = Part.options(max_ongoing_requests=1, graceful_shutdown_timeout_s=7)
    async with serving(narrow.bind("p")) as (controller, handle):
        at_work, waiting = handle.remote(1000), handle.remote(1000)
        await trio.sleep(1)
        begun = trio.current_time()
        await controller.delete("default")
        assert trio.current_time() == begun + 7
        with pytest.raises(ActorStopped):
            await at_work
        with pytest.raises(DeploymentUnavailable):
            await waiting


@pytest.mark.parametrize("begins_s", [0, 5, 6.9])
async def test_the_graceful_timeout_runs_once_and_not_again_for_what_began_meanwhile(begins_s: float) -> None:
    """A queued call that gets its slot within the timeout is cut when the timeout ends, not one later."""
    narrow = Part.options(max_ongoing_requests=1, graceful_shutdown_timeout_s=7)
    async with serving(narrow.bind("p")) as (controller, handle):
        first, second = handle.remote(begins_s), handle.remote(1000)
        await trio.lowlevel.checkpoint()
        begun = trio.current_time()
        await controller.delete("default")

        assert trio.current_time() == pytest.approx(begun + 7)
        assert await first == "p"
        with pytest.raises(ActorStopped):
            await second


async def test_what_is_waited_for_is_logged_in_every_wait_loop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    patient = Part.options(graceful_shutdown_wait_loop_s=3, graceful_shutdown_timeout_s=10)
    async with serving(patient.bind("old")) as (controller, handle):
        call = handle.remote(9.5)
        await trio.sleep(0.1)
        await controller.deploy(patient.bind("new"))
        assert await call == "old"
        assert caplog.text.count("1 requests are still at work before it stops") == 3


async def test_cancelling_a_delete_ends_everything_at_once() -> None:
    async with open_controller() as controller:
        before = trio.lowlevel.current_statistics().tasks_living
        handle = await controller.deploy(Part.bind("p", Part.options(name="inner").bind("inner")))
        call = handle.remote(1000)
        await trio.sleep(1)
        with trio.move_on_after(3):
            await controller.delete("default")
        with pytest.raises(ActorStopped):
            await call
        await wait_all_tasks_blocked(0.01)
        assert controller.applications == {}
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert sorted(LOG) == ["inner begins", "inner ends", "p begins", "p ends"]


async def test_a_deploy_waits_for_the_delete_before_it() -> None:
    async with serving(Part.bind("old")) as (controller, handle), trio.open_nursery() as nursery:
        call = handle.remote(5)
        await trio.sleep(1)
        nursery.start_soon(controller.delete, "default")
        await wait_all_tasks_blocked()
        nursery.start_soon(controller.deploy, Part.bind("new"))
        assert await call == "old"
        await trio.sleep(1)
        assert await handle.remote() == "new"
        assert LOG == ["old begins", "old ends", "new begins"]


async def test_deleting_what_is_not_there() -> None:
    async with open_controller() as controller:
        with pytest.raises(NoSuchApplication, match="no application 'nope' is deployed; there are: none"):
            await controller.delete("nope")


async def test_applications_stop_in_reverse_order_of_their_deploy() -> None:
    async with open_controller() as controller:
        for name in "abc":
            await controller.deploy(Part.bind(name), name=name)
        assert list(controller.status().applications) == ["a", "b", "c"]
        LOG.clear()
    assert LOG == ["c ends", "b ends", "a ends"]


async def test_cancelling_the_controller_answers_everything() -> None:
    answers: list[BaseException] = []
    async with trio.open_nursery() as nursery:

        async def ask(handle: Any) -> None:
            with trio.CancelScope(shield=True):
                try:
                    await handle.remote(1000)
                except Exception as error:
                    answers.append(error)

        with trio.move_on_after(5):
            async with serving(Part.options(max_ongoing_requests=1).bind("p")) as (_, handle):
                nursery.start_soon(ask, handle)
                nursery.start_soon(ask, handle)
                await trio.sleep_forever()
    assert {type(answer) for answer in answers} == {ActorStopped, DeploymentUnavailable}


async def test_redeploys_leave_tasks_and_threads_as_they_were() -> None:
    async with serving(Part.bind("0", Part.options(name="inner").bind("inner"))) as (controller, handle):
        await handle.remote()
        await wait_all_tasks_blocked(0.01)
        tasks, threads = trio.lowlevel.current_statistics().tasks_living, threading.active_count()
        for number in range(1, 50):
            await controller.deploy(Part.bind(str(number), Part.options(name="inner").bind("inner")))
            assert await handle.remote() == str(number)
        await wait_all_tasks_blocked(0.01)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert threading.active_count() == threads
