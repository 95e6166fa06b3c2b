"""A replica: one instance of a deployment's class, and the actor that serves calls with it.

    run:   construct ── reconfigure ── check health ── ready ── serve, check health ... ── stop ── __del__

    async def           on the loop, as many at a time as max_ongoing_requests allows
    def                 in the replica's own thread, one at a time, the constructor among them
    generators          stepped: the next item is asked for when the last one has been taken

Knows how a method is run; what its arguments mean, and where the answer goes, it does not.
"""

import contextlib
import contextvars
import enum
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from math import inf
from types import GeneratorType
from typing import Any, Protocol

import trio

from trio_serve.actors import LONG_S, Actor, Envelope, Mailbox, SerialThread
from trio_serve.serving.application import DeploymentSpec, fill_in
from trio_serve.serving.calls import Call
from trio_serve.serving.counters import MethodCounters
from trio_serve.serving.errors import MethodNotFound, ReplicaUnhealthy, WrongMethodKind
from trio_serve.serving.finalizing import disarm_finalizer, has_finalizer
from trio_serve.serving.methods import Kind, Method, describe, is_generator, names_for_callers
from trio_serve.serving.options import DeploymentOptions
from trio_serve.serving.replica_scope import ReplicaScope
from trio_serve.serving.request_context import CurrentRequests, ReplicaContext, RequestContext, current

_log = logging.getLogger("trio_serve.serving")

_END: Any = object()

Respond = Callable[[Any], Awaitable[None]]

_LAST_JOB_S = 1.0
"""Seconds for a stopped replica's thread to end what it is doing."""

_UNHEALTHY_AFTER = 3
"""Ray Serve's number: so many checks of a replica's health fail in a row before it is replaced."""


class ReplicaState(enum.StrEnum):
    """Ray Serve's words for a replica's life."""

    STARTING = "STARTING"
    UPDATING = "UPDATING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"


class Surroundings(Protocol):
    """What a replica needs of the deployment that it belongs to."""

    application: str
    mailbox: Mailbox

    @property
    def options(self) -> DeploymentOptions:
        """The options now in force."""

    def handle_to(self, deployment: str) -> Any:
        """A handle to another deployment of the same application."""


class BoundMethod:
    """One method of one replica's instance, ready to be called."""

    __slots__ = ("answer_type", "counters", "function", "is_plain", "kind", "name", "takes_grpc_context")

    def __init__(self, method: Method, function: Callable[..., Any]) -> None:
        self.is_plain = method.kind is Kind.ASYNC
        """Whether it mostly needs no more than to be awaited."""
        self.answer_type: type | None = None
        """Of its last answer that was no stream: whether a value is one takes long to find out."""
        self.name = method.name
        self.kind = method.kind
        self.takes_grpc_context = method.takes_grpc_context
        self.function = function
        self.counters = MethodCounters()


