"""The long-lived instance: it outlives whoever started it, and runs what the admin API was told last.

    lock ── log ── instance ── proxies, applications
                      │
            desired state <── admin API (Unix socket; TCP where it is asked for)
                      │                                        └──> desired.yaml ────> the next instance
                 scripted <── scripts, with code (Unix socket) ───> scripted.pickle ─> in this directory

What was there when the last one ended, or was killed, is deployed again before the first connection is
accepted, so that clients who come back at once wait for their answer.

Knows nothing of command lines, and of how it was started.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from trio_serve.instance.admin_api import admin_api
from trio_serve.instance.admin_guard import Guard
from trio_serve.instance.code_door import CodeDoor
from trio_serve.instance.desired_state import DesiredState
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.far_instance import Asked
from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED
from trio_serve.instance.importing import put_on_import_path
from trio_serve.instance.imports import Imports
from trio_serve.instance.instance import Instance, open_instance
from trio_serve.instance.rest_schema import (
    Submission,
    application_details,
    instance_details,
    read_submission,
    submission_from_text,
)
from trio_serve.instance.routes import collisions
from trio_serve.instance.scripted import Scripted
from trio_serve.instance.settings import Mistake, Mistakes
from trio_serve.instance.start_options import Doors, StartOptions, doors_of
from trio_serve.instance.state_directory import AnotherInstance, StateDirectory
from trio_serve.observe.logs import open_logs
from trio_serve.serving.controller import NoSuchApplication
from trio_serve.serving.status import ApplicationStatus
from trio_serve.transport.listener import open_listeners

logger = logging.getLogger("trio_serve.instance")

ADMIN_CONNECTIONS_MAX = 64
ADMIN_DRAIN_S = 1.0
CODE_DRAIN_S = 30.0
"""How long calls of scripts have to finish."""
RESTORE_S = 30.0
"""How long connections wait, after a restart, for applications that do not start."""


def run_detached(given: StartOptions, ready_fd: int | None, *, log_to_stderr: bool) -> int:
    """Be the instance of a state directory until told to stop; the exit code.

    ``ready_fd`` gets a line for each open port, and a last one, when it serves.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Trio runs, it interrupts as Ctrl-C
    try:
        if given.problems:
            raise ValueError("\n".join(given.problems))
        state = StateDirectory(given.state_dir)
        with state.owned():
            return _run(given, state, ready_fd, log_to_stderr)
    except (AnotherInstance, OSError) as error:
        print(getattr(error, "strerror", None) or error, file=sys.stderr)
        return FAILED
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISTAKEN
    except KeyboardInterrupt:
        print("stopped before anything was served", file=sys.stderr)
        return STOPPED


def _run(given: StartOptions, state: StateDirectory, ready_fd: int | None, log_to_stderr: bool) -> int:
    put_on_import_path([given.app_dir or os.curdir])
    restored, problem = _restored(state)
    doors = doors_of(given, None if restored is None else restored.config)
    logs = attrs.evolve(doors.logging_config, logs_dir=doors.logging_config.logs_dir or str(state.path))
    with contextlib.ExitStack() as stack:
        # A process without terminal keeps its stderr for crashes; nobody would rotate a log there.
        with contextlib.nullcontext() if log_to_stderr else contextlib.redirect_stderr(None):
            stack.enter_context(open_logs(logs))
        if problem:
            logger.error("%s", problem)
        return trio.run(_Serving(given, state, doors, restored, ready_fd).serve)


def _restored(state: StateDirectory) -> tuple[Submission | None, str]:
    """What was to run when the last instance ended; or why it cannot be known."""
    try:
        text = state.read_desired_state()
        return (None if text is None else submission_from_text(text)), ""
    except ValueError as error:
        aside = state.set_desired_state_aside()
        return None, f"what ran here before is not restored; its configuration is now in {aside}: {error}"


