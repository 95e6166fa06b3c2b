"""Batching: a function that takes lists, called with one item at a time.

    @batch(max_batch_size=8)
    async def predict(self, items): ...       one call for many items: list in, list of results out

    await self.predict(item)                  one item in, its result out
    self.predict.set_max_batch_size(16)       for this instance; Model.predict.set_... for all

This file is the decorator, its settings and its checks; ``batch_queue`` gathers calls and runs batches,
``batch_streams`` is for async generators.

Source: Ray Serve's documentation of ``@serve.batch``, and its observed behaviour.
Knows nothing of envelopes, protocols or how models are loaded.
"""

from __future__ import annotations

import inspect
import weakref
from collections import ChainMap
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, cast, overload

import trio

from trio_serve.serving.batch_queue import BatchQueue, Lane, Member, Settings, one_for_each
from trio_serve.serving.batch_streams import BatchStream, StreamMember, hand_out
from trio_serve.serving.per_instance import Bound, Decorated, PerInstance, only_async_functions
from trio_serve.serving.replica_scope import current_replica_scope
from trio_serve.serving.shared_work import SharedWork

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


# -- settings --------------------------------------------------------------------------------------


def _whole(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} must be a whole number of 1 or more")
    if value < 1:
        raise ValueError(f"{name}={value!r} must be 1 or more")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} must be a number of seconds")
    if not value >= 0:
        raise ValueError(f"{name}={value!r} must be 0 seconds or more")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_batch_size": _whole,
    "batch_wait_timeout_s": _seconds,
    "max_concurrent_batches": _whole,
}


