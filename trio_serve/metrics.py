"""Metrics of your own, as ``ray.util.metrics`` has them: ``from trio_serve import metrics``.

self.excellent = metrics.Counter("excellent_requests", description="...", tag_keys=("backend",))
self.excellent.inc(tags={"backend": "f"})
"""

from trio_serve.observe.custom_metrics import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
