"""Multiplexing: one replica serves many models, and keeps the few that were used last.

    get_model("a") ──> loaded? ──> the model
                         │ no
                         v
                    being loaded? ──> wait with the others
                         │ no
                         v
                    no place? ──> the least recently used model goes: ``__del__`` ──> load, then keep

A load belongs to the replica: a caller that is cancelled leaves it to the others who wait, and when all
have left it is cancelled.  A failed load is raised to all who wait and is not kept.  Different models load
side by side as long as there are places; a model being loaded or unloaded has its place, so there are
never more in memory than ``max_num_models_per_replica``.

The least recently used model goes first, but one that a running request has asked for goes only when all
the others are in use too; then, as in Ray, its ``__del__`` is called under that request.  (A request that
must not see this asks for no more models than its deployment allows, or limits ``max_ongoing_requests``.)

Source: Ray Serve's documentation of ``@serve.multiplexed``, and its observed behaviour.
Knows nothing of balancing, which is told the ids through the replica's scope.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, overload

import attrs
import trio

from trio_serve.actors import Envelope
from trio_serve.serving.finalizing import disarm_finalizer, has_finalizer
from trio_serve.serving.per_instance import Bound, Decorated, only_async_functions
from trio_serve.serving.replica_scope import ReplicaScope, ReplicaStopped, current_replica_scope
from trio_serve.serving.request_context import current_request
from trio_serve.serving.shared_work import Failure, SharedWork, Waiter, part_cancelled

log = logging.getLogger("trio_serve.serving")

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

UNLOAD_TIMEOUT_S = 30.0
"""Seconds that a model's ``__del__`` may take; a cancelled load or a stopping replica waits no longer."""


@attrs.define
class ModelCounters:
    """What one model cache did; plain numbers for whoever exports metrics."""

    requests: int = 0
    loads: int = 0
    load_errors: int = 0
    unloads: int = 0
    load_s: float = 0.0
    unload_s: float = 0.0


