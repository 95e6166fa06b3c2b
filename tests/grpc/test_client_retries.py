"""Retries and hedges by service config (gRFC A6), to the virtual second."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from tests.grpc.client_peers import Request, ScriptedServer
from trio_serve.grpc import RpcError
from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.retrying import pushback_s
from trio_serve.wire.http2 import ErrorCode

RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "1s",
    "maxBackoff": "3s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
HEDGE = {"maxAttempts": 3, "hedgingDelay": "1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}

Answer = Callable[[Request], Any]


class Steady(random.Random):
    """No jitter: the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@asynccontextmanager
async def answered(
    *answers: Answer, throttling: dict[str, Any] | None = None, **policy: Any
) -> AsyncIterator[tuple[ScriptedServer, Channel]]:
    """A channel with ``policy``; each request gets the next of ``answers``, the last one for ever."""

    def answer(request: Request) -> None:
        number = min(len(server.requests), len(answers)) - 1
        answers[number](request)

    config: dict[str, Any] = {"methodConfig": [{"name": [{}], **policy}]}
    if throttling is not None:
        config["retryThrottling"] = throttling
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, answer)
        async with open_channel(server, service_config=config, rng=Steady()) as channel:
            yield server, channel
        nursery.cancel_scope.cancel()


def times(server: ScriptedServer) -> list[float]:
    return [request.at for request in server.requests]


def unavailable(request: Request) -> None:
    request.fail(Status.UNAVAILABLE, "busy")


def ok(request: Request) -> None:
    request.reply(b"ok")


def never(request: Request) -> None:
    """No answer at all."""


def pushed_back(value: str) -> Answer:
    return lambda request: request.fail(Status.UNAVAILABLE, "busy", (("grpc-retry-pushback-ms", value),))


async def test_a_call_is_retried_with_growing_backoff_until_it_succeeds() -> None:
    async with answered(unavailable, unavailable, unavailable, ok, retryPolicy=RETRY) as (server, channel):
        assert await channel.unary_unary("/a.B/C")(b"x") == b"ok"
    assert times(server) == [0, 1, 3, 6]  # 1 s, 2 s, and 4 s cut to 3 s
    attempts = [request.fields.get(b"grpc-previous-rpc-attempts") for request in server.requests]
    assert attempts == [None, b"1", b"2", b"3"]
    assert all(request.messages == [b"x"] for request in server.requests)


async def test_the_last_error_is_the_calls_when_attempts_run_out() -> None:
    async with answered(unavailable, retryPolicy=RETRY) as (server, channel):
        with pytest.raises(RpcError, match="UNAVAILABLE: busy"):
            await channel.unary_unary("/a.B/C")(b"x")
    assert len(server.requests) == 4


async def test_other_codes_are_not_retried() -> None:
    def aborted(request: Request) -> None:
        request.fail(Status.ABORTED)

    async with answered(unavailable, aborted, ok, retryPolicy=RETRY) as (server, channel):
        with pytest.raises(RpcError, match="ABORTED"):
            await channel.unary_unary("/a.B/C")(b"x")
    assert len(server.requests) == 2


async def test_a_call_whose_headers_came_is_committed_and_not_retried() -> None:
    def too_late(request: Request) -> None:
        request.headers()
        request.end(Status.UNAVAILABLE, "in the middle")

    async with answered(too_late, ok, retryPolicy=RETRY) as (server, channel):
        with pytest.raises(RpcError, match="in the middle"):
            await channel.unary_unary("/a.B/C")(b"x")
    assert len(server.requests) == 1


async def test_a_lost_connection_is_retried_too() -> None:
    def drop(request: Request) -> None:
        request.reset(ErrorCode.REFUSED_STREAM)

    async with answered(drop, drop, ok, retryPolicy=RETRY) as (server, channel):
        assert await channel.unary_unary("/a.B/C")(b"x") == b"ok"
    assert times(server) == [0, 0, 1]  # once transparently, then by policy


