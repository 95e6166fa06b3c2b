"""The contract's gRPC table, row by row: a served instance, and grpcio as the client.

Each test is named for its row.  The instance is the script face's (it lives in a background thread), so the
client may block as a user's client does.
"""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import trio_serve as serve
from tests.patience import PATIENCE_S

from .conftest import SERVICERS

pytestmark = pytest.mark.usefixtures("stubs")

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def pb(stubs: object) -> Any:
    import user_defined_protos_pb2

    return user_defined_protos_pb2


def make_rows(pb: Any, log: list[str]) -> serve.Application:
    """One deployment; what it does is chosen by the request's name."""

    @serve.deployment(name="Rows", max_ongoing_requests=100)
    class Rows:
        async def __call__(self, message: Any, grpc_context: Any) -> Any:
            return await getattr(self, message.name)(message, grpc_context)

        async def echo(self, message: Any, context: Any) -> Any:
            return pb.UserDefinedResponse(greeting=message.origin, num=message.num)

        async def model(self, message: Any, context: Any) -> Any:
            return pb.UserDefinedResponse(greeting=serve.get_multiplexed_model_id())

        async def raises(self, message: Any, context: Any) -> Any:
            context.set_code(grpc.StatusCode.ABORTED)
            context.set_details("never seen")
            context.set_trailing_metadata([("mine", "kept")])
            raise ValueError("x" * message.num + " the reason")

        async def raises_status(self, message: Any, context: Any) -> Any:
            from grpclib.const import Status
            from grpclib.exceptions import GRPCError

            raise GRPCError(Status.ALREADY_EXISTS, "it is here")

        async def aborts(self, message: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today", [("why", "rain")])

        async def sets(self, message: Any, context: Any) -> Any:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("set by hand")
            context.set_trailing_metadata([("num", "7"), ("raw-bin", b"\x00\xff")])
            return pb.UserDefinedResponse()

        async def wrong_type(self, message: Any, context: Any) -> Any:
            return "a string"

        async def sleeps(self, message: Any, context: Any) -> Any:
            import trio

            log.append("started")
            try:
                await trio.sleep(message.num or 60)
            except trio.Cancelled:
                log.append("cancelled")
                raise
            return pb.UserDefinedResponse()

        async def tells(self, message: Any, context: Any) -> Any:
            return pb.UserDefinedResponse(
                greeting="|".join(
                    [
                        context.application(),
                        context.request_id(),
                        context.multiplexed_model_id(),
                        str(dict(context.invocation_metadata()).get("flavour")),
                        str(context.peer().startswith("ipv4:127.0.0.1:")),
                        str(context.is_active()),
                        str(0 < context.time_remaining() < 61),
                    ]
                )
            )

        def Multiplexing(self, message: Any) -> Iterator[Any]:
            yield pb.UserDefinedResponse2(greeting="a generator in a unary rpc")

        async def Streaming(self, message: Any) -> Any:
            if message.name == "endless":
                log.append("stream started")
                try:
                    number = 0
                    while True:
                        log[-1] = f"sent {number}"
                        yield pb.UserDefinedResponse(num=number, greeting="x" * 1000)
                        number += 1
                finally:
                    log.append("stream closed")
            for number in range(message.num):
                yield pb.UserDefinedResponse(num=number)
            if message.name == "raises":
                raise ValueError("after them")
            if message.name == "wrong_type":
                yield 42

    return Rows.bind()


@pytest.fixture(scope="module")
def log() -> list[str]:
    return []


@pytest.fixture(scope="module")
def channel(pb: Any, log: list[str]) -> Iterator[grpc.Channel]:
    serve.start(http_options={"port": 0}, grpc_options={"port": 0, "grpc_servicer_functions": SERVICERS})
    try:
        serve.run(make_rows(pb, log), name="rows", route_prefix=None)
        with grpc.insecure_channel(f"127.0.0.1:{serve.grpc_port()}") as channel:
            yield channel
    finally:
        serve.shutdown()


@pytest.fixture
def stub(channel: grpc.Channel, log: list[str]) -> Any:
    import user_defined_protos_pb2_grpc

    log.clear()
    return user_defined_protos_pb2_grpc.UserDefinedServiceStub(channel)


def refused(call: Any, *args: Any, **kwargs: Any) -> Any:
    with pytest.raises(grpc.RpcError) as info:
        answer = call(*args, **kwargs)
        if isinstance(answer, Iterator):
            list(answer)
    return info.value


def wait_for(log: list[str], line: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not any(entry.startswith(line) for entry in log):
        assert time.monotonic() < give_up, log
        time.sleep(0.005)


def test_ok(stub: Any, pb: Any) -> None:
    message = pb.UserDefinedMessage(name="echo", origin="here", num=3)

    response, call = stub.__call__.with_call(message, metadata=[("request_id", "123")])

    assert (response.greeting, response.num) == ("here", 3)
    assert call.code() is grpc.StatusCode.OK and call.details() == ""
    assert [tuple(pair) for pair in call.trailing_metadata()] == [("request_id", "123")]


def test_a_request_id_is_made_where_none_came(stub: Any, pb: Any) -> None:
    message = pb.UserDefinedMessage(name="echo")

    ids = {dict(stub.__call__.with_call(message)[1].trailing_metadata())["request_id"] for _ in range(3)}

    import re

    assert len(ids) == 3
    assert all(re.fullmatch(UUID4, request_id) for request_id in ids)


def test_application_unknown(stub: Any, pb: Any) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(), metadata=[("application", "nope")])

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == (
        "Application 'nope' not found. "
        "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    )
    assert "request_id" in dict(error.trailing_metadata())


def test_application_missing_with_two_apps(stub: Any, pb: Any) -> None:
    @serve.deployment
    class Second:
        def __call__(self, message: Any) -> Any:
            return pb.UserDefinedResponse(greeting="second")

    serve.run(Second.bind(), name="second", route_prefix=None)
    try:
        error = refused(stub.__call__, pb.UserDefinedMessage())
        second = stub.__call__(pb.UserDefinedMessage(), metadata=[("application", "second")])
    finally:
        serve.delete("second")

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == (
        "Application metadata not set. "
        "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    )
    assert "request_id" in dict(error.trailing_metadata())
    assert second.greeting == "second"


@pytest.mark.parametrize("path", ["/userdefinedprotos.UserDefinedService/Nope", "/nope.Nope/Nope", "/x"])
def test_service_or_method_not_registered(channel: grpc.Channel, path: str) -> None:
    error = refused(channel.unary_unary(path), b"")

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "Method not found!"


def test_registered_but_the_ingress_has_no_such_method(channel: grpc.Channel, stub: Any, pb: Any) -> None:
    import user_defined_protos_pb2_grpc

    images = user_defined_protos_pb2_grpc.ImageClassificationServiceStub(channel)

    error = refused(images.Predict, pb.ImageData(), metadata=[("request_id", "9")])

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "Predict" in error.details()
    assert "__call__" in error.details() and "Streaming" in error.details()
    assert dict(error.trailing_metadata())["request_id"] == "9"


def test_request_bytes_not_parseable(channel: grpc.Channel, stub: Any) -> None:
    raw = channel.unary_unary("/userdefinedprotos.UserDefinedService/__call__")

    error = refused(raw, b"\xff\xff\xff", metadata=[("request_id", "9")])

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "userdefinedprotos.UserDefinedMessage" in error.details()
    assert dict(error.trailing_metadata())["request_id"] == "9"


@pytest.mark.parametrize("length", [1, 100_000])
def test_handler_raises(stub: Any, pb: Any, length: int) -> None:
    error = refused(
        stub.__call__, pb.UserDefinedMessage(name="raises", num=length), metadata=[("request_id", "9")]
    )

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "in raises" in error.details()
    assert error.details().endswith(" the reason")
    assert "trio_serve/" not in error.details() and 'File "/' not in error.details()
    assert len(error.details().encode()) <= 4096
    assert [tuple(pair) for pair in error.trailing_metadata()] == [("request_id", "9"), ("mine", "kept")]


def test_handler_raises_a_status(stub: Any, pb: Any) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(name="raises_status"))

    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert error.details() == "it is here"
    assert "request_id" in dict(error.trailing_metadata())


def test_handler_aborts(stub: Any, pb: Any) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(name="aborts"), metadata=[("request_id", "9")])

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "not today"
    assert [tuple(pair) for pair in error.trailing_metadata()] == [("request_id", "9"), ("why", "rain")]


def test_stream_handler_raises_after_k_messages(stub: Any, pb: Any) -> None:
    responses = stub.Streaming(pb.UserDefinedMessage(name="raises", num=3))

    received = []
    with pytest.raises(grpc.RpcError) as info:
        for response in responses:
            received.append(response.num)  # noqa: PERF401

    assert received == [0, 1, 2]
    assert info.value.code() is grpc.StatusCode.INTERNAL
    assert info.value.details().endswith("ValueError: after them")
    assert "request_id" in dict(info.value.trailing_metadata())


def test_handler_sets_code_details_and_trailing_metadata(stub: Any, pb: Any) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(name="sets"), metadata=[("request_id", "9")])

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "set by hand"
    assert [tuple(pair) for pair in error.trailing_metadata()] == [
        ("request_id", "9"),
        ("num", "7"),
        ("raw-bin", b"\x00\xff"),
    ]