class _Model:
    """A loaded model, and the requests that asked for it and may still run."""

    __slots__ = ("_forget_at", "_users", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._users: set[Envelope] = set()
        self._forget_at = 8

    def used_by(self, user: Envelope | None) -> None:
        if user is None:
            return
        self._users.add(user)
        if len(self._users) >= self._forget_at:
            self.in_use()
            self._forget_at = 8 + 2 * len(self._users)

    def in_use(self) -> bool:
        self._users = {user for user in self._users if not user.ended}
        return bool(self._users)


class _Load(SharedWork):
    """A model being loaded, and who waits for it."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        super().__init__()
        self.waiters: list[tuple[Waiter, Envelope | None]] = []

    def join(self) -> Waiter:
        waiter = Waiter(self)
        self.wanted_by += 1
        self.waiters.append((waiter, _user()))
        return waiter

    def fail(self, failure: Failure) -> None:
        for waiter, _ in self.waiters:
            waiter.answer(failure)


def _user() -> Envelope | None:
    request = current_request()
    return None if request is None else request.envelope


class ModelCache:
    """The models of one instance in one replica."""

    __slots__ = (
        "__weakref__",
        "_changed",
        "_door",
        "_loads",
        "_models",
        "_multiplexed",
        "_places_taken",
        "_scope",
        "counters",
    )

    def __init__(self, multiplexed: Multiplexed, scope: ReplicaScope) -> None:
        self._multiplexed = multiplexed
        self._scope = scope
        self._models: OrderedDict[str, _Model] = OrderedDict()  # the least recently used first
        self._loads: dict[str, _Load] = {}
        self._places_taken = 0  # by models loaded, being loaded and being unloaded
        self._door = trio.Lock()
        self._changed = trio.Event()
        self.counters = ModelCounters()

    def model_ids(self) -> list[str]:
        """The models loaded, the least recently used first, and then those being loaded."""
        return [*self._models, *self._loads]

    async def get(self, instance: object | None, model_id: str) -> Any:
        """The model of that id, loaded now if need be.

        Raises:
            ReplicaStopped: the replica ended meanwhile.
            BaseException: what the function raised.
        """
        self.counters.requests += 1
        await trio.lowlevel.checkpoint()
        while True:
            model = self._models.get(model_id)
            if model is not None:
                self._models.move_to_end(model_id)
                model.used_by(_user())
                return model.value
            load = self._loads.get(model_id) or self._begin(instance, model_id)
            if not load.cancel_scope.cancel_called:
                return await load.join().wait()
            await load.wait_ended()  # given up by all who wanted it, just before

    def _begin(self, instance: object | None, model_id: str) -> _Load:
        load = _Load()
        self._scope.start_soon(self._run, load, instance, model_id, contextvars.copy_context())
        self._loads[model_id] = load
        self._tell()
        return load

    async def _run(
        self, load: _Load, instance: object | None, model_id: str, context: contextvars.Context
    ) -> None:
        try:
            self._scope.requests.enter_shared([context])
            with load.cancel_scope:
                await self._load(load, instance, model_id)
        finally:
            del self._loads[model_id]
            self._tell()
            load.fail(
                Failure(ReplicaStopped(f"{self._scope.name} stopped before model {model_id!r} was loaded"))
            )
            load.finish()

    async def _load(self, load: _Load, instance: object | None, model_id: str) -> None:
        try:
            await self._take_a_place()
            value = await self._call(instance, model_id)
        except BaseException as error:
            cancelled, rest = part_cancelled(error)
            if rest is not None:
                self.counters.load_errors += 1
                load.fail(Failure(rest))
            del rest  # its traceback holds this frame
            if cancelled is not None:
                raise cancelled from None
            return
        model = self._models[model_id] = _Model(value)
        self._changed.set()  # now there is one that could go
        for waiter, user in load.waiters:
            if waiter.waiting:
                model.used_by(user)
                waiter.answer(value)

    async def _call(self, instance: object | None, model_id: str) -> Any:
        function = self._multiplexed.function
        self.counters.loads += 1
        begun = trio.current_time()
        loaded = False
        try:
            value = await (
                function(instance, model_id) if self._multiplexed.takes_self else function(model_id)
            )
            loaded = True
            return value
        finally:
            self.counters.load_s += trio.current_time() - begun
            if not loaded:
                self._free_a_place()

    # -- places ----------------------------------------------------------------------------------------

    async def _take_a_place(self) -> None:
        """Wait for a place, making one by unloading a model if need be; first come, first served."""
        most = self._multiplexed.max_num_models
        async with self._door:
            while 0 < most <= self._places_taken:
                if self._models:
                    await self._unload(self._next_to_go())
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:  # all places are with models that are still loading
                    self._changed = trio.Event()
                    await self._changed.wait()
            self._places_taken += 1

    def _free_a_place(self) -> None:
        self._places_taken -= 1
        self._changed.set()

    def _next_to_go(self) -> str:
        for model_id, model in self._models.items():
            if not model.in_use():
                return model_id
        return next(iter(self._models))

    async def _unload(self, model_id: str) -> None:
        model = self._models.pop(model_id).value
        self.counters.unloads += 1
        begun = trio.current_time()
        self._tell()
        try:
            if has_finalizer(model):
                await self._finalize(model_id, model)
        finally:
            self.counters.unload_s += trio.current_time() - begun
            self._free_a_place()

    async def _finalize(self, model_id: str, model: Any) -> None:
        """Call ``__del__`` once, where plain functions of the replica run, or here if it is async."""
        # Shielded: a model half unloaded because a caller lost patience would be nobody's.
        with trio.move_on_after(UNLOAD_TIMEOUT_S, shield=True) as limit:
            try:
                if inspect.iscoroutinefunction(model.__del__):
                    await model.__del__()
                else:
                    await self._scope.run_sync(model.__del__)
            except Exception:
                # Not the fault of the caller whose model is to be loaded.
                log.exception("%s: __del__ of model %r raised", self._scope.name, model_id)
        if limit.cancelled_caught:
            log.error(
                "%s: __del__ of model %r was given up after %g s",
                self._scope.name,
                model_id,
                UNLOAD_TIMEOUT_S,
            )
        disarm_finalizer(model)

    def _tell(self) -> None:
        self._scope.models_changed(loaded_model_ids(self._scope))

    async def aclose(self) -> None:
        """Cancel what is being loaded and unload all models, the least recently used first."""
        for load in list(self._loads.values()):
            load.cancel_scope.cancel()
        with trio.move_on_after(UNLOAD_TIMEOUT_S, shield=True):
            for load in list(self._loads.values()):
                await load.wait_ended()
        while self._models:
            await self._unload(next(iter(self._models)))


def loaded_model_ids(scope: ReplicaScope) -> frozenset[str]:
    """The ids of the models that a replica has or is loading, for whatever chooses a replica by model."""
    return frozenset(model_id for cache in scope.states(ModelCache) for model_id in cache.model_ids())


# -- the decorated function ------------------------------------------------------------------------


class Multiplexed(Decorated):
    """A function that loads a model, called for the model whether it is loaded or not."""

    def __init__(self, function: Callable[..., Any], max_num_models: int) -> None:
        super().__init__(function, BoundMultiplexed)
        self.max_num_models = max_num_models
        self._check_parameters()

    def _check_parameters(self) -> None:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [parameter for parameter in self.parameters if parameter.default is parameter.empty]
        if not self.parameters or self.parameters[0].kind not in positional or len(needed) > 1:
            before = "self, " if self.takes_self else ""
            raise TypeError(
                f"@multiplexed needs a function of the model id alone: write "
                f"'async def {self.__name__}({before}model_id)'"
            )

    def call(self, instance: object | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A coroutine that gives the model; its id is the request's where none is passed."""
        name = self.parameters[0].name
        if len(args) + len(kwargs) > 1 or (kwargs and name not in kwargs):
            raise TypeError(f"{self.__qualname__}() takes the model id and nothing else")
        given = (*args, *kwargs.values())
        return self._get(instance, *given)

    async def _get(self, instance: object | None, *given: Any) -> Any:
        scope = current_replica_scope(f"{self.__qualname__}()")
        model_id = given[0] if given else scope.requests.model_id()
        if not isinstance(model_id, str):
            raise TypeError(f"{self.__qualname__}(): the model id must be a text, not {model_id!r}")
        if not model_id:
            raise ValueError(
                f"{self.__qualname__}(): the model id is empty; the caller gives one with "
                f"handle.options(multiplexed_model_id=...) or in the metadata 'multiplexed_model_id'"
            )
        return await self._cache(scope, instance).get(instance, model_id)

    def _cache(self, scope: ReplicaScope, instance: object | None) -> ModelCache:
        return scope.state_of(self, instance, lambda: ModelCache(self, scope))

    def model_ids(self, instance: object | None) -> list[str]:
        """What one instance has loaded or is loading in the current replica."""
        scope = current_replica_scope(f"{self.__qualname__}.loaded_model_ids()")
        return self._cache(scope, instance).model_ids()

    def loaded_model_ids(self) -> list[str]:
        """The models loaded, the least recently used first, and then those being loaded."""
        return self.model_ids(None)


class BoundMultiplexed(Bound):
    """A multiplexed method of one instance."""

    __slots__ = ()
    decorated: Multiplexed

    def loaded_model_ids(self) -> list[str]:
        """The models loaded, the least recently used first, and then those being loaded."""
        model_ids: list[str] = self.decorated.model_ids(self.__self__)
        return model_ids


# -- the decorator ---------------------------------------------------------------------------------


class MultiplexedCall(Protocol[M_co]):
    """What ``@multiplexed`` makes of a function, as a type checker sees it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, M_co]: ...
    def loaded_model_ids(self) -> list[str]: ...


class MultiplexedDecorator(Protocol):
    """What ``multiplexed(...)`` with options returns."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, M]], /) -> MultiplexedCall[M]: ...


@overload
def multiplexed(function: Callable[..., Coroutine[Any, Any, M]], /) -> MultiplexedCall[M]: ...
@overload
def multiplexed(*, max_num_models_per_replica: int = 3) -> MultiplexedDecorator: ...
def multiplexed(function: Callable[..., Any] | None = None, /, max_num_models_per_replica: int = 3) -> Any:
    """Let an ``async def`` that loads a model by id be called as if all models were loaded.

    The model is loaded once and kept until others were used more recently; its ``__del__``, sync or async,
    is then called.  Called without an id, the function gives the model that the request asked for.

    Args:
        function: the function, where the decorator is used without parentheses.
        max_num_models_per_replica: most models at a time, for each instance; -1: no limit.

    Raises:
        TypeError, ValueError: at decoration, for a function that is not ``async def`` or takes more or less
            than the model id, or for a wrong limit.
    """
    most = max_num_models_per_replica
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"max_num_models_per_replica={most!r} must be a whole number")
    if most != -1 and most < 1:
        raise ValueError(f"max_num_models_per_replica={most} must be 1 or more, or -1 for no limit")

    def decorate(function: Callable[..., Any]) -> Multiplexed:
        only_async_functions("multiplexed", function, generators=False)
        return Multiplexed(function, most)

    return decorate if function is None else decorate(function)
