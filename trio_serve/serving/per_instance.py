"""Decorated methods that keep state for each instance, not for the class.

    class Model:                         Model.predict            -> the Decorated itself
        @batch                           Model().predict          -> Bound(decorated, instance)
        async def predict(self, xs):     Model().predict(x)       -> decorated.call(instance, (x,), {})

The state lives beside the instance, not in it: it is found by identity and forgotten when the instance
is, so an instance need not be hashable or have a ``__dict__``, its copies and pickles carry nothing along,
and no reference cycle keeps it alive.

Knows nothing of batches, models or replicas.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

S = TypeVar("S")


class PerInstance(Generic[S]):
    """One value for each instance, and one for no instance (None), made when first asked for."""

    __slots__ = ("__weakref__", "_alone", "_found")

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[object], S]] = {}
        self._alone: list[S] = []

    def get(self, instance: object | None, make: Callable[[], S]) -> S:
        """The value of ``instance``; ``make()`` gives the first.

        Raises:
            TypeError: the instance's class allows no weak references.
        """
        if instance is None:
            if not self._alone:
                self._alone.append(make())
            return self._alone[0]
        entry = self._found.get(id(instance))
        if entry is not None:
            return entry[1]
        value = make()
        self._found[id(instance)] = (self._watch(instance), value)
        return value

    def _watch(self, instance: object) -> weakref.ref[object]:
        key, found = id(instance), self._found
        try:
            return weakref.ref(instance, lambda _: found.pop(key, None))
        except TypeError:
            name = type(instance).__qualname__
            raise TypeError(
                f"{name} has __slots__ without '__weakref__', so that nothing can be kept for its instances; "
                f"add '__weakref__' to {name}.__slots__"
            ) from None

    def __iter__(self) -> Iterator[S]:
        yield from list(self._alone)
        for _, value in list(self._found.values()):
            yield value


class Decorated:
    """An async function or method under a decorator; subclasses say what a call does.

    Looks like the function to ``inspect``: name, signature, and whether it is a coroutine function or an
    async generator function.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[..., Any], bound_type: type[Bound]) -> None:
        self.bound_type = bound_type
        functools.update_wrapper(self, function)
        self.function = function
        # What inspect asks of something that is like a function without being one.
        self.__code__ = function.__code__
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__
        parameters = list(inspect.signature(function).parameters.values())
        self.takes_self = bool(parameters) and parameters[0].name in ("self", "cls")
        self.parameters = parameters[1:] if self.takes_self else parameters

    def call(self, instance: object | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call means."""
        raise NotImplementedError

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else self.bound_type(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.takes_self:
            return self.call(None, args, kwargs)
        if not args:
            raise TypeError(f"{self.__qualname__}() is a method: call it on an instance")
        return self.call(args[0], args[1:], kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__qualname__}>"


class Bound:
    """A decorated method as seen on an instance."""

    __slots__ = ("__self__", "decorated")

    def __init__(self, decorated: Decorated, instance: object) -> None:
        self.decorated = decorated
        self.__self__ = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.decorated.call(self.__self__, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decorated, name)

    @property
    def __signature__(self) -> inspect.Signature:
        whole = inspect.signature(self.decorated.function)
        return whole.replace(parameters=self.decorated.parameters)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.decorated.__qualname__} of {self.__self__!r}>"


def only_async_functions(decorator: str, function: object, *, generators: bool) -> None:
    """Refuse, at decoration, what is not an ``async def``.

    Raises:
        TypeError: names the decorator, what it got, and what it takes.
    """
    if inspect.iscoroutinefunction(function) and inspect.isfunction(function):
        return
    if generators and inspect.isasyncgenfunction(function) and inspect.isfunction(function):
        return
    if not inspect.isfunction(function):
        raise TypeError(
            f"@{decorator} decorates an 'async def' function or method; it got {function!r} "
            f"of type {type(function).__name__}"
        )
    kind = "an async generator" if inspect.isasyncgenfunction(function) else "a plain 'def'"
    raise TypeError(f"@{decorator} needs an 'async def': {function.__qualname__} is {kind}")
