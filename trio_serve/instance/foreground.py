"""``trio-serve run`` in the foreground: import, listen, deploy, serve; a signal drains, a second one cuts.

    plan > applications imported > ports bound > applications deployed > connections accepted > ... > drained

Ports are bound before the applications are deployed, so that one in use is told at once, and connections are
accepted after, so that a client that came too early waits for its answer and gets no error.

Exit codes: 0 a clean stop, 1 the application failed or calls were cut off, 2 a mistake on the command line or
in the configuration.

Knows nothing of options and their texts.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

import attrs
import trio

from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.importing import ImportedCodeRaised
from trio_serve.instance.instance import Instance, open_instance
from trio_serve.instance.loading import load_applications
from trio_serve.instance.plan import CommandLine, ServePlan, plan_of
from trio_serve.instance.progress import logged_progress
from trio_serve.instance.settings import Mistakes
from trio_serve.instance.targets import RunTarget
from trio_serve.observe.blocked_loop import watch_loop
from trio_serve.observe.logs import open_logs
from trio_serve.observe.traces import from_their_first_frame
from trio_serve.proxy.stack_trace import user_stack_trace
from trio_serve.serving.status import ApplicationStatus

logger = logging.getLogger("trio_serve.run")

STOPPED, FAILED, MISTAKEN = 0, 1, 2
"""Exit codes."""


@attrs.frozen
class Supervised:
    """What a process that started this one passed on to it, as file descriptors.

    ``ready``: gets a line for each open port, and a last one, when everything is served.  ``lifeline``: its
    end is a request to stop.  ``grpc_listeners`` and the like: sockets that listen already.  ``worker``: its
    number among several, of which only the process that keeps them tells the ports on stdout.
    """

    ready_fd: int | None = None
    lifeline_fd: int | None = None
    grpc_listener_fds: tuple[int, ...] = ()
    http_listener_fds: tuple[int, ...] = ()
    metrics_listener_fds: tuple[int, ...] = ()
    worker: int | None = None


class _NotServed(Exception):
    """Why nothing is served: ``text`` for the person who started it, and the exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def run_in_foreground(given: CommandLine, supervised: Supervised) -> int:
    """Serve what the command line asks for until a signal says stop; the exit code."""
    # Until Trio runs, SIGTERM interrupts an import as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if supervised.lifeline_fd is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor too, which tells us
    try:
        return _run(given, supervised)
    except _NotServed as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped before anything was served", file=sys.stderr)
        return STOPPED


def _run(given: CommandLine, supervised: Supervised) -> int:
    try:
        plan = plan_of(given)
    except ValueError as error:
        raise _NotServed(str(error), MISTAKEN) from None
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(open_logs(plan.logging_config))
        except OSError as error:
            raise _NotServed(error.strerror or str(error), MISTAKEN) from None
        for warning in plan.warnings:
            logger.warning("%s", warning)
        try:
            targets = load_applications(plan)
        except ImportedCodeRaised as error:
            raise _NotServed(f"{error}\n\n{_trace(error.__cause__ or error)}", FAILED) from None
        except ValueError as error:
            raise _NotServed(str(error), MISTAKEN) from None
        return trio.run(_Foreground(plan, targets, supervised).serve)


