"""gRPC's own interoperability programs, in Go and in Python, against ours."""

import os
import subprocess
import sys
from collections.abc import Sequence

import trio

from tests.conformance.interop_cases import CASES, COMPRESSION_CASES, Case
from tests.conformance.outside.finding import Outcome, find, missing
from tests.conformance.outside.listening import listening
from trio_serve.grpc.channel import open_channel

NAMES = tuple(case.__name__ for case in CASES)
GO_CASES = (*NAMES, "rpc_soak", "channel_soak")
CASE_S = 30

GO_CLIENT = ("go-interop-client", "TRIO_SERVE_GO_INTEROP_CLIENT")
GO_SERVER = ("go-interop-server", "TRIO_SERVE_GO_INTEROP_SERVER")
PYTHON = "TRIO_SERVE_PYTHON_INTEROP"
"""The directory in which ``python -m tests.interop.client`` works, with the interpreter in ..._PYTHON."""


def go_client(port: int) -> Outcome:
    program = find(*GO_CLIENT)
    if program is None:
        return missing("grpc-go interop client", "our server", *GO_CLIENT)
    command = [program, "-server_host", "127.0.0.1", "-server_port", str(port), "-test_case"]
    return _clients("grpc-go interop client", [[*command, case] for case in GO_CASES])


def python_client(port: int) -> Outcome:
    tool = "grpcio interop client"
    if PYTHON not in os.environ:
        return Outcome(tool, "our server", skipped=f"{PYTHON} is not set")
    command = [
        _python(),
        "-m",
        "tests.interop.client",
        "--server_host",
        "127.0.0.1",
        "--server_port",
        str(port),
    ]
    return _clients(tool, [[*command, "--test_case", case] for case in NAMES], os.environ[PYTHON])


def go_server() -> Outcome:
    program = find(*GO_SERVER)
    if program is None:
        return missing("our client", "grpc-go interop server", *GO_SERVER)
    return _our_client("grpc-go interop server", [program, "-port"], CASES)


def python_server() -> Outcome:
    if PYTHON not in os.environ:
        return Outcome("our client", "grpcio interop server", skipped=f"{PYTHON} is not set")
    command = [_python(), "-m", "tests.interop.server", "--port"]
    return _our_client("grpcio interop server", command, CASES, os.environ[PYTHON])


def grpc_aio_server(port: int) -> Outcome:
    return call_each("grpc.aio server", port, CASES + COMPRESSION_CASES)


def _python() -> str:
    return os.environ.get(f"{PYTHON}_PYTHON", sys.executable)


def _clients(tool: str, commands: Sequence[Sequence[str]], directory: str | None = None) -> Outcome:
    failed = []
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CASE_S, cwd=directory)
            error = done.stderr.strip().splitlines()[-1:] if done.returncode else None
        except subprocess.TimeoutExpired:
            error = [f"not over in {CASE_S} s"]
        if error is not None:
            failed.append(f"{command[-1]}: {' '.join(error)}")
    return Outcome(tool, "our server", len(commands) - len(failed), tuple(failed))


def _our_client(
    against: str, command: Sequence[str], cases: Sequence[Case], directory: str | None = None
) -> Outcome:
    with listening(lambda port: [*command, str(port)], directory) as port:
        return call_each(against, port, cases)


def call_each(against: str, port: int, cases: Sequence[Case]) -> Outcome:
    failed = []

    async def one(case: Case) -> None:
        with trio.fail_after(CASE_S):
            async with open_channel(f"127.0.0.1:{port}") as channel:
                await case(channel)

    for case in cases:
        try:
            trio.run(one, case)
        except Exception as error:  # of any kind: the table says which
            failed.append(f"{case.__name__}: {error!r}")
    return Outcome("our client", against, len(cases) - len(failed), tuple(failed))
