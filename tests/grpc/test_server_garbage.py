"""A finished call leaves nothing for the garbage collector: what it held is free at once."""

import gc
from typing import Any

import pytest
from grpclib.const import Status
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, MANY, ONE, SUM, Echo, Note, serving
from tests.grpc.raw_client import RawCall, connected
from trio_serve.grpc.call import ServerCall


def count_calls() -> int:
    return sum(type(one) is ServerCall for one in gc.get_objects())


@pytest.mark.parametrize("path", [ONE, MANY, SUM, CHAT])
@pytest.mark.parametrize("timeout_s", [None, 10])
async def test_no_call_waits_for_the_collector(path: str, timeout_s: float | None) -> None:
    async with connected(serving(Echo())) as client:
        await (await client.call(path, Note())).done()
        await wait_all_tasks_blocked()
        gc.collect()
        before = count_calls()
        gc.disable()
        try:
            for _ in range(20):
                call: Any = await client.call(path, Note(), timeout_s=timeout_s)
                assert (await call.done()).status is Status.OK
            await wait_all_tasks_blocked()
            left = count_calls() - before
        finally:
            gc.enable()

        assert left <= 1  # a parked worker may remember its last one
        assert isinstance(call, RawCall)
