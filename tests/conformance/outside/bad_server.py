"""A server that misbehaves on purpose, and our client: gRPC's negative HTTP/2 interoperability tests.

The server is `http2_test` of gRPC's sources, which runs each case on a port of its own, in the order of
their names.  It was written for Python 2; what is named here must run in Python 3.

Source of the cases: the public "Negative HTTP/2 Interop Test Case Descriptions".
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from tests.conformance.interop_cases import Case, large_unary, stub
from tests.conformance.outside.finding import Outcome
from tests.conformance.outside.listening import listening
from tests.conformance.schema import SimpleRequest
from trio_serve.grpc import RpcError
from trio_serve.grpc.channel import open_channel

DIRECTORY = "TRIO_SERVE_BAD_SERVER"
"""The directory of http2_test_server.py, with the interpreter in ..._PYTHON."""

CASE_S = 120
BETWEEN_CALLS_S = 1.0
SAW_S = 10


async def goaway(channel: Any) -> None:
    await large_unary(channel)
    await trio.sleep(BETWEEN_CALLS_S)
    await large_unary(channel)


async def ping(channel: Any) -> None:
    await large_unary(channel)


async def max_streams(channel: Any) -> None:
    await large_unary(channel)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(large_unary, channel)


async def data_frame_padding(channel: Any) -> None:
    await large_unary(channel)


async def no_df_padding_sanity_test(channel: Any) -> None:
    await large_unary(channel)


async def rst_after_header(channel: Any) -> None:
    await _fails(channel)


async def rst_during_data(channel: Any) -> None:
    await _fails(channel)


async def rst_after_data(channel: Any) -> None:
    await _fails(channel)


async def _fails(channel: Any) -> None:
    request = SimpleRequest(response_size=314159, payload={"body": bytes(271828)})
    try:
        await stub(channel, "UnaryCall")(request)
    except RpcError:
        return
    raise AssertionError("the call succeeded")


CASES = (
    data_frame_padding,
    goaway,
    max_streams,
    no_df_padding_sanity_test,
    ping,
    rst_after_data,
    rst_after_header,
    rst_during_data,
)
"""In the order of their ports."""

SERVER_SAW: dict[Case, Callable[[str], bool]] = {
    # The probe that waited for the server was its first connection, on another port.
    goaway: lambda log: log.count("New Connection: 2") == 1,
    ping: lambda log: "Ping Count 0" in log,
}


def run() -> Outcome:
    tool, against = "our client", "gRPC's bad server"
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return Outcome(tool, against, skipped=f"{DIRECTORY} is not set")
    python = os.environ.get(f"{DIRECTORY}_PYTHON", sys.executable)
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        for place, case in enumerate(CASES):
            with listening(
                lambda port: [python, "http2_test_server.py", "--base_port", str(port)],
                directory,
                log,
                following=len(CASES) - 1,
            ) as port:
                problem = _problem(case, port + place, log)
            if problem:
                failed.append(f"{case.__name__}: {problem}")
    return Outcome(tool, against, len(CASES) - len(failed), tuple(failed))


def _problem(case: Case, port: int, log: Path) -> str:
    async def one() -> None:
        with trio.fail_after(CASE_S):
            async with open_channel(f"127.0.0.1:{port}") as channel:
                await case(channel)

    try:
        trio.run(one)
    except Exception as error:  # of any kind: the table says which
        return repr(error)
    until = time.monotonic() + SAW_S
    while case in SERVER_SAW and not SERVER_SAW[case](log.read_text()):
        if time.monotonic() > until:
            return "the server saw something else"
        time.sleep(0.1)
    return ""
