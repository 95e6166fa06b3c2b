"""The port that metrics are read from: open for as long as the instance is, draining or not.

Knows where it listens, and nothing of what is measured.
"""

import socket
from collections.abc import Sequence

import trio

from trio_serve.instance.options import MetricsOptions
from trio_serve.instance.proxies import Door
from trio_serve.observe.metrics_endpoint import Scrape, serve_metrics
from trio_serve.transport.listener import open_listeners


class MetricsDoor(Door):
    """Answers ``GET /metrics`` with ``await scrape()``."""

    def __init__(self, listeners: Sequence[socket.socket], scrape: Scrape) -> None:
        super().__init__(listeners, None, 0.0)
        self._scrape = scrape
        self._serving = trio.CancelScope()

    async def accept(self, nursery: trio.Nursery) -> None:
        """Serve in ``nursery`` whoever connects, and has connected since the socket listens."""
        await nursery.start(self._serve)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        with self._serving:
            await serve_metrics(self._listeners, self._scrape, task_status=task_status)

    def close(self) -> None:
        """Stop serving."""
        self._serving.cancel()
        super().close()


async def open_metrics_door(
    options: MetricsOptions, scrape: Scrape, listeners: Sequence[socket.socket] = ()
) -> MetricsDoor:
    """Listen where ``options`` say, or on ``listeners`` that somebody opened; nothing is accepted yet.

    Raises:
        OSError: the port is in use, or the host is not ours.
    """
    return MetricsDoor(list(listeners) or await open_listeners(options.host, options.port), scrape)
