"""``trio-serve build``: from applications in code to a configuration file that says the same.

    shop:app  ──>  applications: [{name: app1, import_path: shop:app, deployments: [{name: Greeter, ...}]}]

Of each deployment, the file has the options that its code sets; what it leaves out stays at its default.

Source: Ray's ``serve build``: names ``app1``, ``app2``..., and a prefix of its own for each of several.
Knows nothing of how a file is read, but that what is written here must be readable.
"""

import sys
from collections.abc import Sequence
from typing import Any

import attrs
import yaml

from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED
from trio_serve.instance.importing import (
    ImportedCodeRaised,
    ImportTargetError,
    import_application,
    put_on_import_path,
)
from trio_serve.observe.traces import from_their_first_frame
from trio_serve.proxy.stack_trace import user_stack_trace
from trio_serve.serving.application import DeploymentSpec, build_graph
from trio_serve.serving.autoscaling import AutoscalingConfig
from trio_serve.serving.options import DeploymentOptions

HEADER = """\
# Written by `trio-serve build`.  Run it with `trio-serve run`, or deploy it to a running instance with
# `trio-serve deploy`.  What is not here is as the code says, or at its default.

"""

_NOT_IN_FILES = ("name", "is_backend", "logging_config")


class CannotBeWritten(ValueError):
    """An option whose value is no plain data, and so has no place in a file."""


def build_file(
    import_paths: Sequence[str], output: str | None, app_dir: str | None, servicers: Sequence[str]
) -> int:
    """Write the configuration file of the applications to ``output``, or to stdout; the exit code."""
    put_on_import_path([app_dir or "."])
    problems = []
    applications = []
    for number, path in enumerate(import_paths, start=1):
        try:
            applications.append(_application(path, f"app{number}", alone=len(import_paths) == 1))
        except (ImportTargetError, CannotBeWritten) as error:
            problems.append(str(error))
        except ImportedCodeRaised as error:
            raised = error.__cause__ or error
            trace = user_stack_trace(raised.with_traceback(from_their_first_frame(raised.__traceback__)))
            print(f"{error}\n\n{trace}", file=sys.stderr)
            return FAILED
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return MISTAKEN
    text = HEADER + yaml.safe_dump(
        {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "grpc_options": {"port": 9000, "grpc_servicer_functions": list(servicers)},
            "logging_config": {"log_level": "INFO", "encoding": "TEXT"},
            "applications": applications,
        },
        sort_keys=False,
    )
    try:
        _write(output, text)
    except OSError as error:
        print(f"{output}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return MISTAKEN
    return STOPPED


def _write(output: str | None, text: str) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)


def _application(import_path: str, name: str, *, alone: bool) -> dict[str, Any]:
    specs = build_graph(import_application(import_path))
    return {
        "name": name,
        "route_prefix": "/" if alone else f"/{name}",
        "import_path": import_path,
        "runtime_env": {},
        "deployments": [_deployment(import_path, spec) for spec in specs],
    }


def _deployment(import_path: str, spec: DeploymentSpec) -> dict[str, Any]:
    """The name of a deployment, and the options that are not at their default."""
    written: dict[str, Any] = {"name": spec.name}
    for field in attrs.fields(DeploymentOptions):
        value = getattr(spec.options, field.name)
        if field.name in _NOT_IN_FILES or value == field.default:
            continue
        if field.name == "num_replicas" and spec.options.autoscaling_config is not None:
            continue  # follows from the range
        if isinstance(value, AutoscalingConfig):
            value = {key: each for key, each in attrs.asdict(value).items() if each is not None}
        try:
            yaml.safe_dump(value)
        except yaml.YAMLError:
            raise CannotBeWritten(
                f"{import_path!r}: {field.name} of deployment {spec.name!r} is {type(value).__name__}, and "
                "only plain data (texts, numbers, lists, mappings) can be written to a file"
            ) from None
        written[field.name] = value
    return written
