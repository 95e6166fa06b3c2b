"""The 147 conformance cases of an HTTP/2 server, from RFC 9113, RFC 7541 and, where it is kept, RFC 7540.

Ids are ``group/section/number`` as a public prober numbers them, so that results can be set side by side.
"""

from __future__ import annotations

import itertools

import pytest

from trio_serve.wire.http2 import ErrorCode
from trio_serve.wire.http2.recording import HeadersReceived, RequestReceived, StreamReset

from .conformance import (
    ANSWERED,
    Answer,
    Case,
    Run,
    both,
    connection_error,
    data_lengths,
    pong,
    response,
    run,
    settings_acknowledged,
    settings_come_first,
    stream_error,
)
from .peer import (
    ACK,
    AUTHORITY,
    BIG,
    EH,
    ENABLE_PUSH,
    ES,
    GET_BLOCK,
    GOAWAY,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    METHOD,
    PADDED,
    PATH,
    PING,
    POST_BLOCK,
    PREFACE,
    PRIO,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SCHEME,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    continuation,
    data,
    frame,
    get,
    get_open,
    goaway,
    headers,
    huffman,
    integer,
    literal,
    ping,
    post_open,
    priority,
    rst,
    settings,
    string,
    window_update,
    word,
)

PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR
FLOW_CONTROL_ERROR = ErrorCode.FLOW_CONTROL_ERROR
STREAM_CLOSED = ErrorCode.STREAM_CLOSED
FRAME_SIZE_ERROR = ErrorCode.FRAME_SIZE_ERROR
COMPRESSION_ERROR = ErrorCode.COMPRESSION_ERROR

FOUR = b"test"
RESERVED = 1 << 31
UNKNOWN = frame(0x16, 0, 0, b"12345678")
USER_AGENT = 58
WIDEST = (1 << 31) - 1


def table_holds(*entries: tuple[bytes, bytes]) -> Answer:
    def check(the_run: Run) -> None:
        assert tuple(the_run.connection.decoder.table.entries) == entries

    return check


def received(*fields: tuple[bytes, bytes]) -> Answer:
    """The application saw these fields at the end of its request."""

    def check(the_run: Run) -> None:
        seen = [each for each in the_run.application.events if isinstance(each, RequestReceived)]
        assert seen[0].fields[-len(fields) :] == fields

    return check


def trailers_received(*fields: tuple[bytes, bytes]) -> Answer:
    def check(the_run: Run) -> None:
        seen = [each for each in the_run.application.events if isinstance(each, HeadersReceived)]
        assert [each.fields for each in seen] == [fields]

    return check


def dropped(the_run: Run) -> None:
    resets = [each.by_peer for each in the_run.application.events if isinstance(each, StreamReset)]
    assert resets == [True] or (the_run.loosely and not resets)  # nothing to reset once it was answered
    assert not the_run.connection.streams


def window_of_stream_1(size: int) -> Answer:
    def check(the_run: Run) -> None:
        window = the_run.connection.streams[1].receive_window
        assert window is not None
        assert window.available == size

    return check


def form(
    name: bytes, octets: bytes, *entries: tuple[bytes, bytes], value: bytes = b"a value"
) -> tuple[bytes, Answer]:
    """A GET whose block ends in ``octets``: answered, the field seen, and the table left with ``entries``."""
    return headers(1, GET_BLOCK + octets, ES | EH), both(
        response(), received((name, value)), table_holds(*entries)
    )


def indexed_form(octets: bytes, name: bytes) -> tuple[tuple[bytes, ...], Answer]:
    step, answer = form(name, octets, value=b"")
    return (step,), answer


def literal_form(number: int, name: bytes | int, pattern: int, huffman_coded: bool) -> Case:
    spelled = b"user-agent" if isinstance(name, int) else name
    octets = literal(name, b"a value", pattern, huffman_coded)
    step, answer = form(spelled, octets, *([(spelled, b"a value")] if pattern == 0x40 else []))
    return Case(f"generic/5/{number}", (step,), answer)


def padded_get(pad: int) -> bytes:
    return headers(1, bytes((pad,)) + GET_BLOCK + bytes(pad), ES | EH | PADDED)


