"""The contract's promises on metrics: every name, right numbers, bounded labels, the port."""

import pathlib
import re
from typing import Any

import httpx
import pytest
import trio

import trio_serve as serve
from tests.patience import PATIENCE_S
from trio_serve import metrics
from trio_serve.config import MetricsOptions
from trio_serve.grpc import methods_from, open_channel
from trio_serve.observe.catalogue import CATALOGUE

PROTO = str(pathlib.Path(__file__).parent.parent.parent / "protos" / "helloworld.proto")
METHOD = "/helloworld.Greeter/SayHello"

OLDER = [
    "serve_backend_request_counter",
    "serve_backend_error_counter",
    "serve_backend_replica_starts",
    "serve_backend_queuing_latency_ms",
    "serve_backend_processing_latency_ms",
    "serve_replica_queued_queries",
    "serve_replica_processing_queries",
    "serve_num_http_requests",
    "serve_num_router_requests",
    "serve_handle_request_counter",
    "serve_backend_queued_queries",
]

NEWER = [
    "serve_num_http_requests",
    "serve_num_grpc_requests",
    "serve_num_http_error_requests",
    "serve_num_grpc_error_requests",
    "serve_http_request_latency_ms",
    "serve_grpc_request_latency_ms",
    "serve_num_ongoing_http_requests",
    "serve_num_ongoing_grpc_requests",
    "serve_deployment_request_counter",
    "serve_deployment_error_counter",
    "serve_deployment_replica_starts",
    "serve_deployment_processing_latency_ms",
    "serve_deployment_queued_queries",
    "serve_replica_processing_queries",
    "serve_deployment_replica_healthy",
    "serve_batches_processed",
    "serve_num_multiplexed_models",
    "serve_autoscaling_target_replicas",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_handling_seconds",
]

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Series:
    """Prometheus' text, read without its library; a series that comes twice is an error."""
    series: Series = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
        key = (name, frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")))
        assert key not in series, line
        series[key] = float(value)
    return series


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of a metric over the series that have these labels; there must be one."""
    found = [
        value for (of, has), value in series.items() if of == name and labels.items() <= dict(has).items()
    ]
    assert found, f"no series {name} with {labels}"
    return sum(found)


@serve.deployment(name="f", max_ongoing_requests=1, sync_methods="inline")
class F:
    async def __call__(self, seconds: Any = 0) -> str:
        await trio.sleep(seconds)
        return "slept"

    async def fail(self, number: int) -> None:
        raise (ValueError, LookupError)[number % 2]


async def test_latencies_queues_and_errors_are_exact() -> None:
    """Three calls of one second each, one at a time: they wait 0, 1 and 2 seconds.  Then three errors."""
    async with serve.open_instance() as instance:
        handle = await instance.run(F.bind(), name="app1")
        responses = [handle.remote(1) for _ in range(3)]
        await trio.sleep(0.5)
        during = read(instance.metrics_text())
        for response in responses:
            await response
        for number in range(3):
            with pytest.raises((ValueError, LookupError)):
                await handle.fail.remote(number)
        series = read(instance.metrics_text())

    assert total(during, "serve_backend_queued_queries", backend="f") == 2
    assert total(during, "serve_deployment_queued_queries", deployment="f", application="app1") == 2
    assert total(during, "serve_replica_processing_queries", backend="f") == 1
    assert total(during, "serve_deployment_replica_healthy", deployment="f") == 1

    for prefix in ("", "ray_"):
        latency = f"{prefix}serve_backend_processing_latency_ms"
        assert total(series, f"{latency}_count", backend="f") == 6
        assert total(series, f"{latency}_sum", backend="f") == pytest.approx(3000)
        assert total(series, f"{latency}_bucket", backend="f", le="500.0") == 3
        assert total(series, f"{latency}_bucket", backend="f", le="1000.0") == 6
        waited = f"{prefix}serve_backend_queuing_latency_ms"
        assert total(series, f"{waited}_count", backend="f") == 6
        assert total(series, f"{waited}_sum", backend="f") == pytest.approx(3000)
        assert total(series, f"{waited}_bucket", backend="f", le="500.0") == 4
    assert total(series, "serve_deployment_request_counter", deployment="f", method="__call__") == 3
    assert total(series, "serve_backend_error_counter", backend="f", exception="ValueError") == 2
    assert total(series, "serve_deployment_error_counter", method="fail", exception="LookupError") == 1
    assert total(series, "serve_num_router_requests", deployment="f") == 6
    assert total(series, "serve_handle_request_counter", deployment="f") == 6


async def test_deployments_of_one_name_in_two_applications_are_told_apart() -> None:
    async with serve.open_instance() as instance:
        await instance.run(F.bind(), name="app1", route_prefix=None)
        handle = await instance.run(F.bind(), name="app2", route_prefix=None)
        await handle.remote()
        series = read(instance.metrics_text())

    assert total(series, "serve_backend_request_counter", backend="f", application="app2") == 1


@serve.deployment(
    sync_methods="inline", autoscaling_config={"min_replicas": 1, "max_replicas": 2}, num_replicas="auto"
)
class Everything:
    def __init__(self) -> None:
        self.own = metrics.Counter("contract_words", description="words", tag_keys=("backend",))
        self.own.set_default_tags({"backend": "Everything"})

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.0)
    async def batched(self, items: list[str]) -> list[str]:
        return items

    @serve.multiplexed()
    async def model(self, model_id: str) -> str:
        return model_id

    async def SayHello(self, message: Any) -> Any:
        self.own.inc()
        if message.name == "error":
            raise ValueError("no")
        return GREETER["SayHello"].reply_type(message=await self.batched(await self.model("m1")))

    async def __call__(self, request: Any) -> str:
        if "error" in request.query_params:
            raise ValueError("no")
        return "hi"


GREETER: dict[str, Any] = {method.name: method for method in methods_from(PROTO)}


async def call(port: int | None, path: str, name: str = "you") -> None:
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GREETER["SayHello"].reply_type.FromString,
        )
        await stub(GREETER["SayHello"].request_type(name=name))


@pytest.mark.real_clock
async def test_every_name_is_served_with_bounded_labels() -> None:
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]},
        http_options={"port": 0},
        metrics_options=MetricsOptions(port=0),
    ) as instance:
        await instance.run(Everything.bind(), name="app1", route_prefix="/t")
        await instance.set_traffic("app1", {"app1": 1.0})
        grpc_port, http = instance.grpc_port, f"http://127.0.0.1:{instance.http_port}"
        await call(grpc_port, METHOD)
        for path, name in ((METHOD, "error"), ("/made.Up/One", ""), ("/made.Up/Two", "")):
            with pytest.raises(Exception, match=r"ValueError|not found"):
                await call(grpc_port, path, name)
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            for target in ("/t", "/t?error=1", "/made/up", "/made/up/2"):
                await client.request("GET", http + target)
            await client.request("INVENTED", http + "/t")
            answer = await client.get(f"http://127.0.0.1:{instance.metrics_port}/metrics")
        assert instance.addresses["metrics"] == f"127.0.0.1:{instance.metrics_port}"

    series = read(answer.text)
    names = {name for name, _ in series}
    for name in {*OLDER, *NEWER, *CATALOGUE, "contract_words"}:
        endings = {name, f"{name}_count"}
        assert endings & names, f"{name} is missing"
        if not name.startswith("grpc_"):
            assert {f"ray_{ending}" for ending in endings} & names
    assert not any("made" in value or "INVENTED" in value for _, labels in series for _, value in labels)

    grpc = {"grpc_service": "helloworld.Greeter", "grpc_method": "SayHello", "grpc_type": "unary"}
    assert total(series, "grpc_server_started_total", **grpc) == 2
    assert total(series, "grpc_server_handled_total", **grpc, grpc_code="OK") == 1
    assert total(series, "grpc_server_handled_total", **grpc, grpc_code="Internal") == 1
    assert total(series, "grpc_server_handling_seconds_count", **grpc) == 2
    assert total(series, "grpc_server_handled_total", grpc_method="_OTHER", grpc_code="Unimplemented") == 2
    on = {"application": "app1", "route": METHOD, "method": METHOD}
    assert total(series, "serve_num_grpc_requests", **on, status_code="OK") == 1
    assert total(series, "serve_num_grpc_error_requests", **on, error_code="INTERNAL") == 1
    assert total(series, "serve_num_grpc_requests", application="_OTHER", status_code="UNIMPLEMENTED") == 2
    assert total(series, "serve_num_http_requests", route="/t", method="GET", status_code="200") == 1
    assert total(series, "serve_num_http_error_requests", route="/t", method="GET", error_code="500") == 1
    assert total(series, "serve_num_http_requests", route="", status_code="404") == 2
    assert total(series, "serve_num_http_requests", method="_OTHER") == 1
    assert total(series, "serve_batches_processed", deployment="Everything") == 1
    assert total(series, "serve_multiplexed_models_load_counter", deployment="Everything") == 1
    assert total(series, "ray_contract_words", backend="Everything") >= 2


@pytest.mark.real_clock
async def test_the_prefix_is_one_switch() -> None:
    async with serve.open_instance(metrics_options={"port": 0, "ray_prefix": False}) as instance:
        await instance.run(F.bind(), name="app1")
        text = instance.metrics_text()

    assert "serve_backend_queued_queries" in text
    assert "ray_" not in text


@pytest.mark.real_clock
async def test_the_port_is_read_until_the_instance_has_ended_and_then_free() -> None:
    async with serve.open_instance(metrics_options={"port": 0}) as instance:
        port = instance.metrics_port
        await instance.drain()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200

    async with serve.open_instance(metrics_options={"port": port}):
        pass
