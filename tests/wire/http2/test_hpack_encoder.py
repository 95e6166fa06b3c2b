"""The HPACK encoder: any decoder reads it, and what does not change shrinks to an octet."""

import hpack
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.wire.http2 import Fields
from trio_serve.wire.http2.hpack_decoder import Decoder
from trio_serve.wire.http2.hpack_encoder import Encoder

REPLY: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))
TRAILERS: Fields = ((b"grpc-status", b"0"),)


def decoded(decoder: hpack.Decoder, block: bytes) -> Fields:
    return tuple((bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True))


def test_the_first_answer_primes_the_table_and_the_second_is_three_octets() -> None:
    encoder = Encoder()
    encoder.encode(REPLY)
    encoder.encode(TRAILERS)

    assert len(encoder.encode(REPLY)) == 2
    assert len(encoder.encode(TRAILERS)) == 1


def test_a_known_block_is_written_anew_when_an_insertion_has_moved_its_indices() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for fields in [REPLY, REPLY, REPLY, TRAILERS, REPLY, TRAILERS, ((b"x", b"y"),), REPLY, TRAILERS]:
        assert decoded(decoder, encoder.encode(fields)) == fields


def test_a_value_that_changes_each_time_leaves_the_table_alone() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for number in range(100):
        fields = ((b"grpc-timeout", b"%dm" % number), *TRAILERS)
        assert decoded(decoder, encoder.encode(fields)) == fields

    assert len(decoder.header_table.dynamic_entries) == 2  # the first timeout gave the table its name


def test_changing_fields_behind_a_blocks_start_are_read_as_one_block() -> None:
    """The first name enters the table, so that what was known of it holds no more."""
    encoder, decoder = Encoder(), hpack.Decoder()
    values = [b"", b"x" * 126, b"x" * 127, b"x" * 300, *(b"%d" % number for number in range(5))]
    for value in values:
        changing = ((b"request_id", value), (b"other", value))
        block = encoder.encode(TRAILERS) + encoder.encode_changing(changing)
        assert decoded(decoder, block) == (*TRAILERS, *changing)

    assert len(decoder.header_table.dynamic_entries) == 3


def test_a_second_value_that_stays_is_indexed_from_its_third_time_on() -> None:
    encoder = Encoder()
    encoder.encode(((b":path", b"/first"),))

    sizes = [len(encoder.encode(((b":path", b"/second"),))) for _ in range(3)]

    assert sizes[2] == 1
    assert sizes[0] == sizes[1] == 1 + 1 + len(b"/second")


def test_a_full_table_is_never_evicted_from() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for number in range(300):
        fields = ((b"name-%d" % number, b"value"),)
        assert decoded(decoder, encoder.encode(fields)) == fields

    assert decoder.header_table.dynamic_entries[-1][0] == b"name-0"
    assert len(encoder.encode(((b"name-0", b"value"),))) <= 2


def test_secrets_are_never_indexed() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    fields = ((b"authorization", b"Bearer x"), (b"cookie", b"a=b"))
    for _ in range(3):
        block = encoder.encode(fields)
        assert [type(field) for field in decoder.decode(block, raw=True)] == [
            hpack.NeverIndexedHeaderTuple
        ] * 2

    assert not decoder.header_table.dynamic_entries


def test_a_smaller_table_is_announced_and_kept_to() -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    for _ in range(3):
        decoder.decode(encoder.encode(REPLY))
    encoder.limit(0)
    decoder.max_allowed_table_size = 0

    assert decoded(decoder, encoder.encode(REPLY)) == REPLY
    assert decoded(decoder, encoder.encode(REPLY)) == REPLY
    assert decoder.header_table_size == 0


def test_a_table_that_shrank_and_grew_between_two_blocks_announces_both() -> None:
    """RFC 7541 section 4.2."""
    encoder, decoder = Encoder(), hpack.Decoder()
    decoded(decoder, encoder.encode(REPLY))
    encoder.limit(0)
    encoder.limit(4096)

    assert encoder.encode(REPLY).startswith(b"\x20\x3f\xe1\x1f")


def test_a_larger_table_than_we_want_changes_nothing() -> None:
    encoder = Encoder()
    encoder.limit(1 << 20)

    assert encoder.encode(((b":method", b"GET"),)) == b"\x82"


def test_what_we_do_not_want_to_spend_is_not_inserted() -> None:
    encoder, decoder = Encoder(100), hpack.Decoder()
    for number in range(10):
        decoded(decoder, encoder.encode(((b"n%d" % number, b"v"),)))

    assert len(decoder.header_table.dynamic_entries) == 2


NAMES = st.sampled_from(
    [b":path", b"x-a", b"x-b", b"grpc-timeout", b"authorization", b"content-type", b"n" * 130]
)
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"v" * 126, b"v" * 127, b"v" * 128, b"v" * 1000]), st.binary(max_size=9)
)
BLOCKS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)
STEPS = st.lists(st.one_of(BLOCKS, st.sampled_from([0, 64, 100, 4095, 4096, 9000])), max_size=30)


@given(STEPS)
def test_two_other_decoders_read_whatever_it_writes(steps: list[Fields | int]) -> None:
    encoder, theirs, ours = Encoder(), hpack.Decoder(max_header_list_size=1 << 24), Decoder()
    for step in steps:
        if isinstance(step, int):
            encoder.limit(step)
            theirs.max_allowed_table_size = step
            ours.announce(step)
        else:
            block = encoder.encode(step)
            assert decoded(theirs, block) == step
            assert tuple(ours.decode(block, 0, 1 << 24)[0]) == step


@given(
    st.lists(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6), max_size=20),
    st.booleans(),
)
def test_whatever_another_encoder_writes_is_read(
    blocks: list[list[tuple[bytes, bytes, bool]]], huffman_coded: bool
) -> None:
    encoder, decoder = hpack.Encoder(), Decoder()
    for fields in blocks:
        written = [
            hpack.NeverIndexedHeaderTuple(name, value) if secret else hpack.HeaderTuple(name, value)
            for name, value, secret in fields
        ]
        block = encoder.encode(written, huffman=huffman_coded)
        assert decoder.decode(block, 0, 1 << 24)[0] == [(name, value) for name, value, _ in fields]
        theirs = [(bytes(name), bytes(value)) for name, value in encoder.header_table.dynamic_entries]
        assert decoder.table.entries[::-1] == theirs
