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
    """Write the configuration file of applications: their deployments, and the options that the code sets."""
    from trio_serve.instance.building import build_file

    sys.exit(build_file(import_paths, output_path, app_dir, grpc_servicer_functions))
