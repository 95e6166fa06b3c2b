"""A handle to an endpoint: each call goes where the endpoint's traffic policy says.

    handle.remote({"a": 1}) ──> Endpoint.traffic ──> a backend's handle     and copies to its shadows

Source: Ray Serve 1.3, RayServeHandle.
"""

import copy
import functools
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import attrs
import trio

from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.errors import DeploymentUnavailable
from trio_serve.serving.handle import DeploymentHandle, Directory
from trio_serve.serving.options import UNSET
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.responses import DeploymentResponse
from trio_serve.serving.serve_request import ServeRequest


class EndpointDirectory(Directory, Protocol):
    """Where such handles look endpoints up."""

    endpoints: dict[str, Endpoint]


@attrs.frozen
class EndpointHandle:
    """Calls one endpoint, from tasks and from threads; immutable."""

    _directory: EndpointDirectory = attrs.field(repr=False)
    endpoint_name: str
    method_name: str = "__call__"
    http_method: str = "GET"
    http_headers: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def address(self) -> dict[str, Any]:
        """Whom it calls and how, as plain data: ``EndpointHandle(directory, **address)`` is its equal."""
        return {
            "endpoint_name": self.endpoint_name,
            "method_name": self.method_name,
            "http_method": self.http_method,
            "http_headers": dict(self.http_headers),
        }

    def options(
        self,
        method_name: str = UNSET,
        *,
        http_method: str = UNSET,
        http_headers: Mapping[str, str] = UNSET,
    ) -> "EndpointHandle":
        """The same handle with other options; what is not given stays."""
        given: dict[str, Any] = {
            "method_name": method_name,
            "http_method": http_method,
            "http_headers": http_headers,
        }
        return attrs.evolve(self, **{name: value for name, value in given.items() if value is not UNSET})

    def remote(self, request_data: Any = None, **query_params: Any) -> DeploymentResponse[Any]:
        """Call the endpoint with a `ServeRequest`; never waits.

        Raises:
            KeyError: there is no such endpoint.
            DeploymentUnavailable: every backend in its policy was deleted.
        """
        endpoint = self._directory.endpoints.get(self.endpoint_name)
        if endpoint is None:
            raise KeyError(f"there is no endpoint {self.endpoint_name!r}; create_endpoint() makes one")
        split = endpoint.traffic
        sticky = split.policy.sticky
        headers = {name.lower(): value for name, value in self.http_headers.items()}
        target = split.choose(None if sticky is None else headers.get(sticky))
        if target is None:
            raise DeploymentUnavailable("", self.endpoint_name, "the endpoint has no backend left")
        handle: DeploymentHandle[DeploymentResponse[Any]] = DeploymentHandle(
            self._directory, target.name, target.ingress.name, method=self.method_name
        )
        response = handle.remote(ServeRequest(request_data, query_params, headers, self.http_method))
        for shadow in split.shadow_targets():
            self._in_trio_thread(
                functools.partial(
                    split.shadow,
                    shadow,
                    self.method_name,
                    lambda: (
                        copy.deepcopy(ServeRequest(request_data, query_params, headers, self.http_method)),
                    ),
                    RequestContext(response.request_id, shadow.name),
                )
            )
        return response

    def _in_trio_thread(self, send: Any) -> None:
        if threading.get_ident() == self._directory.thread_ident:
            send()
            return
        try:
            self._directory.token.run_sync_soon(send)
        except trio.RunFinishedError:
            pass  # the call itself tells that the instance has ended
