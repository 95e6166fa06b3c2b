"""Method tables from generated code of every kind; the code is generated here, by the real plugins."""

import importlib
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality

from trio_serve.grpc.methods import (
    Method,
    MethodSourceError,
    methods_from,
    methods_from_all,
    methods_of_generic_handler,
    methods_of_handlers,
)
from trio_serve.grpc.protos import load_protos

PROTO = """
syntax = "proto3";
package table.of.methods;
message Asked { string name = 1; }
message Answered { string text = 1; }
service Greeter {
  rpc __call__(Asked) returns (Answered);
  rpc Often(Asked) returns (stream Answered);
  rpc ToAll(stream Asked) returns (Answered);
  rpc ToEach(stream Asked) returns (stream Answered);
}
service Other { rpc Ask(Asked) returns (Answered); }
"""

# As grpcio-tools wrote it until 1.62; newer ones add a line, see the generated module.
OLD_STYLE = """
import grpc
import table_of_methods_pb2 as pb2

def add_GreeterServicer_to_server(servicer, server):
    rpc_method_handlers = {
            '__call__': grpc.unary_unary_rpc_method_handler(
                    servicer.__call__,
                    request_deserializer=pb2.Asked.FromString,
                    response_serializer=pb2.Answered.SerializeToString,
            ),
            'Often': grpc.unary_stream_rpc_method_handler(
                    servicer.Often,
                    request_deserializer=pb2.Asked.FromString,
                    response_serializer=pb2.Answered.SerializeToString,
            ),
            'ToAll': grpc.stream_unary_rpc_method_handler(
                    servicer.ToAll,
                    request_deserializer=pb2.Asked.FromString,
                    response_serializer=pb2.Answered.SerializeToString,
            ),
            'ToEach': grpc.stream_stream_rpc_method_handler(
                    servicer.ToEach,
                    request_deserializer=pb2.Asked.FromString,
                    response_serializer=pb2.Answered.SerializeToString,
            ),
    }
    generic_handler = grpc.method_handlers_generic_handler(
            'table.of.methods.Greeter', rpc_method_handlers)
    server.add_generic_rpc_handlers((generic_handler,))
"""

TABLE = [
    ("/table.of.methods.Greeter/__call__", Cardinality.UNARY_UNARY),
    ("/table.of.methods.Greeter/Often", Cardinality.UNARY_STREAM),
    ("/table.of.methods.Greeter/ToAll", Cardinality.STREAM_UNARY),
    ("/table.of.methods.Greeter/ToEach", Cardinality.STREAM_STREAM),
]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on ``sys.path`` with a .proto and all that the plugins make of it."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "table_of_methods.proto").write_text(PROTO)
    (folder / "old_style_pb2_grpc.py").write_text(OLD_STYLE)
    plugin = Path(sysconfig.get_path("scripts"), "protoc-gen-grpclib_python")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I.", "table_of_methods.proto"),
            *("--python_out=.", "--grpc_python_out=.", "--include_imports"),
            *(f"--plugin=protoc-gen-grpclib_python={plugin}", "--grpclib_python_out=."),
            "--descriptor_set_out=table_of_methods.binpb",
        ],
        cwd=folder,
        check=True,
    )
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pb2(code: Path) -> ModuleType:
    return importlib.import_module("table_of_methods_pb2")


def object_named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return (
        getattr(importlib.import_module(module), attribute) if attribute else importlib.import_module(module)
    )


