"""A call that ends before its handler does: the client leaves, the deadline passes, the server stops."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, MANY, ONE, SUM, Echo, Note, serving
from tests.grpc.raw_client import connected
from trio_serve.grpc import CallEnded, CancelReason
from trio_serve.grpc.deadline import current_deadline
from trio_serve.grpc.methods import methods_from
from trio_serve.grpc.server import Server
from trio_serve.wire.http2 import ErrorCode


class Hanging(Echo):
    """Handlers that wait for ever, and note how that ended."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.contexts: list[Any] = []

    async def hang(self, context: Any) -> None:
        self.running += 1
        self.contexts.append(context)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def One(self, request: Any, context: Any) -> Any:
        await self.hang(context)

    async def Many(self, request: Any, context: Any) -> Any:
        yield request
        await self.hang(context)

    async def Sum(self, requests: Any, context: Any) -> Any:
        async for _ in requests:
            pass
        await self.hang(context)

    async def Chat(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request
            await self.hang(context)


@pytest.mark.parametrize("path", [ONE, MANY, SUM, CHAT])
async def test_a_reset_cancels_the_handler(path: str) -> None:
    servicer = Hanging()
    async with connected(serving(servicer)) as client:
        call = await client.call(path, Note())
        await wait_all_tasks_blocked()
        assert servicer.running == 1

        await call.cancel()
        await wait_all_tasks_blocked()
        assert (servicer.running, servicer.cancelled) == (0, 1)
        assert servicer.contexts[0].cancelled()


async def test_a_lost_connection_cancels_all_its_handlers() -> None:
    servicer = Hanging()
    server = serving(servicer)
    async with connected(server) as client:
        for path in (ONE, MANY, CHAT):
            await client.call(path, Note())
        await wait_all_tasks_blocked()
        assert servicer.running == 3

        await client.byte_stream.aclose()
        await wait_all_tasks_blocked()
        assert (servicer.running, servicer.cancelled) == (0, 3)
        assert server.counters.connections == 0


async def test_a_call_reset_while_it_waits_for_a_worker_is_never_started() -> None:
    servicer = Hanging()
    async with connected(serving(servicer, max_running=1)) as client:
        first = await client.call(ONE, Note())
        second = await client.call(ONE, Note())
        await wait_all_tasks_blocked()
        await second.cancel()
        await first.cancel()
        await wait_all_tasks_blocked()

    assert len(servicer.contexts) == 1


async def test_a_handler_that_resists_keeps_its_place_after_a_reset() -> None:
    """Running handlers are bounded, not streams: rapid resets start no more than max_running of them."""
    running = most = 0

    class Resisting(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            with trio.CancelScope(shield=True):
                await trio.sleep(100)
            running -= 1

    async with connected(serving(Resisting(), max_running=2)) as client:
        for _ in range(50):
            await (await client.call(ONE, Note())).cancel()
        await wait_all_tasks_blocked()
        assert running == 2
        await trio.sleep(200)
    assert most == 2


async def test_the_clients_deadline_answers_at_its_moment_and_cancels() -> None:
    servicer = Hanging()
    async with connected(serving(servicer)) as client:
        started = trio.current_time()
        call = await client.call(ONE, Note(), timeout_s=0.5)
        trailers = await call.done()

        assert trailers[:2] == (Status.DEADLINE_EXCEEDED, "Request timed out after 0.5s.")
        assert trio.current_time() - started == pytest.approx(0.5)
        await wait_all_tasks_blocked()
        assert servicer.cancelled == 1


@pytest.mark.parametrize(("client_s", "server_s", "text"), [(5, 2, "2s"), (1.5, 20, "1.5s"), (None, 3, "3s")])
async def test_the_earlier_of_the_clients_and_the_servers_timeout_counts(
    client_s: float | None, server_s: float, text: str
) -> None:
    async with connected(serving(Hanging(), request_timeout_s=server_s)) as client:
        call = await client.call(MANY, Note(), timeout_s=client_s)
        assert (await call.done())[:2] == (Status.DEADLINE_EXCEEDED, f"Request timed out after {text}.")
        assert len(call.parsed()) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1e-9, "less than 0.001s"),
        (0.0004, "less than 0.001s"),
        (0.001, "0.001s"),
        (0.0995, "0.1s"),
        (1.0006, "1.001s"),
        (1800.0, "1800s"),
    ],
)
async def test_a_timeout_is_told_in_a_number_that_people_read(seconds: float, text: str) -> None:
    """A client that has nearly run out of time sends nanoseconds."""
    async with connected(serving(Hanging())) as client:
        call = await client.call(MANY, Note(), timeout_s=seconds)
        with trio.fail_after(2000):
            assert (await call.done()).message == f"Request timed out after {text}."


