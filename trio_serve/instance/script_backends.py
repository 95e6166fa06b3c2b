"""The API of Ray Serve 1.3 as names of the package; each acts on the instance that is open.

    serve.create_backend("my_backend", f)
    serve.create_endpoint("my_endpoint", backend="my_backend", route="/f")

In a Trio program those that change something return what is to be awaited.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trio_serve.instance.backend_config import BackendConfig
from trio_serve.instance.client import Client, Config
from trio_serve.instance.script import connect, reach_to_run_on
from trio_serve.serving.endpoint_handle import EndpointHandle


def create_backend(
    backend_tag: str, func_or_class: Any, *init_args: Any, config: Config | None = None
) -> Any:
    """Start a backend: a function, a class with its arguments, or the import path of either.

    A script that has no instance yet gets one.  Returns when the replicas are ready.

    Raises:
        ValueError: the tag is taken or cannot be one, or the config is wrong.
        TypeError: it is no code, or takes other arguments.
        Exception: what the constructor raised, itself.
    """
    return Client(reach_to_run_on()).create_backend(backend_tag, func_or_class, *init_args, config=config)


def update_backend_config(backend_tag: str, config_options: Config) -> Any:
    """Change what ``config_options`` gives of a backend's config; KeyError when there is no such backend."""
    return connect().update_backend_config(backend_tag, config_options)


def get_backend_config(backend_tag: str) -> BackendConfig:
    """The config in force; KeyError when there is no such backend."""
    return connect().get_backend_config(backend_tag)


def list_backends() -> dict[str, BackendConfig]:
    """Every backend with its config."""
    return connect().list_backends()


def delete_backend(backend_tag: str, force: bool = False) -> Any:
    """Drain a backend and take it away; ``force`` cuts its calls off.

    Raises:
        KeyError: there is no such backend.
        ValueError: endpoints use it; names them.
    """
    return connect().delete_backend(backend_tag, force)


def create_endpoint(
    endpoint_name: str, *, backend: str, route: str | None = None, methods: Iterable[str] = ("GET",)
) -> Any:
    """Make an endpoint that ``backend`` answers, at ``route`` over HTTP, and by handles.

    Raises:
        ValueError: the name or the route is taken, or cannot be one; a method is none.
        KeyError: there is no such backend.
    """
    return connect().create_endpoint(endpoint_name, backend=backend, route=route, methods=methods)


def list_endpoints() -> dict[str, dict[str, Any]]:
    """Every endpoint with its route, methods, traffic and shadows."""
    return connect().list_endpoints()


def delete_endpoint(endpoint_name: str) -> Any:
    """Take an endpoint away; its backends stay.  KeyError when there is none."""
    return connect().delete_endpoint(endpoint_name)


def set_traffic(name: str, weights: Mapping[str, float], *, sticky: str | None = None) -> Any:
    """Let those in ``weights`` answer for the endpoint or application ``name``, by their shares.

    With ``sticky``, a header or metadata key, the same value of it is always answered by the same one.

    Raises:
        ValueError: the weights do not sum to 1, or are none.
        KeyError: one of the names is not there.
    """
    return connect().set_traffic(name, weights, sticky=sticky)


def shadow_traffic(name: str, target: str, proportion: float) -> Any:
    """Send copies of that share of what comes for ``name`` to ``target``; 0 ends it.

    Raises:
        ValueError: the proportion is not in 0 to 1.
        KeyError: one of the names is not there.
    """
    return connect().shadow_traffic(name, target, proportion)


def get_handle(endpoint_name: str, missing_ok: bool = False, sync: bool = True) -> EndpointHandle:
    """A handle to an endpoint; with ``missing_ok`` it may be created later, otherwise KeyError."""
    return connect().get_handle(endpoint_name, missing_ok, sync)
