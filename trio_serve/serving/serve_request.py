"""What a backend gets when a handle calls it: the caller's data, in the form of a request.

    handle.remote({"a": 1}, q="x")      await request.json() == {"a": 1}     request.query_params["q"] == "x"

Source: Ray Serve 1.3, ServeRequest.  Knows nothing of HTTP but words.
"""

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class ServeRequest:
    """To code that reads body and query, a Starlette ``Request``; ``data`` is as it was given."""

    data: Any = None
    query_params: Mapping[str, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    method: str = "GET"

    async def body(self) -> Any:
        """The data, whatever it is."""
        return self.data

    async def json(self) -> Any:
        """The data.

        Raises:
            TypeError: it is no dict, which is what JSON would be here.
        """
        return self._dict("json")

    async def form(self) -> Any:
        """As ``json``."""
        return self._dict("form")

    def _dict(self, form: str) -> dict[Any, Any]:
        if not isinstance(self.data, dict):
            raise TypeError(
                f"request.{form}() needs a dict, and the handle was given {type(self.data).__name__}; "
                "read it with request.data"
            )
        return self.data
