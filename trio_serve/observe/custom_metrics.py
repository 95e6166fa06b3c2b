"""Metrics that user code makes: counters, gauges and histograms with tags.

    requests = metrics.Counter("excellent_requests", tag_keys=("backend",))
    requests.set_default_tags({"backend": "f"})
    requests.inc()                                     in a replica, in its thread, anywhere

Their values belong to the process, as a module that makes one when it is imported knows no instance: the
same name is the same metric, in each replica that makes it, and every instance of the process exports it.

Source: Ray's ``ray.util.metrics``, names and errors included.
"""

import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from trio_serve.observe.catalogue import CATALOGUE, Kind, Metric
from trio_serve.observe.families import RAY_PREFIX, Families, Sample, histogram_samples

logger = logging.getLogger("trio_serve.metrics")

SERIES_MAX = 10_000
OTHER = "_OTHER"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_TAG_KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Tags = tuple[tuple[str, str], ...]


class Store:
    """The values of one metric, by tags; safe to use from every thread."""

    def __init__(self, metric: Metric, bounds: tuple[float, ...]) -> None:
        self.metric = metric
        self.bounds = bounds
        self.lock = threading.Lock()
        self.series: dict[Tags, Any] = {}

    def update(self, tags: Tags, change: Callable[[Any], Any]) -> None:
        """Replace the value at ``tags`` by ``change(value)``; None is what was not there yet."""
        with self.lock:
            if tags not in self.series and len(self.series) >= SERIES_MAX:
                tags = self._overflow(tags)
            self.series[tags] = change(self.series.get(tags))

    def _overflow(self, tags: Tags) -> Tags:
        other = tuple((key, OTHER) for key, _ in tags)
        if other not in self.series:
            logger.warning(
                "metric %r has %d combinations of tags; further ones are counted together as %s",
                self.metric.name,
                SERIES_MAX,
                OTHER,
            )
        return other

    def samples(self) -> Iterator[Sample]:
        """What is exported."""
        with self.lock:
            series: dict[Tags, Any] = {
                tags: (list(value[0]), value[1]) if self.bounds else value
                for tags, value in self.series.items()
            }
        for tags, value in series.items():
            if self.bounds:
                yield from histogram_samples(dict(tags), self.bounds, *value)
            else:
                yield "", dict(tags), value


class Stores:
    """All custom metrics of the process, by name."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._lock = threading.Lock()

    def open(self, metric: Metric, bounds: tuple[float, ...] = ()) -> Store:
        """The store of a metric, made by whoever asks first.

        Raises:
            ValueError: the name stands for another kind of metric, or for other boundaries.
        """
        with self._lock:
            store = self._stores.get(metric.name)
            if store is None:
                store = self._stores[metric.name] = Store(metric, bounds)
            elif (store.metric.kind, store.bounds) != (metric.kind, bounds):
                has = f" with boundaries {list(store.bounds)}" if store.bounds else ""
                raise ValueError(
                    f"metric {metric.name!r} is a {store.metric.kind.value}{has} already; one name stands "
                    "for one kind of metric, so choose another"
                )
            return store

    def add_to(self, families: Families) -> None:
        """Add every custom metric to a scrape."""
        with self._lock:
            stores = list(self._stores.values())
        for store in stores:
            families.add_own(store.metric, store.samples())


STORES = Stores()


class _CustomMetric:
    """What the three kinds share: a name, tag keys and default tags."""

    _kind: Kind

    def __init__(
        self, name: str, description: str = "", tag_keys: Sequence[str] | None = None, *, bounds: Any = ()
    ) -> None:
        self._tag_keys = _read_tag_keys(tag_keys)
        metric = Metric(_read_name(name), self._kind, self._tag_keys, str(description))
        self._store = STORES.open(metric, tuple(bounds))
        self._description = str(description)
        self._default_tags: dict[str, str] = {}
        self._without_given: Tags | None = None

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._store.metric.name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._default_tags),
        }

    def set_default_tags(self, default_tags: Mapping[str, str]) -> None:
        """Use these tags where none are given.

        Raises:
            ValueError: a key that is not among ``tag_keys``.
            TypeError: a value that is no text.
        """
        self._check_tags(default_tags)
        self._default_tags = dict(default_tags)
        self._without_given = None

    def _tags(self, given: Mapping[str, str] | None) -> Tags:
        """All tags of one value, default ones included, in the order of the keys.

        Raises:
            ValueError: an unknown key, or one without a value.
        """
        if not given and self._without_given is not None:
            return self._without_given
        if given:
            self._check_tags(given)
        tags = {**self._default_tags, **(given or {})}
        missing = [key for key in self._tag_keys if key not in tags]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {', '.join(missing)}.")
        ordered = tuple((key, tags[key]) for key in self._tag_keys)
        if not given:
            self._without_given = ordered
        return ordered

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                has = ", ".join(self._tag_keys) or "none"
                raise ValueError(
                    f"Unrecognized tag key {key}; the tag_keys of {self._store.metric.name!r} are: {has}."
                )
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value).__name__} for tag key {key}.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store.metric.name!r}>"


class Counter(_CustomMetric):
    """A number that only grows.

    Raises:
        ValueError: a bad name, or one that stands for another kind of metric.
        TypeError: ``tag_keys`` is no tuple of texts.
    """

    _kind = Kind.COUNTER

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        super().__init__(name, description, tag_keys)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add ``value``, which must be above 0.

        Raises:
            ValueError: ``value`` is 0 or less; a tag is unknown or missing.
        """
        amount = _number(value)
        if amount <= 0:
            raise ValueError(f"value must be >0, got {value}")
        self._store.update(self._tags(tags), lambda before: (before or 0.0) + amount)


