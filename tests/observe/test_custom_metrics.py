"""Counters, gauges and histograms of user code: values, tags, and what is refused."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from trio_serve import metrics
from trio_serve.observe import custom_metrics
from trio_serve.observe.custom_metrics import STORES
from trio_serve.observe.families import Families

numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has: the values belong to the process."""
    return f"custom_{next(numbers)}"


def exported(name: str, ray_prefix: bool = False) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of one metric by name and labels."""
    families = Families()
    STORES.add_to(families)
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for metric in families.export(ray_prefix=ray_prefix)
        if metric.name.removeprefix("ray_") == name
        for sample in metric.samples
    }


def test_a_counter_counts_by_tags(name: str) -> None:
    counter = metrics.Counter(name, description="words", tag_keys=("backend", "kind"))
    counter.set_default_tags({"backend": "f"})
    counter.inc(tags={"kind": "good"})
    counter.inc(2.5, tags={"kind": "good"})
    counter.inc(tags={"kind": "bad", "backend": "g"})

    assert exported(name) == {
        (name, (("backend", "f"), ("kind", "good"))): 3.5,
        (name, (("backend", "g"), ("kind", "bad"))): 1.0,
    }
    assert counter.info == {
        "name": name,
        "description": "words",
        "tag_keys": ("backend", "kind"),
        "default_tags": {"backend": "f"},
    }


def test_a_gauge_is_what_it_was_set_to(name: str) -> None:
    gauge = metrics.Gauge(name)
    gauge.set(3)
    gauge.set(-1.5)

    assert exported(name, ray_prefix=True) == {(name, ()): -1.5, (f"ray_{name}", ()): -1.5}


def test_a_histogram_counts_below_its_boundaries(name: str) -> None:
    histogram = metrics.Histogram(name, boundaries=[1, 10], tag_keys=("a",))
    for value in (0.5, 1, 5, 50):
        histogram.observe(value, tags={"a": "x"})

    a = ("a", "x")
    assert exported(name) == {
        (f"{name}_bucket", (a, ("le", "1.0"))): 2,
        (f"{name}_bucket", (a, ("le", "10.0"))): 3,
        (f"{name}_bucket", (a, ("le", "+Inf"))): 4,
        (f"{name}_count", (a,)): 4,
        (f"{name}_sum", (a,)): 56.5,
    }
    assert histogram.info["boundaries"] == [1.0, 10.0]


def test_the_same_name_is_the_same_metric(name: str) -> None:
    """As it is made by each of two replicas, and by a later version with another tag."""
    metrics.Counter(name, tag_keys=("a",)).inc(tags={"a": "1"})
    metrics.Counter(name, tag_keys=("a",)).inc(tags={"a": "1"})
    metrics.Counter(name, tag_keys=("b",)).inc(tags={"b": "1"})

    assert exported(name) == {(name, (("a", "1"),)): 2.0, (name, (("b", "1"),)): 1.0}


def test_threads_lose_no_count(name: str) -> None:
    counter = metrics.Counter(name)
    threads = [threading.Thread(target=lambda: [counter.inc() for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert exported(name) == {(name, ()): 8000.0}


def test_tags_beyond_the_limit_are_counted_together(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(custom_metrics, "SERIES_MAX", 2)
    counter = metrics.Counter(name, tag_keys=("user",))
    for user in "abcda":
        counter.inc(tags={"user": user})

    assert {labels[0][1]: value for (_, labels), value in exported(name).items()} == {
        "a": 2.0,
        "b": 1.0,
        "_OTHER": 2.0,
    }
    assert caplog.text.count("has 2 combinations of tags") == 1


@pytest.mark.parametrize(
    "use, error, text",
    [
        (lambda n: metrics.Counter(""), ValueError, "Empty name is not allowed"),
        (lambda n: metrics.Counter("a-b"), ValueError, "'a-b' is not made of letters"),
        (lambda n: metrics.Counter("serve_num_http_requests"), ValueError, "one of the instance's own"),
        (lambda n: metrics.Counter(n, tag_keys="abc"), TypeError, "tag_keys should be a tuple type, got"),
        (lambda n: metrics.Counter(n, tag_keys=(1,)), TypeError, "Tag keys must be str, got"),
        (lambda n: metrics.Counter(n, tag_keys=("a-b",)), ValueError, "'a-b' is not a name that Prometheus"),
        (lambda n: metrics.Counter(n).inc(0), ValueError, "value must be >0, got 0"),
        (lambda n: metrics.Counter(n).inc(-1), ValueError, "value must be >0, got -1"),
        (lambda n: metrics.Counter(n).inc("1"), TypeError, "value must be int or float, got"),
        (lambda n: metrics.Counter(n).inc(tags={"a": "b"}), ValueError, "Unrecognized tag key a"),
        (lambda n: metrics.Counter(n).set_default_tags({"a": "b"}), ValueError, "Unrecognized tag key a"),
        (
            lambda n: metrics.Gauge(n, tag_keys=("a", "b")).set(1),
            ValueError,
            r"Missing value for tag key\(s\): a, b\.",
        ),
        (
            lambda n: metrics.Gauge(n, tag_keys=("a",)).set(1, tags={"a": 1}),
            TypeError,
            "Tag values must be str, got int for tag key a",
        ),
        (lambda n: metrics.Histogram(n), ValueError, "boundaries argument should be provided"),
        (lambda n: metrics.Histogram(n, boundaries=[]), ValueError, "boundaries argument should be"),
        (
            lambda n: metrics.Histogram(n, boundaries=[1, -1]),
            ValueError,
            "Invalid `boundaries` argument at index 1, -1",
        ),
        (lambda n: metrics.Histogram(n, boundaries=[1]).observe(float("nan")), ValueError, "finite number"),
    ],
)
def test_errors_are_those_of_ray(
    name: str, use: Callable[[str], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        use(name)


def test_one_name_stands_for_one_kind(name: str) -> None:
    metrics.Counter(name)

    with pytest.raises(ValueError, match=f"metric {name!r} is a counter already"):
        metrics.Gauge(name)
