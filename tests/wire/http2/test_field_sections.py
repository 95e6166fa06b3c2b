"""The header memo: equal blocks are equal objects, and never a stale one."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.wire.http2 import FieldBlock, Fields, Limits
from trio_serve.wire.http2.field_rules import Malformed
from trio_serve.wire.http2.field_sections import OverSize, Section, SectionReader
from trio_serve.wire.http2.header_tables import HpackError
from trio_serve.wire.http2.hpack_decoder import Decoder

from .peer import AUTHORITY, METHOD, PATH, SCHEME, integer, literal

BASE: Fields = (METHOD, SCHEME, (b":path", b"/a.B/C"), AUTHORITY, (b"content-type", b"application/grpc"))


def reader(section: Section = Section.REQUEST, limits: Limits | None = None) -> SectionReader:
    return SectionReader(section, Decoder(), limits or Limits())


def indexed(*indices: int) -> bytes:
    return b"".join(integer(7, 0x80, index) for index in indices)


def test_the_same_octets_against_the_same_table_are_the_same_object() -> None:
    requests, encoder = reader(), hpack.Encoder()
    requests.read(encoder.encode(BASE))
    block = encoder.encode(BASE)

    first = requests.read(block)
    first.reading = "what the layer above made of it"

    assert requests.read(block) is first
    assert first.fields == BASE


def test_literals_after_the_indexed_fields_are_a_tail_behind_the_same_prefix() -> None:
    """As C-core writes: what changes is a literal that the table never sees."""
    requests, encoder = reader(), hpack.Encoder()
    requests.read(encoder.encode(BASE))
    prefix = requests.read(encoder.encode(BASE))

    found = [requests.read(encoder.encode(BASE) + literal(b"grpc-timeout", b"%dm" % n)) for n in range(2)]

    assert [each.prefix for each in found] == [prefix, prefix]
    assert [each.tail for each in found] == [((b"grpc-timeout", b"0m"),), ((b"grpc-timeout", b"1m"),)]
    assert [each.fields for each in found] == [BASE + each.tail for each in found]


def test_leading_indexed_fields_are_known_by_content_when_the_table_moves_on() -> None:
    """As grpc-go writes: every changing value enters the table and moves all indices by one."""
    requests, encoder = reader(), hpack.Encoder()
    requests.read(encoder.encode(BASE))
    prefix = requests.read(encoder.encode(BASE))

    for number in range(5):
        changing = (b"x-request-id", b"%d" % number)
        block = encoder.encode([*BASE, changing])
        found = requests.read(block)
        assert found.prefix is prefix
        assert found.tail == (changing,)


def test_a_block_that_changed_the_table_is_not_remembered_by_its_octets() -> None:
    requests = reader()
    block = indexed(2, 6, 4) + literal(b"a", b"1", 0x40) + indexed(62)
    other = indexed(2, 6, 4) + literal(b"b", b"2", 0x40)

    assert requests.read(block).tail == ((b"a", b"1"), (b"a", b"1"))
    requests.read(other)
    assert requests.read(indexed(2, 6, 4, 62)).fields[3:] == ((b"b", b"2"),)
    requests.read(block)
    assert requests.read(indexed(2, 6, 4, 62)).fields[3:] == ((b"a", b"1"),)


def test_a_block_that_changes_the_table_changes_it_each_time_it_comes() -> None:
    decoder = Decoder()
    requests = SectionReader(Section.REQUEST, decoder, Limits())
    for block in [indexed(2, 6, 4) + literal(b"a", b"1", 0x40), literal(b"b", b"2", 0x40)]:
        for _ in range(2):
            try:
                requests.read(block)
            except Malformed:
                pass

    assert decoder.table.entries == [(b"a", b"1")] * 2 + [(b"b", b"2")] * 2


def test_an_entry_that_moved_is_never_taken_for_another() -> None:
    """Every index that one octet holds, after each of 300 insertions, with a memo that forgets nothing."""
    decoder = Decoder()
    requests = SectionReader(Section.REQUEST, decoder, Limits(header_memo_blocks=100_000))
    entries = decoder.table.entries
    for number in range(300):
        requests.read(indexed(2, 6, 4) + literal(b"a", b"%d" % number, 0x40))
        for back in range(min(len(entries), 65)):
            assert requests.read(indexed(2, 6, 4, 62 + back)).fields[3:] == (entries[-1 - back],)


def test_an_entry_that_was_evicted_is_not_remembered() -> None:
    decoder = Decoder()
    requests = SectionReader(Section.REQUEST, decoder, Limits())
    all_there_is = b"y" * (4096 - 33)
    requests.read(indexed(2, 6, 4) + literal(b"a", b"1", 0x40))
    requests.read(indexed(2, 6, 4, 62))
    requests.read(indexed(2, 6, 4) + literal(b"b", all_there_is, 0x40))

    with pytest.raises(HpackError, match="index 63 is outside the tables"):
        requests.read(indexed(2, 6, 4, 63))


def test_requests_and_trailers_do_not_share_a_memo() -> None:
    decoder = Decoder()
    requests = SectionReader(Section.REQUEST, decoder, Limits())
    trailers = SectionReader(Section.TRAILERS, decoder, Limits())
    requests.read(indexed(2, 6, 4))

    with pytest.raises(Malformed):
        trailers.read(indexed(2, 6, 4))


def test_a_change_by_a_block_of_one_kind_empties_the_memo_of_the_other() -> None:
    decoder = Decoder()
    requests = SectionReader(Section.REQUEST, decoder, Limits())
    trailers = SectionReader(Section.TRAILERS, decoder, Limits())
    requests.read(indexed(2, 6, 4) + literal(b"a", b"1", 0x40))
    assert requests.read(indexed(2, 6, 4, 62)).fields[3:] == ((b"a", b"1"),)

    trailers.read(literal(b"b", b"2", 0x40))

    assert requests.read(indexed(2, 6, 4, 62)).fields[3:] == ((b"b", b"2"),)


def test_a_tail_can_make_a_good_prefix_malformed() -> None:
    requests = reader()
    requests.read(indexed(2, 6, 4))
    for field in [(b"X", b"1"), (b":path", b"/"), (b"te", b"gzip"), (b"connection", b"x"), (b"a", b"\n")]:
        with pytest.raises(Malformed):
            requests.read(indexed(2, 6, 4) + literal(*field))


def test_a_tail_with_content_length_is_read_with_its_prefix() -> None:
    requests = reader()

    found = requests.read(indexed(2, 6, 4) + literal(b"content-length", b"7"))

    assert found.content_length == 7
    assert found.fields == (METHOD, SCHEME, PATH, (b"content-length", b"7"))


def test_the_content_length_of_a_prefix_holds_for_the_whole() -> None:
    requests = reader()
    requests.read(indexed(2, 6, 4) + literal(b"content-length", b"7", 0x40))

    found = requests.read(indexed(2, 6, 4, 62) + literal(b"x", b"y"))

    assert found.prefix is not None
    assert found.content_length == 7


def list_of(size: int) -> bytes:
    """A request whose header list is ``size`` octets."""
    others = sum(len(name) + len(value) + 32 for name, value in (METHOD, SCHEME, PATH))
    return indexed(2, 6, 4) + literal(b"x", b"y" * (size - others - 33))


def test_a_header_list_at_its_limit_passes_and_one_octet_past_it_does_not() -> None:
    limits = Limits(header_list_bytes_max=1000)

    assert reader(limits=limits).read(list_of(1000)).size == 1000
    with pytest.raises(OverSize, match="1001 bytes is over header_list_bytes_max=1000"):
        reader(limits=limits).read(list_of(1001))


def test_indexed_fields_alone_can_be_over_the_limit() -> None:
    """An HPACK bomb: one octet a field of 4,000."""
    requests = reader()
    requests.read(indexed(2, 6, 4) + literal(b"x", b"y" * 4000, 0x40))

    with pytest.raises(OverSize):
        requests.read(indexed(2, 6, 4) + indexed(62) * 60_000)
    assert requests.read(indexed(2, 6, 4, 62)).fields[3][0] == b"x"


def test_the_memos_are_bounded() -> None:
    requests = reader(limits=Limits(header_memo_blocks=4))
    for number in range(1000):
        requests.read(indexed(2, 6, 4) + literal(b"x", b"%d" % number))

    assert len(requests.known) <= 4


def test_without_a_memo_everything_is_read_anew() -> None:
    requests = reader(limits=Limits(header_memo_blocks=0))

    first, second = requests.read(indexed(2, 6, 4)), requests.read(indexed(2, 6, 4))

    assert first.fields == second.fields
    assert first is not second
    assert not requests.known


def test_a_block_is_written_with_its_fields() -> None:
    assert repr(FieldBlock(((b"a", b"b"),), 34)) == "FieldBlock(((b'a', b'b'),))"


FIELDS = st.tuples(
    st.sampled_from([b"a", b"b", b"grpc-timeout", b"x-id"]), st.sampled_from([b"", b"1", b"2", b"3"])
)
TAILS = st.lists(st.lists(FIELDS, max_size=4), max_size=30)


@given(TAILS, st.booleans(), st.integers(0, 3))
def test_the_memo_never_changes_what_is_read(
    tails: list[list[tuple[bytes, bytes]]], huffman_coded: bool, memo_blocks: int
) -> None:
    """Whatever an encoder of the indexing kind sends, with the tightest of memos."""
    requests = reader(limits=Limits(header_memo_blocks=memo_blocks))
    encoder = hpack.Encoder()
    for tail in tails:
        wanted = (*BASE, *tail)
        found = requests.read(encoder.encode(wanted, huffman=huffman_coded))
        assert found.fields == wanted
        assert found.size == sum(len(name) + len(value) + 32 for name, value in wanted)
        if found.prefix is not None:
            assert found.prefix.fields + found.tail == wanted
