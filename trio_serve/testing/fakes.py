"""Fakes: an application with some of its deployments replaced, so that the rest can be tested alone.

    Ingress.bind(Ranker.bind("large.bin"))   --{"Ranker": FakeRanker}-->   Ingress.bind(FakeRanker.bind())

A deployment is named as it is in the application.  The graph itself is left as it was: what comes back is a
new application.

Knows nothing of how applications run.
"""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from trio_serve.serving.application import Application
from trio_serve.serving.deployment import Deployment, deployment


def replace_deployments(application: Application, fakes: Mapping[str, Any]) -> Application:
    """``application`` with the deployments that ``fakes`` names replaced.

    A fake is a class or a function, a ``Deployment``, an ``Application`` (a fake with arguments of its own),
    or an object, whose methods then answer.  It keeps the name of what it replaces, and loses its arguments:
    what only the replaced deployment called is not started.

    Raises:
        ValueError: there is no deployment of that name; the text lists those that there are.
    """
    replacing = _Replacing(fakes)
    replaced = replacing.visit(application)
    unknown = [name for name in fakes if name not in replacing.names]
    if unknown:
        known = sorted(replacing.names)
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"the application has no deployment {unknown[0]!r} to replace; {hint}")
    return replaced


class _Replacing:
    def __init__(self, fakes: Mapping[str, Any]) -> None:
        self.names: set[str] = set()
        self._fakes = fakes
        self._done: dict[int, Application] = {}

    def visit(self, application: Application) -> Application:
        done = self._done.get(id(application))
        if done is None:
            done = self._done[id(application)] = self._replaced(application)
        return done

    def _replaced(self, application: Application) -> Application:
        name = application.deployment.name
        self.names.add(name)
        if name in self._fakes:
            return _bound(self._fakes[name], name)
        args = tuple(self._value(value) for value in application.args)
        kwargs = {key: self._value(value) for key, value in application.kwargs.items()}
        return Application(application.deployment, args, kwargs)

    def _value(self, value: Any) -> Any:
        if isinstance(value, Application):
            return self.visit(value)
        if type(value) in (list, tuple):
            return type(value)([self._value(each) for each in value])
        if type(value) is dict:
            return {key: self._value(each) for key, each in value.items()}
        return value


def _bound(fake: Any, name: str) -> Application:
    if isinstance(fake, Application):
        return Application(fake.deployment.options(name=name), fake.args, fake.kwargs)
    if isinstance(fake, Deployment):
        return fake.options(name=name).bind()
    if inspect.isclass(fake) or inspect.isroutine(fake):
        return deployment(fake).options(name=name).bind()
    return deployment(_class_around(fake)).options(name=name).bind()


def _class_around(instance: Any) -> type:
    """A class whose one instance is ``instance``: an object that the test looks into afterwards."""

    def new(cls: type) -> Any:
        return instance

    methods = {
        name: getattr(type(instance), name)
        for name in dir(type(instance))
        if (name == "__call__" or not name.startswith("_")) and callable(getattr(type(instance), name))
    }
    return type(type(instance).__name__, (), {**methods, "__new__": new})
