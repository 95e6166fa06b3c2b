import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import decode_metadata, encode_metadata

KEY_LETTERS = string.ascii_lowercase + string.digits + "_-."
RESERVED = [
    *("te", "content-type", "content-length", "connection", "keep-alive", "proxy-connection"),
    *(
        "transfer-encoding",
        "upgrade",
        "grpc-status",
        "grpc-message",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-x",
    ),
]
keys = st.text(KEY_LETTERS, min_size=1, max_size=20).filter(
    lambda key: not key.startswith("grpc-") and not key.endswith("-bin") and key not in RESERVED
)
texts = st.text([chr(code) for code in range(0x20, 0x7F)], max_size=40).map(lambda text: text.strip(" "))
pairs = st.tuples(keys, texts) | st.tuples(keys.map(lambda key: key + "-bin"), st.binary(max_size=60))


@settings(deadline=None)
@given(st.lists(pairs, max_size=8).map(tuple))
def test_metadata_survives_the_wire(metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    assert decode_metadata(encode_metadata(metadata)) == metadata


def test_a_mapping_is_metadata_too() -> None:
    metadata: dict[str, str | bytes] = {"a": "1", "b-bin": b"\x00"}

    assert encode_metadata(metadata) == ((b"a", b"1"), (b"b-bin", b"AA"))


def test_bytes_under_a_text_key_are_sent_as_they_are() -> None:
    assert encode_metadata([("a", b"text")]) == ((b"a", b"text"),)


def test_spaces_around_a_value_are_dropped() -> None:
    assert encode_metadata([("a", "  b c ")]) == ((b"a", b"b c"),)


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r\nb: c", "\x00", "a\x7f", "\t", "é", "\ud800", b"\xff", "\u2028", "a\x1b[0m"]
)
def test_a_value_that_could_break_a_header_is_a_value_error(value: str | bytes) -> None:
    with pytest.raises(ValueError, match="only printable ASCII can be sent"):
        encode_metadata([("key", value)])


@pytest.mark.parametrize("key", ["", "Key", "k y", "k\n", "k:", ":path", "ké", "k\x00", "k\r\nx"])
def test_a_key_that_could_break_a_header_is_a_value_error(key: str) -> None:
    with pytest.raises(ValueError, match="characters other than"):
        encode_metadata([(key, "value")])


@pytest.mark.parametrize("key", RESERVED)
def test_a_key_that_the_protocol_sends_itself_is_a_value_error(key: str) -> None:
    with pytest.raises(ValueError, match="is reserved"):
        encode_metadata([(key, "value")])


@pytest.mark.parametrize("key", ["grpc-retry-pushback-ms", "grpc-previous-rpc-attempts", "user-agent"])
def test_keys_that_applications_do_send_are_let_through(key: str) -> None:
    assert encode_metadata([(key, "1")]) == ((key.encode(), b"1"),)


@pytest.mark.parametrize(
    "pair", [("k-bin", "text"), ("k", 1), ("k", None), (b"k", "v"), (1, "v"), ("k-bin", None), ("k-bin", 5)]
)
def test_another_type_is_a_type_error(pair: Any) -> None:
    with pytest.raises(TypeError, match="metadata"):
        encode_metadata([pair])


@pytest.mark.parametrize(
    "value, read",
    [
        (b"AAE", [b"\x00\x01"]),
        (b"AAE=", [b"\x00\x01"]),
        (b"AAE,Ag==,", [b"\x00\x01", b"\x02", b""]),
        (b"AAE, Ag", [b"\x00\x01", b"\x02"]),
        (b"", [b""]),
    ],
)
def test_a_bin_value_is_read_with_and_without_padding_and_comma_joined(
    value: bytes, read: list[bytes]
) -> None:
    assert decode_metadata([(b"k-bin", value)]) == tuple(("k-bin", part) for part in read)


@pytest.mark.parametrize("value", [b"A", b"AA!A", b"AA\nA", b"A=A", b"\xff\xff\xff\xff", b"AA-_", b"AA AA"])
def test_bad_base64_is_a_value_error_that_names_the_key(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"k-bin.*is not base64"):
        decode_metadata([(b"k-bin", value)])


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"a\x1bb", b"\x7f"])
def test_text_out_of_range_from_a_peer_is_a_value_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="not printable ASCII"):
        decode_metadata([(b"k", value)])


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=24)), max_size=5))
def test_any_fields_are_metadata_or_a_value_error(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        decode_metadata(fields)
    except ValueError:
        pass


@settings(deadline=None, max_examples=500)
@given(st.text(max_size=12), st.text(max_size=24) | st.binary(max_size=24))
def test_nothing_but_clean_fields_ever_leaves(key: str, value: str | bytes) -> None:
    try:
        fields = encode_metadata([(key, value)])
    except (ValueError, TypeError):
        return
    for name, encoded in fields:
        assert all(letter in KEY_LETTERS.encode() for letter in name)
        assert all(0x20 <= letter <= 0x7E for letter in encoded)
