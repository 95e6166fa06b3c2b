import tracemalloc

import pytest
from grpclib.exceptions import GRPCError
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import MessageReader, Status, compressor, decompressor, frame_message, whole_message

payloads = st.lists(st.binary(max_size=40), max_size=6)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(data)) for place in at})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@settings(deadline=None)
@given(payloads, st.lists(st.integers(0, 300), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_messages(messages: list[bytes], at: list[int]) -> None:
    data = b"".join(map(frame_message, messages))
    reader = MessageReader(message_bytes_max=40)

    received = [message for piece in cut(data, at) for message in reader.receive(piece)]
    reader.end()

    assert received == messages


def test_one_byte_at_a_time_and_message_after_message() -> None:
    reader = MessageReader(message_bytes_max=10)
    data = frame_message(b"first") + frame_message(b"") + frame_message(b"0123456789")

    received = [message for byte in data for message in reader.receive(bytes([byte]))]

    assert received == [b"first", b"", b"0123456789"]


def test_what_is_missing_is_known_as_far_as_it_was_announced() -> None:
    reader = MessageReader(message_bytes_max=10)
    missing = [reader.missing]

    for byte in frame_message(b"abc"):
        reader.receive(bytes([byte]))
        missing.append(reader.missing)

    assert missing == [0, 4, 3, 2, 1, 3, 2, 1, 0]


@settings(deadline=None)
@given(payloads, st.sampled_from(["gzip", "deflate"]), st.lists(st.integers(0, 300), max_size=12))
def test_compressed_messages_survive_any_split(messages: list[bytes], encoding: str, at: list[int]) -> None:
    compress = compressor(encoding)
    assert compress is not None
    data = b"".join(frame_message(compress(message), compressed=True) for message in messages)
    reader = MessageReader(message_bytes_max=100, decompress=decompressor(encoding))

    assert [message for piece in cut(data, at) for message in reader.receive(piece)] == messages


def test_compressed_and_plain_messages_mix() -> None:
    compress = compressor("gzip")
    assert compress is not None
    reader = MessageReader(100, decompressor("gzip"))

    data = frame_message(b"a") + frame_message(compress(b"b"), compressed=True) + frame_message(b"c")

    assert reader.receive(data) == [b"a", b"b", b"c"]


def test_a_message_at_the_limit_is_taken_and_one_over_it_refused_at_its_prefix() -> None:
    assert MessageReader(5).receive(frame_message(b"12345")) == [b"12345"]

    with pytest.raises(GRPCError) as caught:
        MessageReader(4194304).receive(frame_message(b"\0" * 5242880)[:5])

    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert caught.value.message == (
        "request message of 5242880 bytes is over message_bytes_max=4194304 (set it in grpc_options)"
    )


def test_a_compressed_message_may_be_as_large_as_the_limit() -> None:
    compress = compressor("deflate")
    assert compress is not None
    packed = compress(b"")

    reader = MessageReader(len(packed), decompressor("deflate"))

    assert reader.receive(frame_message(packed, compressed=True)) == [b""]


def test_an_announcement_of_four_gibibytes_costs_nothing() -> None:
    reader = MessageReader(4194304, what="reply message", way_out="set it in open_channel")

    with pytest.raises(GRPCError, match=r"reply message of 4294967295 bytes .*open_channel"):
        reader.receive(b"\x00\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "data, text",
    [
        (b"\x02\x00\x00\x00\x00", "request message begins with 2, where 0 or 1"),
        (b"\x01\x00\x00\x00\x01x", "marked as compressed, but no grpc-encoding"),
    ],
)
def test_a_bad_prefix_is_internal(data: bytes, text: str) -> None:
    with pytest.raises(GRPCError, match=text) as caught:
        MessageReader(100).receive(data)

    assert caught.value.status is Status.INTERNAL


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x00\x00\x00", frame_message(b"abc")[:-1]])
def test_a_stream_that_ends_within_a_message_is_internal(data: bytes) -> None:
    reader = MessageReader(100)
    assert reader.receive(data) == []

    with pytest.raises(GRPCError, match="request message is cut off") as caught:
        reader.end()

    assert caught.value.status is Status.INTERNAL


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from(["identity", "gzip", "deflate"]))
def test_garbage_gives_messages_or_a_gRPC_error(pieces: list[bytes], encoding: str) -> None:
    reader = MessageReader(1000, decompressor(encoding))
    try:
        for piece in pieces:
            reader.receive(piece)
        reader.end()
    except GRPCError:
        pass


def test_a_large_message_in_tiny_pieces_costs_about_its_size() -> None:
    """DATA frames of two bytes: an object for each would cost twenty times the message."""
    size = 1 << 17
    reader = MessageReader(size)
    reader.receive(frame_message(b"\0" * size)[:5])

    tracemalloc.start()
    for _ in range(size // 2 - 1):
        reader.receive(b"ab")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < size * 1.25
    assert reader.receive(b"ab") == [b"ab" * (size // 2)]


def test_a_whole_message_needs_no_reader() -> None:
    assert whole_message(frame_message(b"abc"), 3) == b"abc"
    assert whole_message(frame_message(b""), 3) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        frame_message(b"abcd"),
        frame_message(b"ab") + b"x",
        frame_message(b"ab")[:-1],
        frame_message(b"ab", compressed=True),
        frame_message(b"a") + frame_message(b"b"),
    ],
    ids=["empty", "cut prefix", "over the limit", "too long", "cut", "compressed", "two"],
)
def test_what_is_not_one_plain_message_within_the_limit_is_left_to_the_reader(data: bytes) -> None:
    assert whole_message(data, 3) is None
