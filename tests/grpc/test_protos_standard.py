"""The services that every server has: their descriptors, and that they clash with nobody's."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from trio_serve.generated.serve_pb2 import (
    DESCRIPTOR,
    HealthzRequest,
    HealthzResponse,
    ListApplicationsRequest,
    ListApplicationsResponse,
)
from trio_serve.generated.serve_pb2_grpc import RayServeAPIServiceStub
from trio_serve.grpc.methods import methods_from
from trio_serve.grpc.protos import load_protos
from trio_serve.grpc.standard import SERVE_API
from trio_serve.grpc.standard_pb2 import FILES

ROOT = Path(__file__).parents[2]


def without_json_names(serialized: bytes) -> descriptor_pb2.FileDescriptorProto:
    """Some releases of protoc write them, others leave them to be derived."""
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    for message in file.message_type:
        for field in [*message.field, *(field for nested in message.nested_type for field in nested.field)]:
            field.ClearField("json_name")
    return file


def test_the_descriptors_are_those_of_the_proto_files() -> None:
    """Else: python protos/make_standard.py."""
    folder = ROOT / "protos"
    compiled = load_protos(*(folder / name for name in FILES), include=[folder])

    assert {file.name: without_json_names(file.serialized_pb) for file in compiled.files} == {
        name: without_json_names(serialized) for name, serialized in FILES.items()
    }


@pytest.mark.parametrize("name", ["user_defined_protos.proto", "helloworld.proto", "serve.proto"])
def test_the_proto_files_of_the_repository_compile(name: str) -> None:
    assert methods_from(ROOT / "protos" / name)


def test_the_guide_s_services_are_whole() -> None:
    paths = [method.path for method in methods_from(ROOT / "protos" / "user_defined_protos.proto")]

    assert paths == [
        "/userdefinedprotos.UserDefinedService/__call__",
        "/userdefinedprotos.UserDefinedService/Multiplexing",
        "/userdefinedprotos.UserDefinedService/Streaming",
        "/userdefinedprotos.ImageClassificationService/Predict",
    ]


OURS = "from trio_serve.grpc import health, reflection; from trio_serve.generated import serve_pb2"
THEIRS = {
    "grpcio-health-checking": "from grpc_health.v1 import health_pb2, health",
    "grpcio-reflection": "from grpc_reflection.v1alpha import reflection_pb2, reflection",
    "grpclib health": "from grpclib.health.service import Health",
    "grpclib reflection": "from grpclib.reflection.service import ServerReflection",
    "the same protos in the default pool": """
from google.protobuf import descriptor_pb2, descriptor_pool
from trio_serve.grpc.standard_pb2 import FILES
for name, serialized in FILES.items():
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    file.name = "theirs/" + name
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
""",
}
USE = """
from trio_serve.grpc.health import Health
from trio_serve.grpc.reflection import Reflection
assert len(Health().methods()) == 3 and len(Reflection({}).methods()) == 2
assert serve_pb2.HealthzResponse(message="success").SerializeToString()
"""


@pytest.mark.real_clock
@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "theirs first"])
def test_a_user_s_own_import_of_the_same_messages_does_not_clash(theirs: str, ours_first: bool) -> None:
    order = [OURS, theirs] if ours_first else [theirs, OURS]
    program = "\n".join([*order, USE])

    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr


@pytest.mark.real_clock
def test_none_of_it_imports_grpcio() -> None:
    program = f"{OURS}\n{USE}\nimport sys; assert 'grpc' not in sys.modules and 'asyncio' not in sys.modules"

    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr


def test_the_serving_api_s_messages_are_under_their_generated_names() -> None:
    assert DESCRIPTOR.package == "ray.serve"
    assert ListApplicationsResponse(application_names=["app1"]).application_names == ["app1"]
    assert [method.path for method in methods_from(SERVE_API)] == [
        "/ray.serve.RayServeAPIService/ListApplications",
        "/ray.serve.RayServeAPIService/Healthz",
    ]


@pytest.mark.real_clock
def test_the_serving_api_s_stub_works_on_a_grpcio_channel() -> None:
    grpc = pytest.importorskip("grpc")

    def healthz(request: Any, context: Any) -> Any:
        return HealthzResponse(message="success")

    def list_applications(request: Any, context: Any) -> Any:
        return ListApplicationsResponse(application_names=["app1", "app2"])

    handlers = {
        "Healthz": grpc.unary_unary_rpc_method_handler(
            healthz, HealthzRequest.FromString, HealthzResponse.SerializeToString
        ),
        "ListApplications": grpc.unary_unary_rpc_method_handler(
            list_applications, ListApplicationsRequest.FromString, ListApplicationsResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("ray.serve.RayServeAPIService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = RayServeAPIServiceStub(channel)
            assert stub.Healthz(request=HealthzRequest()).message == "success"
            assert list(stub.ListApplications(ListApplicationsRequest()).application_names) == [
                "app1",
                "app2",
            ]
    finally:
        server.stop(None).wait()
