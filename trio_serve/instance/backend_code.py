"""What a backend may be made of, brought into the form of a deployment: one request in, one answer out.

    def f(request), class with __call__(self, request)      as it is
    def f(), def __call__(self)                             the request is left out
    @accept_batch def f(requests) -> list                   gathered into batches, the list handed out again
    "package.module.Class"                                  imported

Source: Ray Serve 1.3, create_backend and accept_batch.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from trio_serve.grpc.import_path import import_object
from trio_serve.instance.backend_config import BackendConfig
from trio_serve.serving.batching import BatchedCall, batch
from trio_serve.serving.request_context import current_request

Code = TypeVar("Code", bound=Callable[..., Any])

_MARK = "__serve_accepts_batch__"


def accept_batch(function: Code) -> Code:
    """Mark a function, or the ``__call__`` of a class, that takes a list of requests and returns a list.

    How many come together is the backend's ``max_batch_size``; how long the first one waits for others, its
    ``batch_wait_timeout``.

    Raises:
        TypeError: it is no function.
    """
    if inspect.isclass(function) or not callable(function):
        raise TypeError(
            f"@accept_batch marks a function or a method, not {function!r}; mark __call__ of a class"
        )
    setattr(function, _MARK, True)
    return function


@attrs.frozen
class BackendCode:
    """``target`` is what the deployment is made of; ``batched``, if it takes batches, has their settings."""

    target: Callable[..., Any]
    batched: BatchedCall[Any] | None

    def apply(self, config: BackendConfig) -> None:
        """Let the next batch be as ``config`` says."""
        if self.batched is not None:
            self.batched.set_max_batch_size(config.max_batch_size or 1)
            self.batched.set_batch_wait_timeout_s(config.batch_wait_timeout)

    def check(self, tag: str, config: BackendConfig) -> None:
        """Refuse a batch size for code that takes one request at a time.

        Raises:
            ValueError: naming the backend, and the way out.
        """
        if config.max_batch_size is not None and self.batched is None:
            raise ValueError(
                f"backend {tag!r} has max_batch_size={config.max_batch_size}, but its code takes one request "
                "at a time; mark the function, or __call__, with @serve.accept_batch"
            )


def backend_code(tag: str, given: Any) -> BackendCode:
    """What ``given`` to ``create_backend`` comes to.

    Raises:
        TypeError: it is neither a function nor a class, nor does it name one.
        ImportPathError: it is a path that leads nowhere; a ValueError.
    """
    code = import_object(given) if isinstance(given, str) else given
    if inspect.isclass(code):
        return _of_class(tag, code)
    if not inspect.isroutine(code):
        raise TypeError(
            f"backend {tag!r}: create_backend() takes a function, a class or 'module.Class', "
            f"and got {given!r} of type {type(given).__name__}"
        )
    if getattr(code, _MARK, False):
        batched = _batched(_ignoring_self(code))
        return BackendCode(
            type(code.__name__, (), {"__call__": batched, "__module__": code.__module__}), batched
        )
    return BackendCode(code if _parameters(code) else _without_request(code), None)


def _of_class(tag: str, code: type) -> BackendCode:
    call = getattr(code, "__call__", None) if "__call__" in dir(code) else None  # noqa: B004
    if not any("__call__" in vars(each) for each in code.__mro__):
        raise TypeError(f"backend {tag!r}: class {code.__name__} has no '__call__(self, request)'")
    changes: dict[str, Any] = {}
    batched = None
    for name, method in inspect.getmembers(code, inspect.isfunction):
        if (name.startswith("_") and name != "__call__") or name in ("reconfigure", "check_health"):
            continue
        if name == "__call__" and getattr(call, _MARK, False):
            changes[name] = batched = _batched(method)
        elif _parameters(method) == 1 and not isinstance(inspect.getattr_static(code, name), staticmethod):
            changes[name] = _method_without_request(method)
    if changes:
        code = type(
            code.__name__, (code,), {**changes, "__module__": code.__module__, "__doc__": code.__doc__}
        )
    return BackendCode(code, batched)


def _parameters(function: Callable[..., Any]) -> int:
    try:
        return len(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C, with no signature to read
        return 1


def _batched(method: Callable[..., Any]) -> Any:
    async def call(self: Any, requests: list[Any]) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(self, requests)
        request = current_request()
        assert request is not None and request.replica is not None
        return await request.replica.run_sync(functools.partial(method, self, requests))

    call.__name__, call.__qualname__ = method.__name__, method.__qualname__
    return batch(max_batch_size=1, batch_wait_timeout_s=0.0)(call)


def _ignoring_self(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call_async(self: Any, requests: list[Any]) -> Any:
        return await function(requests)

    def call(self: Any, requests: list[Any]) -> Any:
        return function(requests)

    return _like(function, call_async, call)


def _without_request(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call_async(request: Any) -> Any:
        return await function()

    def call(request: Any) -> Any:
        return function()

    return _like(function, call_async, call)


def _method_without_request(method: Callable[..., Any]) -> Callable[..., Any]:
    async def call_async(self: Any, request: Any = None) -> Any:
        return await method(self)

    def call(self: Any, request: Any = None) -> Any:
        return method(self)

    return _like(method, call_async, call)


def _like(
    function: Callable[..., Any], call_async: Callable[..., Any], call: Callable[..., Any]
) -> Callable[..., Any]:
    """The one of the two that is of ``function``'s kind, under its name."""
    chosen = call_async if inspect.iscoroutinefunction(function) else call
    chosen.__name__, chosen.__qualname__ = function.__name__, function.__qualname__
    return chosen
