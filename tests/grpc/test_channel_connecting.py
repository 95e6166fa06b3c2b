"""How a channel gets its connections and loses them, in virtual time: exact to the second."""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status

from tests.grpc.client_peers import Request, ScriptedServer
from trio_serve.grpc import RpcError, Server
from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.subchannel import Connectivity
from trio_serve.transport.dialing import BackoffOptions
from trio_serve.transport.keepalive import KeepaliveOptions
from trio_serve.wire.http2 import ErrorCode, Limits

STEADY = BackoffOptions(jitter=0.0)


@asynccontextmanager
async def channel_to(
    server: ScriptedServer | None = None, *, channel: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[ScriptedServer, Channel]]:
    async with trio.open_nursery() as nursery:
        server = server or ScriptedServer(nursery, **options)
        async with open_channel(server, **{"backoff": STEADY, **(channel or {})}) as opened:
            yield server, opened
        nursery.cancel_scope.cancel()


async def call(channel: Channel, payload: bytes = b"", **options: Any) -> bytes:
    reply: bytes = await channel.unary_unary("/a.B/C")(payload, **options)
    return reply


async def test_nothing_is_dialed_before_the_first_call() -> None:
    async with channel_to() as (server, channel):
        await trio.sleep(100)
        assert server.dialed_at == []
        assert channel.get_state() is Connectivity.IDLE
        assert await call(channel) == b"ok"
        assert server.dialed_at == [100]
        assert channel.get_state() is Connectivity.READY


async def test_a_call_fails_fast_with_the_cause_when_no_connection_can_be_made() -> None:
    async with channel_to(refuses=1) as (_, channel):
        with pytest.raises(RpcError) as caught:
            await call(channel)
        assert trio.current_time() == 0
        assert caught.value.status is Status.UNAVAILABLE
        assert caught.value.details() == "no connection to scripted: scripted: Connection refused"
        assert channel.get_state() is Connectivity.TRANSIENT_FAILURE
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await call(channel)


async def test_a_failed_channel_tries_again_with_growing_delays_until_it_is_ready() -> None:
    async with channel_to(refuses=4) as (server, channel):
        channel.get_state(try_to_connect=True)
        await channel.channel_ready()
        assert server.dialed_at == [0, 1, pytest.approx(2.6), pytest.approx(5.16), pytest.approx(9.256)]
        assert await call(channel) == b"ok"


async def test_wait_for_ready_waits_out_the_failures() -> None:
    async with channel_to(refuses=2) as (_, channel):
        assert await call(channel, wait_for_ready=True) == b"ok"
        assert trio.current_time() == pytest.approx(2.6)


async def test_waiting_for_ready_ends_at_the_deadline_and_says_what_for() -> None:
    async with channel_to(refuses=100) as (_, channel):
        with pytest.raises(RpcError) as caught:
            await call(channel, wait_for_ready=True, timeout=30)
        assert trio.current_time() == 30
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert "waiting for a connection to scripted (transient failure" in caught.value.details()
        assert "Connection refused" in caught.value.details()


async def test_a_server_that_says_nothing_is_given_up_after_the_connect_timeout() -> None:
    async with channel_to(silent=True) as (_, channel):
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await call(channel)
        assert trio.current_time() == 10  # handshake_timeout_s


async def test_states_are_announced() -> None:
    async with channel_to(refuses=1) as (_, channel):
        seen = [channel.get_state(try_to_connect=True)]
        while seen[-1] is not Connectivity.READY:
            await channel.wait_for_state_change(seen[-1])
            seen.append(channel.get_state())
        assert [state.name for state in seen] == ["IDLE", "CONNECTING", "TRANSIENT_FAILURE", "READY"]
    assert channel.get_state() is Connectivity.SHUTDOWN


async def test_a_lost_connection_fails_its_calls_and_is_made_anew_by_the_next() -> None:
    async with channel_to() as (server, channel):
        assert await call(channel) == b"ok"
        server.answer = lambda request: None
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(RpcError, match=r"UNAVAILABLE.*connection ended"):
                    await call(channel)

            nursery.start_soon(fail)
            await trio.testing.wait_all_tasks_blocked()
            await server.peers[0].close()
        assert channel.get_state() is Connectivity.IDLE
        server.answer = lambda request: request.reply(b"again")
        assert await call(channel) == b"again"
        assert len(server.peers) == 2


