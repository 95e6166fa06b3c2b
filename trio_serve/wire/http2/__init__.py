"""HTTP/2 without I/O, both roles, made for gRPC's way of using it.

    frames, windows, states, settings, limits      the RFC's nouns, each by itself
    header_tables, huffman, hpack_decoder, hpack_encoder, field_rules, field_sections      HPACK and fields
    streams, floods, state                         what a connection remembers
    receiving, data_frames, header_frames, control, sending      what it does
    connection                                     the face

Source: RFC 9113, RFC 7541.
Knows the standard library and nothing else.
"""

from .connection import Connection
from .errors import (
    ConnectionClosing,
    ConnectionEnded,
    ErrorCode,
    HeaderListTooLarge,
    StreamEnded,
    TooManyStreams,
    code_name,
)
from .field_sections import FieldBlock
from .frames import STREAM_ID_MAX
from .header_tables import Field, Fields
from .limits import Limits
from .state import ConnectionReceiver, Role
from .states import State
from .streams import Stream, StreamReceiver

__all__ = [
    "STREAM_ID_MAX",
    "Connection",
    "ConnectionClosing",
    "ConnectionEnded",
    "ConnectionReceiver",
    "ErrorCode",
    "Field",
    "FieldBlock",
    "Fields",
    "HeaderListTooLarge",
    "Limits",
    "Role",
    "State",
    "Stream",
    "StreamEnded",
    "StreamReceiver",
    "TooManyStreams",
    "code_name",
]
