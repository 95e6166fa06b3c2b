"""One HTTP/1.1 connection: what it takes, what it refuses, how long it is patient, and how it ends."""

from typing import Any

import pytest
import trio
from starlette.requests import Request
from trio.testing import wait_all_tasks_blocked

import trio_serve as serve
from tests.proxy.http_client import HttpClient, Served, serving


@serve.deployment
class Echo:
    async def __call__(self, request: Request) -> Any:
        if request.url.path == "/sleep":
            await trio.sleep(5)
        if request.url.path == "/unread":
            return "not read"
        return f"{request.method} {len(await request.body())}"


async def exchange(client: HttpClient, data: bytes) -> bytes:
    """Send ``data``, return all that comes until the connection is closed."""
    await client.stream.send_all(data)
    answer = b""
    while more := await client.stream.receive_some(65536):
        answer += more
    return answer


async def closes_after(served: Served, data: bytes) -> float:
    """The seconds for which a connection stays open on which ``data`` is sent and nothing else."""
    client = served.connect()
    began = trio.current_time()
    await exchange(client, data)
    return trio.current_time() - began


async def test_a_connection_takes_one_request_after_the_other() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        answers = [(await client.ask("/", "POST", b"x" * size)).text for size in (1, 100_000, 0, 3)]

    assert answers == ["POST 1", "POST 100000", "POST 0", "POST 3"]
    assert served.server.connections_accepted == 1


async def test_a_connection_is_good_for_more_requests_than_hypercorn_counts() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        for _ in range(1100):
            answer = await client.ask("/")
            assert (answer.text, answer.headers.get("connection")) == ("GET 0", None)


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with serving(Echo.bind()) as served:
        last = b"DELETE / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        data = b"GET /sleep HTTP/1.1\r\nhost: x\r\n\r\n" + b"PUT / HTTP/1.1\r\nhost: x\r\n\r\n" + last
        answer = await exchange(served.connect(), data)

    assert [line for line in (b"GET 0", b"PUT 0", b"DELETE 0") if line in answer] == [
        b"GET 0",
        b"PUT 0",
        b"DELETE 0",
    ]
    assert answer.index(b"GET 0") < answer.index(b"PUT 0") < answer.index(b"DELETE 0")


async def test_what_comes_after_the_last_request_is_not_waited_for() -> None:
    async with serving(Echo.bind()) as served:
        data = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"
        answer = await exchange(served.connect(), data)

    assert answer.count(b"HTTP/1.1 200") == 1


async def test_an_answer_before_the_body_was_read_reaches_the_client() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        head = b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, head + b"x" * 500_000)
            answer = b""
            while b"not read" not in answer:
                answer += await client.stream.receive_some(65536)
            nursery.cancel_scope.cancel()

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_head_and_its_whole_body_leave_in_one_piece() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        await client.send("/")
        first = await client.stream.receive_some(65536)

    assert first.endswith(b"\r\n\r\nGET 0")


async def test_a_client_that_expects_it_is_told_to_continue() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        await client.stream.send_all(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert (await client.stream.receive_some(65536)).startswith(b"HTTP/1.1 100 ")
        await client.stream.send_all(b"ab")
        assert (await client.stream.receive_some(65536)).endswith(b"POST 2")


@pytest.mark.parametrize(
    "data, status",
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nhost: x\r\n\r\n", 505),
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 20_000, 431),
    ],
)
async def test_what_is_no_http_1_is_refused_and_harms_nobody(data: bytes, status: int) -> None:
    async with serving(Echo.bind()) as served:
        answer = await exchange(served.connect(), data)

        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (await served.ask("/")).text == "GET 0"
        assert served.server.connection_errors == 0


async def test_an_upgrade_to_http_2_is_not_taken() -> None:
    async with serving(Echo.bind()) as served:
        answer = await served.ask(
            "/", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAMAAABkAAQAAP__"
        )

    assert (answer.status, answer.text) == (200, "GET 0")


async def test_a_head_has_ten_seconds_from_its_first_byte() -> None:
    async with serving(Echo.bind()) as served:
        assert await closes_after(served, b"GET / HT") == 10

        client = served.connect()
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(100):
                await client.stream.send_all(b"x")
                await trio.sleep(1)
        assert trio.current_time() - began <= 11


async def test_an_idle_connection_is_kept_for_its_time() -> None:
    async with serving(Echo.bind(), keep_alive_timeout_s=30) as served:
        assert await closes_after(served, b"") == 30
        assert await closes_after(served, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == 30
        assert await closes_after(served, b"GET /sleep HTTP/1.1\r\nhost: x\r\n\r\n") == 35


# -- drain ---------------------------------------------------------------------------------------------------


async def test_a_drain_closes_what_is_idle_and_lets_requests_finish() -> None:
    async with serving(Echo.bind()) as served:
        idle, at_work = served.connect(), served.connect()
        assert (await idle.ask("/")).headers.get("connection") is None
        await at_work.send("/sleep")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.server.drain)
            assert await idle.stream.receive_some(1) == b""
            assert trio.current_time() == began
            answer = await at_work.response()
        assert (answer.text, answer.headers["connection"]) == ("GET 0", "close")
        assert trio.current_time() == began + 5
        assert served.server.connections == set()
        with pytest.raises((RuntimeError, trio.BrokenResourceError)):
            await served.ask("/")


async def test_a_request_that_has_arrived_when_the_drain_begins_is_answered() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        assert (await client.ask("/")).status == 200
        await client.send("/")
        await served.server.drain()

        assert (await client.response()).text == "GET 0"


async def test_what_does_not_finish_in_time_is_cut_off() -> None:
    async with serving(Echo.bind()) as served:
        client = served.connect()
        await client.send("/sleep")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await served.server.drain(2)

        assert trio.current_time() - began == 2
        assert await client.stream.receive_some(1) == b""
        await wait_all_tasks_blocked()
        assert served.controller.applications["default"].ingress.ongoing == 0
