"""How fast a queue moves, and how long it has stood: arithmetic, and what a mailbox tells it."""

import contextvars
from math import inf
from typing import Any

import pytest
import trio

from trio_serve.actors import Envelope, Mailbox
from trio_serve.actors.pace import EMPTY_COUNTS, MARKS_KEPT, STOOD_MAX_S, TAKES_NEEDED, Pace


class Nobody:
    def succeed(self, value: Any, /) -> None: ...
    def fail(self, error: BaseException, /) -> None: ...

    async def send(self, item: Any, /) -> None: ...


def envelope() -> Envelope:
    return Envelope("work", Nobody(), contextvars.copy_context(), inf)


def after_takes(takes: int, gap_s: float, began: float = 0.0) -> Pace:
    pace = Pace()
    pace.filled(began)
    for k in range(takes):
        pace.taken(began + gap_s * (k + 1))
    return pace


def test_the_wait_is_the_mean_gap_for_each_that_is_before_me_and_for_me() -> None:
    pace = after_takes(TAKES_NEEDED, 0.1)

    assert pace.expected_wait_s(9, 0.1 * (TAKES_NEEDED + 1)) == pytest.approx(1.0)


def test_few_takes_make_no_more_than_a_guess() -> None:
    pace = after_takes(TAKES_NEEDED - 1, 10.0)
    assert not pace.is_known
    assert pace.expected_wait_s(9, 10.0 * TAKES_NEEDED) == pytest.approx(100.0)

    pace.taken(10.0 * TAKES_NEEDED)
    assert pace.is_known
    pace.emptied(10.0 * TAKES_NEEDED)
    assert not pace.is_known
    assert pace.expected_wait_s(1000, 1e6) == 0.0


def test_a_standstill_shows() -> None:
    pace = after_takes(TAKES_NEEDED, 0.01)

    assert pace.expected_wait_s(0, TAKES_NEEDED + 1.0) == pytest.approx(1.0)


def test_the_pace_is_that_of_the_last_takes() -> None:
    """Slow for an hour, then fast."""
    pace = after_takes(100, 36.0)
    for k in range(MARKS_KEPT):
        pace.taken(3600.0 + 0.01 * k)

    assert pace.expected_wait_s(99, 3600.0 + 0.01 * MARKS_KEPT) == pytest.approx(1.0)


def test_a_queue_stands_while_it_is_there_and_soon_does_not_when_it_is_gone() -> None:
    pace = Pace()
    assert pace.stood_s(5.0) == 0.0
    pace.filled(10.0)
    assert pace.stood_s(12.0) == pytest.approx(2.0)

    pace.emptied(12.0)

    assert pace.stood_s(12.05) == pytest.approx(1.0)
    assert pace.stood_s(12.1) == pytest.approx(0.0)
    assert pace.stood_s(100.0) == 0.0
    pace.filled(100.0)
    assert pace.stood_s(100.5) == pytest.approx(0.5)


def test_a_moment_without_a_queue_is_no_end_of_it() -> None:
    """Empty for 1 ms in 100: it stands, and longer all the time.  Empty for 10 in 100: it never does."""
    for empty_s, stands in ((0.001, True), (0.01, False)):
        pace = Pace()
        for k in range(100):
            pace.filled(0.1 * k)
            pace.emptied(0.1 * (k + 1) - empty_s)
        assert (pace.stood_s(10.0) > 5.0) is stands


def test_however_long_it_stood_three_seconds_are_enough_to_forget_it() -> None:
    pace = Pace()
    pace.filled(0.0)
    assert pace.stood_s(1e6) == STOOD_MAX_S

    pace.emptied(1e6)

    assert pace.stood_s(1e6 + STOOD_MAX_S / EMPTY_COUNTS) == pytest.approx(0.0)


def test_the_time_when_nobody_served_tells_nothing() -> None:
    pace = Pace()
    pace.filled(0.0)

    pace.restart(100.0, waiting=3)

    assert pace.stood_s(100.5) == pytest.approx(0.5)
    pace.taken(100.5)
    assert pace.expected_wait_s(1, 101.0) == pytest.approx(1.0)


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
        assert mailbox.pace.expected_wait_s(1, trio.current_time()) > 1.5
        assert mailbox.pace.stood_s(trio.current_time()) == TAKES_NEEDED + 1

        if last_one_leaves == "taken":
            mailbox.take_nowait()
        else:
            waiting[-1].cancel(RuntimeError("no longer wanted"))
        await trio.sleep(1)
        mailbox.put_nowait(envelope())

        assert mailbox.pace.expected_wait_s(1, trio.current_time()) == 0.0
        assert mailbox.pace.stood_s(trio.current_time()) == 0.0