def prioritised_get(depends_on: int) -> bytes:
    return headers(1, word(depends_on) + b"\xff" + GET_BLOCK, ES | EH | PRIO)


def pieces_of_get(*cuts: int) -> list[bytes]:
    edges = [0, *cuts, len(GET_BLOCK)]
    return [GET_BLOCK[start:stop] for start, stop in itertools.pairwise(edges)]


def cut_get(*cuts: int) -> bytes:
    first, *middle, last = pieces_of_get(*cuts)
    return (
        headers(1, first, ES) + b"".join(continuation(1, each) for each in middle) + continuation(1, last, EH)
    )


CLASSIC_SETTINGS = settings(
    (HEADER_TABLE_SIZE, 4096),
    (ENABLE_PUSH, 1),
    (MAX_CONCURRENT_STREAMS, 100),
    (INITIAL_WINDOW_SIZE, 65535),
    (MAX_FRAME_SIZE, 16384),
    (MAX_HEADER_LIST_SIZE, 100),
)

GENERIC = [
    Case(
        "generic/1/1",
        (PREFACE + settings((INITIAL_WINDOW_SIZE, 65535)),),
        settings_come_first,
        exchanged=False,
    ),
    Case("generic/2/1", (priority(1), ping()), pong()),
    Case(
        "generic/2/2",
        (settings((INITIAL_WINDOW_SIZE, 0)), get(), ANSWERED, window_update(1, 1)),
        data_lengths(1),
    ),
    Case(
        "generic/2/3",
        (settings((INITIAL_WINDOW_SIZE, 0)), get(), ANSWERED, priority(1), window_update(1, 1)),
        data_lengths(1),
    ),
    Case("generic/2/4", (get(), rst(1), ping()), both(dropped, pong())),
    Case("generic/2/5", (get(), ANSWERED, priority(1), ping()), both(pong(), response())),
    Case("generic/3.1/1", (post_open(), data(1, FOUR, ES)), response()),
    Case("generic/3.1/2", (post_open(), data(1, FOUR), data(1, FOUR, ES)), response()),
    Case("generic/3.1/3", (post_open(), data(1, b"\x05" + FOUR + bytes(5), ES | PADDED)), response()),
    Case("generic/3.2/1", (get(),), response()),
    Case("generic/3.2/2", (padded_get(8),), response()),
    Case("generic/3.2/3", (prioritised_get(0),), response()),
    Case("generic/3.3/1", (priority(1, 0, 0), get()), response()),
    Case("generic/3.3/2", (priority(1, 0, 255), get()), response()),
    Case("generic/3.3/3", (priority(3, 1), get()), response()),
    Case("generic/3.3/4", (priority(1, RESERVED), get()), response()),
    Case("generic/3.3/5", (priority(3), get()), response()),
    Case("generic/3.4/1", (get_open(), rst(1), ping()), both(dropped, pong())),
    Case("generic/3.5/1", (CLASSIC_SETTINGS,), settings_acknowledged),
    Case("generic/3.7/1", (ping(b"opaque!!"),), pong(b"opaque!!")),
    Case("generic/3.8/1", (goaway(0, b"debug octets"), ping()), pong()),
    Case("generic/3.9/1", (window_update(0, 1), ping()), pong()),
    Case("generic/3.9/2", (get(), window_update(1, 1)), response()),
    Case("generic/3.10/1", (cut_get(5),), response()),
    Case("generic/3.10/2", (cut_get(5, 10),), response()),
    Case("generic/4/1", (get(),), response()),
    Case(
        "generic/4/2",
        (headers(1, block((b":method", b"HEAD"), SCHEME, PATH, AUTHORITY), ES | EH),),
        response(body=b""),
    ),
    Case("generic/4/3", (post_open(), data(1, FOUR, ES)), response()),
    Case(
        "generic/4/4",
        (
            post_open(1, (b"trailer", b"x-test")),
            data(1, FOUR),
            headers(1, block((b"x-test", b"ok")), ES | EH),
        ),
        both(response(), trailers_received((b"x-test", b"ok"))),
    ),
    Case("generic/5/1", *indexed_form(b"\xba", b"user-agent")),
    literal_form(2, USER_AGENT, 0x40, False),
    literal_form(3, USER_AGENT, 0x40, True),
    literal_form(4, b"x-test", 0x40, False),
    literal_form(5, b"x-test", 0x40, True),
    literal_form(6, USER_AGENT, 0x00, False),
    literal_form(7, USER_AGENT, 0x00, True),
    literal_form(8, b"x-test", 0x00, False),
    literal_form(9, b"x-test", 0x00, True),
    literal_form(10, USER_AGENT, 0x10, False),
    literal_form(11, USER_AGENT, 0x10, True),
    literal_form(12, b"x-test", 0x10, False),
    literal_form(13, b"x-test", 0x10, True),
    Case(
        "generic/5/14",
        (
            headers(1, GET_BLOCK + literal(b"a", b"1" * 60, 0x40) + literal(b"b", b"2" * 60, 0x40), ES | EH),
            ANSWERED,
            headers(3, b"\x3f\x61" + GET_BLOCK, ES | EH),
        ),
        both(response(1), response(3), table_holds((b"b", b"2" * 60))),
    ),
    Case(
        "generic/5/15",
        (
            headers(1, GET_BLOCK + literal(b"a", b"1" * 60, 0x40) + literal(b"b", b"2" * 60, 0x40), ES | EH),
            ANSWERED,
            headers(3, b"\x3f\x61\x3f\xe1\x1f" + GET_BLOCK + literal(b"c", b"3" * 60, 0x40), ES | EH),
        ),
        both(response(1), response(3), table_holds((b"b", b"2" * 60), (b"c", b"3" * 60))),
    ),
]

