"""Ray Serve's programming model in one process, on Trio, and the gRPC server that goes with it.

``import trio_serve as serve`` costs next to nothing: a name is fetched from its home when it is first used.
Where ``TRIO_SERVE_ENGINE`` says ``ray``, the homes are Ray Serve's.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_serve.instance.backend_code import accept_batch
    from trio_serve.instance.backend_config import BackendConfig
    from trio_serve.instance.instance import Instance, open_instance, serve
    from trio_serve.instance.script import (
        connect,
        delete,
        get_app_handle,
        get_deployment_handle,
        grpc_port,
        http_port,
        run,
        run_many,
        shutdown,
        start,
        status,
    )
    from trio_serve.instance.script_backends import (
        create_backend,
        create_endpoint,
        delete_backend,
        delete_endpoint,
        get_backend_config,
        get_handle,
        list_backends,
        list_endpoints,
        set_traffic,
        shadow_traffic,
        update_backend_config,
    )
    from trio_serve.instance.targets import RunTarget
    from trio_serve.proxy.asgi_ingress import ingress
    from trio_serve.serving.application import Application
    from trio_serve.serving.batching import batch
    from trio_serve.serving.deployment import Deployment, deployment
    from trio_serve.serving.multiplexing import multiplexed
    from trio_serve.serving.request_context import (
        get_current_backend_tag,
        get_multiplexed_model_id,
        get_replica_context,
    )

__all__ = [
    "Application",
    "BackendConfig",
    "Deployment",
    "Instance",
    "RunTarget",
    "accept_batch",
    "batch",
    "connect",
    "create_backend",
    "create_endpoint",
    "delete",
    "delete_backend",
    "delete_endpoint",
    "deployment",
    "get_app_handle",
    "get_backend_config",
    "get_current_backend_tag",
    "get_deployment_handle",
    "get_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "grpc_port",
    "http_port",
    "ingress",
    "list_backends",
    "list_endpoints",
    "multiplexed",
    "open_instance",
    "run",
    "run_many",
    "serve",
    "set_traffic",
    "shadow_traffic",
    "shutdown",
    "start",
    "status",
    "update_backend_config",
]

_HOMES = {
    "instance.instance": ["Instance", "open_instance", "serve"],
    "instance.backend_code": ["accept_batch"],
    "instance.backend_config": ["BackendConfig"],
    "instance.script_backends": [
        "create_backend",
        "create_endpoint",
        "delete_backend",
        "delete_endpoint",
        "get_backend_config",
        "get_handle",
        "list_backends",
        "list_endpoints",
        "set_traffic",
        "shadow_traffic",
        "update_backend_config",
    ],
    "instance.script": [
        "connect",
        "delete",
        "get_app_handle",
        "get_deployment_handle",
        "grpc_port",
        "http_port",
        "run",
        "run_many",
        "shutdown",
        "start",
        "status",
    ],
    "instance.targets": ["RunTarget"],
    "proxy.asgi_ingress": ["ingress"],
    "serving.application": ["Application"],
    "serving.batching": ["batch"],
    "serving.deployment": ["Deployment", "deployment"],
    "serving.multiplexing": ["multiplexed"],
    "serving.request_context": [
        "get_current_backend_tag",
        "get_multiplexed_model_id",
        "get_replica_context",
    ],
}
_engine = os.environ.get("TRIO_SERVE_ENGINE")
if _engine:
    if _engine != "ray":
        raise ImportError(f"TRIO_SERVE_ENGINE={_engine}: there is no such engine; there is ray")
    from trio_serve.engines.ray import name_of_ray_serve, stand_in

    stand_in()

_home_of = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if _engine:
        return name_of_ray_serve(name)
    home = _home_of.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
