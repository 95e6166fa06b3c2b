"""A deployment that computes for 5 ms a call, asked for more than it can, over the wire and in virtual time.

Computing is a jump of the clock: everybody else on the loop waits for it, as for the real thing.
"""

import collections
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_serve as serve
from tests.garbage import left_to_the_collector
from trio_serve.grpc import RpcError, Status, load_protos
from trio_serve.grpc.call import ServerCall
from trio_serve.testing import serving

PROTO = """
syntax = "proto3";
package busy;
message Work { double deadline = 1; }
service Busy { rpc Do(Work) returns (Work); }
"""

WORK_S = 0.005
DEADLINE_S = 1.0
ONSET_S = 3.5
"""When the queue of the first seconds is gone."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("protos") / "busy.proto"
    file.write_text(PROTO)
    return load_protos(file)


class Load:
    """A client on the same loop; it counts what its calls came to, and how long each of them took."""

    def __init__(self, channel: Any, busy: Any) -> None:
        self.took: dict[Status, list[float]] = collections.defaultdict(list)
        self._work = busy.Work
        self._do = channel.unary_unary(
            "/busy.Busy/Do",
            request_serializer=busy.Work.SerializeToString,
            response_deserializer=busy.Work.FromString,
        )

    async def call(self) -> None:
        sent = trio.current_time()
        status = Status.OK
        try:
            await self._do(self._work(deadline=sent + DEADLINE_S), timeout=DEADLINE_S)
        except RpcError as error:
            status = error.status
        self.took[status].append(trio.current_time() - sent)

    async def run(self, rate: float, seconds: float) -> None:
        """Call so many times a second, whatever becomes of it; return when all are answered."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for k in range(int(rate * seconds)):
                await trio.sleep_until(began + k / rate)
                nursery.start_soon(self.call)

    def p99(self, status: Status) -> float:
        times = sorted(self.took[status])
        return times[int(0.99 * len(times))]


@asynccontextmanager
async def busy_service(busy: Any, begun_too_late: list[float], **options: Any) -> AsyncIterator[Any]:
    @serve.deployment(**options)
    class Busy:
        async def Do(self, work: Any) -> Any:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            if clock.current_time() > work.deadline:
                begun_too_late.append(work.deadline)
            clock.jump(WORK_S)
            return work

    async with serving(Busy.bind(), services=[busy]) as service:
        yield service


async def test_in_an_overload_the_refused_hear_of_it_between_two_computations(busy: Any) -> None:
    """Five times what can be served, with the default options: five calls are at work at a time."""
    begun_too_late: list[float] = []
    async with busy_service(busy, begun_too_late) as service:
        await Load(service.channel(), busy).run(5 / WORK_S, ONSET_S)

        load = Load(service.channel(), busy)
        seconds = 1.0
        await load.run(5 / WORK_S, seconds)

        assert set(load.took) == {Status.OK, Status.RESOURCE_EXHAUSTED}
        assert len(load.took[Status.OK]) >= 0.95 * seconds / WORK_S
        assert load.p99(Status.OK) <= 0.1
        assert load.p99(Status.RESOURCE_EXHAUSTED) <= 2.5 * WORK_S
        assert begun_too_late == []


async def test_of_a_call_that_is_refused_not_even_the_message_is_parsed(busy: Any) -> None:
    """What cannot be parsed is refused like the rest while there is no room, and told so when there is."""

    @serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
    class Slow:
        async def Do(self, work: Any) -> Any:
            await trio.sleep(1)
            return work

    async with serving(Slow.bind(), services=[busy]) as service:
        call = service.channel().unary_unary("/busy.Busy/Do", bytes, bytes)
        statuses = collections.Counter[Status]()

        async def send(message: bytes) -> None:
            try:
                await call(message)
            except RpcError as error:
                statuses[error.status] += 1

        async with trio.open_nursery() as nursery:
            for message in (b"", b"", b"\xff", b"\xff", b"\xff"):
                nursery.start_soon(send, message)
                await wait_all_tasks_blocked()
        await send(b"\xff")

        assert statuses == {Status.RESOURCE_EXHAUSTED: 3, Status.INVALID_ARGUMENT: 1}
        (state,) = [app.ingress for app in service.instance.controller.applications.values()]
        assert (state.routed, state.refused) == (5, 3)


async def test_an_answered_call_is_no_work_for_the_garbage_collector(busy: Any) -> None:
    async with busy_service(busy, [], max_ongoing_requests=1, max_queued_requests=1) as service:
        load = Load(service.channel(), busy)
        await load.call()
        with left_to_the_collector(ServerCall) as left:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(load.call)
            await wait_all_tasks_blocked()

    assert load.took[Status.OK]
    assert load.took[Status.RESOURCE_EXHAUSTED]
    assert left == []
