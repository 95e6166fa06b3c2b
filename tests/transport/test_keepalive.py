"""PINGs both ways, exact in virtual time (gRFC A8, A9)."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.peers import REQUEST, RESPONSE, Received, connected
from trio_serve.transport.connection import ConnectionOptions
from trio_serve.transport.keepalive import KEEPALIVE_PING, KeepaliveOptions
from trio_serve.wire.http2 import ErrorCode, Role


def asking(**keepalive: Any) -> ConnectionOptions:
    return ConnectionOptions(keepalive=KeepaliveOptions(**keepalive))


async def test_a_silent_peer_is_asked_after_time_s_and_given_up_after_timeout_s() -> None:
    async with connected(options=asking(time_s=30.0, timeout_s=5.0, without_calls=True)) as (_, owner, peer):
        started = trio.current_time()
        await owner.closed.wait()

        assert trio.current_time() - started == pytest.approx(35, abs=0.01)
        assert owner.reasons == ["keepalive: no answer to PING within 5 s"]
        await peer.exchange()
        assert peer.pings == 1


async def test_a_peer_that_answers_is_asked_again_and_again() -> None:
    async with connected(options=asking(time_s=30.0, timeout_s=5.0, without_calls=True)) as (_, owner, peer):
        for _ in range(100):
            await trio.sleep(3)
            await peer.exchange()

        assert not owner.reasons
        assert 8 <= peer.pings <= 10


@pytest.mark.parametrize("_chance", range(10))  # which of two tasks comes first is a matter of it
async def test_a_process_that_was_suspended_reads_the_answer_before_it_gives_the_peer_up(
    _chance: int,
) -> None:
    """The answer came in time; nobody looked for a minute, and then alarm and reader wake together."""
    async with connected(options=asking(time_s=30.0, timeout_s=5.0, without_calls=True)) as (_, owner, peer):
        clock: Any = trio.lowlevel.current_clock()
        peer.wire.receive_data(await peer.byte_stream.receive_some(1000))
        assert peer.pings == 1
        peer.byte_stream.send_nowait(peer.wire.data_to_send())
        clock.jump(60)
        await trio.sleep(3)

        assert not owner.reasons
        await owner.closed.wait()  # and a peer that is silent from now on is given up as ever


async def test_any_frame_is_a_sign_of_life() -> None:
    """The peer speaks every 20 seconds of its own accord: it is never asked."""
    async with connected(options=asking(time_s=30.0, timeout_s=5.0, without_calls=True)) as (_, owner, peer):
        for _ in range(10):
            await trio.sleep(20)
            peer.wire.send_ping(bytes(8))
            await peer.exchange()

        assert peer.pings == 0
        assert not owner.reasons


async def test_without_calls_nobody_is_asked_unless_that_is_wanted() -> None:
    options = asking(time_s=30.0, timeout_s=5.0)
    async with connected(Role.CLIENT, options) as (connection, owner, peer):
        await trio.sleep(300)
        await peer.exchange()
        assert peer.pings == 0

        connection.wire.open_stream(REQUEST, Received())
        connection.touch()
        await owner.closed.wait()
        await peer.exchange()
        assert peer.pings == 1


async def ping(peer: Any) -> None:
    peer.wire.send_ping(b"12345678")
    await peer.exchange()


async def test_pings_sooner_than_the_interval_are_strikes_and_too_many_end_the_connection() -> None:
    async with connected(options=asking(interval_min_s=10.0, strikes_max=2)) as (_, owner, peer):
        for _ in range(3):  # the first is in order, two are strikes
            await ping(peer)
        assert not peer.goaways
        await ping(peer)

        assert [goaway[1:] for goaway in peer.goaways] == [(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")]
        await peer.byte_stream.aclose()
        await owner.closed.wait()
        assert owner.reasons == ["the peer sent too many PINGs"]


async def test_pings_at_the_interval_are_never_strikes() -> None:
    async with connected(options=asking(interval_min_s=10.0, strikes_max=0)) as (_, _, peer):
        for _ in range(20):
            await ping(peer)
            await trio.sleep(10)
        assert len(peer.pongs) == 20
        assert not peer.goaways


async def test_an_answer_forgives_the_strikes() -> None:
    async with connected(options=asking(interval_min_s=10.0, strikes_max=2)) as (connection, owner, peer):
        for _ in range(10):
            peer.wire.open_stream(REQUEST, Received(), end_stream=True)
            await ping(peer)
            connection.wire.send_reply(owner.streams[-1], RESPONSE, b"", ((b"done", b"1"),))
            connection.answered()
            await ping(peer)
        assert not peer.goaways


async def test_data_that_an_opened_window_lets_go_forgives_the_strikes() -> None:
    """A long answer over many windows, to a peer that measures its link with a PING for each."""
    async with connected(options=asking(interval_min_s=10.0, strikes_max=0)) as (connection, owner, peer):
        taken = Received()
        stream = peer.wire.open_stream(REQUEST, taken, end_stream=True)
        await peer.exchange()
        connection.wire.send_headers(owner.streams[-1], RESPONSE)
        connection.wire.send_data(owner.streams[-1], bytes(1_000_000))
        connection.answered()
        await ping(peer)
        for _ in range(4):
            peer.wire.acknowledge(stream, len(taken.data))
            taken.data = b""
            await peer.exchange()
            await ping(peer)
        assert not peer.goaways


async def test_a_client_never_strikes_its_server() -> None:
    async with connected(Role.CLIENT, asking(interval_min_s=1000.0, strikes_max=0)) as (_, _, peer):
        for _ in range(10):
            await ping(peer)
        assert not peer.goaways


async def test_the_keepalive_ping_is_told_from_others() -> None:
    async with connected(options=asking(time_s=1.0, timeout_s=5.0, without_calls=True)) as (_, owner, peer):
        await trio.sleep(1.5)
        await peer.exchange()
        await wait_all_tasks_blocked()
        assert peer.pings == 1
        assert len(KEEPALIVE_PING) == 8
        assert not owner.reasons


@pytest.mark.parametrize("seconds", [-1.0, 0.0])
async def test_a_ping_of_ours_counts_as_none_of_theirs(seconds: float) -> None:
    async with connected(options=asking(interval_min_s=10.0, strikes_max=0)) as (connection, _, peer):
        for _ in range(5):
            connection.send_ping(bytes(8))
            await peer.exchange()
        assert not peer.goaways
