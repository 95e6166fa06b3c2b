"""What is remembered of closed streams."""

from trio_serve.wire.http2.streams import ClosedStreams, Ending


def test_a_stream_of_which_nothing_is_noted_ended_well() -> None:
    assert ClosedStreams(10).ending(1) is Ending.ENDED


def test_resets_are_told_by_whose_they_were_and_the_last_one_counts() -> None:
    closed = ClosedStreams(10)
    closed.note_reset(1, by_us=False)
    closed.note_reset(3, by_us=True)

    assert closed.ending(1) is Ending.RESET_BY_PEER
    assert closed.ending(3) is Ending.RESET_BY_US
    closed.note_reset(1, by_us=True)
    assert closed.ending(1) is Ending.RESET_BY_US


def test_the_oldest_reset_is_forgotten_past_the_bound() -> None:
    closed = ClosedStreams(2)
    for stream_id in (1, 3, 5):
        closed.note_reset(stream_id, by_us=True)

    assert [closed.ending(stream_id) for stream_id in (1, 3, 5)] == [
        Ending.ENDED,
        Ending.RESET_BY_US,
        Ending.RESET_BY_US,
    ]


def test_skipped_ids_are_told_from_ended_ones() -> None:
    closed = ClosedStreams(2)
    closed.note_skipped(3, 7)
    closed.note_skipped(11, 11)

    assert [stream_id for stream_id in range(1, 15, 2) if closed.ending(stream_id) is Ending.SKIPPED] == [
        3,
        5,
        7,
        11,
    ]


def test_the_ranges_remembered_are_bounded() -> None:
    closed = ClosedStreams(2)
    for start in range(1, 4001, 4):
        closed.note_skipped(start, start)

    assert closed.ending(1) is Ending.ENDED
    assert closed.ending(3997) is Ending.SKIPPED
    assert len(closed._skipped) == 64