class _Adjustable:
    """The settings as a user sees them, on the function for all instances or on a method for its own."""

    __slots__ = ()

    def _settings(self) -> Settings:
        raise NotImplementedError

    def _set(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def set_max_batch_size(self, new_max_batch_size: int) -> None:
        """Change ``max_batch_size`` for the next batch; one that is filling keeps the size it began with."""
        self._set("max_batch_size", new_max_batch_size)

    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None:
        """Change ``batch_wait_timeout_s`` for the next batch; one that is filling keeps its own."""
        self._set("batch_wait_timeout_s", new_batch_wait_timeout_s)

    def set_max_concurrent_batches(self, new_max_concurrent_batches: int) -> None:
        """Change ``max_concurrent_batches`` at once; batches that run go on."""
        self._set("max_concurrent_batches", new_max_concurrent_batches)

    def get_max_batch_size(self) -> int:
        """The ``max_batch_size`` of the next batch."""
        return cast(int, self._settings()["max_batch_size"])

    def get_batch_wait_timeout_s(self) -> float:
        """The ``batch_wait_timeout_s`` of the next batch."""
        return cast(float, self._settings()["batch_wait_timeout_s"])

    def get_max_concurrent_batches(self) -> int:
        """The ``max_concurrent_batches`` in force."""
        return cast(int, self._settings()["max_concurrent_batches"])

    # The names that Ray gives its getters, so that an app that reads them moves unchanged.
    _get_max_batch_size = get_max_batch_size
    _get_batch_wait_timeout_s = get_batch_wait_timeout_s


# -- the decorated function ------------------------------------------------------------------------


class Batched(Decorated, _Adjustable):
    """A function that takes lists, called with one item at a time."""

    def __init__(
        self,
        function: Callable[..., Any],
        settings: dict[str, Any],
        batch_size_fn: Callable[[list[Any]], int] | None,
    ) -> None:
        super().__init__(function, BoundBatched)
        self.streams = inspect.isasyncgenfunction(function)
        self.batch_size_fn = batch_size_fn
        self.lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._signature = inspect.Signature(self.parameters)
        self._positional = len(self.parameters)
        self._of_all: Settings = ChainMap(settings)
        self._of_instances: PerInstance[Settings] = PerInstance()
        self._check_parameters()

    def _check_parameters(self) -> None:
        kinds = [parameter.kind for parameter in self.parameters]
        if inspect.Parameter.KEYWORD_ONLY in kinds:
            self._positional = -1  # positional arguments alone are never all of them
        if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.VAR_KEYWORD in kinds:
            raise TypeError(
                f"@batch gives {self.__qualname__} a list for each parameter, it takes no *args or **kwargs"
            )
        if not kinds or kinds[0] is inspect.Parameter.KEYWORD_ONLY:
            before = "self, " if self.takes_self else ""
            raise TypeError(
                f"@batch needs a parameter for the items: write 'async def {self.__name__}({before}items)'"
            )

    def settings_of(self, instance: object | None) -> Settings:
        """The settings of one instance: its own where it set them, else those of all."""
        if instance is None:
            return self._of_all
        return self._of_instances.get(instance, lambda: ChainMap({}, *self._of_all.maps))

    def adjust(self, settings: Settings, name: str, value: Any) -> None:
        """Change one setting, checked as at decoration."""
        settings[name] = _CHECKS[name](name, value)
        for lane in self.lanes:
            lane.look_again()

    def _settings(self) -> Settings:
        return self._of_all

    def _set(self, name: str, value: Any) -> None:
        self.adjust(self._of_all, name, value)

    def call(self, instance: object | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Join a batch: a coroutine that gives the result, or a stream of results, begun at once."""
        arguments = self._arguments(args, kwargs)
        if not self.streams:
            return self._answer(instance, arguments)
        member = StreamMember(instance, arguments)
        self._queue(instance).join(member)
        return BatchStream(member)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """One value for each parameter, in order."""
        if not kwargs and len(args) == self._positional:
            return args
        try:
            found = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.__qualname__}(): {error}") from None
        found.apply_defaults()
        return tuple(found.arguments[parameter.name] for parameter in self.parameters)

    async def _answer(self, instance: object | None, arguments: tuple[Any, ...]) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        member = Member(instance, arguments)
        self._queue(instance).join(member)
        return await member.wait()

    def _queue(self, instance: object | None) -> BatchQueue:
        scope = current_replica_scope(f"{self.__qualname__}()")
        return scope.state_of(self, instance, lambda: BatchQueue(self, self.settings_of(instance), scope))

    async def run(self, members: Sequence[Member], work: SharedWork) -> None:
        """Call the function once for all ``members``, and give each its result or results."""
        args, kwargs = self._columns(members)
        if self.streams:
            await hand_out(self.__qualname__, self.function(*args, **kwargs), members, work)
            return
        results = one_for_each(self.__qualname__, await self.function(*args, **kwargs), members)
        for member, result in zip(members, results, strict=True):
            member.answer(result)

    def _columns(self, members: Sequence[Member]) -> tuple[list[Any], dict[str, Any]]:
        """The function's arguments: the instance, and a list for each parameter."""
        args = [members[0].instance] if self.takes_self else []
        kwargs: dict[str, Any] = {}
        for index, parameter in enumerate(self.parameters):
            column = [member.arguments[index] for member in members]
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = column
            else:
                args.append(column)
        return args, kwargs


class BoundBatched(Bound, _Adjustable):
    """A batched method of one instance."""

    __slots__ = ()
    decorated: Batched

    def _settings(self) -> Settings:
        settings: Settings = self.decorated.settings_of(self.__self__)
        return settings

    def _set(self, name: str, value: Any) -> None:
        self.decorated.adjust(self._settings(), name, value)


# -- the decorator ---------------------------------------------------------------------------------


class BatchedCall(Protocol[R_co]):
    """What ``@batch`` makes of a coroutine function, as a type checker sees it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R_co]: ...
    def set_max_batch_size(self, new_max_batch_size: int) -> None: ...
    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None: ...
    def set_max_concurrent_batches(self, new_max_concurrent_batches: int) -> None: ...
    def get_max_batch_size(self) -> int: ...
    def get_batch_wait_timeout_s(self) -> float: ...
    def get_max_concurrent_batches(self) -> int: ...


class BatchedStream(Protocol[R_co]):
    """What ``@batch`` makes of an async generator function, as a type checker sees it."""

    def __call__(self, *args: Any, **kwargs: Any) -> AsyncGenerator[R_co, None]: ...
    def set_max_batch_size(self, new_max_batch_size: int) -> None: ...
    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None: ...
    def set_max_concurrent_batches(self, new_max_concurrent_batches: int) -> None: ...
    def get_max_batch_size(self) -> int: ...
    def get_batch_wait_timeout_s(self) -> float: ...
    def get_max_concurrent_batches(self) -> int: ...


class BatchDecorator(Protocol):
    """What ``batch(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[..., Coroutine[Any, Any, Sequence[R]]], /) -> BatchedCall[R]: ...
    @overload
    def __call__(self, function: Callable[..., AsyncGenerator[Sequence[R], None]], /) -> BatchedStream[R]: ...


@overload
def batch(function: Callable[..., Coroutine[Any, Any, Sequence[R]]], /) -> BatchedCall[R]: ...
@overload
def batch(function: Callable[..., AsyncGenerator[Sequence[R], None]], /) -> BatchedStream[R]: ...
@overload
def batch(
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> BatchDecorator: ...
def batch(
    function: Callable[..., Any] | None = None,
    /,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Any:
    """Let single calls of an ``async def`` function or method run as batches of many.

    The function gets a list for each of its parameters and returns, or for an async generator yields at
    each step, a list with one result per item, in order.  A caller passes one item and gets its result, or
    a stream of them; ``StopIteration`` (the class) in place of a result ends that caller's stream.

    An error reaches every member of the batch.  A member that is cancelled leaves the others; when all
    are, the batch is cancelled.  No member's deadline applies to the batch.  Members with different
    multiplexed model ids never share a batch, and within it ``get_multiplexed_model_id()`` gives theirs.

    Args:
        function: the function, where the decorator is used without parentheses.
        max_batch_size: most items in a batch; with ``batch_size_fn``, most of what that measures.
        batch_wait_timeout_s: seconds that the oldest item waits for a batch to fill.
        max_concurrent_batches: most batches that run at once, for each instance and model id.
        batch_size_fn: measures a list of items (the first parameter's), for example in tokens.

    Raises:
        TypeError, ValueError: at decoration, for a function that is not ``async def``, has no parameter
            for the items, or for an option of the wrong type or value.
    """
    given = {
        "max_batch_size": max_batch_size,
        "batch_wait_timeout_s": batch_wait_timeout_s,
        "max_concurrent_batches": max_concurrent_batches,
    }
    settings = {name: _CHECKS[name](name, value) for name, value in given.items()}
    if batch_size_fn is not None and not callable(batch_size_fn):
        raise TypeError(f"batch_size_fn={batch_size_fn!r} must be a function that measures a list of items")

    def decorate(function: Callable[..., Any]) -> Batched:
        only_async_functions("batch", function, generators=True)
        return Batched(function, dict(settings), batch_size_fn)

    return decorate if function is None else decorate(function)
