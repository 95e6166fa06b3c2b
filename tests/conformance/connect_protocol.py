"""What Connect's conformance runner and our two adapters say to each other.

    | length: 4 bytes, big-endian | message |      on stdin and stdout

The messages are read from the runner's own ``.proto`` files, in the directory that
``TRIO_SERVE_CONNECT_PROTOS`` names; nothing of them is kept here.
"""

import base64
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PACKAGE = "connectrpc.conformance.v1"
SERVICE = f"{PACKAGE}.ConformanceService"
FILES = ("config", "service", "client_compat", "server_compat")

HeaderPairs = list[tuple[str, str | bytes]]


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.Default()
    include = os.environ["TRIO_SERVE_CONNECT_PROTOS"]
    known = str(Path(protoc.__file__).with_name("_proto"))
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "descriptors")
        names = [f"connectrpc/conformance/v1/{name}.proto" for name in FILES]
        arguments = ["", f"-I{include}", f"-I{known}", "--include_imports", f"--descriptor_set_out={output}"]
        if protoc.main([*arguments, *names]):
            raise RuntimeError(f"the protos in {include} do not compile")
        for file in descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file:
            pool.Add(file)
    return pool


POOL = _load()


def message(name: str) -> Any:
    """The class of ``connectrpc.conformance.v1.<name>``."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def method(name: str) -> Any:
    """The descriptor of a method of the service."""
    return POOL.FindServiceByName(SERVICE).methods_by_name[name]


def packed(inner: Any) -> any_pb2.Any:
    outer = any_pb2.Any()
    outer.Pack(inner)
    return outer


def unpacked(outer: any_pb2.Any) -> Any:
    inner = message_factory.GetMessageClass(POOL.FindMessageTypeByName(outer.TypeName()))()
    outer.Unpack(inner)
    return inner


def read(kind: Any) -> Any | None:
    """The next message on stdin; None at its end."""
    size = sys.stdin.buffer.read(4)
    if len(size) < 4:
        return None
    return kind.FromString(sys.stdin.buffer.read(int.from_bytes(size, "big")))


def write(answer: Any) -> None:
    octets = answer.SerializeToString()
    sys.stdout.buffer.write(len(octets).to_bytes(4, "big") + octets)
    sys.stdout.buffer.flush()


def metadata(headers: Iterable[Any]) -> HeaderPairs:
    """Header messages as metadata; binary values are base64 in them."""
    pairs: HeaderPairs = []
    for header in headers:
        name = header.name.lower()
        for value in header.value:
            if name.endswith("-bin"):
                pairs.append((name, base64.b64decode(value + "=" * (-len(value) % 4))))
            else:
                pairs.append((name, value))
    return pairs


def headers(pairs: Iterable[tuple[str, str | bytes]]) -> list[Any]:
    """Metadata as Header messages, one a name."""
    by_name: dict[str, list[str]] = {}
    for name, value in pairs:
        text = base64.b64encode(value).decode().rstrip("=") if isinstance(value, bytes) else value
        by_name.setdefault(name, []).append(text)
    kind = message("Header")
    return [kind(name=name, value=values) for name, values in by_name.items()]
