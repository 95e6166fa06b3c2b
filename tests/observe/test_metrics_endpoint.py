"""``GET /metrics``, and those who ask for something else, or not at all."""

import pytest
import trio

from trio_serve.observe.metrics_endpoint import HEAD_TIMEOUT_S, Scrape, answer
from trio_serve.transport.memory import MemoryByteStream, memory_pair


async def text() -> bytes:
    return b"up 1\n"


async def all_of(theirs: MemoryByteStream) -> bytes:
    received = b""
    while data := await theirs.receive_some(65536):
        received += data
    return received


async def answered(*sent: bytes, collect: Scrape = text, eof: bool = False) -> bytes:
    ours, theirs = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, ours, collect)
        for data in sent:
            await theirs.send_all(data)
        if eof:
            await theirs.send_eof()
        return await all_of(theirs)
    raise AssertionError


async def test_metrics_are_answered_with_their_length_and_type() -> None:
    assert await answered(b"GET /metrics HTTP/1.1\r\n", b"host: x\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
        b"content-length: 5\r\nconnection: close\r\n\r\nup 1\n"
    )


@pytest.mark.parametrize(
    "sent, status, body",
    [
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", False),
        (b"GET /metrics?name[]=up HTTP/1.0\r\n\r\n", b"200 OK", True),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found", True),
        (b"POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\r\n", b"405 Method Not Allowed", True),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request", True),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n", b"400 Bad Request", True),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400 Bad Request", True),
        (b"x" * 10_000, b"400 Bad Request", True),
    ],
)
async def test_the_status_tells_what_was_wrong(sent: bytes, status: bytes, body: bool) -> None:
    reply = await answered(sent)

    assert reply.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert bool(reply.partition(b"\r\n\r\n")[2]) is body


async def test_a_head_that_is_cut_off_is_a_bad_one() -> None:
    assert (await answered(b"GET /met", eof=True)).startswith(b"HTTP/1.1 400 ")


async def test_who_sends_no_head_is_sent_away() -> None:
    began = trio.current_time()

    assert await answered(b"GET /metrics HTTP/1.1\r\n") == b""
    assert trio.current_time() - began == HEAD_TIMEOUT_S


async def test_a_collection_that_fails_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> bytes:
        raise LookupError("lost")

    assert (await answered(b"GET /metrics HTTP/1.1\r\n\r\n", collect=fail)).startswith(b"HTTP/1.1 500 ")
    assert "the metrics could not be collected" in caplog.text
