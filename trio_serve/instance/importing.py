"""From an import path to an application: a module's attribute, or what a builder there makes of arguments.

    "shop:app"                      >  shop.app, an Application
    "shop:build", {"size": "3"}     >  shop.build({"size": "3"}), or shop.build(Args(size=3)) for a typed one

A path that names nothing and arguments that do not fit are the caller's mistakes (`ImportTargetError`); what
the imported code itself raises is told apart from them (`ImportedCodeRaised`), for it needs its stack trace.

Source: Ray Serve's application builders.
Knows nothing of files and command lines.
"""

import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trio_serve.grpc.import_path import ImportPathError, import_object
from trio_serve.instance.settings import shown
from trio_serve.serving.application import Application
from trio_serve.serving.deployment import Deployment


class ImportTargetError(ValueError):
    """An import path that does not lead to an application; ``about_args`` when its arguments are to blame."""

    def __init__(self, text: str, *, about_args: bool = False) -> None:
        super().__init__(text)
        self.about_args = about_args


class ImportedCodeRaised(Exception):
    """The code behind an import path raised when imported or called; its error is the ``__cause__``."""


def put_on_import_path(folders: Iterable[str]) -> None:
    """Make the modules in ``folders`` importable, before all others and in this order."""
    wanted = [os.path.abspath(folder) for folder in folders]
    sys.path[:] = [*dict.fromkeys(wanted), *[entry for entry in sys.path if entry not in wanted]]


def import_application(import_path: str, args: Mapping[str, Any] | None = None) -> Application:
    """The application that ``import_path`` names; ``args`` are for its builder, when it is one.

    Runs the code of the module, and of the builder.

    Raises:
        ImportTargetError: the path leads nowhere, to something else, or takes other arguments.
        ImportedCodeRaised: from what that code raised.
    """
    try:
        target = import_object(import_path)
    except ImportPathError as error:
        if error.__cause__ is None:
            raise ImportTargetError(str(error)) from None
        raise ImportedCodeRaised(str(error)) from error.__cause__
    except SystemExit as error:
        raise ImportedCodeRaised(f"importing {import_path!r} ended with sys.exit({error.code!r})") from error
    if isinstance(target, Application):
        if args:
            raise ImportTargetError(
                f"{import_path!r} is an application and takes no arguments, but got {', '.join(args)}; "
                "a function that returns an application takes them",
                about_args=True,
            )
        return target
    if isinstance(target, Deployment):
        raise ImportTargetError(
            f"{import_path!r} is a deployment; bind its arguments to make it an application: "
            f"app = {import_path.replace(':', '.').rpartition('.')[2]}.bind(...)"
        )
    if inspect.isclass(target) or not callable(target):
        raise ImportTargetError(
            f"{import_path!r} is {_what(target)}, and neither an application nor a function that returns one"
        )
    return _built(import_path, target, dict(args or {}))


def _what(target: object) -> str:
    if inspect.isclass(target):
        return f"the class {target.__name__}"
    if inspect.ismodule(target):
        return f"the module {target.__name__}"
    return f"{shown(target)} of type {type(target).__name__}"


# -- builders ------------------------------------------------------------------------------------------------


def _built(import_path: str, build: Callable[[Any], object], args: dict[str, Any]) -> Application:
    given = _typed(import_path, build, args)
    try:
        made = build(given)
    except Exception as error:
        raise ImportedCodeRaised(f"the builder {import_path!r} raised {type(error).__name__}") from error
    if not isinstance(made, Application):
        raise ImportTargetError(
            f"the builder {import_path!r} returned {_what(made)}; it must return an application, "
            "what Deployment.bind(...) makes"
        )
    return made


def _typed(import_path: str, build: Callable[[Any], object], args: dict[str, Any]) -> object:
    """``args`` as the builder wants them: the dict itself, or an object of the type that it declares."""
    parameters = list(inspect.signature(build).parameters.values())
    if len(parameters) != 1:
        raise ImportTargetError(
            f"the builder {import_path!r} has {len(parameters)} parameters; it needs one, for its arguments"
        )
    declared = _declared_type(build, parameters[0].name)
    try:
        if hasattr(declared, "model_validate"):  # pydantic
            return declared.model_validate(args)
        if hasattr(declared, "__attrs_attrs__") or hasattr(declared, "__dataclass_fields__"):
            return _structured(declared, args)
    except Exception as error:
        raise ImportTargetError(
            f"the arguments do not fit {import_path!r}: {_reasons(error)}", about_args=True
        ) from None
    return args


def _declared_type(build: Callable[[Any], object], parameter: str) -> Any:
    try:
        return typing.get_type_hints(build).get(parameter)
    except NameError:  # a type that only a checker imports
        return None


def _structured(declared: type, args: dict[str, Any]) -> object:
    """An attrs class or dataclass; the text "3" of a command line is the int 3 where an int is declared."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    return converter.structure(args, declared)


def _reasons(error: Exception) -> str:
    """All that does not fit, on one line."""
    if isinstance(error, ExceptionGroup):
        import cattrs

        return "; ".join(cattrs.transform_error(error, path="args"))
    if callable(errors := getattr(error, "errors", None)):  # pydantic's ValidationError
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors())
    return f"{type(error).__name__}: {error}"
