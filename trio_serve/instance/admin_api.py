"""The admin API: Ray's REST interface to an instance, as an ASGI application.

    GET    /api/serve/applications/          ServeInstanceDetails
    PUT    /api/serve/applications/          ServeDeploySchema: what is to run from now on, and nothing else
    DELETE /api/serve/applications/          nothing is to run
    DELETE /api/serve/applications/<name>    all but that one                              (ours)
    POST   /api/serve/shutdown               drain and end the instance                    (ours)
    GET    /api/ray/version, /api/version    for clients that ask before they speak
    GET    /metrics                          Prometheus' text

A PUT is answered when it is checked and written down; how it goes on is in the status.  Its body is JSON, or
YAML where its content-type says so.  Ours: ``?folder=`` is where relative paths in it begin, and
``?import_folder=`` (which can be repeated) where modules are looked for first.

Whatever a client does wrong is answered 4xx with a text, all that is wrong with a configuration in one.

Source: Ray Serve 2.60, "Serve REST API".
Knows nothing of sockets and of who may ask.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs

import attrs
import trio

from trio_serve.instance.admin_guard import Guard, Refusal
from trio_serve.instance.rest_schema import RAY_VERSION, data_from_body, json_text
from trio_serve.instance.settings import Mistakes
from trio_serve.observe.exporter import CONTENT_TYPE
from trio_serve.proxy.http_exchange import ASGIApplication, Receive, Scope, Send

logger = logging.getLogger("trio_serve.admin")

BODY_BYTES_MAX = 1024 * 1024
BODY_TIMEOUT_S = 30.0

APPLICATIONS = "/api/serve/applications"
SHUTDOWN = "/api/serve/shutdown"
VERSIONS = ("/api/ray/version", "/api/version")
METRICS = "/metrics"


class Admin(Protocol):
    """What the API acts on."""

    async def details(self) -> dict[str, Any]:
        """ServeInstanceDetails."""

    async def deploy(self, data: Any, folder: str | None, import_folders: Sequence[str]) -> list[str]:
        """Have what ``data`` describes; warnings.  Raises Mistakes, all of them."""

    async def delete(self, name: str | None) -> None:
        """Have the application ``name`` no more, or none at all.  Raises KeyError, Mistakes."""

    def shut_down(self) -> None:
        """Begin to end the instance."""

    async def metrics(self) -> bytes:
        """Prometheus' text."""


@attrs.frozen
class _Answer:
    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Refused(Exception):
    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.answer = _Answer(status, text.encode("utf-8", "backslashreplace") + b"\n", headers=headers)


def admin_api(admin: Admin, guard: Guard | None = None) -> ASGIApplication:
    """The API to ``admin``, behind ``guard`` if there is one."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # before it was accepted: 403
            return
        answer = await _answer(admin, guard, scope, receive)
        length = (b"content-length", b"%d" % len(answer.body))
        headers = [(b"content-type", answer.content_type.encode()), length, *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    return application


async def _answer(admin: Admin, guard: Guard | None, scope: Scope, receive: Receive) -> _Answer:
    refusal: Refusal | None = None if guard is None else guard.refusal(scope)
    try:
        if refusal is not None:
            hint = ((b"www-authenticate", b"Bearer"),) if refusal.status == 401 else ()
            raise _Refused(refusal.status, refusal.text, *hint)
        return await _route(admin, scope, receive)
    except _Refused as refused:
        return refused.answer
    except Mistakes as found:
        return _Refused(400, str(found)).answer
    except Exception:
        logger.exception("%s %s failed", scope["method"], scope["path"])
        return _Refused(500, "this went wrong here; the log has the reason").answer


async def _route(admin: Admin, scope: Scope, receive: Receive) -> _Answer:
    path, method = scope["path"], scope["method"]
    if path.rstrip("/") == APPLICATIONS:
        _check_method(method, "GET", "HEAD", "PUT", "DELETE")
        if method == "PUT":
            return await _put(admin, scope, receive)
        if method == "DELETE":
            await admin.delete(None)
            return _json({})
        return _json(await admin.details())
    if path.startswith(f"{APPLICATIONS}/"):
        _check_method(method, "DELETE")
        try:
            await admin.delete(path.removeprefix(f"{APPLICATIONS}/").removesuffix("/"))
        except KeyError as error:
            raise _Refused(404, str(error.args[0])) from None
        return _json({})
    if path == SHUTDOWN:
        _check_method(method, "POST")
        admin.shut_down()
        return _json({})
    if path in VERSIONS:
        _check_method(method, "GET", "HEAD")
        version = {"version": "4", "ray_version": RAY_VERSION, "ray_commit": "", "session_name": "trio_serve"}
        return _json(version)
    if path == METRICS:
        _check_method(method, "GET", "HEAD")
        return _Answer(200, await admin.metrics(), CONTENT_TYPE)
    raise _Refused(404, f"there is nothing at this path; the applications are at {APPLICATIONS}/")


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        raise _Refused(405, f"{method} is not for this path; there are {names}", (b"allow", names.encode()))


async def _put(admin: Admin, scope: Scope, receive: Receive) -> _Answer:
    body = await _body(scope, receive)
    is_yaml = any(name == b"content-type" and b"yaml" in value for name, value in scope["headers"])
    data = await trio.to_thread.run_sync(_reading(body, is_yaml), abandon_on_cancel=True)
    try:
        query = parse_qs(scope["query_string"].decode("ascii"), strict_parsing=bool(scope["query_string"]))
        folders = {name: [_folder(each) for each in query.get(name, [])] for name in query}
    except ValueError as error:
        raise _Refused(400, f"the query cannot be read: {error}") from None
    unknown = [name for name in folders if name not in ("folder", "import_folder")]
    if unknown:
        raise _Refused(400, f"unknown in the query: {', '.join(unknown)}; there are folder, import_folder")
    folder = folders["folder"][-1] if "folder" in folders else None
    return _json({"warnings": await admin.deploy(data, folder, folders.get("import_folder", []))})


def _reading(body: bytes, is_yaml: bool) -> Callable[[], Any]:
    return lambda: data_from_body(body, is_yaml=is_yaml)


def _folder(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not the absolute path of a folder")
    return value


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        _Refused: it is too long (at once, when its length says so), or does not come.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > BODY_BYTES_MAX:
            raise _too_long()
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > BODY_BYTES_MAX:
                raise _too_long()
            if not message.get("more_body", False):
                return bytes(body)
    raise _Refused(408, f"the body did not come within {BODY_TIMEOUT_S:g} s")


def _too_long() -> _Refused:
    return _Refused(413, f"the body is over {BODY_BYTES_MAX} bytes, all that a configuration may have")


def _json(data: Mapping[str, Any]) -> _Answer:
    return _Answer(200, json_text(data).encode(), "application/json")
