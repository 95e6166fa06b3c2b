"""Traffic policy at the HTTP proxy, in memory: canary, sticky, shadows, and changes while serving."""

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from starlette.requests import Request

import trio_serve as serve
from tests.proxy.http_client import Served, serving
from trio_serve.serving.request_context import current_request
from trio_serve.serving.traffic import TrafficPolicy


class Seen(list[Any]):
    """What a deployment was sent; no plain list, which each replica would get a copy of."""


@serve.deployment(sync_methods="inline")
class Version:
    """Answers with its name, and remembers the bodies that it was sent."""

    def __init__(self, name: str, bodies: Seen | None = None) -> None:
        self.name = name
        self.bodies = Seen() if bodies is None else bodies

    async def __call__(self, request: Request) -> str:
        self.bodies.append(await request.body())
        return self.name


@serve.deployment
class Hangs:
    def __init__(self, ended: Seen) -> None:
        self.ended = ended

    async def __call__(self, request: Request) -> None:
        try:
            await trio.sleep(20)
        finally:
            self.ended.append("ended")


@serve.deployment
async def fails(request: Request) -> None:
    raise LookupError("no model")


@serve.deployment
async def streams(request: Request) -> Any:
    async def items() -> Any:
        for number in range(3):
            yield f"{number} "

    return items()


async def deploy(served: Served, **applications: serve.Application) -> None:
    for name, application in applications.items():
        await served.controller.deploy(application, name=name, route_prefix=None)


def set_policy(served: Served, weights: Mapping[str, float], **options: Any) -> None:
    served.controller.set_policy("app", TrafficPolicy(weights, **options))


async def test_a_canary_gets_its_share_of_the_requests() -> None:
    async with serving(app=Version.bind("old")) as served:
        served.controller._random = Random(4)
        await deploy(served, canary=Version.bind("new"))
        set_policy(served, {"app": 0.75, "canary": 0.25})
        client = served.connect()

        answers = Counter([(await client.ask("/app/x")).text for _ in range(400)])

        assert answers["new"] / 400 == pytest.approx(0.25, abs=0.07)
        split = served.controller.applications["app"].traffic
        assert split is not None
        assert split.chosen == {"app": answers["old"], "canary": answers["new"]}


async def test_one_user_is_always_answered_by_the_same_version() -> None:
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, canary=Version.bind("new"))
        set_policy(served, {"app": 0.5, "canary": 0.5}, sticky="X-User")
        client = served.connect()

        by_user = {
            user: {(await client.ask("/app", x_user=user)).text for _ in range(10)}
            for user in [f"user-{number}" for number in range(20)]
        }

        assert all(len(answers) == 1 for answers in by_user.values())
        assert set.union(*by_user.values()) == {"old", "new"}


async def test_a_request_that_a_canary_gets_belongs_to_its_application() -> None:
    @serve.deployment
    class Front:
        def __init__(self, back: Any) -> None:
            self.back = back

        async def __call__(self, request: Request) -> str:
            asked = current_request()
            assert asked is not None
            return f"{await self.back.remote(request)} in {asked.application}"

    async with serving(app=Front.bind(Version.bind("old"))) as served:
        await deploy(served, canary=Front.bind(Version.bind("new")))
        set_policy(served, {"canary": 1.0})
        assert (await served.ask("/app")).text == "new in canary"


async def test_no_request_fails_while_weights_change_and_a_version_goes() -> None:
    """Twenty clients ask on and on; the canary grows, takes over, and the old one's place is taken anew."""
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, canary=Version.options(num_replicas=2).bind("new"))
        answers: Counter[tuple[int, str]] = Counter()

        async def ask_on() -> None:
            client = served.connect()
            while True:
                response = await client.ask("/app", method="POST", body=b"x" * 100)
                answers[response.status, response.text] += 1
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask_on)
            for share in (0.1, 0.5, 1.0, 0.0, 0.9):
                set_policy(served, {"app": 1 - share, "canary": share})
                await trio.sleep(0.1)
            await served.controller.delete("canary")  # still named by the policy
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()

        assert set(answers) == {(200, "old"), (200, "new")}
        assert min(answers.values()) > 200


async def test_a_shadow_gets_the_body_and_its_answer_goes_nowhere() -> None:
    bodies = Seen()
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=Version.bind("next", bodies))
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0})

        posted = await served.ask("/app", method="POST", body=b"some body")
        asked = await served.ask("/app?q=1")
        await trio.testing.wait_all_tasks_blocked()

        assert (posted.text, asked.text) == ("old", "old")
        assert bodies == [b"some body", b""]


