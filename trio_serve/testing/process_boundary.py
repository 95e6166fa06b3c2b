"""What would not survive a process boundary: arguments and replies are pickled on their way, as on a cluster.

    caller --> arguments --pickle--> copy --> method --> reply --pickle--> copy --> caller

Who gets the copy gets what it would get from another process: what it changes in it, the caller does not see.
What cannot be pickled is passed on as it is, and noted with the deployment, the method and the path of the
value; `Found.raise_if_any` tells all of it together.

Two kinds of values are not looked into, because a cluster does not pickle them as such: protobuf messages,
which travel as their bytes, and what the library itself hands to methods (handles, streams, contexts).

Source: Ray pickles arguments and results with cloudpickle, and so does this.
"""

import inspect
import io
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

from trio_serve.serving.application import Application
from trio_serve.testing.interposing import Arguments, interposed

_LIBRARIES = ("trio_serve", "starlette", "fastapi")


class WouldNotSurvive(AssertionError):
    """Values that cannot go to another process, though the application works in this one."""


class Found:
    """What was found, each thing once, in the order of its appearance."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}

    def note(self, problem: str) -> None:
        self.problems.setdefault(problem)

    def __str__(self) -> str:
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        return f"these would not survive a process boundary:\n{lines}"

    def raise_if_any(self) -> None:
        """Raise `WouldNotSurvive` with all that was found."""
        if self.problems:
            raise WouldNotSurvive(str(self))


def across_processes(application: Application, found: Found) -> Application:
    """``application`` whose calls pass their values through pickle; ``found`` notes what does not pass."""
    return interposed(application, lambda name: _Boundary(name, found))


class _Boundary:
    """Stands before one deployment."""

    def __init__(self, name: str, found: Found) -> None:
        self._name = name
        self._found = found

    def constructing(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for place, value in _named(args, kwargs):
            self._copy(value, f"{self._name}.bind()", place)

    def arrives(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], waits: bool) -> Arguments:
        where = f"{self._name}.{method}"
        copied = tuple(self._copy(value, where, f"argument {index}") for index, value in enumerate(args))
        return copied, {
            key: value if key == "grpc_context" else self._copy(value, where, f"argument {key!r}")
            for key, value in kwargs.items()
        }

    async def holds(self, method: str) -> None:
        pass

    def leaves(self, method: str, value: Any) -> Any:
        return self._copy(value, f"{self._name}.{method}", "reply")

    def raised(self, method: str, error: Exception) -> None:
        copy = self._copy(error, f"{self._name}.{method}", f"error {type(error).__name__}")
        if type(copy) is not type(error):
            self._found.note(f"{self._name}.{method}: error {type(error).__name__} becomes another type")

    def _copy(self, value: Any, where: str, what: str) -> Any:
        if inspect.isawaitable(value) or hasattr(value, "__anext__") or inspect.isgenerator(value):
            return value  # a stream, or what an async method behind a decorator gives
        try:
            return through_pickle(value)
        except Exception as error:
            path, cause = _culprit(value, error)
            self._found.note(f"{where}: {what}{path}: {_shortly(cause)}")
            return value


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((f"argument {index}", value) for index, value in enumerate(args))
    yield from ((f"argument {key!r}", value) for key, value in kwargs.items())


# -- pickling ------------------------------------------------------------------------------------------------


def through_pickle(value: Any) -> Any:
    """The copy of ``value`` that another process would get; raises what pickling or unpickling raises."""
    kept: list[Any] = []
    written = io.BytesIO()
    _Pickler(written, kept).dump(value)
    written.seek(0)
    return _Unpickler(written, kept).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Sets aside what is not pickled as such."""

    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, type) or not (_is_message(value) or _is_the_librarys(value)):
            return None
        self._kept.append(value)
        return len(self._kept) - 1


class _Unpickler(cloudpickle.pickle.Unpickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_load(self, index: int) -> Any:
        value = self._kept[index]
        return type(value).FromString(value.SerializeToString()) if _is_message(value) else value


def _is_message(value: Any) -> bool:
    return hasattr(type(value), "SerializeToString") and hasattr(type(value), "DESCRIPTOR")


def _is_the_librarys(value: Any) -> bool:
    module = getattr(type(value), "__module__", None) or ""
    return module.partition(".")[0] in _LIBRARIES and not isinstance(value, BaseException)


# -- where it is ---------------------------------------------------------------------------------------------

_DEPTH_MAX = 20


def _culprit(value: Any, error: Exception, depth: int = 0) -> tuple[str, Exception]:
    """The path to the innermost part of ``value`` that fails by itself, and its error."""
    if depth < _DEPTH_MAX:
        for step, part in _parts(value):
            try:
                through_pickle(part)
            except Exception as inner:
                path, cause = _culprit(part, inner, depth + 1)
                return step + path, cause
    return "", error


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f" key {key!r}", key
            yield f"[{key!r}]", part
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f"{{{part!r}}}", part) for part in value)
    elif not isinstance(value, type) and not inspect.isroutine(value):
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        for name in [*getattr(value, "__dict__", ()), *slots]:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _shortly(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
