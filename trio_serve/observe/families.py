"""Samples on their way to Prometheus: collected by name, handed to prometheus_client as families.

    families.add("serve_num_grpc_requests", (route, application, method, "OK"), 7)

Each ``serve_*`` name, and each of the user's own, is exported with the prefix ``ray_`` besides where that is
wanted: Ray's dashboards ask for it.  Counters whose names do not end in ``_total`` have the type "untyped" in
the text, because the format's library writes that ending into the name of whatever it calls a counter.

Source: Prometheus' text exposition format.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from trio_serve.observe.catalogue import CATALOGUE, Kind, Metric

if TYPE_CHECKING:
    from prometheus_client import metrics_core

RAY_PREFIX = "ray_"

Sample = tuple[str, dict[str, str], float]
"""The ending of the sample's name, its labels, its value."""


class Families:
    """The samples of one scrape."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._samples: dict[str, list[Sample]] = {}

    def add(self, name: str, labels: Iterable[str], value: float) -> None:
        """One value of a counter or a gauge; ``labels`` in the order of the catalogue."""
        self._of(name).append(("", self._named(name, labels), value))

    def add_histogram(
        self,
        name: str,
        labels: Iterable[str],
        bounds: Sequence[float],
        buckets: Sequence[int],
        total: float,
        factor: float = 1.0,
    ) -> None:
        """Counts by upper bound (the last one has none), not cumulative, and the sum of what was counted.

        ``factor`` leads from the unit of ``bounds`` and ``total`` to the metric's own.
        """
        named = self._named(name, labels)
        scaled = [bound * factor for bound in bounds]
        self._of(name).extend(histogram_samples(named, scaled, buckets, total * factor))

    def add_summary(self, name: str, labels: Iterable[str], count: int, total: float) -> None:
        """How many there were, and their sum."""
        named = self._named(name, labels)
        self._of(name).extend((("_count", named, count), ("_sum", named, total)))

    def add_own(self, metric: Metric, samples: Iterable[Sample]) -> None:
        """A metric that is not in the catalogue, with all of its samples."""
        if metric.name not in CATALOGUE:
            self._metrics[metric.name] = metric
            self._samples.setdefault(metric.name, []).extend(samples)

    def export(self, *, ray_prefix: bool) -> Iterator["metrics_core.Metric"]:
        """The families, as prometheus_client wants them."""
        for name, samples in self._samples.items():
            metric = self._metrics.get(name) or CATALOGUE[name]
            yield _exported(name, metric, samples)
            if ray_prefix and not name.startswith("grpc_"):
                yield _exported(RAY_PREFIX + name, metric, samples)

    def _of(self, name: str) -> list[Sample]:
        return self._samples.setdefault(name, [])

    @staticmethod
    def _named(name: str, labels: Iterable[str]) -> dict[str, str]:
        return dict(zip(CATALOGUE[name].labels, labels, strict=True))


def histogram_samples(
    labels: dict[str, str], bounds: Sequence[float], buckets: Sequence[int], total: float
) -> Iterator[Sample]:
    """A histogram's samples, whose buckets are cumulative."""
    limits = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    for limit, count in zip(limits, accumulate(buckets), strict=True):
        yield "_bucket", {**labels, "le": limit}, count
    yield "_count", labels, sum(buckets)
    yield "_sum", labels, total


def _exported(name: str, metric: Metric, samples: Iterable[Sample]) -> "metrics_core.Metric":
    # Here and not above: the library takes a twentieth of a second to import, and many never scrape.
    from prometheus_client import metrics_core

    kind = metric.kind.value
    family = name
    if metric.kind is Kind.COUNTER:
        family = name.removesuffix("_total")
        kind = "counter" if family != name else "unknown"
    exported = metrics_core.Metric(family, metric.meaning, kind)
    for ending, labels, value in samples:
        exported.add_sample(name + ending, labels, value)
    return exported
