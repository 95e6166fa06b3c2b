from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from trio.testing import wait_all_tasks_blocked

from trio_serve.grpc.health import Health, ServingStatus
from trio_serve.grpc.standard import HEALTH

SERVING, NOT_SERVING = ServingStatus.SERVING, ServingStatus.NOT_SERVING


def about(service: str) -> Any:
    return HEALTH.HealthCheckRequest(service=service)


async def test_check_tells_of_the_server_and_of_each_service() -> None:
    health = Health(["pkg.Greeter"])
    health.set("pkg.Slow", NOT_SERVING)

    assert (await health.check(about(""), None)).status == SERVING
    assert (await health.check(about("pkg.Greeter"), None)).status == SERVING
    assert (await health.check(about("pkg.Slow"), None)).status == NOT_SERVING


async def test_check_of_an_unknown_service_is_not_found() -> None:
    health = Health(["pkg.Gone"])
    health.remove("pkg.Gone")

    for service in ("pkg.Nope", "pkg.Gone"):
        with pytest.raises(GRPCError, match=service) as caught:
            await health.check(about(service), None)
        assert caught.value.status is Status.NOT_FOUND


async def test_list_tells_all() -> None:
    health = Health(["a.A"])
    health.set("b.B", NOT_SERVING)

    reply = await health.list_all(HEALTH.HealthListRequest(), None)

    assert {name: entry.status for name, entry in reply.statuses.items()} == {
        "": SERVING,
        "a.A": SERVING,
        "b.B": NOT_SERVING,
    }


class Watcher:
    """A watcher that reads as fast as it is told."""

    def __init__(self, health: Health, service: str) -> None:
        self.told: list[int] = []
        self._replies = health.watch(about(service), None)

    async def run(self) -> None:
        async with aclosing(cast(Any, self._replies)) as replies:
            async for reply in replies:
                self.told.append(reply.status)


async def test_watchers_are_told_at_once_and_at_each_change() -> None:
    health = Health(["pkg.Greeter"])
    one, other = Watcher(health, "pkg.Greeter"), Watcher(health, "")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        nursery.start_soon(other.run)
        for status in (NOT_SERVING, NOT_SERVING, SERVING):
            await wait_all_tasks_blocked()
            health.set("pkg.Greeter", status)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert one.told == [SERVING, NOT_SERVING, SERVING]
    assert other.told == [SERVING]


async def test_a_watcher_of_an_unknown_service_waits_for_it_to_come() -> None:
    health = Health()
    watcher = Watcher(health, "pkg.Later")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await wait_all_tasks_blocked()
        health.set("pkg.Later", SERVING)
        await wait_all_tasks_blocked()
        health.remove("pkg.Later")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert watcher.told == [ServingStatus.SERVICE_UNKNOWN, SERVING, ServingStatus.SERVICE_UNKNOWN]


async def test_a_slow_watcher_gets_the_latest_and_no_queue() -> None:
    health = Health(["pkg.Greeter"])
    replies: AsyncIterator[Any] = health.watch(about("pkg.Greeter"), None)
    first = await anext(replies)
    for _ in range(1000):
        health.set("pkg.Greeter", NOT_SERVING)
        health.set("pkg.Greeter", SERVING)
    health.set("pkg.Greeter", NOT_SERVING)

    assert (first.status, (await anext(replies)).status) == (SERVING, NOT_SERVING)
    with trio.move_on_after(60) as waited:
        await anext(replies)
    assert waited.cancelled_caught


async def test_a_drain_says_not_serving_whatever_is_set_later() -> None:
    health = Health(["pkg.Greeter"])
    watcher = Watcher(health, "pkg.Greeter")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await wait_all_tasks_blocked()
        health.drain()
        await wait_all_tasks_blocked()
        health.set("pkg.Greeter", SERVING)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert watcher.told == [SERVING, NOT_SERVING]
    assert (await health.check(about(""), None)).status == NOT_SERVING
    assert health.status("pkg.Nope") is ServingStatus.SERVICE_UNKNOWN


def test_its_rpcs_are_ready_to_be_registered() -> None:
    methods = {method.path: method for method in Health().methods()}

    assert {path: method.cardinality for path, method in methods.items()} == {
        "/grpc.health.v1.Health/Check": Cardinality.UNARY_UNARY,
        "/grpc.health.v1.Health/List": Cardinality.UNARY_UNARY,
        "/grpc.health.v1.Health/Watch": Cardinality.UNARY_STREAM,
    }
    assert all(method.handler is not None for method in methods.values())
