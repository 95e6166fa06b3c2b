"""Method tables: which rpcs a server has, from whatever the user has at hand.

    add_GreeterServicer_to_server    a function that grpcio-tools generated (1.62 to today)
    GreeterBase, MyGreeter()         a class that grpclib's plugin generated, or an instance of one
    greeter_pb2, Protos              a module of messages, or a loaded .proto: services from descriptors
    "greeter.proto"                  the file itself, or a descriptor set
    "package.module:attribute"       an import path to any of these

grpcio is imported where the user's generated module imports it, and never here.

Source: the code that both plugins generate; the Python API of protobuf.
Knows nothing of connections and calls.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import frozen
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpclib.const import Cardinality

from .import_path import ImportPathError, import_object
from .protos import ProtoError, Protos, load_descriptor_set, load_protos

Handler = Callable[..., Any]

_DESCRIPTOR_SET_SUFFIXES = (".binpb", ".desc", ".pb", ".protoset")


class MethodSourceError(ValueError):
    """One or several sources of methods that are of no use.

    ``problems`` has a line for each, which names the source and the way out; the text is all of them.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@frozen
class Method:
    """One rpc: its name on the wire, its kind, and how its messages become bytes.

    ``deserialize`` raises whatever the message type does on bytes that it cannot read.
    ``serialize`` raises TypeError, with both names, on a message of another type than declared.
    """

    path: str
    """As on the wire: ``/package.Service/Name``."""
    service: str
    """Full name of the service: ``package.Service``."""
    name: str
    cardinality: Cardinality
    request_type: type | None
    """Class of the request messages; None where a custom serializer hides it."""
    reply_type: type | None
    deserialize: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    handler: Handler | None = None
    """What serves it, ``handler(request or request iterator, context)`` as in grpcio."""
    takes_stream: bool = False
    """The handler is grpclib's instead: ``await handler(stream)``."""


def methods_from(source: object) -> list[Method]:
    """The methods that ``source`` describes, of any kind that the module's header lists.

    Imports the module of an import path, and runs protoc for a ``.proto`` file, which blocks.

    Raises:
        MethodSourceError: it cannot be found, cannot be read, or describes no method.
    """
    try:
        methods = _methods_of_object(_resolve(source) if isinstance(source, str | Path) else source)
    except ProtoError as error:
        raise MethodSourceError(str(error).splitlines()) from error
    except ImportPathError as error:
        raise MethodSourceError([f"{error}{_way_around_grpcio(error)}"]) from error
    except _Unusable as error:
        raise MethodSourceError([f"{_name_of(source)} {error}"]) from error.__cause__
    if not methods:
        raise MethodSourceError([f"{_name_of(source)} describes no rpc method"])
    return methods


def methods_from_all(sources: Iterable[object]) -> list[Method]:
    """The methods of all sources, each path once: the first source that has it wins.

    Raises:
        MethodSourceError: with the problems of every source that has one.
    """
    methods: dict[str, Method] = {}
    problems: list[str] = []
    for source in sources:
        try:
            for method in methods_from(source):
                methods.setdefault(method.path, method)
        except MethodSourceError as error:
            problems += error.problems
    if problems:
        raise MethodSourceError(problems)
    return list(methods.values())


def methods_of_service(service: ServiceDescriptor) -> list[Method]:
    """The methods that a service's descriptor declares."""
    return [_method_of_descriptor(method) for method in service.methods]


def methods_of_handlers(service: str, handlers: Mapping[str, Any]) -> list[Method]:
    """The methods in grpcio's ``{name: RpcMethodHandler}`` of one service."""
    return [_method_of_handler(service, name, handler) for name, handler in handlers.items()]


def methods_of_generic_handler(generic_handler: Any) -> list[Method]:
    """The methods in what ``grpc.method_handlers_generic_handler(service, {...})`` returns.

    Raises:
        TypeError: a generic handler of the user's own, which answers for a path but cannot list any.
    """
    by_path: Mapping[str, Any] | None = getattr(generic_handler, "_method_handlers", None)
    if by_path is None:
        raise TypeError(
            f"{generic_handler!r} does not tell its methods; "
            "use grpc.method_handlers_generic_handler(service, {name: handler})"
        )
    methods = []
    for path, handler in by_path.items():
        service, name = _service_and_name(path)
        methods.append(_method_of_handler(service, name, handler))
    return methods


