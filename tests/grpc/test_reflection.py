from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2
from grpclib.const import Cardinality

from trio_serve.grpc.health import Health
from trio_serve.grpc.methods import Method, methods_from, methods_of_handlers
from trio_serve.grpc.reflection import Reflection
from trio_serve.grpc.standard import REFLECTION, REFLECTION_ALPHA

COMMON = """
syntax = "proto2";
package shop;
import "google/protobuf/timestamp.proto";
message Item {
  optional string name = 1;
  optional google.protobuf.Timestamp bought = 2;
  enum Size { SMALL = 0; LARGE = 1; }
  extensions 100 to 200;
}
extend Item { optional int32 weight = 120; optional string colour = 110; }
"""
ORDERS = """
syntax = "proto3";
package shop.orders;
import "common.proto";
message Order { repeated shop.Item items = 1; }
service Orders { rpc Place(Order) returns (Order); }
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Method]:
    """A service from a .proto of three files, the health service, and one without descriptors."""
    folder = tmp_path_factory.mktemp("protos")
    (folder / "common.proto").write_text(COMMON)
    (folder / "orders.proto").write_text(ORDERS)
    methods = [*methods_from(folder / "orders.proto"), *Health().methods()]
    return {method.path: method for method in methods}


@pytest.fixture(params=[REFLECTION, REFLECTION_ALPHA], ids=["v1", "v1alpha"])
def protos(request: pytest.FixtureRequest) -> Any:
    return request.param


async def ask(registered: dict[str, Method], protos: Any, *requests: dict[str, Any]) -> list[Any]:
    """The answers to ``requests`` in one stream."""

    async def asked() -> AsyncIterator[Any]:
        for request in requests:
            yield protos.ServerReflectionRequest(**request)

    service = f"{protos.files[0].package}.ServerReflection"
    (method,) = [found for found in Reflection(registered).methods() if found.service == service]
    assert method.handler is not None and method.cardinality is Cardinality.STREAM_STREAM
    async with aclosing(cast(Any, method.handler(asked(), None))) as replies:
        return [
            protos.ServerReflectionResponse.FromString(method.serialize(reply)) async for reply in replies
        ]


def files_of(answer: Any) -> list[str]:
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
    serialized = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(data).name for data in serialized]


async def test_the_registered_services_are_listed(registered: dict[str, Method], protos: Any) -> None:
    (answer,) = await ask(registered, protos, {"host": "h", "list_services": "*"})

    assert [entry.name for entry in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "shop.orders.Orders",
    ]
    assert answer.valid_host == answer.original_request.host == "h"


async def test_what_is_registered_later_is_listed_later(protos: Any) -> None:
    registered: dict[str, Method] = {}
    (before,) = await ask(registered, protos, {"list_services": ""})
    registered.update((method.path, method) for method in Health().methods())
    (after,) = await ask(registered, protos, {"list_services": ""})

    assert len(before.list_services_response.service) == 0
    assert len(after.list_services_response.service) == 1


async def test_a_file_comes_with_all_that_it_imports(registered: dict[str, Method], protos: Any) -> None:
    (answer,) = await ask(registered, protos, {"file_by_filename": "orders.proto"})

    assert files_of(answer) == ["orders.proto", "common.proto", "google/protobuf/timestamp.proto"]


async def test_imports_are_sent_once_a_stream_and_what_is_asked_for_always(
    registered: dict[str, Method], protos: Any
) -> None:
    request = {"file_by_filename": "orders.proto"}

    answers = await ask(registered, protos, request, {"file_by_filename": "common.proto"}, request)

    assert [files_of(answer) for answer in answers[1:]] == [["common.proto"], ["orders.proto"]]


@pytest.mark.parametrize(
    "symbol, file",
    [
        ("shop.orders.Orders", "orders.proto"),
        ("shop.orders.Orders.Place", "orders.proto"),
        ("shop.orders.Order", "orders.proto"),
        ("shop.orders.Order.items", "orders.proto"),
        ("shop.Item", "common.proto"),
        ("shop.Item.Size", "common.proto"),
        ("shop.Item.LARGE", "common.proto"),
        ("shop.weight", "common.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
    ],
)
async def test_a_symbol_is_found_in_its_file(
    registered: dict[str, Method], protos: Any, symbol: str, file: str
) -> None:
    (answer,) = await ask(registered, protos, {"file_containing_symbol": symbol})

    assert files_of(answer)[0] == file


async def test_extensions_are_found_by_number_and_listed(registered: dict[str, Method], protos: Any) -> None:
    found, listed, none = await ask(
        registered,
        protos,
        {"file_containing_extension": {"containing_type": "shop.Item", "extension_number": 120}},
        {"all_extension_numbers_of_type": "shop.Item"},
        {"all_extension_numbers_of_type": "shop.orders.Order"},
    )

    assert files_of(found)[0] == "common.proto"
    assert listed.all_extension_numbers_response.base_type_name == "shop.Item"
    assert list(listed.all_extension_numbers_response.extension_number) == [110, 120]
    assert list(none.all_extension_numbers_response.extension_number) == []
    assert none.WhichOneof("message_response") == "all_extension_numbers_response"


@pytest.mark.parametrize(
    "request_, code, text",
    [
        ({"file_by_filename": "nope.proto"}, 5, "file_by_filename: there is no 'nope.proto'"),
        ({"file_containing_symbol": "shop.Nope"}, 5, "there is no 'shop.Nope'"),
        ({"file_containing_symbol": ""}, 5, "there is no ''"),
        (
            {"file_containing_extension": {"containing_type": "shop.Item", "extension_number": 7}},
            5,
            "shop.Item",
        ),
        ({"file_containing_extension": {"containing_type": "Nope", "extension_number": 7}}, 5, "Nope"),
        ({"all_extension_numbers_of_type": "shop.Nope"}, 5, "there is no 'shop.Nope'"),
        ({}, 3, "asks for nothing"),
    ],
)
async def test_what_there_is_not_is_an_error_answer_and_the_stream_goes_on(
    registered: dict[str, Method], protos: Any, request_: dict[str, Any], code: int, text: str
) -> None:
    answer, after = await ask(registered, protos, request_, {"list_services": ""})

    assert answer.error_response.error_code == code
    assert text in answer.error_response.error_message
    assert len(after.list_services_response.service) == 2


async def test_a_user_s_file_comes_before_ours_of_the_same_name(tmp_path: Path, protos: Any) -> None:
    (tmp_path / "serve.proto").write_text(
        ORDERS.replace('import "common.proto";', "").replace("shop.Item", "Order")
    )
    methods = [*Health().methods(), *methods_from(tmp_path / "serve.proto")]

    (answer,) = await ask(
        {method.path: method for method in methods}, protos, {"file_by_filename": "serve.proto"}
    )

    serialized = answer.file_descriptor_response.file_descriptor_proto[0]
    assert descriptor_pb2.FileDescriptorProto.FromString(serialized).package == "shop.orders"


async def test_a_service_without_descriptors_is_listed_and_not_described(protos: Any) -> None:
    grpc = pytest.importorskip("grpc")
    methods = methods_of_handlers("raw.Bytes", {"Echo": grpc.unary_unary_rpc_method_handler(len)})
    registered = {method.path: method for method in methods}

    listed, described = await ask(
        registered, protos, {"list_services": ""}, {"file_containing_symbol": "raw.Bytes"}
    )

    assert [entry.name for entry in listed.list_services_response.service] == ["raw.Bytes"]
    assert described.error_response.error_code == 5


def test_both_versions_are_ready_to_be_registered() -> None:
    assert [method.path for method in Reflection({}).methods()] == [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]
