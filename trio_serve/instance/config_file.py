"""The configuration file: Ray Serve's YAML schema, each mistake with its place.

    config.yaml:7:9: applications[0].import_path: 'app' names no attribute; write 'module:attribute'

All mistakes of a file are told at once.  Unknown keys and keys that are there twice are among them; what only
a cluster can do is left out, and a warning says so.  Paths in a file (``protos``, ``tls``, ``working_dir``)
are relative to the file, so that it means the same wherever it is read from.

Source: Ray Serve 2.60, ServeDeploySchema, and the files of its guides.
Knows nothing of the code that an ``import_path`` names.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions
from trio_serve.instance.positions import Position, Positions, UnreadableText, read_yaml
from trio_serve.instance.routes import application_name, collisions, route_prefix
from trio_serve.instance.settings import (
    Mistake,
    Mistakes,
    Path,
    anything,
    check_settings,
    from_folder,
    list_of,
    mapping_of,
    nonempty_text,
    one_of,
    optional,
    read_settings,
    setting,
    settings,
    shown,
    text,
    wrong,
)
from trio_serve.instance.traffic_settings import TrafficSettings, unknown_targets
from trio_serve.serving.options import OPTION_NAMES, OptionsError, read_options


def import_path(value: Any) -> str:
    """``module:attribute``, or ``module.attribute`` where the last dot divides."""
    path = nonempty_text(value)
    if path.endswith(".py"):
        module = pathlib.PurePath(path).stem
        raise wrong(f"{shown(path)} is a file; write module and attribute, as in '{module}:app'")
    module, colon, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not (module and colon and attribute):
        raise wrong(f"{shown(path)} names no attribute; write 'module:attribute'")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise wrong(f"{shown(path)} is no import path; write 'module:attribute'")
    return path


LOCAL_FOLDER = "local://"
"""What Ray puts before the path of a ``working_dir`` that is there already, and nothing to fetch."""


def _working_dir(value: Any) -> str:
    return nonempty_text(nonempty_text(value).removeprefix(LOCAL_FOLDER))


@attrs.frozen
class RuntimeEnv:
    """What surrounds an application's code.  In one process it surrounds that of all applications."""

    env_vars: dict[str, str] = setting(mapping_of(text), {})
    working_dir: str | None = setting(optional(_working_dir), None, is_path=True)

    __attrs_post_init__ = check_settings


def _deployment_options(value: Any) -> dict[str, Any]:
    """The name of a deployment, and options that stand over those in its code."""
    options = mapping_of(anything)(value)
    mistakes: list[Mistake] = []
    if "name" not in options:
        mistakes.append(
            Mistake((), "'name' is missing; it says which deployment of the application is meant")
        )
    for key, option in options.items():
        mistakes += [
            Mistake((key,), problem, at_key=key not in OPTION_NAMES) for problem in _problems({key: option})
        ]
    mistakes += [Mistake((), problem) for problem in ([] if mistakes else _problems(options))]
    if mistakes:
        raise Mistakes(mistakes)
    return options


def _problems(options: dict[str, Any]) -> tuple[str, ...]:
    try:
        read_options("", options)
    except OptionsError as error:
        return error.problems
    return ()


@attrs.frozen
class ApplicationConfig:
    """One of ``applications:``, what to import and how to deploy it."""

    import_path: str = setting(import_path)
    name: str = setting(application_name, "default")
    route_prefix: str | None = setting(route_prefix, "/")
    args: dict[str, Any] = setting(mapping_of(anything), {})
    runtime_env: RuntimeEnv = setting(settings(RuntimeEnv), RuntimeEnv())
    deployments: list[dict[str, Any]] = setting(list_of(_deployment_options), [])
    logging_config: LoggingConfig | None = setting(optional(settings(LoggingConfig)), None)
    traffic: TrafficSettings | None = setting(optional(settings(TrafficSettings)), None)

    __attrs_post_init__ = check_settings


def _applications(value: Any) -> list[ApplicationConfig]:
    mistakes: list[Mistake] = []
    applications: list[ApplicationConfig] = []
    try:
        applications = list_of(settings(ApplicationConfig))(value)
    except Mistakes as found:
        mistakes += found.mistakes
    if value == []:
        raise wrong("is empty; there is nothing to serve")
    mistakes += collisions(_as_written(value))
    mistakes += unknown_targets((each.traffic for each in applications), [each.name for each in applications])
    if mistakes:
        raise Mistakes(mistakes)
    return applications


def _as_written(applications: Any) -> Iterator[tuple[Path, str, str | None]]:
    """Where each application stands, its name and its prefix, as far as the data has them."""
    for index, app in enumerate(applications if isinstance(applications, list) else []):
        if isinstance(app, ApplicationConfig):
            yield (index,), app.name, app.route_prefix
        elif isinstance(app, Mapping):
            prefix = app.get("route_prefix", "/")
            yield (index,), str(app.get("name", "default")), prefix if isinstance(prefix, str) else None


