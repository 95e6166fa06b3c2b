"""How every test runs: async tests on Trio, in virtual time unless they say otherwise.

A test that waits for nothing real runs under ``MockClock(autojump_threshold=0)``: sleeping costs
nothing, and a deadlock becomes a failure at once, because the clock jumps to the hour that each test may
take.  A test that waits for sockets, threads or processes is marked ``real_clock`` and gets ``PATIENCE_S``.
"""

import functools
import inspect
import os
from typing import Any

import pytest
import trio.testing

from tests.patience import PATIENCE_S

# The many processes that tests start find each other's bytecode, as users' processes do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.node.get_closest_marker("real_clock"):
        return "trio", {}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return
    test = pyfuncitem.obj
    seconds = PATIENCE_S if pyfuncitem.get_closest_marker("real_clock") else 3600

    @functools.wraps(test)
    async def within_its_time(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(seconds):
            await test(*args, **kwargs)

    pyfuncitem.obj = within_its_time
