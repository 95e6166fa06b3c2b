"""Which calls are queued, seen on a queue that is only arithmetic: hours of load pass in no time.

A load is a list of moments.  Each call takes equally long, and ``slots`` of them are served at a time.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from random import Random

import pytest

from trio_serve.actors import Pace
from trio_serve.serving.admission import BURST, OVERLOAD, why_not

WORK_S = 0.005
DEADLINE_S = 1.0
ONSET_S = (OVERLOAD + 0.5) * DEADLINE_S
"""When the queue of the first seconds is gone."""


class Served:
    """What became of the calls: when each that was served had been sent, and how long its answer took."""

    def __init__(self) -> None:
        self.good: list[tuple[float, float]] = []
        self.late = 0
        self.refusals: list[tuple[float, str]] = []

    def answered(self, until: float) -> int:
        return sum(1 for sent, took in self.good if sent + took < until)

    def p99(self, sent_from: float = 0.0) -> float:
        times = sorted(took for sent, took in self.good if sent >= sent_from)
        return times[int(0.99 * len(times))]


def serve(
    moments: Sequence[float],
    *,
    slots: int = 1,
    work_s: float = WORK_S,
    deadline_s: float = DEADLINE_S,
    batches: bool = False,
) -> Served:
    """Offer a call at each moment to a queue that `why_not` keeps; ``batches`` begin and end together."""
    served = Served()
    pace = Pace()
    queue: deque[float] = deque()
    at_work: list[float] = []

    def work_off(until: float) -> None:
        while at_work and at_work[0] <= until:
            now = heapq.heappop(at_work)
            if batches and at_work:
                continue
            while queue and len(at_work) < slots:
                sent = queue.popleft()
                (pace.taken if queue else pace.emptied)(now)
                begin(sent, now)

    def begin(sent: float, now: float) -> None:
        if now >= sent + deadline_s:
            served.late += 1
            return
        heapq.heappush(at_work, now + work_s)
        served.good.append((sent, now + work_s - sent))

    for now in moments:
        work_off(now)
        why = why_not(pace, len(queue), slots, deadline_s, now) if queue else ""
        if why:
            served.refusals.append((now, why))
        elif len(at_work) < (1 if batches else slots):
            begin(now, now)
        else:
            if not queue:
                pace.filled(now)
            queue.append(now)
    work_off(float("inf"))
    return served


def steady(rate: float, seconds: float) -> list[float]:
    return [k / rate for k in range(int(rate * seconds))]


def chance(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments that know nothing of each other."""
    random = Random(seed)

    def moments() -> Iterator[float]:
        at = 0.0
        while True:
            at += random.expovariate(rate)
            yield at

    return list(takewhile(lambda at: at < seconds, moments()))


@pytest.mark.parametrize("times", [1.3, 2, 5, 10])
def test_in_an_overload_as_much_is_served_and_nobody_waits_for_long(times: float) -> None:
    served = serve(steady(times / WORK_S, 20))

    assert served.answered(20) >= 0.99 * 20 / WORK_S
    assert served.p99(ONSET_S) <= 0.05
    assert served.late == 0
    assert "in a queue that does not go away" in served.refusals[-1][1]


@pytest.mark.parametrize("slots", [1, 5, 20])
def test_the_queue_of_an_overload_may_be_empty_for_a_moment(slots: int) -> None:
    """A third more than can be served, at random: without a call now and then, and still an overload."""
    served = serve(chance(1.3 / WORK_S, 60, seed=slots), slots=slots, work_s=slots * WORK_S)

    assert served.answered(60) >= 0.98 * 60 / WORK_S
    assert served.p99(ONSET_S) <= 0.05 + 2 * slots * WORK_S


@pytest.mark.parametrize("slots", [1, 5, 20])
def test_at_nine_tenths_of_what_can_be_served_hardly_anybody_is_refused(slots: int) -> None:
    """Chance makes queues, and calls wait longer than an overload would let them."""
    moments = chance(0.9 / WORK_S, 300, seed=slots)
    served = serve(moments, slots=slots, work_s=slots * WORK_S)

    assert len(served.refusals) <= 0.001 * len(moments)
    assert max(took for _, took in served.good) > 0.1


