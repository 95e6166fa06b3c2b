"""What a long-lived instance is started with, and what it opens.

    the command line, or serve.start(detached=True)  >  what was deployed last  >  the defaults

Knows nothing of how anything is opened.
"""

import os
from typing import Any

import attrs

from trio_serve.instance.admin_guard import TOKEN_CHARACTERS_MIN, is_loopback_address
from trio_serve.instance.config_file import ServeConfig
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions


@attrs.frozen
class StartOptions:
    """What `start` was told; None and () where nothing was.

    A command line gives single values, a script whole options.
    """

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
    end_with_pid: int | None = None
    """A process with whose end this instance is to end, too."""
    proxy_location: str | None = None
    http_options: HTTPOptions | None = None
    grpc_options: gRPCOptions | None = None
    metrics_options: MetricsOptions | None = None
    logging_config: LoggingConfig | None = None

    @property
    def problems(self) -> list[str]:
        """What keeps the admin API from being opened like this."""
        problems = []
        host = self.admin_host or "127.0.0.1"
        if self.admin_port is not None and not 0 <= self.admin_port <= 65535:
            problems.append(f"--admin-port: {self.admin_port} is not in 0 to 65535")
        if self.admin_token is not None and not (
            len(self.admin_token) >= TOKEN_CHARACTERS_MIN and self.admin_token.isascii()
        ):
            problems.append(f"--admin-token: it needs {TOKEN_CHARACTERS_MIN} ASCII characters or more")
        if self.admin_host is not None and self.admin_port is None:
            problems.append("--admin-host: it goes with --admin-port")
        if self.admin_token is None and not is_loopback_address(host):
            problems.append(
                f"--admin-host: {host!r} is no address of this machine alone (127.0.0.1); it needs "
                "--admin-token"
            )
        if self.end_with_pid is not None and not hasattr(os, "pidfd_open"):
            problems.append("--end-with-pid: this system cannot tell when a process ends; it needs Linux")
        return problems


@attrs.frozen
class Doors:
    """The options of what listens, and of the log; None for what is not opened."""

    http_options: HTTPOptions | None
    grpc_options: gRPCOptions | None
    metrics_options: MetricsOptions | None
    logging_config: LoggingConfig


def doors_of(given: StartOptions, config: ServeConfig | None) -> Doors:
    """What to open, where ``config`` was deployed last.

    Raises:
        Mistakes
    """
    http = given.http_options or (HTTPOptions() if config is None else config.http_options)
    grpc = given.grpc_options or (gRPCOptions() if config is None else config.grpc_options)
    metrics = given.metrics_options or (None if config is None else config.metrics_options)
    logs = given.logging_config or (LoggingConfig() if config is None else config.logging_config)
    location = given.proxy_location or (None if config is None else config.proxy_location)
    opens = location != "Disabled"
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
    return Doors(http if opens else None, grpc if opens and grpc.names_a_service else None, metrics, logs)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
