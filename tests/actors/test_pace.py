"""How fast a queue moves: arithmetic, and what a mailbox tells it."""

import contextvars
from math import inf
from typing import Any

import outcome
import pytest
import trio

from trio_serve.actors import Envelope, Mailbox
from trio_serve.actors.pace import TAKES_KEPT, TAKES_NEEDED, Pace


class Nobody:
    def finish(self, result: outcome.Outcome[Any], /) -> None: ...

    async def send(self, item: Any, /) -> None: ...


def envelope() -> Envelope:
    return Envelope("work", Nobody(), contextvars.copy_context(), inf)


def test_the_wait_is_the_mean_gap_for_each_that_is_before_me_and_for_me() -> None:
    pace = Pace()
    for k in range(TAKES_NEEDED):
        pace.taken(0.1 * k)

    assert pace.expected_wait_s(9, 0.1 * TAKES_NEEDED) == pytest.approx(1.0)


def test_few_takes_tell_nothing() -> None:
    pace = Pace()
    for k in range(TAKES_NEEDED - 1):
        pace.taken(10.0 * k)

    assert pace.expected_wait_s(1000, 1e6) == 0.0


def test_a_standstill_shows() -> None:
    pace = Pace()
    for k in range(TAKES_NEEDED):
        pace.taken(0.01 * k)

    assert pace.expected_wait_s(0, 16.0) == pytest.approx(1.0)


def test_the_pace_is_that_of_the_last_takes() -> None:
    """Slow for an hour, then fast."""
    pace = Pace()
    for k in range(100):
        pace.taken(36.0 * k)
    for k in range(TAKES_KEPT):
        pace.taken(3600.0 + 0.01 * k)

    assert pace.expected_wait_s(99, 3600.0 + 0.01 * TAKES_KEPT) == pytest.approx(1.0)


async def test_a_mailbox_that_was_empty_knows_nothing_of_its_next_busy_time() -> None:
    """Slow takes while others wait are the pace; an empty queue ends that, by a take or by a cancel."""
    for last_one_leaves in ("taken", "cancelled"):
        mailbox = Mailbox(None)
        waiting = [envelope() for _ in range(TAKES_NEEDED + 2)]
        for each in waiting:
            mailbox.put_nowait(each)
        for _ in range(TAKES_NEEDED + 1):
            await trio.sleep(1)
            mailbox.take_nowait()
        assert mailbox.expected_wait_s(trio.current_time()) > 1.5

        if last_one_leaves == "taken":
            mailbox.take_nowait()
        else:
            waiting[-1].cancel(RuntimeError("no longer wanted"))
        mailbox.put_nowait(envelope())

        assert mailbox.expected_wait_s(trio.current_time()) == 0.0
