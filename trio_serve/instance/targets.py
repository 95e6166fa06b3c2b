"""What can be run: an application, under a name and a route prefix; and what people give us in its place.

Knows nothing of how an application is deployed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_serve.instance.options import LoggingConfig, options_from
from trio_serve.instance.routes import application_name, collisions, route_prefix
from trio_serve.instance.settings import Mistake, Mistakes, shown
from trio_serve.serving.application import Application, build_graph
from trio_serve.serving.deployment import Deployment
from trio_serve.serving.traffic import TrafficPolicy


@attrs.frozen
class RunTarget:
    """An application to run; ``route_prefix=None`` keeps it off HTTP.

    ``deployment_options``, by the name of the deployment, stand over those that the code gives.  ``traffic``
    goes into force when all that are run together are RUNNING; None leaves it as it is.
    """

    target: Application
    name: str = "default"
    route_prefix: str | None = "/"
    logging_config: LoggingConfig | Mapping[str, Any] | None = None
    deployment_options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    traffic: TrafficPolicy | None = None


def check_targets(targets: Sequence[RunTarget], running: Mapping[str, str | None]) -> None:
    """Refuse targets that cannot run, beside the applications ``running`` (route prefixes by name).

    A name that is running already is no mistake: running it again updates it.

    Raises:
        TypeError: something is given in place of an application.
        Mistakes: bad names, prefixes and log settings, all of them.
    """
    for target in targets:
        _check_is_application(target.target)
    mistakes: list[Mistake] = []
    for index, target in enumerate(targets):
        path = (index,) if len(targets) > 1 else ()
        for name, read in (("name", application_name), ("route_prefix", route_prefix)):
            try:
                read(getattr(target, name))
            except Mistakes as found:
                mistakes += [attrs.evolve(each, path=(*path, name)) for each in found.mistakes]
        if target.logging_config is not None:
            try:
                options_from(LoggingConfig, target.logging_config, "logging_config")
            except Mistakes as found:
                mistakes += found.mistakes
    new = {target.name for target in targets}
    others = [((), name, prefix) for name, prefix in running.items() if name not in new]
    mistakes += collisions([*others, *(((), target.name, target.route_prefix) for target in targets)])
    if mistakes:
        raise Mistakes(mistakes)


def with_log_settings(target: RunTarget) -> dict[str, dict[str, Any]]:
    """The options by deployment, with the log settings of each that has any: its own, or its application's.

    Raises:
        Mistakes: log settings that cannot be used, all of them.
        OptionsError: other options that cannot be used.
    """
    options = {name: dict(given) for name, given in target.deployment_options.items()}
    mistakes: list[Mistake] = []
    for spec in build_graph(target.target, options):
        config = target.logging_config if spec.options.logging_config is None else spec.options.logging_config
        if config is None:
            continue
        try:
            read = options_from(LoggingConfig, config, f"deployment {spec.name!r}: logging_config")
        except Mistakes as found:
            mistakes += found.mistakes
        else:
            options.setdefault(spec.name, {})["logging_config"] = read
    if mistakes:
        raise Mistakes(mistakes)
    return options


def _check_is_application(target: object) -> None:
    if isinstance(target, Application):
        return
    if isinstance(target, Deployment):
        raise TypeError(
            f"run() got the deployment {target.name!r}; bind it to make it an application: "
            f"run({target.name}.bind(...))"
        )
    if isinstance(target, str):
        raise TypeError(f"run() got the text {shown(target)}; import the application and pass it itself")
    what = (
        f"the class {target.__name__}"
        if isinstance(target, type)
        else f"an object of {type(target).__name__}"
    )
    raise TypeError(
        f"run() got {what}; it runs an application: decorate the class with @serve.deployment "
        "and pass what its bind(...) returns"
    )
