"""An endpoint: a route of its own, and the traffic policy that says which applications answer there.

Knows nothing of HTTP but a path and the names of methods.
"""

import attrs

from trio_serve.serving.traffic_split import TrafficSplit


@attrs.define(eq=False)
class Endpoint:
    """``route_prefix`` None: it is reached by handles only."""

    name: str
    route_prefix: str | None
    methods: tuple[str, ...]
    traffic: TrafficSplit
