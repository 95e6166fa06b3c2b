"""Which application an HTTP path belongs to: the longest prefix that ends where a segment does.

    /f         /f, /f/x     but not /ff
    /f/g       /f/g/x
    /          all the rest

Knows applications by their name and prefix only.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol


class Routed(Protocol):
    """What can lie at a path; ``route_prefix`` is None where HTTP does not reach it."""

    route_prefix: str | None


class Route(NamedTuple):
    """Where a path leads: the prefix that it matched, and the name of the application there."""

    prefix: str
    application: str


def match(path: str, applications: Mapping[str, Routed]) -> Route | None:
    """The application for ``path``, or None."""
    found: Route | None = None
    for name, application in applications.items():
        prefix = application.route_prefix
        if (
            prefix is not None
            and lies_below(path, prefix)
            and (found is None or len(prefix) > len(found.prefix))
        ):
            found = Route(prefix, name)
    return found


def lies_below(path: str, prefix: str) -> bool:
    """Whether ``path`` is ``prefix`` or something in it."""
    return path.startswith(prefix) and (
        len(path) == len(prefix) or prefix in ("", "/") or path[len(prefix)] == "/"
    )


def table(applications: Iterable[tuple[str, Routed]]) -> dict[str, str]:
    """Every prefix with the name of its application, as ``/-/routes`` shows them."""
    return {
        application.route_prefix: name
        for name, application in applications
        if application.route_prefix is not None
    }