async def test_the_answer_leaves_at_the_deadline_though_the_handler_resists() -> None:
    class Resisting(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            with trio.CancelScope(shield=True):
                await trio.sleep(50)
            return request

    async with connected(serving(Resisting())) as client:
        started = trio.current_time()
        call = await client.call(ONE, Note(), timeout_s=1)
        assert (await call.done()).status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - started == pytest.approx(1)


async def test_a_deadline_passes_in_the_queue_too() -> None:
    servicer = Hanging()
    async with connected(serving(servicer, max_running=1)) as client:
        await client.call(ONE, Note())
        queued = await client.call(ONE, Note(), timeout_s=3)
        assert (await queued.done()).status is Status.DEADLINE_EXCEEDED
    assert len(servicer.contexts) == 1


async def test_a_request_that_never_completes_ends_at_its_deadline() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False, timeout_s=2)
        assert (await call.done()).status is Status.DEADLINE_EXCEEDED


async def test_the_handler_knows_what_is_left() -> None:
    left = []

    class Asking(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            await trio.sleep(1)
            left.extend([context.time_remaining(), current_deadline.get() - trio.current_time()])
            return request

    async with connected(serving(Asking())) as client:
        await (await client.call(ONE, Note(), timeout_s=10)).done()
        assert left == [pytest.approx(9), pytest.approx(9)]
        left.clear()
        await (await client.call(ONE, Note())).done()
        assert left == [None, pytest.approx(float("inf"))]


async def test_on_cancel_is_told_the_reason_once_and_not_after_an_answer() -> None:
    """As the proxy uses calls: dispatched to a function that keeps them."""
    calls: list[Any] = []
    reasons: list[Any] = []

    def dispatch(call: Any) -> None:
        call.on_cancel = lambda reason: reasons.append((call.path, reason))
        calls.append(call)

    server = Server()
    from tests.grpc.echo import messages

    for method in methods_from(messages):
        server.register(method, dispatch, trailing_metadata=lambda call: (("request_id", "7"),))
    async with connected(server) as client:
        one = await client.call(ONE, Note())
        chat = await client.call(CHAT, end=False, timeout_s=1)
        answered = await client.call(ONE, Note())
        await wait_all_tasks_blocked()
        assert calls[2].reply(Note(), trailing_metadata=(("k", "v"),))
        assert not calls[2].reply(Note())
        assert not calls[2].finish(Status.ABORTED)
        await one.cancel()
        trailers = await chat.done()
        await wait_all_tasks_blocked()

        assert reasons == [(ONE, CancelReason.CLIENT), (CHAT, CancelReason.DEADLINE)]
        assert trailers.metadata == (("request_id", "7"),)
        assert (await answered.done()).metadata == (("k", "v"),)
        for call in (calls[0], calls[1]):
            with pytest.raises(CallEnded):
                await call.send_message(Note())
        with pytest.raises(CallEnded):
            await calls[1].receive_message()
        await client.byte_stream.aclose()
        await wait_all_tasks_blocked()
        assert len(reasons) == 2


async def test_whoever_waits_for_a_message_outside_of_the_handler_is_told_of_the_end() -> None:
    told = []

    def dispatch(call: Any) -> None:
        async def wait() -> None:
            try:
                await call.receive_message()
            except CallEnded as error:
                told.append(error.reason)

        nursery.start_soon(wait)

    from tests.grpc.echo import messages

    server = Server()
    for method in methods_from(messages):
        server.register(method, dispatch)
    async with connected(server) as client, trio.open_nursery() as nursery:
        call = await client.call(CHAT, end=False)
        await wait_all_tasks_blocked()
        await call.cancel()
        await wait_all_tasks_blocked()
        assert told == [CancelReason.CLIENT]


async def test_a_dispatch_that_raises_fails_its_call_only(caplog: pytest.LogCaptureFixture) -> None:
    def dispatch(call: Any) -> None:
        raise ZeroDivisionError

    from tests.grpc.echo import messages

    server = Server()
    for method in methods_from(messages):
        server.register(method, dispatch)
    async with connected(server) as client:
        for path in (ONE, CHAT):
            call = await client.call(path, Note())
            assert (await call.done()).status is Status.INTERNAL
        assert client.wire.closed is None


async def test_100_000_cancelled_calls_leave_nothing_behind() -> None:
    """A tenth of that here; what counts is that nothing is left of any."""
    servicer = Hanging()
    server = serving(servicer)
    async with connected(server) as client:
        for _ in range(300):
            calls = [await client.call(CHAT, Note(), end=False, timeout_s=60) for _ in range(3)]
            await wait_all_tasks_blocked()
            for call in calls:
                client.wire.reset_stream(call.stream, ErrorCode.CANCEL)
            await client.flush()
            await trio.sleep(0.2)
        await wait_all_tasks_blocked()
        assert servicer.running == 0
        assert server.method_counters[CHAT].running == 0
        assert len(server._running.alarms) <= 3  # those of the connection
        assert len(server._running.alarms._heap) <= 200
