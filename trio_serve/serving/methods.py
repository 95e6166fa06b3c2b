"""What can be called on a deployment, and how: the methods of its class, read once.

    async def      a coroutine function: runs on the loop
    def            a plain function: runs in the replica's thread
    async def + yield, def + yield: generators, stepped one item at a time

Knows nothing of replicas; ``inspect`` is its only source.
"""

import enum
import functools
import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from attrs import frozen


class Kind(enum.Enum):
    """How a method answers."""

    ASYNC = "async"
    SYNC = "sync"
    ASYNC_GENERATOR = "async generator"
    SYNC_GENERATOR = "generator"

    @property
    def streams(self) -> bool:
        return self in (Kind.ASYNC_GENERATOR, Kind.SYNC_GENERATOR)


@frozen
class Method:
    """One method: what kind it is, and whether it wants the keyword ``grpc_context``."""

    name: str
    kind: Kind
    takes_grpc_context: bool


_NOT_FOR_CALLERS = {"reconfigure", "check_health"}


def methods_of(target: Callable[..., Any]) -> dict[str, Method]:
    """The methods of a class, or of a function: its one method is ``__call__``."""
    if not inspect.isclass(target):
        return {"__call__": describe("__call__", target)}
    methods = {}
    for name in dir(target):
        if name.startswith("_") and name != "__call__":
            continue
        attribute = inspect.getattr_static(target, name)
        if inspect.isclass(attribute) or isinstance(attribute, property):
            continue
        method = getattr(target, name)
        if callable(method):
            methods[name] = describe(name, method)
    return methods


def names_for_callers(methods: dict[str, Method]) -> list[str]:
    """What an error message offers: sorted, without what only the replica itself calls."""
    return sorted(name for name in methods if name not in _NOT_FOR_CALLERS)


def describe(name: str, function: Callable[..., Any]) -> Method:
    """Look at one callable."""
    return Method(name, _kind(function), _takes_grpc_context(function))


def _kind(function: Callable[..., Any]) -> Kind:
    while isinstance(function, functools.partial):
        function = function.func
    # An object with __call__ is what its __call__ is.
    for each in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - the method is wanted
        if inspect.isasyncgenfunction(each):
            return Kind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(each):
            return Kind.ASYNC
        if inspect.isgeneratorfunction(each):
            return Kind.SYNC_GENERATOR
    return Kind.SYNC


def _takes_grpc_context(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, with no signature to read
        return False
    return "grpc_context" in parameters


def is_generator(value: object) -> bool:
    """Whether a method's return value is a stream of items."""
    # ``async for`` looks at the type, too; and to ask a message for a field it lacks takes twice as long.
    return isinstance(value, GENERATORS) or hasattr(type(value), "__anext__")


GENERATORS = (GeneratorType, AsyncGeneratorType)
