"""The names that applications are reached by: a name over gRPC and in handles, a route prefix over HTTP.

Knows the rules of both, and nothing of who keeps them.
"""

from collections.abc import Iterable
from typing import Any

from trio_serve.instance.settings import Mistake, Path, shown, text, wrong


def application_name(value: Any) -> str:
    """A name: any text that is not empty and fits in a metadata value (printable ASCII, no space around)."""
    name = text(value)
    if not name:
        raise wrong("is empty; an application needs a name")
    if not (name.isascii() and name.isprintable() and name == name.strip()):
        raise wrong(
            f"{shown(name)} cannot be sent as gRPC metadata; use printable ASCII with no space around it"
        )
    return name


def route_prefix(value: Any) -> str | None:
    """``/``, or segments with a ``/`` before each; None for an application that HTTP does not reach."""
    if value is None:
        return None
    prefix = text(value)
    if not prefix.startswith("/"):
        raise wrong(f"{shown(prefix)} does not begin with '/'; write {shown('/' + prefix.strip('/'))}")
    if prefix != "/" and prefix.endswith("/"):
        raise wrong(f"{shown(prefix)} ends with '/'; write {shown(prefix.rstrip('/') or '/')}")
    wildcards = [sign for sign in "{}*" if sign in prefix]
    if wildcards:
        raise wrong(
            f"{shown(prefix)} has {wildcards[0]!r}; a prefix takes no wildcards, "
            "the application routes what lies below it"
        )
    return prefix


def collisions(applications: Iterable[tuple[Path, str, str | None]]) -> list[Mistake]:
    """Names, and prefixes, that two of ``applications`` (where it stands, name, route prefix) would share."""
    mistakes = []
    by_name: dict[str, Path] = {}
    by_prefix: dict[str, str] = {}
    for path, name, prefix in applications:
        if name in by_name:
            mistakes.append(Mistake((*path, "name"), f"{name!r} is the name of another application"))
        by_name.setdefault(name, path)
        if prefix is not None and by_prefix.setdefault(prefix, name) != name:
            text = (
                f"{prefix!r} is the prefix of {by_prefix[prefix]!r}; "
                "choose another, or null to have none over HTTP"
            )
            mistakes.append(Mistake((*path, "route_prefix"), text))
    return mistakes
