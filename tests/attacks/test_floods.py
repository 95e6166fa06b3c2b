"""Frames that cost the peer nothing: resets, fragments of fields, pings, frames that move nothing.

A peer that is cut off comes back on a new connection, until it has sent all that it meant to send.
"""

import os
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.load import frames
from tests.attacks.attacker import CONTINUATION, ENHANCE_YOUR_CALM, PRIORITY, Attacker, Seen
from tests.attacks.under_attack import MIB, Victim, size
from trio_serve.wire.http2 import Limits

CANCEL = struct.pack(">L", 8)
FRAMES_BEFORE_THE_CUT = 2000
FRAMES_A_RESET = 2


def persistent(
    victim: Victim, octets: Callable[[Attacker], bytes], total: int, *, reading: bool = True
) -> Iterator[Seen]:
    """Flood one connection after the other until ``total`` octets have left; what each of them saw."""
    while total > 0:
        with victim.attacker() as attacker:
            total -= attacker.flood(octets(attacker), reading=reading)
            attacker.wait_closed()
            yield attacker.seen


def resets(attacker: Attacker, count: int) -> bytes:
    """Streams opened and cancelled at once (CVE-2023-44487)."""
    parts = []
    for _ in range(count):
        parts.append(attacker.headers("Hold"))
        parts.append(frames.frame(frames.RST_STREAM, 0, attacker.stream_id, CANCEL))
    return b"".join(parts)


def provoked_resets(attacker: Attacker, count: int) -> bytes:
    """Streams on which the server is made to send the reset: a window update of zero (CVE-2025-8671)."""
    parts = []
    for _ in range(count):
        parts.append(attacker.headers("Hold"))
        parts.append(frames.window_update(attacker.stream_id, 0))
    return b"".join(parts)


@pytest.mark.parametrize("attack", [resets, provoked_resets])
def test_rapid_resets_are_cut_off(victim: Victim, attack: Callable[[Attacker, int], bytes]) -> None:
    """ENHANCE_YOUR_CALM within 2000 frames, whoever sends the resets; 200,000 of them in the long run."""
    a_connection = 2000
    with victim.observed(getattr(attack, "__name__", "")) as cost:
        connections = 0
        while connections * a_connection < size(20_000, 200_000):
            connections += 1
            with victim.attacker() as attacker:
                began = time.monotonic()
                attacker.flood(attack(attacker, a_connection))
                attacker.wait_closed()
                took_s = time.monotonic() - began
            seen = attacker.seen
            assert seen.goaway == ENHANCE_YOUR_CALM
            assert seen.last_stream_id is not None
            streams = (seen.last_stream_id + 1) // 2
            # Where the machine needs seconds for them, the rate has added more than is put by for it.
            forgiven = max(0.0, took_s - 1) * Limits().resets_per_s
            assert FRAMES_A_RESET * (streams - forgiven) <= FRAMES_BEFORE_THE_CUT

    assert cost.peak_bytes <= 8 * MIB
    assert not cost.probe_errors


FIELDS = frames.literal(b"x", b"y" * 120) * 120


@pytest.mark.parametrize(
    ("fragment", "count"),
    [(FIELDS, (500, 20_000)), (b"", (50_000, 1_000_000)), (b"\0", (50_000, 1_000_000))],
    ids=["large", "empty", "one-octet"],
)
def test_a_field_section_without_an_end_is_cut_off(
    victim: Victim, fragment: bytes, count: tuple[int, int]
) -> None:
    """CONTINUATION after CONTINUATION, none of them the last (CVE-2024-27983 and its kin)."""
    head = frames.frame(frames.HEADERS, 0, 1, frames.request_block("/attacks.Victim/Hold"))
    octets = frames.frame(CONTINUATION, 0, 1, fragment) * size(*count)
    with victim.observed(f"continuation of {len(fragment)} octets") as cost:
        for seen in persistent(victim, lambda _: head + octets, len(octets)):
            assert seen.closed

    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors


@pytest.mark.parametrize(
    "asking",
    [
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HL", frames.INITIAL_WINDOW_SIZE, 65_535)),
    ],
    ids=["ping", "settings"],
)
def test_acknowledgements_for_a_peer_who_does_not_read_are_bounded(victim: Victim, asking: bytes) -> None:
    """The peer asks for as many answers as it can and reads none."""
    octets = asking * size(200_000, 2_000_000)
    with victim.observed("unread answers") as cost:
        for seen in persistent(victim, lambda _: octets, len(octets), reading=False):
            assert seen.closed

    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors


IDLE_FRAMES: dict[str, Callable[[int], bytes]] = {
    "empty DATA": lambda stream_id: frames.frame(frames.DATA, 0, stream_id),
    "padding": lambda stream_id: frames.frame(frames.DATA, 8, stream_id, b"\0"),
    "WINDOW_UPDATE": lambda stream_id: frames.window_update(stream_id, 1),
    "PRIORITY": lambda stream_id: frames.frame(PRIORITY, 0, stream_id, bytes(4) + b"\x0f"),
    "unknown": lambda _: frames.frame(0x2A, 0, 0, os.urandom(8)),
}


@pytest.mark.parametrize("kind", IDLE_FRAMES)
def test_frames_that_move_nothing_cost_nothing(victim: Victim, kind: str) -> None:
    """They are ignored for a while, and then the connection is; nobody else notices."""
    octets = IDLE_FRAMES[kind](1) * size(100_000, 2_000_000)
    with victim.observed(kind) as cost:
        for seen in persistent(victim, lambda attacker: attacker.headers("Hold") + octets, len(octets)):
            assert seen.goaway == ENHANCE_YOUR_CALM

    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors
