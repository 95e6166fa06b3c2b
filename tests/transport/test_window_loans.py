"""Loans: in order, within their bound, and never a deadlock."""

from trio_serve.transport.window_loans import KEPT_BYTES_MAX, LOANS_BYTES_MAX, Loan, WindowLoans
from trio_serve.wire.http2 import State, Stream

MIB = 1024 * 1024


class Wire:
    """The part of a wire connection that lends."""

    def __init__(self) -> None:
        self.waiting: dict[int, Stream] = {}
        self.lent: list[tuple[int, int]] = []
        self.enlarged: list[tuple[int, int]] = []
        self.room = 0
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def receive_room(self, stream: Stream) -> int:
        return self.room

    def lend_window(self, stream: Stream, size: int) -> None:
        self.lent.append((stream.id, size))

    def enlarge_window(self, stream: Stream, size: int) -> None:
        self.enlarged.append((stream.id, size))


def stream(number: int) -> Stream:
    return Stream(number, None)  # type: ignore[arg-type]


def loans_on(wire: Wire) -> WindowLoans:
    return WindowLoans(wire, wire.wake)  # type: ignore[arg-type]


def test_loans_are_given_in_order_as_long_as_they_fit() -> None:
    wire = Wire()
    loans = loans_on(wire)
    streams = [stream(number) for number in (1, 3, 5, 7)]
    for one in streams:
        loans.ask(one, LOANS_BYTES_MAX // 2)
    assert [number for number, _ in wire.lent] == [1, 3]
    assert loans.has(streams[0]) and not loans.has(streams[2])

    loans.repay(streams[1])  # complete, and now its handler works on it
    assert [number for number, _ in wire.lent] == [1, 3]
    loans.forget(streams[1])
    assert [number for number, _ in wire.lent] == [1, 3, 5]


def test_slow_handlers_of_large_messages_do_not_keep_the_next_one_out() -> None:
    """However much is in work: with nothing else on its way in, the next message comes."""
    wire = Wire()
    loans = loans_on(wire)
    for number in (1, 3, 5, 7):
        one = stream(number)
        loans.ask(one, LOANS_BYTES_MAX)
        loans.repay(one)
    loans.ask(stream(9), LOANS_BYTES_MAX)
    loans.ask(stream(11), 1)
    assert [number for number, _ in wire.lent] == [1, 3, 5, 7, 9]


def test_a_stream_that_asks_for_its_next_message_is_done_with_the_last() -> None:
    wire = Wire()
    loans = loans_on(wire)
    busy, other = stream(1), stream(3)
    loans.ask(busy, LOANS_BYTES_MAX)
    loans.repay(busy)
    loans.ask(busy, LOANS_BYTES_MAX // 2)
    loans.ask(other, LOANS_BYTES_MAX // 2)
    assert [number for number, _ in wire.lent] == [1, 1, 3]


def test_a_loan_leaves_at_once_whoever_asked_or_repaid() -> None:
    """A handler that asks is not the reader: nothing else would wake the writer, and the peer waits."""
    wire = Wire()
    loans = loans_on(wire)
    first, second = stream(1), stream(3)
    loans.ask(first, LOANS_BYTES_MAX)
    assert wire.woken == 1

    loans.ask(second, 1)
    assert wire.woken == 1
    loans.forget(first)
    assert wire.woken == 2


def test_the_first_gets_its_loan_however_large() -> None:
    wire = Wire()
    loans = loans_on(wire)
    huge, small = stream(1), stream(3)
    loans.ask(huge, 10 * LOANS_BYTES_MAX)
    loans.ask(small, 1)
    assert wire.lent == [(1, 10 * LOANS_BYTES_MAX)]
    loans.forget(huge)
    assert wire.lent[1:] == [(3, 1)]


def test_answers_that_nobody_takes_stop_the_lending() -> None:
    wire = Wire()
    loans = loans_on(wire)
    stalled = wire.waiting[9] = stream(9)
    stalled.unsent = LOANS_BYTES_MAX + 1
    loans.ask(stream(1), 10)
    assert not wire.lent

    stalled.unsent = 0
    loans.lend()
    assert wire.lent == [(1, 10)]


def test_a_stream_that_asks_again_while_it_waits_asks_for_what_is_left_now() -> None:
    wire = Wire()
    loans = loans_on(wire)
    first, second = stream(1), stream(3)
    loans.ask(first, LOANS_BYTES_MAX)
    loans.ask(second, 500)
    loans.ask(second, 400)
    loans.forget(first)
    assert wire.lent[1:] == [(3, 400)]


def test_a_stream_that_goes_on_keeps_its_room_and_one_that_ended_does_not() -> None:
    wire = Wire()
    loans = loans_on(wire)
    going_on, ended = stream(1), stream(3)
    ended.state = State.HALF_CLOSED_REMOTE
    for one in (going_on, ended):
        loans.ask(one, MIB)
        loans.repay(one)
    assert wire.enlarged == [(1, MIB)]


def test_what_is_kept_is_bounded_and_free_again_with_its_stream() -> None:
    wire = Wire()
    loans = loans_on(wire)
    streams = [stream(number) for number in range(1, 21, 2)]
    for one in streams:
        loans.ask(one, MIB)
        loans.repay(one)
    assert sum(size for _, size in wire.enlarged) == KEPT_BYTES_MAX

    loans.forget(streams[0])
    late = stream(99)
    loans.ask(late, MIB)
    loans.repay(late)
    assert wire.enlarged[-1] == (99, MIB)


def test_a_loan_is_needed_for_what_the_window_does_not_hold() -> None:
    wire = Wire()
    loan = Loan(loans_on(wire), stream(1))
    wire.room = 1000
    assert not loan.is_needed(1000)
    assert loan.is_needed(1001)
