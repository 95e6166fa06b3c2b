import pytest
from grpclib.const import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import (
    Fields,
    GrpcRefusal,
    HttpRefusal,
    RequestHead,
    build_request_fields,
    encode_metadata,
    read_request,
    refusal,
    request_prefix,
)
from trio_serve.wire.grpc import fields as field_blocks

PREFIX = request_prefix("/pkg.Greeter/SayHello", "example.org:9000", user_agent="tests/1")


class Block:
    """A field section as the engine delivers it."""

    def __init__(self, fields: Fields, prefix: "Block | None" = None, tail: Fields = ()) -> None:
        self.fields = fields
        self.prefix: field_blocks.FieldBlock | None = prefix
        self.tail = tail
        self.reading: object | None = None


def read(fields: Fields) -> RequestHead:
    return read_request(Block(fields))


def test_what_a_client_builds_a_server_reads() -> None:
    fields = build_request_fields(PREFIX, 1.5, encode_metadata([("application", "app1"), ("k-bin", b"\x00")]))

    head = read(fields)

    assert head == RequestHead(
        http_method="POST",
        path="/pkg.Greeter/SayHello",
        authority="example.org:9000",
        content_type="application/grpc",
        timeout_s=1.5,
        encoding="identity",
        accept_encoding=("identity", "gzip", "deflate"),
        extra=((b"user-agent", b"tests/1"), (b"application", b"app1"), (b"k-bin", b"AA")),
        problem=None,
    )
    assert head.metadata == (("user-agent", "tests/1"), ("application", "app1"), ("k-bin", b"\x00"))


@pytest.mark.parametrize("bad", [(b"k", b"\xff"), (b"k-bin", b"!"), (b"k-bin", b"A"), (b"k", b"a\tb")])
def test_a_field_that_cannot_be_decoded_is_refused_though_nobody_reads_it(bad: tuple[bytes, bytes]) -> None:
    head = read((*PREFIX, (b"good", b"1"), bad))

    assert isinstance(head.problem, GrpcRefusal)
    assert head.metadata == (("user-agent", "tests/1"), ("good", "1"))  # it can be asked all the same


def test_without_a_timeout_none_is_sent() -> None:
    fields = build_request_fields(PREFIX, metadata=encode_metadata({"a": "b"}))

    assert b"grpc-timeout" not in dict(fields)
    assert read(fields).timeout_s is None


def test_the_same_block_is_read_once() -> None:
    block = Block(PREFIX)

    assert read_request(block) is read_request(block)


def test_only_the_tail_is_read_when_the_prefix_is_known() -> None:
    """The fields of the second block would be a problem; they are never looked at."""
    known, tail = Block(PREFIX), ((b"grpc-timeout", b"2S"), (b"request_id", b"7"))
    read_request(known)

    head = read_request(Block(((b":method", b"GET"),), prefix=known, tail=tail))

    assert head == read(PREFIX + tail)
    assert head.problem is None
    assert head.metadata[-1] == ("request_id", "7")


def test_a_prefix_not_read_yet_is_read_and_keeps_its_reading() -> None:
    known = Block(PREFIX)

    read_request(Block(PREFIX, prefix=known))

    assert isinstance(known.reading, RequestHead)


