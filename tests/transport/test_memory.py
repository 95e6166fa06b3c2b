"""A memory pair behaves as a socket does: bounded, two directions, an end."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.transport.memory import memory_pair
from trio_serve.transport.parking import ParkingPlace


async def test_bytes_arrive_in_order_and_in_any_cut() -> None:
    ours, theirs = memory_pair(pipe_bytes=10)
    sent = bytes(range(256)) * 3
    received = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await ours.send_all(sent)
            await ours.send_eof()

        nursery.start_soon(send)
        while data := await theirs.receive_some(7):
            received += data
    assert received == sent


async def test_a_full_pipe_takes_no_more_and_the_other_direction_is_free() -> None:
    ours, theirs = memory_pair(pipe_bytes=10)
    assert ours.send_nowait(b"0123456789ab") == 10
    assert ours.send_nowait(b"c") == 0
    assert theirs.send_nowait(b"back") == 4
    assert await ours.receive_some(100) == b"back"
    with trio.move_on_after(5) as waited:
        await ours.send_all(b"c")
    assert waited.cancelled_caught


async def test_closing_ends_both_directions() -> None:
    ours, theirs = memory_pair()
    ours.send_nowait(b"last words")
    await ours.aclose()

    assert await theirs.receive_some(100) == b"last words"
    assert await theirs.receive_some(100) == b""
    with pytest.raises(trio.BrokenResourceError):
        theirs.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        ours.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some(1)


async def test_a_reader_is_woken_by_the_close() -> None:
    ours, theirs = memory_pair()
    async with trio.open_nursery() as nursery:

        async def close() -> None:
            await wait_all_tasks_blocked()
            await theirs.aclose()

        nursery.start_soon(close)
        assert await ours.receive_some(1) == b""


async def test_a_place_holds_one_task_and_is_free_after_a_cancel() -> None:
    place = ParkingPlace()
    place.wake()  # nobody there: forgotten
    with trio.move_on_after(1) as waited:
        await place.park()
    assert waited.cancelled_caught
    assert not place.taken

    async def park() -> None:  # in a task of its own: a place keeps the task that calls `park`
        await place.park()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(park)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await place.park()
        place.wake()
