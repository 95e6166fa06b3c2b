"""The face without ``async``: ``serve.start()``, ``serve.run(app)`` in plain scripts; the same names in Trio.

    a script                    a thread of its own, the only one that runs Trio
    --------------------------------------------------------------------------------
    serve.run(app)      ──>     Instance.run(app)       and waits for what it returns
    the script ends     ──>     drained and gone

In a Trio program, and in the code of a replica, the same functions act on the instance that is open around
them: there `run`, `run_many`, `delete` and `shutdown` return what is to be awaited.

The default instance of scripts is the one piece of state that a module of this package keeps.
"""

import atexit
import contextlib
import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import outcome
import trio

from trio_serve.instance.client import Client
from trio_serve.instance.crossing import from_outside, in_its_thread
from trio_serve.instance.instance import Handle, Instance, current_instance, open_instance
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions, options_from
from trio_serve.instance.settings import one_of
from trio_serve.instance.targets import RunTarget
from trio_serve.serving.application import Application
from trio_serve.serving.status import ServeStatus

logger = logging.getLogger("trio_serve.instance")

Result = TypeVar("Result")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


# -- the default instance ------------------------------------------------------------------------------------


class InstanceInThread:
    """An instance in a thread of its own, from `open` to `close`."""

    def __init__(self) -> None:
        self.instance: Instance
        self._token: trio.lowlevel.TrioToken
        self._closing: trio.Event
        self._cut: trio.CancelScope
        self._thread: threading.Thread

    def open(self, options: dict[str, Any]) -> None:
        """Start the thread and wait until the instance is open; raises what kept it from opening."""
        opened: queue.SimpleQueue[outcome.Outcome[Instance]] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(options, opened), name="trio_serve", daemon=True
        )
        self._thread.start()
        self.instance = opened.get().unwrap()

    def _run(self, options: dict[str, Any], opened: "queue.SimpleQueue[outcome.Outcome[Instance]]") -> None:
        try:
            trio.run(self._serve, options, opened)
        except Exception as error:
            if hasattr(self, "instance"):
                logger.exception("the instance has failed, and nothing is served any more")
            opened.put(outcome.Error(error))

    async def _serve(
        self, options: dict[str, Any], opened: "queue.SimpleQueue[outcome.Outcome[Instance]]"
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._closing = trio.Event()
        with trio.CancelScope() as self._cut:
            async with open_instance(**options) as instance:
                opened.put(outcome.Value(instance))
                await self._closing.wait()

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Drain the instance and wait for its end; Ctrl-C meanwhile cuts it short."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closing.set)
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.cut()
            self._thread.join()

    def cut(self) -> None:
        """End everything at once, from any thread."""
        logger.warning("cutting off what is still in flight")
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cut.cancel)


_default: InstanceInThread | None = None
_default_lock = threading.Lock()


def _default_instance(**options: Any) -> Instance:
    """The script's instance, opened with ``options`` when there is none."""
    global _default
    with _default_lock:
        if _default is None or not _default.is_open:
            background = InstanceInThread()
            background.open(options)
            _default = background
            atexit.register(_close_default)
        elif options:
            logger.warning("an instance is running already, the options of start() do not change it")
        return _default.instance


def _close_default() -> None:
    global _default
    with _default_lock:
        background, _default = _default, None
        if background is not None:
            atexit.unregister(_close_default)
            background.close()


# -- the names of the package --------------------------------------------------------------------------------


def start(
    proxy_location: str | None = None,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    *,
    detached: bool = False,
    metrics_options: MetricsOptions | Mapping[str, Any] | None = None,
) -> Client:
    """Open the script's instance: in a thread of its own, until the script ends or `shutdown`.

    Without ``http_options`` the HTTP proxy has its defaults; the gRPC proxy opens when its options name a
    service.  ``proxy_location="Disabled"`` opens none.  ``metrics_options`` open a port for Prometheus.
    ``detached`` is heard and cannot be obeyed here: a warning says what outlives a script.

    Raises:
        RuntimeError: in a Trio program, which has `open_instance`.
        Mistakes: bad options, all of them.
        OSError: a port is in use.
    """
    if _instance_around() is not None or trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "start() is for plain scripts; in Trio write `async with serve.open_instance(...):`"
        )
    options = _script_options(proxy_location, http_options, grpc_options, logging_config)
    if metrics_options is not None:
        options["metrics_options"] = options_from(MetricsOptions, metrics_options, "metrics_options")
    if detached:
        logger.warning(
            "start(detached=True): this instance lives in the script's own process and ends with it; "
            "`trio-serve run` serves on by itself"
        )
    return Client(_default_instance(**options))


def connect() -> Client:
    """A client of the instance that is open.

    Raises:
        RuntimeError: there is none; says how to start one.
    """
    return Client(_instance())


