"""From the text ``package.module:attribute`` or ``package.module.attribute`` to the object it names.

Knows nothing of what the object is for.
"""

import difflib
import importlib
import os
import sys
from types import ModuleType
from typing import Any


class ImportPathError(ValueError):
    """The path names nothing, or importing it failed; the text names module and attribute."""


def import_object(path: str) -> Any:
    """The module or attribute that ``path`` names.

    Without a colon, as much of the path as can be imported is the module.

    Raises:
        ImportPathError: no such module or attribute, or the module raised while it was imported.
    """
    module_path, colon, attribute_path = path.partition(":")
    steps = attribute_path.split(".") if colon else []
    if not all(step.isidentifier() for step in module_path.split(".") + steps):
        raise ImportPathError(f"{path!r} is no import path; write 'package.module:attribute'")
    module, rest = _import_longest(module_path) if not colon else (_import(module_path), [])
    if module is None:
        raise ImportPathError(_no_module(path, module_path, attribute_path))
    found: Any = module
    seen = module.__name__
    for step in rest + steps:
        try:
            found = getattr(found, step)
        except AttributeError:
            raise ImportPathError(_no_attribute(path, found, seen, step)) from None
        seen += f".{step}"
    return found


def _import_longest(path: str) -> tuple[ModuleType | None, list[str]]:
    steps = path.split(".")
    for count in range(len(steps), 0, -1):
        module = _import(".".join(steps[:count]))
        if module is not None:
            return module, steps[count:]
    return None, []


def _import(name: str) -> ModuleType | None:
    """The module, or None when there is none of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            return None
        raise ImportPathError(f"importing module {name!r} failed: {error}") from error
    except Exception as error:  # the user's module runs here, and may raise anything
        raise ImportPathError(f"importing module {name!r} failed: {type(error).__name__}: {error}") from error


def _no_module(path: str, module_path: str, attribute_path: str) -> str:
    if not attribute_path:
        module_path, _, attribute_path = module_path.rpartition(".")
    of = f", to take {attribute_path!r} from," if module_path else ""
    first = os.path.abspath(sys.path[0] if sys.path else "")
    return (
        f"{path!r}: there is no module {module_path or attribute_path!r}{of} on sys.path, "
        f"which begins with {first!r}"
    )


def _no_attribute(path: str, found: Any, seen: str, step: str) -> str:
    what = "module" if isinstance(found, ModuleType) else "object"
    close = difflib.get_close_matches(step, dir(found), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{path!r}: {what} {seen!r} has no attribute {step!r}{hint}"
