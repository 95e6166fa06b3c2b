"""Values and errors on their way between a script and the instance of its owner: as pickles.

    a function or class of __main__     as code (cloudpickle)
    one of a module                     as its import path, also under @serve.deployment
    a handle                            as its address, and made again from what is there to call
    an error                            with its text, its attributes, and the trace of the other side

Whoever can have a parcel opened can run code, so parcels travel over the owner's Unix socket (mode 0600) and
lie in the owner's files, and no door to a network opens them.

Knows nothing of sockets.
"""

import io
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Any

import cloudpickle
import outcome

from trio_serve.observe.traces import their_part
from trio_serve.serving.deployment import Deployment
from trio_serve.serving.endpoint_handle import EndpointHandle
from trio_serve.serving.errors import CannotCross, one_line
from trio_serve.serving.handle import DeploymentHandle

PARCEL_BYTES_MAX = 256 * 1024 * 1024
"""The most that goes over the socket in one piece, either way."""

MakeHandle = Callable[[type, dict[str, Any]], Any]
"""Makes a `DeploymentHandle` or an `EndpointHandle` that calls what the address says."""


def pack(value: Any) -> bytes:
    """``value`` as a parcel.

    Raises:
        CannotCross: something in it cannot be sent.
    """
    written = io.BytesIO()
    try:
        _Packer(written).dump(value)
    except Exception as error:  # whatever the value's own __reduce__ raises
        raise CannotCross(f"{_shortly(value)} cannot be sent to another process: {one_line(error)}") from None
    return written.getvalue()


def fitting(request: bytes) -> bytes:
    """``request``, when it is not too long.

    Raises:
        CannotCross: it is.
    """
    if len(request) > PARCEL_BYTES_MAX:
        raise CannotCross(
            f"{len(request)} bytes are to be sent, and {PARCEL_BYTES_MAX} is all that a script can send at a "
            "time; let the code in the instance read large data itself"
        )
    return request


def unpack(parcel: bytes, handle_to: MakeHandle) -> Any:
    """What is in ``parcel``; imports the modules that it names, and runs code from it.

    Raises:
        CannotCross: it cannot be made here.
    """
    try:
        return _Unpacker(io.BytesIO(parcel), handle_to).load()
    except Exception as error:
        text = f"what was sent cannot be made in this process (pid {os.getpid()}): {one_line(error)}"
        raise CannotCross(text) from error


def pack_outcome(result: "outcome.Outcome[Any]") -> bytes:
    """A value, or an error that was raised, as one parcel; what cannot be sent becomes an error that can."""
    if isinstance(result, outcome.Value):
        packed = outcome.capture(pack, result.value)
        if isinstance(packed, outcome.Value):
            return pickle.dumps((True, packed.value, "", ""))
        result = packed
    assert isinstance(result, outcome.Error)
    error = result.error
    theirs = their_part(error.__traceback__)
    trace = ""
    if theirs is not None:  # else the error is of ours, and says it all
        trace = "".join(traceback.format_exception(error.with_traceback(theirs)))
    try:
        parcel = pack(error)
    except CannotCross:
        parcel = b""
    return pickle.dumps((False, parcel, one_line(error), trace))


def unpack_outcome(parcel: bytes, handle_to: MakeHandle) -> "outcome.Outcome[Any]":
    """What `pack_outcome` packed; an error of a class that is not known here becomes a `CannotCross`."""
    is_value, inner, text, trace = pickle.loads(parcel)
    if is_value:
        value: outcome.Outcome[Any] = outcome.capture(unpack, inner, handle_to)
        return value
    try:
        error: BaseException = unpack(inner, handle_to)
    except CannotCross:
        return outcome.Error(CannotCross(f"an error that cannot be sent was raised: {text}\n{trace}"))
    if trace:
        error.add_note(f"It was raised in the instance:\n{trace}")
    return outcome.Error(error)


def _shortly(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


# -- what pickle does not do by itself -----------------------------------------------------------------------


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def persistent_id(self, value: Any) -> tuple[type, dict[str, Any]] | None:
        if isinstance(value, DeploymentHandle):
            return DeploymentHandle, value.address
        if isinstance(value, EndpointHandle):
            return EndpointHandle, value.address
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType):
            path = _decorated_as(value)
            if path is not None:
                return _undecorated, path
        elif isinstance(value, BaseException) and type(value).__module__ != "builtins":
            return _error_again, (type(value), value.args, value.__dict__)
        return super().reducer_override(value)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, handle_to: MakeHandle) -> None:
        super().__init__(file)
        self._handle_to = handle_to

    def persistent_load(self, address: Any) -> Any:
        return self._handle_to(*address)


def _decorated_as(code: Any) -> tuple[str, str] | None:
    """Where a module has the deployment that was made of ``code``; None for code of ``__main__``.

    Under the decorator the name no longer leads to the code itself, and pickle, which wants to find it again
    by its name, would give up.
    """
    module = sys.modules.get(code.__module__ or "")
    if module is None or module.__name__ == "__main__":
        return None
    found = _attribute(module, code.__qualname__)
    if isinstance(found, Deployment) and found.func_or_class is code:
        return code.__module__, code.__qualname__
    return None


def _attribute(module: Any, path: str) -> Any:
    found = module
    for step in path.split("."):
        found = getattr(found, step, None)
    return found


def _undecorated(module: str, path: str) -> Any:
    __import__(module)
    found = _attribute(sys.modules[module], path)
    return found.func_or_class if isinstance(found, Deployment) else found


def _error_again(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """The error without its own ``__init__``, which may take other arguments than the error has kept."""
    error = cls.__new__(cls, *args)
    builtin: Any = next(each for each in cls.__mro__ if each.__module__ == "builtins")
    builtin.__init__(error, *args)
    error.__dict__.update(state)
    return error