def run(
    target: Application,
    blocking: bool = False,
    name: str = "default",
    route_prefix: str | None = "/",
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
) -> Any:
    """Run an application, or update the one of this name, and wait until it is RUNNING.

    Returns a `DeploymentHandle` for its ingress; in a Trio program, something to await that returns it.  With
    ``blocking`` it stays: in a script until SIGINT or SIGTERM, which drain the instance (a second one cuts
    calls off), in Trio until cancelled.

    Raises:
        TypeError: ``target`` is no application.
        Mistakes: a bad name or prefix.
        Exception: what the constructor of a deployment raised, itself.
    """
    instance = instance_to_run_on()
    run_target = RunTarget(target, name, route_prefix, logging_config)
    if trio.lowlevel.in_trio_run():
        return _run_and_stay(instance, run_target) if blocking else _run_one(instance, run_target)
    handle = from_outside(instance, _run_one, instance, run_target)
    if blocking:
        _stay()
    return handle


def run_many(targets: Sequence[RunTarget], blocking: bool = False) -> Any:
    """Run several applications as `run` does, together; a list of their handles."""
    instance = instance_to_run_on()
    if trio.lowlevel.in_trio_run():
        return instance.run_many(targets)
    handles = from_outside(instance, instance.run_many, targets)
    if blocking:
        _stay()
    return handles


def delete(name: str) -> Any:
    """Drain an application and take it away; KeyError when there is none.  To be awaited in Trio."""
    instance = _instance()
    if trio.lowlevel.in_trio_run():
        return instance.delete(name)
    return from_outside(instance, instance.delete, name)


def shutdown() -> Any:
    """Drain everything and end the instance; nothing happens where there is none.  To be awaited in Trio."""
    if trio.lowlevel.in_trio_run():
        return _instance().shutdown()
    if (around := _instance_around()) is not None:
        return from_outside(around, around.shutdown)
    return _close_default()


def status() -> ServeStatus:
    """What runs, and how it is."""
    instance = _instance()
    return in_its_thread(instance, instance.status)


def get_app_handle(name: str) -> Handle:
    """A handle for the ingress of the application ``name``; KeyError when there is none."""
    instance = _instance()
    return in_its_thread(instance, instance.get_app_handle, name)


def get_deployment_handle(deployment_name: str, app_name: str | None = None) -> Handle:
    """A handle for any deployment of an application (the caller's own, when none is named)."""
    instance = _instance()
    return in_its_thread(instance, instance.get_deployment_handle, deployment_name, app_name)


def grpc_port() -> int | None:
    """The port that the gRPC proxy listens on; None when it is not open."""
    return _instance().grpc_port


def http_port() -> int | None:
    """The port that the HTTP proxy listens on; None when it is not open."""
    return _instance().http_port


# -- how they get there --------------------------------------------------------------------------------------


def _instance_around() -> Instance | None:
    return current_instance.get(None)


def _instance() -> Instance:
    """The instance that a name of the package is about."""
    around = _instance_around()
    if around is not None:
        return around
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "no instance is open in this Trio program; "
            "write `async with serve.open_instance(...):` around it, or use nursery.start(serve.serve, app)"
        )
    if _default is not None and _default.is_open:
        return _default.instance
    raise RuntimeError("no instance is running in this program; serve.start() or serve.run(app) starts one")


def instance_to_run_on() -> Instance:
    """As `_instance`, but a script that has none yet gets one with Ray's defaults."""
    if _instance_around() is None and not trio.lowlevel.in_trio_run() and _default is None:
        return _default_instance(**_script_options(None, None, None, None))
    return _instance()


def _script_options(
    proxy_location: str | None,
    http_options: HTTPOptions | Mapping[str, Any] | None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None,
    logging_config: LoggingConfig | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `open_instance` takes for what `start` was given: Ray opens HTTP always, and gRPC for services."""
    opens = (
        proxy_location is None or one_of("EveryNode", "HeadOnly", "Disabled")(proxy_location) != "Disabled"
    )
    http = options_from(HTTPOptions, http_options or {}, "http_options")
    grpc = options_from(gRPCOptions, grpc_options or {}, "grpc_options")
    logs = None
    if logging_config is not None:
        logs = options_from(LoggingConfig, logging_config, "logging_config")
    elif not logger.hasHandlers():  # the script has set up no logging of its own
        logs = LoggingConfig()
    return {
        "http_options": http if opens else None,
        "grpc_options": grpc if opens and grpc.names_a_service else None,
        "logging_config": logs,
    }


async def _run_one(instance: Instance, target: RunTarget) -> Handle:
    (handle,) = await instance.run_many([target])
    return handle


async def _run_and_stay(instance: Instance, target: RunTarget) -> None:
    await _run_one(instance, target)
    await trio.sleep_forever()


def _stay() -> None:
    """Wait for SIGINT or SIGTERM, drain, and end the script's instance; the next signal cuts it short."""
    background = _default
    assert background is not None
    asked = threading.Event()

    def obey(number: int, frame: object) -> None:
        if asked.is_set():
            background.cut()
            return
        asked.set()  # first: the next signal may come while this one is logged
        logger.info("%s: finishing the calls in flight; again to cut them off", signal.Signals(number).name)

    with _handling(obey):
        logger.info("serving until SIGINT or SIGTERM")
        while background.is_open and not asked.wait(timeout=1.0):
            pass
        _close_default()


@contextlib.contextmanager
def _handling(obey: Callable[[int, Any], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to ``obey``; in another thread than the main one nobody can, and they stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, obey) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
