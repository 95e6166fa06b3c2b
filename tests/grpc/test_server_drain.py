"""How a server ends: drains that lose no call, cuts at the timeout, old and idle connections."""

from typing import Any

import attrs
import pytest
import trio
from grpclib.const import Status
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, ONE, Echo, Note, serving
from tests.grpc.raw_client import RawClient, connected
from trio_serve.grpc.server import SERVER_OPTIONS
from trio_serve.grpc.standard import HEALTH
from trio_serve.transport.lifetime import LAST_STREAM_ID_MAX, LifetimeOptions
from trio_serve.wire.grpc import MessageReader
from trio_serve.wire.http2 import ConnectionClosing, ErrorCode


class Slow(Echo):
    async def One(self, request: Any, context: Any) -> Any:
        await trio.sleep(request.number)
        return request


async def test_a_drain_waits_for_the_calls_and_then_closes() -> None:
    server = serving(Slow())
    async with trio.open_nursery() as nursery:
        served = trio.Event()

        async def serve(task_status: Any) -> None:
            await server.serve_listeners(task_status=task_status)
            served.set()

        await nursery.start(serve)
        client = RawClient(server.connect())
        nursery.start_soon(client.run)
        call = await client.call(ONE, Note(number=10))
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await server.drain()

        assert trio.current_time() - started == pytest.approx(10)
        assert (await call.done()).status is Status.OK
        await client.closed.wait()
        await served.wait()
        last = [goaway[0] for goaway in client.goaways]
        assert last[:2] == [LAST_STREAM_ID_MAX, call.stream.id]
        assert {goaway[1] for goaway in client.goaways} == {ErrorCode.NO_ERROR}
        nursery.cancel_scope.cancel()


async def test_a_call_that_crosses_the_first_goaway_is_served() -> None:
    """It leaves the client before the GOAWAY is read; only the second one ends the taking of streams."""
    server = serving(Slow())
    async with connected(server) as client:
        await (await client.call(ONE, Note())).done()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            call = await client.call(ONE, Note(number=3))
            assert (await call.done()).status is Status.OK
        assert client.goaways[1][0] == call.stream.id
        with pytest.raises(ConnectionClosing):
            await client.call(ONE, Note())


async def test_a_client_that_never_answers_the_ping_does_not_hold_up_the_drain() -> None:
    server = serving(Echo())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect())
        nursery.start_soon(client.run)
        await (await client.call(ONE, Note())).done()
        client.stop_reading()
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await server.drain()
        assert trio.current_time() - started < 8
        nursery.cancel_scope.cancel()


async def test_calls_running_at_the_timeout_are_cut_with_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serving(Slow())
    async with connected(server) as client:
        call = await client.call(ONE, Note(number=1000))
        chat = await client.call(CHAT, Note(), end=False)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await server.drain(timeout_s=5)

        assert 5 <= trio.current_time() - started < 8
        for cut in (call, chat):
            assert (await cut.done()).status is Status.UNAVAILABLE
        assert [record.message for record in caplog.records] == [
            "drain: 2 calls were cut off, they were still running at the timeout"
        ]


async def test_a_drained_server_can_serve_again() -> None:
    server = serving(Echo())
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_listeners)
            client = RawClient(server.connect())
            nursery.start_soon(client.run)
            assert (await (await client.call(ONE, Note())).done()).status is Status.OK
            await server.drain()
            await client.closed.wait()


async def test_health_says_not_serving_first_and_watchers_do_not_hold_up_the_drain() -> None:
    server = serving(Slow())
    async with connected(server) as client:
        watch = await client.call("/grpc.health.v1.Health/Watch", HEALTH.HealthCheckRequest())
        call = await client.call(ONE, Note(number=30))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await trio.sleep(1)
            started = trio.current_time()
            await call.done()
        assert trio.current_time() - started < 31
        statuses = [
            HEALTH.HealthCheckResponse.FromString(payload).status
            for payload in MessageReader(1000).receive(bytes(watch.data))
        ]
        assert statuses == [1, 2]
        assert watch.status().status is Status.UNAVAILABLE


async def test_serve_ends_when_it_is_cancelled_and_its_handlers_with_it() -> None:
    server = serving(Slow())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect())
        nursery.start_soon(client.run)
        await client.call(ONE, Note(number=1000))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert server.counters.connections == 0


async def test_serving_twice_at_once_is_an_error() -> None:
    server = serving(Echo())
    async with connected(server):
        with pytest.raises(RuntimeError, match="serving already"):
            await server.serve_listeners()
    with pytest.raises(RuntimeError, match="not serving"):
        server.connect()


def aged(**lifetime: Any) -> Any:
    return serving(Slow(), options=attrs.evolve(SERVER_OPTIONS, lifetime=LifetimeOptions(**lifetime)))


async def test_an_old_connection_is_drained_within_a_tenth_of_its_age() -> None:
    server = aged(age_max_s=100.0)
    async with connected(server) as client:
        started = trio.current_time()
        while not client.goaways:  # noqa: ASYNC110 - a list has no event
            await trio.sleep(0.1)
        assert 89 <= trio.current_time() - started <= 111
        await client.closed.wait()


async def test_the_grace_of_an_old_connection_ends_its_calls() -> None:
    server = aged(age_max_s=100.0, age_grace_s=20.0)
    async with connected(server) as client:
        started = trio.current_time()
        call = await client.call(ONE, Note(number=100_000))
        await client.closed.wait()
        assert 109 <= trio.current_time() - started <= 132
        assert call.error is not None
        await wait_all_tasks_blocked()
        assert server.method_counters[ONE].running == 0


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    server = aged(idle_max_s=60.0)
    async with connected(server) as client:
        started = trio.current_time()
        call = await client.call(ONE, Note(number=200))
        assert (await call.done()).status is Status.OK
        assert trio.current_time() - started == pytest.approx(200)
        await client.closed.wait()
        assert trio.current_time() - started == pytest.approx(260, abs=2)
