"""What can be set on the two proxies and on the log: Ray Serve's names and defaults, and ours besides.

Each class takes its fields by name, is frozen, and refuses bad values when it is made, all of them at once.
Wherever one is asked for, a dict with the same keys does as well (``*_options_from``).

Ours, and not in Ray: ``host``, ``tls``, ``protos``, ``message_bytes_max``, ``keepalive``,
``max_connection_age_s``, ``drain_timeout_s``, ``expose_tracebacks`` and ``faults`` of `gRPCOptions`, and
``drain_timeout_s`` and ``cors_origins`` of `HTTPOptions`.

Knows nothing of what the options do.
"""

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from trio_serve.instance.settings import (
    Mistakes,
    check_settings,
    flag,
    list_of,
    nonempty_text,
    one_of,
    optional,
    read_settings,
    seconds,
    setting,
    settings,
    shown,
    text,
    whole_number,
    wrong,
)

T = TypeVar("T")

_port = whole_number(0, 65535)


def _import_path(value: Any) -> Any:
    """A text names something to import; whatever else is the thing itself, and checked where it is used."""
    return nonempty_text(value) if isinstance(value, str) else value


def _log_level(value: Any) -> str:
    """The name of a level of the logging module, from its name or number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = logging.getLevelName(value)
    return str(one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(value))


def _root_path(value: Any) -> str:
    path = text(value)
    if path and not path.startswith("/"):
        raise wrong(f"{shown(path)} does not begin with '/'")
    return path.rstrip("/")


@attrs.frozen
class TLSOptions:
    """PEM files of a server that speaks TLS; with ``client_ca`` it asks each client for a certificate too."""

    cert: str = setting(nonempty_text, is_path=True)
    key: str = setting(nonempty_text, is_path=True)
    client_ca: str | None = setting(optional(nonempty_text), None, is_path=True)

    __attrs_post_init__ = check_settings


@attrs.frozen
class KeepaliveOptions:
    """How a silent connection is probed (gRFC A9), and how often a client may probe us (gRFC A8).

    After ``time_s`` without a byte from the peer a PING is sent; without an answer for ``timeout_s`` the
    connection is closed.  A client that pings more often than each ``interval_min_s`` is sent away.
    """

    time_s: float = setting(seconds, 7200.0)
    timeout_s: float = setting(seconds, 20.0)
    interval_min_s: float = setting(seconds, 10.0)

    __attrs_post_init__ = check_settings


def _share(value: Any) -> float:
    """A part of all: a number from 0 to 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise wrong(f"{shown(value)} is not a number from 0 to 1")
    return float(value)


@attrs.frozen
class FaultOptions:
    """Faults that the gRPC proxy makes on purpose, to try clients with (``trio_serve.grpc.wire_faults``)."""

    seed: int | None = setting(optional(whole_number(0)), None)
    latency_s: float | None = setting(optional(seconds), None)
    latency_jitter_s: float | None = setting(optional(seconds), None)
    cut_after_bytes: int | None = setting(optional(whole_number(1)), None)
    stall_after_bytes: int | None = setting(optional(whole_number(1)), None)
    reset_share: float = setting(_share, 0.0)
    reset_code: str = setting(
        one_of("INTERNAL_ERROR", "REFUSED_STREAM", "CANCEL", "ENHANCE_YOUR_CALM"), "INTERNAL_ERROR"
    )
    goaway_after_calls: int | None = setting(optional(whole_number(1)), None)

    __attrs_post_init__ = check_settings


