"""A deployment: a class or a function, and how it is to be served.

    @deployment(num_replicas=2)            Ranker.options(name="Slow").bind("model.bin")
    class Ranker: ...                               │
                                                    └──> an Application: the deployment and its arguments

Nothing runs here: a deployment is a description, an application is a description with arguments, and
``controller`` makes replicas of it.

Source: Ray Serve's documentation of ``@serve.deployment``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, Never, overload

from trio_serve.serving.application import Application
from trio_serve.serving.autoscaling import AutoscalingConfig
from trio_serve.serving.methods import Method, methods_of
from trio_serve.serving.options import UNSET, DeploymentOptions, OptionsError, read_options


class Deployment:
    """A class or function with options; made by ``@deployment``, and changed by none of its methods."""

    def __init__(self, func_or_class: Callable[..., Any], options: DeploymentOptions) -> None:
        self.func_or_class = func_or_class
        self.deployment_options = options
        functools.update_wrapper(self, func_or_class, updated=())

    @property
    def name(self) -> str:
        """The name, unless an application holds two of the same: then the others get ``_1``, ``_2``..."""
        return self.deployment_options.name

    @property
    def num_replicas(self) -> int:
        """How many to start with."""
        return self.deployment_options.num_replicas

    @property
    def user_config(self) -> Any:
        """What ``reconfigure`` is given."""
        return self.deployment_options.user_config

    @property
    def max_ongoing_requests(self) -> int:
        """Calls at work in one replica."""
        return self.deployment_options.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        """Calls that wait; -1: no limit."""
        return self.deployment_options.max_queued_requests

    @functools.cached_property
    def methods(self) -> dict[str, Method]:
        """What callers can call."""
        return methods_of(self.func_or_class)

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """Make an application of it: the constructor's arguments, other applications among them.

        Each application given as an argument, also within lists, tuples and dicts, reaches the constructor
        as a handle to it.

        Raises:
            TypeError: at once, when the constructor would not take these arguments.
        """
        self._check_arguments(args, kwargs)
        return Application(self, args, kwargs)

    def options(self, **options: Any) -> "Deployment":
        """The same deployment with other options; what is not given stays.

        Raises:
            OptionsError: with every problem.
        """
        read = read_options(f"{self.name}.options()", options, self.deployment_options)
        _check_user_config(f"{self.name}.options()", self.func_or_class, read)
        return Deployment(self.func_or_class, read)

    def __call__(self, *args: Any, **kwargs: Any) -> Never:
        raise TypeError(
            f"{self.name} is a deployment and is not called; write {self.name}.bind(...) to make an "
            f"application of it, or {self.name}.func_or_class(...) for the plain "
            f"{'class' if inspect.isclass(self.func_or_class) else 'function'}"
        )

    def __repr__(self) -> str:
        return f"Deployment(name={self.name!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deployment):
            return NotImplemented
        return (
            self.func_or_class is other.func_or_class and self.deployment_options == other.deployment_options
        )

    __hash__ = object.__hash__

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for place, value in [*enumerate(args), *kwargs.items()]:
            if isinstance(value, Deployment):
                raise TypeError(
                    f"argument {place!r} of {self.name}.bind() is the deployment {value.name!r}, which has "
                    f"no arguments yet; bind it too: {value.name}.bind(...)"
                )
        if not inspect.isclass(self.func_or_class):
            if args or kwargs:
                raise TypeError(
                    f"{self.name} is a function and has no constructor, so {self.name}.bind() takes no "
                    "arguments; make it a class to give it some"
                )
            return
        try:
            signature = inspect.signature(self.func_or_class)
        except (TypeError, ValueError):  # a constructor written in C
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}.bind(): {error}") from None


def _check_user_config(where: str, target: Callable[..., Any], options: DeploymentOptions) -> None:
    if options.user_config is not None and not callable(getattr(target, "reconfigure", None)):
        raise OptionsError(
            where,
            [f"user_config is given, but {options.name} has no 'reconfigure(self, config)' to take it"],
        )


@overload
def deployment(func_or_class: Callable[..., Any], /) -> Deployment: ...


@overload
def deployment(
    *,
    name: str = UNSET,
    num_replicas: int | Literal["auto"] | None = UNSET,
    max_ongoing_requests: int = UNSET,
    max_queued_requests: int = UNSET,
    user_config: Any = UNSET,
    autoscaling_config: AutoscalingConfig | dict[str, Any] | None = UNSET,
    graceful_shutdown_wait_loop_s: float = UNSET,
    graceful_shutdown_timeout_s: float = UNSET,
    health_check_period_s: float = UNSET,
    health_check_timeout_s: float = UNSET,
    max_constructor_retry_count: int = UNSET,
    load_shedding: bool = UNSET,
    sync_methods: Literal["thread", "inline"] = UNSET,
    logging_config: Any = UNSET,
    request_router_config: Any = UNSET,
    ray_actor_options: dict[str, Any] | None = UNSET,
    placement_group_bundles: list[dict[str, float]] | None = UNSET,
    placement_group_strategy: str | None = UNSET,
    max_replicas_per_node: int | None = UNSET,
) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(func_or_class: Any = None, /, **options: Any) -> Any:
    """Make a class or a function a deployment; usable with and without arguments.

    Raises:
        OptionsError: with every problem; unknown names are problems.
        TypeError: it decorates something that is neither a class nor a function.
    """
    where = "@deployment"
    read_options(where, {"name": "unnamed", **options})

    def decorate(target: Any) -> Deployment:
        _check_target(target)
        named = {"name": target.__name__, **options}
        if named["name"] is UNSET or named["name"] is None:
            named["name"] = target.__name__
        read = read_options(where, named)
        _check_user_config(where, target, read)
        return Deployment(target, read)

    return decorate if func_or_class is None else decorate(func_or_class)


def _check_target(target: Any) -> None:
    if isinstance(target, Deployment):
        raise TypeError(f"{target.name} is a deployment already; change it with {target.name}.options(...)")
    if inspect.isclass(target) or inspect.isroutine(target):
        return
    if callable(target) and hasattr(target, "__name__"):
        return  # a function under another decorator
    raise TypeError(
        f"@deployment got {target!r} of type {type(target).__name__}; it decorates a class or a function"
    )
