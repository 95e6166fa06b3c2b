"""From a plan to applications that can run: imports what the plan names, and applies what it sets on them.

All mistakes of all applications are told at once, in terms of where the plan came from.

Knows how code is imported, and nothing of how it is served.
"""

import os
from collections.abc import Sequence

from trio_serve.instance.config_file import ApplicationConfig
from trio_serve.instance.importing import (
    ImportedCodeRaised,
    ImportTargetError,
    import_application,
    put_on_import_path,
)
from trio_serve.instance.plan import ServePlan
from trio_serve.instance.settings import Mistake, Path, did_you_mean
from trio_serve.instance.targets import RunTarget
from trio_serve.serving.application import Application, build_graph


def load_applications(plan: ServePlan) -> list[RunTarget]:
    """Import the applications of ``plan`` into this process, whose environment and ``sys.path`` they share.

    Raises:
        ValueError: with all that is wrong about the plan (`ConfigFileError`, or `Mistakes` without a file).
        ImportedCodeRaised: the first error of the imported code, when the plan itself is right.
    """
    put_on_import_path(plan.import_folders)
    mistakes = environment_conflicts(plan.applications)
    for app in plan.applications:
        os.environ.update(app.runtime_env.env_vars)
    targets: list[RunTarget] = []
    raised: list[ImportedCodeRaised] = []
    for index, app in enumerate(plan.applications):
        here = ("applications", index)
        try:
            target = import_application(app.import_path, app.args)
        except ImportTargetError as error:
            mistakes.append(Mistake((*here, "args" if error.about_args else "import_path"), str(error)))
        except ImportedCodeRaised as error:
            raised.append(error)
            mistakes.append(Mistake((*here, "import_path"), str(error)))
        else:
            mistakes += _unknown_deployments(target, app, here)
            options = {each["name"]: each for each in app.deployments}
            traffic = None if app.traffic is None else app.traffic.policy(app.name)
            targets.append(
                RunTarget(target, app.name, app.route_prefix, app.logging_config, options, traffic)
            )
    if len(mistakes) > len(raised):
        raise plan.error(mistakes)
    if raised:
        raise raised[0]
    return targets


def _unknown_deployments(target: Application, app: ApplicationConfig, here: Path) -> list[Mistake]:
    """Options that are given for a deployment that the application does not have."""
    known = [spec.name for spec in build_graph(target)]
    mistakes = []
    for index, each in enumerate(app.deployments):
        if each["name"] not in known:
            text = (
                f"there is no deployment {each['name']!r};{did_you_mean(each['name'], known)} "
                f"the application has {', '.join(known)}"
            )
            mistakes.append(Mistake((*here, "deployments", index, "name"), text))
    return mistakes


def environment_conflicts(applications: Sequence[ApplicationConfig]) -> list[Mistake]:
    """``env_vars`` on which the applications disagree, though they share one environment."""
    mistakes = []
    chosen: dict[str, tuple[str, str]] = {}
    for index, app in enumerate(applications):
        for key, value in app.runtime_env.env_vars.items():
            other_value, other = chosen.setdefault(key, (value, app.name))
            if other_value != value:
                text = (
                    f"{value!r} here and {other_value!r} in {other!r}; the applications share one process, "
                    "whose environment can hold only one of them"
                )
                mistakes.append(Mistake(("applications", index, "runtime_env", "env_vars", key), text))
    return mistakes