async def test_the_server_may_push_back() -> None:
    """It names the delay, the backoff starts anew, and a negative or unreadable value forbids retries."""
    answers = (unavailable, pushed_back("5000"), unavailable, ok)
    async with answered(*answers, retryPolicy=RETRY) as (server, channel):
        await channel.unary_unary("/a.B/C")(b"x")
    assert times(server) == [0, 1, 6, 7]
    for value in ("-1", "soon", ""):
        async with answered(pushed_back(value), ok, retryPolicy=RETRY) as (server, channel):
            with pytest.raises(RpcError, match="UNAVAILABLE"):
                await channel.unary_unary("/a.B/C")(b"x")
        assert len(server.requests) == 1


def test_pushback_is_read_as_milliseconds() -> None:
    assert pushback_s(()) is None
    assert pushback_s((("a", "b"), ("grpc-retry-pushback-ms", "250"))) == 0.25
    assert pushback_s((("grpc-retry-pushback-ms", "0"),)) == 0
    assert pushback_s((("grpc-retry-pushback-ms", "-5"),)) == float("inf")


async def test_the_deadline_counts_for_all_attempts_together() -> None:
    async with answered(unavailable, retryPolicy=RETRY) as (server, channel):
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await channel.unary_unary("/a.B/C")(b"x", timeout=4)
        assert trio.current_time() == 4
        await trio.sleep(10)
    assert times(server) == [0, 1, 3]
    assert [request.fields[b"grpc-timeout"] for request in server.requests] == [
        b"4000000u",
        b"3000000u",
        b"1000000u",
    ]


async def test_cancelling_ends_the_waiting_for_a_retry() -> None:
    async with answered(unavailable, retryPolicy=RETRY) as (server, channel):
        with trio.move_on_after(0.5):
            await channel.unary_unary("/a.B/C")(b"x")
        await trio.sleep(10)
        assert not channel.calls
    assert len(server.requests) == 1


async def test_streamed_requests_are_sent_again_and_go_on() -> None:
    async with answered(unavailable, ok, retryPolicy=RETRY) as (server, channel):
        server.answer, after_end = (lambda request: None), server.answer
        server.early = True
        call = channel.stream_unary("/a.B/C")()
        await call.write(b"1")
        await call.write(b"2")
        await trio.testing.wait_all_tasks_blocked()
        unavailable(server.requests[0])
        await call.write(b"3")
        await trio.sleep(2)
        await call.write(b"4")
        server.early, server.answer = False, after_end
        await call.done_writing()
        assert await call == b"ok"
    assert server.requests[1].messages == [b"1", b"2", b"3", b"4"]


async def test_a_call_over_the_retry_buffer_is_committed() -> None:
    async with answered(unavailable, ok, retryPolicy=RETRY) as (server, channel):
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await channel.unary_unary("/a.B/C")(b"x" * 300_000)
    assert len(server.requests) == 1


async def test_the_throttle_stops_retries_while_too_many_calls_fail() -> None:
    """Four tokens: two failures leave half, which is too few; a success at a time opens it again."""
    throttling = {"maxTokens": 4, "tokenRatio": 1}
    async with answered(unavailable, throttling=throttling, retryPolicy=RETRY) as (server, channel):
        method = channel.unary_unary("/a.B/C")
        with pytest.raises(RpcError):
            await method(b"")
        assert len(server.requests) == 2  # the second failure left 2 of 4 tokens
        with pytest.raises(RpcError):
            await method(b"")
        assert len(server.requests) == 3
        server.answer = ok
        for _ in range(3):
            await method(b"")
        server.answer = unavailable
        with pytest.raises(RpcError):
            await method(b"")
        assert len(server.requests) == 8


async def test_the_first_hedge_that_answers_wins_and_the_others_are_dropped() -> None:
    async with answered(never, never, ok, hedgingPolicy=HEDGE) as (server, channel):
        assert await channel.unary_unary("/a.B/C")(b"x") == b"ok"
        assert trio.current_time() == 2
        await trio.testing.wait_all_tasks_blocked()
    assert times(server) == [0, 1, 2]
    assert [request.reset_code for request in server.requests] == [ErrorCode.CANCEL, ErrorCode.CANCEL, None]


