import enum

import pytest

from trio_serve.wire.grpc import Status, status_from_http, status_from_wire, to_status


class GrpcioStatusCode(enum.Enum):
    """In the shape of ``grpc.StatusCode``."""

    OK = (0, "ok")
    NOT_FOUND = (5, "not found")


class IntStatus(enum.IntEnum):
    NOT_FOUND = 5


@pytest.mark.parametrize("code", [Status.NOT_FOUND, 5, GrpcioStatusCode.NOT_FOUND, IntStatus.NOT_FOUND])
def test_a_status_is_understood_in_every_form(code: object) -> None:
    assert to_status(code) is Status.NOT_FOUND


@pytest.mark.parametrize("code", [17, -1])
def test_a_number_that_gRPC_lacks_is_a_value_error(code: int) -> None:
    with pytest.raises(ValueError, match=r"0 \(OK\) to 16"):
        to_status(code)


@pytest.mark.parametrize("code", ["NOT_FOUND", None, True, 5.0, (), object()])
def test_what_is_no_status_is_a_type_error(code: object) -> None:
    with pytest.raises(TypeError, match="is no status"):
        to_status(code)


def test_grpcio_s_own_codes_all_translate() -> None:
    grpc = pytest.importorskip("grpc")

    assert [to_status(code).name for code in grpc.StatusCode] == [code.name for code in grpc.StatusCode]


@pytest.mark.parametrize(
    "value, status",
    [(b"0", Status.OK), (b"16", Status.UNAUTHENTICATED), (b"17", Status.UNKNOWN), (b"", Status.UNKNOWN)]
    + [(value, Status.UNKNOWN) for value in (b"05", b" 5", b"-1", b"\xff", b"5.0")],
)
def test_a_code_from_the_wire_never_fails(value: bytes, status: Status) -> None:
    assert status_from_wire(value) is status


@pytest.mark.parametrize(
    "http_status, status",
    [
        (400, Status.INTERNAL),
        (401, Status.UNAUTHENTICATED),
        (403, Status.PERMISSION_DENIED),
        (404, Status.UNIMPLEMENTED),
        (429, Status.UNAVAILABLE),
        (502, Status.UNAVAILABLE),
        (503, Status.UNAVAILABLE),
        (504, Status.UNAVAILABLE),
        (200, Status.UNKNOWN),
        (500, Status.UNKNOWN),
        (301, Status.UNKNOWN),
    ],
)
def test_an_http_status_maps_as_gRPC_says(http_status: int, status: Status) -> None:
    assert status_from_http(http_status) is status
