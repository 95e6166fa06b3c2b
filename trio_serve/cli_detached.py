"""The commands for configuration files and for the long-lived instance, as click understands them.

Knows options and their texts; what they lead to is in ``instance``.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(name: str, *more: str, **settings: Any) -> Callable[[Command], Command]:
    """An option that ``TRIO_SERVE_<OPTION>`` stands for too."""
    variable = name.partition("/")[0].strip("-").replace("-", "_").upper()
    return click.option(name, *more, envvar=f"TRIO_SERVE_{variable}", show_envvar=True, **settings)


@click.command()
@click.argument("import_paths", metavar="IMPORT_PATH...", nargs=-1, required=True)
@click.option("-o", "--output-path", metavar="FILE", type=click.Path(), help="Where to.  [default: stdout]")
@option("--app-dir", type=click.Path(), help="Folder to import from.  [default: the working directory]")
@option(
    "--grpc-servicer-functions",
    multiple=True,
    metavar="IMPORT_PATH",
    help="A gRPC service that the file is to name. Can be repeated.",
)
def build(
    import_paths: tuple[str, ...],
    output_path: str | None,
    app_dir: str | None,
    grpc_servicer_functions: tuple[str, ...],
) -> None:
    """Write the configuration file of applications.

    It has their deployments, and the options that the code sets.
    """
    from trio_serve.instance.building import build_file

    sys.exit(build_file(import_paths, output_path, app_dir, grpc_servicer_functions))


_state_dir = option(
    "--state-dir",
    type=click.Path(),
    metavar="DIR",
    help="Where the instance lives.  [default: the user's state directory]",
)
_name = click.option("-n", "--name", metavar="APP", help="Only this application.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command()
@_state_dir
@option(
    "--app-dir", type=click.Path(), help="Folder to import services from.  [default: the working directory]"
)
@option("--host", help="Address that the proxies listen on.  [default: 127.0.0.1]")
@option("--port", type=int, help="Port of the HTTP proxy; 0 takes a free one.  [default: 8000]")
@option("--grpc-port", type=int, help="Port of the gRPC proxy; 0 takes a free one.  [default: 9000]")
@option(
    "--metrics-export-port", type=int, metavar="PORT", help="Port that Prometheus scrapes.  [default: none]"
)
@option(
    "--grpc-servicer-functions",
    multiple=True,
    metavar="IMPORT_PATH",
    help="An add_XServicer_to_server function, a grpclib base or a _pb2 module. Can be repeated.",
)
@option("--proto", "protos", multiple=True, type=click.Path(), metavar="FILE", help="A .proto file to serve.")
@option(
    "--admin-port",
    type=int,
    metavar="PORT",
    help="Open the admin API on TCP, too, as Ray's own CLI needs it.  [default: none]",
)
@option("--admin-host", help="Address of --admin-port; any but 127.0.0.1 needs a token.")
@option("--admin-token", help="What clients of --admin-port must know; better in the environment.")
@click.option("--blocking/--non-blocking", default=False, show_default=True, help="Stay in the foreground.")
@option("--end-with-pid", type=int, metavar="PID", help="Stop when this process ends.  [default: none]")
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--options-fd", type=int, hidden=True)
def start(blocking: bool, ready_fd: int | None, options_fd: int | None, **options: Any) -> None:
    """Start an instance that serves on without this terminal.

    It ends with `shutdown`.  There is one for each state directory.  What the last one ran, until it was
    stopped or killed, is deployed again.
    """
    from trio_serve.instance import detached_commands
    from trio_serve.instance.start_options import StartOptions

    given, fds = StartOptions(**options), {"ready_fd": ready_fd, "options_fd": options_fd}
    sys.exit(detached_commands.start(given, sys.argv[1:], blocking=blocking, **fds))


@click.command()
@click.argument("config_file", metavar="CONFIG", type=click.Path())
@_state_dir
@option("--app-dir", type=click.Path(), help="Folder to import from.  [default: the working directory]")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Return when all runs, or has failed."
)
def deploy(config_file: str, state_dir: str | None, app_dir: str | None, wait: bool) -> None:
    """Have the instance run what a file says, and nothing else.

    What is new is started, what changed is updated with no call lost, what is not in the file is drained and
    deleted, and where a change fails the version before it serves on.
    """
    from trio_serve.instance import detached_commands

    sys.exit(detached_commands.deploy(state_dir, config_file, app_dir, wait=wait))


@click.command()
@_state_dir
@_name
def status(state_dir: str | None, name: str | None) -> None:
    """Print how the applications of the instance are, as YAML."""
    from trio_serve.instance import detached_commands

    sys.exit(detached_commands.status(state_dir, name))


@click.command()
@_state_dir
@_name
def config(state_dir: str | None, name: str | None) -> None:
    """Print what the instance's applications were deployed from."""
    from trio_serve.instance import detached_commands

    sys.exit(detached_commands.config(state_dir, name))


@click.command()
@click.argument("name", metavar="APP")
@_state_dir
@_yes
def delete(name: str, state_dir: str | None, yes: bool) -> None:
    """Drain an application of the instance and take it away."""
    from trio_serve.instance import detached_commands

    if not yes:
        click.confirm(f"Delete the application {name!r}?", abort=True)
    sys.exit(detached_commands.delete(state_dir, name))


@click.command()
@_state_dir
@_yes
def shutdown(state_dir: str | None, yes: bool) -> None:
    """Delete all applications and end the instance."""
    from trio_serve.instance import detached_commands

    if not yes:
        click.confirm("Delete all applications and end the instance?", abort=True)
    sys.exit(detached_commands.shutdown(state_dir))


COMMANDS = (build, start, deploy, status, config, delete, shutdown)
