"""HPACK, reading: a field block to its fields, and the table that the block leaves behind.

    1xxxxxxx  indexed field                      001xxxxx  table size update
    01xxxxxx  literal, added to the table        0001xxxx  literal, never indexed
    0000xxxx  literal, not added

Whatever becomes of a request, its block must pass through here, or every later block on the connection
is read against the wrong table.

Source: RFC 7541.
Knows nothing of what fields mean.
"""

from __future__ import annotations

from .header_tables import (
    ENTRY_OVERHEAD,
    STATIC_COUNT,
    STATIC_FIELDS,
    TABLE_BYTES_DEFAULT,
    DynamicTable,
    Field,
    HpackError,
)
from .huffman import decode as huffman_decode

# The octets from this one to 0xFE are a whole indexed field each, of the entry last inserted or one of so
# many before it.
FIRST_DYNAMIC = 0x80 + STATIC_COUNT + 1
ONE_OCTET_INDICES = 0xFF - FIRST_DYNAMIC

_INTEGER_SHIFT_MAX = 28  # five octets more: enough for 2^32, and no block may be longer


class Decoder:
    """Reads the blocks of one connection, in the order in which they came."""

    __slots__ = ("announced", "changes", "table", "update_due")

    def __init__(self) -> None:
        self.table = DynamicTable()
        self.announced = TABLE_BYTES_DEFAULT  # the SETTINGS_HEADER_TABLE_SIZE that binds the peer
        self.update_due = False
        self.changes = 0  # insertions so far, each of which moves all indices by one; see ``_resized``

    def announce(self, table_bytes: int) -> None:
        """The peer has acknowledged our SETTINGS_HEADER_TABLE_SIZE.

        When it is less than the table in use, the next block must open with a size update
        (RFC 9113 section 4.3.1).
        """
        self.announced = table_bytes
        if table_bytes < self.table.size_max:
            self.update_due = True
            self._resized()

    def _resized(self) -> None:
        """Counts as so many insertions that no index means what it meant."""
        self.changes += ONE_OCTET_INDICES

    def field(self, index: int) -> Field:
        """The field at ``index`` of both tables.

        Raises:
            HpackError: for 0, and for an index past the tables' end.
        """
        if 0 < index <= STATIC_COUNT:
            return STATIC_FIELDS[index - 1]
        entries = self.table.entries
        if STATIC_COUNT < index <= STATIC_COUNT + len(entries):
            return entries[STATIC_COUNT - index]
        raise HpackError(
            f"index {index} is outside the tables, whose last index is {STATIC_COUNT + len(entries)}"
        )

    def decode(self, block: bytes, position: int, list_bytes_max: int) -> tuple[list[Field], int]:
        """The fields of ``block`` from ``position`` on, and their size as a header list.

        Once the list is over ``list_bytes_max`` no further field is kept, but the block is read to its
        end: the table must stay in step.

        Raises:
            HpackError: and the connection's table is of no use any more.
        """
        try:
            if not position:
                position = self._size_updates(block)
            table = self.table
            entries = table.entries
            last = STATIC_COUNT + len(entries)
            fields: list[Field] = []
            size = 0
            end = len(block)
            while position < end:
                octet = block[position]
                position += 1
                if octet >= 0x80:
                    index = octet & 0x7F
                    if index == 0x7F:
                        index, position = _integer(block, position, index)
                    field = (
                        entries[STATIC_COUNT - index] if STATIC_COUNT < index <= last else self.field(index)
                    )
                    name, value = field
                    size += len(name) + len(value) + ENTRY_OVERHEAD
                    if size <= list_bytes_max:
                        fields.append(field)
                    continue
                if octet >= 0x40:
                    index_max = 0x3F
                elif octet < 0x20:
                    index_max = 0x0F
                else:
                    raise HpackError("a table size update after the first field of a block")
                index = octet & index_max
                # What follows reads in place what nearly all there is looks like: an index of two octets
                # at most, a plain name, strings of less than 127 octets.
                if index == index_max:
                    more = block[position]
                    if more < 0x80:
                        index += more
                        position += 1
                    else:
                        index, position = _integer(block, position, index)
                if STATIC_COUNT < index <= last:
                    name = entries[STATIC_COUNT - index][0]
                elif index:
                    name = self.field(index)[0]
                else:
                    stop = position + 1 + block[position]
                    if block[position] < 0x7F and stop < end:
                        name = block[position + 1 : stop]
                        position = stop
                    else:
                        name, position = _string(block, position)
                length = block[position]
                stop = position + 1 + (length & 0x7F)
                if length & 0x7F == 0x7F or stop > end:
                    value, position = _string(block, position)
                else:
                    value = block[position + 1 : stop]
                    position = stop
                    if length >= 0x80:
                        value = huffman_decode(value)
                field = (name, value)
                entry_bytes = len(name) + len(value) + ENTRY_OVERHEAD
                size += entry_bytes
                if size <= list_bytes_max:
                    fields.append(field)
                if octet >= 0x40:
                    self.changes += 1
                    entries.append(field)
                    table.size += entry_bytes
                    if table.size > table.size_max:
                        table.evict()
                    last = STATIC_COUNT + len(entries)
            return fields, size
        except IndexError:
            raise HpackError("the field block ends inside a field") from None

    def _size_updates(self, block: bytes) -> int:
        """Apply the size updates that ``block`` opens with; the position after them."""
        position = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size, position = block[position] & 0x1F, position + 1
            if size == 0x1F:
                size, position = _integer(block, position, size)
            if size > self.announced:
                raise HpackError(
                    f"table size update to {size} is over SETTINGS_HEADER_TABLE_SIZE={self.announced}"
                )
            self.table.resize(size)
            self.update_due = False
            self._resized()
        if self.update_due:
            raise HpackError(f"no table size update after SETTINGS_HEADER_TABLE_SIZE={self.announced}")
        return position


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was all ones, ``value`` (RFC 7541 section 5.1)."""
    shift = 0
    while True:
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            raise HpackError("an integer of more than 32 bits")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    octet = block[position]
    position += 1
    length = octet & 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, length)
    end = position + length
    if end > len(block):
        raise HpackError("the field block ends inside a string")
    text = block[position:end]
    return (huffman_decode(text) if octet & 0x80 else text), end
