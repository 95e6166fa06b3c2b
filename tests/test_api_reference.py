"""docs/api.md is what the docstrings say now, and every public name has one."""

import importlib.util
import inspect
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
            found += [(f"{module}.{name}.{member}", each) for member, each in write_api.members_of(thing)]
    return found


def test_the_page_is_current() -> None:
    assert write_api.PAGE.read_text() == write_api.page(), "docs/api.md is old; `make docs` writes it anew"


def test_every_public_value_says_what_it_is() -> None:
    values = [(module, name) for module, name, thing in write_api.public_objects() if not callable(thing)]

    assert [name for module, name in values if not write_api.written_below(module, name)] == []


@pytest.mark.parametrize("name, thing", [pytest.param(*each, id=each[0]) for each in described()])
def test_every_public_name_says_what_it_is(name: str, thing: Any) -> None:
    assert write_api.docstring_of(getattr(thing, "__func__", thing))