SOURCES: dict[str, Callable[[Path], object]] = {
    "grpcio function": lambda code: object_named("table_of_methods_pb2_grpc:add_GreeterServicer_to_server"),
    "older grpcio function": lambda code: object_named("old_style_pb2_grpc:add_GreeterServicer_to_server"),
    "grpclib class": lambda code: object_named("table_of_methods_grpc:GreeterBase"),
    "messages module": lambda code: object_named("table_of_methods_pb2"),
    "loaded protos": lambda code: load_protos(code / "table_of_methods.proto"),
    ".proto path": lambda code: code / "table_of_methods.proto",
    ".proto path as text": lambda code: str(code / "table_of_methods.proto"),
    "descriptor set": lambda code: str(code / "table_of_methods.binpb"),
    "import path with colon": lambda code: "table_of_methods_pb2_grpc:add_GreeterServicer_to_server",
    "dotted import path": lambda code: "table_of_methods_pb2_grpc.add_GreeterServicer_to_server",
    "import path of a grpclib class": lambda code: "table_of_methods_grpc:GreeterBase",
    "import path of a module": lambda code: "table_of_methods_pb2",
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_table(code: Path, make: Callable[[Path], object]) -> None:
    methods = [method for method in methods_from(make(code)) if method.service.endswith("Greeter")]

    assert [(method.path, method.cardinality) for method in methods] == TABLE
    for method in methods:
        assert method.path == f"/{method.service}/{method.name}"
        assert method.handler is None
        assert method.request_type is not None and method.reply_type is not None
        assert method.request_type.__name__ == "Asked"
        request = method.deserialize(b"\n\x03you")
        assert (type(request), request.name) == (method.request_type, "you")
        assert method.serialize(method.reply_type(text="hello")) == b"\n\x05hello"


def test_a_module_or_file_gives_all_its_services(code: Path, pb2: ModuleType) -> None:
    for source in (pb2, code / "table_of_methods.proto"):
        assert {method.service for method in methods_from(source)} == {
            "table.of.methods.Greeter",
            "table.of.methods.Other",
        }


def test_generated_classes_are_the_ones_used(pb2: ModuleType) -> None:
    for source in (
        "table_of_methods_pb2",
        "table_of_methods_grpc:GreeterBase",
        "old_style_pb2_grpc:add_GreeterServicer_to_server",
    ):
        method = methods_from(source)[0]
        assert (method.request_type, method.reply_type) == (pb2.Asked, pb2.Answered)


@pytest.mark.real_clock
def test_neither_grpcio_nor_protoc_is_imported_for_what_does_not_need_them(code: Path) -> None:
    program = """
import sys
from trio_serve.grpc.methods import methods_from
assert len(methods_from("table_of_methods.proto")) == 5
assert len(methods_from("table_of_methods_pb2")) == 5
assert len(methods_from("table_of_methods.binpb")) == 5
loaded = [name for name in sys.modules if name.split(".")[0] in ("grpc", "grpc_tools", "asyncio", "h2")]
assert not loaded, loaded
"""
    root = str(Path(__file__).parents[2])
    env = {"PYTHONPATH": f"{root}:{code}"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=code, env=env, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr


# Replies


@pytest.fixture
def method(pb2: ModuleType) -> Method:
    return methods_from(pb2)[0]


@pytest.mark.parametrize(
    "reply, named", [("text", "str"), (None, "None"), (b"", "bytes"), ({}, "dict"), (5, "int"), (str, "type")]
)
def test_a_reply_of_another_type_is_named_beside_the_declared_one(
    method: Method, reply: object, named: str
) -> None:
    with pytest.raises(TypeError) as caught:
        method.serialize(reply)

    assert str(caught.value) == (
        f"table.of.methods.Greeter/__call__ returned {named} where the rpc declares table.of.methods.Answered"
    )


def test_a_reply_of_another_message_type_is_refused(method: Method, pb2: ModuleType) -> None:
    """Protobuf alone would encode it without a word."""
    with pytest.raises(TypeError, match=r"returned table.of.methods.Asked where"):
        method.serialize(pb2.Asked(name="wrong"))


def test_the_same_message_compiled_twice_is_no_other_type(code: Path, pb2: ModuleType) -> None:
    """The handler has the generated module, the server only the .proto."""
    method = methods_from(code / "table_of_methods.proto")[0]

    assert method.reply_type is not pb2.Answered
    assert method.serialize(pb2.Answered(text="hello")) == b"\n\x05hello"


def test_a_request_that_cannot_be_parsed_is_protobuf_s_error(method: Method) -> None:
    with pytest.raises(DecodeError):
        method.deserialize(b"\xff")


# Handlers


class Recorder:
    """What generated code takes for a server."""

    def __init__(self) -> None:
        self.generic: list[Any] = []
        self.registered: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        self.generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.registered[service] = handlers


def test_a_servicer_s_methods_are_the_handlers_by_both_ways_of_registration(code: Path) -> None:
    generated = importlib.import_module("table_of_methods_pb2_grpc")
    servicer, server = generated.GreeterServicer(), Recorder()
    generated.add_GreeterServicer_to_server(servicer, server)

    for methods in (
        methods_of_generic_handler(server.generic[0]),
        methods_of_handlers("table.of.methods.Greeter", server.registered["table.of.methods.Greeter"]),
    ):
        assert [(method.path, method.cardinality) for method in methods] == TABLE
        assert [method.handler for method in methods] == [
            *(servicer.__call__, servicer.Often, servicer.ToAll, servicer.ToEach)
        ]
        assert not any(method.takes_stream for method in methods)


def test_a_grpclib_service_brings_handlers_that_take_a_stream(code: Path) -> None:
    base = importlib.import_module("table_of_methods_grpc").OtherBase

    class Other(base):  # type: ignore[misc, valid-type]
        async def Ask(self, stream: Any) -> None:
            pass

    service = Other()

    (method,) = methods_from(service)

    assert method.handler == service.Ask
    assert method.takes_stream


def test_a_grpclib_service_may_have_messages_of_another_library() -> None:
    """As betterproto generates them."""

    class Note:
        FromString = SerializeToString = staticmethod(len)

    entry = SimpleNamespace(func=len, cardinality=Cardinality.UNARY_UNARY, request_type=Note, reply_type=Note)
    service = SimpleNamespace(__mapping__=lambda: {"/notes.Notes/Take": entry})

    (method,) = methods_from(service)

    assert (method.service, method.name, method.reply_type) == ("notes.Notes", "Take", Note)
    with pytest.raises(TypeError, match=r"notes.Notes/Take returned str where the rpc declares .*Note"):
        method.serialize("text")


def test_serializers_of_the_user_s_own_are_kept() -> None:
    grpc = pytest.importorskip("grpc")
    handlers = {
        "Raw": grpc.unary_unary_rpc_method_handler(len),
        "Own": grpc.unary_stream_rpc_method_handler(len, bytes.decode, str.encode),
    }

    raw, own = methods_of_handlers("any.Service", handlers)

    assert (raw.request_type, raw.reply_type, raw.handler) == (None, None, len)
    assert raw.deserialize(b"as is") == b"as is" and raw.serialize(b"as is") == b"as is"
    assert own.deserialize(b"x") == "x" and own.serialize("x") == b"x"
    assert own.cardinality is Cardinality.UNARY_STREAM


def test_an_own_serializer_for_a_declared_method_is_kept(pb2: ModuleType) -> None:
    grpc = pytest.importorskip("grpc")
    handler = grpc.unary_unary_rpc_method_handler(len, pb2.Asked.FromString, lambda reply: b"own")

    (method,) = methods_of_handlers("table.of.methods.Other", {"Ask": handler})

    assert method.request_type is pb2.Asked
    assert method.reply_type is None
    assert method.serialize("anything") == b"own"


def test_a_generic_handler_that_tells_no_methods_is_a_type_error_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"use grpc\.method_handlers_generic_handler"):
        methods_of_generic_handler(SimpleNamespace(service=len))


# What is of no use


MISTAKES = {
    "nope_pb2_grpc.add_X": "'nope_pb2_grpc.add_X': there is no module 'nope_pb2_grpc', to take 'add_X' from",
    "nope_pb2_grpc:add_X": "'nope_pb2_grpc:add_X': there is no module 'nope_pb2_grpc', to take 'add_X' from",
    "nope_pb2": "'nope_pb2': there is no module 'nope_pb2' on sys.path",
    "email.nope:add_X": "there is no module 'email.nope', to take 'add_X' from",
    "email.nope.add_X": "module 'email' has no attribute 'nope'",
    "table_of_methods_pb2_grpc:add_GreterServicer_to_server": (
        "module 'table_of_methods_pb2_grpc' has no attribute 'add_GreterServicer_to_server'; "
        "did you mean 'add_GreeterServicer_to_server'?"
    ),
    "table_of_methods_pb2_grpc:GRPC_VERSION": (
        "'table_of_methods_pb2_grpc:GRPC_VERSION' is of type str; it must be callable"
    ),
    "table_of_methods_pb2_grpc:GreeterServicer": "is the class GreeterServicer; it must be callable (an add_",
    "table_of_methods_pb2_grpc": (
        "is no *_pb2 module: take 'table_of_methods_pb2_grpc:add_GreeterServicer_to_server'"
    ),
    "email": "'email' is no *_pb2 module",
    "os:getcwd": "'os:getcwd' is no add_...Servicer_to_server function: with (servicer",
    "builtins:isinstance": "with (servicer, server) it raised TypeError",
    "google.protobuf.timestamp_pb2": (
        "'google.protobuf.timestamp_pb2' declares no service: there is none in google/protobuf/time"
    ),
    "nope.proto": "nope.proto: there is no such file",
    "": "'' is no import path; write 'package.module:attribute'",
    "a b:c": "'a b:c' is no import path",
    "a:": "'a:' is no import path",
    ":a": "':a' is no import path",
    "../a.py": "'../a.py' is no import path",
    "raises_on_import:x": "importing module 'raises_on_import' failed: ZeroDivisionError: division by zero",
    "lacks_an_import:x": "module 'lacks_an_import' failed: No module named 'not_installed_anywhere'",
    "adds_nothing:add": "is no add_...Servicer_to_server function: it was called and added no rpc method",
}


@pytest.fixture
def bad_modules(code: Path) -> None:
    (code / "raises_on_import.py").write_text("1 / 0")
    (code / "lacks_an_import.py").write_text("import not_installed_anywhere")
    (code / "adds_nothing.py").write_text("def add(servicer, server): pass")


@pytest.mark.parametrize("source, text", MISTAKES.items(), ids=MISTAKES)
def test_a_bad_source_is_an_error_that_says_what_and_where(source: str, text: str, bad_modules: None) -> None:
    with pytest.raises(MethodSourceError) as caught:
        methods_from(source)

    (problem,) = caught.value.problems
    assert text in problem
    assert "\n" not in problem


def test_grpcios_servicer_is_told_from_a_service(code: Path) -> None:
    import table_of_methods_pb2_grpc

    class Mine(table_of_methods_pb2_grpc.GreeterServicer): ...  # type: ignore[misc]

    with pytest.raises(MethodSourceError, match=r"call add_GreeterServicer_to_server\(servicer, server\)"):
        methods_from(Mine())


@pytest.mark.parametrize("source", [3, None, object(), ["a"], int])
def test_an_object_of_another_kind_is_an_error_too(source: object) -> None:
    with pytest.raises(MethodSourceError, match="it must be callable"):
        methods_from(source)


def test_the_cause_of_a_failed_import_stays_in_the_chain(bad_modules: None) -> None:
    with pytest.raises(MethodSourceError) as caught:
        methods_from("raises_on_import:x")

    chain: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__
    assert isinstance(chain[-1], ZeroDivisionError)


def test_without_grpcio_the_way_around_it_is_told(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "table_of_methods_pb2_grpc", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(MethodSourceError, match=r"failed: .*grpc.* its \*_pb2 module has the same services"):
        methods_from("table_of_methods_pb2_grpc:add_GreeterServicer_to_server")


def test_all_bad_sources_are_told_at_once(code: Path) -> None:
    with pytest.raises(MethodSourceError) as caught:
        methods_from_all(["nope:x", "table_of_methods_pb2", "email", 3])

    assert len(caught.value.problems) == 3
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_a_method_that_two_sources_have_is_taken_from_the_first(pb2: ModuleType, code: Path) -> None:
    methods = methods_from_all([pb2, code / "table_of_methods.proto", "table_of_methods_grpc:GreeterBase"])

    assert len(methods) == 5
    assert {method.request_type for method in methods} == {pb2.Asked}
