"""``@ingress(app)``: a deployment that answers HTTP with an ASGI application.

    @serve.deployment                      requests under the route prefix go to ``app``, within the call:
    @serve.ingress(app)                    cancelled when the client leaves, counted, timed, WebSockets too
    class Shop: ...

Each replica runs the application's lifespan.  The application itself is one object for all replicas of this
process; what belongs to one replica belongs into its ``self``, or its lifespan's state.  ``ingress(build)``,
with a function that takes nothing and returns an application, gives each replica its own.

Source: Ray Serve's guide, "FastAPI HTTP Deployments".
Knows nothing of proxies: the application is what a call returns, and whoever sends results runs it.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from trio_serve.proxy.asgi_lifespan import State, lifespan
from trio_serve.proxy.asgi_views import bind_views
from trio_serve.proxy.http_exchange import Receive, Scope, Send

C = TypeVar("C", bound=type)


class ServedApplication:
    """An ASGI application as one replica serves it."""

    __serve_asgi__ = True

    def __init__(self, application: Any, state: State) -> None:
        self.application = application
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application({**scope, "state": dict(self.state)}, receive, send)


def ingress(app: Any) -> Callable[[C], C]:
    """Let an ASGI application answer for a class; stands below ``@deployment``.

    ``app`` is any ASGI application (FastAPI, Starlette, ...), or a function without parameters that makes
    one.  FastAPI routes may be methods of the class: their ``self`` is the replica's instance.

    Raises:
        TypeError: at once, when ``app`` or what is decorated cannot be that.
    """
    build = _builder_of(app)

    def decorate(cls: C) -> C:
        _check_class(cls)
        if build is None:
            bind_views(app, cls)

        class Ingress(cls):  # type: ignore[misc, valid-type]
            __serve_asgi__ = True

            @asynccontextmanager
            async def __serve_lifespan__(self) -> AsyncIterator[None]:
                application = app
                if build is not None:
                    application = build()
                    bind_views(application, cls)
                async with lifespan(application) as state:
                    self.__serve_application__ = ServedApplication(application, state)
                    yield

            async def __call__(self, request: Any) -> Any:
                return self.__serve_application__

        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(Ingress, name, getattr(cls, name))
        return Ingress  # type: ignore[return-value]

    return decorate


def _builder_of(app: Any) -> Callable[[], Any] | None:
    """``app`` as what makes an application, None where it is one."""
    if inspect.isclass(app) or not callable(app):
        raise TypeError(
            f"ingress() got {app!r}; it takes an ASGI application, such as FastAPI(), or a function that "
            "makes one"
        )
    try:
        parameters = inspect.signature(app).parameters
    except (TypeError, ValueError):
        return None
    return None if parameters else app


def _check_class(cls: object) -> None:
    if not inspect.isclass(cls):
        raise TypeError(f"@ingress(app) got {cls!r}; it decorates a class, and stands below @deployment")
    if "__call__" in {name for each in cls.__mro__[:-1] for name in vars(each)}:
        raise TypeError(
            f"{cls.__name__} has a __call__, which no request would reach: @ingress(app) answers them all; "
            "make it a route of the application"
        )
