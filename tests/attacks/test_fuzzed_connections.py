"""Connections that say anything: conversations cut, repeated, with octets changed, and frames of no sense.

The seed is printed, so that a failing run can be had again: TRIO_SERVE_FUZZ_SEED=... names it.  A million
inputs take a quarter of an hour where a core is free; TRIO_SERVE_FUZZ_INPUTS=... asks for another number.
"""

import os
import random
import socket
import struct
from collections import deque

from benchmarks.load import frames
from tests.attacks.under_attack import MIB, Victim, size
from tests.patience import PATIENCE_S

INPUTS = int(os.environ.get("TRIO_SERVE_FUZZ_INPUTS", "0")) or size(2000, 1_000_000)
AT_ONCE = 16
SEED = int(os.environ.get("TRIO_SERVE_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


def conversation() -> bytes:
    """One of each kind of frame, in an order that is fine."""
    block = frames.request_block("/attacks.Victim/Echo", (b"grpc-timeout", b"10S"), (b"x-bin", b"AAAA"))
    return b"".join(
        (
            frames.opening(1_000_000),
            frames.frame(frames.SETTINGS, frames.ACK, 0),
            frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block),
            frames.frame(frames.DATA, 0, 1, frames.message(b"\n\x05world")[:7]),
            frames.window_update(1, 1000),
            frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(b"\n\x05world")[7:]),
            frames.frame(frames.PING, 0, 0, bytes(8)),
            frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 3, block),
            frames.frame(frames.RST_STREAM, 0, 3, struct.pack(">L", 8)),
            frames.frame(frames.HEADERS, frames.END_HEADERS, 5, frames.request_block("/attacks.Victim/Hold")),
            frames.frame(2, 0, 5, bytes(5)),
            frames.frame(frames.GOAWAY, 0, 0, bytes(8)),
        )
    )


def mutated(draw: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(changed) or 1)
        how = draw.randrange(5)
        if how == 0 and changed:
            changed[at] = draw.randrange(256)
        elif how == 1 and changed:
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            del changed[at : at + draw.randrange(1, 20)]
        elif how == 3:
            changed[at:at] = changed[draw.randrange(len(changed) or 1) :][: draw.randrange(1, 40)]
        else:
            changed[at:at] = draw.randbytes(draw.randrange(1, 12))
    return bytes(changed)


def random_frames(draw: random.Random) -> bytes:
    parts = [frames.opening(draw.choice((65_536, 1_000_000, 2**31 - 1)))]
    for _ in range(draw.randint(1, 12)):
        payload = draw.randbytes(draw.choice((0, 1, 4, 5, 6, 8, 20)))
        parts.append(
            frames.frame(draw.randrange(12), draw.randrange(256), draw.choice((0, 1, 2, 3, 5)), payload)
        )
    return b"".join(parts)


def fuzzed(draw: random.Random) -> bytes:
    how = draw.randrange(10)
    if how == 0:
        return draw.randbytes(draw.randrange(200))
    if how <= 3:
        return random_frames(draw)
    octets = mutated(draw, conversation())
    # A preface that is wrong ends the matter at once: mostly leave it alone.
    return frames.PREFACE + octets[len(frames.PREFACE) :] if how <= 8 else octets


def opened(port: int, octets: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(PATIENCE_S)
    try:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the server closed first, as it may
    return connection


def read_to_the_end(connection: socket.socket) -> None:
    """Raises TimeoutError when the server does not close."""
    with connection:
        try:
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass  # a reset is an end, too


def test_no_octets_end_the_server_or_disturb_another(victim: Victim) -> None:
    """Exits, tracebacks in the log and errors of the client beside it: none."""
    print(f"\nTRIO_SERVE_FUZZ_SEED={SEED}, {INPUTS} inputs")
    draw = random.Random(SEED)
    waiting: deque[socket.socket] = deque()
    with victim.observed("fuzzed connections") as cost:
        for _ in range(INPUTS):
            waiting.append(opened(victim.port, fuzzed(draw)))
            if len(waiting) >= AT_ONCE:
                read_to_the_end(waiting.popleft())
        for connection in waiting:
            read_to_the_end(connection)
        assert victim.running

    assert cost.peak_bytes <= 16 * MIB
    assert not cost.probe_errors
