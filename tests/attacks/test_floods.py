"""Frames that cost the peer nothing: resets, fragments of fields, pings, frames that move nothing."""

import os
import struct
from collections.abc import Callable

import pytest

from benchmarks.load import frames
from tests.attacks.attacker import CONTINUATION, ENHANCE_YOUR_CALM, PRIORITY, Attacker
from tests.attacks.under_attack import MIB, Victim, size

CANCEL = struct.pack(">L", 8)
RESETS_BEFORE_THE_CUT = 1100  # the burst of 1000, and what the rate allows while the octets are on their way


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
    """ENHANCE_YOUR_CALM within 2000 frames or so, whoever sends the resets."""
    with victim.observed(getattr(attack, "__name__", "")) as cost, victim.attacker() as attacker:
        attacker.flood(attack(attacker, size(20_000, 200_000)))
        attacker.wait_closed()

    assert attacker.seen.goaway == ENHANCE_YOUR_CALM
    assert attacker.seen.last_stream_id is not None
    assert attacker.seen.last_stream_id // 2 <= RESETS_BEFORE_THE_CUT
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
    with victim.observed(f"continuation of {len(fragment)} octets") as cost, victim.attacker() as attacker:
        stream_id = attacker.next_stream()
        head = frames.frame(frames.HEADERS, 0, stream_id, frames.request_block("/attacks.Victim/Hold"))
        attacker.flood(head + frames.frame(CONTINUATION, 0, stream_id, fragment) * size(*count))
        attacker.wait_closed()

    assert attacker.seen.closed
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
    with victim.observed("unread answers") as cost, victim.attacker() as attacker:
        attacker.flood(asking * size(200_000, 2_000_000), reading=False)

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
    """They are ignored, or the connection is; nobody else notices."""
    with victim.observed(kind) as cost, victim.attacker() as attacker:
        opening = attacker.headers("Hold")
        attacker.flood(opening + IDLE_FRAMES[kind](attacker.stream_id) * size(100_000, 2_000_000))

    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors
