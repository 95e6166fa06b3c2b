"""An application with something between each call and the method that serves it.

    caller --> [ Between.arrives ] --> method --> [ Between.leaves ] --> caller
                                         |
                                         +-- raises --> [ Between.raised ] --> caller

Faults and the search for what would not survive a process boundary both stand there.  Each class of the
application gets a subclass whose methods are wrapped, each a method of the same kind as before; the
application itself is left as it was.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from trio_serve.serving.application import Application
from trio_serve.serving.deployment import Deployment

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_NOT_FOR_CALLERS = {"reconfigure", "check_health"}


class Between(Protocol):
    """What stands before one deployment."""

    def constructing(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The constructor is about to run; what this raises, it raises."""

    def arrives(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], waits: bool) -> Arguments:
        """A call is here; gives the arguments to go on with, or raises in place of the method.

        ``waits``: the method is async, and `holds` comes next.
        """

    async def holds(self, method: str) -> None:
        """Keep the call of an async method for as long as this takes."""

    def leaves(self, method: str, value: Any) -> Any:
        """The method has returned or yielded ``value``; gives what is to reach the caller."""

    def raised(self, method: str, error: Exception) -> None:
        """The method has raised."""


def rebuilt(application: Application, change: Callable[[Application], Application]) -> Application:
    """The graph anew, each application through ``change`` once, after those that it depends on."""
    done: dict[int, Application] = {}

    def visit(old: Application) -> Application:
        if id(old) not in done:
            args = tuple(value_of(value) for value in old.args)
            kwargs = {key: value_of(value) for key, value in old.kwargs.items()}
            done[id(old)] = change(Application(old.deployment, args, kwargs))
        return done[id(old)]

    def value_of(value: Any) -> Any:
        if isinstance(value, Application):
            return visit(value)
        if type(value) in (list, tuple):
            return type(value)([value_of(each) for each in value])
        if type(value) is dict:
            return {key: value_of(each) for key, each in value.items()}
        return value

    return visit(application)


def interposed(application: Application, before: Callable[[str], Between | None]) -> Application:
    """``application`` with what ``before(name)`` gives in front of each deployment; None leaves it alone."""

    def change(old: Application) -> Application:
        between = before(old.deployment.name)
        if between is None:
            return old
        target = _wrapped_target(old.deployment.func_or_class, between)
        return Application(Deployment(target, old.deployment.deployment_options), old.args, old.kwargs)

    return rebuilt(application, change)


def _wrapped_target(target: Any, between: Between) -> Any:
    if not inspect.isclass(target):
        return _wrapped("__call__", target, between, skip=0)
    methods: dict[str, Any] = {}
    for name in dir(target):
        method = inspect.getattr_static(target, name)
        public = name == "__call__" or not name.startswith("_")
        if public and name not in _NOT_FOR_CALLERS and inspect.isfunction(method):
            methods[name] = _wrapped(name, method, between, skip=1)
    methods["__init__"] = _constructor(inspect.getattr_static(target, "__init__"), between)
    about = {name: getattr(target, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(target.__name__, (target,), {**about, **methods})


def _constructor(construct: Any, between: Between) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(construct):

        @functools.wraps(construct)
        async def construct_later(self: Any, *args: Any, **kwargs: Any) -> None:
            between.constructing(args, kwargs)
            await construct(self, *args, **kwargs)

        return construct_later

    @functools.wraps(construct)
    def construct_now(self: Any, *args: Any, **kwargs: Any) -> None:
        between.constructing(args, kwargs)
        construct(self, *args, **kwargs)

    return construct_now


def _wrapped(name: str, method: Callable[..., Any], between: Between, skip: int) -> Callable[..., Any]:
    """``method`` with ``between`` around it; its first ``skip`` arguments are none of the caller's."""
    waits = inspect.isasyncgenfunction(method) or inspect.iscoroutinefunction(method)

    def arrive(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        rest, kwargs = between.arrives(name, args[skip:], kwargs, waits)
        return (*args[:skip], *rest), kwargs

    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            args, kwargs = arrive(args, kwargs)
            await between.holds(name)
            made = method(*args, **kwargs)
            try:
                async for item in made:
                    yield between.leaves(name, item)
            except Exception as error:
                between.raised(name, error)
                raise
            finally:
                await made.aclose()

        return items

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = arrive(args, kwargs)
            await between.holds(name)
            try:
                return between.leaves(name, await method(*args, **kwargs))
            except Exception as error:
                between.raised(name, error)
                raise

        return answer

    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def sync_items(*args: Any, **kwargs: Any) -> Iterator[Any]:
            args, kwargs = arrive(args, kwargs)
            try:
                for item in method(*args, **kwargs):
                    yield between.leaves(name, item)
            except Exception as error:
                between.raised(name, error)
                raise

        return sync_items

    @functools.wraps(method)
    def sync_answer(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = arrive(args, kwargs)
        try:
            return between.leaves(name, method(*args, **kwargs))
        except Exception as error:
            between.raised(name, error)
            raise

    return sync_answer
