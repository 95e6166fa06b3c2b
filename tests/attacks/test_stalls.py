"""Peers that stop reading: the socket, a stream's window, every window.  The producer must stop too."""

import contextlib
import struct

import pytest

from benchmarks.load import frames
from tests.attacks.under_attack import MIB, Victim, size

CHUNK_BYTES = 64 * 1024
BUFFERED_CHUNKS_MAX = 16  # a stream's window, its send buffer and the socket's: a MiB together
ECHO = b"\n\x80\x80\x40" + bytes(MIB)  # a Blob of 1 MiB
KERNEL_BUFFERS = 4 * MIB
STREAM_WINDOW = 65_535


def test_echoes_to_a_zero_window_are_bounded(victim: Victim) -> None:
    """A hundred echoes of 1 MiB are asked for, and none of the answers is ever allowed to leave."""
    with victim.observed("zero window, echoes of 1 MiB") as cost, victim.attacker(window=0) as attacker:
        for _ in range(size(30, 100)):
            attacker.send(attacker.headers("Echo"))
            if not attacker.send_body(frames.message(ECHO), patience_s=1):
                break

    assert cost.peak_bytes <= 8 * MIB
    assert not cost.probe_errors


def test_echoes_to_a_zero_window_are_bounded_however_they_come(victim: Victim) -> None:
    """All hundred at once: each fills its stream's window, beside what large messages may cost."""
    streams = 100
    with victim.observed("zero window, all at once") as cost, victim.attacker(window=0) as attacker:
        ids = []
        for _ in range(streams):
            attacker.send(attacker.headers("Echo"))
            ids.append(attacker.stream_id)
        taken = attacker.send_bodies(ids, frames.message(ECHO), patience_s=1)

    assert taken <= streams * STREAM_WINDOW + 4 * MIB
    assert cost.peak_bytes <= streams * STREAM_WINDOW + 8 * MIB
    assert not cost.probe_errors


@pytest.mark.parametrize("window", [0, 65_535], ids=["window zero", "window never updated"])
def test_a_stream_that_nobody_takes_parks_its_producer(victim: Victim, window: int) -> None:
    """1 GiB is asked for; what is made of it is what the windows and buffers hold."""
    with victim.observed(f"slow reader, window {window}") as cost, victim.attacker(window) as attacker:
        attacker.send(attacker.request("Flood"))
        assert attacker.ping()
        attacker.wait_closed(patience_s=1)
        produced = victim.produced()

    assert produced <= BUFFERED_CHUNKS_MAX
    assert cost.peak_bytes <= 4 * MIB
    assert not cost.probe_errors


@pytest.mark.parametrize("readers", [1, 50])
def test_unread_sockets_park_their_producers(victim: Victim, readers: int) -> None:
    """The windows are wide open, but nothing is read from the socket."""
    with victim.observed(f"{readers} unread sockets") as cost, contextlib.ExitStack() as stack:
        for _ in range(readers):
            attacker = stack.enter_context(victim.attacker(frames.WINDOW_MAX))
            attacker.send(frames.window_update(0, frames.WINDOW_MAX - 65_535) + attacker.request("Flood"))
        parked, produced = -1, 0
        while produced != parked:
            parked = produced
            with victim.attacker() as waiting:
                waiting.wait_closed(patience_s=0.5)
            produced = victim.produced()

    # The kernel takes some MiB for each socket before it says stop; that is not the server's memory.
    assert produced * CHUNK_BYTES <= readers * (KERNEL_BUFFERS + BUFFERED_CHUNKS_MAX * CHUNK_BYTES)
    assert cost.peak_bytes <= (4 if readers == 1 else 32) * MIB
    assert not cost.probe_errors


def test_windows_that_shrink_below_zero_park_too(victim: Victim) -> None:
    """SETTINGS take back a window that was given (RFC 9113 section 6.9.2)."""
    with victim.observed("shrinking window") as cost, victim.attacker(1_000_000) as attacker:
        attacker.send(attacker.request("Flood"))
        smaller = struct.pack(">HL", frames.INITIAL_WINDOW_SIZE, 0)
        attacker.send(frames.frame(frames.SETTINGS, 0, 0, smaller))
        assert attacker.ping()
        produced = victim.produced()

    assert produced <= BUFFERED_CHUNKS_MAX
    assert cost.peak_bytes <= 4 * MIB
    assert not cost.probe_errors