class _Foreground:
    """One run: ``asked`` ends serving and lets the instance drain, ``cut`` ends everything at once."""

    def __init__(self, plan: ServePlan, targets: list[RunTarget], supervised: Supervised) -> None:
        self._plan = plan
        self._targets = targets
        self._supervised = supervised
        self._asked = trio.CancelScope()
        self._cut = trio.CancelScope()
        self._instance: Instance | None = None

    async def serve(self) -> int:
        """Serve until told to stop; the exit code."""
        with self._cut, errors_alone():
            async with trio.open_nursery() as watching:
                await watching.start(self._obey_signals)
                watching.start_soon(watch_loop)
                if self._supervised.lifeline_fd is not None:
                    watching.start_soon(self._obey_lifeline, self._supervised.lifeline_fd)
                async with open_instance() as self._instance:
                    with self._asked:
                        await self._start(self._instance)
                        await trio.sleep_forever()
                watching.cancel_scope.cancel()
            logger.info("stopped")
        return FAILED if self._cut.cancelled_caught else STOPPED

    async def _start(self, instance: Instance) -> None:
        plan = self._plan
        began = trio.current_time()
        try:
            inherited = self._supervised
            await instance.listen(
                plan.http_options,
                plan.grpc_options,
                plan.metrics_options,
                grpc_listeners=[socket.socket(fileno=fd) for fd in inherited.grpc_listener_fds],
                http_listeners=[socket.socket(fileno=fd) for fd in inherited.http_listener_fds],
                metrics_listeners=[socket.socket(fileno=fd) for fd in inherited.metrics_listener_fds],
            )
        except Mistakes as found:
            raise _NotServed(str(plan.error(found.mistakes)), MISTAKEN) from None
        except OSError as error:
            raise _NotServed(error.strerror or str(error), FAILED) from None
        try:
            async with logged_progress(instance):
                await instance.run_many(self._targets)
        except Exception as error:
            raise _NotServed(self._why_not(instance, error), FAILED) from None
        await instance.accept()
        self._announce(instance, trio.current_time() - began)

    def _why_not(self, instance: Instance, error: Exception) -> str:
        """Which applications did not start, and why."""
        failed = [
            f"application {name!r}: {app.message}"
            for name, app in instance.status().applications.items()
            if app.status is ApplicationStatus.DEPLOY_FAILED
        ]
        errors = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        return "\n\n".join(["\n".join(failed) or "not started:", *(_trace(each) for each in errors)])

    def _announce(self, instance: Instance, took_s: float) -> None:
        announce(
            list(instance.addresses.items()),
            self._supervised.ready_fd,
            on_stdout=self._supervised.worker is None,
        )
        places = " and ".join(f"{proxy} {address}" for proxy, address in instance.addresses.items())
        logger.info("serving %s on %s, started in %.2f s", self._names, places or "no port", took_s)
        if not instance.addresses:
            logger.warning("no proxy is open; --grpc-servicer-functions or --proto name services to serve")

    @property
    def _names(self) -> str:
        return " and ".join(repr(target.name) for target in self._targets)

    def _in_flight(self) -> str:
        return "0 calls in flight" if self._instance is None else self._instance.in_flight

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        obeyed = (
            {signal.SIGTERM} if self._supervised.lifeline_fd is not None else {signal.SIGTERM, signal.SIGINT}
        )
        try:
            with trio.open_signal_receiver(*obeyed) as arriving:
                task_status.started()
                async for number in arriving:
                    name = signal.Signals(number).name
                    if self._asked.cancel_called:
                        logger.warning("%s again: cutting off %s", name, self._in_flight())
                        self._cut.cancel()
                        return
                    logger.info("%s: draining, %s; a second signal cuts them off", name, self._in_flight())
                    self._asked.cancel()
        finally:
            # The end has come: one signal more would only interrupt it, and be the exit code.
            for number in obeyed:
                signal.signal(number, signal.SIG_IGN)

    async def _obey_lifeline(self, fd: int) -> None:
        """Stop when the process that holds the other end has gone."""
        async with trio.lowlevel.FdStream(fd) as lifeline:
            await lifeline.receive_some(1)
        logger.info("the supervisor has gone: stopping")
        self._asked.cancel()


def announce(addresses: Sequence[tuple[str, str]], ready_fd: int | None, *, on_stdout: bool = True) -> None:
    """Tell who waits for it that everything is served: a line for each open port."""
    lines = [f"{name} {address}\n" for name, address in addresses]
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as ready:
            ready.writelines([*lines, "ready\n"])
    if on_stdout:
        _say(lines)


def _say(lines: Sequence[str]) -> None:
    """Write to stdout, which may be closed, or whose reader may have gone: that ends no service."""
    try:
        print(*lines, sep="", end="", flush=True)
    except OSError:
        # What is left in the buffer would fail once more at the end, and be the exit code.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _trace(error: BaseException) -> str:
    return user_stack_trace(error.with_traceback(from_their_first_frame(error.__traceback__)))