async def test_a_connection_that_is_ready_and_over_in_one_read_was_no_failure_to_connect() -> None:
    """SETTINGS and a broken frame come together: the next call dials anew, at once."""
    async with channel_to() as (server, channel):
        server.last_words.append(b"\x00\x00\x05\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
        with pytest.raises(RpcError, match=r"UNAVAILABLE.*FRAME_SIZE_ERROR"):
            await call(channel)
        assert channel.get_state() is Connectivity.IDLE
        assert await call(channel) == b"ok"
        assert server.dialed_at == [0, 0]


async def test_a_server_that_drops_every_connection_is_not_dialed_in_a_circle() -> None:
    async with channel_to(answer=lambda request: request.peer.goaway(0)) as (server, channel):
        for _ in range(3):
            with pytest.raises(RpcError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
                await call(channel, timeout=50)
        gaps = [later - earlier for earlier, later in itertools.pairwise(server.dialed_at)]
        assert gaps[0] == 0
        assert all(gap > 1 for gap in gaps[1:]), gaps


async def test_goaway_loses_no_call() -> None:
    """Those above the last id go to a new connection, those below it end on the old one."""
    held: list[Request] = []
    async with channel_to(answer=held.append) as (server, channel):
        replies: list[bytes] = []

        async def ask(payload: bytes) -> None:
            replies.append(await call(channel, payload))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, b"%d" % number)
                await trio.testing.wait_all_tasks_blocked()
            server.answer = lambda request: request.reply(b"new " + request.messages[0])
            server.peers[0].goaway(last_stream_id=held[0].stream.id)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(replies) == [b"new 1", b"new 2"]
            assert await call(channel, b"3") == b"new 3"
            held[0].reply(b"old 0")
        assert replies[-1] == b"old 0"
        await trio.testing.wait_all_tasks_blocked()
        assert [peer.closed for peer in server.peers] == [True, False]


async def test_a_refused_stream_is_tried_again_a_few_times() -> None:
    def refuse_first(request: Request) -> None:
        if len(request.peer.server.requests) == 1:
            request.reset(ErrorCode.REFUSED_STREAM)
        else:
            request.reply(b"second")

    async with channel_to(answer=refuse_first) as (server, channel):
        assert await call(channel) == b"second"
    async with channel_to(answer=lambda request: request.reset(ErrorCode.REFUSED_STREAM)) as (
        server,
        channel,
    ):
        with pytest.raises(RpcError, match=r"UNAVAILABLE.*REFUSED_STREAM"):
            await call(channel)
        assert [request.at for request in server.requests] == pytest.approx([0, 0, 0.01, 0.03, 0.07, 0.15])


async def test_streamed_requests_are_sent_again_after_a_refusal() -> None:
    def refuse_first(request: Request) -> None:
        if len(request.peer.server.requests) == 1:
            request.reset(ErrorCode.REFUSED_STREAM)
        else:
            request.reply(b",".join(request.messages))

    async with channel_to(answer=refuse_first) as (_, channel):
        assert await channel.stream_unary("/a.B/C")([b"a", b"b", b"c"]) == b"a,b,c"


async def test_no_more_streams_are_open_than_the_server_allows() -> None:
    """Three at a time; the fourth waits for a place, in order."""
    held: list[Request] = []
    async with channel_to(answer=held.append, limits=Limits(streams_max=3)) as (_, channel):
        order: list[int] = []

        async def ask(number: int) -> None:
            await call(channel, b"%d" % number)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(7):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
            assert [request.messages for request in held] == [[b"0"], [b"1"], [b"2"]]
            for number in range(7):
                held[number].reply()
                await trio.testing.wait_all_tasks_blocked()
                assert len(held) == min(7, 4 + number)
        assert order == list(range(7))


async def test_the_queue_of_waiting_calls_has_a_bound() -> None:
    held: list[Request] = []
    options = {"waiting_calls_max": 2}
    async with channel_to(answer=held.append, limits=Limits(streams_max=1), channel=options) as (_, channel):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call, channel)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(RpcError, match=r"RESOURCE_EXHAUSTED: 2 calls .* waiting_calls_max=2"):
                await call(channel)
            nursery.cancel_scope.cancel()
        for _ in range(3):  # those that were cancelled have left the queue
            with trio.move_on_after(1):
                await call(channel)


async def test_a_waiting_call_that_is_cancelled_is_never_sent() -> None:
    held: list[Request] = []
    async with channel_to(answer=held.append, limits=Limits(streams_max=1)) as (server, channel):
        first = channel.unary_unary("/a.B/C")(b"first")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RpcError, match=r"DEADLINE_EXCEEDED.*another stream"):
            await call(channel, b"second", timeout=1)
        held[0].reply(b"done")
        assert await first == b"done"
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.requests) == 1


