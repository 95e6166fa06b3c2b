"""The client that ``start`` and ``connect`` return: backends, endpoints and traffic of one instance.

In a script each method waits for the instance's thread; in a Trio program those that change something return
what is to be awaited.

Source: Ray Serve 1.3, Client.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from trio_serve.instance.backend_config import BackendConfig
from trio_serve.instance.crossing import from_outside, in_its_thread
from trio_serve.instance.instance import Instance
from trio_serve.serving.endpoint_handle import EndpointHandle

Config = BackendConfig | Mapping[str, Any]


class Client:
    """What can be asked of ``instance``; see `Backends` for what each method does and raises."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def create_backend(
        self, backend_tag: str, func_or_class: Any, *init_args: Any, config: Config | None = None
    ) -> Any:
        """Start a backend: a function, a class with its arguments, or the import path of either."""
        create = self._instance.backends.create_backend
        return self._do(functools.partial(create, backend_tag, func_or_class, *init_args, config=config))

    def update_backend_config(self, backend_tag: str, config_options: Config) -> Any:
        """Change what ``config_options`` gives of a backend's config."""
        return self._do(self._instance.backends.update_backend_config, backend_tag, config_options)

    def get_backend_config(self, backend_tag: str) -> BackendConfig:
        """The config in force."""
        return in_its_thread(self._instance, self._instance.backends.get_backend_config, backend_tag)

    def list_backends(self) -> dict[str, BackendConfig]:
        """Every backend with its config."""
        return in_its_thread(self._instance, self._instance.backends.list_backends)

    def delete_backend(self, backend_tag: str, force: bool = False) -> Any:
        """Drain a backend that no endpoint uses, and take it away; ``force`` cuts its calls off."""
        return self._do(self._instance.backends.delete_backend, backend_tag, force)

    def create_endpoint(
        self,
        endpoint_name: str,
        *,
        backend: str,
        route: str | None = None,
        methods: Iterable[str] = ("GET",),
    ) -> Any:
        """Make an endpoint that ``backend`` answers, at ``route`` over HTTP, and by handles."""
        create = self._instance.backends.create_endpoint
        return self._do(
            functools.partial(create, endpoint_name, backend=backend, route=route, methods=methods)
        )

    def list_endpoints(self) -> dict[str, dict[str, Any]]:
        """Every endpoint with its route, methods, traffic and shadows."""
        return in_its_thread(self._instance, self._instance.backends.list_endpoints)

    def delete_endpoint(self, endpoint_name: str) -> Any:
        """Take an endpoint away; its backends stay."""
        return self._do(self._instance.backends.delete_endpoint, endpoint_name)

    def set_traffic(self, name: str, weights: Mapping[str, float], *, sticky: str | None = None) -> Any:
        """Let those in ``weights`` answer for the endpoint or application ``name``, by their shares.

        Raises as `Instance.set_traffic`.
        """
        return self._do(functools.partial(self._instance.set_traffic, name, weights, sticky=sticky))

    def shadow_traffic(self, name: str, target: str, proportion: float) -> Any:
        """Send copies of that share of what comes for the endpoint or application ``name`` to ``target``.

        Raises as `Instance.shadow_traffic`.
        """
        return self._do(self._instance.shadow_traffic, name, target, proportion)

    def get_handle(self, endpoint_name: str, missing_ok: bool = False, sync: bool = True) -> EndpointHandle:
        """A handle to an endpoint."""
        get = self._instance.backends.get_handle
        return in_its_thread(self._instance, get, endpoint_name, missing_ok, sync)

    def shutdown(self) -> Any:
        """Drain everything that runs."""
        return self._do(self._instance.shutdown)

    def _do(self, act: Any, *args: Any) -> Any:
        return act(*args) if trio.lowlevel.in_trio_run() else from_outside(self._instance, act, *args)
