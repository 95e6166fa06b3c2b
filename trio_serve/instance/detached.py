"""The long-lived instance: it outlives whoever started it, and runs what the admin API was told last.

    lock ── log ── instance ── proxies, applications
                      │
            desired state <── admin API (Unix socket; TCP where it is asked for)
                      └──> desired.yaml ──> the next instance in this state directory

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
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from trio_serve.instance.admin_api import admin_api
from trio_serve.instance.admin_guard import TOKEN_CHARACTERS_MIN, Guard, is_loopback_address
from trio_serve.instance.config_file import ServeConfig
from trio_serve.instance.desired_state import DesiredState
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED
from trio_serve.instance.importing import put_on_import_path
from trio_serve.instance.instance import Instance, open_instance
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions
from trio_serve.instance.rest_schema import (
    Submission,
    instance_details,
    read_submission,
    submission_from_text,
)
from trio_serve.instance.settings import Mistake, Mistakes
from trio_serve.instance.state_directory import AnotherInstance, StateDirectory
from trio_serve.observe.logs import open_logs
from trio_serve.transport.listener import open_listeners

logger = logging.getLogger("trio_serve.instance")

ADMIN_CONNECTIONS_MAX = 64
ADMIN_DRAIN_S = 1.0
RESTORE_S = 30.0
"""How long connections wait, after a restart, for applications that do not start."""


@attrs.frozen
class StartOptions:
    """What `start` was told; None and () where nothing was."""

    state_dir: str | None = None
    app_dir: str | None = None
    host: str | None = None
    port: int | None = None
    grpc_port: int | None = None
    metrics_export_port: int | None = None
    grpc_servicer_functions: tuple[str, ...] = ()
    protos: tuple[str, ...] = ()
    admin_host: str | None = None
    admin_port: int | None = None
    admin_token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class _Doors:
    """The options of what listens, and of the log."""

    http_options: HTTPOptions | None
    grpc_options: gRPCOptions | None
    metrics_options: MetricsOptions | None
    logging_config: LoggingConfig


def run_detached(given: StartOptions, ready_fd: int | None, *, log_to_stderr: bool) -> int:
    """Be the instance of a state directory until told to stop; the exit code.

    ``ready_fd`` gets a line for each open port, and a last one, when it serves.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Trio runs, it interrupts as Ctrl-C
    try:
        problems = _admin_problems(given)
        if problems:
            raise ValueError("\n".join(problems))
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
    doors = _doors(given, None if restored is None else restored.config)
    logs = attrs.evolve(doors.logging_config, logs_dir=doors.logging_config.logs_dir or str(state.path))
    with contextlib.ExitStack() as stack:
        # A process without terminal keeps its stderr for crashes; nobody would rotate a log there.
        with contextlib.nullcontext() if log_to_stderr else contextlib.redirect_stderr(None):
            stack.enter_context(open_logs(logs))
        if problem:
            logger.error("%s", problem)
        return trio.run(_Serving(given, state, doors, restored, ready_fd).serve)


def _admin_problems(given: StartOptions) -> list[str]:
    problems = []
    host = given.admin_host or "127.0.0.1"
    if given.admin_port is not None and not 0 <= given.admin_port <= 65535:
        problems.append(f"--admin-port: {given.admin_port} is not in 0 to 65535")
    if given.admin_token is not None and not (
        len(given.admin_token) >= TOKEN_CHARACTERS_MIN and given.admin_token.isascii()
    ):
        problems.append(f"--admin-token: it needs {TOKEN_CHARACTERS_MIN} ASCII characters or more")
    if given.admin_host is not None and given.admin_port is None:
        problems.append("--admin-host: it goes with --admin-port")
    if given.admin_token is None and not is_loopback_address(host):
        problems.append(
            f"--admin-host: {host!r} is no address of this machine alone (127.0.0.1); it needs --admin-token"
        )
    return problems


def _restored(state: StateDirectory) -> tuple[Submission | None, str]:
    """What was to run when the last instance ended; or why it cannot be known."""
    try:
        text = state.read_desired_state()
        return (None if text is None else submission_from_text(text)), ""
    except ValueError as error:
        aside = state.set_desired_state_aside()
        return None, f"what ran here before is not restored; its configuration is now in {aside}: {error}"


