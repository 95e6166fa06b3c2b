"""docs/api.md is what the docstrings say now, and every public name has one."""

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from .document import ROOT

_spec = importlib.util.spec_from_file_location("write_api", ROOT / "docs" / "write_api.py")
assert _spec is not None
assert _spec.loader is not None
write_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(write_api)


def described() -> list[tuple[str, Any]]:
    """Every public name that can have a docstring, members of classes among them."""
    found = []
    for module, name, thing in write_api.public_objects():
        if callable(thing):
            found.append((f"{module}.{name}", thing))
        if inspect.isclass(thing):
            found += [
                (f"{module}.{name}.{member}", getattr(each, "__func__", each))
                for member, each in write_api.members_of(thing)
            ]
    return found


def test_the_page_is_current() -> None:
    assert write_api.PAGE.read_text() == write_api.page(), "docs/api.md is old; `make docs` writes it anew"


def test_every_public_value_says_what_it_is() -> None:
    values = [(module, name) for module, name, thing in write_api.public_objects() if not callable(thing)]

    assert [name for module, name in values if not write_api.written_below(module, name)] == []


@pytest.mark.parametrize("name, thing", [pytest.param(*each, id=each[0]) for each in described()])
def test_every_public_name_says_what_it_is(name: str, thing: Any) -> None:
    assert write_api.docstring_of(thing)


def raised_in(node: ast.AST) -> Iterator[str]:
    """The classes of the errors that are raised by name below ``node``, inner functions apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            if isinstance(error, ast.Name) and error.id[0].isupper():
                yield error.id
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from raised_in(child)


def test_what_a_public_function_raises_stands_in_its_docstring() -> None:
    part_of_iterating = {"StopIteration", "StopAsyncIteration"}
    untold = {
        name: errors
        for name, function in described()
        if inspect.isfunction(function)
        if (errors := {*raised_in(write_api.definition_of(function))} - part_of_iterating)
        if not all(error in write_api.docstring_of(function) for error in errors)
    }

    assert untold == {}