class _Serving:
    """The instance, from its start to its end; what the admin API acts on."""

    def __init__(
        self,
        given: StartOptions,
        state: StateDirectory,
        doors: Doors,
        restored: Submission | None,
        ready_fd: int | None,
    ) -> None:
        self._given = given
        self._state = state
        self._doors = doors
        self._restored = restored
        self._ready_fd = ready_fd
        self._asked = trio.CancelScope()
        self._cut = trio.CancelScope()
        self._changing = trio.Lock()
        self._instance: Instance
        self._desired: DesiredState
        self._scripted: Scripted
        self._deleting: trio.Nursery

    # The life.

    async def serve(self) -> int:
        """Serve until told to stop; the exit code."""
        from trio_serve.proxy.http_server import HttpServer

        local = HttpServer(admin_api(self), connections_max=ADMIN_CONNECTIONS_MAX)
        remote = HttpServer(
            admin_api(self, Guard(self._given.admin_token)), connections_max=ADMIN_CONNECTIONS_MAX
        )
        with self._cut, errors_alone():
            async with trio.open_nursery() as watching:
                await watching.start(self._obey_signals)
                if self._given.end_with_pid is not None:
                    watching.start_soon(self._end_with, self._given.end_with_pid)
                async with open_instance() as self._instance:
                    with errors_alone():
                        async with trio.open_nursery() as keeping:
                            await self._keep(keeping, watching, [local, remote])
                            keeping.cancel_scope.cancel()
                for server in (local, remote):
                    await server.drain(ADMIN_DRAIN_S)
                watching.cancel_scope.cancel()
            logger.info("stopped")
        return FAILED if self._cut.cancelled_caught else STOPPED

    async def _keep(self, keeping: trio.Nursery, watching: trio.Nursery, admin: Sequence[Any]) -> None:
        """Serve, and keep what is wanted, until told to stop; then begin nothing more."""
        imports = Imports()
        self._desired = DesiredState(self._instance, imports)
        door = CodeDoor(self._instance.controller, self._ask)
        self._scripted = Scripted(
            self._instance,
            imports,
            self._state,
            door.handle_to,
            self._configured,
            self._delete_configured,
        )
        self._scripted.read()
        await keeping.start(self._desired.run)
        with errors_alone():
            async with trio.open_nursery() as self._deleting:
                with self._asked:
                    addresses = await self._open(watching, *admin)
                    await self._restore(keeping)
                    await self._instance.accept()
                    await keeping.start(door.serve, self._state.listen(self._state.code_socket_path))
                    self._announce({**self._instance.addresses, **addresses})
                    await trio.sleep_forever()
                await self._desired.stop()
                self._scripted.stop()
                await door.drain(CODE_DRAIN_S)

    async def _open(self, nursery: trio.Nursery, local: Any, remote: Any) -> dict[str, str]:
        """Open the ports, and the admin API; where that is."""
        doors = self._doors
        await self._instance.listen(doors.http_options, doors.grpc_options, doors.metrics_options)
        await nursery.start(local.serve_listeners, [self._state.listen(self._state.socket_path)])
        admin = {"admin": f"unix:{self._state.socket_path}"}
        if self._given.admin_port is not None:
            listeners = await open_listeners(self._given.admin_host or "127.0.0.1", self._given.admin_port)
            admin["admin-http"] = _address(listeners)
            await nursery.start(partial(remote.serve_listeners, listeners))
            if self._given.admin_token is None:
                logger.warning(
                    "the admin API is open on %s to every program and every user of this machine, without a "
                    "token (--admin-token)",
                    admin["admin-http"],
                )
        return admin

    async def _restore(self, nursery: trio.Nursery) -> None:
        """Deploy again what ran before, and wait for it, but not for ever."""
        if self._restored is not None:
            self._desired.want(self._restored)
        nursery.start_soon(self._scripted.restore, self._desired.wait_until_settled)
        with trio.move_on_after(RESTORE_S):
            await self._desired.wait_until_settled()
            await self._scripted.restored.wait()

    def _announce(self, addresses: Mapping[str, str]) -> None:
        lines = [f"{name} {address}\n" for name, address in addresses.items()]
        if self._ready_fd is not None:
            with contextlib.suppress(OSError), os.fdopen(self._ready_fd, "w") as ready:
                ready.writelines([*lines, "ready\n"])
        else:
            sys.stdout.writelines(lines)
            sys.stdout.flush()
        places = " and ".join(f"{name} {address}" for name, address in addresses.items())
        logger.info("the instance in %s serves on %s", self._state.path, places)

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arriving:
            task_status.started()
            async for number in arriving:
                name = signal.Signals(number).name
                if self._asked.cancel_called:
                    logger.warning("%s again: cutting off %s", name, self._in_flight())
                    self._cut.cancel()
                    return
                logger.info("%s: draining, %s; a second signal cuts them off", name, self._in_flight())
                self._asked.cancel()

    def _in_flight(self) -> str:
        instance: Instance | None = getattr(self, "_instance", None)  # a signal can come before there is one
        return "0 calls in flight" if instance is None else instance.in_flight

    async def _end_with(self, pid: int) -> None:
        """Stop when the process ``pid`` has ended, however it did."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                await trio.lowlevel.wait_readable(fd)
            finally:
                os.close(fd)
        logger.info("process %d has ended: draining, to end with it", pid)
        self._asked.cancel()

    # What the admin API asks for.

    async def details(self) -> dict[str, Any]:
        """ServeInstanceDetails."""
        await trio.lowlevel.checkpoint()
        proxies = self._instance.status().proxies
        applications = self._desired.details()
        for name, why in self._scripted.unrestored.items():
            failed = ApplicationStatus.DEPLOY_FAILED.value
            applications.setdefault(name, application_details(name, failed, why, None, None, None))
        return instance_details(self._desired.submission, proxies, applications)

    async def deploy(self, data: Any, folder: str | None, import_folders: Sequence[str]) -> list[str]:
        """Have what ``data`` describes, from now on and after a restart; warnings.

        Raises:
            Mistakes: all that is wrong with it; everything is as it was then.
        """
        places = (folder or os.getcwd(), import_folders)
        submission = await trio.to_thread.run_sync(read_submission, data, *places)
        async with self._changing:
            self._check_beside_scripts(submission)
            wanted = doors_of(self._given, submission.config)
            folders = [*submission.import_folders, submission.folder]
            warnings = [*submission.warnings, *await self._open_late(wanted, submission.data, folders)]
            await self._want(submission)
            await self._scripted.forget(self._configured())
        return warnings

    async def delete(self, name: str | None) -> None:
        """Have the application ``name`` no more, or none at all.

        Raises:
            KeyError: there is no such application.
            Mistakes: another one refers to it.
        """
        running = self._instance.controller.applications
        async with self._changing:
            configured = self._configured()
            scripted = [
                each
                for each in [*running, *self._scripted.unrestored]
                if each not in configured and each not in self._desired.kept
            ]
            if name is None:
                await self._want(None)
                await self._scripted.forget_all()
                self._instance.controller.endpoints.clear()
            elif name in configured:
                assert self._desired.submission is not None
                await self._want(self._desired.submission.without(name))
                return
            elif name in scripted:
                scripted = [name]
                await self._scripted.forget(scripted)
            else:
                known = ", ".join([*configured, *scripted]) or "none"
                raise KeyError(f"no application {name!r} is wanted; there are: {known}")
            for each in scripted:
                self._deleting.start_soon(self._delete_scripted, each)

    def _configured(self) -> Collection[str]:
        submission = self._desired.submission
        return [] if submission is None else [app.name for app in submission.config.applications]

    async def _delete_scripted(self, name: str) -> None:
        with contextlib.suppress(NoSuchApplication):  # its script was quicker
            await self._instance.delete(name)

    async def _delete_configured(self, name: str) -> None:
        await self.delete(name)
        await self._desired.wait_until_settled()

    def _check_beside_scripts(self, submission: Submission) -> None:
        """Refuse route prefixes that scripts have given to others.

        Raises:
            Mistakes
        """
        controller = self._instance.controller
        wanted = submission.config.applications
        gone = {*self._configured(), *(app.name for app in wanted)}
        kept = {name: app for name, app in controller.applications.items() if name not in gone}
        found = collisions(
            [
                *(((), name, app.route_prefix) for name, app in kept.items()),
                *(((), f"endpoint {name}", each.route_prefix) for name, each in controller.endpoints.items()),
                *((("applications", index), app.name, app.route_prefix) for index, app in enumerate(wanted)),
            ]
        )
        if found:
            raise Mistakes(found)

    async def _want(self, submission: Submission | None) -> None:
        """Write it down, and only then begin with it: what was acknowledged survives a kill."""
        # Neither step is to be left out because a client lost patience between them.
        with trio.CancelScope(shield=True):
            if submission is None:
                self._state.forget_desired_state()
            else:
                text = await trio.to_thread.run_sync(submission.to_text)
                await trio.to_thread.run_sync(self._state.write_desired_state, text)
        self._desired.want(submission)

    async def _open_late(
        self, wanted: Doors, named: Collection[str], folders: Sequence[str] = ()
    ) -> list[str]:
        """Open the gRPC proxy for the first one that names services; warnings of what comes too late.

        Only options that were ``named`` are missed.
        """
        if wanted.grpc_options is not None and self._doors.grpc_options is None:
            put_on_import_path([*folders, *sys.path])
            try:
                await self._instance.open_grpc(wanted.grpc_options)
            except OSError as error:
                text = error.strerror or str(error)
                raise Mistakes([Mistake(("grpc_options", "port"), text)]) from None
            self._doors = attrs.evolve(self._doors, grpc_options=wanted.grpc_options)
            logger.info("serving gRPC on %s", self._instance.addresses["grpc"])
        warnings = []
        for name in (field.name for field in attrs.fields(Doors) if field.name in named):
            in_force = getattr(self._doors, name)
            if getattr(wanted, name) != in_force:
                why = "what is open already keeps its options" if in_force else "nothing is open for them"
                warnings.append(f"{name}: {why}; these come into force when the instance is started again")
        return warnings

    def shut_down(self) -> None:
        """Begin to drain and to end."""
        logger.info("asked to shut down: draining")
        self._asked.cancel()

    async def metrics(self) -> bytes:
        """Prometheus' text."""
        await trio.lowlevel.checkpoint()
        return self._instance.metrics_text().encode()

    # What scripts ask for.

    async def _ask(self, asked: Asked) -> Any:
        if asked.what != "offer":
            return await self._scripted.ask(asked)
        _, options = await self._scripted.open(asked)
        config = None if self._desired.submission is None else self._desired.submission.config
        async with self._changing:
            wanted = doors_of(attrs.evolve(self._given, **options), config)
            return await self._open_late(wanted, options)


def _address(listeners: Sequence[socket.socket]) -> str:
    host, port = listeners[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
