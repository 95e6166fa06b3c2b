"""The face without ``async``: ``serve.start()``, ``serve.run(app)`` in plain scripts; the same names in Trio.

    start()                 an instance in a thread of the script, which ends with it
    start(detached=True)    the long-lived instance of the user's state directory, started if it does not run
    connect()               that instance, when it runs

In a Trio program, and in the code of a replica, the same functions act on the instance that is open around
them: there `run`, `run_many`, `delete` and `shutdown` return what is to be awaited.

The default instance of scripts is the one piece of state that a module of this package keeps.
"""

import atexit
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_serve.instance.client import Client
from trio_serve.instance.in_thread import InThread
from trio_serve.instance.instance import Handle, Instance, current_instance, open_instance
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions, options_from
from trio_serve.instance.reach import Here, Reach
from trio_serve.instance.settings import one_of
from trio_serve.instance.targets import RunTarget
from trio_serve.serving.application import Application
from trio_serve.serving.status import ServeStatus

if TYPE_CHECKING:
    from trio_serve.instance.far_instance import Connection

logger = logging.getLogger("trio_serve.instance")

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_LOCATIONS = ("EveryNode", "HeadOnly", "Disabled")


# -- the default instance ------------------------------------------------------------------------------------


class OwnInstance:
    """An instance in a thread of the script."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._thread: InThread[Instance] = InThread(partial(open_instance, **options))
        self._thread.open()

    @property
    def is_open(self) -> bool:
        return self._thread.is_open

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        return Here(self._thread.value).ask(what, *args, **kwargs)

    def close(self) -> None:
        """Drain it and wait for its end; Ctrl-C meanwhile cuts it short."""
        self._thread.close()

    def cut(self) -> None:
        """End everything at once, from any thread."""
        self._thread.cut()


_default: "OwnInstance | Connection | None" = None
_default_lock = threading.Lock()


def _default_instance(**options: Any) -> "OwnInstance | Connection":
    """The script's instance, opened with ``options`` when there is none."""
    global _default
    with _default_lock:
        if _default is None or not _default.is_open:
            _default = OwnInstance(options)
            atexit.register(_close_default)
        elif options:
            logger.warning("an instance is running already, the options of start() do not change it")
        return _default


