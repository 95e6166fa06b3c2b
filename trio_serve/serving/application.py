"""An application: deployments bound to their arguments, and through them to each other.

    Ingress.bind(Ranker.bind("m"), [Store.bind()])

    build_graph ──> Ranker("m"), Store(), Ingress(<handle to Ranker>, [<handle to Store>])

The graph is put in the order in which it can start: what is called comes before its caller, the ingress
last.  It has no cycles, because an application exists only after its arguments.

Source: Ray Serve's documentation of "model composition".
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from trio_serve.serving.options import DeploymentOptions, OptionsError, read_options

if TYPE_CHECKING:
    from trio_serve.serving.deployment import Deployment
    from trio_serve.serving.methods import Method


class Application:
    """A deployment and its constructor's arguments; what ``run`` runs."""

    __slots__ = ("args", "deployment", "kwargs")

    def __init__(self, deployment: "Deployment", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.deployment = deployment
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"Application({self.deployment.name}.bind(...))"

    @property
    def remote(self) -> NoReturn:
        """Raises AttributeError, which says what to call instead."""
        raise AttributeError(
            f"{self!r} is not running and cannot be called; run it and call the handle that run() returns, "
            "or give it to another deployment's bind(...), whose constructor then gets a handle"
        )


@attrs.frozen
class HandleTo:
    """Stands in a constructor's arguments for a handle to another deployment of the application."""

    deployment: str


@attrs.frozen(eq=False)
class DeploymentSpec:
    """One deployment of an application, under its name there."""

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: DeploymentOptions
    methods: "Mapping[str, Method]"

    def same_code(self, other: "DeploymentSpec") -> bool:
        """Whether replicas of one are replicas of the other, up to options that can change while they run."""
        return (
            self.target is other.target
            and self.options.sync_methods == other.options.sync_methods
            and _equal((self.args, dict(self.kwargs)), (other.args, dict(other.kwargs)))
        )


def build_graph(
    application: Application, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[DeploymentSpec]:
    """The deployments of ``application`` in the order of their start; the last one is the ingress.

    ``overrides`` gives options by the names that deployments have here.

    Raises:
        OptionsError: with every problem in ``overrides``, names that no deployment has among them.
    """
    graph = _Graph()
    graph.visit(application)
    return _override(graph.specs, overrides or {})


class _Graph:
    def __init__(self) -> None:
        self.specs: list[DeploymentSpec] = []
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()

    def visit(self, application: Application) -> str:
        """Add ``application`` after what it depends on; one given in several places is one deployment."""
        known = self._names.get(id(application))
        if known is not None:
            return known
        args = tuple(self._replace(value) for value in application.args)
        kwargs = {key: self._replace(value) for key, value in application.kwargs.items()}
        deployment = application.deployment
        name = self._names[id(application)] = self._unique(deployment.name)
        options = attrs.evolve(deployment.deployment_options, name=name)
        self.specs.append(
            DeploymentSpec(name, deployment.func_or_class, args, kwargs, options, deployment.methods)
        )
        return name

    def _replace(self, value: Any) -> Any:
        if isinstance(value, Application):
            return HandleTo(self.visit(value))
        if type(value) in (list, tuple):
            return type(value)([self._replace(each) for each in value])
        if type(value) is dict:
            return {key: self._replace(each) for key, each in value.items()}
        return value

    def _unique(self, name: str) -> str:
        unique, number = name, 0
        while unique in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._taken.add(unique)
        return unique


def _override(
    specs: list[DeploymentSpec], overrides: Mapping[str, Mapping[str, Any]]
) -> list[DeploymentSpec]:
    names = [spec.name for spec in specs]
    problems = [
        f"there is no deployment {name!r}; the application has {', '.join(names)}"
        for name in overrides
        if name not in names
    ]
    changed = []
    for spec in specs:
        options = {key: value for key, value in overrides.get(spec.name, {}).items() if key != "name"}
        try:
            changed.append(attrs.evolve(spec, options=read_options(spec.name, options, spec.options)))
        except OptionsError as error:
            problems += [f"{spec.name}: {problem}" for problem in error.problems]
    if problems:
        raise OptionsError("deployments", problems)
    return changed


def fill_in(value: Any, handle_to: Callable[[str], Any]) -> Any:
    """``value`` with a real handle in each place that ``build_graph`` marked."""
    if isinstance(value, HandleTo):
        return handle_to(value.deployment)
    if type(value) in (list, tuple):
        return type(value)([fill_in(each, handle_to) for each in value])
    if type(value) is dict:
        return {key: fill_in(each, handle_to) for key, each in value.items()}
    return value


def _equal(one: object, other: object) -> bool:
    """Equality that a strange ``__eq__`` (of an array, say) cannot upset: what is unclear has changed."""
    try:
        return bool(one == other)
    except Exception:
        return False
