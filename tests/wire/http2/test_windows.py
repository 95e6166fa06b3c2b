"""Windows: plain arithmetic, and its edges (RFC 9113 section 6.9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.wire.http2.windows import WINDOW_MAX, ReceiveWindow, Window, WindowOverflow


def test_a_window_gives_what_it_holds_and_nothing_past_it() -> None:
    window = Window(10)

    assert window.take(10)
    assert not window.take(1)
    assert window.available == 0
    assert window.take(0)


def test_a_smaller_initial_size_leaves_a_window_negative_until_it_is_widened() -> None:
    window = Window(3)
    window.take(3)

    window.widen(-1)

    assert window.available == -1
    assert not window.take(0)  # a frame needs a window that is not negative, or to be empty and asked apart
    window.widen(2)
    assert window.take(1)


def test_a_window_reaches_2_to_the_31_less_1_and_not_one_octet_more() -> None:
    window = Window(WINDOW_MAX - 1)

    window.widen(1)
    with pytest.raises(WindowOverflow):
        window.widen(1)

    assert window.available == WINDOW_MAX


def test_consumed_octets_are_given_back_at_half_the_window() -> None:
    window = ReceiveWindow(100)
    window.take(60)

    assert window.give_back(49) == 0
    assert window.give_back(1) == 50
    assert window.available == 90


def test_a_reader_that_keeps_up_is_given_a_larger_window_up_to_the_maximum() -> None:
    window = ReceiveWindow(100, 250)
    sizes = []
    for _ in range(3):
        size = window.available
        window.take(size)
        window.give_back(size)
        sizes.append(window.available)

    assert sizes == [200, 250, 250]


def test_a_reader_that_stops_never_holds_more_than_the_first_window() -> None:
    window = ReceiveWindow(100, 1000)

    assert window.take(100)
    assert not window.take(1)


def test_an_enlarged_window_keeps_its_new_size() -> None:
    window = ReceiveWindow(100)
    window.enlarge(900)

    window.take(1000)

    assert window.give_back(500) == 500
    assert window.size == 1000


def test_octets_lent_once_are_not_given_back_again() -> None:
    window = ReceiveWindow(100)
    window.lend(50)
    window.take(150)

    assert window.give_back(50) == 0
    assert window.give_back(100) == 100
    assert window.available == 100


@given(st.lists(st.integers(0, 200)), st.integers(1, 1000), st.integers(0, 4000))
def test_nothing_is_lost_between_received_and_given_back(sizes: list[int], size: int, size_max: int) -> None:
    """What the peer may send and what waits to be given back always add up to the window's size."""
    window = ReceiveWindow(size, size_max)
    for wanted in sizes:
        received = min(wanted, window.available)
        window.take(received)
        window.give_back(received)
        assert window.available + window.consumed == window.size
        assert window.available > 0
