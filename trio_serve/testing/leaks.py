"""Leaks: tasks, threads, sockets and answers nobody asked for, each with the place where it was made.

    with watching_for_leaks() as leaks:     notes what is made in the block, and where
        ...
    leaks.raise_if_any()                    what of it is still there

How each is seen:

    tasks       Trio's instruments tell of each; what counts is a task outside the nurseries of the caller,
                such as a system task: all others are ended by their nursery
    threads     ``Thread.start`` notes them for the length of the block; those that Trio keeps do not count
    sockets     Python's audit events
    responses   `remote` was called, and the response was neither awaited nor asked for its result, nor given
                to another call, nor cancelled.  For the length of the block such responses are made with a
                reply that remembers who wanted it

Audit hooks cannot be taken away again.  Ours is added by the first watch of the process, and returns at once
while there is none.
"""

import contextlib
import gc
import os
import socket as socket_module
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from socket import socket
from typing import Any
from weakref import WeakKeyDictionary

import outcome
import trio

from trio_serve.actors import CallCancelled
from trio_serve.serving import responses
from trio_serve.serving.replies import UnaryReply

_THREADS_OF_TRIO = "Trio thread"
_FOLDERS = tuple(os.path.dirname(module.__file__ or "") + os.sep for module in (trio, outcome))
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_FILES = tuple(module.__file__ for module in (threading, contextlib, socket_module))


class Leaked(AssertionError):
    """Something that was made in the block is still there after it."""


class Leaks:
    """What is made while this watches."""

    def __init__(self) -> None:
        self.threads: dict[threading.Thread, str] = {}
        self.sockets: WeakKeyDictionary[socket, str] = WeakKeyDictionary()
        self.replies: list[_WatchedReply] = []
        self.tasks: dict[trio.lowlevel.Task, str] = {}

    def found(self) -> list[str]:
        """What is still there, a line each."""
        gc.collect()
        return [
            *(f"task {task.name} is still running, {place}" for task, place in self.tasks.items()),
            *(
                f"thread {thread.name!r} is still running, {place}"
                for thread, place in self.threads.items()
                if thread.is_alive() and not thread.name.startswith(_THREADS_OF_TRIO)
            ),
            *(f"{_shown(each)} is still open, {place}" for each, place in self._open_sockets()),
            *(
                f"the response of a call was never awaited, {reply.place}"
                for reply in self.replies
                if not reply.was_wanted
            ),
        ]

    def _open_sockets(self) -> list[tuple[socket, str]]:
        return [(each, place) for each, place in list(self.sockets.items()) if each.fileno() != -1]

    def raise_if_any(self) -> None:
        """Raise `Leaked` with all that was found."""
        if found := self.found():
            raise Leaked("the test leaves behind:\n" + "\n".join(f"  {line}" for line in found))


@contextmanager
def watching_for_leaks() -> Iterator[Leaks]:
    """Note what is made within the block; to be used within a Trio run, by one test at a time.

    Ask ``raise_if_any`` after the block has done its own cleaning up.
    """
    leaks = Leaks()
    tasks = _Tasks(leaks)
    _listen(leaks)
    trio.lowlevel.add_instrument(tasks)
    names = vars(responses)
    factory = names["UnaryReply"]
    names["UnaryReply"] = partial(_WatchedReply, leaks)
    start = threading.Thread.start

    def start_noted(thread: threading.Thread) -> None:
        leaks.threads[thread] = _place()
        start(thread)

    threading.Thread.start = start_noted  # type: ignore[method-assign, assignment]
    try:
        yield leaks
    finally:
        names["UnaryReply"] = factory
        threading.Thread.start = start  # type: ignore[method-assign]
        trio.lowlevel.remove_instrument(tasks)
        _watching.remove(leaks)


# -- responses -----------------------------------------------------------------------------------------------


class _WatchedReply(UnaryReply):
    """A reply that remembers whether anybody ever wanted it."""

    __slots__ = ("place", "was_wanted")

    def __init__(self, leaks: Leaks) -> None:
        super().__init__()
        self.place = _place()
        self.was_wanted = False
        leaks.replies.append(self)

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        self.was_wanted = True
        return await super().wait(*args, **kwargs)

    def listen(self, listener: Any) -> None:
        self.was_wanted = True
        super().listen(listener)

    def fail(self, error: BaseException, /) -> None:
        if isinstance(error, CallCancelled):
            self.was_wanted |= "by its caller" in str(error)
        super().fail(error)


# -- tasks ---------------------------------------------------------------------------------------------------


class _Tasks(trio.abc.Instrument):
    """Notes tasks that no nursery of the caller's will end."""

    def __init__(self, leaks: Leaks) -> None:
        self._leaks = leaks
        self._root = trio.lowlevel.current_root_task()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        is_system_task = nursery is not None and nursery.parent_task is self._root
        if is_system_task and not (task.coro.__qualname__ or "").startswith("ThreadsAtWork"):
            self._leaks.tasks[task] = _place()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._leaks.tasks.pop(task, None)


# -- threads and sockets -------------------------------------------------------------------------------------

_watching: list[Leaks] = []
_hooked: list[bool] = []


def _listen(leaks: Leaks) -> None:
    _watching.append(leaks)
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_heard)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "socket.__new__" and isinstance(args[0], socket):
        place = _place()
        for leaks in _watching:
            leaks.sockets[args[0]] = place


def _shown(each: socket) -> str:
    return f"socket {each.fileno()}"


# -- places --------------------------------------------------------------------------------------------------


def _place() -> str:
    """Where the code that is not ours stands: ``made at tests/test_it.py:17 in SayHello``."""
    for frame, line in traceback.walk_stack(sys._getframe(1)):
        file = frame.f_code.co_filename
        if not file.startswith((*_FOLDERS, _PACKAGE, "<")) and file not in _FILES:
            return f"made at {file}:{line} in {frame.f_code.co_name}"
    return "made by the library itself"
