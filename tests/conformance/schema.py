"""The interoperability tests' methods and messages, read from interop.proto without generated code."""

from pathlib import Path
from typing import Any

from trio_serve.grpc import Method, methods_from

PROTO = Path(__file__).with_name("interop.proto")
_METHODS = {method.path: method for method in methods_from(str(PROTO))}


def method(name: str, service: str = "TestService") -> Method:
    return _METHODS[f"/grpc.testing.{service}/{name}"]


def _request(name: str) -> Any:
    return method(name).request_type


def _reply(name: str) -> Any:
    return method(name).reply_type


Empty = _request("EmptyCall")
SimpleRequest, SimpleResponse = _request("UnaryCall"), _reply("UnaryCall")
OutputRequest, OutputResponse = _request("StreamingOutputCall"), _reply("StreamingOutputCall")
InputRequest, InputResponse = _request("StreamingInputCall"), _reply("StreamingInputCall")
