"""A handle: how to call a deployment, from other deployments, from tasks and from threads.

    handle.remote(x)                      calls __call__
    handle.rank.remote(x)                 calls rank
    handle.options(stream=True).rank...   the same, with items streamed back

``remote`` never waits: the call is on its way when it returns, and every error is told by the response.
Calls made while serving a request belong to that request: they inherit its id and its deadline, and are
cancelled when it ends.

Source: Ray Serve's DeploymentHandle.
"""

import contextvars
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, overload

import trio

from trio_serve.actors import CallCancelled, Envelope, Reply
from trio_serve.serving.calls import AwaitedArguments
from trio_serve.serving.errors import ServeError
from trio_serve.serving.options import UNSET
from trio_serve.serving.replies import UnaryReply
from trio_serve.serving.request_context import RequestContext, current
from trio_serve.serving.request_ids import new_request_id
from trio_serve.serving.responses import (
    CallUnderWay,
    DeploymentResponse,
    DeploymentResponseGenerator,
    Home,
    InstanceEnded,
)

if TYPE_CHECKING:  # a default, so that the bare name stays a type, which the running Python may not know
    from typing_extensions import TypeVar

    R = TypeVar(
        "R",
        bound="DeploymentResponse[Any] | DeploymentResponseGenerator[Any]",
        default="DeploymentResponse[Any]",
    )
else:
    from typing import TypeVar

    R = TypeVar("R")


class Destination(Protocol):
    """Where calls go: a deployment, in this process or in another one."""

    gone: bool
    """It is to be looked up anew."""
    by_handles: int
    """Calls made by handles."""

    def prepare(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestContext,
        reply: Reply,
        deadline: float,
        stream: bool,
        parent: Envelope | None,
        context: contextvars.Context,
    ) -> Envelope:
        """Make the envelope of a call, to be placed later.  Raises MethodNotFound."""

    def place(self, envelope: Envelope) -> None:
        """Send it on its way.  Raises ServeError."""


class Directory(Home, Protocol):
    """Where handles look deployments up."""

    def find(self, application: str, deployment: str) -> Destination:
        """The deployment of that name.

        Raises:
            DeploymentUnavailable: there is none.
        """