async def test_no_more_hedges_are_sent_than_allowed_and_the_first_may_still_win() -> None:
    async with answered(never, hedgingPolicy=HEDGE) as (server, channel):
        call = channel.unary_unary("/a.B/C")(b"x")
        await trio.sleep(50)
        assert times(server) == [0, 1, 2]
        server.requests[0].reply(b"late")
        assert await call == b"late"


async def test_a_non_fatal_error_sends_the_next_hedge_at_once() -> None:
    async with answered(unavailable, unavailable, ok, hedgingPolicy=HEDGE) as (server, channel):
        assert await channel.unary_unary("/a.B/C")(b"x") == b"ok"
    assert times(server) == [0, 0, 0]


async def test_a_fatal_error_ends_all_hedges() -> None:
    def fatal(request: Request) -> None:
        request.fail(Status.INVALID_ARGUMENT, "no")

    async with answered(never, fatal, hedgingPolicy=HEDGE) as (server, channel):
        with pytest.raises(RpcError, match="INVALID_ARGUMENT: no"):
            await channel.unary_unary("/a.B/C")(b"x")
        await trio.sleep(10)
    assert times(server) == [0, 1]
    assert server.requests[0].reset_code == ErrorCode.CANCEL


async def test_hedges_heed_pushback() -> None:
    async with answered(pushed_back("2500"), ok, hedgingPolicy=HEDGE) as (server, channel):
        assert await channel.unary_unary("/a.B/C")(b"x") == b"ok"
    assert times(server) == [0, 2.5]
    async with answered(pushed_back("-1"), ok, hedgingPolicy=HEDGE) as (server, channel):
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await channel.unary_unary("/a.B/C")(b"x")
    assert len(server.requests) == 1


async def test_all_hedges_failing_is_the_calls_failure() -> None:
    async with answered(unavailable, hedgingPolicy=HEDGE) as (server, channel):
        with pytest.raises(RpcError, match="UNAVAILABLE: busy"):
            await channel.unary_unary("/a.B/C")(b"x")
    assert len(server.requests) == 3


async def test_a_hedged_stream_delivers_one_attempts_messages_only() -> None:
    def half(request: Request) -> None:
        if len(request.peer.server.requests) < 2:
            return
        for number in range(3):
            if number == 0:
                request.headers()
            request.message(b"%d" % number)
        request.end()

    async with answered(half, hedgingPolicy=HEDGE) as (server, channel):
        got = [message async for message in channel.unary_stream("/a.B/C")(b"x")]
        assert got == [b"0", b"1", b"2"]
        await trio.testing.wait_all_tasks_blocked()
    assert server.requests[0].reset_code == ErrorCode.CANCEL


async def test_the_service_config_sets_timeout_and_wait_for_ready_and_limits() -> None:
    policy: dict[str, Any] = {
        "timeout": "2s",
        "waitForReady": True,
        "maxRequestMessageBytes": 10,
        "maxResponseMessageBytes": 5,
    }
    async with answered(lambda request: request.reply(b"x" * 6), **policy) as (server, channel):
        server.refuses = 1
        with pytest.raises(RpcError, match="RESOURCE_EXHAUSTED: reply message of 6 bytes is over"):
            await channel.unary_unary("/a.B/C")(b"x")
        assert trio.current_time() == 1
        with pytest.raises(RpcError, match="RESOURCE_EXHAUSTED: request message of 11 bytes is over"):
            channel.unary_unary("/a.B/C")(b"x" * 11)
        server.answer = never
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await channel.unary_unary("/a.B/C")(b"x", timeout=50)
        assert trio.current_time() == 3
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await channel.unary_unary("/a.B/C")(b"x", timeout=0.5)
        assert trio.current_time() == 3.5
