"""The guide's application, tested as its user would: first with the kit, then the same with grpcio alone."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from trio_serve.grpc import RpcError, Status
from trio_serve.testing import serving

from ..contract.conftest import guide_path, stubs  # noqa: F401 - fixtures


@pytest.fixture
def guide(guide_path):  # noqa: F811
    import test_deployment_v2
    import user_defined_protos_pb2 as messages
    import user_defined_protos_pb2_grpc as services

    return test_deployment_v2, messages, services


# -- with the kit --------------------------------------------------------------------------------------------


async def test_it_greets(guide) -> None:
    application, messages, services = guide
    async with serving(application.g, services=[messages]) as service:
        stub = services.UserDefinedServiceStub(service.channel())
        reply = await stub.__call__(messages.UserDefinedMessage(name="foo", num=30, origin="bar"))

    assert (reply.greeting, reply.num) == ("Hello foo from bar", 60)


async def test_it_loads_the_model_that_is_asked_for(guide) -> None:
    application, messages, services = guide
    async with serving(application.g, services=[messages]) as service:
        stub = services.UserDefinedServiceStub(service.channel())
        metadata = [("multiplexed_model_id", "999")]
        reply = await stub.Multiplexing(messages.UserDefinedMessage2(), metadata=metadata)

    assert reply.greeting == "Method2 called model, loading model: 999"


async def test_it_streams(guide) -> None:
    application, messages, services = guide
    async with serving(application.g, services=[messages]) as service:
        stub = services.UserDefinedServiceStub(service.channel())
        request = messages.UserDefinedMessage(name="foo", num=30, origin="bar")
        nums = [reply.num async for reply in stub.Streaming(request)]

    assert nums == list(range(60, 70))


async def test_an_unknown_application_is_told(guide) -> None:
    application, messages, services = guide
    async with serving(application.g, services=[messages]) as service:
        stub = services.UserDefinedServiceStub(service.channel())
        with pytest.raises(RpcError) as info:
            await stub.__call__(messages.UserDefinedMessage(), metadata=[("application", "app9")])

    assert info.value.status is Status.NOT_FOUND


# -- the same with grpcio alone: no deployments; a server, a port and threads for each test ------------------


@pytest.fixture
def grpcio_stub(guide):
    """The class's methods behind grpcio's own server, as one does without a kit: wrapped by hand."""
    application, messages, services = guide
    greeter = application.GrpcDeployment.func_or_class()

    class Servicer(services.UserDefinedServiceServicer):
        def __call__(self, request, context):
            return greeter(request)

        def Streaming(self, request, context):
            yield from greeter.Streaming(request)

    server = grpc.server(ThreadPoolExecutor(2))
    services.add_UserDefinedServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield services.UserDefinedServiceStub(channel), messages
    server.stop(None).wait()


@pytest.mark.real_clock
def test_it_greets_with_grpcio(grpcio_stub) -> None:
    stub, messages = grpcio_stub
    reply = stub.__call__(messages.UserDefinedMessage(name="foo", num=30, origin="bar"))

    assert (reply.greeting, reply.num) == ("Hello foo from bar", 60)


@pytest.mark.real_clock
def test_it_streams_with_grpcio(grpcio_stub) -> None:
    stub, messages = grpcio_stub
    request = messages.UserDefinedMessage(name="foo", num=30, origin="bar")

    assert [reply.num for reply in stub.Streaming(request)] == list(range(60, 70))