HTTP2_3_TO_4 = [
    Case(
        "http2/3.5/1",
        (PREFACE + settings((INITIAL_WINDOW_SIZE, 65535)),),
        settings_come_first,
        exchanged=False,
    ),
    Case(
        "http2/3.5/2",
        (b"INVALID CONNECTION PREFACE\r\n\r\n",),
        connection_error(PROTOCOL_ERROR),
        exchanged=False,
    ),
    Case("http2/4.1/1", (UNKNOWN, ping()), pong()),
    Case("http2/4.1/2", (ping(flags=0x16),), pong()),
    Case("http2/4.1/3", (ping(flags=0x16, stream_id=RESERVED),), pong()),
    Case("http2/4.2/1", (post_open(), data(1, bytes(16384), ES)), response()),
    Case("http2/4.2/2", (post_open(), data(1, bytes(16385), ES)), connection_error(FRAME_SIZE_ERROR)),
    Case(
        "http2/4.2/3",
        (headers(1, (GET_BLOCK + BIG * 5)[:16385], ES | EH),),
        connection_error(FRAME_SIZE_ERROR),
    ),
    Case("http2/4.3/1", (headers(1, b"\x40", ES | EH),), connection_error(COMPRESSION_ERROR)),
    Case(
        "http2/4.3/2",
        (get_open(1, 0), priority(1), continuation(1, BIG, EH)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case("http2/4.3/3", (get_open(1, 0), get(3), continuation(1, BIG, EH)), connection_error(PROTOCOL_ERROR)),
]

HTTP2_5 = [
    Case("http2/5.1/1", (data(1, FOUR, ES),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1/2", (rst(1),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1/3", (window_update(1, 100),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1/4", (continuation(1, GET_BLOCK, EH),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1/5", (get(), data(1, FOUR, ES)), stream_error(STREAM_CLOSED)),
    Case("http2/5.1/6", (get(), get()), stream_error(STREAM_CLOSED)),
    Case("http2/5.1/7", (get(), continuation(1, GET_BLOCK, EH)), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1/8", (get_open(), rst(1), data(1, FOUR, ES)), stream_error(STREAM_CLOSED)),
    Case("http2/5.1/9", (get_open(), rst(1), get()), stream_error(STREAM_CLOSED)),
    Case(
        "http2/5.1/10", (get_open(), rst(1), continuation(1, GET_BLOCK, EH)), connection_error(PROTOCOL_ERROR)
    ),
    Case("http2/5.1/11", (get(), ANSWERED, data(1, FOUR, ES)), stream_error(STREAM_CLOSED)),
    Case("http2/5.1/12", (get(), ANSWERED, get()), connection_error(STREAM_CLOSED)),
    Case("http2/5.1/13", (get(), ANSWERED, continuation(1, GET_BLOCK, EH)), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1.1/1", (get(2),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.1.1/2", (get(5), get(3)), connection_error(PROTOCOL_ERROR)),
    Case(
        "http2/5.1.2/1",
        (settings((INITIAL_WINDOW_SIZE, 0)), b"".join(get(number) for number in range(1, 202, 2))),
        stream_error(ErrorCode.REFUSED_STREAM, 201),
    ),
    Case("http2/5.3.1/1", (prioritised_get(1),), stream_error(PROTOCOL_ERROR)),
    Case("http2/5.3.1/2", (priority(1, 1),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.4.1/1", (ping(stream_id=3),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.4.1/2", (ping(stream_id=3),), connection_error(PROTOCOL_ERROR)),
    Case("http2/5.5/1", (UNKNOWN, ping()), pong()),
    Case("http2/5.5/2", (get_open(1, ES), UNKNOWN), connection_error(PROTOCOL_ERROR)),
]

HTTP2_6_1_TO_6_4 = [
    Case("http2/6.1/1", (data(0, FOUR, ES),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.1/2", (headers(1, POST_BLOCK, ES | EH), data(1, FOUR, ES)), stream_error(STREAM_CLOSED)),
    Case(
        "http2/6.1/3",
        (post_open(1, (b"content-length", b"4")), data(1, b"\x06" + FOUR, ES | PADDED)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case(
        "http2/6.2/1",
        (get_open(1, 0), priority(1), continuation(1, BIG, EH)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case("http2/6.2/2", (get_open(1, 0), get(3), continuation(1, BIG, EH)), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.2/3", (get(0),), connection_error(PROTOCOL_ERROR)),
    Case(
        "http2/6.2/4",
        (headers(1, bytes((len(GET_BLOCK) + 1,)) + GET_BLOCK, ES | EH | PADDED),),
        connection_error(PROTOCOL_ERROR),
    ),
    Case("http2/6.3/1", (priority(0),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.3/2", (get(), frame(PRIORITY, 0, 1, bytes(4))), stream_error(FRAME_SIZE_ERROR)),
    Case("http2/6.4/1", (rst(0),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.4/2", (rst(1),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.4/3", (get(), frame(RST_STREAM, 0, 1, bytes(3))), connection_error(FRAME_SIZE_ERROR)),
]

HTTP2_6_5 = [
    Case("http2/6.5/1", (frame(SETTINGS, ACK, 0, b"\x00"),), connection_error(FRAME_SIZE_ERROR)),
    Case("http2/6.5/2", (frame(SETTINGS, 0, 1, b"\x00\x03" + word(100)),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.5/3", (frame(SETTINGS, 0, 0, bytes(3)),), connection_error(FRAME_SIZE_ERROR)),
    Case("http2/6.5.2/1", (settings((ENABLE_PUSH, 2)),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.5.2/2", (settings((INITIAL_WINDOW_SIZE, 1 << 31)),), connection_error(FLOW_CONTROL_ERROR)),
    Case("http2/6.5.2/3", (settings((MAX_FRAME_SIZE, 16383)),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.5.2/4", (settings((MAX_FRAME_SIZE, 1 << 24)),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.5.2/5", (settings((0xFF, 1)), ping()), both(settings_acknowledged, pong())),
    Case(
        "http2/6.5.3/1",
        (settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)), get()),
        data_lengths(1),
    ),
    Case("http2/6.5.3/2", (settings((ENABLE_PUSH, 0)),), settings_acknowledged),
]

HTTP2_6_7_TO_6_9 = [
    Case("http2/6.7/1", (ping(b"opaque!!"),), pong(b"opaque!!")),
    Case("http2/6.7/2", (ping(b"AAAAAAAA", ACK), ping(b"BBBBBBBB")), pong(b"BBBBBBBB")),
    Case("http2/6.7/3", (ping(stream_id=1),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.7/4", (frame(PING, 0, 0, bytes(6)),), connection_error(FRAME_SIZE_ERROR)),
    Case("http2/6.8/1", (frame(GOAWAY, 0, 1, bytes(8)),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.9/1", (window_update(0, 0),), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.9/2", (get_open(), window_update(1, 0)), stream_error(PROTOCOL_ERROR)),
    Case("http2/6.9/3", (frame(WINDOW_UPDATE, 0, 0, bytes(3)),), connection_error(FRAME_SIZE_ERROR)),
    Case("http2/6.9.1/1", (settings((INITIAL_WINDOW_SIZE, 1)), get()), data_lengths(1)),
    Case(
        "http2/6.9.1/2",
        (window_update(0, WIDEST), window_update(0, WIDEST)),
        connection_error(FLOW_CONTROL_ERROR),
    ),
    Case(
        "http2/6.9.1/3",
        (get_open(), window_update(1, WIDEST), window_update(1, WIDEST)),
        stream_error(FLOW_CONTROL_ERROR),
    ),
    Case(
        "http2/6.9.2/1",
        (settings((INITIAL_WINDOW_SIZE, 0)), get(), ANSWERED, settings((INITIAL_WINDOW_SIZE, 1))),
        data_lengths(1),
    ),
    Case(
        "http2/6.9.2/2",
        (
            settings((INITIAL_WINDOW_SIZE, 3)),
            get(),
            ANSWERED,
            settings((INITIAL_WINDOW_SIZE, 2)),
            window_update(1, 2),
        ),
        data_lengths(3, 1),
    ),
    Case(
        "http2/6.9.2/3",
        (frame(SETTINGS, 0, 0, b"\x00\x04\x80\x00\x00\x00"),),
        connection_error(FLOW_CONTROL_ERROR),
    ),
]

HTTP2_6_10_TO_7 = [
    Case(
        "http2/6.10/1",
        (headers(1, GET_BLOCK, ES) + continuation(1, BIG) + continuation(1, BIG, EH),),
        response(),
    ),
    Case(
        "http2/6.10/2",
        (headers(1, POST_BLOCK, 0), continuation(1, BIG), data(1, FOUR, ES)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case("http2/6.10/3", (get_open(1, ES), continuation(0, BIG, EH)), connection_error(PROTOCOL_ERROR)),
    Case("http2/6.10/4", (get(), continuation(1, BIG, EH)), connection_error(PROTOCOL_ERROR)),
    Case(
        "http2/6.10/5",
        (get_open(1, ES), continuation(1, BIG, EH), continuation(1, BIG, EH)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case(
        "http2/6.10/6",
        (headers(1, POST_BLOCK, 0), data(1, FOUR, ES), continuation(1, BIG), continuation(0, BIG, EH)),
        connection_error(PROTOCOL_ERROR),
    ),
    Case("http2/7/1", (goaway(0xFF), ping()), pong()),
    Case("http2/7/2", (post_open(), rst(1, 0xFF), ping()), both(dropped, pong())),
]


def malformed(number: str, *fields: tuple[bytes, bytes]) -> Case:
    return Case(f"http2/{number}", (headers(1, block(*fields), ES | EH),), stream_error(PROTOCOL_ERROR))


HTTP2_8 = [
    Case(
        "http2/8.1/1",
        (post_open(), data(1, FOUR), headers(1, block((b"x-test", b"ok")))),
        stream_error(PROTOCOL_ERROR),
    ),
    malformed("8.1.2/1", METHOD, SCHEME, PATH, AUTHORITY, (b"X-TEST", b"ok")),
    malformed("8.1.2.1/1", METHOD, SCHEME, PATH, AUTHORITY, (b":test", b"ok")),
    malformed("8.1.2.1/2", METHOD, SCHEME, PATH, AUTHORITY, (b":status", b"200")),
    Case(
        "http2/8.1.2.1/3",
        (post_open(), data(1, FOUR), headers(1, block((b":method", b"POST")))),
        stream_error(PROTOCOL_ERROR),
    ),
    malformed("8.1.2.1/4", (b"x-test", b"ok"), METHOD, SCHEME, PATH, AUTHORITY),
    malformed("8.1.2.2/1", METHOD, SCHEME, PATH, AUTHORITY, (b"connection", b"keep-alive")),
    malformed(
        "8.1.2.2/2", METHOD, SCHEME, PATH, AUTHORITY, (b"trailers", b"test"), (b"te", b"trailers, deflate")
    ),
    malformed("8.1.2.3/1", METHOD, SCHEME, (b":path", b""), AUTHORITY),
    malformed("8.1.2.3/2", PATH, AUTHORITY),
    malformed("8.1.2.3/3", METHOD, PATH, AUTHORITY),
    malformed("8.1.2.3/4", METHOD, SCHEME, AUTHORITY),
    malformed("8.1.2.3/5", METHOD, METHOD, SCHEME, PATH, AUTHORITY),
    malformed("8.1.2.3/6", METHOD, SCHEME, SCHEME, PATH, AUTHORITY),
    malformed("8.1.2.3/7", METHOD, SCHEME, PATH, PATH, AUTHORITY),
    Case(
        "http2/8.1.2.6/1",
        (post_open(1, (b"content-length", b"1")), data(1, FOUR, ES)),
        stream_error(PROTOCOL_ERROR),
    ),
    Case(
        "http2/8.1.2.6/2",
        (post_open(1, (b"content-length", b"1")), data(1, FOUR), data(1, FOUR, ES)),
        stream_error(PROTOCOL_ERROR),
    ),
    Case(
        "http2/8.2/1",
        (frame(PUSH_PROMISE, EH, 1, word(3) + GET_BLOCK),),
        connection_error(PROTOCOL_ERROR),
    ),
]


def undecodable(number: str, octets: bytes, in_front: bytes = b"") -> Case:
    step = headers(1, in_front + GET_BLOCK + octets, ES | EH)
    return Case(f"hpack/{number}", (step,), connection_error(COMPRESSION_ERROR))


def with_huffman_value(text: bytes) -> bytes:
    return b"\x00" + string(b"x-test") + integer(7, 0x80, len(text)) + text


EOS = (1 << 30) - 1
HPACK = [
    undecodable("2.3.3/1", b"\xc6"),
    undecodable("2.3.3/2", b"\x7f\x07\x00"),
    undecodable("4.2/1", b"\x21"),
    # "a" is 00011: the octet 0x1f with its padding, and one octet of padding too many.
    undecodable("5.2/1", with_huffman_value(huffman(b"test") + b"\xff")),
    undecodable("5.2/2", with_huffman_value(bytes((0b00011000,)))),
    undecodable("5.2/3", with_huffman_value((0b00011 << 35 | EOS << 5 | 0b00011).to_bytes(5, "big"))),
    undecodable("6.1/1", b"\x80"),
    undecodable("6.3/1", b"", in_front=b"\x3f\xe2\x1f"),
]

CASES = [
    *GENERIC,
    *HTTP2_3_TO_4,
    *HTTP2_5,
    *HTTP2_6_1_TO_6_4,
    *HTTP2_6_5,
    *HTTP2_6_7_TO_6_9,
    *HTTP2_6_10_TO_7,
    *HTTP2_8,
    *HPACK,
]


def test_every_case_of_the_list_is_here_once() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids)) == 147
    assert [sum(each.startswith(group) for each in ids) for group in ("generic/", "http2/", "hpack/")] == [
        44,
        95,
        8,
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_answer_is_exact(case: Case) -> None:
    """All of a step at once; the application answers when the peer has had its say."""
    case.answer(run(case.steps, exchanged=case.exchanged))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_answer_is_the_same_octet_by_octet(case: Case) -> None:
    case.answer(run(case.steps, exchanged=case.exchanged, octets=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_application_that_answers_early_does_not_end_the_checks(case: Case) -> None:
    """It answers after every frame, so that errors find the stream already answered."""
    the_run = run(case.steps, exchanged=case.exchanged, eager=True)
    the_run.loosely = True
    case.answer(the_run)
