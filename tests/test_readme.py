"""The README's programs, as they stand there, used as a newcomer would."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import grpc
import pytest

ROOT = pathlib.Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copy(ROOT / "protos" / "helloworld.proto", tmp_path)
    return tmp_path


def test_the_first_program_is_served_by_the_command_beside_it(folder: pathlib.Path) -> None:
    (folder / "hello.py").write_text(block_with("# hello.py"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = "run hello:app --proto helloworld.proto"
    assert f"$ trio-serve {command}\n" in (ROOT / "README.md").read_text()

    server = subprocess.Popen(
        [sys.executable, "-m", "trio_serve", *command.split(), "--grpc-port", str(port), "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"grpc ")  # printed when it serves
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            say_hello = channel.unary_unary("/helloworld.Greeter/SayHello")
            reply = say_hello(b"\n\x03you")  # HelloRequest(name="you")
    finally:
        server.terminate()
        server.communicate()

    assert reply == b"\n\x09Hello you"  # HelloReply(message="Hello you")
    assert server.returncode == 0


def test_the_program_of_the_bare_server_and_client_runs(folder: pathlib.Path) -> None:
    (folder / "program.py").write_text(block_with("server = Server()"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I."),
            *("--python_out=.", "--grpc_python_out=.", "helloworld.proto"),
        ],
        cwd=folder,
        check=True,
    )

    run = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, env=os.environ)

    assert run.stdout == b"Hello you\n", run.stderr.decode()