def _doors(given: StartOptions, config: ServeConfig | None) -> _Doors:
    """What to open: the command line stands over what was deployed, over the defaults.

    Raises:
        Mistakes
    """
    opens = config is None or config.proxy_location != "Disabled"
    http = HTTPOptions() if config is None else config.http_options
    grpc = gRPCOptions() if config is None else config.grpc_options
    metrics = None if config is None else config.metrics_options
    http = attrs.evolve(http, **_given(host=given.host, port=given.port))
    grpc = attrs.evolve(
        grpc,
        **_given(
            host=given.host,
            port=given.grpc_port,
            grpc_servicer_functions=list(given.grpc_servicer_functions) or None,
            protos=[os.path.abspath(proto) for proto in given.protos] or None,
        ),
    )
    if given.metrics_export_port is not None:
        metrics = attrs.evolve(metrics or MetricsOptions(), port=given.metrics_export_port)
    logs = LoggingConfig() if config is None else config.logging_config
    return _Doors(http if opens else None, grpc if opens and grpc.names_a_service else None, metrics, logs)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class _Serving:
    """The instance, from its start to its end; what the admin API acts on."""

    def __init__(
        self,
        given: StartOptions,
        state: StateDirectory,
        doors: _Doors,
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
                async with open_instance() as self._instance:
                    with errors_alone():
                        async with trio.open_nursery() as keeping:
                            self._desired = DesiredState(self._instance)
                            await keeping.start(self._desired.run)
                            with self._asked:
                                await self._open(watching, local, remote)
                                await trio.sleep_forever()
                            await self._desired.stop()
                            keeping.cancel_scope.cancel()
                for server in (local, remote):
                    await server.drain(ADMIN_DRAIN_S)
                watching.cancel_scope.cancel()
            logger.info("stopped")
        return FAILED if self._cut.cancelled_caught else STOPPED

    async def _open(self, nursery: trio.Nursery, local: Any, remote: Any) -> None:
        doors = self._doors
        await self._instance.listen(doors.http_options, doors.grpc_options, doors.metrics_options)
        admin: dict[str, str] = {}
        await nursery.start(local.serve_listeners, [self._state.listen()])
        admin["admin"] = f"unix:{self._state.socket_path}"
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
        if self._restored is not None:
            self._desired.want(self._restored)
            with trio.move_on_after(RESTORE_S):
                await self._desired.wait_until_settled()
        await self._instance.accept()
        self._announce({**self._instance.addresses, **admin})

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
                    logger.warning("%s again: cutting off what is left", name)
                    self._cut.cancel()
                    return
                logger.info("%s: draining; a second signal cuts off what is left", name)
                self._asked.cancel()

    # What the admin API asks for.

    async def details(self) -> dict[str, Any]:
        """ServeInstanceDetails."""
        await trio.lowlevel.checkpoint()
        proxies = self._instance.status().proxies
        return instance_details(self._desired.submission, proxies, self._desired.details())

    async def deploy(self, data: Any, folder: str | None, import_folders: Sequence[str]) -> list[str]:
        """Have what ``data`` describes, from now on and after a restart; warnings.

        Raises:
            Mistakes: all that is wrong with it; everything is as it was then.
        """
        folders = (folder or os.getcwd(), import_folders)
        submission = await trio.to_thread.run_sync(read_submission, data, *folders)
        async with self._changing:
            warnings = [*submission.warnings, *await self._open_late(submission)]
            await self._want(submission)
        for warning in warnings:  # Ray's own CLI shows nothing of the answer
            logger.warning("%s", warning)
        return warnings

    async def delete(self, name: str | None) -> None:
        """Have the application ``name`` no more, or none at all.

        Raises:
            KeyError: there is no such application.
            Mistakes: another one refers to it.
        """
        async with self._changing:
            submission = self._desired.submission
            if name is None:
                await self._want(None)
                return
            known = [] if submission is None else [app.name for app in submission.config.applications]
            if submission is None or name not in known:
                raise KeyError(f"no application {name!r} is wanted; there are: {', '.join(known) or 'none'}")
            await self._want(submission.without(name))

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

    async def _open_late(self, submission: Submission) -> list[str]:
        """Open the gRPC proxy for the first one that names services; warnings of what comes too late."""
        wanted = _doors(self._given, submission.config)
        if wanted.grpc_options is not None and self._doors.grpc_options is None:
            put_on_import_path([*submission.import_folders, submission.folder, *sys.path])
            try:
                await self._instance.open_grpc(wanted.grpc_options)
            except OSError as error:
                text = error.strerror or str(error)
                raise Mistakes([Mistake(("grpc_options", "port"), text)]) from None
            self._doors = attrs.evolve(self._doors, grpc_options=wanted.grpc_options)
            logger.info("serving gRPC on %s", self._instance.addresses["grpc"])
        return [
            f"{field.name}: what is open already keeps its options; these come into force when the instance "
            "is started again"
            for field in attrs.fields(_Doors)
            if field.name in submission.data
            and getattr(self._doors, field.name) is not None
            and getattr(wanted, field.name) != getattr(self._doors, field.name)
        ]

    def shut_down(self) -> None:
        """Begin to drain and to end."""
        logger.info("asked to shut down: draining")
        self._asked.cancel()

    async def metrics(self) -> bytes:
        """Prometheus' text."""
        await trio.lowlevel.checkpoint()
        return self._instance.metrics_text().encode()


def _address(listeners: Sequence[socket.socket]) -> str:
    host, port = listeners[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
