"""FastAPI's class-based views: routes whose endpoint is a method get the replica's instance as ``self``.

    @app.get("/double")                         route: endpoint(x)       self: Depends(the instance)
    def double(self, x: int) -> int: ...   -->  in its place, with everything else that was said of it

FastAPI reads an endpoint's signature to know what to give to it, so the endpoint gets another signature, and
each route is made anew in the place where it was.  A plain ``def`` runs in the replica's own thread, one at
a time, as sync methods do everywhere; FastAPI would run several at once.

Source: Ray Serve's guide, "FastAPI HTTP Deployments".  FastAPI is imported only where there is one.
"""

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from trio_serve.serving.request_context import current_request


def bind_views(application: Any, cls: type) -> None:
    """Give the methods of ``cls`` that are routes of ``application`` their ``self``, where it is FastAPI."""
    fastapi = sys.modules.get("fastapi")
    if fastapi is None or not isinstance(application, fastapi.FastAPI | fastapi.APIRouter):
        return
    routes = application.routes
    for index, route in enumerate(routes):
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None and _is_method_of(cls, endpoint):
            routes[index] = _made_anew(route, _with_instance(endpoint, cls))


def _is_method_of(cls: type, endpoint: Any) -> bool:
    function = inspect.unwrap(endpoint)
    if not inspect.isfunction(function):
        return False
    return any(
        function.__module__ == each.__module__
        and function.__qualname__ == f"{each.__qualname__}.{function.__name__}"
        for each in cls.__mro__
    )


def _made_anew(route: Any, endpoint: Callable[..., Any]) -> Any:
    """The same route with another endpoint: FastAPI keeps what it was made with, under the same names."""
    names = list(inspect.signature(type(route)).parameters)
    kept = {name: getattr(route, name) for name in names if hasattr(route, name)}
    return type(route)(**{**kept, "endpoint": endpoint})


def _with_instance(endpoint: Callable[..., Any], cls: type) -> Callable[..., Any]:
    from fastapi import Depends

    async def instance() -> Any:
        request = current_request()
        found = (
            None if request is None or request.replica is None else request.replica.context.servable_object
        )
        if not isinstance(found, cls):
            raise RuntimeError(
                f"{endpoint.__qualname__} is a view of {cls.__name__}, and the replica that was asked is a "
                f"{type(found).__name__}; give each ingress class an application of its own"
            )
        return found

    signature = _signature_of(endpoint)
    own, *others = signature.parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [own.replace(kind=keyword, default=Depends(instance), annotation=Any)]
    parameters += [each.replace(kind=keyword) for each in others]
    view = _view_of(endpoint, own.name)
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(view, name, getattr(endpoint, name))
    view.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return view


def _signature_of(endpoint: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(endpoint, eval_str=True)
    except NameError:  # an annotation that means nothing where the function stands
        return inspect.signature(endpoint)


def _view_of(endpoint: Callable[..., Any], own: str) -> Callable[..., Any]:
    """``endpoint`` with all its arguments by name, of the kind that FastAPI is to take it for."""
    if inspect.isasyncgenfunction(endpoint):

        async def stream(**given: Any) -> AsyncIterator[Any]:
            async for item in endpoint(given.pop(own), **given):
                yield item

        return stream
    if inspect.isgeneratorfunction(endpoint):

        def steps(**given: Any) -> Iterator[Any]:
            yield from endpoint(given.pop(own), **given)

        return steps

    async def view(**given: Any) -> Any:
        instance = given.pop(own)
        if inspect.iscoroutinefunction(endpoint):
            return await endpoint(instance, **given)
        request = current_request()
        assert request is not None and request.replica is not None
        return await request.replica.run_sync(functools.partial(endpoint, instance, **given))

    return view