def _service_and_name(path: str) -> tuple[str, str]:
    service, _, name = path.removeprefix("/").rpartition("/")
    return service, name


class _Unusable(Exception):
    """Why an object describes no methods: a text that continues the object's name."""


def _resolve(source: str | Path) -> object:
    text = str(source)
    if text.endswith(".proto"):
        return load_protos(text)
    if text.endswith(_DESCRIPTOR_SET_SUFFIXES) and Path(text).is_file():
        return load_descriptor_set(text)
    return import_object(text)


def _way_around_grpcio(error: ImportPathError) -> str:
    missing = error.__cause__
    if isinstance(missing, ModuleNotFoundError) and missing.name == "grpc":
        return " (this generated module needs grpcio; its *_pb2 module has the same services and does not)"
    return ""


def _name_of(source: object) -> str:
    if isinstance(source, ModuleType):
        return f"module {source.__name__!r}"
    if inspect.isroutine(source) or inspect.isclass(source):
        return f"{source.__module__}.{source.__qualname__}"
    return repr(source)


def _methods_of_object(source: object) -> list[Method]:
    if isinstance(source, Protos):
        return [method for service in source.services for method in methods_of_service(service)]
    if isinstance(source, ModuleType):
        return _methods_of_module(source)
    if hasattr(source, "__mapping__"):
        return _methods_of_grpclib(source)
    servicers = [kind.__name__ for kind in type(source).__mro__ if kind.__name__.endswith("Servicer")]
    if servicers:
        raise _Unusable(f"is grpcio's kind of servicer; call add_{servicers[-1]}_to_server(servicer, server)")
    if callable(source) and not inspect.isclass(source):
        return _methods_of_add_function(source)
    raise _Unusable(
        f"is {_kind_of(source)}; it must be callable (an add_...Servicer_to_server function), "
        "a grpclib ...Base class, a *_pb2 module or a .proto file"
    )


def _kind_of(source: object) -> str:
    return (
        f"the class {source.__qualname__}"
        if inspect.isclass(source)
        else f"of type {type(source).__qualname__}"
    )


def _methods_of_module(module: ModuleType) -> list[Method]:
    file = getattr(module, "DESCRIPTOR", None)
    if isinstance(file, FileDescriptor):
        if not file.services_by_name:
            raise _Unusable(f"declares no service: there is none in {file.name}")
        return [
            method for service in file.services_by_name.values() for method in methods_of_service(service)
        ]
    functions = [name for name in vars(module) if name.startswith("add_") and name.endswith("_to_server")]
    hint = "; ".join(f"take '{module.__name__}:{name}'" for name in functions)
    raise _Unusable(f"is no *_pb2 module{f': {hint}' if hint else ''}")


class _StandIn:
    """A servicer of no service: generated code takes its attributes and gets no handlers."""

    def __getattr__(self, name: str) -> None:
        return None