def test_a_burst_that_can_be_served_in_time_is_served() -> None:
    """Ninety at once wait up to 0.45 s of their second; so do the next ninety, for ten minutes."""
    served = serve([float(second) for second in range(600) for _ in range(90)])

    assert served.refusals == []
    assert served.p99() > 0.4


def test_a_burst_is_served_again_after_an_overload() -> None:
    served = serve([*steady(5 / WORK_S, 60), *[64.0] * 90])

    assert served.refusals[-1][0] < 60


def test_the_line_is_not_closed_while_the_queue_of_the_first_seconds_goes() -> None:
    """At no time is everybody refused: the longest pause between two that are let in is short."""
    served = serve(steady(2 / WORK_S, 6))
    sent = [at for at, _ in served.good]

    assert max(after - before for before, after in pairwise(sent)) <= 0.05


def test_slow_calls_with_long_deadlines_are_queued_as_they_always_were() -> None:
    """2 s each, five at a time, a minute to wait: 70 at once take 28 s, and more come while these wait."""
    served = serve([0.0] * 70 + steady(0.5, 30), slots=5, work_s=2.0, deadline_s=60.0)

    assert served.refusals == []
    assert served.late == 0


def test_an_overload_shorter_than_the_deadline_is_a_burst() -> None:
    """Twice what can be served, for 20 s; each call has 60 s."""
    served = serve(steady(2 / WORK_S, 20), deadline_s=60.0)

    assert served.refusals == []


def test_so_many_may_wait_as_are_served_at_a_time() -> None:
    """Batches of twenty, half a second each: 4 % of 2 s are three calls, and would be batches of four."""
    served = serve(steady(80, 20), slots=20, work_s=0.5, deadline_s=2.0, batches=True)

    assert served.answered(20) >= 0.9 * 20 * 40
    assert served.refusals


def test_the_wait_that_is_allowed_falls_from_half_to_a_twenty_fifth() -> None:
    """One call in 10 ms; how many may wait is asked when the queue has been there for 1, 2 and 3 seconds."""

    def most_waiting(stood_s: float, left_s: float, slots: int = 1) -> int:
        pace = Pace()
        pace.filled(0.0)
        for k in range(round(stood_s / 0.01)):
            pace.taken(0.01 * (k + 1))
        return next(n for n in range(10_000) if why_not(pace, n, slots, left_s, stood_s))

    assert most_waiting(BURST, 1.0) == pytest.approx(50, abs=1)
    assert most_waiting(2.0, 1.0) == pytest.approx(25, abs=1)
    assert most_waiting(OVERLOAD, 1.0) == pytest.approx(4, abs=1)
    assert most_waiting(30.0, 10.0) == pytest.approx(40, abs=1)
    assert most_waiting(1.0, 0.1) == pytest.approx(5, abs=1)  # half of what is left
    assert most_waiting(3.0, 0.1) == pytest.approx(4, abs=1)  # no queue is too long that takes 40 ms
    assert most_waiting(OVERLOAD, 1.0, slots=20) == 20
    assert most_waiting(OVERLOAD, 1.0, slots=100) == pytest.approx(50, abs=1)


def test_many_refusals_have_their_text_in_common() -> None:
    """So that it is encoded, and sent, once a connection; the estimate itself differs each time."""
    served = serve(chance(5 / WORK_S, 60, seed=1))
    texts = {why for at, why in served.refusals if at > ONSET_S}

    assert len(texts) <= 5
    assert "Its wait would be about 0.04 s, in a queue that does not go away." in texts


def test_a_long_wait_is_told_in_whole_seconds() -> None:
    pace = Pace()
    pace.filled(0.0)
    for k in range(8):
        pace.taken(3.0 * (k + 1))

    assert why_not(pace, 3, 1, 20.0, 27.0) == (
        "Its wait would be about 12 s, too long with 20 s left to its deadline."
    )
