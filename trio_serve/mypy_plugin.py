"""For mypy: a class under ``@serve.deployment`` has ``bind`` and ``options``.

    [mypy]
    plugins = trio_serve.mypy_plugin

mypy looks at what a decorator makes of a function, but not of a class: that stays a class to it, and a class
has no ``bind``.  (``Ranker = serve.deployment(Plain)`` needs no plugin.)

Source: mypy's documentation, "Extending and integrating mypy".  Knows names of this package only.
"""

from collections.abc import Callable

from mypy.nodes import ARG_STAR, ARG_STAR2, Argument, Var
from mypy.plugin import ClassDefContext, Plugin
from mypy.plugins.common import add_method_to_class
from mypy.types import AnyType, TypeOfAny

DECORATOR = "trio_serve.serving.deployment.deployment"
METHODS = {
    "bind": "trio_serve.serving.application.Application",
    "options": "trio_serve.serving.deployment.Deployment",
}


class DeploymentPlugin(Plugin):
    """Gives decorated classes their methods."""

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        return add_methods if fullname == DECORATOR else None


def add_methods(context: ClassDefContext) -> bool:
    """Add what a deployment has to the class; False: the types are not known yet, so ask again."""
    anything = AnyType(TypeOfAny.explicit)
    for name, returned in METHODS.items():
        kind = context.api.named_type_or_none(returned)
        if kind is None:
            return False
        arguments = [
            Argument(Var("args", anything), anything, None, ARG_STAR),
            Argument(Var("kwargs", anything), anything, None, ARG_STAR2),
        ]
        add_method_to_class(context.api, context.cls, name, arguments, kind, is_classmethod=True)
    return True


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for."""
    return DeploymentPlugin
