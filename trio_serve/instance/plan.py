"""What one ``trio-serve run`` is to serve, before anything is imported or opened.

    config.yaml  ─┐
                  ├─>  ServePlan: applications to import, options of the proxies and the log
    module:app   ─┤
    --options    ─┘    the command line stands over the environment, over the file, over the defaults

Knows how these are put together, and nothing of how they are served.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_serve.instance.config_file import ApplicationConfig, ConfigFile, ServeConfig, read_config_file
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions
from trio_serve.instance.settings import Mistake, Mistakes, Path, read_settings

CONFIG_SUFFIXES = (".yaml", ".yml")


@attrs.frozen
class ServePlan:
    """What to serve; None for the options of a proxy that is not opened."""

    applications: list[ApplicationConfig]
    http_options: HTTPOptions | None
    grpc_options: gRPCOptions | None
    logging_config: LoggingConfig
    import_folders: list[str]
    """Where modules are looked for, before ``sys.path``."""
    warnings: list[str]
    metrics_options: MetricsOptions | None = None
    config_file: ConfigFile | None = None

    def error(self, mistakes: Sequence[Mistake]) -> ValueError:
        """Mistakes that came to light later, told in terms of where the plan came from."""
        if self.config_file is not None:
            return self.config_file.error(Mistakes(mistakes))
        return Mistakes(attrs.evolve(each, path=()) for each in mistakes)


@attrs.frozen
class CommandLine:
    """What was given on the command line or in the environment; None and () where nothing was."""

    target: str
    args: Mapping[str, str] = attrs.field(factory=dict)
    app_dir: str | None = None
    host: str | None = None
    port: int | None = None
    grpc_port: int | None = None
    metrics_export_port: int | None = None
    grpc_servicer_functions: tuple[str, ...] = ()
    protos: tuple[str, ...] = ()
    name: str | None = None
    route_prefix: str | None = None

    @property
    def names_a_file(self) -> bool:
        return self.target.endswith(CONFIG_SUFFIXES)


def plan_of(given: CommandLine) -> ServePlan:
    """Put together what the command line, and the file that it names, ask for.

    Raises:
        ConfigFileError: for the mistakes of the file.
        Mistakes: for those of the command line, all of them.
    """
    file = read_config_file(given.target) if given.names_a_file else None
    try:
        config = _over_defaults(given) if file is None else _over_file(given, file.config)
    except Mistakes as found:
        raise Mistakes(_by_option(each) for each in found.mistakes) from None
    folders = [given.app_dir or os.curdir]
    if file is not None:
        folders.append(os.path.dirname(os.path.abspath(file.path)))
    folders += [app.runtime_env.working_dir for app in config.applications if app.runtime_env.working_dir]
    grpc, opens_proxies = config.grpc_options, config.proxy_location != "Disabled"
    return ServePlan(
        applications=config.applications,
        http_options=config.http_options if opens_proxies else None,
        grpc_options=grpc if opens_proxies and grpc.names_a_service else None,
        logging_config=config.logging_config,
        import_folders=folders,
        warnings=file.warnings if file is not None else [],
        metrics_options=config.metrics_options,
        config_file=file,
    )


def _over_defaults(given: CommandLine) -> ServeConfig:
    application = {"import_path": given.target, "args": dict(given.args), **_of_one_application(given)}
    return read_settings(ServeConfig, {"applications": [application], **_proxies(given)})


def _over_file(given: CommandLine, config: ServeConfig) -> ServeConfig:
    """``config`` with what the command line says instead."""
    if given.args:
        arguments = " ".join(f"{key}={value}" for key, value in given.args.items())
        raise Mistakes(
            [Mistake((arguments,), "a file has its own 'args:'; key=value goes with an import path")]
        )
    of_one = _of_one_application(given)
    if of_one and len(config.applications) > 1:
        text = f"{given.target} has {len(config.applications)} applications, and this is for one"
        raise Mistakes(Mistake(("applications", 0, key), text) for key in of_one)
    mistakes: list[Mistake] = []
    changes: dict[str, Any] = {}
    if of_one:
        changes["applications"] = [_changed(config.applications[0], of_one, ("applications", 0), mistakes)]
    for name, options in _proxies(given).items():
        before = getattr(config, name) or MetricsOptions()  # the only ones that a file may lack
        changes[name] = _changed(before, options, (name,), mistakes)
    if mistakes:
        raise Mistakes(mistakes)
    return attrs.evolve(config, **changes)


def _changed(settings: Any, changes: dict[str, Any], path: Path, mistakes: list[Mistake]) -> Any:
    try:
        return attrs.evolve(settings, **changes)
    except Mistakes as found:
        mistakes += [attrs.evolve(each, path=(*path, *each.path)) for each in found.mistakes]


def _of_one_application(given: CommandLine) -> dict[str, Any]:
    return _given({"name": given.name, "route_prefix": given.route_prefix})


def _proxies(given: CommandLine) -> dict[str, dict[str, Any]]:
    """The options of both proxies that were given, under the names that a file has for them."""
    grpc = {
        "host": given.host,
        "port": given.grpc_port,
        "grpc_servicer_functions": list(given.grpc_servicer_functions) or None,
        "protos": [os.path.abspath(proto) for proto in given.protos] or None,
    }
    http = {"host": given.host, "port": given.port}
    proxies = {"http_options": _given(http), "grpc_options": _given(grpc)}
    if given.metrics_export_port is not None:
        proxies["metrics_options"] = {"port": given.metrics_export_port}
    return proxies


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


_OPTIONS: dict[Path, str] = {
    ("applications", 0, "import_path"): "MODULE:APP",
    ("applications", 0, "name"): "--name",
    ("applications", 0, "route_prefix"): "--route-prefix",
    ("http_options", "host"): "--host",
    ("http_options", "port"): "--port",
    ("grpc_options", "host"): "--host",
    ("grpc_options", "port"): "--grpc-port",
    ("metrics_options", "port"): "--metrics-export-port",
    ("grpc_options", "grpc_servicer_functions"): "--grpc-servicer-functions",
    ("grpc_options", "protos"): "--proto",
}


def _by_option(mistake: Mistake) -> Mistake:
    """``mistake`` with the option that it came by in place of a file's path."""
    option = _OPTIONS.get(mistake.path) or _OPTIONS.get(mistake.path[:2])
    return mistake if option is None else attrs.evolve(mistake, path=(option,))
