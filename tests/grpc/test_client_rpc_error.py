"""One error object answers to code written for grpcio's and for grpclib's stubs."""

import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf import any_pb2, wrappers_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from trio_serve.grpc.rpc_error import RpcError, StatusCode


def test_each_code_equals_grpcios_and_grpclibs_member_of_its_name_and_no_other() -> None:
    for ours in StatusCode:
        assert ours.value == grpc.StatusCode[ours.name].value
        for theirs in [*grpc.StatusCode, *Status]:
            assert (ours == theirs) is (theirs == ours) is (ours.name == theirs.name)
            assert ({theirs: 1}.get(ours) == 1) is (ours.name == theirs.name)
    assert {code.name for code in StatusCode} == {code.name for code in grpc.StatusCode}


def test_grpclibs_except_clause_finds_status_message_and_details() -> None:
    packed = any_pb2.Any()
    packed.Pack(wrappers_pb2.StringValue(value="which one"))
    # google.rpc.Status by hand: field 3 (details), length-delimited
    inner = packed.SerializeToString()
    details_bin = b"\x08\x05\x1a" + bytes([len(inner)]) + inner

    with pytest.raises(GRPCError) as caught:
        raise RpcError(Status.NOT_FOUND, "no cat", details_bin=details_bin)

    assert caught.value.status is Status.NOT_FOUND
    assert caught.value.message == "no cat"
    assert caught.value.details == (wrappers_pb2.StringValue(value="which one"),)


def test_grpcios_methods_answer_too() -> None:
    error = RpcError(
        Status.ABORTED,
        "try later",
        initial_metadata=(("a", "1"),),
        trailing_metadata=(("b-bin", b"2"),),
        debug="connection to 10.0.0.1:1 lost",
    )
    assert error.code() == grpc.StatusCode.ABORTED
    assert error.details() == "try later"
    assert error.initial_metadata() == (("a", "1"),)
    assert error.trailing_metadata() == (("b-bin", b"2"),)
    assert error.debug_error_string() == "connection to 10.0.0.1:1 lost"
    assert str(error) == "ABORTED: try later"


def test_an_unreadable_details_value_hides_neither_status_nor_message() -> None:
    error = RpcError(Status.INTERNAL, "broken", details_bin=b"\xff\xff\xff")
    assert (error.status, error.details(), list(error.details)) == (Status.INTERNAL, "broken", [])


def test_a_detail_of_an_unknown_type_stays_packed() -> None:
    unknown = any_pb2.Any(type_url="type.googleapis.com/no.such.Type", value=b"x")
    inner = unknown.SerializeToString()
    error = RpcError(Status.INTERNAL, "m", details_bin=b"\x1a" + bytes([len(inner)]) + inner)
    assert list(error.details) == [unknown]
