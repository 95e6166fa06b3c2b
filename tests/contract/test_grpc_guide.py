"""The document "Set Up a gRPC Service", program by program.

The applications are those of ``examples/grpc_guide``; each way of starting them that the guide shows
(``run`` with its config file, from Python, and embedded) is used once as a user uses it, and called by
grpcio.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import trio

from tests.patience import PATIENCE_S
from tests.ports import free_port
from trio_serve.grpc import open_channel

from .conftest import SERVICERS


@contextlib.contextmanager
def running(command: list[str], folder: pathlib.Path, stubs: pathlib.Path, port: int) -> Iterator[Any]:
    """A server process that answers on ``port``; stopped by SIGTERM, which must end it with exit code 0."""
    environment = {**os.environ, "PYTHONPATH": str(stubs)}
    server = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stderr=subprocess.PIPE)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            healthz = channel.unary_unary("/ray.serve.RayServeAPIService/Healthz")
            wait_until_answered(healthz, server)
            yield server
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0, errors.decode()
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


def wait_until_answered(healthz: Any, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            healthz(b"")
            return
        except grpc.RpcError:
            if server.poll() is not None or time.monotonic() > give_up:
                server.kill()
                pytest.fail(server.communicate()[1].decode())
            time.sleep(0.02)


def call_everything(port: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What the guide's own client prints."""
    import client

    capsys.readouterr()
    client.main(f"127.0.0.1:{port}")
    return capsys.readouterr().out


def assert_the_guides_answers(printed: str) -> None:
    lines = [line.strip() for line in printed.splitlines()]
    assert "applications         ['app1', 'app2']" in lines
    assert "health               success" in lines
    assert "greeting             Hello foo from bar" in lines
    assert "num                  60" in lines
    assert "greeting             Method2 called model, loading model: 999" in lines
    assert "trailing metadata    request_id: 123" in lines
    assert [line for line in lines if line.startswith("num ")][1:] == [
        f"{f'num {60 + n}':<20} {n}: Hello foo from bar" for n in range(10)
    ]
    shown = re.search(r"the picture shows +(digit \d)", printed)
    assert shown
    classes = re.findall(r"(digit \d) +([\d.]+)%", printed)
    assert len(classes) == 5 and classes[0][0] == shown[1] and float(classes[0][1]) > 50
    assert "status code          StatusCode.NOT_FOUND" in lines
    assert any(line.startswith("details              Application metadata not set.") for line in lines)


@pytest.mark.parametrize("way", ["config file", "edited config file", "script"])
def test_served_from(
    way: str,
    guide_path: pathlib.Path,
    stubs: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
) -> None:
    port = free_port()
    command = {
        "config file": ["-m", "trio_serve", "run", "config.yaml", "--grpc-port", str(port), "--port", "0"],
        "edited config file": ["-m", "trio_serve", "run", str(tmp_path / "both.yaml")],
        "script": [str(tmp_path / "script.py")],
    }[way]
    config = (guide_path / "config.yaml").read_text().replace("port: 9000", f"port: {port}")
    (tmp_path / "both.yaml").write_text(f"{config}\nhttp_options:\n  port: 0\n")
    script = (guide_path / "from_python.py").read_text().replace("grpc_port = 9000", f"grpc_port = {port}")
    script = script.replace("serve.start(", 'serve.start(http_options={"port": 0}, ')
    (tmp_path / "script.py").write_text(f"import sys; sys.path.insert(0, {str(guide_path)!r})\n{script}")

    with running(command, guide_path, stubs, port):
        printed = call_everything(port, capsys)

    assert_the_guides_answers(printed)


def test_run_module_app_with_servicers_on_the_command_line(
    guide_path: pathlib.Path, stubs: pathlib.Path
) -> None:
    import user_defined_protos_pb2 as pb
    import user_defined_protos_pb2_grpc as pb_grpc

    port = free_port()
    command = ["-m", "trio_serve", "run", "test_deployment_v2:g", "--grpc-port", str(port), "--port", "0"]
    for servicer in SERVICERS:
        command += ["--grpc-servicer-functions", servicer]

    with running(command, guide_path, stubs, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.UserDefinedServiceStub(channel)
        response, call = stub.__call__.with_call(pb.UserDefinedMessage(name="foo", num=30, origin="bar"))

    assert (response.greeting, response.num) == ("Hello foo from bar", 60)
    assert call.code() is grpc.StatusCode.OK


def test_embedded_in_a_trio_program(guide_path: pathlib.Path, stubs: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(stubs)}

    run = subprocess.run(
        [sys.executable, "embedded.py"], cwd=guide_path, env=environment, capture_output=True, check=True
    )

    assert run.stdout.decode().splitlines() == [
        "by handle: Hello foo from bar",
        "over gRPC: Hello foo from bar",
        *[f"streamed:  {n}: Hello foo from bar" for n in range(10)],
    ]


def test_served_from_a_nursery(guide_path: pathlib.Path, stubs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """``await nursery.start(serve.serve, app)``: the application lives as long as the nursery."""
    program = f"""
        import sys; sys.path.insert(0, {str(guide_path)!r})
        import trio
        import trio_serve as serve
        from test_deployment_v2 import g
        from user_defined_protos_pb2 import UserDefinedMessage

        async def main():
            async with trio.open_nursery() as nursery:
                handle = await nursery.start(serve.serve, g)
                print((await handle.remote(UserDefinedMessage(name="foo", origin="bar"))).greeting)
                nursery.cancel_scope.cancel()
            print("all gone")

        trio.run(main)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": str(stubs)}

    run = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, check=True
    )

    assert run.stdout.decode().splitlines() == ["Hello foo from bar", "all gone"]


def details_on_the_wire(port: int, request: Any, metadata: Any) -> str:
    """What a good call's details are.  Clients of grpcio's newer releases leave them out; ours tells them."""
    import user_defined_protos_pb2_grpc as pb_grpc

    async def call() -> str:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            call = pb_grpc.UserDefinedServiceStub(channel).__call__(request, metadata=metadata)
            await call
            return str(await call.details())

    return trio.run(call)


def test_the_grpc_context(guide_path: pathlib.Path, stubs: pathlib.Path) -> None:
    """The guide's last section: code, details and trailing metadata set by the handler."""
    import user_defined_protos_pb2 as pb
    import user_defined_protos_pb2_grpc as pb_grpc

    port = free_port()
    command = ["-m", "trio_serve", "run", "context_deployment:g", "--grpc-port", str(port), "--port", "0"]
    command += ["--grpc-servicer-functions", SERVICERS[0], "--name", "app1"]

    with running(command, guide_path, stubs, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.UserDefinedServiceStub(channel)
        request = pb.UserDefinedMessage(name="foo", num=30, origin="bar")
        metadata = (("application", "app1"),)

        # First call is going to page miss and return INVALID_ARGUMENT status code.
        with pytest.raises(grpc.RpcError) as info:
            stub.__call__.with_call(request=request, metadata=metadata)
        assert info.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert info.value.details() == "foo not found, adding to nums."
        assert any(key == "num" and value == "0" for key, value in info.value.trailing_metadata())
        assert any(key == "request_id" for key, _ in info.value.trailing_metadata())

        # Second call is going to page hit and return OK status code.
        _, call = stub.__call__.with_call(request=request, metadata=metadata)
        assert call.code() is grpc.StatusCode.OK
        assert details_on_the_wire(port, request, metadata) == "foo found."
        assert any(key == "num" and value == "0" for key, value in call.trailing_metadata())
        assert any(key == "request_id" for key, _ in call.trailing_metadata())
