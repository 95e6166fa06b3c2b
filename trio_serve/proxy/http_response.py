"""What a deployment's method returns, as an HTTP response.

    None                           200 with nothing in it
    str                            text/plain
    bytes                          application/octet-stream
    dict, list, tuple, int, ...    JSON
    a generator                    text/plain, chunk by chunk, as the client takes them
    a Starlette Response           as it is, background tasks and all

Source: Ray Serve's guide "HTTP"; generators are ours.
Knows nothing of requests.
"""

from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from trio_serve.proxy.http_exchange import ASGIApplication, Receive, Scope, Send

_JSON = (dict, list, tuple, int, float)


def response_of(result: Any) -> ASGIApplication:
    """The ASGI application that sends ``result``.

    Raises:
        TypeError: it has no form in HTTP.
        ValueError: it looks like JSON, and cannot be that.
    """
    if isinstance(result, Response):
        return result
    if getattr(result, "__serve_asgi__", False):
        return result  # type: ignore[no-any-return]
    if result is None:
        return Response()
    if isinstance(result, str):
        return PlainTextResponse(result)
    if isinstance(result, bytes | bytearray | memoryview):
        return Response(bytes(result), media_type="application/octet-stream")
    if isinstance(result, _JSON):
        return JSONResponse(result)
    if hasattr(result, "__anext__"):
        return StreamingResponse(_chunks(result), media_type="text/plain")
    raise TypeError(
        f"a {type(result).__name__} was returned, which has no form in HTTP; return None, str, bytes, "
        "something for JSON (dict, list, tuple, number), yield str or bytes, or return a Starlette Response"
    )


async def send_response(scope: Scope, receive: Receive, send: Send, result: Any) -> None:
    """Send ``result``; returns when the last of it has left, and its background tasks have ended."""
    response = response_of(result)
    try:
        await response(scope, receive, send)
    finally:
        # A generator that was left half-way is closed here, and not when the garbage collector finds it.
        close = getattr(getattr(response, "body_iterator", None), "aclose", None)
        if close is not None:
            await close()


async def _chunks(items: AsyncIterator[Any]) -> AsyncIterator[str | bytes]:
    async for item in items:
        if not isinstance(item, str | bytes):
            raise TypeError(f"a {type(item).__name__} was yielded to an HTTP client; yield str or bytes")
        yield item