@pytest.mark.parametrize("shadow", [fails, streams])
async def test_a_shadow_that_fails_or_streams_is_not_noticed(shadow: serve.Deployment) -> None:
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=shadow.bind())
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0})

        response = await served.ask("/app")
        await trio.testing.wait_all_tasks_blocked()

        assert (response.status, response.text) == (200, "old")
        split = served.controller.applications["app"].traffic
        assert split is not None
        assert (split.shadows.succeeded, split.shadows.failed) == ((0, 1) if shadow is fails else (1, 0))


async def test_a_slow_shadow_costs_no_time_and_is_dropped_beyond_its_budget() -> None:
    ended = Seen()
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=Hangs.options(max_ongoing_requests=100).bind(ended))
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0}, shadow_calls_max=3)
        client = served.connect()
        begun = trio.current_time()

        for _ in range(10):
            assert (await client.ask("/app")).text == "old"

        assert trio.current_time() == begun
        await client.leave()  # which cancels none of the copies
        await trio.sleep(19)
        split = served.controller.applications["app"].traffic
        assert split is not None
        assert (split.shadows.ongoing, split.shadows.sent, split.shadows.dropped) == (3, 3, 7)
        assert not ended
        await trio.sleep(2)
        assert (split.shadows.ongoing, split.shadows.succeeded) == (0, 3)


async def test_a_shadow_that_hangs_is_cancelled_at_its_time_limit() -> None:
    @serve.deployment
    async def sleeps(request: Request) -> None:
        await trio.sleep_forever()

    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=sleeps.bind())
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0})
        await served.ask("/app")
        await trio.sleep(59)
        split = served.controller.applications["app"].traffic
        assert split is not None
        assert split.shadows.ongoing == 1
        await trio.sleep(2)
        assert (split.shadows.ongoing, split.shadows.failed) == (0, 1)


async def test_a_shadow_whose_queue_is_full_or_that_is_gone_is_not_noticed() -> None:
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=Hangs.options(max_ongoing_requests=1, max_queued_requests=1).bind(Seen()))
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0})
        for _ in range(4):
            assert (await served.ask("/app")).text == "old"
        split = served.controller.applications["app"].traffic
        assert split is not None
        assert (split.shadows.sent, split.shadows.failed) == (4, 2)

        await served.controller.delete("next")

        assert (await served.ask("/app")).text == "old"
        assert split.shadows.sent == 4


async def test_a_body_that_is_long_or_not_read_is_not_copied() -> None:
    @serve.deployment
    async def reads_nothing(request: Request) -> str:
        return "old"

    bodies = Seen()
    async with serving(app=Version.bind("old")) as served:
        await deploy(served, next=Version.bind("next", bodies))
        set_policy(served, {"app": 1.0}, shadows={"next": 1.0})
        assert (await served.ask("/app", method="POST", body=b"x" * (1 << 20) + b"x")).text == "old"
        await served.controller.deploy(reads_nothing.bind(), name="app", route_prefix="/app")
        assert (await served.ask("/app", method="POST", body=b"x")).text == "old"
        await trio.testing.wait_all_tasks_blocked()

        split = served.controller.applications["app"].traffic
        assert split is not None
        assert (split.shadows.sent, split.shadows.dropped, bodies) == (0, 2, [])


async def test_a_version_that_is_being_deleted_finishes_and_its_share_falls_to_the_others() -> None:
    @serve.deployment
    async def slow(request: Request) -> str:
        await trio.sleep(10)
        return "slow"

    async with serving(app=Version.bind("app")) as served:
        await deploy(served, going=slow.bind(), staying=Version.bind("staying"))
        set_policy(served, {"going": 1.0, "staying": 0.0})
        under_way = served.connect()
        await under_way.send("/app")
        await trio.testing.wait_all_tasks_blocked()
        set_policy(served, {"going": 0.5, "staying": 0.5})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.controller.delete, "going")
            await trio.testing.wait_all_tasks_blocked()
            assert {(await served.ask("/app")).text for _ in range(20)} == {"staying"}
        assert {(await served.ask("/app")).text for _ in range(20)} == {"staying"}
        assert (await under_way.response()).text == "slow"
        await served.controller.delete("staying")
        assert (await served.ask("/app")).text == "app"  # whose policy has nobody left
