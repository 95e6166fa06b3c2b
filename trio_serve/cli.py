"""The command line: what is asked for, as click understands it.

Every option can be given as ``TRIO_SERVE_<OPTION>`` in the environment as well.  Exit codes: 0 a clean stop,
1 the application failed, 2 a mistake on the command line or in the configuration.

Knows options and their texts; what they lead to is in ``instance``.
"""

import sys
from typing import Any

import click

from trio_serve import cli_detached
from trio_serve.cli_detached import option as _option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trio-serve")
def main() -> None:
    """Serve Python applications over gRPC and HTTP."""


for _command in cli_detached.COMMANDS:
    main.add_command(_command)


@main.command()
@click.argument("target", metavar="MODULE:APP|CONFIG.yaml")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@_option("--app-dir", type=click.Path(), help="Folder to import from.  [default: the working directory]")
@_option("--host", help="Address that the proxies listen on.  [default: 127.0.0.1]")
@_option("--port", type=int, help="Port of the HTTP proxy; 0 takes a free one.  [default: 8000]")
@_option("--grpc-port", type=int, help="Port of the gRPC proxy; 0 takes a free one.  [default: 9000]")
@_option(
    "--metrics-export-port",
    type=int,
    metavar="PORT",
    help="Port that Prometheus scrapes (/metrics, on 127.0.0.1); 0 takes a free one.  [default: none]",
)
@_option(
    "--grpc-servicer-functions",
    multiple=True,
    metavar="IMPORT_PATH",
    help="An add_XServicer_to_server function, a grpclib base or a _pb2 module. Can be repeated.",
)
@_option(
    "--proto",
    "protos",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="A .proto file whose services are served with no generated code. Can be repeated.",
)
@_option("--name", help="Name of the application.  [default: default]")
@_option("--route-prefix", help="Where the application lies over HTTP.  [default: /]")
@_option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that serve side by side, each with all replicas of its own.",
)
@_option("--reload/--no-reload", help="Serve anew when code, configuration or protos change.")
@_option(
    "--blocking/--non-blocking",
    default=True,
    show_default=True,
    help="Stay in the foreground, or return as soon as it serves.",
)
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--lifeline-fd", type=int, hidden=True)
@click.option("--grpc-listener-fd", "grpc_listener_fds", type=int, multiple=True, hidden=True)
@click.option("--http-listener-fd", "http_listener_fds", type=int, multiple=True, hidden=True)
@click.option("--metrics-listener-fd", "metrics_listener_fds", type=int, multiple=True, hidden=True)
@click.option("--worker", type=int, hidden=True)
def run(
    target: str,
    arguments: tuple[str, ...],
    reload: bool,
    blocking: bool,
    ready_fd: int | None,
    lifeline_fd: int | None,
    grpc_listener_fds: tuple[int, ...],
    http_listener_fds: tuple[int, ...],
    metrics_listener_fds: tuple[int, ...],
    workers: int,
    worker: int | None,
    **options: Any,
) -> None:
    """Serve an application, or those of a file.

    SIGINT or SIGTERM end it: the first one lets the calls in flight finish, a second one cuts them off.
    KEY=VALUE are arguments for an application builder.  When it serves, a line for each open port goes to
    stdout; the log goes to stderr.
    """
    from trio_serve.instance.plan import CommandLine

    given = CommandLine(target=target, args=_key_values(arguments), **options)
    if reload and not blocking:
        raise click.UsageError("--reload needs a terminal to tell you about; it goes with --blocking")
    if reload and workers > 1:
        raise click.UsageError("--reload is for one process; it goes with --workers 1")
    if reload:
        from trio_serve.instance.reload import run_reloading

        sys.exit(run_reloading(given, sys.argv[1:]))
    if not blocking:
        from trio_serve.instance.background import run_in_background

        sys.exit(run_in_background(given, sys.argv[1:]))
    if workers > 1:
        from trio_serve.instance.workers import run_with_workers

        sys.exit(run_with_workers(given, sys.argv[1:], workers, ready_fd))
    from trio_serve.instance.foreground import Supervised, run_in_foreground

    listening = (grpc_listener_fds, http_listener_fds, metrics_listener_fds)
    sys.exit(run_in_foreground(given, Supervised(ready_fd, lifeline_fd, *listening, worker)))


def _key_values(arguments: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise click.UsageError(f"{argument!r} is no KEY=VALUE")
        if key in values:
            raise click.UsageError(f"{key!r} is given twice, as {values[key]!r} and as {value!r}")
        values[key] = value
    return values
