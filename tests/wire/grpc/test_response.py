import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    Fields,
    Status,
    Trailers,
    decode_message,
    encode_message,
    read_response_headers,
    read_trailers,
    response_headers,
    trailers,
    trailers_only,
)
from trio_serve.wire.grpc import fields as field_blocks


class Block:
    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.prefix: field_blocks.FieldBlock | None = None
        self.tail: Fields = ()
        self.reading: object | None = None


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_message_survives_the_wire_as_a_clean_field(message: str) -> None:
    encoded = encode_message(message)

    assert decode_message(encoded) == message
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert encoded == encoded.strip()


@pytest.mark.parametrize(
    "message, encoded",
    [
        ("plain text, (as) it 'is'", b"plain text, (as) it 'is'"),
        ("100%", b"100%25"),
        ("%41", b"%2541"),
        ("%", b"%25"),
        ("a%41b", b"a%2541b"),
        ("\t\ntest with whitespace\r\n", b"%09%0Atest with whitespace%0D%0A"),
        ("é☺", b"%C3%A9%E2%98%BA"),
        (" a ", b"%20a%20"),
        (" ", b"%20"),
        ("~!\x7f", b"~!%7F"),
        ("\ud800", b"?"),
        ("", b""),
    ],
)
def test_a_message_is_percent_coded_as_the_specification_says(message: str, encoded: bytes) -> None:
    assert encode_message(message) == encoded


@pytest.mark.parametrize(
    "value, message",
    [
        (b"a%", "a%"),
        (b"a%4", "a%4"),
        (b"%zz", "%zz"),
        (b"%ff", "\ufffd"),
        (b"%41%e4", "A\ufffd"),
        (b"\xc3\xa9", "é"),
    ],
)
def test_a_badly_coded_message_is_shown_as_far_as_it_goes(value: bytes, message: str) -> None:
    assert decode_message(value) == message


def test_the_common_answer_is_constant() -> None:
    assert response_headers() is RESPONSE_HEADERS
    assert trailers() == OK_TRAILERS


def test_what_a_server_ends_with_a_client_reads() -> None:
    metadata = (("request_id", "7"), ("k-bin", b"\xff"))

    fields = trailers(Status.NOT_FOUND, "no such ☺", metadata, b"\x08\x05")

    end = read_trailers(Block(fields))
    assert (end.status, end.message, end.details) == (Status.NOT_FOUND, "no such ☺", b"\x08\x05")
    assert end.metadata == (*metadata, ("grpc-status-details-bin", b"\x08\x05"))


def test_details_that_an_application_sets_as_metadata_are_details() -> None:
    """As grpcio-status does it."""
    end = read_trailers(Block(trailers(Status.INTERNAL, "x", [("grpc-status-details-bin", b"\x08\x0d")])))

    assert end.details == b"\x08\x0d"


def test_trailers_only_is_headers_and_trailers_in_one() -> None:
    fields = trailers_only(Status.UNIMPLEMENTED, "Method not found!")

    assert fields == (*RESPONSE_HEADERS, (b"grpc-status", b"12"), (b"grpc-message", b"Method not found!"))
    assert read_trailers(Block(fields)) == Trailers(Status.UNIMPLEMENTED, "Method not found!", (), b"")
    assert read_response_headers(Block(fields)).problem is None


def test_a_grpc_status_counts_more_than_an_http_status() -> None:
    fields = ((b":status", b"503"), (b"content-type", b"text/html"), (b"grpc-status", b"5"))

    assert read_response_headers(Block(fields)).problem is None
    assert read_trailers(Block(fields)).status is Status.NOT_FOUND


def test_response_headers_carry_encoding_and_metadata() -> None:
    head = read_response_headers(Block(response_headers("gzip", [("k", "v"), ("b-bin", b"")])))

    assert head.encoding == "gzip"
    assert head.metadata == (("k", "v"), ("b-bin", b""))
    assert head.problem is None


def test_both_readings_are_kept_on_the_block() -> None:
    headers, end = Block(RESPONSE_HEADERS), Block(OK_TRAILERS)

    assert read_response_headers(headers) is read_response_headers(headers)
    assert read_trailers(end) is read_trailers(end)


def test_one_block_can_be_read_as_headers_and_as_trailers() -> None:
    block = Block(trailers_only(Status.ABORTED))

    assert read_response_headers(block).problem is None
    assert read_trailers(block).status is Status.ABORTED


@pytest.mark.parametrize("value", ["a\nb", "é"])
def test_metadata_that_could_break_a_header_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        trailers(metadata=[("k", value)])
    with pytest.raises(ValueError, match="printable ASCII"):
        response_headers(metadata=[("k", value)])


@pytest.mark.parametrize(
    "fields, status, text",
    [
        (((b":status", b"503"), (b"content-type", b"text/html")), Status.UNAVAILABLE, "HTTP status 503"),
        (((b":status", b"415"),), Status.UNKNOWN, "HTTP status 415"),
        (((b":status", b"200"), (b"content-type", b"text/html")), Status.UNKNOWN, "content-type 'text/html'"),
        (((b":status", b"200"), (b"content-type", b"application/grpc+json")), Status.INTERNAL, "grpc.json"),
        (((b":status", b"200"),), Status.UNKNOWN, "content-type ''"),
        ((*RESPONSE_HEADERS, (b"grpc-encoding", b"br")), Status.INTERNAL, "grpc-encoding 'br'"),
        ((*RESPONSE_HEADERS, (b"k-bin", b"!")), Status.INTERNAL, "not base64"),
    ],
)
def test_an_answer_that_is_no_gRPC_answer_is_a_problem(fields: Fields, status: Status, text: str) -> None:
    problem = read_response_headers(Block(fields)).problem

    assert problem is not None
    assert problem.status is status
    assert text.replace(".", "+", 1) in problem.message or text in problem.message


@pytest.mark.parametrize(
    "fields, status, text",
    [
        ((), Status.UNKNOWN, "without a grpc-status"),
        (((b"grpc-status", b"99"),), Status.UNKNOWN, "grpc-status 99"),
        (((b"grpc-status", b"99"), (b"grpc-message", b"own")), Status.UNKNOWN, "own"),
        (((b"grpc-status", b"0"), (b"k-bin", b"!")), Status.INTERNAL, "not base64"),
        (((b":status", b"502"),), Status.UNAVAILABLE, "HTTP status 502"),
        (((b":status", b"503"), (b"grpc-status", b"5")), Status.NOT_FOUND, ""),
        (RESPONSE_HEADERS, Status.UNKNOWN, "without a grpc-status"),
    ],
)
def test_trailers_that_say_too_little_still_end_the_call(fields: Fields, status: Status, text: str) -> None:
    end = read_trailers(Block(fields))

    assert end.status is status
    assert text in end.message


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([b":status", b"grpc-status", b"grpc-message", b"k-bin", b"x"]), st.binary())
    )
)
def test_no_fields_make_reading_raise(fields: list[tuple[bytes, bytes]]) -> None:
    read_response_headers(Block(tuple(fields)))
    read_trailers(Block(tuple(fields)))
