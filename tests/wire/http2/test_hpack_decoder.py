"""The HPACK decoder: RFC 7541's appendix C, the table's arithmetic, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.wire.http2.header_tables import HpackError
from trio_serve.wire.http2.hpack_decoder import Decoder

from .peer import integer, literal, string

ENOUGH = 1 << 20


def request(*more: tuple[str, str], scheme: str = "http", path: str = "/") -> list[tuple[bytes, bytes]]:
    pairs = [
        (":method", "GET"),
        (":scheme", scheme),
        (":path", path),
        (":authority", "www.example.com"),
        *more,
    ]
    return [(name.encode(), value.encode()) for name, value in pairs]


def reply(status: str, second: str, *more: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    pairs = [
        (":status", status),
        ("cache-control", "private"),
        ("date", f"Mon, 21 Oct 2013 20:13:{second} GMT"),
        ("location", "https://www.example.com"),
        *more,
    ]
    return [(name.encode(), value.encode()) for name, value in pairs]


COOKIE = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
REQUESTS = [
    request(),
    request(("cache-control", "no-cache")),
    request(("custom-key", "custom-value"), scheme="https", path="/index.html"),
]
RESPONSES = [
    reply("302", "21"),
    reply("307", "21"),
    reply("200", "22", ("content-encoding", "gzip"), ("set-cookie", COOKIE)),
]
# (blocks, table size, decoded, table size after each block)
APPENDIX_C = {
    "C.3": (
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        4096,
        REQUESTS,
        [57, 110, 164],
    ),
    "C.4": (
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
        4096,
        REQUESTS,
        [57, 110, 164],
    ),
    "C.5": (
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120"
            "4f63 7420 3230 3133 2032 303a 3133 3a32"
            "3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a"
            "3133 3a32 3220 474d 54c0 5a04 677a 6970"
            "7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049"
            "5541 5851 5745 4f49 553b 206d 6178 2d61"
            "6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        256,
        RESPONSES,
        [222, 222, 215],
    ),
    "C.6": (
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005"
            "9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad"
            "1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d"
            "1bff c05a 839b d9ab 77ad 94e7 821d d7f2"
            "e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f"
            "9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
        256,
        RESPONSES,
        [222, 222, 215],
    ),
}


@pytest.mark.parametrize("section", APPENDIX_C)
def test_the_examples_of_appendix_c(section: str) -> None:
    blocks, table_size, decoded, sizes = APPENDIX_C[section]
    decoder = Decoder()
    decoder.table.resize(table_size)

    for octets, expected, size in zip(blocks, decoded, sizes, strict=True):
        assert decoder.decode(bytes.fromhex(octets), 0, ENOUGH)[0] == expected
        assert decoder.table.size == size


def test_the_single_fields_of_appendix_c_2() -> None:
    for octets, field, kept in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            (b"custom-key", b"custom-header"),
            True,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", (b":path", b"/sample/path"), False),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", (b"password", b"secret"), False),
        ("82", (b":method", b"GET"), False),
    ]:
        decoder = Decoder()
        assert decoder.decode(bytes.fromhex(octets), 0, ENOUGH)[0] == [field]
        assert decoder.table.entries == ([field] if kept else [])


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x80", id="index 0"),
        pytest.param(b"\xbe", id="index past the tables' end"),
        pytest.param(b"\x7e\x01a", id="name index past the tables' end"),
        pytest.param(b"\xff", id="index cut short"),
        pytest.param(b"\xff" + b"\x80" * 4 + b"\xff\x01", id="index of more than 32 bits"),
        pytest.param(b"\xff" + b"\x80" * 20 + b"\x00", id="index in zeros without end"),
        pytest.param(b"\x00", id="literal without a name"),
        pytest.param(b"\x00\x05ab", id="name cut short"),
        pytest.param(b"\x00\x01a", id="literal without a value"),
        pytest.param(b"\x00\x01a\x02b", id="value cut short"),
        pytest.param(b"\x00\x01a\x7f\x80", id="length cut short"),
        pytest.param(
            b"\x00\x01a\x7f" + b"\x80" * 20 + b"\x00" + b"v" * 127, id="length in zeros without end"
        ),
        pytest.param(b"\x00\x01a\x82\xff\xff", id="bad Huffman"),
        pytest.param(b"\x82\x20", id="size update after a field"),
        pytest.param(b"\x3f\xe2\x1f", id="size update over the limit"),
        pytest.param(b"\x3f", id="size update cut short"),
    ],
)
def test_what_cannot_be_decoded_is_refused(octets: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(octets, 0, ENOUGH)


def test_an_entry_larger_than_the_table_empties_it_and_is_not_kept() -> None:
    decoder = Decoder()
    decoder.table.resize(100)
    decoder.decode(literal(b"a", b"b", 0x40), 0, ENOUGH)

    decoder.decode(literal(b"a", b"b" * 68, 0x40), 0, ENOUGH)

    assert decoder.table.entries == []
    assert decoder.table.size == 0


def test_an_entry_that_fills_the_table_exactly_is_kept() -> None:
    decoder = Decoder()
    decoder.table.resize(100)
    decoder.decode(literal(b"a", b"b" * 67, 0x40), 0, ENOUGH)

    assert decoder.table.entries == [(b"a", b"b" * 67)]
    assert decoder.table.size == 100


def test_a_name_may_come_from_the_entry_that_its_insertion_evicts() -> None:
    """RFC 7541 section 4.4."""
    decoder = Decoder()
    decoder.table.resize(64)
    decoder.decode(literal(b"name", b"x" * 20, 0x40), 0, ENOUGH)

    decoded, _ = decoder.decode(literal(62, b"y" * 20, 0x40), 0, ENOUGH)

    assert decoded == [(b"name", b"y" * 20)]
    assert decoder.table.entries == [(b"name", b"y" * 20)]


def test_a_list_over_its_limit_is_cut_and_the_table_kept_in_step() -> None:
    decoder = Decoder()
    block = b"".join(literal(b"n%d" % number, b"v" * 10, 0x40) for number in range(5))

    decoded, size = decoder.decode(block, 0, 100)

    assert len(decoded) == 2
    assert size == 5 * (2 + 10 + 32)
    assert len(decoder.table.entries) == 5


def test_a_lowered_table_must_be_confirmed_by_the_next_block() -> None:
    """RFC 9113 section 4.3.1."""
    decoder = Decoder()
    decoder.announce(100)

    with pytest.raises(HpackError, match="no table size update"):
        decoder.decode(b"\x82", 0, ENOUGH)


@pytest.mark.parametrize("size", [0, 99, 100])
def test_a_lowered_table_is_confirmed_by_an_update_within_it(size: int) -> None:
    decoder = Decoder()
    decoder.announce(100)

    assert decoder.decode(integer(5, 0x20, size) + b"\x82", 0, ENOUGH)[0] == [(b":method", b"GET")]
    assert decoder.decode(b"\x82", 0, ENOUGH)[0] == [(b":method", b"GET")]


def test_a_raised_table_needs_no_update() -> None:
    decoder = Decoder()
    decoder.announce(8192)

    assert decoder.decode(b"\x82", 0, ENOUGH)[0] == [(b":method", b"GET")]
    assert decoder.decode(integer(5, 0x20, 8192), 0, ENOUGH)[0] == []


@given(st.binary(max_size=200))
def test_octets_of_any_kind_are_decoded_or_refused(octets: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.decode(octets, 0, ENOUGH)
    except HpackError:
        pass
    assert decoder.table.size <= decoder.table.size_max


@given(st.integers(0, (1 << 32) - 1))
def test_lengths_and_indices_are_read_in_any_width(value: int) -> None:
    block = integer(7, 0x80, value)
    if value in range(1, 62):
        assert len(Decoder().decode(block, 0, ENOUGH)[0]) == 1
    else:
        with pytest.raises(HpackError):
            Decoder().decode(block, 0, ENOUGH)


def test_long_strings_are_read_whole() -> None:
    for length in (126, 127, 128, 254, 255, 4000):
        block = b"\x00" + string(b"n" * length) + string(b"v" * length)
        assert Decoder().decode(block, 0, ENOUGH)[0] == [(b"n" * length, b"v" * length)]
