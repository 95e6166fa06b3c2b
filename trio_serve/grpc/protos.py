"""Message classes and services from a ``.proto`` file, or from a descriptor set, without generated code.

    greeter.proto ── protoc, in a process of its own ──> descriptor set ──> private pool ──> classes

protoc runs outside because importing grpcio-tools costs more memory than a small server.  The
pool is private because the default one refuses a second file that says the same differently, and
the user's own ``greeter_pb2`` may well be in it.

Source: descriptor.proto, FileDescriptorSet; the Python API of protobuf.
Knows nothing of calls, handlers or servers.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import DecodeError, Message

StrPath = str | os.PathLike[str]


class ProtoError(ValueError):
    """A ``.proto`` file or descriptor set that cannot be used; the text says where and why."""


class Protos:
    """What one or several ``.proto`` files define: messages and enums as attributes, like a ``_pb2`` module.

    >>> protos = load_protos("greeter.proto")
    >>> protos.HelloReply(message="hello")

    Names are those of the files that were asked for; messages of their imports come from ``message_class``.
    """

    def __init__(self, pool: descriptor_pool.DescriptorPool, files: Sequence[FileDescriptor]) -> None:
        self.pool = pool
        self.files = tuple(files)

    @property
    def services(self) -> list[ServiceDescriptor]:
        """Every service that the files define, in their order."""
        return [service for file in self.files for service in file.services_by_name.values()]

    def message_class(self, full_name: str) -> type[Message]:
        """The class of the message ``pkg.Name``, of an import too.

        Raises:
            KeyError: there is no such message.
        """
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def __getattr__(self, name: str) -> Any:
        """Called once for each name: what is found becomes an ordinary attribute."""
        files: Sequence[FileDescriptor] = self.__dict__.get("files", ())
        for file in files:
            if name in file.message_types_by_name:
                found: Any = message_factory.GetMessageClass(file.message_types_by_name[name])
            elif name in file.enum_types_by_name:
                found = EnumTypeWrapper(file.enum_types_by_name[name])
            else:
                continue
            self.__dict__[name] = found
            return found
        named = ", ".join(file.name for file in files)
        raise AttributeError(f"there is no message or enum {name!r} in {named}")

    def __dir__(self) -> list[str]:
        names = [
            name for file in self.files for name in (*file.message_types_by_name, *file.enum_types_by_name)
        ]
        return [*super().__dir__(), *names]

    def __repr__(self) -> str:
        return f"<Protos {', '.join(file.name for file in self.files)}>"


def load_protos(*paths: StrPath, include: Sequence[StrPath] = ()) -> Protos:
    """Compile ``.proto`` files and make their message classes; files given together share them.

    Blocks for the tenth of a second or so that protoc takes.

    Args:
        paths: the files.
        include: where imports are looked up, protoc's ``-I``; when left out, the folder
            of each file, then the working directory.

    Raises:
        ProtoError: a file is missing or faulty (with file:line:column), or protoc is not installed.
    """
    files = [Path(path) for path in paths]
    missing = [f"{file}: there is no such file" for file in files if not file.is_file()]
    if missing:
        raise ProtoError("\n".join(missing))
    roots = [Path(root) for root in include] or [*dict.fromkeys(file.parent for file in files), Path()]
    descriptor_set = _run_protoc(files, roots)
    wanted = {_name_under(roots, file) for file in files}
    return _load(descriptor_set, ", ".join(str(file) for file in files), wanted)


def load_descriptor_set(path: StrPath) -> Protos:
    """The same from a descriptor set, as ``protoc --include_imports --descriptor_set_out`` writes it.

    Raises:
        ProtoError: the file is missing, is no descriptor set, or lacks its imports.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ProtoError(f"{path}: cannot be read: {error.strerror}") from None
    return _load(data, str(path), None)


def _load(descriptor_set: bytes, source: str, wanted: set[str] | None) -> Protos:
    """Every file of the set into a new pool; ``wanted`` names those that were asked for, None is all."""
    pool = descriptor_pool.DescriptorPool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    except DecodeError:
        raise ProtoError(
            f"{source}: is no descriptor set (protoc writes one with --descriptor_set_out)"
        ) from None
    try:
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
    except (TypeError, ValueError) as error:
        raise ProtoError(f"{source}: {error} (was protoc run with --include_imports?)") from None
    names = [file.name for file in files if wanted is None or file.name in wanted]
    return Protos(pool, [pool.FindFileByName(name) for name in names])


def _name_under(roots: Iterable[Path], file: Path) -> str:
    """The name that protoc knows ``file`` by: its path below the first root that holds it."""
    for root in roots:
        if file.resolve().is_relative_to(root.resolve()):
            return file.resolve().relative_to(root.resolve()).as_posix()
    raise ProtoError(f"{file}: lies in none of the include folders {', '.join(str(root) for root in roots)}")


def _run_protoc(files: Sequence[Path], roots: Sequence[Path]) -> bytes:
    if importlib.util.find_spec("grpc_tools") is None:
        raise ProtoError(
            f"{files[0]}: reading a .proto file takes protoc, which is not installed: "
            "pip install 'trio-serve[protoc]', or give a *_pb2 module or a descriptor set instead"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "descriptors")
        ran = subprocess.run(
            [
                # -P, so that a grpc/ or google/ folder in the working directory is not taken for the package.
                *(sys.executable, "-P", "-m", "grpc_tools.protoc"),
                *("--include_imports", f"--descriptor_set_out={out}"),
                *(f"-I{root.resolve()}" for root in roots),
                *(str(file.resolve()) for file in files),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode == 0:
            return out.read_bytes()
    raise ProtoError(_complaints(ran.stderr, files, roots))


def _complaints(stderr: str, files: Sequence[Path], roots: Sequence[Path]) -> str:
    """The errors that protoc prints, one a line, with file names as they were given; no warnings."""
    given = {_name_under(roots, file): str(file) for file in files}
    given.update((str(file.resolve()), str(file)) for file in files)
    lines = []
    for line in stderr.splitlines():
        place = re.match(r"([^:]+\.proto):(.*)", line)
        if place and ": warning: " not in line:
            lines.append(f"{given.get(place[1], place[1])}:{place[2]}")
    return "\n".join(lines) or f"protoc failed on {', '.join(map(str, files))}: {stderr.strip()}"
