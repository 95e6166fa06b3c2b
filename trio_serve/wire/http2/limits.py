"""Limits: what one peer may ask of one connection, each settable, each with a name that its error says.

The floods that a limit answers to are named beside it.  Where a rate counts, ``now`` (seconds, from any
clock that only rises) comes in with ``receive_data``.

Source: RFC 9113 sections 6.5.2 and 10.5; the flood figures are those that proxies in the field settled on.
Knows nothing of clocks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from .frames import FRAME_BYTES_DEFAULT, FRAME_BYTES_LARGEST
from .windows import WINDOW_DEFAULT, WINDOW_MAX

_KIB = 1 << 10
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection holds its peer to.  Sizes are in octets, rates a second."""

    # announced to the peer
    streams_max: int = 100
    frame_bytes_max: int = FRAME_BYTES_DEFAULT
    header_list_bytes_max: int = 16 * _KIB
    header_table_bytes: int = 4096
    stream_window_bytes: int = WINDOW_DEFAULT
    connection_window_bytes: int = 4 * _MIB

    # a stream whose reader keeps up is given this much in the end
    stream_window_bytes_max: int = _MIB

    # field blocks: CONTINUATION flood, HPACK bomb
    header_block_bytes_max: int = 64 * _KIB
    continuations_max: int = 8

    # our own memory: blocks remembered per kind of section, how streams were reset, the peer's table
    header_memo_blocks: int = 32
    resets_remembered: int = 500
    encoder_table_bytes: int = 4096

    # unsent octets of a stream: above the first the sender should wait, ``writable`` comes at the second
    send_high_water: int = 128 * _KIB
    send_low_water: int = 64 * _KIB

    # rapid reset, and resets that the peer provokes (MadeYouReset): with what the rate adds on a slow
    # machine, the cut comes within 1000 streams, which are 2000 frames
    resets_burst: int = 950
    resets_per_s: float = 33.0

    # PING, SETTINGS, unknown frames, frames on streams that are gone
    glitches_burst: int = 10_000
    glitches_per_s: float = 330.0

    # acknowledgements that wait to be sent to a peer who does not read
    control_replies_max: int = 1000

    # frames that cost us work and move nothing
    empty_data_max: int = 100
    priorities_per_stream: int = 100
    window_updates_spare: int = 5
    window_updates_per_stream: int = 2
    window_updates_per_data: int = 20

    def __post_init__(self) -> None:
        """Raise ValueError naming every limit that is out of its range."""
        wrong = [
            f"{name}={getattr(self, name)} is not within {low} to {high}"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        wrong += [
            f"{each.name}={getattr(self, each.name)} is below 0"
            for each in fields(self)
            if each.name not in _RANGES and getattr(self, each.name) < 0
        ]
        if self.send_low_water > self.send_high_water:
            wrong.append(
                f"send_low_water={self.send_low_water} is over send_high_water={self.send_high_water}"
            )
        if wrong:
            raise ValueError("Limits: " + "; ".join(wrong))


_RANGES = {  # RFC 9113 section 6.5.2
    "frame_bytes_max": (FRAME_BYTES_DEFAULT, FRAME_BYTES_LARGEST),
    "stream_window_bytes": (0, WINDOW_MAX),
    "stream_window_bytes_max": (0, WINDOW_MAX),
    # The connection's window starts at 65,535 and no SETTINGS can lower it.
    "connection_window_bytes": (WINDOW_DEFAULT, WINDOW_MAX),
}


class Allowance:
    """A token bucket: ``burst`` at once, then ``per_s`` a second."""

    __slots__ = ("burst", "left", "per_s", "seen")

    def __init__(self, burst: int, per_s: float) -> None:
        self.burst = burst
        self.per_s = per_s
        self.left = float(burst)
        self.seen: float | None = None

    def spend(self, now: float) -> bool:
        """Take one; False when there is none left at ``now``."""
        if self.seen is not None and now > self.seen:
            self.left = min(self.burst, self.left + (now - self.seen) * self.per_s)
        self.seen = now
        if self.left < 1:
            return False
        self.left -= 1
        return True
