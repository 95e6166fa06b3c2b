"""HPACK's Huffman code, decoding only: our encoder writes plain strings, which both sides read faster.

The code is canonical: codes of one length are consecutive, in the order of their symbols, and the first
code of a longer length follows on from the last of the shorter.  So the symbols of each length are all
there is to know.  Decoding takes an octet a step: a row stands for the bits left over from the octets
before, and its cells, made when first met (all of them would be 8 MB), tell the symbols that the next
octet completes and the row after it.

Source: RFC 7541 section 5.2 and appendix B.
Knows nothing of field sections.
"""

from __future__ import annotations

from typing import Any

from .header_tables import HpackError

SYMBOLS_BY_LENGTH = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: (
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa"
        b"\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"
    ),
    23: (
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b"
        b"\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"
    ),
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: (
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12"
        b"\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"
    ),
    30: b"\n\r\x16",
}
_EOS_LENGTH = 30  # its code is 30 ones, the last one of all


class HuffmanError(HpackError):
    """The string holds EOS, or its padding is not the first bits of EOS, fewer than eight."""


_Row = list[Any]
"""256 cells, None until they are met; then the bits left over, with their number, and whether they may
end a string: as padding they are the first bits of EOS, fewer than eight.

    cell   (the row after it, the symbols that it completes)
"""
_LEFT_OVER = 256
_MAY_END = 257


def _meet(data: bytes) -> None:
    """Make the cells that ``data`` needs."""
    row = _START
    for octet in data:
        row = (row[octet] or _cell(row, octet))[0]


def _cell(row: _Row, octet: int) -> tuple[_Row, bytes]:
    bits, length = row[_LEFT_OVER]
    symbols = bytearray()
    for shift in range(7, -1, -1):
        bits = bits << 1 | octet >> shift & 1
        length += 1
        symbol = _SYMBOLS.get((length, bits))
        if symbol is not None:
            symbols.append(symbol)
            bits = length = 0
        elif length == _EOS_LENGTH:
            raise HuffmanError("the EOS symbol inside a Huffman string")
    cell = row[octet] = _row(bits, length), bytes(symbols)
    return cell


def _codes() -> dict[tuple[int, int], int]:
    symbols = {}
    code = shorter = 0
    for length, group in SYMBOLS_BY_LENGTH.items():
        code <<= length - shorter
        for symbol in group:
            symbols[length, code] = symbol
            code += 1
        shorter = length
    return symbols


def _row(bits: int, length: int) -> _Row:
    row = _ROWS.get((length, bits))
    if row is None:
        row = [None] * 256
        row += ((bits, length), length <= 7 and bits == (1 << length) - 1)
        _ROWS[length, bits] = row
    return row


_SYMBOLS = _codes()  # (length, code): symbol
_ROWS: dict[tuple[int, int], _Row] = {}  # at most 256: one an inner node of the code's tree
_START = _row(0, 0)


def decode(data: bytes) -> bytes:
    """The string that ``data`` encodes.

    Raises:
        HuffmanError: for a coding error of RFC 7541 section 5.2.
    """
    row = _START
    symbols = []
    try:
        for octet in data:
            row, completed = row[octet]
            symbols.append(completed)
    except TypeError:  # a cell that nobody has met
        _meet(data)
        return decode(data)
    if not row[_MAY_END]:
        raise HuffmanError("the padding of a Huffman string is not the first bits of EOS")
    return b"".join(symbols)
