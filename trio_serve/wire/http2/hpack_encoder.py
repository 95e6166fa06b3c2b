"""HPACK, writing: fields to a field block, at the least work for both sides.

The peer's table is primed and then left alone.  A field enters it when its name is new there, or when
the same field is met a second time; nothing is evicted, so what was inserted stays where the peer's own
caches know it.  From then on a stable field is one octet, and a changing one an indexed name with a
plain literal value, which leaves the table unchanged.  Strings are never Huffman coded.

Source: RFC 7541; the priming is ours.
Knows nothing of what fields mean, but for the four that carry secrets.
"""

from __future__ import annotations

from .header_tables import (
    STATIC_COUNT,
    STATIC_INDICES,
    STATIC_NAMES,
    TABLE_BYTES_DEFAULT,
    Field,
    Fields,
    entry_size,
)

_KNOWN_MAX = 64  # field lists whose block is known: a server answers with few that never change
_SEEN_MAX = 64  # fields met once
_NAMES_MAX = 256  # names whose first octets are known
_SHORT_LENGTHS = [bytes((length,)) for length in range(0x7F)]
# Never indexed (RFC 7541 section 7.1.3): a table that an attacker's fields share would tell them.
_SECRETS = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))


class Encoder:
    """Writes the blocks of one connection, in the order in which they are sent."""

    __slots__ = (
        "_indexed",
        "_inserted",
        "_names",
        "_numbers",
        "_seen",
        "_size",
        "_size_max",
        "_size_wanted",
        "_starts",
        "_updates",
        "known",
    )

    def __init__(self, table_bytes_max: int = TABLE_BYTES_DEFAULT) -> None:
        """``table_bytes_max`` is what we care to spend, whatever the peer offers."""
        self._size_wanted = table_bytes_max
        self._size_max = TABLE_BYTES_DEFAULT
        self._updates: list[int] = []  # sizes to announce at the start of the next block
        self._clear()

    def _clear(self) -> None:
        self._size = 0
        self._inserted = 0
        self._numbers: dict[Field, int] = {}  # field in the dynamic table: its number in order of insertion
        self._names: dict[bytes, int] = {}
        self._indexed: dict[Field, bytes] = {}  # a field's octets as long as nothing is inserted
        self.known: dict[Fields, bytes] = {}
        self._starts: dict[bytes, bytes] = {}  # a literal, by its name: how it starts
        self._seen: set[Field] = set()

    def limit(self, table_bytes: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE is ``table_bytes``.

        A smaller table starts anew: the entries that would survive are not worth the book-keeping.
        """
        table_bytes = min(table_bytes, TABLE_BYTES_DEFAULT)
        if table_bytes < self._size_max:
            self._updates = [0]
            self._clear()
        if table_bytes != self._size_max:
            self._updates = [*self._updates[:1], table_bytes] if table_bytes else [0]
            self.known.clear()
            self._size_max = table_bytes

    def encode(self, fields: Fields) -> bytes:
        """The block for ``fields``, which must be sent before the next one is encoded."""
        block = self.known.get(fields)
        if block is not None:
            return block
        prelude = b""
        if self._updates:
            prelude = b"".join([_integer(0x20, 0x1F, size) for size in self._updates])
            self._updates = []
        indexed = self._indexed
        lasting = True  # every field is an index that the next block can use again
        pieces = []
        for field in fields:
            piece = indexed.get(field)
            if piece is None:
                index = self._index(field)
                if index:
                    piece = indexed[field] = _integer(0x80, 0x7F, index)
                else:
                    piece = self._literal(field)
                    lasting = False
            pieces.append(piece)
        block = b"".join(pieces)
        if lasting:
            if len(self.known) >= _KNOWN_MAX:
                self.known.clear()
            self.known[fields] = block
        return prelude + block if prelude else block

    def encode_changing(self, fields: Fields) -> bytes:
        """More of a block, whose start was encoded just before: fields with other values each time.

        Once their names are known nothing is looked up or remembered but those.
        """
        octets = b""
        for field in fields:
            name, value = field
            start = self._starts.get(name)
            size = len(value)
            if start is None or size >= 0x7F:
                octets += self.encode((field,))
            else:
                octets += start + _SHORT_LENGTHS[size] + value
        return octets

    def _index(self, field: Field) -> int:
        """The index of ``field`` in either table, 0 without one."""
        number = self._numbers.get(field)
        if number is not None:
            return STATIC_COUNT + self._inserted - number
        return STATIC_INDICES.get(field, 0)

    def _literal(self, field: Field) -> bytes:
        name, value = field
        start = self._starts.get(name)
        if start is None or field in self._seen:
            if self._worth_keeping(field):
                octets = self._name(name, 0x40, 0x3F) + _string(value)
                self._insert(field)
                return octets
            start = self._start(name)
        # Met once under a name that the table knows, it most likely changes each time.
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen.add(field)
        size = len(value)
        return start + (_SHORT_LENGTHS[size] if size < 0x7F else _integer(0x00, 0x7F, size)) + value

    def _worth_keeping(self, field: Field) -> bool:
        """Whether the table should take ``field``: its name is new there, or it comes again; and it fits."""
        name_is_new = field[0] not in self._names
        fits = self._size + entry_size(field) <= min(self._size_max, self._size_wanted)
        return fits and (name_is_new or field in self._seen) and field[0] not in _SECRETS

    def _start(self, name: bytes) -> bytes:
        """What a literal of ``name`` that stays out of the table starts with."""
        if len(self._starts) >= _NAMES_MAX:
            self._starts.clear()
        pattern = 0x10 if name in _SECRETS else 0x00
        start = self._starts[name] = self._name(name, pattern, 0x0F)
        return start

    def _name(self, name: bytes, pattern: int, largest: int) -> bytes:
        """The first part of a literal: the name's index where it has one, else the name."""
        index = STATIC_NAMES.get(name)
        if index is None:
            number = self._names.get(name)
            if number is None:
                return bytes((pattern,)) + _string(name)
            index = STATIC_COUNT + self._inserted - number
        return _integer(pattern, largest, index)

    def _insert(self, field: Field) -> None:
        self._numbers[field] = self._names[field[0]] = self._inserted
        self._inserted += 1
        self._size += entry_size(field)
        # Every dynamic index has moved by one.
        self._indexed.clear()
        self._starts.clear()
        self.known.clear()


def _integer(pattern: int, largest: int, value: int) -> bytes:
    """``value`` behind the bits of ``pattern``, in a prefix that holds ``largest`` (RFC 7541 section 5.1)."""
    if value < largest:
        return bytes((pattern | value,))
    octets = [pattern | largest]
    value -= largest
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _string(text: bytes) -> bytes:
    return _integer(0x00, 0x7F, len(text)) + text
