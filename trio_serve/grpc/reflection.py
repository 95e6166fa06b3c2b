"""grpc.reflection: tells tools such as grpcurl which services there are, and how their messages look.

    list_services                      full names of the registered services
    file_by_filename                   a FileDescriptorProto, and those that it imports
    file_containing_symbol             the same, found by a service, method, message, enum or field
    file_containing_extension          the same, found by an extended message and a number
    all_extension_numbers_of_type      numbers of a message's known extensions

Tools ask for v1 or, older, for v1alpha; both have the same messages.

Source: gRPC Server Reflection Protocol; reflection.proto.
Knows no server: it reads a table of methods that somebody else keeps.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from attrs import evolve
from google.protobuf.message import Message
from grpclib.const import Status

from .methods import Method, methods_from
from .protos import Protos
from .standard import POOL, REFLECTION, REFLECTION_ALPHA


class Reflection:
    """Answers from the descriptors behind the methods in ``registered``, which may grow and shrink."""

    def __init__(self, registered: Mapping[str, Method]) -> None:
        self._registered = registered

    def methods(self) -> list[Method]:
        """``ServerReflectionInfo`` of v1 and of v1alpha with their handlers, for a server to register."""
        return [
            evolve(method, handler=partial(self.info, protos))
            for protos in (REFLECTION, REFLECTION_ALPHA)
            for method in methods_from(protos)
        ]

    async def info(self, protos: Protos, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """One answer for each request.  A file's imports are sent once in a stream."""
        sent: set[str] = set()
        async for request in requests:
            yield self._answer(protos, request, sent)

    def _answer(self, protos: Protos, request: Any, sent: set[str]) -> Any:
        answer = protos.ServerReflectionResponse(valid_host=request.host, original_request=request)
        asked = request.WhichOneof("message_request")
        try:
            if asked == "list_services":
                for name in self._services():
                    answer.list_services_response.service.add(name=name)
            elif asked == "all_extension_numbers_of_type":
                numbers = self._find(_extension_numbers, request.all_extension_numbers_of_type)
                answer.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
                answer.all_extension_numbers_response.extension_number.extend(numbers)
            elif asked is not None:
                file = self._find(*_FILE_BY[asked](request))
                files = [file.serialized_pb, *_imports(file, sent)]
                answer.file_descriptor_response.file_descriptor_proto.extend(files)
            else:
                _set_error(answer, Status.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            what = str(getattr(request, asked)).strip() if asked else ""
            _set_error(answer, Status.NOT_FOUND, f"{asked}: there is no {what!r}")
        return answer

    def _services(self) -> list[str]:
        return sorted({method.service for method in self._registered.values()})

    def _find(self, lookup: Callable[..., Any], *args: Any) -> Any:
        """What ``lookup(pool, *args)`` finds in the first pool of the registered methods that has it.

        Our own comes last: a user's ``serve.proto`` is the one that is meant.

        Raises:
            KeyError: none has it.
        """
        pools: dict[int, Any] = {}
        for method in self._registered.values():
            if method.request_type is not None and issubclass(method.request_type, Message):
                pool = method.request_type.DESCRIPTOR.file.pool
                pools[id(pool)] = pool
        for pool in sorted(pools.values(), key=lambda pool: pool is POOL):
            try:
                return lookup(pool, *args)
            except KeyError:
                continue
        raise KeyError(*args)


def _file_of_symbol(pool: Any, symbol: str) -> Any:
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:  # protobuf's C form knows all symbols but methods here
        return pool.FindMethodByName(symbol).containing_service.file


def _file_of_name(pool: Any, name: str) -> Any:
    return pool.FindFileByName(name)


def _file_of_extension(pool: Any, containing_type: str, number: int) -> Any:
    return pool.FindExtensionByNumber(pool.FindMessageTypeByName(containing_type), number).file


def _extension_numbers(pool: Any, containing_type: str) -> list[int]:
    message = pool.FindMessageTypeByName(containing_type)
    return sorted(extension.number for extension in pool.FindAllExtensions(message))


_FILE_BY: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "file_by_filename": lambda request: (_file_of_name, request.file_by_filename),
    "file_containing_symbol": lambda request: (_file_of_symbol, request.file_containing_symbol),
    "file_containing_extension": lambda request: (
        _file_of_extension,
        request.file_containing_extension.containing_type,
        request.file_containing_extension.extension_number,
    ),
}


def _imports(file: Any, sent: set[str]) -> list[bytes]:
    """The files that ``file`` needs, however far, but for those in ``sent``, which learns of them."""
    sent.add(file.name)
    files: list[bytes] = []
    for needed in file.dependencies:
        if needed.name not in sent:
            files += [needed.serialized_pb, *_imports(needed, sent)]
    return files


def _set_error(answer: Any, status: Status, message: str) -> None:
    answer.error_response.error_code = status.value
    answer.error_response.error_message = message
