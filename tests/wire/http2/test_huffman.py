"""Huffman strings: RFC 7541's examples, every symbol, and the three coding errors of section 5.2."""

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.wire.http2.huffman import HuffmanError, decode

from .peer import huffman

EOS = (1 << 30) - 1


def coded(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def test_the_examples_of_appendix_c() -> None:
    for octets, text in [
        ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", b"www.example.com"),
        ("a8eb 1064 9cbf", b"no-cache"),
        ("25a8 49e9 5ba9 7d7f", b"custom-key"),
        ("25a8 49e9 5bb8 e8b4 bf", b"custom-value"),
        ("6402", b"302"),
        ("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9bd9 ab", b"gzip"),
    ]:
        assert decode(bytes.fromhex(octets)) == text


def test_every_symbol_has_the_code_of_appendix_b() -> None:
    for symbol in range(256):
        length = REQUEST_CODES_LENGTH[symbol]
        code = f"{REQUEST_CODES[symbol]:0{length}b}"
        assert decode(coded(code + "1" * (-length % 8))) == bytes((symbol,))


@given(st.binary())
def test_what_another_encodes_is_decoded(text: bytes) -> None:
    assert decode(huffman(text)) == text


@pytest.mark.parametrize(
    "bits",
    [
        pytest.param("00011" + "1" * 11, id="eleven bits of padding"),
        pytest.param("1" * 8, id="eight bits of padding and nothing else"),
        pytest.param("00011000", id="padding of zeros"),
        pytest.param("00011" + f"{EOS:b}" + "00011", id="EOS inside"),
        pytest.param(f"{EOS:b}11", id="EOS alone"),
    ],
)
def test_a_coding_error_is_refused(bits: str) -> None:
    with pytest.raises(HuffmanError):
        decode(coded(bits))


def test_the_empty_string_is_itself() -> None:
    assert decode(b"") == b""
