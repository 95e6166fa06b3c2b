"""The answer to one HTTP request on its way out: who may still send, and what has left.

    application ──send──┐
                        ├──> the request id added ──> the connection
    proxy ── send_text ─┘    once the proxy has taken over, the application sends no more

Knows ASGI messages, and nothing of deployments.
"""

import trio

from trio_serve.proxy.http_exchange import ClientGone, Message, Scope, Send

Headers = list[tuple[bytes, bytes]]

_HEADS = ("http.response.start", "websocket.http.response.start", "websocket.accept")


class HttpAnswer:
    """Sends the response to ``scope``'s request, with ``x-request-id`` in its head."""

    __slots__ = ("_id", "_prefix", "_send", "_taken_over", "headers", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.status = 0
        """What has left as the head of the response; 0: nothing yet, 101: a WebSocket is open."""
        self.headers: Headers = []
        """What is added to the head, whoever sends it."""
        self._send = send
        self._id = (b"x-request-id", request_id.encode())
        self._prefix = "websocket.http." if scope["type"] == "websocket" else "http."
        self._taken_over = False

    async def send(self, message: Message) -> None:
        """For the application that answers.

        Raises:
            ClientGone: the client has left, or has been answered by the proxy.
        """
        if self._taken_over:
            await trio.lowlevel.checkpoint()
            raise ClientGone
        await self._pass_on(message)

    def take_over(self) -> None:
        """From now on the application sends no more."""
        self._taken_over = True

    async def send_text(
        self, status: int, text: str, content_type: bytes = b"text/plain; charset=utf-8"
    ) -> None:
        """Answer in the application's place; nothing must have left."""
        await self.send_body(status, [(b"content-type", content_type)], text.encode())

    async def send_body(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self.send_head(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.send_part(body, more=False)

    async def send_head_only(self, status: int) -> None:
        """An answer of a kind that has no body."""
        await self.send_head(status, [])
        await self.send_part(b"", more=False)

    async def send_head(self, status: int, headers: Headers) -> None:
        """The head of an answer whose body comes in parts."""
        await self._pass_on({"type": f"{self._prefix}response.start", "status": status, "headers": headers})

    async def send_part(self, body: bytes, more: bool = True) -> None:
        """A part of the body; waits while the client takes no more."""
        await self._pass_on({"type": f"{self._prefix}response.body", "body": body, "more_body": more})

    async def _pass_on(self, message: Message) -> None:
        if message["type"] in _HEADS:
            self.status = message.get("status", 101)
            headers = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() != self._id[0]]
            message = {**message, "headers": [*headers, *self.headers, self._id]}
        await self._send(message)
