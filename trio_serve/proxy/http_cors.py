"""CORS: which web pages may call gRPC services here from a browser; none, until origins are named.

    OPTIONS, Origin, Access-Control-Request-Method     "may I?"     204 with the headers that allow it
    POST, Origin                                                    the answer may be read, and its headers

A browser that gets no such headers keeps the answer from the page, and does not even send the request.

Source: the Fetch standard, "CORS protocol".
"""

from collections.abc import Collection

from trio_serve.proxy.http_exchange import Scope

MAX_AGE_S = 7200
"""How long a browser need not ask again; the most that Chromium grants."""

Headers = list[tuple[bytes, bytes]]


class Cors:
    """``origins`` as browsers write them (``https://shop.example``), or ``*`` for any."""

    def __init__(self, origins: Collection[str]) -> None:
        self._any = "*" in origins
        self._origins = {origin.rstrip("/").encode() for origin in origins}

    def is_preflight(self, scope: Scope) -> bool:
        """Whether a browser asks what it may do; not for us to answer where nothing is allowed."""
        names = {name for name, _ in scope["headers"]}
        return bool(self._origins) and {b"origin", b"access-control-request-method"} <= names

    def headers(self, scope: Scope) -> Headers:
        """What to add to the answer; nothing for a page that may not read it."""
        given = dict(scope["headers"])
        origin = given.get(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return [(b"vary", b"origin")] if self._origins else []
        headers = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS":
            wanted = given.get(b"access-control-request-headers", b"")
            headers += [
                (b"access-control-allow-methods", b"POST"),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", b"%d" % MAX_AGE_S),
            ]
        else:
            # Without credentials (which are never allowed) this is every header.
            headers.append((b"access-control-expose-headers", b"*"))
        return headers