class DeploymentHandle(Generic[R]):
    """Calls one deployment; immutable, and cheap to keep, copy and share between threads."""

    __slots__ = (
        "_destination",
        "_directory",
        "_method",
        "_methods",
        "_model_id",
        "_stream",
        "_timeout_s",
        "app_name",
        "deployment_name",
    )

    def __init__(
        self,
        directory: Directory,
        app_name: str,
        deployment_name: str,
        *,
        method: str = "__call__",
        model_id: str = "",
        stream: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._directory = directory
        self.app_name = app_name
        self.deployment_name = deployment_name
        self._method = method
        self._model_id = model_id
        self._stream = stream
        self._timeout_s = timeout_s
        self._methods: dict[str, DeploymentHandle[R]] = {}
        self._destination: Destination | None = None

    @property
    def address(self) -> dict[str, Any]:
        """Whom it calls and how, as plain data: ``DeploymentHandle(directory, **address)`` is its equal."""
        return {
            "app_name": self.app_name,
            "deployment_name": self.deployment_name,
            "method": self._method,
            "model_id": self._model_id,
            "stream": self._stream,
            "timeout_s": self._timeout_s,
        }

    @overload
    def options(
        self,
        *,
        method_name: str = UNSET,
        multiplexed_model_id: str = UNSET,
        timeout_s: float | None = UNSET,
    ) -> "DeploymentHandle[R]": ...

    @overload
    def options(
        self,
        *,
        stream: Literal[True],
        method_name: str = UNSET,
        multiplexed_model_id: str = UNSET,
        timeout_s: float | None = UNSET,
    ) -> "DeploymentHandle[DeploymentResponseGenerator[Any]]": ...

    @overload
    def options(
        self,
        *,
        stream: Literal[False],
        method_name: str = UNSET,
        multiplexed_model_id: str = UNSET,
        timeout_s: float | None = UNSET,
    ) -> "DeploymentHandle[DeploymentResponse[Any]]": ...

    @overload
    def options(
        self,
        *,
        stream: bool,
        method_name: str = UNSET,
        multiplexed_model_id: str = UNSET,
        timeout_s: float | None = UNSET,
    ) -> "DeploymentHandle[Any]": ...

    def options(
        self,
        *,
        method_name: str = UNSET,
        multiplexed_model_id: str = UNSET,
        stream: bool = UNSET,
        timeout_s: float | None = UNSET,
    ) -> "DeploymentHandle[Any]":
        """The same handle with other options; what is not given stays.

        ``timeout_s`` bounds each call, its time in the queue included; a call never outlives the request that
        makes it either way.
        """
        handle: DeploymentHandle[Any] = DeploymentHandle(
            self._directory,
            self.app_name,
            self.deployment_name,
            method=self._method if method_name is UNSET else _a(str, "method_name", method_name),
            model_id=self._model_id
            if multiplexed_model_id is UNSET
            else _a(str, "multiplexed_model_id", multiplexed_model_id),
            stream=self._stream if stream is UNSET else _a(bool, "stream", stream),
            timeout_s=self._timeout_s if timeout_s is UNSET else _timeout(timeout_s),
        )
        return handle

    def __getattr__(self, name: str) -> "DeploymentHandle[R]":
        if name.startswith("__"):  # what Python itself asks of objects is none of the deployment's methods
            raise AttributeError(name)
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self.options(method_name=name)
        return method

    def remote(self, *args: Any, **kwargs: Any) -> R:
        """Call the method with these arguments; never waits.

        A ``DeploymentResponse`` among the arguments is waited for on the way, and the method gets its value;
        one within a list or another object is not looked for.
        """
        caller = current.get()
        request_id = new_request_id() if caller is None else caller.request_id or new_request_id()
        directory = self._directory
        response: Any
        if self._stream:
            response = DeploymentResponseGenerator(directory, request_id)
        else:
            response = DeploymentResponse(directory, request_id)
        if get_ident() == directory.thread_ident:
            self._send(response, caller, contextvars.copy_context(), args, kwargs)
        else:
            try:
                directory.token.run_sync_soon(
                    self._send, response, caller, contextvars.copy_context(), args, kwargs
                )
            except trio.RunFinishedError:
                response.reply.fail(InstanceEnded())
        return response  # type: ignore[no-any-return]

    def _send(
        self,
        response: DeploymentResponse[Any] | DeploymentResponseGenerator[Any],
        caller: RequestContext | None,
        context: contextvars.Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """In the Trio thread: send the call, or have the response tell why not."""
        try:
            to = self._destination
            if to is None or to.gone:
                to = self._destination = self._directory.find(self.app_name, self.deployment_name)
            to.by_handles += 1
            parent, deadline = owner_of_calls(caller)
            if self._timeout_s is not None:
                own = trio.current_time() + self._timeout_s
                if own < deadline:
                    deadline = own
                    if isinstance(response, DeploymentResponse):
                        response.leave_at(own)
            route = "" if caller is None else caller.route
            request = RequestContext(response.request_id, self.app_name, self._model_id, deadline, route)
            envelope = to.prepare(
                self._method, args, kwargs, request, response.reply, deadline, self._stream, parent, context
            )
            replies = awaited(args, kwargs)
            if replies:
                response.sent_as(envelope)
                AwaitedArguments(envelope, replies, to.place)
                return
            try:
                to.place(envelope)
            except ServeError:
                envelope.discard()
                raise
            response.sent_as(envelope)
        except (ServeError, CallCancelled, TypeError) as error:
            response.reply.fail(error)

    def __eq__(self, other: object) -> bool:
        """Whether both call the same method of the same deployment of one instance, with the same options."""
        if not isinstance(other, DeploymentHandle):
            return NotImplemented
        return self._directory is other._directory and self.address == other.address

    def __hash__(self) -> int:
        return hash((self.app_name, self.deployment_name, self._method))

    def __repr__(self) -> str:
        method = "" if self._method == "__call__" else f".{self._method}"
        return f"<DeploymentHandle to {self.app_name}/{self.deployment_name}{method}>"


def owner_of_calls(caller: RequestContext | None) -> tuple[Envelope | None, float]:
    """To which envelope a call made now belongs, and the deadline that it inherits.

    A request that has ended well owns nothing any more: what a longer-lived task of its code calls later
    is out of band.

    Raises:
        CallCancelled: the request was cancelled, and so would be what it calls.
    """
    if caller is None or caller.envelope is None:
        return None, inf
    envelope = caller.envelope
    if envelope.cancelled is not None:
        raise CallCancelled("the request that makes this call has been cancelled") from envelope.cancelled
    if envelope.answered:
        return None, inf
    return envelope, caller.deadline


def awaited(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, UnaryReply] | None:
    """The answers that a call needs before it can start, by the place of their argument."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, CallUnderWay):
            break
    else:
        return None
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return {place: _reply_of(value, place) for place, value in places if isinstance(value, CallUnderWay)}


def _reply_of(value: CallUnderWay, place: int | str) -> UnaryReply:
    if isinstance(value, DeploymentResponse):
        return value.reply
    raise TypeError(
        f"argument {place!r} is a stream of items (its call was made with stream=True); "
        "read the items first and pass those"
    )


def _a(kind: type, name: str, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"options({name}={value!r}): it must be a {kind.__name__}")
    return value


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"options(timeout_s={value!r}): it must be a number of seconds over 0, or None")
    return float(value)
