"""The generated code of echo.proto: messages, grpcio's stubs and servicers, grpclib's base class.

Generated when it is first imported, so that it fits the grpcio-tools that are installed.
"""

import importlib
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any


def _generate() -> tuple[ModuleType, ModuleType, ModuleType]:
    plugin = Path(sysconfig.get_path("scripts"), "protoc-gen-grpclib_python")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{Path(__file__).parent}", "echo.proto"),
                *(f"--python_out={folder}", f"--grpc_python_out={folder}"),
                *(f"--plugin=protoc-gen-grpclib_python={plugin}", f"--grpclib_python_out={folder}"),
            ],
            check=True,
        )
        sys.path.insert(0, folder)
        try:
            names = ("echo_pb2", "echo_pb2_grpc", "echo_grpc")
            messages, grpcio, grpclib = [importlib.import_module(name) for name in names]
        finally:
            sys.path.remove(folder)
    return messages, grpcio, grpclib


messages, grpcio, grpclib = _generate()

Note: Any = messages.Note
ONE, MANY, SUM, CHAT = [f"/tests.server.Echo/{name}" for name in ("One", "Many", "Sum", "Chat")]


class Echo(grpcio.EchoServicer):  # type: ignore[name-defined,misc]
    """Answers with what it is sent."""

    async def One(self, request: Any, context: Any) -> Any:
        return request

    async def Many(self, request: Any, context: Any) -> Any:
        for number in range(request.number):
            yield Note(text=request.text, number=number)

    async def Sum(self, requests: Any, context: Any) -> Any:
        return Note(number=sum([request.number async for request in requests]))

    async def Chat(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request


def serving(servicer: Any, **options: Any) -> Any:
    """A server with ``servicer``, registered by grpcio's generated code."""
    from trio_serve.grpc import Server

    server = Server(**options)
    grpcio.add_EchoServicer_to_server(servicer, server)
    return server
