"""What makes a message malformed (RFC 9113 sections 8.1.1 to 8.3)."""

import pytest

from trio_serve.wire.http2 import Fields
from trio_serve.wire.http2.field_rules import (
    Malformed,
    PlainFields,
    check_request,
    check_response,
    check_trailers,
)

from .peer import AUTHORITY, METHOD, PATH, SCHEME

GET: Fields = (METHOD, SCHEME, PATH, AUTHORITY)
STATUS = (b":status", b"200")


@pytest.mark.parametrize(
    "fields",
    [
        GET,
        (METHOD, SCHEME, PATH),
        (*GET, (b"host", AUTHORITY[1])),
        (METHOD, SCHEME, PATH, (b"host", b"somewhere")),
        (*GET, (b"te", b"trailers")),
        (*GET, (b"te", b"Trailers")),
        (*GET, (b"x", b"")),
        (*GET, (b"x", b"inner space\tand tab")),
        (*GET, (b"x", b"\x80\xff")),
        (*GET, (b"!#$%&'*+-.^_`|~09az", b"x")),
        ((b":method", b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY),
        ((b":method", b"CONNECT"), AUTHORITY),
    ],
)
def test_a_well_formed_request_passes(fields: Fields) -> None:
    assert check_request(fields) is None


NAMES_REFUSED = [b"", b"X-Test", b"x test", b"x\x00", b"x\x7f", b"x\x80", b"x:", b"x(y)", b"x\n", b'x"']
VALUES_REFUSED = [
    b" x",
    b"x ",
    b"\tx",
    b"x\t",
    b" ",
    b"a\x00b",
    b"a\rb",
    b"a\nb",
    b"a\x01b",
    b"a\x7fb",
    b"a\n",
]


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (SCHEME, PATH, AUTHORITY),
        (METHOD, PATH, AUTHORITY),
        (METHOD, SCHEME, AUTHORITY),
        (METHOD, METHOD, SCHEME, PATH),
        (METHOD, SCHEME, SCHEME, PATH),
        (METHOD, SCHEME, PATH, PATH),
        (METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY),
        ((b":method", b""), SCHEME, PATH),
        ((b":method", b"GE T"), SCHEME, PATH),
        (METHOD, (b":scheme", b""), PATH),
        (METHOD, SCHEME, (b":path", b"")),
        (METHOD, SCHEME, (b":path", b"no/slash")),
        (METHOD, SCHEME, (b":path", b"*")),
        (METHOD, SCHEME, (b":path", b"/a b ")),
        ((b":method", b"CONNECT"), SCHEME, PATH, AUTHORITY),
        ((b":method", b"CONNECT"),),
        (*GET, (b":protocol", b"websocket")),
        (*GET, STATUS),
        (*GET, (b"x", b"y"), (b":path", b"/")),
        (*GET, (b"host", b"elsewhere")),
        (*GET, (b"connection", b"close")),
        (*GET, (b"proxy-connection", b"close")),
        (*GET, (b"keep-alive", b"5")),
        (*GET, (b"transfer-encoding", b"chunked")),
        (*GET, (b"upgrade", b"h2c")),
        (*GET, (b"te", b"gzip")),
        (*GET, (b"te", b"trailers, gzip")),
        (*GET, (b"content-length", b"")),
        (*GET, (b"content-length", b"-1")),
        (*GET, (b"content-length", b"1, 1")),
        (*GET, (b"content-length", b"1"), (b"content-length", b"2")),
        *[(*GET, (name, b"x")) for name in NAMES_REFUSED],
        *[(*GET, (b"x", value)) for value in VALUES_REFUSED],
        *[(METHOD, SCHEME, (b":path", b"/" + value)) for value in VALUES_REFUSED],
    ],
)
def test_a_malformed_request_is_refused(fields: Fields) -> None:
    with pytest.raises(Malformed):
        check_request(fields)


def test_content_length_is_read_and_may_be_repeated_if_equal() -> None:
    assert check_request((*GET, (b"content-length", b"12"))) == 12
    assert check_request((*GET, (b"content-length", b"12"), (b"content-length", b"12"))) == 12


def test_a_response_has_its_status_alone() -> None:
    assert check_response((STATUS, (b"content-length", b"5"))) == (200, 5)
    for fields in [
        (),
        (STATUS, STATUS),
        ((b":status", b"20"),),
        ((b":status", b"2000"),),
        ((b":status", b"099"),),
        ((b":status", b"abc"),),
        ((b":status", b"101"),),
        (STATUS, PATH),
        ((b"x", b"y"), STATUS),
        (STATUS, (b"connection", b"close")),
    ]:
        with pytest.raises(Malformed):
            check_response(fields)


def test_trailers_have_no_pseudo_field() -> None:
    check_trailers(((b"grpc-status", b"0"),))
    check_trailers(())
    for fields in [(STATUS,), ((b"x", b"y"), STATUS), ((b"X", b"y"),), ((b"x", b"y\n"),)]:
        with pytest.raises(Malformed):
            check_trailers(fields)


def test_plain_fields_pass_and_all_that_needs_a_closer_look_does_not() -> None:
    plain = PlainFields()

    assert plain.passes([(b"x-a", b"1"), (b"x-a", b"two words"), (b"x-b", b"")])
    for field in [
        (b":path", b"/"),
        (b"X", b"1"),
        (b"te", b"trailers"),
        (b"host", b"x"),
        (b"content-length", b"1"),
        (b"connection", b"x"),
        (b"", b""),
        (b"x-a", b"bad\n"),
        (b"x-a", b" "),
    ]:
        assert not plain.passes([(b"x-a", b"1"), field])


def test_the_names_remembered_are_bounded() -> None:
    plain = PlainFields()
    for number in range(10_000):
        assert plain.passes([(b"x-%d" % number, b"1")])

    assert len(plain._names) <= 256