FIELDS = st.sampled_from(
    [
        *PREFIX,
        (b"grpc-timeout", b"1S"),
        (b"grpc-timeout", b"soon"),
        (b"content-type", b"text/html"),
        (b":method", b"GET"),
        (b"k-bin", b"AA"),
        (b"k-bin", b"!"),
        (b"k", b"v"),
        (b"k", b"\xff"),
        (b"grpc-encoding", b"gzip"),
        (b"grpc-encoding", b"br"),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(FIELDS, max_size=8).map(tuple), st.integers(0, 8))
def test_a_head_read_in_two_parts_is_the_head_read_at_once(fields: Fields, cut: int) -> None:
    head, whole = read(fields[:cut]).with_tail(fields[cut:]), read(fields)

    if head.problem is None or whole.problem is None:
        assert head == whole
    else:  # of several bad fields, either may be the one that is told
        assert head.problem[0] == whole.problem[0]


@pytest.mark.parametrize(
    "content_type", [b"application/grpc", b"application/grpc+proto", b"Application/gRPC; q=1"]
)
def test_protobuf_content_types_are_taken(content_type: bytes) -> None:
    assert read((*PREFIX, (b"content-type", content_type))).problem is None


@pytest.mark.parametrize(
    "content_type",
    [b"text/html", b"application/grpc-web", b"application/grpc+json", b"application/grpcx", b""],
)
def test_another_content_type_is_refused_in_plain_http(content_type: bytes) -> None:
    problem = read((*PREFIX, (b"content-type", content_type))).problem

    assert isinstance(problem, HttpRefusal)
    assert problem.http_status == 415


def test_a_plain_get_is_answered_415_with_a_body() -> None:
    problem = read(((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"))).problem
    assert problem is not None

    fields, body = refusal(problem)

    assert dict(fields)[b":status"] == b"415"
    assert len(body) >= 5
    assert b"application/grpc" in body


def test_a_gRPC_request_that_is_no_post_is_405() -> None:
    problem = read(((b":method", b"GET"), *PREFIX[1:])).problem

    assert isinstance(problem, HttpRefusal)
    assert problem.http_status == 405


def test_an_encoding_that_we_lack_is_unimplemented_and_told_which_there_are() -> None:
    problem = read((*PREFIX, (b"grpc-encoding", b"br"))).problem

    assert isinstance(problem, GrpcRefusal)
    assert problem.status is Status.UNIMPLEMENTED
    fields, body = refusal(problem)
    assert body == b""
    assert dict(fields)[b"grpc-status"] == b"12"
    assert dict(fields)[b"grpc-accept-encoding"] == b"identity,gzip,deflate"


@pytest.mark.parametrize(
    "field, text",
    [
        ((b"grpc-timeout", b"1x"), "malformed grpc-timeout"),
        ((b"k-bin", b"!!"), "is not base64"),
        ((b"k", b"\xc3\xa9"), "not printable ASCII"),
    ],
)
def test_a_bad_field_fails_that_call(field: tuple[bytes, bytes], text: str) -> None:
    problem = read((*PREFIX, field)).problem

    assert isinstance(problem, GrpcRefusal)
    assert problem.status is Status.INTERNAL
    assert text in problem.message


def test_bytes_in_a_path_are_escaped_so_that_it_can_be_logged() -> None:
    assert read(((b":path", b"/a\xff\x1b[0m\n"),)).path == r"/a\xff\x1b[0m\n"
    assert read(((b":path", b"/a\x1b[0m"),)).path == r"/a\x1b[0m"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=16) | st.sampled_from([n for n, _ in PREFIX]), st.binary()), max_size=6
    )
)
def test_no_fields_make_reading_raise(fields: list[tuple[bytes, bytes]]) -> None:
    head = read(tuple(fields))

    if head.problem is not None:
        refusal(head.problem)


@pytest.mark.parametrize(
    ("path", "authority", "text"),
    [
        ("pkg/M", "a", "has no leading '/'"),
        ("/a\r\nx: y", "a", "path .* cannot be sent"),
        ("/a", "a\nb", "authority .* cannot be sent"),
        ("/é", "a", "path"),
        ("/a ", "a", "path"),
    ],
)
def test_a_path_or_authority_that_could_break_a_header_is_a_value_error(
    path: str, authority: str, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        request_prefix(path, authority)


def test_an_encoding_is_announced() -> None:
    fields = dict(request_prefix("/a/b", "x", scheme="https", encoding="gzip", accept_encoding=b""))

    assert fields[b"grpc-encoding"] == b"gzip"
    assert fields[b":scheme"] == b"https"
    assert b"grpc-accept-encoding" not in fields
    assert b"user-agent" not in fields