def test_handler_returns_another_type_than_declared(stub: Any, pb: Any) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(name="wrong_type"))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "str" in error.details() and "userdefinedprotos.UserDefinedResponse" in error.details()
    assert "request_id" in dict(error.trailing_metadata())


def test_a_streamed_item_of_another_type(stub: Any, pb: Any) -> None:
    error = refused(stub.Streaming, pb.UserDefinedMessage(name="wrong_type", num=1))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "int" in error.details() and "userdefinedprotos.UserDefinedResponse" in error.details()


def test_unary_rpc_with_a_generator(stub: Any, pb: Any) -> None:
    error = refused(stub.Multiplexing, pb.UserDefinedMessage2())

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "generator" in error.details() and "Multiplexing" in error.details()
    assert "request_id" in dict(error.trailing_metadata())


def test_stream_rpc_with_a_message(stub: Any, pb: Any) -> None:
    @serve.deployment
    class Plain:
        def Streaming(self, message: Any) -> Any:
            return pb.UserDefinedResponse()

    serve.run(Plain.bind(), name="plain", route_prefix=None)
    try:
        error = refused(stub.Streaming, pb.UserDefinedMessage(), metadata=[("application", "plain")])
    finally:
        serve.delete("plain")

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "Streaming" in error.details() and "generator" in error.details()
    assert "request_id" in dict(error.trailing_metadata())