@attrs.frozen
class ServeConfig:
    """The whole file."""

    applications: list[ApplicationConfig] = setting(_applications)
    proxy_location: str = setting(one_of("EveryNode", "HeadOnly", "Disabled"), "EveryNode")
    http_options: HTTPOptions = setting(settings(HTTPOptions), HTTPOptions())
    grpc_options: gRPCOptions = setting(settings(gRPCOptions), gRPCOptions())
    logging_config: LoggingConfig = setting(settings(LoggingConfig), LoggingConfig())
    metrics_options: MetricsOptions | None = setting(optional(settings(MetricsOptions)), None)

    __attrs_post_init__ = check_settings


class ConfigFileError(ValueError):
    """A file that cannot be used: a line for each mistake, ``file:line:column: path: text``."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@attrs.frozen
class ConfigFile:
    """A file that was read: what it says, where it says it, and what it asks for in vain."""

    path: str
    config: ServeConfig
    warnings: list[str]
    _positions: Positions

    def error(self, found: Mistakes) -> ConfigFileError:
        """Mistakes found only later, in what the file names, told like those of the file itself."""
        return ConfigFileError(
            _lines(self.path, [(self._positions.of(each), each) for each in found.mistakes])
        )


def read_config_file(path: str) -> ConfigFile:
    """Read and check a configuration file; nothing that it names is imported or opened.

    Raises:
        ConfigFileError: with every mistake in it.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        name = path if path.isprintable() else repr(path)
        raise ConfigFileError([f"{name}: cannot be read: {error.strerror or error}"]) from None
    try:
        document = read_yaml(content)
    except UnreadableText as error:
        raise ConfigFileError([f"{path}:{error.position}: {error.text}"]) from None
    positions = document.positions
    mistakes = list(document.repeated_keys)
    try:
        config, left_out = read_config_data(document.data)
    except Mistakes as found:
        mistakes += [(positions.of(each), each) for each in found.mistakes]
    if mistakes:
        raise ConfigFileError(_lines(path, mistakes))
    warnings = _lines(path, [(positions.of(each), each) for each in left_out])
    return ConfigFile(path, from_folder(config, os.path.dirname(os.path.abspath(path))), warnings, positions)


def read_config_data(data: Any) -> tuple[ServeConfig, list[Mistake]]:
    """What plain data configures, and a remark for each key that only a cluster honours; it leaves ``data``.

    Raises:
        Mistakes: all that is wrong with it.
    """
    data, left_out = _without_cluster_only(data)
    return read_settings(ServeConfig, data), left_out


def _lines(path: str, mistakes: list[tuple[Position, Mistake]]) -> list[str]:
    """In the order of the file."""
    return [
        f"{path}:{position}: {each}"
        for position, each in sorted(mistakes, key=lambda found: (found[0].line, found[0].column))
    ]


# -- what only a cluster can do ----------------------------------------------------------------------------

_EACH = object()
"""Stands for every index of a list."""

_CLUSTER_ONLY: dict[tuple[object, ...], list[str]] = {
    (): ["target_capacity"],
    ("http_options",): ["location", "num_cpus", "fixed_number_replicas"],
    ("applications", _EACH): ["external_scaler_enabled", "host", "port"],
    ("applications", _EACH, "runtime_env"): [
        *(
            "conda",
            "config",
            "container",
            "eager_install",
            "excludes",
            "image_uri",
            "java_jars",
            "mpi",
            "nsight",
        ),
        *("pip", "py_executable", "py_modules", "rocprof_sys", "uv", "worker_process_setup_hook"),
    ],
    ("applications", _EACH, "deployments", _EACH): [
        *("bundle_label_selector", "gang_scheduling_config", "max_replicas_per_node"),
        *("placement_group_bundles", "placement_group_strategy", "placement_group_fallback_strategy"),
    ],
    ("applications", _EACH, "deployments", _EACH, "ray_actor_options"): [
        *("accelerator_type", "fallback_strategy", "label_selector", "num_gpus", "object_store_memory"),
        *("resources", "runtime_env"),
    ],
}


def _without_cluster_only(data: Any) -> tuple[Any, list[Mistake]]:
    """``data`` without the keys that one process cannot honour, and a remark for each of them."""
    remarks = []
    for pattern, keys in _CLUSTER_ONLY.items():
        for path, mapping in _matches(data, pattern):
            for key in [key for key in keys if key in mapping]:
                del mapping[key]
                text = "only a cluster can do this; it is left out here"
                remarks.append(Mistake((*path, key), text, at_key=True))
    for path, runtime_env in _matches(data, ("applications", _EACH, "runtime_env")):
        folder = runtime_env.get("working_dir")
        if isinstance(folder, str) and "://" in folder and not folder.startswith(LOCAL_FOLDER):
            del runtime_env["working_dir"]
            text = (
                f"only a cluster fetches {shown(folder)}; it is left out here, and modules are looked for in "
                "--app-dir and beside the file"
            )
            remarks.append(Mistake((*path, "working_dir"), text))
    return data, remarks


def _matches(
    data: Any, pattern: tuple[object, ...], path: Path = ()
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The mappings in ``data`` that ``pattern`` leads to, with the path of each."""
    if not pattern:
        if isinstance(data, dict):
            yield path, data
    elif pattern[0] is _EACH:
        for index, item in enumerate(data if isinstance(data, list) else []):
            yield from _matches(item, pattern[1:], (*path, index))
    elif isinstance(data, Mapping) and pattern[0] in data:
        yield from _matches(data[pattern[0]], pattern[1:], (*path, str(pattern[0])))
