"""The options of a deployment: Ray Serve's names and defaults, checked all at once.

    raw keywords ──read_options──> DeploymentOptions        every problem in one OptionsError

Source: Ray Serve's documentation of ``@serve.deployment``.  ``sync_methods`` and ``load_shedding`` are ours,
and so is the bound of ``max_queued_requests``.  Knows nothing of what is deployed.
"""

import difflib
from collections.abc import Callable, Mapping
from sys import float_info
from typing import Any

import attrs

from trio_serve.serving.autoscaling import AutoscalingConfig, AutoscalingConfigError

UNSET: Any = type("Unset", (), {"__repr__": lambda self: "<not given>", "__bool__": lambda self: False})()
"""What an option is when nobody gave it: None is a value for some."""


Check = Callable[[str, Any], str | None]
"""What is wrong with the value of the option so named, or None."""


class OptionsError(ValueError, TypeError):
    """Options that cannot be used; ``problems`` holds every reason, a line each.

    A ValueError and a TypeError both, since it reports wrong values and unknown names together.
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{where}: " + "; ".join(problems))


def _whole(least: int, unlimited: bool = False) -> Check:
    def check(name: str, value: Any) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and (value >= least or (unlimited and value == -1)):
            return None
        no_limit = ", or -1 for no limit" if unlimited else ""
        return f"{name}={value!r} must be a whole number of {least} or more{no_limit}"

    return check


def _seconds(zero: bool) -> Check:
    def check(name: str, value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # A whole number may be larger than every float.
        if number and (0 < value <= float_info.max or (zero and value == 0)):
            return None
        return f"{name}={value!r} must be a number of seconds {'of 0 or more' if zero else 'over 0'}"

    return check


def _a(kind: type, what: str, none: bool = True) -> Check:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, kind) or (none and value is None):
            return None
        return f"{name}={value!r} must be {what}"

    return check


def _name(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{name}={value!r} must be a text that is not empty"
    if "#" in value or "\n" in value:
        return f"{name}={value!r} must not contain '#' or a line end, which replica tags and logs use"
    return None


def _num_replicas(name: str, value: Any) -> str | None:
    if (
        value is None
        or value == "auto"
        or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
    ):
        return None
    return f'{name}={value!r} must be a whole number of 1 or more, or "auto"'


def _sync_methods(name: str, value: Any) -> str | None:
    if value in ("thread", "inline"):
        return None
    return f'{name}={value!r} must be "thread" or "inline"'


@attrs.frozen(kw_only=True)
class DeploymentOptions:
    """What a deployment was told; times in seconds.

    ``num_replicas`` is how many to start with where ``autoscaling_config`` is set.  The options of the last
    group are kept for engines that have use for them; one process has none.  ``is_backend``: it was made as a
    backend of the older API, and its log lines have the older form.
    """

    name: str = ""
    num_replicas: int = 1
    max_ongoing_requests: int = 5
    max_queued_requests: int = 10_000
    user_config: Any = None
    autoscaling_config: AutoscalingConfig | None = None
    graceful_shutdown_wait_loop_s: float = 2.0
    graceful_shutdown_timeout_s: float = 20.0
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    max_constructor_retry_count: int = 20
    load_shedding: bool = True
    sync_methods: str = "thread"
    logging_config: Any = None
    is_backend: bool = False

    request_router_config: Any = None
    ray_actor_options: Any = None
    placement_group_bundles: Any = None
    placement_group_strategy: Any = None
    max_replicas_per_node: Any = None

    @property
    def queue_capacity(self) -> int | None:
        """The mailbox's bound; None: no limit."""
        return None if self.max_queued_requests == -1 else self.max_queued_requests


_CHECKS: dict[str, Check] = {
    "name": _name,
    "num_replicas": _num_replicas,
    "max_ongoing_requests": _whole(1),
    "max_queued_requests": _whole(1, unlimited=True),
    "graceful_shutdown_wait_loop_s": _seconds(zero=False),
    "graceful_shutdown_timeout_s": _seconds(zero=True),
    "health_check_period_s": _seconds(zero=False),
    "health_check_timeout_s": _seconds(zero=False),
    "max_constructor_retry_count": _whole(1),
    "load_shedding": _a(bool, "True or False", none=False),
    "sync_methods": _sync_methods,
    "ray_actor_options": _a(Mapping, "a mapping"),
    "placement_group_bundles": _a(list, "a list"),
    "placement_group_strategy": _a(str, "a text"),
}

OPTION_NAMES = tuple(field.name for field in attrs.fields(DeploymentOptions))


def read_options(
    where: str, given: Mapping[str, Any], base: DeploymentOptions | None = None
) -> DeploymentOptions:
    """Options from keywords; those not given are as in ``base``, or as by default.

    Raises:
        OptionsError: with every problem; the text begins with ``where``.
    """
    given = {name: value for name, value in given.items() if value is not UNSET}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(name, OPTION_NAMES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(OPTION_NAMES)}"
            problems.append(f"there is no option {name!r}; {hint}")
            continue
        problem = _CHECKS[name](name, value) if name in _CHECKS else None
        if problem is not None:
            problems.append(problem)
        else:
            values[name] = value
    _read_scaling(values, base, problems)
    if problems:
        raise OptionsError(where, problems)
    return DeploymentOptions(**values) if base is None else attrs.evolve(base, **values)


def _read_scaling(values: dict[str, Any], base: DeploymentOptions | None, problems: list[str]) -> None:
    """``num_replicas`` and ``autoscaling_config`` decide together: a fixed number, or a range."""
    number = values.get("num_replicas")
    config = values.get("autoscaling_config")
    if number is None and config is None:
        if "autoscaling_config" in values:  # None given: no longer scaled
            return
        values.pop("num_replicas", None)
        return
    if isinstance(number, int) and config is not None:
        problems.append(
            f"num_replicas={number} and autoscaling_config contradict each other; leave out one of them, "
            'or write num_replicas="auto"'
        )
        return
    if isinstance(number, int):
        values["autoscaling_config"] = None
        return
    try:
        if config is None or isinstance(config, Mapping):
            read = AutoscalingConfig.auto if number == "auto" else AutoscalingConfig.from_mapping
            config = read(config or {})
        elif not isinstance(config, AutoscalingConfig):
            problems.append(f"autoscaling_config={config!r} must be an AutoscalingConfig or a mapping")
            return
    except AutoscalingConfigError as error:
        problems += [f"autoscaling_config: {problem}" for problem in error.problems]
        return
    values["autoscaling_config"] = config
    values["num_replicas"] = config.first_target()
