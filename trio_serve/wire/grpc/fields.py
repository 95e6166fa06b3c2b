"""Header fields as the layer below delivers them, and their values as text.

Source: gRPC over HTTP2, "Requests" (ASCII-Value), and RFC 9113 section 8.2.1.
Knows no field by name, and nothing of how the bytes came.
"""

from typing import Protocol, TypeAlias

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


class FieldBlock(Protocol):
    """One decoded field section, pseudo fields first.

    Sections with equal fields come as one object, so whatever is put into
    ``reading`` is found again by the next one.  When a section begins with all the
    fields of an earlier one, that one is its ``prefix`` and ``tail`` is the rest.
    """

    reading: object | None

    @property
    def fields(self) -> Fields: ...

    @property
    def prefix(self) -> "FieldBlock | None": ...

    @property
    def tail(self) -> Fields: ...


def is_printable_ascii(text: str) -> bool:
    """Whether ``text`` has only 0x20 to 0x7E, all that a field value may carry as text."""
    return text.isascii() and text.isprintable()


def to_text(value: bytes) -> str:
    r"""A peer's value that is only shown or compared: bytes out of range come as ``\xNN``."""
    text = value.decode("latin-1")
    return text if is_printable_ascii(text) else text.encode("unicode_escape").decode("ascii")
