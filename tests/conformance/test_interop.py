"""gRPC's interoperability tests in both directions, with grpc.aio as the other side."""

import asyncio
from collections.abc import Iterator

import grpc.aio
import pytest

from tests.conformance.interop_cases import CASES, COMPRESSION_CASES, Case
from tests.conformance.running import interop_server
from tests.patience import PATIENCE_S
from trio_serve.grpc.channel import open_channel

ALL_CASES = CASES + COMPRESSION_CASES
by_name = pytest.mark.parametrize("case", ALL_CASES, ids=[case.__name__ for case in ALL_CASES])


@pytest.fixture(scope="module")
def our_port() -> Iterator[int]:
    with interop_server("trio_serve") as port:
        yield port


@pytest.fixture(scope="module")
def their_port() -> Iterator[int]:
    with interop_server("grpc.aio") as port:
        yield port


@by_name
def test_grpcio_client_with_our_server(our_port: int, case: Case) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{our_port}") as channel:
            await asyncio.wait_for(case(channel), PATIENCE_S)

    asyncio.run(run())


@pytest.mark.real_clock
@by_name
async def test_our_client_with_a_grpcio_server(their_port: int, case: Case) -> None:
    async with open_channel(f"127.0.0.1:{their_port}") as channel:
        await case(channel)


@pytest.mark.real_clock
@by_name
async def test_our_client_with_our_server(our_port: int, case: Case) -> None:
    async with open_channel(f"127.0.0.1:{our_port}") as channel:
        await case(channel)
