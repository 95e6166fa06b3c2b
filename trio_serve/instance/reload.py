"""``trio-serve run --reload``: a new process for each version of the code, and no call lost between them.

    edit > start the new version on the same listening sockets > it serves: drain the old one
                                                              > it does not start: the old one serves on

This process imports nothing of the user's.  It keeps the listening sockets, so that a connection that comes
in between two versions waits in the kernel, and lets a process of its own import each version: what a module
left behind (threads, registered metrics, protobuf descriptors) ends with it.

Knows nothing of what is served.
"""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import trio
from watchfiles import PythonFilter, awatch

from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED
from trio_serve.instance.plan import CommandLine, ServePlan, plan_of
from trio_serve.instance.serving_process import ServingProcess, SharedListeners, start_serving
from trio_serve.observe.logs import open_logs

logger = logging.getLogger("trio_serve.reload")

# watchfiles looks in a thread, which ends this much after it was told to.
WATCH_CANCEL_MS = 200


def run_reloading(given: CommandLine, argv: list[str]) -> int:
    """Serve what the command line ``argv``, read as ``given``, asks for, anew after edits; the exit code."""
    try:
        plan = plan_of(given)
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISTAKEN
    with open_logs(plan.logging_config, files=False):
        return trio.run(_Reloader(given, argv).serve, plan)


class _Reloader:
    def __init__(self, given: CommandLine, argv: list[str]) -> None:
        self._given = given
        self._argv = argv
        self._serving: ServingProcess | None = None
        self._starting: ServingProcess | None = None
        self._edits = _Edits()
        self._listeners = SharedListeners()
        self._asked = trio.CancelScope()

    async def serve(self, plan: ServePlan) -> int:
        """Serve one version after the other until a signal says stop; the exit code."""
        try:
            with errors_alone():
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._obey_signals)
                    nursery.start_soon(self._edits.watch)
                    with self._asked:
                        await self._serve_versions(plan, nursery)
                    for version in (self._starting, self._serving):
                        if version is not None:
                            await version.stop()
                    nursery.cancel_scope.cancel()
        except OSError as error:  # the port is in use
            print(error.strerror or error, file=sys.stderr)
            return FAILED
        finally:
            self._listeners.close()
        return STOPPED

    async def _serve_versions(self, plan: ServePlan, nursery: trio.Nursery) -> None:
        while True:
            self._edits.look_at(plan)
            try:
                await self._listeners.listen_for(plan)
            except OSError as error:  # the edit names a port that is in use
                if self._serving is None:
                    raise
                print(error.strerror or error, file=sys.stderr)
                self._say_what_serves_on()
                plan = await self._next_plan()
                continue
            self._starting = version = await self._start()
            serves = await _first_of(version.serves, self._edits.wait)
            self._starting = None
            if serves:
                old, self._serving = self._serving, version
                nursery.start_soon(self._notice_end, version)
            else:
                old = version
                if serves is not None:
                    self._say_what_serves_on()
            if old is not None:
                nursery.start_soon(old.stop)
            plan = await self._next_plan()

    async def _next_plan(self) -> ServePlan:
        """Wait for an edit after which the configuration can be read."""
        while True:
            await self._edits.wait()
            logger.info("%s: starting the new version", self._edits.taken())
            try:
                return plan_of(self._given)
            except ValueError as error:
                print(error, file=sys.stderr)
                self._say_what_serves_on()

    def _say_what_serves_on(self) -> None:
        if self._serving is None:
            logger.error("it does not start, for the reason above; waiting for an edit")
        else:
            logger.error("it does not start, for the reason above; the version before it serves on")

    async def _start(self) -> ServingProcess:
        # Two edits within a second, of the same length, look the same to cached bytecode.
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}
        return await start_serving([*self._argv, "--no-reload"], self._listeners.fds(), environment)

    async def _notice_end(self, version: ServingProcess) -> None:
        code = await version.process.wait()
        if version is self._serving and not self._asked.cancel_called:
            logger.error("the serving process ended with exit code %d; waiting for an edit", code)
            self._serving = None
            await version.stop()

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arriving:
            task_status.started()
            async for _ in arriving:
                if self._asked.cancel_called:
                    for version in (self._starting, self._serving):
                        if version is not None:
                            version.process.terminate()
                self._asked.cancel()


class _Edits:
    """Which files were changed, of those that make up the code, the configuration and the protos."""

    def __init__(self) -> None:
        self._changed: dict[str, None] = {}
        self._any = trio.Event()
        self._folders: frozenset[str] = frozenset()
        self._watching = trio.CancelScope()

    def look_at(self, plan: ServePlan) -> None:
        """Watch, from now on, the folders that ``plan`` is made from."""
        folders = [*plan.import_folders, *(plan.grpc_options.protos if plan.grpc_options else ())]
        found = frozenset(os.path.abspath(each) for each in folders if os.path.exists(each))
        if found != self._folders:
            self._folders = found
            self._watching.cancel()

    async def wait(self) -> None:
        """Return when there is an edit that was not taken yet."""
        await self._any.wait()

    def taken(self) -> str:
        """The names of the edited files; they are forgotten with it."""
        names = [os.path.relpath(path) for path in self._changed]
        self._changed.clear()
        self._any = trio.Event()
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    async def watch(self) -> None:
        while True:
            with trio.CancelScope() as self._watching:
                if not self._folders:
                    await trio.sleep_forever()
                async for changes in awatch(
                    *self._folders,
                    watch_filter=PythonFilter(extra_extensions=(".yaml", ".yml", ".proto")),
                    rust_timeout=WATCH_CANCEL_MS,
                    yield_on_timeout=False,
                ):
                    self._changed.update(dict.fromkeys(path for _, path in sorted(changes)))
                    self._any.set()


async def _first_of(one: Callable[[], Awaitable[bool]], other: Callable[[], Awaitable[None]]) -> bool | None:
    """What ``one`` returns, or None when ``other`` returned before."""
    result: bool | None = None

    async def wait_for_one() -> None:
        nonlocal result
        result = await one()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_one)
        await other()
        nursery.cancel_scope.cancel()
    return result
