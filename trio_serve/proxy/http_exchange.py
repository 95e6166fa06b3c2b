"""One request and the application that answers it: what passes between them, and who has left.

    reader ──put──> | what the client sent, bounded | ──receive──> application
    socket <───────────────────────────────────────────── send ──┘

A client that leaves before it has its answer takes the application with it: the task is cancelled at once.
A WebSocket's application is told first (``websocket.disconnect``), and gets a second to say goodbye.

Source: ASGI 3.0, "HTTP & WebSocket ASGI Message Format" 2.4.
Knows nothing of bytes and sockets.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

logger = logging.getLogger("trio_serve.proxy")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Hold = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Awaits what it is given, in the place of a connection's reader."""
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_AHEAD_BYTES_MAX = 65536
"""What is kept of a request's body before the application asks for it."""

WEBSOCKET_GOODBYE_S = 1.0
"""Seconds that the application of a WebSocket may go on after the client has left."""

DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class ClientGone(OSError):
    """The client has left; raised by ``send``, as ASGI asks for."""

    def __init__(self) -> None:
        super().__init__("the client has gone")


class ResponseCut(Exception):
    """An application failed when a part of its response had left: the connection must end here."""


class Exchange:
    """One request on its way through ``application``.

    ``hold(wait)`` awaits ``wait()`` in the reader's place; it raises when the client leaves meanwhile.
    """

    __slots__ = (
        "_arrived",
        "_hold",
        "_last",
        "_send",
        "_taken",
        "_waiting",
        "_waiting_bytes",
        "answered",
        "scope",
        "task",
    )

    def __init__(
        self,
        scope: Scope,
        send: Callable[[Message | None], Awaitable[None]],
        hold: Hold,
    ) -> None:
        self.scope = scope
        self.task = trio.CancelScope()
        self.answered = False
        """Whether the application has given the last part of its response away."""
        self._send = send
        self._hold = hold
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._last: Message | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    async def run(self, application: ASGIApplication) -> None:
        """Run the application to its end; what it raises is logged, and gets no further."""
        try:
            with self.task:
                await application(self.scope, self.receive, self.send)
        except ResponseCut:
            pass
        except Exception:
            logger.exception("%r failed", self.scope["path"])
        try:
            await self._send(None)
        except Exception:  # it left its response in a state that cannot be ended well
            logger.debug("%r: the response was left open", self.scope["path"], exc_info=True)

    # From the client.

    async def put(self, message: Message) -> None:
        """Take what the client sent next; waits while the application has not taken what came before."""
        if message["type"] in DISCONNECTS:
            self._leave(message)
        else:
            self._waiting.append(message)
            self._waiting_bytes += _size_of(message)
        self._arrived.unpark_all()
        if self._waiting_bytes > BODY_AHEAD_BYTES_MAX and self._last is None:
            await self._hold(self._wait_for_room)

    def leave(self) -> None:
        """The client has left, whether or not the protocol says so."""
        if self._last is None:
            self._leave({"type": f"{self.scope['type']}.disconnect", "code": 1006})
            self._arrived.unpark_all()

    def _leave(self, message: Message) -> None:
        self._last = message
        self._taken.unpark_all()
        if message["type"] == "websocket.disconnect":
            self.task.deadline = trio.current_time() + WEBSOCKET_GOODBYE_S
        elif not self.answered:
            self.task.cancel()

    async def _wait_for_room(self) -> None:
        while self._waiting_bytes > BODY_AHEAD_BYTES_MAX and self._last is None:
            await self._taken.park()

    async def receive(self) -> Message:
        """The next message from the client; its leaving, again and again, once there is nothing else."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._last is not None:
                return self._last
            await self._arrived.park()
        message = self._waiting.popleft()
        self._waiting_bytes -= _size_of(message)
        self._taken.unpark_all()
        return message

    # To the client.

    async def send(self, message: Message) -> None:
        """Send a part of the response; waits while the client takes no more.

        Raises:
            ClientGone: there is nobody to send it to.
        """
        if self._last is not None:
            await trio.lowlevel.checkpoint()
            raise ClientGone
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.answered = True
        await self._send(message)
        if message["type"] != "http.response.start":
            # Here and not as soon as the bytes have left: the client's next request may follow them at once,
            # and the reader has to wait, at some cost, when it comes before the protocol is ready for it.
            await trio.lowlevel.checkpoint()


def _size_of(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or "")