class Gauge(_CustomMetric):
    """A number that is set; raises as `Counter`."""

    _kind = Kind.GAUGE

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        super().__init__(name, description, tag_keys)

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Let it be ``value``.

        Raises:
            ValueError: a tag is unknown or missing.
        """
        number = _number(value, finite=False)
        self._store.update(self._tags(tags), lambda before: number)


class Histogram(_CustomMetric):
    """How values are spread: counted below each of ``boundaries``; raises as `Counter`."""

    _kind = Kind.HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. "
                'e.g. Histogram("name", boundaries=[1.0, 2.0])'
            )
        bounds = [_number(bound) for bound in boundaries]
        for index, bound in enumerate(bounds):
            if bound <= 0:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {index}, {bound}. Use positive values."
                )
        super().__init__(name, description, tag_keys, bounds=sorted(set(bounds)))

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys, default tags and boundaries."""
        return {**super().info, "boundaries": list(self._store.bounds)}

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count ``value``.

        Raises:
            ValueError: a tag is unknown or missing.
        """
        number = _number(value)
        bounds = self._store.bounds

        def count(before: tuple[list[int], float] | None) -> tuple[list[int], float]:
            buckets, total = before or ([0] * (len(bounds) + 1), 0.0)
            buckets[bisect_left(bounds, number)] += 1
            return buckets, total + number

        self._store.update(self._tags(tags), count)


def _read_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError("Empty name is not allowed. Please provide a metric name.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"metric name {name!r} is not made of letters, digits, '_' and ':' only")
    if name in CATALOGUE or name.removeprefix(RAY_PREFIX) in CATALOGUE:
        raise ValueError(f"metric name {name!r} is one of the instance's own; choose another")
    return name


def _read_tag_keys(tag_keys: Any) -> tuple[str, ...]:
    if tag_keys is None:
        return ()
    if not isinstance(tag_keys, tuple | list):
        raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
    for key in tag_keys:
        if not isinstance(key, str):
            raise TypeError(f"Tag keys must be str, got {type(key)}.")
        if not _TAG_KEY.fullmatch(key) or key.startswith("__") or key == "le":
            raise ValueError(f"tag key {key!r} is not a name that Prometheus takes for a label")
    return tuple(tag_keys)


def _number(value: Any, finite: bool = True) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"value must be int or float, got {type(value)}.")
    if finite and not isfinite(value):
        raise ValueError(f"value must be a finite number, got {value}")
    return float(value)
