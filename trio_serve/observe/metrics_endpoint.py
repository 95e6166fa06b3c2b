"""``GET /metrics`` over HTTP: one request a connection, small, and indifferent to who asks how.

    accept ── head, at most 8 KiB within 10 s ── answer, read within 30 s ── close

Its clients are a few scrapers.  Whatever one of them sends wrong costs it its own connection.

Source: RFC 9112, of which only the request line matters here.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio

from trio_serve.observe.exporter import CONTENT_TYPE
from trio_serve.transport.byte_stream import GONE, ByteStream
from trio_serve.transport.listener import Accepting, close_listener

logger = logging.getLogger("trio_serve.metrics")

PATH = "/metrics"
HEAD_BYTES_MAX = 8192
HEAD_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 16

Scrape = Callable[[], Awaitable[bytes]]


async def serve_metrics(
    listeners: Sequence[socket.socket],
    scrape: Scrape,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on ``listeners``, which are closed afterwards, with ``await scrape()`` until cancelled."""

    async def handle(byte_stream: ByteStream) -> None:
        await answer(byte_stream, scrape)

    accepting = Accepting(handle, connections_max=CONNECTIONS_MAX)
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accepting.accept_from, listener, nursery)
            task_status.started()
    finally:
        for listener in listeners:
            close_listener(listener)


async def answer(byte_stream: ByteStream, scrape: Scrape) -> None:
    """Serve one connection: read a head, answer it, close."""
    try:
        with trio.move_on_after(HEAD_TIMEOUT_S) as patience:
            head = await _read_head(byte_stream)
        if not patience.cancelled_caught:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                await byte_stream.send_all(await _answer_to(head, scrape))
    except GONE:
        pass
    finally:
        await byte_stream.aclose()


async def _read_head(byte_stream: ByteStream) -> bytes:
    """What came until the end of the head, or until there is more than a head may have."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= HEAD_BYTES_MAX:
        data = await byte_stream.receive_some(HEAD_BYTES_MAX)
        if not data:
            break
        head += data
    return head


async def _answer_to(head: bytes, scrape: Scrape) -> bytes:
    line, end, _ = head.partition(b"\r\n")
    words = line.split(b" ")
    if not end or b"\r\n\r\n" not in head or len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request", b"this port speaks HTTP/1.1, and only of metrics\n")
    method, target, _ = words
    path = target.partition(b"?")[0]
    if path != PATH.encode():
        return _response("404 Not Found", f"metrics are at {PATH}\n".encode())
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"GET it\n", "allow: GET, HEAD\r\n")
    try:
        body = await scrape()
    except Exception:
        logger.exception("the metrics could not be collected")
        return _response("500 Internal Server Error", b"the metrics could not be collected\n")
    return _response("200 OK", body, content_type=CONTENT_TYPE, bodiless=method == b"HEAD")


def _response(
    status: str, body: bytes, fields: str = "", *, content_type: str = "text/plain", bodiless: bool = False
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        f"connection: close\r\n{fields}\r\n"
    )
    return head.encode() + (b"" if bodiless else body)
