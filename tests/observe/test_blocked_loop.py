"""A blocking call in the event loop is told, with where it stands, and its end too."""

import logging
import time

import pytest
import trio
import trio.testing

from trio_serve.observe.blocked_loop import watch_loop

pytestmark = pytest.mark.real_clock


def block_until_told(caplog: pytest.LogCaptureFixture, lines: int) -> None:
    limit = time.monotonic() + 30
    while len(caplog.records) < lines and time.monotonic() < limit:
        time.sleep(0.001)  # as bad code does


async def test_a_blocked_loop_is_told_with_its_stack_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop, 0.02)
        await trio.testing.wait_all_tasks_blocked()
        block_until_told(caplog, 1)
        await trio.to_thread.run_sync(block_until_told, caplog, 2)
        nursery.cancel_scope.cancel()

    blocked, over = caplog.records[:2]
    assert blocked.levelno == logging.WARNING
    assert blocked.getMessage().startswith("the event loop has been blocked for over 0.02 s")
    assert blocked.stack_info is not None
    assert "in block_until_told" in blocked.stack_info
    assert over.getMessage().startswith("the event loop goes on, after ")


async def test_a_loop_that_only_waits_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop, 1.0)
        await trio.sleep(0.7)
        nursery.cancel_scope.cancel()

    assert caplog.records == []
