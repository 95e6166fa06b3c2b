"""The client that ``start`` and ``connect`` return: backends, endpoints and traffic of one instance.

In a script each method waits for what comes of it; in a Trio program those that change something return what
is to be awaited.

Source: Ray Serve 1.3, Client.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trio_serve.instance.backend_config import BackendConfig
from trio_serve.instance.reach import Reach
from trio_serve.serving.endpoint_handle import EndpointHandle

Config = BackendConfig | Mapping[str, Any]


class Client:
    """What can be asked of the instance that ``reach`` leads to; see `Backends` for what each method does."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def create_backend(
        self, backend_tag: str, func_or_class: Any, *init_args: Any, config: Config | None = None
    ) -> Any:
        """Start a backend: a function, a class with its arguments, or the import path of either."""
        ask = self._reach.ask
        return ask("backends.create_backend", backend_tag, func_or_class, *init_args, config=config)

    def update_backend_config(self, backend_tag: str, config_options: Config) -> Any:
        """Change what ``config_options`` gives of a backend's config."""
        return self._reach.ask("backends.update_backend_config", backend_tag, config_options)

    def get_backend_config(self, backend_tag: str) -> BackendConfig:
        """The config in force."""
        config: BackendConfig = self._reach.ask("backends.get_backend_config", backend_tag)
        return config

    def list_backends(self) -> dict[str, BackendConfig]:
        """Every backend with its config."""
        backends: dict[str, BackendConfig] = self._reach.ask("backends.list_backends")
        return backends

    def delete_backend(self, backend_tag: str, force: bool = False) -> Any:
        """Drain a backend that no endpoint uses, and take it away; ``force`` cuts its calls off."""
        return self._reach.ask("backends.delete_backend", backend_tag, force)

    def create_endpoint(
        self,
        endpoint_name: str,
        *,
        backend: str,
        route: str | None = None,
        methods: Iterable[str] = ("GET",),
    ) -> Any:
        """Make an endpoint that ``backend`` answers, at ``route`` over HTTP, and by handles."""
        ask = self._reach.ask
        return ask("backends.create_endpoint", endpoint_name, backend=backend, route=route, methods=methods)

    def list_endpoints(self) -> dict[str, dict[str, Any]]:
        """Every endpoint with its route, methods, traffic and shadows."""
        endpoints: dict[str, dict[str, Any]] = self._reach.ask("backends.list_endpoints")
        return endpoints

    def delete_endpoint(self, endpoint_name: str) -> Any:
        """Take an endpoint away; its backends stay."""
        return self._reach.ask("backends.delete_endpoint", endpoint_name)

    def set_traffic(self, name: str, weights: Mapping[str, float], *, sticky: str | None = None) -> Any:
        """Let those in ``weights`` answer for the endpoint or application ``name``, by their shares.

        Raises as `Instance.set_traffic`.
        """
        return self._reach.ask("set_traffic", name, weights, sticky=sticky)

    def shadow_traffic(self, name: str, target: str, proportion: float) -> Any:
        """Send copies of that share of what comes for the endpoint or application ``name`` to ``target``.

        Raises as `Instance.shadow_traffic`.
        """
        return self._reach.ask("shadow_traffic", name, target, proportion)

    def get_handle(self, endpoint_name: str, missing_ok: bool = False, sync: bool = True) -> EndpointHandle:
        """A handle to an endpoint."""
        handle: EndpointHandle = self._reach.ask("backends.get_handle", endpoint_name, missing_ok, sync)
        return handle

    def shutdown(self) -> Any:
        """Drain everything that runs; an instance in another process ends with it."""
        return self._reach.ask("shutdown")
