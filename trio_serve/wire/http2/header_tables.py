"""HPACK's tables of fields: the static one, and the rule by which a dynamic one evicts.

    index   1 ... 61         62 ...
            static table     dynamic table, newest entry first

Source: RFC 7541 sections 2.3, 4 and appendix A.
Knows nothing of how fields are written.
"""

from __future__ import annotations

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]

ENTRY_OVERHEAD = 32  # RFC 7541 section 4.1; RFC 9113 counts the header list the same way
TABLE_BYTES_DEFAULT = 4096

STATIC_FIELDS: Fields = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
STATIC_COUNT = len(STATIC_FIELDS)
STATIC_INDICES = {field: index for index, field in enumerate(STATIC_FIELDS, 1)}
STATIC_NAMES = {field[0]: index for index, field in reversed([*enumerate(STATIC_FIELDS, 1)])}


def entry_size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_OVERHEAD


def list_size(fields: Fields) -> int:
    """The size of a header list, as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 section 6.5.2)."""
    return sum([len(name) + len(value) + ENTRY_OVERHEAD for name, value in fields])


class HpackError(ValueError):
    """The block cannot be decoded; always a connection error COMPRESSION_ERROR (RFC 9113 section 4.3)."""


class DynamicTable:
    """Entries in order of insertion, the oldest evicted first.  Whoever adds one adds its size, too."""

    __slots__ = ("entries", "size", "size_max")

    def __init__(self, size_max: int = TABLE_BYTES_DEFAULT) -> None:
        self.entries: list[Field] = []  # the newest is last: index 62 is entries[-1]
        self.size = 0
        self.size_max = size_max

    def resize(self, size_max: int) -> None:
        self.size_max = size_max
        self.evict()

    def evict(self) -> None:
        """Make the table fit; an entry larger than all of it empties it and is not kept (section 4.4)."""
        while self.size > self.size_max:
            name, value = self.entries.pop(0)
            self.size -= len(name) + len(value) + ENTRY_OVERHEAD
