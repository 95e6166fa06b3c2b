"""A real Prometheus scrapes an instance and answers the query of the document "Deploying Ray Serve"."""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

import trio_serve as serve
from tests.patience import PATIENCE_S
from tests.ports import free_port

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package 'prometheus'"),
]

AVERAGE = (
    'rate(ray_serve_backend_processing_latency_ms_sum{backend="f"}[10s])'
    ' / rate(ray_serve_backend_processing_latency_ms_count{backend="f"}[10s])'
)


@serve.deployment(sync_methods="inline")
async def f(seconds: float) -> str:
    await trio.sleep(seconds)
    return "slept"


@contextlib.asynccontextmanager
async def prometheus(folder: pathlib.Path, scraped_port: int | None) -> AsyncIterator[httpx.AsyncClient]:
    """A server that scrapes ``scraped_port`` four times a second, and a client for its API."""
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 250ms}\n"
        "scrape_configs:\n"
        f"- {{job_name: ray, static_configs: [{{targets: ['127.0.0.1:{scraped_port}']}}]}}\n"
    )
    port = free_port()
    command = [
        *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
    ]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield client
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def value_of(client: httpx.AsyncClient, query: str) -> float | None:
    """What a query answers now; None while there is no number yet."""
    try:
        answer = await client.get("/api/v1/query", params={"query": query})
    except httpx.TransportError:  # it is still starting
        return None
    if answer.status_code != 200:
        return None
    results = answer.json()["data"]["result"]
    value = float(results[0]["value"][1]) if results else float("nan")
    return None if value != value else value


async def test_prometheus_answers_the_average_latency(tmp_path: pathlib.Path) -> None:
    """Calls that sleep 50 ms are made all the time; the average must come near to that."""
    async with serve.open_instance(metrics_options={"port": 0}) as instance:
        handle = await instance.run(f.bind(), name="app1")

        async def call_on_and_on() -> None:
            while True:
                await handle.remote(0.05)

        async with trio.open_nursery() as nursery, prometheus(tmp_path, instance.metrics_port) as client:
            nursery.start_soon(call_on_and_on)
            average = None
            while average is None:
                await trio.sleep(0.2)
                average = await value_of(client, AVERAGE)
            scrapes_failed = await value_of(client, "count(up == 0) or vector(0)")
            metadata = (
                await client.get("/api/v1/metadata?metric=serve_backend_processing_latency_ms")
            ).json()
            nursery.cancel_scope.cancel()

    assert 50 <= average < 250
    assert scrapes_failed == 0
    assert metadata["data"]["serve_backend_processing_latency_ms"][0]["type"] == "histogram"
    print(f"\n{AVERAGE}\n=> {average:.1f} ms")
