"""Backends and endpoints: the API of Ray Serve 1.3, over the same core.

    backend  "my_backend"    an application of that name, of one deployment of that name, with no route
    endpoint "my_endpoint"   a route, and a traffic policy over backends

What is not said here (replicas, queues, rolling updates, traffic) is said once, in ``serving``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import trio

from trio_serve.instance.backend_code import BackendCode, backend_code
from trio_serve.instance.backend_config import BackendConfig, read_backend_config
from trio_serve.instance.routes import application_name, route_prefix
from trio_serve.instance.settings import Mistakes
from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller
from trio_serve.serving.deployment import Deployment
from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.endpoint_handle import EndpointHandle
from trio_serve.serving.traffic import TrafficPolicy

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


@attrs.define
class _Backend:
    config: BackendConfig
    code: BackendCode
    init_args: tuple[Any, ...]

    def application(self, tag: str) -> Application:
        return Deployment(self.code.target, self.config.options(tag)).bind(*self.init_args)


class Backends:
    """The backends and endpoints of one instance."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._backends: dict[str, _Backend] = {}

    # Backends.

    async def create_backend(
        self,
        backend_tag: str,
        func_or_class: Any,
        *init_args: Any,
        config: BackendConfig | Mapping[str, Any] | None = None,
    ) -> None:
        """Start a backend: a function, a class with its arguments, or the import path of either.

        Returns when its replicas are ready.

        Raises:
            ValueError: the tag is taken or cannot be one, or the config is wrong.
            TypeError: it is no code, or takes other arguments.
            Exception: what the constructor raised, itself.
        """
        _check_name("backend", backend_tag)
        if backend_tag in self._controller.applications:
            raise ValueError(
                f"there is a backend or an application {backend_tag!r} already; choose another tag, or "
                "change it with update_backend_config()"
            )
        backend = _Backend(read_backend_config(config), backend_code(backend_tag, func_or_class), init_args)
        backend.code.check(backend_tag, backend.config)
        application = backend.application(backend_tag)
        _check_user_config(backend_tag, backend)
        backend.code.apply(backend.config)
        try:
            await self._controller.deploy(application, name=backend_tag, route_prefix=None)
        except BaseException:
            with trio.CancelScope(shield=True):  # nothing of it runs any more
                if backend_tag in self._controller.applications:
                    await self._controller.delete(backend_tag)
            raise
        self._backends[backend_tag] = backend

    async def update_backend_config(
        self, backend_tag: str, config_options: BackendConfig | Mapping[str, Any]
    ) -> None:
        """Change what ``config_options`` gives; replicas come and go, calls under way finish.

        Raises:
            KeyError: there is no such backend.
            ValueError, TypeError: the config is wrong; nothing has changed.
            Exception: what ``reconfigure`` raised; the config from before is in force.
        """
        backend = self._backend(backend_tag)
        read_backend_config(config_options)
        changed = attrs.evolve(backend, config=backend.config.changed(config_options))
        changed.code.check(backend_tag, changed.config)
        _check_user_config(backend_tag, changed)
        await self._controller.deploy(changed.application(backend_tag), name=backend_tag, route_prefix=None)
        changed.code.apply(changed.config)
        self._backends[backend_tag] = changed

    def get_backend_config(self, backend_tag: str) -> BackendConfig:
        """The config in force; KeyError when there is no such backend."""
        return self._backend(backend_tag).config

    def list_backends(self) -> dict[str, BackendConfig]:
        """Every backend with its config."""
        running = self._controller.applications
        return {tag: backend.config for tag, backend in self._backends.items() if tag in running}

    async def delete_backend(self, backend_tag: str, force: bool = False) -> None:
        """Drain a backend and take it away; with ``force`` its calls are cut off.

        Raises:
            KeyError: there is no such backend.
            ValueError: endpoints use it; names them.
        """
        backend = self._backend(backend_tag)
        users = [
            name
            for name, endpoint in self._controller.endpoints.items()
            if backend_tag in endpoint.traffic.policy.targets
        ]
        if users:
            raise ValueError(
                f"backend {backend_tag!r} is used by endpoint {', '.join(map(repr, users))}; delete the "
                "endpoint, or give its traffic to others with set_traffic() and shadow_traffic()"
            )
        if force:
            at_once = attrs.evolve(backend.config, experimental_graceful_shutdown_timeout_s=0.0)
            hurried = attrs.evolve(backend, config=at_once).application(backend_tag)
            await self._controller.deploy(hurried, name=backend_tag, route_prefix=None)
        await self._controller.delete(backend_tag)
        self._backends.pop(backend_tag, None)

    # Endpoints.

    async def create_endpoint(
        self,
        endpoint_name: str,
        *,
        backend: str,
        route: str | None = None,
        methods: Iterable[str] = ("GET",),
    ) -> None:
        """Make an endpoint that ``backend`` answers, at ``route`` and below; None: by handles only.

        Raises:
            ValueError: the name or the route is taken, or cannot be one; a method is none.
            KeyError: there is no such backend.
            TypeError: ``methods`` is no list of texts.
        """
        await trio.lowlevel.checkpoint()
        _check_name("endpoint", endpoint_name)
        if endpoint_name in self._controller.endpoints:
            raise ValueError(
                f"there is an endpoint {endpoint_name!r} already; change who answers with set_traffic()"
            )
        self._backend(backend)
        self._check_route(endpoint_name, route)
        split = self._controller.split(TrafficPolicy({backend: 1.0}))
        self._controller.endpoints[endpoint_name] = Endpoint(
            endpoint_name, route, _read_methods(endpoint_name, methods), split
        )

    def list_endpoints(self) -> dict[str, dict[str, Any]]:
        """Every endpoint with its ``route``, ``methods``, ``traffic`` and ``shadows``."""
        return {
            name: {
                "route": endpoint.route_prefix,
                "methods": list(endpoint.methods),
                "traffic": dict(endpoint.traffic.policy.weights),
                "shadows": dict(endpoint.traffic.policy.shadows),
            }
            for name, endpoint in self._controller.endpoints.items()
        }

    async def delete_endpoint(self, endpoint_name: str) -> None:
        """Take an endpoint away; backends and calls under way stay.  KeyError when there is none."""
        await trio.lowlevel.checkpoint()
        self._endpoint(endpoint_name)
        del self._controller.endpoints[endpoint_name]

    def get_handle(self, endpoint_name: str, missing_ok: bool = False, sync: bool = True) -> EndpointHandle:
        """A handle to an endpoint; with ``missing_ok`` it may be created later.

        ``sync`` makes no difference: what ``remote()`` returns has ``result()`` for threads, and in Trio
        it is awaited.

        Raises:
            KeyError: there is no such endpoint.
        """
        if not missing_ok:
            self._endpoint(endpoint_name)
        return EndpointHandle(self._controller, endpoint_name)

    # What is there, and what is not.

    def _backend(self, tag: str) -> _Backend:
        backend = self._backends.get(tag)
        if backend is None or tag not in self._controller.applications:
            known = ", ".join(self.list_backends()) or "none"
            raise KeyError(f"there is no backend {tag!r}; there are: {known}")
        return backend

    def _endpoint(self, name: str) -> Endpoint:
        endpoint = self._controller.endpoints.get(name)
        if endpoint is None:
            known = ", ".join(self._controller.endpoints) or "none"
            raise KeyError(f"there is no endpoint {name!r}; there are: {known}")
        return endpoint

    def _check_route(self, name: str, route: str | None) -> None:
        try:
            route_prefix(route)
        except Mistakes as found:
            raise ValueError(f"endpoint {name!r}: route {found}") from None
        prefixes = [
            *((other, each.route_prefix) for other, each in self._controller.applications.items()),
            *((other, each.route_prefix) for other, each in self._controller.endpoints.items()),
        ]
        taken = [other for other, prefix in prefixes if route is not None and prefix == route]
        if taken:
            raise ValueError(f"endpoint {name!r}: route {route!r} is that of {taken[0]!r}; choose another")


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} is a text, not {name!r}")
    try:
        application_name(name)
    except Mistakes as found:
        raise ValueError(f"the name {name!r} of a {what}: {found}") from None


def _check_user_config(tag: str, backend: _Backend) -> None:
    has_reconfigure = callable(getattr(backend.code.target, "reconfigure", None))
    if backend.config.user_config is not None and not has_reconfigure:
        raise ValueError(f"backend {tag!r} has a user_config, but no 'reconfigure(self, config)' to take it")


def _read_methods(name: str, methods: Any) -> tuple[str, ...]:
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise TypeError(
            f"endpoint {name!r}: methods={methods!r} must be a list of texts, as in ['GET', 'POST']"
        )
    read = []
    for method in methods:
        if not isinstance(method, str):
            raise TypeError(f"endpoint {name!r}: {method!r} in methods is no text")
        if method.upper() not in _METHODS:
            raise ValueError(
                f"endpoint {name!r}: {method!r} is no HTTP method; there are {', '.join(_METHODS)}"
            )
        read.append(method.upper())
    if not read:
        raise ValueError(f"endpoint {name!r}: methods is empty")
    return tuple(dict.fromkeys(read))