async def test_closing_the_channel_ends_calls_and_says_goodbye() -> None:
    async with channel_to(answer=lambda request: None) as (server, channel):
        under_way = channel.unary_unary("/a.B/C")(b"")
        waiting = channel.unary_unary("/a.B/C")(b"", wait_for_ready=True)
        await trio.testing.wait_all_tasks_blocked()
        channel.close()
        for one in (under_way, waiting):
            with pytest.raises(RpcError, match="CANCELLED: the channel was closed"):
                await one
        with pytest.raises(RpcError, match="CANCELLED: the channel was closed"):
            await call(channel)
        assert channel.get_state() is Connectivity.SHUTDOWN
    assert server.peers[0].goaways == [ErrorCode.NO_ERROR]
    assert server.peers[0].closed


async def test_cancelling_the_block_drops_everything_at_once() -> None:
    with trio.move_on_after(5) as scope:
        async with channel_to(answer=lambda request: None) as (_, channel):
            await call(channel)
    assert scope.cancelled_caught
    assert trio.current_time() == 5


async def test_a_channel_lives_in_a_nursery_too() -> None:
    async with trio.open_nursery() as nursery:
        channel = Channel(ScriptedServer(nursery))
        with pytest.raises(RpcError, match="not open"):
            await call(channel)
        await nursery.start(channel.run)
        assert await call(channel) == b"ok"
        nursery.cancel_scope.cancel()
    assert channel.get_state() is Connectivity.SHUTDOWN


async def test_an_idle_connection_is_closed_and_made_again_when_needed() -> None:
    async with channel_to(channel={"idle_timeout_s": 60}) as (server, channel):
        await call(channel)
        await trio.sleep(59)
        await call(channel)
        assert len(server.peers) == 1
        await trio.sleep(70)
        assert channel.get_state() is Connectivity.IDLE
        assert server.peers[0].closed
        await call(channel)
        assert len(server.peers) == 2


async def test_keepalive_finds_a_dead_connection() -> None:
    keepalive = {"keepalive": KeepaliveOptions(time_s=30, timeout_s=5)}

    async with channel_to(channel=keepalive) as (server, channel):
        await call(channel)
        server.peers[0].flush = lambda: None  # type: ignore[method-assign]  # from now on it is mute
        with pytest.raises(RpcError, match=r"UNAVAILABLE.*keepalive"):
            await call(channel)
        assert trio.current_time() == 35
        assert await call(channel) == b"ok"
        assert len(server.peers) == 2


async def test_a_server_of_ours_is_reached_without_a_socket_whether_it_is_served_or_not() -> None:
    server = Server()
    async with open_channel(server) as channel:
        with pytest.raises(RpcError, match="UNIMPLEMENTED"):
            await call(channel)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        async with open_channel(server) as channel:
            with pytest.raises(RpcError, match="UNIMPLEMENTED"):
                await call(channel)
        nursery.cancel_scope.cancel()


async def test_credentials_are_asked_for_each_call() -> None:
    asked: list[str] = []

    def token(path: str) -> dict[str, str]:
        asked.append(path)
        return {"authorization": f"Bearer {len(asked)}"}

    async def slow_token(path: str) -> dict[str, str]:
        await trio.sleep(2)
        return {"also": "this"}

    async with channel_to(channel={"credentials": token, "metadata": {"always": "1"}}) as (server, channel):
        await call(channel)
        await call(channel, credentials=slow_token)
        assert trio.current_time() == 2
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await call(channel, credentials=slow_token, timeout=1)

        async def broken(path: str) -> dict[str, str]:
            raise KeyError("no token")

        with pytest.raises(RpcError, match=r"UNAVAILABLE: the credentials of /a.B/C failed: KeyError"):
            await call(channel, credentials=broken)
    sent = [request.fields for request in server.requests]
    assert [fields[b"authorization"] for fields in sent] == [b"Bearer 1", b"Bearer 2"]
    assert (sent[0][b"always"], sent[1][b"also"]) == (b"1", b"this")
    assert asked == ["/a.B/C"] * 4


async def test_two_thousand_random_cancels_and_resets_leave_nothing_behind() -> None:
    """Replies, resets, silences and client cancels mixed; afterwards every place is free again."""
    rng = random.Random(20)

    def answer(request: Request) -> None:
        draw = rng.random()
        if draw < 0.6:
            request.reply(b"x" * rng.randrange(2000))
        elif draw < 0.8:
            request.reset(ErrorCode.CANCEL)

    async with channel_to(answer=answer) as (server, channel):

        async def worker() -> None:
            for _ in range(40):
                with trio.move_on_after(rng.random()):
                    try:
                        await call(channel)
                    except RpcError:
                        pass

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(worker)
        await trio.testing.wait_all_tasks_blocked()
        assert not channel.calls
        assert not channel._waiting
        assert all(not peer.wire.streams for peer in server.peers)
        assert len(channel.alarms) < 5