@attrs.frozen
class gRPCOptions:  # noqa: N801  # the name that Ray gave it
    """The gRPC proxy.

    ``grpc_servicer_functions`` say which services it knows: import paths (``module:attribute`` or dotted) of
    ``add_XServicer_to_server`` functions, of grpclib bases or of ``_pb2`` modules, or the things themselves;
    ``protos`` are paths of ``.proto`` files, which need no generated code.  Port 0 takes a free port.
    """

    port: int = setting(_port, 9000)
    grpc_servicer_functions: list[Any] = setting(list_of(_import_path), [])
    request_timeout_s: float | None = setting(optional(seconds), None)
    enable_reflection: bool = setting(flag, True)
    host: str = setting(nonempty_text, "127.0.0.1")
    tls: TLSOptions | None = setting(optional(settings(TLSOptions)), None)
    protos: list[str] = setting(list_of(nonempty_text), [], is_path=True)
    message_bytes_max: int = setting(whole_number(1, 2**32 - 1), 4 * 1024 * 1024)
    keepalive: KeepaliveOptions = setting(settings(KeepaliveOptions), KeepaliveOptions())
    max_connection_age_s: float | None = setting(optional(seconds), None)
    drain_timeout_s: float = setting(seconds, 30.0)
    expose_tracebacks: bool = setting(flag, True)
    faults: FaultOptions | None = setting(optional(settings(FaultOptions)), None)

    __attrs_post_init__ = check_settings

    @property
    def names_a_service(self) -> bool:
        """Whether there is anything to serve: in Ray this is what decides if a gRPC proxy starts at all."""
        return bool(self.grpc_servicer_functions or self.protos)


@attrs.frozen
class HTTPOptions:
    """The HTTP proxy.  ``root_path`` stands before every route; port 0 takes a free port.

    ``cors_origins`` are the origins (``https://shop.example``, or ``*``) whose pages may call gRPC services
    here; none may until it is set.
    """

    host: str = setting(nonempty_text, "127.0.0.1")
    port: int = setting(_port, 8000)
    root_path: str = setting(_root_path, "")
    request_timeout_s: float | None = setting(optional(seconds), None)
    keep_alive_timeout_s: float = setting(seconds, 90.0)
    ssl_keyfile: str | None = setting(optional(nonempty_text), None, is_path=True)
    ssl_certfile: str | None = setting(optional(nonempty_text), None, is_path=True)
    ssl_keyfile_password: str | None = setting(optional(text), None)
    ssl_ca_certs: str | None = setting(optional(nonempty_text), None, is_path=True)
    drain_timeout_s: float = setting(seconds, 30.0)
    cors_origins: list[str] = setting(list_of(nonempty_text), [])

    def __attrs_post_init__(self) -> None:
        check_settings(self)
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise wrong("ssl_keyfile and ssl_certfile go together; one of them is missing")


@attrs.frozen
class MetricsOptions:
    """The port that Prometheus scrapes; port 0 takes a free one.

    ``ray_prefix``: each name is exported as ``ray_<name>`` besides, as Ray's dashboards ask for it.
    """

    port: int = setting(_port, 8080)
    host: str = setting(nonempty_text, "127.0.0.1")
    ray_prefix: bool = setting(flag, True)

    __attrs_post_init__ = check_settings


@attrs.frozen
class LoggingConfig:
    """What the logger ``trio_serve`` writes, and how; or what the code of one deployment logs.

    With ``logs_dir``, lines go to ``<logs_dir>/session_latest/logs/serve/serve.log`` besides (for the whole
    instance only).
    """

    encoding: str = setting(one_of("TEXT", "JSON"), "TEXT")
    log_level: str = setting(_log_level, "INFO")
    logs_dir: str | None = setting(optional(nonempty_text), None, is_path=True)
    enable_access_log: bool = setting(flag, True)
    additional_log_standard_attrs: list[str] = setting(list_of(nonempty_text), [])

    __attrs_post_init__ = check_settings


def options_from(cls: type[T], value: T | Mapping[str, Any], name: str) -> T:
    """The options of ``cls`` in ``value``, which the caller knows as ``name``.

    Raises:
        Mistakes: with the path of each, from ``name`` on.
    """
    try:
        return read_settings(cls, value)
    except Mistakes as found:
        raise found.below(name) from None