def test_the_clients_deadline(stub: Any, pb: Any, log: list[str]) -> None:
    error = refused(stub.__call__, pb.UserDefinedMessage(name="sleeps"), timeout=0.2)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(log, "cancelled")


def test_cancelled_by_the_client(stub: Any, pb: Any, log: list[str]) -> None:
    call = stub.__call__.future(pb.UserDefinedMessage(name="sleeps"))
    wait_for(log, "started")

    call.cancel()

    wait_for(log, "cancelled")


def test_a_client_that_stops_reading_stops_the_generator(stub: Any, pb: Any, log: list[str]) -> None:
    """grpcio reads ahead by its window; the generator must stand still soon after, and close on cancel."""
    responses = stub.Streaming(pb.UserDefinedMessage(name="endless"))
    next(responses)
    standing = []
    give_up = time.monotonic() + PATIENCE_S
    while len(standing) < 10 and time.monotonic() < give_up:
        time.sleep(0.02)
        standing = [*standing, log[-1]] if standing and standing[-1] == log[-1] else [log[-1]]

    sent = int(log[-1].removeprefix("sent "))
    responses.cancel()
    wait_for(log, "stream closed")

    assert len(standing) == 10
    assert sent < 10_000


def test_the_context_tells_what_it_knows(stub: Any, pb: Any) -> None:
    metadata = [("request_id", "9"), ("multiplexed_model_id", "m1"), ("flavour", "sweet")]

    response = stub.__call__(pb.UserDefinedMessage(name="tells"), metadata=metadata, timeout=60)

    assert response.greeting == "rows|9|m1|sweet|True|True|True"


def test_the_model_id_reaches_the_handler(stub: Any, pb: Any) -> None:
    response = stub.__call__(pb.UserDefinedMessage(name="model"), metadata=[("multiplexed_model_id", "m7")])

    assert response.greeting == "m7"


def test_a_full_queue_refuses_at_once(stub: Any, pb: Any) -> None:
    release = threading.Event()

    @serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
    class Narrow:
        def __call__(self, message: Any) -> Any:
            release.wait(PATIENCE_S)
            return pb.UserDefinedResponse()

    serve.run(Narrow.bind(), name="narrow", route_prefix=None)
    metadata = [("application", "narrow")]
    try:
        calls = [stub.__call__.future(pb.UserDefinedMessage(), metadata=metadata) for _ in range(3)]
        answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for call in calls:
            call.add_done_callback(answered.put)
        dropped = answered.get(timeout=PATIENCE_S)
        release.set()
        answers = [call.result() for call in calls if call is not dropped]
    finally:
        release.set()
        serve.delete("narrow")

    error = dropped.exception()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == (
        "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
    )
    assert "request_id" in dict(error.trailing_metadata())
    assert answers == [pb.UserDefinedResponse()] * 2


def test_healthz_and_list_applications(channel: grpc.Channel, stub: Any) -> None:
    from trio_serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest
    from trio_serve.generated.serve_pb2_grpc import RayServeAPIServiceStub

    api = RayServeAPIServiceStub(channel)

    assert api.Healthz(HealthzRequest()).message == "success"
    assert list(api.ListApplications(ListApplicationsRequest()).application_names) == ["rows"]


def test_message_over_message_bytes_max(stub: Any, pb: Any) -> None:
    message = pb.UserDefinedMessage(name="echo", origin="x" * 5_000_000)

    error = refused(stub.__call__, message)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(message.ByteSize()) in error.details()
    assert "message_bytes_max=4194304" in error.details()


def test_compression_both_ways(channel: grpc.Channel, stub: Any, pb: Any) -> None:
    message = pb.UserDefinedMessage(name="echo", origin="x" * 100_000)

    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert stub.__call__(message, compression=compression).greeting == message.origin
