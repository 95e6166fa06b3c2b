"""When the bytes of a connection leave: at once for the last answer, together for the others."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.memory import memory_pair
from trio_serve.transport.writer import ANSWERS_AT_ONCE, PART_BYTES, Writer


class Queue:
    """What a writer takes its bytes from."""

    def __init__(self) -> None:
        self.pieces = b""

    @property
    def unsent(self) -> int:
        return len(self.pieces)

    def data_to_send(self, bytes_max: int | None = None) -> bytes:
        data, self.pieces = self.pieces[:bytes_max], self.pieces[bytes_max or len(self.pieces) :]
        return data


@asynccontextmanager
async def parked_writer(pipe_bytes: int = 2 * PART_BYTES) -> AsyncIterator[tuple[Writer, Queue, ByteStream]]:
    ours, theirs = memory_pair(pipe_bytes)
    queue = Queue()
    writer = Writer(queue, ours, math.inf)  # type: ignore[arg-type]  # unsent is only read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await wait_all_tasks_blocked()
        yield writer, queue, theirs
        nursery.cancel_scope.cancel()


async def test_the_last_answer_leaves_at_once() -> None:
    """Nobody else has a call open, so there is nothing that it could share a send with."""
    async with parked_writer() as (writer, queue, peer):
        queue.pieces = b"answer"

        writer.answered(last=True)

        assert queue.unsent == 0
        assert await peer.receive_some(100) == b"answer"


async def test_other_answers_of_a_turn_leave_together() -> None:
    async with parked_writer() as (writer, queue, peer):
        for _ in range(ANSWERS_AT_ONCE - 1):
            queue.pieces += b"answer"
            writer.answered()
        assert queue.unsent  # nothing has left within the turn

        assert await peer.receive_some(1000) == (ANSWERS_AT_ONCE - 1) * b"answer"


async def test_what_the_peer_does_not_take_of_the_last_answer_follows() -> None:
    """The pipe holds less than the answer: the task sends the rest, in order."""
    answer = bytes(range(100))
    async with parked_writer(pipe_bytes=30) as (writer, queue, peer):
        queue.pieces = answer

        writer.answered(last=True)

        received = b""
        while len(received) < len(answer):
            received += await peer.receive_some(1000)
        assert received == answer


async def test_a_large_last_answer_is_left_to_the_task() -> None:
    """It is joined and sent in parts there, and does not stand in memory twice."""
    async with parked_writer() as (writer, queue, peer):
        queue.pieces = bytes(PART_BYTES + 1)

        writer.answered(last=True)

        assert queue.unsent == PART_BYTES + 1
        received = 0
        while received <= PART_BYTES:
            received += len(await peer.receive_some(PART_BYTES))


async def test_answers_that_nobody_will_join_can_be_sent_at_once() -> None:
    async with parked_writer() as (writer, queue, peer):
        queue.pieces = b"refused"
        writer.answered()

        writer.flush()

        assert queue.unsent == 0
        assert await peer.receive_some(100) == b"refused"


async def test_answers_of_the_readers_turn_wait_for_its_end() -> None:
    """Each of them is the last there is, and the next request may be in the bytes that are being read."""
    async with parked_writer() as (writer, queue, peer):
        writer.reading = True
        for _ in range(ANSWERS_AT_ONCE - 1):
            queue.pieces += b"answer"
            writer.answered(last=True)
        writer.reading = False
        await wait_all_tasks_blocked()
        assert queue.unsent  # nor has the task been woken for nothing

        writer.flush()

        assert await peer.receive_some(1000) == (ANSWERS_AT_ONCE - 1) * b"answer"


async def test_what_the_peer_does_not_take_in_the_readers_turn_follows() -> None:
    answer = bytes(range(100))
    async with parked_writer(pipe_bytes=30) as (writer, queue, peer):
        queue.pieces = answer
        writer.reading = True
        for _ in range(ANSWERS_AT_ONCE):
            writer.answered(last=True)
        writer.reading = False

        received = b""
        while len(received) < len(answer):
            received += await peer.receive_some(1000)
        assert received == answer
