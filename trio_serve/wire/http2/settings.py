"""SETTINGS: what each side has declared.

    | 2 octets: identifier | 4 octets: value |   repeated

Source: RFC 9113 section 6.5.
Knows nothing of what a new value does to streams already open.
"""

from __future__ import annotations

from struct import Struct

from .errors import ConnectionFault, ErrorCode
from .frames import FRAME_BYTES_DEFAULT, FRAME_BYTES_LARGEST
from .header_tables import TABLE_BYTES_DEFAULT
from .limits import Limits
from .windows import WINDOW_DEFAULT, WINDOW_MAX

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

# How many streams a client opens before it has seen the server's SETTINGS: the least that RFC 9113
# section 6.5.2 recommends a server to allow.
STREAMS_ASSUMED = 100
STREAMS_UNLIMITED = 1 << 32

_iter_entries = Struct(">HI").iter_unpack


class PeerSettings:
    """The values in force for what we send."""

    __slots__ = (
        "frame_bytes_max",
        "header_list_bytes_max",
        "initial_window",
        "streams_max",
    )

    def __init__(self) -> None:
        self.streams_max = STREAMS_ASSUMED
        self.initial_window = WINDOW_DEFAULT
        self.frame_bytes_max = FRAME_BYTES_DEFAULT
        self.header_list_bytes_max: int | None = None

    def apply(self, payload: bytes, from_server: bool, first: bool) -> list[int]:
        """Take over the entries of a SETTINGS payload in order; unknown ones are ignored.

        Returns each HEADER_TABLE_SIZE, because HPACK has to announce the smallest that it went through.

        Raises:
            ConnectionFault: for a length that is no multiple of 6, or a value that section 6.5.2 forbids.
        """
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} octets")
        table_sizes = []
        if first:
            self.streams_max = STREAMS_UNLIMITED
        for identifier, value in _iter_entries(payload):
            if identifier == INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
                self.initial_window = value
            elif identifier == MAX_FRAME_SIZE:
                if not FRAME_BYTES_DEFAULT <= value <= FRAME_BYTES_LARGEST:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
                self.frame_bytes_max = value
            elif identifier == ENABLE_PUSH:
                if value > 1 or (value and from_server):
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
            elif identifier == HEADER_TABLE_SIZE:
                table_sizes.append(value)
            elif identifier == MAX_CONCURRENT_STREAMS:
                self.streams_max = value
            elif identifier == MAX_HEADER_LIST_SIZE:
                self.header_list_bytes_max = value
        return table_sizes


def our_settings(limits: Limits, is_client: bool) -> list[tuple[int, int]]:
    """The entries that announce ``limits``; those at the protocol's default are left out."""
    entries = [(MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max)]
    entries += [(ENABLE_PUSH, 0)] if is_client else [(MAX_CONCURRENT_STREAMS, limits.streams_max)]
    if limits.header_table_bytes != TABLE_BYTES_DEFAULT:
        entries.append((HEADER_TABLE_SIZE, limits.header_table_bytes))
    if limits.stream_window_bytes != WINDOW_DEFAULT:
        entries.append((INITIAL_WINDOW_SIZE, limits.stream_window_bytes))
    if limits.frame_bytes_max != FRAME_BYTES_DEFAULT:
        entries.append((MAX_FRAME_SIZE, limits.frame_bytes_max))
    return entries