class Replica:
    """One replica; a supervised child that lives in ``run``."""

    def __init__(self, surroundings: Surroundings, spec: DeploymentSpec, number: str) -> None:
        self.spec = spec
        self.state = ReplicaState.STARTING
        self.waits_for = "its constructor"
        """What it waits for while it is STARTING, for who tells how it comes up."""
        self.context = ReplicaContext(surroundings.application, spec.name, f"{spec.name}#{number}")
        self.model_ids: frozenset[str] = frozenset()
        self.methods: dict[str, BoundMethod] = {}
        self._surroundings = surroundings
        self._inline = spec.options.sync_methods == "inline"
        tag = self.context.replica_tag
        self._thread = SerialThread(tag)
        self.actor = Actor(tag, self._serve, surroundings.options.max_ongoing_requests, surroundings.mailbox)
        self.stop_by = inf
        self._now = trio.lowlevel.current_clock().current_time  # the same time with fewer calls
        self.made_at = self._now()
        """When, in Trio time."""
        self._gone = trio.Event()

    @property
    def tag(self) -> str:
        """``deployment#number``, unique among the replicas of an instance."""
        return self.context.replica_tag

    @property
    def options(self) -> DeploymentOptions:
        """The options of its deployment that are now in force."""
        return self._surroundings.options

    @property
    def ongoing(self) -> int:
        return self.actor.ongoing

    @property
    def waiting_for_thread(self) -> int:
        """Calls of sync methods that wait until those before them leave the replica's thread."""
        return self._thread.waiting

    @property
    def scope(self) -> ReplicaScope | None:
        """What its decorated methods keep; None before the constructor runs."""
        return getattr(self, "_scope", None)

    @property
    def has_room(self) -> bool:
        actor = self.actor
        return actor.receiving and actor.ongoing < actor.max_ongoing

    # -- life ------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Construct the instance, and serve until ``stop``; ready once it can serve.

        The replica receives nothing before ``actor.receive()``.

        Raises:
            ReplicaUnhealthy: ``check_health()`` raised, or hung: at the start, or three times in a row.
            ActorStopped: user code cancelled the actor's tasks.
            Exception: what the constructor or ``reconfigure`` raised.
        """
        outside = self._enter()
        try:
            async with trio.open_nursery() as nursery:
                self._open_scope(nursery)
                await self._construct()
                if self.spec.options.user_config is not None:
                    self.waits_for = "reconfigure()"
                    await self.reconfigure(self.spec.options.user_config)
                self.waits_for = "the startup of its ASGI application"
                async with self._lifespan():
                    checked = hasattr(self.context.servable_object, "check_health")
                    if checked:
                        self.waits_for = "check_health()"
                        await self.check_health()
                    await nursery.start(functools.partial(self.actor.run, receive=False))
                    if checked:
                        nursery.start_soon(self._watch_health)
                    self.state = ReplicaState.RUNNING
                    task_status.started()
                    await self.actor.wait_stopped()
                nursery.cancel_scope.cancel()
        finally:
            self.state = ReplicaState.STOPPING
            with trio.move_on_after(self._surroundings.options.graceful_shutdown_timeout_s, shield=True):
                await self._say_goodbye()
            self._thread.close()
            with trio.move_on_after(
                _LAST_JOB_S, shield=True
            ):  # a job that hangs is left to the daemon thread
                await self._thread.join()
            current.reset(outside)
            self._gone.set()

    async def stop(self) -> None:
        """Receive no more, let what is at work finish within the graceful timeouts, then cancel it.

        ``stop_by`` (absolute Trio time) cuts the timeout short.  Cancelling this cancels the work at once.
        """
        self.state = ReplicaState.STOPPING
        options = self._surroundings.options
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_what_is_waited_for, options.graceful_shutdown_wait_loop_s)
            left_s = max(0.0, self.stop_by - trio.current_time())
            await self.actor.stop(min(left_s, options.graceful_shutdown_timeout_s))
            nursery.cancel_scope.cancel()
        await self._gone.wait()

    async def _tell_what_is_waited_for(self, every_s: float) -> None:
        while True:
            await trio.sleep(every_s)
            _log.info("%s: %d requests are still at work before it stops", self.tag, self.ongoing)

    def _open_scope(self, nursery: trio.Nursery) -> None:
        """What decorated methods keep begins here: the constructor may load a model or join a batch."""
        self._scope = ReplicaScope(
            self.tag,
            nursery.start_soon,
            requests=CurrentRequests(),
            run_sync=self._run_sync,
            models_changed=self._models_changed,
            max_ongoing_requests=self._surroundings.options.max_ongoing_requests,
        )

    def _enter(self) -> contextvars.Token[RequestContext | None]:
        """Make the constructor, and the tasks that it starts, part of this replica."""
        request = RequestContext("", self._surroundings.application)
        request.replica = self
        return current.set(request)

    async def _construct(self) -> None:
        spec = self.spec
        target: Any = spec.target
        if not inspect.isclass(target):
            await trio.lowlevel.checkpoint()
            self._adopt(target)
            return
        args = fill_in(spec.args, self._surroundings.handle_to)
        kwargs = fill_in(dict(spec.kwargs), self._surroundings.handle_to)
        construct = inspect.getattr_static(target, "__init__")
        if inspect.iscoroutinefunction(construct):
            instance = target.__new__(target, *args, **kwargs)
            await construct(instance, *args, **kwargs)
        else:
            instance = await self._run_sync(functools.partial(target, *args, **kwargs))
        self._adopt(instance)

    def _lifespan(self) -> AbstractAsyncContextManager[object]:
        """What the instance keeps open for as long as it serves; see ``proxy.asgi_ingress``."""
        lifespan: Any = getattr(self.context.servable_object, "__serve_lifespan__", contextlib.nullcontext)
        return lifespan()  # type: ignore[no-any-return]

    def _adopt(self, instance: Any) -> None:
        self.context = ReplicaContext(
            self.context.app_name, self.context.deployment, self.context.replica_tag, instance
        )

    async def _say_goodbye(self) -> None:
        await self._scope.aclose()
        instance = self.context.servable_object
        if inspect.isclass(self.spec.target) and has_finalizer(instance):
            goodbye = instance.__del__
            disarm_finalizer(instance)
            try:
                await self._run_own(goodbye)
            except Exception:
                _log.exception("%s: __del__ raised", self.tag)

    async def _run_own(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a method that is the replica's own business, where methods of its kind run."""
        if inspect.iscoroutinefunction(function):
            return await function(*args)
        return await self._run_sync(functools.partial(function, *args))

    async def reconfigure(self, user_config: Any) -> None:
        """Hand ``user_config`` to the instance."""
        before, self.state = self.state, ReplicaState.UPDATING
        try:
            await self._run_own(self.context.servable_object.reconfigure, user_config)
        finally:
            if self.state is ReplicaState.UPDATING:
                self.state = before

    async def _watch_health(self) -> None:
        failed = 0
        while True:
            await trio.sleep(self._surroundings.options.health_check_period_s)
            try:
                await self.check_health()
                failed = 0
            except ReplicaUnhealthy as error:
                failed += 1
                if failed == _UNHEALTHY_AFTER:
                    self.actor.receiving = False  # at once: the calls of this very moment go elsewhere
                    raise
                _log.warning("%s; after %d times in a row it is replaced", error, _UNHEALTHY_AFTER)

    async def check_health(self) -> None:
        """Call the instance's ``check_health()``.

        The time limit runs from its beginning: a sync one waits its turn behind other sync methods.

        Raises:
            ReplicaUnhealthy: it raised, or did not return within ``health_check_timeout_s``.
        """
        limit_s = self._surroundings.options.health_check_timeout_s
        check = self.context.servable_object.check_health
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:

            def arm() -> None:
                scope.deadline = trio.current_time() + limit_s

            def check_in_thread() -> Any:
                token.run_sync_soon(arm)
                return check()

            try:
                if inspect.iscoroutinefunction(check):
                    arm()
                    await check()
                elif self._inline:
                    await self._run_sync(check)
                else:
                    await self._thread.run(check_in_thread)
            except Exception as error:
                raise ReplicaUnhealthy(f"{self.tag}: check_health() raised {error!r}") from error
        if scope.cancelled_caught:
            raise ReplicaUnhealthy(
                f"{self.tag}: check_health() did not return within health_check_timeout_s={limit_s:g}"
            )

    def _models_changed(self, model_ids: frozenset[str]) -> None:
        self.model_ids = model_ids

    # -- calls -----------------------------------------------------------------------------------------

    async def _serve(self, envelope: Envelope) -> Any:
        call: Call = envelope.message
        request = call.request
        request.replica = self
        current.set(request)
        method = self.methods.get(call.method) or self._bind(call.method)
        kwargs = call.kwargs
        if method.takes_grpc_context and request.grpc_context is not None:
            kwargs = {**kwargs, "grpc_context": request.grpc_context}
        counters = method.counters
        counters.started += 1
        now = self._now
        begun = now()
        if call.queued_at is not None:
            counters.waited(begun - call.queued_at)
        try:
            if method.is_plain and not call.stream and call.respond is None:
                result = await method.function(*call.args, **kwargs)
                if type(result) is not method.answer_type:
                    if is_generator(result):
                        raise WrongMethodKind(self.spec.name, method.name, False)
                    method.answer_type = type(result)
            else:
                result = await self._serve_otherwise(method, envelope, call, kwargs)
        except trio.Cancelled:
            counters.cancelled += 1
            raise
        except BaseException as error:
            counters.raised(error)
            counters.took(seconds := now() - begun)
            if seconds > LONG_S:
                self.actor.turns.took_long()
            raise
        counters.succeeded += 1
        counters.took(seconds := now() - begun)
        if seconds > LONG_S:
            self.actor.turns.took_long()
        return result

    async def _serve_otherwise(
        self, method: BoundMethod, envelope: Envelope, call: Call, kwargs: dict[str, Any]
    ) -> Any:
        """All but the plain case of one answer from an ``async def``."""
        if call.respond is not None:
            result = await self._invoke(method, envelope, call.args, kwargs)
            await self._respond(call.respond, result, envelope)
            return None
        if method.kind.streams and not call.stream:
            raise WrongMethodKind(self.spec.name, method.name, False)
        result = await self._invoke(method, envelope, call.args, kwargs)
        if is_generator(result) is not call.stream:
            self._close_unwanted(result)
            raise WrongMethodKind(self.spec.name, method.name, call.stream, type(result).__name__)
        if not call.stream:
            return result
        items = result if hasattr(result, "__anext__") else self._stepped(result, envelope)
        # In this frame, because each one that an open stream waits in costs it some 250 bytes.
        try:
            async for item in items:
                await envelope.reply.send(item)
                del item  # it may be large, and the next one long in coming
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        return None

    async def _invoke(
        self, method: BoundMethod, envelope: Envelope, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the method where methods of its kind run; a generator has not begun when it is returned."""
        if method.kind is Kind.ASYNC:
            return await method.function(*args, **kwargs)
        if method.kind is not Kind.SYNC:
            return method.function(*args, **kwargs)
        result = await self._run_sync(functools.partial(method.function, *args, **kwargs), envelope)
        if inspect.isawaitable(result):  # an async function behind a plain decorator
            result = await result
        return result

    async def _respond(self, respond: Respond, result: Any, envelope: Envelope) -> None:
        """Let ``respond`` send what the method returned, within the call."""
        if isinstance(result, GeneratorType):
            result = self._stepped(result, envelope)
        try:
            await respond(result)
        finally:
            if hasattr(result, "__anext__") and hasattr(result, "aclose"):
                await result.aclose()

    async def _stepped(self, items: Iterator[Any], envelope: Envelope) -> AsyncIterator[Any]:
        """The items of a plain generator, each of them made where sync methods run."""
        step = functools.partial(next, items, _END)
        ended = False
        try:
            while (item := await self._run_sync(step, envelope)) is not _END:
                yield item
            ended = True
        finally:
            close = getattr(items, "close", None)
            if not ended and close is not None:
                if self._inline:
                    close()
                else:
                    self._thread.run_unattended(close, envelope)

    def _close_unwanted(self, result: Any) -> None:
        if hasattr(result, "close"):
            result.close()

    async def run_sync(self, function: Callable[[], Any]) -> Any:
        """Run a plain function of the current request where sync methods run, one at a time with them."""
        request = current.get()
        return await self._run_sync(function, None if request is None else request.envelope)

    async def _run_sync(self, function: Callable[[], Any], owner: Envelope | None = None) -> Any:
        """Run a plain function where this replica's sync methods run."""
        if self._inline:
            await trio.lowlevel.checkpoint_if_cancelled()
            return function()
        return await self._thread.run(function, owner)

    def _bind(self, name: str) -> BoundMethod:
        """Look a method up on the instance, which may have more of them than its class."""
        instance = self.context.servable_object
        known = self.spec.methods.get(name)
        if not inspect.isclass(self.spec.target):
            function: Any = instance if name == "__call__" else None
        else:
            function = getattr(instance, name, None) if is_public(name) else None
        if not callable(function):
            raise MethodNotFound(self.spec.name, name, names_for_callers(dict(self.spec.methods)))
        method = BoundMethod(known or describe(name, function), function)
        self.methods[name] = method
        return method

    def has_method(self, name: str) -> bool:
        """Whether the instance can be called by this name, though its class may not know of it."""
        return is_public(name) and callable(getattr(self.context.servable_object, name, None))


def is_public(name: str) -> bool:
    """Whether a method of this name is for callers."""
    return name == "__call__" or not name.startswith("_")