class _Registry:
    """The part of ``grpc.Server`` that generated code calls."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, generic_handlers: Iterable[Any]) -> None:
        for generic_handler in generic_handlers:
            self._add(methods_of_generic_handler(generic_handler))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._add(methods_of_handlers(service, handlers))

    def _add(self, methods: list[Method]) -> None:
        # Newer generated code registers each method both ways.
        self.methods.update((method.path, method) for method in methods)


def _methods_of_add_function(function: Callable[..., Any]) -> list[Method]:
    registry = _Registry()
    try:
        function(_StandIn(), registry)
    except Exception as error:  # any function may be named here, and may raise anything
        raise _Unusable(
            f"is no add_...Servicer_to_server function: with (servicer, server) it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not registry.methods:
        raise _Unusable("is no add_...Servicer_to_server function: it was called and added no rpc method")
    return list(registry.methods.values())


def _methods_of_grpclib(source: Any) -> list[Method]:
    """From ``__mapping__``: of an instance with its handlers, of a class without."""
    is_class = inspect.isclass(source)
    mapping: Mapping[str, Any] = source.__mapping__(_StandIn()) if is_class else source.__mapping__()
    methods = []
    for path, entry in mapping.items():
        service, name = _service_and_name(path)
        methods.append(
            Method(
                path=path,
                service=service,
                name=name,
                cardinality=entry.cardinality,
                request_type=entry.request_type,
                reply_type=entry.reply_type,
                deserialize=entry.request_type.FromString,
                serialize=_serializer(service, name, entry.reply_type),
                handler=entry.func,
                takes_stream=True,
            )
        )
    return methods


def _method_of_descriptor(descriptor: MethodDescriptor) -> Method:
    service, name = descriptor.containing_service.full_name, descriptor.name
    request_type = message_factory.GetMessageClass(descriptor.input_type)
    reply_type = message_factory.GetMessageClass(descriptor.output_type)
    return Method(
        path=f"/{service}/{name}",
        service=service,
        name=name,
        cardinality=_CARDINALITY[descriptor.client_streaming, descriptor.server_streaming],
        request_type=request_type,
        reply_type=reply_type,
        deserialize=request_type.FromString,
        serialize=_serializer(service, name, reply_type),
    )


def _method_of_handler(service: str, name: str, handler: Any) -> Method:
    """From grpcio's RpcMethodHandler, which has the request's class in its deserializer, and no reply's."""
    cardinality = _CARDINALITY[bool(handler.request_streaming), bool(handler.response_streaming)]
    owner = getattr(handler.request_deserializer, "__self__", None)
    request_type = owner if isinstance(owner, type) and issubclass(owner, Message) else None
    reply_type = _declared_reply_type(service, name, request_type)
    serialize = handler.response_serializer or bytes
    if reply_type is not None and serialize == reply_type.SerializeToString:
        serialize = _serializer(service, name, reply_type)
    else:
        reply_type = None
    return Method(
        path=f"/{service}/{name}",
        service=service,
        name=name,
        cardinality=cardinality,
        request_type=request_type,
        reply_type=reply_type,
        deserialize=handler.request_deserializer or bytes,
        serialize=serialize,
        handler=getattr(handler, _HANDLER_ATTRIBUTE[cardinality]),
    )


_CARDINALITY = {(kind.client_streaming, kind.server_streaming): kind for kind in Cardinality}

_HANDLER_ATTRIBUTE = {
    Cardinality.UNARY_UNARY: "unary_unary",
    Cardinality.UNARY_STREAM: "unary_stream",
    Cardinality.STREAM_UNARY: "stream_unary",
    Cardinality.STREAM_STREAM: "stream_stream",
}


def _declared_reply_type(service: str, name: str, request_type: type[Message] | None) -> type[Message] | None:
    """The reply's class, from the pool of the request's class; None if the pool has no such method."""
    # Typed for protobuf's Python and C forms alike, which have no type in common.
    pool: Any = descriptor_pool.Default() if request_type is None else request_type.DESCRIPTOR.file.pool
    try:
        method = pool.FindMethodByName(f"{service}.{name}")
    except KeyError:
        return None
    return message_factory.GetMessageClass(method.output_type)


def _serializer(service: str, name: str, reply_type: Any) -> Callable[[Any], bytes]:
    """Bytes of a reply.  The type is compared, because protobuf would encode any message without a word."""
    encode: Callable[[Any], bytes] = reply_type.SerializeToString
    # grpclib's services may have messages that are not protobuf's own, such as betterproto's.
    is_protobuf = issubclass(reply_type, Message)
    declared = reply_type.DESCRIPTOR.full_name if is_protobuf else reply_type.__qualname__

    def serialize(message: Any) -> bytes:
        if type(message) is reply_type:
            return encode(message)
        # The same message compiled twice, as when the handler has a _pb2 module and the server the .proto.
        if isinstance(message, Message) and message.DESCRIPTOR.full_name == declared:
            return message.SerializeToString()
        raise TypeError(f"{service}/{name} returned {_type_name(message)} where the rpc declares {declared}")

    return serialize


def _type_name(value: object) -> str:
    if value is None:
        return "None"
    return value.DESCRIPTOR.full_name if isinstance(value, Message) else type(value).__qualname__
