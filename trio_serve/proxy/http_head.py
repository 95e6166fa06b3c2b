"""What the headers of an HTTP request say to the proxy.

    X-Request-ID, request_id       the request's id; a new one where it is missing or no printable ASCII
    X-Request-Timeout-Seconds      how long the client waits; counts where it is less than the server's limit
    serve_multiplexed_model_id     (also with dashes) which model is to answer

Source: Ray Serve's documentation of its HTTP proxy.
"""

from collections.abc import Iterable
from math import inf, isfinite

import attrs

from trio_serve.serving.request_ids import new_request_id

REQUEST_ID_BYTES_MAX = 256

_REQUEST_ID = (b"x-request-id", b"request_id")
_TIMEOUT = b"x-request-timeout-seconds"
_MODEL_ID = (b"serve_multiplexed_model_id", b"serve-multiplexed-model-id")
_READ = {*_REQUEST_ID, _TIMEOUT, *_MODEL_ID}


@attrs.frozen
class RequestHead:
    """The headers that concern the proxy; ``problem`` says what is wrong with them, if anything is."""

    request_id: str
    multiplexed_model_id: str = ""
    timeout_s: float = inf
    problem: str = ""


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Read a request's headers, as ASGI has them: names in lower case."""
    given = {name: value for name, value in headers if name in _READ}
    request_id = _request_id(given.get(_REQUEST_ID[0]) or given.get(_REQUEST_ID[1]) or b"")
    if not given or given.keys() <= set(_REQUEST_ID):
        return RequestHead(request_id)
    model_id = given.get(_MODEL_ID[0]) or given.get(_MODEL_ID[1]) or b""
    text = given.get(_TIMEOUT, b"inf").decode("latin-1")
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = -1.0
    if _TIMEOUT in given and not (isfinite(timeout_s) and timeout_s > 0):
        problem = f"X-Request-Timeout-Seconds: {text!r} is no number of seconds over 0."
        return RequestHead(request_id, problem=problem)
    return RequestHead(request_id, model_id.decode("latin-1"), timeout_s)


def _request_id(given: bytes) -> str:
    # It goes into log lines and response headers: what could break either is no id.
    if 0 < len(given) <= REQUEST_ID_BYTES_MAX and given.isascii():
        text = given.decode()
        if text.isprintable():
            return text
    return new_request_id()
