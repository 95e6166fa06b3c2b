"""All metrics of one instance, as Prometheus reads them.

    counters of serving, grpc, proxies, and the user's own ── collect, at each scrape ──> samples ──> text
                                                              in the Trio thread           in a worker thread

Nothing is counted here, and nothing is kept between two scrapes.  The text takes longer than all the rest, so
that a scrape of many replicas would else be felt by the calls.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import trio

from trio_serve.observe.custom_metrics import STORES
from trio_serve.observe.families import Families
from trio_serve.observe.proxy_metrics import add_grpc_server_metrics, add_proxy_metrics, ongoing_calls
from trio_serve.observe.serving_metrics import add_serving_metrics
from trio_serve.proxy.grpc_proxy import GrpcProxy
from trio_serve.serving.controller import Controller

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, metrics_core

    from trio_serve.proxy.http_proxy import HttpProxy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exporter:
    """A collector of prometheus_client, with a registry of its own; the proxies are set when they open."""

    def __init__(self, controller: Controller, *, ray_prefix: bool = True) -> None:
        self.ray_prefix = ray_prefix
        """Whether each name is exported as ``ray_<name>`` besides."""
        self.grpc_proxy: GrpcProxy | None = None
        self.http_proxy: HttpProxy | None = None
        self._controller = controller

    def text(self) -> bytes:
        """Everything, in Prometheus' text format; to be called in the Trio thread, which waits for it."""
        return _text_of(self._snapshot())

    async def scrape(self) -> bytes:
        """As `text`, written in a worker thread."""
        return await trio.to_thread.run_sync(_text_of, self._snapshot())

    def _snapshot(self) -> "list[metrics_core.Metric]":
        return list(self._registry.collect())

    def collect(self) -> Iterator["metrics_core.Metric"]:
        """For prometheus_client: everything that there is now."""
        families = Families()
        add_serving_metrics(self._controller, families)
        if self.grpc_proxy is not None:
            server = self.grpc_proxy.server
            add_proxy_metrics("grpc", self.grpc_proxy.counters, ongoing_calls(server), families)
            add_grpc_server_metrics(server, families)
        if self.http_proxy is not None:
            counters = self.http_proxy.counters
            add_proxy_metrics("http", counters, counters.ongoing, families)
        STORES.add_to(families)
        return families.export(ray_prefix=self.ray_prefix)

    @cached_property
    def _registry(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry


@attrs.frozen
class _Snapshot:
    """What `generate_latest` asks of a registry."""

    metrics: "list[metrics_core.Metric]"

    def collect(self) -> "list[metrics_core.Metric]":
        return self.metrics


def _text_of(metrics: "list[metrics_core.Metric]") -> bytes:
    from prometheus_client import generate_latest

    return generate_latest(_Snapshot(metrics))