def _detached_instance(options: dict[str, Any] | None) -> "Connection":
    """The long-lived instance; with ``options``, it is started when it does not run.

    Raises:
        NoInstance: it does not run.
        RuntimeError: the script has an instance of its own.
        DidNotStart: it could not be started; the text says why.
    """
    from trio_serve.instance.admin_client import NoInstance
    from trio_serve.instance.background import DidNotStart
    from trio_serve.instance.far_instance import Connection
    from trio_serve.instance.starting import start_detached
    from trio_serve.instance.state_directory import StateDirectory

    global _default
    with _default_lock:
        if isinstance(_default, OwnInstance) and _default.is_open:
            raise RuntimeError("this script has an instance of its own already; serve.shutdown() ends it")
        state = StateDirectory(os.environ.get("TRIO_SERVE_STATE_DIR"))
        found = state.is_owned()
        if options is None and not found:
            raise NoInstance(
                f"no instance is running in this program, nor in {state.path}; serve.start() starts one "
                "here, and serve.start(detached=True), or `trio-serve start`, one that outlives the script"
            )
        if options is not None and not found:
            try:
                start_detached(state, ["start", "--state-dir", str(state.path)], options)
            except DidNotStart:
                found = state.is_owned()  # another script was quicker
                if not found:
                    raise
        if not (isinstance(_default, Connection) and _default.is_open and _default.state.path == state.path):
            connection = Connection(state)
            connection.open()
            _default = connection
            atexit.register(_close_default)
        if options and found:
            for warning in _default.ask("offer", **options):
                logger.warning("%s", warning)
        return _default


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

    With ``detached`` it is the long-lived instance of the state directory (``TRIO_SERVE_STATE_DIR``, or the
    user's): started when it does not run, as ``trio-serve start`` does, and still there when the script has
    ended.  One that runs opens the gRPC proxy if it has none; a warning tells which other options come into
    force only when it is started again.

    Raises:
        RuntimeError: in a Trio program, which has `open_instance`; or the long-lived instance did not start.
        Mistakes: bad options, all of them.
        OSError: a port is in use.
    """
    if _instance_around() is not None or trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "start() is for plain scripts; in Trio write `async with serve.open_instance(...):`"
        )
    if detached:
        given: dict[str, tuple[type, Any]] = {
            "http_options": (HTTPOptions, http_options),
            "grpc_options": (gRPCOptions, grpc_options),
            "logging_config": (LoggingConfig, logging_config),
            "metrics_options": (MetricsOptions, metrics_options),
        }
        wanted = {
            name: options_from(cls, each, name) for name, (cls, each) in given.items() if each is not None
        }
        if proxy_location is not None:
            wanted["proxy_location"] = one_of(*_LOCATIONS)(proxy_location)
        return Client(_detached_instance(wanted))
    options = _script_options(proxy_location, http_options, grpc_options, logging_config)
    if metrics_options is not None:
        options["metrics_options"] = options_from(MetricsOptions, metrics_options, "metrics_options")
    return Client(_default_instance(**options))


def connect() -> Client:
    """A client of the instance that is open, or else of the long-lived one of the state directory.

    From then on the names of the package act on it.

    Raises:
        RuntimeError: there is none; says how to start one.
    """
    if _instance_around() is not None or trio.lowlevel.in_trio_run() or (_default and _default.is_open):
        return Client(_reach())
    return Client(_detached_instance(None))


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
    reach = reach_to_run_on()
    run_target = RunTarget(target, name, route_prefix, logging_config)
    if trio.lowlevel.in_trio_run():
        return _run_one(reach, run_target, stay=blocking)
    (handle,) = reach.ask("run_many", [run_target])
    if blocking:
        _stay()
    return handle


def run_many(targets: Sequence[RunTarget], blocking: bool = False) -> Any:
    """Run several applications as `run` does, together; a list of their handles in the same order.

    Raises:
        ExceptionGroup: when more than one failed, with the error of each; otherwise as `run`.
    """
    handles = reach_to_run_on().ask("run_many", targets)
    if blocking and not trio.lowlevel.in_trio_run():
        _stay()
    return handles


def delete(name: str) -> Any:
    """Drain an application and take it away; KeyError when there is none.  To be awaited in Trio."""
    return _reach().ask("delete", name)


def shutdown() -> Any:
    """Drain everything and end the instance; nothing happens where there is none.  To be awaited in Trio."""
    if _instance_around() is not None or trio.lowlevel.in_trio_run():
        return _reach().ask("shutdown")
    if _default is not None and _default.is_open and not isinstance(_default, OwnInstance):
        _default.ask("shutdown")
    return _close_default()


def status() -> ServeStatus:
    """What runs, and how it is."""
    found: ServeStatus = _reach().ask("status")
    return found


def get_app_handle(name: str) -> Handle:
    """A handle for the ingress of the application ``name``; KeyError when there is none."""
    handle: Handle = _reach().ask("get_app_handle", name)
    return handle


def get_deployment_handle(deployment_name: str, app_name: str | None = None) -> Handle:
    """A handle for any deployment of an application (the caller's own, when none is named)."""
    handle: Handle = _reach().ask("get_deployment_handle", deployment_name, app_name)
    return handle


def grpc_port() -> int | None:
    """The port that the gRPC proxy listens on; None when it is not open."""
    port: int | None = _reach().ask("grpc_port")
    return port


def http_port() -> int | None:
    """The port that the HTTP proxy listens on; None when it is not open."""
    port: int | None = _reach().ask("http_port")
    return port


# -- how they get there --------------------------------------------------------------------------------------


def _instance_around() -> Instance | None:
    return current_instance.get(None)


def _reach() -> Reach:
    """The way to the instance that a name of the package is about."""
    around = _instance_around()
    if around is not None:
        return Here(around)
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "no instance is open in this Trio program; "
            "write `async with serve.open_instance(...):` around it, or use nursery.start(serve.serve, app)"
        )
    if _default is not None and _default.is_open:
        return _default
    raise RuntimeError(
        "no instance is running in this program; serve.start() or serve.run(app) starts one, and "
        "serve.connect() finds the one that `trio-serve start` has left"
    )


def reach_to_run_on() -> Reach:
    """As `_reach`, but a script that has none yet gets one with Ray's defaults."""
    if _instance_around() is None and not trio.lowlevel.in_trio_run() and _default is None:
        return _default_instance(**_script_options(None, None, None, None))
    return _reach()


def _script_options(
    proxy_location: str | None,
    http_options: HTTPOptions | Mapping[str, Any] | None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None,
    logging_config: LoggingConfig | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `open_instance` takes for what `start` was given: Ray opens HTTP always, and gRPC for services."""
    opens = proxy_location is None or one_of(*_LOCATIONS)(proxy_location) != "Disabled"
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


async def _run_one(reach: Reach, target: RunTarget, *, stay: bool) -> Handle:
    (handle,) = await reach.ask("run_many", [target])
    if stay:
        await trio.sleep_forever()
    found: Handle = handle
    return found


def _stay() -> None:
    """Wait for SIGINT or SIGTERM, drain, and end the script's instance; the next signal cuts it short.

    A long-lived instance is left, and serves on.
    """
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
