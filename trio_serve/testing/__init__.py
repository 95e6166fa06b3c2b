"""Testing services: whole applications through real gRPC bytes, in memory, in virtual time.

    async with serving(app, services=[greeter_pb2]) as service:
        reply = await GreeterStub(service.channel()).SayHello(HelloRequest(name="you"))

Names are imported when they are first used; the pytest plugin imports nothing of this until a test asks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_serve.grpc.wire_faults import WireFaults
    from trio_serve.testing.fakes import replace_deployments
    from trio_serve.testing.faults import DeploymentFaults, Faults, InjectedFault, with_faults
    from trio_serve.testing.in_thread import ThreadService, serving_in_thread
    from trio_serve.testing.leaks import Leaked
    from trio_serve.testing.process_boundary import WouldNotSurvive
    from trio_serve.testing.scheduling import seeded_scheduling, shake
    from trio_serve.testing.service import Service, serving
    from trio_serve.testing.strictness import Strict
    from trio_serve.testing.virtual_time import run_in_virtual_time

_HOMES = {
    "DeploymentFaults": "trio_serve.testing.faults",
    "Faults": "trio_serve.testing.faults",
    "InjectedFault": "trio_serve.testing.faults",
    "Leaked": "trio_serve.testing.leaks",
    "Service": "trio_serve.testing.service",
    "Strict": "trio_serve.testing.strictness",
    "ThreadService": "trio_serve.testing.in_thread",
    "replace_deployments": "trio_serve.testing.fakes",
    "run_in_virtual_time": "trio_serve.testing.virtual_time",
    "seeded_scheduling": "trio_serve.testing.scheduling",
    "serving": "trio_serve.testing.service",
    "serving_in_thread": "trio_serve.testing.in_thread",
    "shake": "trio_serve.testing.scheduling",
    "WouldNotSurvive": "trio_serve.testing.process_boundary",
    "WireFaults": "trio_serve.grpc.wire_faults",
    "with_faults": "trio_serve.testing.faults",
}

__all__ = [
    "DeploymentFaults",
    "Faults",
    "InjectedFault",
    "Leaked",
    "Service",
    "Strict",
    "ThreadService",
    "WireFaults",
    "WouldNotSurvive",
    "replace_deployments",
    "run_in_virtual_time",
    "seeded_scheduling",
    "serving",
    "serving_in_thread",
    "shake",
    "with_faults",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
