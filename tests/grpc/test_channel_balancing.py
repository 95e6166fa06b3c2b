"""Several addresses: which of them a call goes to, and what happens when one is lost."""

from collections import Counter

import pytest
import trio
import trio.testing

from tests.grpc.client_peers import Request, ScriptedServer
from trio_serve.grpc import RpcError
from trio_serve.grpc.balancing import RESOLVE_INTERVAL_S, overall_state
from trio_serve.grpc.channel import open_channel
from trio_serve.grpc.subchannel import Connectivity
from trio_serve.grpc.target import Target, read_target
from trio_serve.transport.dialing import BackoffOptions, TcpAddress, UnixAddress
from trio_serve.wire.http2 import Limits

STEADY = BackoffOptions(jitter=0.0)


def named(nursery: trio.Nursery, name: str, **options: object) -> ScriptedServer:
    def answer(request: Request) -> None:
        request.reply(name.encode())

    return ScriptedServer(nursery, answer, name=name, **options)  # type: ignore[arg-type]


async def test_pick_first_uses_the_first_that_connects_for_every_call() -> None:
    async with trio.open_nursery() as nursery:
        dead, good, spare = (named(nursery, name) for name in ("dead", "good", "spare"))
        dead.refuses = 1
        async with open_channel([dead, good, spare]) as channel:
            for _ in range(5):
                assert await channel.unary_unary("/a.B/C")(b"") == b"good"
        assert (len(dead.dialed_at), len(spare.dialed_at)) == (1, 0)
        nursery.cancel_scope.cancel()


async def test_round_robin_spreads_calls_evenly() -> None:
    async with trio.open_nursery() as nursery:
        servers = [named(nursery, name) for name in ("a", "b", "c")]
        async with open_channel(servers, balancing="round_robin") as channel:
            method = channel.unary_unary("/a.B/C")
            await method(b"")
            await trio.testing.wait_all_tasks_blocked()  # connected to all by now
            replies = Counter([await method(b"") for _ in range(30)])
            assert replies == {b"a": 10, b"b": 10, b"c": 10}
        nursery.cancel_scope.cancel()


async def test_round_robin_passes_over_those_that_are_down_and_takes_them_in_again() -> None:
    async with trio.open_nursery() as nursery:
        a, b = named(nursery, "a"), named(nursery, "b", refuses=3)
        options = {"balancing": "round_robin", "backoff": STEADY}
        async with open_channel([a, b], **options) as channel:
            method = channel.unary_unary("/a.B/C")
            assert {await method(b"") for _ in range(6)} == {b"a"}
            await trio.sleep(10)  # b is dialed at 0, 1, 2.6 and 5.16
            assert Counter([await method(b"") for _ in range(10)]) == {b"a": 5, b"b": 5}
            await a.peers[0].close()
            await trio.testing.wait_all_tasks_blocked()
            assert len(a.peers) == 2  # connected again without being asked
            assert Counter([await method(b"") for _ in range(10)]) == {b"a": 5, b"b": 5}
        nursery.cancel_scope.cancel()


async def test_round_robin_fails_only_when_all_fail_and_names_each_cause() -> None:
    async with trio.open_nursery() as nursery:
        a, b = named(nursery, "a", refuses=9), named(nursery, "b", refuses=9)
        async with open_channel([a, b], balancing="round_robin") as channel:
            with pytest.raises(RpcError, match=r"UNAVAILABLE.*a: Connection refused; b: Connection refused"):
                await channel.unary_unary("/a.B/C")(b"")
            assert channel.get_state() is Connectivity.TRANSIENT_FAILURE
        nursery.cancel_scope.cancel()


async def test_a_full_server_is_passed_over() -> None:
    held: list[Request] = []
    async with trio.open_nursery() as nursery:
        full = ScriptedServer(nursery, held.append, name="full", limits=Limits(streams_max=1))
        free = named(nursery, "free")
        async with open_channel([full, free], balancing="round_robin") as channel:
            method = channel.unary_unary("/a.B/C")
            calls = [method(b"") for _ in range(2)]
            await trio.testing.wait_all_tasks_blocked()
            calls += [method(b"") for _ in range(8)]
            await trio.testing.wait_all_tasks_blocked()
            assert len(held) <= 1
            for request in held:
                request.reply(b"full")
            replies = Counter([await call for call in calls])
            assert replies[b"free"] >= 8
        nursery.cancel_scope.cancel()


