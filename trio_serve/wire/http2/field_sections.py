"""Field sections: from a field block to its validated fields, remembering what peers repeat.

A gRPC peer sends nearly the same block with every call, so three memos stand before the decoder, each
bounded by ``header_memo_blocks``:

    whole block              the same octets against the same table: the very same FieldBlock
    leading indexed octets   the same prefix, wherever the table has moved its entries since; only what
                             follows is read (C-core's and grpc-go's way of writing)
    leading indexed fields   the same by content, when entries were evicted and inserted anew (grpc-go's)

A block that changed the table is never remembered by its octets: read again, it would mean something else.

Source: RFC 9113 sections 4.3, 8.2 and 8.3.
Knows nothing of streams.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TypeVar

from .field_rules import Malformed, PlainFields, check_request, check_response, check_trailers
from .header_tables import Fields, list_size
from .hpack_decoder import FIRST_DYNAMIC, ONE_OCTET_INDICES, Decoder
from .limits import Limits

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_INDEXED_OCTETS = bytes(range(0x81, 0xFF))
_MEMO_BLOCK_BYTES = 512  # a longer block is rarely a repeated one, and would be held for nothing


class Section(Enum):
    """Which rules a section answers to."""

    REQUEST = "request"
    RESPONSE = "response"
    TRAILERS = "trailers"


class OverSize(Exception):
    """The decoded list is over ``header_list_bytes_max``; the decoder is in step all the same."""


class FieldBlock:
    """A decoded, validated field section.

    Equal blocks come back as the same object as long as the memo holds them, so whoever reads one
    leaves what it made of it in ``reading``.  When the leading part equals an earlier block, that very
    object is ``prefix``, and ``tail`` holds the fields that are new; without a prefix, all of them.
    """

    __slots__ = ("content_length", "prefix", "reading", "size", "status", "tail")

    def __init__(
        self,
        tail: Fields,
        size: int,
        content_length: int | None = None,
        status: int = 0,
        prefix: FieldBlock | None = None,
    ) -> None:
        self.tail = tail
        self.size = size  # as a header list: octets of names and values, and 32 a field
        self.content_length = content_length
        self.status = status  # a response's; 0 in other sections
        self.prefix = prefix
        self.reading: object | None = None

    @property
    def fields(self) -> Fields:
        return self.tail if self.prefix is None else self.prefix.fields + self.tail

    def __repr__(self) -> str:
        return f"FieldBlock({self.fields!r})"


class SectionReader:
    """Reads sections of one kind on one connection."""

    __slots__ = (
        "_changes",
        "_contents",
        "_decoder",
        "_forget_at",
        "_list_bytes_max",
        "_memo_blocks",
        "_plain",
        "_prefixes",
        "_section",
        "known",
    )

    def __init__(self, section: Section, decoder: Decoder, limits: Limits) -> None:
        self._section = section
        self._decoder = decoder
        self._list_bytes_max = limits.header_list_bytes_max
        self._memo_blocks = limits.header_memo_blocks
        self._plain = PlainFields()
        self._changes = 0  # the decoder's, up to which ``known`` holds
        self._forget_at = 0  # and those at which ``_prefixes`` holds no more
        self.known: dict[bytes, FieldBlock] = {}
        self._prefixes: dict[bytes, tuple[FieldBlock, int]] = {}  # and the number of its oldest entry
        self._contents: dict[Fields, FieldBlock] = {}

    def read(self, block: bytes) -> FieldBlock:
        """Decode and check ``block``.

        Raises:
            HpackError: the connection cannot go on.
            Malformed, OverSize: the stream cannot; the decoder is in step.
        """
        changes = self._decoder.changes
        if self._changes == changes:
            known = self.known.get(block)
            if known is not None:
                return known
        else:
            self._changes = changes
            self.known.clear()
        octets = block[: len(block) - len(block.lstrip(_INDEXED_OCTETS))]
        prefix = self._prefix(octets) if octets and self._memo_blocks else None
        if prefix is None:
            found = self._read_anew(block)
        else:
            found = prefix if len(octets) == len(block) else self._extend(prefix, block, len(octets))
        if changes == self._decoder.changes and len(block) <= _MEMO_BLOCK_BYTES and self._memo_blocks:
            _remember(self.known, block, found, self._memo_blocks)
        return found

    def _prefix(self, octets: bytes) -> FieldBlock | None:
        """What is known of the indexed fields that lead a block; None: they are no section by themselves."""
        decoder = self._decoder
        changes = decoder.changes
        if changes >= self._forget_at:
            self._forget_at = changes + ONE_OCTET_INDICES
            self._prefixes.clear()
        numbers = octets.translate(_numbers(changes % (2 * ONE_OCTET_INDICES)))
        known = self._prefixes.get(numbers)
        if known is not None:
            prefix, oldest = known
            if changes - oldest < len(decoder.table.entries):
                return prefix
        found = self._prefix_by_content(octets)
        if found is not None:
            oldest = changes - (max(octets) - FIRST_DYNAMIC)
            _remember(self._prefixes, numbers, (found, oldest), self._memo_blocks)
        return found

    def _prefix_by_content(self, octets: bytes) -> FieldBlock | None:
        if self._decoder.update_due:
            return None
        fields = tuple([self._decoder.field(octet & 0x7F) for octet in octets])
        prefix = self._contents.get(fields)
        if prefix is None:
            size = list_size(fields)
            if size > self._list_bytes_max:
                return None
            try:
                prefix = self._checked(fields, size)
            except Malformed:
                return None  # not complete by itself; the whole block may well be
            _remember(self._contents, fields, prefix, self._memo_blocks)
        return prefix

    def _extend(self, prefix: FieldBlock, block: bytes, position: int) -> FieldBlock:
        decoded, size = self._decoder.decode(block, position, self._list_bytes_max - prefix.size)
        size += prefix.size
        if size > self._list_bytes_max:
            raise self._over_size(size)
        tail = tuple(decoded)
        if not self._plain.passes(tail):
            return self._checked(prefix.fields + tail, size)
        return FieldBlock(tail, size, prefix.content_length, prefix.status, prefix)

    def _read_anew(self, block: bytes) -> FieldBlock:
        decoded, size = self._decoder.decode(block, 0, self._list_bytes_max)
        if size > self._list_bytes_max:
            raise self._over_size(size)
        return self._checked(tuple(decoded), size)

    def _checked(self, fields: Fields, size: int) -> FieldBlock:
        if self._section is Section.REQUEST:
            return FieldBlock(fields, size, check_request(fields))
        if self._section is Section.RESPONSE:
            status, content_length = check_response(fields)
            return FieldBlock(fields, size, content_length, status)
        check_trailers(fields)
        return FieldBlock(fields, size)

    def _over_size(self, size: int) -> OverSize:
        limit = f"header_list_bytes_max={self._list_bytes_max}"
        return OverSize(f"{self._section.value} header list of {size} bytes is over {limit}")


@lru_cache(2 * ONE_OCTET_INDICES)  # all that there are
def _numbers(changes: int) -> bytes:
    """A translation of indexed octets that gives an entry the same octet for as long as it can be indexed.

    Whatever is inserted after it, entry number n keeps n: ``changes`` when it was inserted, here modulo
    twice the entries that an octet reaches, so that no other entry has the same within the time that
    ``_prefixes`` remembers.  Octets of static fields stay as they are, and none of the numbers is one.
    """
    table = bytearray(range(256))
    for back in range(ONE_OCTET_INDICES):
        number = (changes - back) % (2 * ONE_OCTET_INDICES)
        table[FIRST_DYNAMIC + back] = (FIRST_DYNAMIC + number) & 0xFF
    return bytes(table)


def _remember(memo: dict[_Key, _Value], key: _Key, value: _Value, bound: int) -> None:
    if len(memo) >= bound:
        memo.clear()
    memo[key] = value
