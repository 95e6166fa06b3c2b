"""Testing services: whole applications through real gRPC bytes, in memory, in virtual time.

    async with serving(app, services=[greeter_pb2]) as service:
        reply = await GreeterStub(service.channel()).SayHello(HelloRequest(name="you"))

Names are imported when they are first used; the pytest plugin imports nothing of this until a test asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_serve.testing.fakes import replace_deployments
    from trio_serve.testing.service import Service, serving

_HOMES = {
    "Service": "trio_serve.testing.service",
    "replace_deployments": "trio_serve.testing.fakes",
    "serving": "trio_serve.testing.service",
}

__all__ = ["Service", "replace_deployments", "serving"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