async def test_round_robin_resolves_again_when_a_server_is_lost() -> None:
    """The name first means a, later b: a's calls end, new ones go to b; at most one look-up in 30 s."""
    async with trio.open_nursery() as nursery:
        a, b = named(nursery, "a"), named(nursery, "b")
        answers = [(a,), (b,)]
        asked_at: list[float] = []

        async def resolve() -> tuple[ScriptedServer, ...]:
            asked_at.append(trio.current_time())
            return answers[0] if len(asked_at) == 1 else answers[1]

        async with open_channel("somewhere", balancing="round_robin") as channel:
            balancer = channel._balancer
            balancer._target = Target("somewhere", "somewhere", resolve)  # type: ignore[attr-defined]
            method = channel.unary_unary("/a.B/C")
            assert await method(b"") == b"a"
            a.refuses = 1000
            await a.peers[0].close()
            await trio.sleep(RESOLVE_INTERVAL_S + 1)
            assert await method(b"") == b"b"
            assert asked_at == [0, RESOLVE_INTERVAL_S]
        nursery.cancel_scope.cancel()


async def test_a_name_that_does_not_resolve_fails_the_call_with_the_cause() -> None:
    async def no_such_name() -> tuple[TcpAddress, ...]:
        raise OSError("nowhere.test: Name or service not known")

    for balancing in ("pick_first", "round_robin"):
        async with open_channel("nowhere.test:80", balancing=balancing) as channel:
            target = Target("nowhere.test:80", "nowhere.test:80", no_such_name)
            channel._target = target
            if balancing == "round_robin":
                channel._balancer._target = target  # type: ignore[attr-defined]
            else:

                async def dial() -> None:
                    await no_such_name()

                channel._balancer._subchannel._dial = dial  # type: ignore[attr-defined]
            with pytest.raises(RpcError, match=r"UNAVAILABLE.*Name or service not known"):
                await channel.unary_unary("/a.B/C")(b"")


def test_the_overall_state_is_the_best_of_all() -> None:
    idle, connecting, good, bad = (
        Connectivity.IDLE,
        Connectivity.CONNECTING,
        Connectivity.READY,
        Connectivity.TRANSIENT_FAILURE,
    )
    assert overall_state([bad, good, connecting]) is good
    assert overall_state([bad, connecting, idle]) is connecting
    assert overall_state([bad, idle]) is idle
    assert overall_state([bad, bad]) is bad
    assert overall_state([]) is idle


async def _addresses(target: object) -> list[str]:
    read = read_target(target, None)  # type: ignore[arg-type]
    return [str(address) for address in await read.resolve()]


async def test_targets_of_every_form_are_read() -> None:
    assert await _addresses("ipv4:10.0.0.1:80,10.0.0.2:81") == ["10.0.0.1:80", "10.0.0.2:81"]
    assert await _addresses("ipv6:[::1]:80") == ["[::1]:80"]
    assert await _addresses("unix:some/path") == ["unix:some/path"]
    assert await _addresses("unix:///abs/path") == ["unix:/abs/path"]
    assert await _addresses("127.0.0.1:50051") == ["127.0.0.1:50051"]
    assert await _addresses("dns:///127.0.0.1:50051") == ["127.0.0.1:50051"]
    assert await _addresses(["ipv4:10.0.0.1:80", UnixAddress("x")]) == ["10.0.0.1:80", "unix:x"]
    assert await _addresses("127.0.0.1") == ["127.0.0.1:443"]
    assert read_target("dns:///host:1", None).authority == "host:1"  # type: ignore[arg-type]
    assert read_target("unix:x", None).authority == "localhost"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("", ValueError, "no host"),
        ("host:port", ValueError, "no valid port"),
        ("host:99999", ValueError, "no valid port"),
        ("[::1:80", ValueError, "no valid port"),
        ("ipv4:nonsense:80", ValueError, "no IP address"),
        ("dns://8.8.8.8/host:1", ValueError, "only the system's"),
        ("unix:", ValueError, "no path"),
        ([], ValueError, "empty list"),
        (42, TypeError, "is no target"),
    ],
)
async def test_a_target_that_says_nothing_is_refused_at_the_door(
    target: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        async with open_channel(target):  # type: ignore[arg-type]
            pass


async def test_unknown_options_and_balancings_are_refused_at_the_door() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        async with open_channel("host:1", no_such_option=1):
            pass
    with pytest.raises(ValueError, match="'random' is none of pick_first, round_robin"):
        async with open_channel("host:1", balancing="random"):
            pass
