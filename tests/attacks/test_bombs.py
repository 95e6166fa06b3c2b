"""Few octets that would become many: field sections, compressed messages, announced sizes."""

import gzip

from benchmarks.load import frames
from tests.attacks.attacker import CONTINUATION
from tests.attacks.under_attack import MIB, Victim, size


def test_an_hpack_bomb_costs_one_call(victim: Victim) -> None:
    """One entry of 4000 octets, referred to ten thousand times: 40 MiB in a frame."""
    with victim.observed("HPACK bomb") as cost, victim.attacker() as attacker:
        request = frames.request_block("/attacks.Victim/Hello")
        large = b"\x40\x01x\x7f" + _varint(4000 - 127) + b"y" * 4000
        stream_id = attacker.next_stream()
        block = request + large + b"\xbe" * 10_000
        attacker.send(
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
            + frames.frame(frames.DATA, frames.END_STREAM, stream_id, frames.message(b""))
        )
        refused = attacker.answer()
        served = attacker.call("Hello")

    assert refused.exhausted
    assert served.status == 0
    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors


def test_too_much_metadata_costs_one_call(victim: Victim) -> None:
    """40 KiB of metadata in three frames: RESOURCE_EXHAUSTED, and the compression state is still in step."""
    with victim.observed("too much metadata") as cost, victim.attacker() as attacker:
        for _ in range(size(20, 1000)):
            stream_id = attacker.next_stream()
            block = frames.request_block("/attacks.Victim/Hello")
            fields = b"".join(frames.literal(b"x-%03d" % k, b"v" * 120) for k in range(100))
            attacker.send(
                frames.frame(frames.HEADERS, frames.END_STREAM, stream_id, block)
                + frames.frame(CONTINUATION, 0, stream_id, fields)
                + frames.frame(CONTINUATION, 0, stream_id, fields)
                + frames.frame(CONTINUATION, frames.END_HEADERS, stream_id, fields)
            )
            assert attacker.answer().exhausted
        served = attacker.call("Hello")

    assert served.status == 0
    assert cost.peak_bytes <= 2 * MIB
    assert not cost.probe_errors


def test_a_message_of_4_gib_is_refused_at_its_prefix(victim: Victim) -> None:
    """The length is believed, and that is enough."""
    with victim.observed("4 GiB announced") as cost, victim.attacker() as attacker:
        attacker.send(attacker.headers("Echo"))
        attacker.send(frames.frame(frames.DATA, 0, attacker.stream_id, b"\0\xff\xff\xff\xff" + bytes(1000)))
        refused = attacker.answer()

    assert refused.exhausted
    assert cost.peak_bytes <= MIB
    assert not cost.probe_errors


def test_a_gzip_bomb_is_inflated_to_the_limit_and_no_further(victim: Victim) -> None:
    """256 MiB of zeros are 0.26 MB."""
    bomb = gzip.compress(bytes(256 * MIB), 9)
    with victim.observed("gzip bomb") as cost, victim.attacker() as attacker:
        for _ in range(size(3, 30)):
            attacker.send(attacker.headers("Echo", (b"grpc-encoding", b"gzip")))
            attacker.send_body(b"\1" + len(bomb).to_bytes(4, "big") + bomb)
            assert attacker.answer().exhausted

    assert cost.peak_bytes <= 5 * MIB
    assert not cost.probe_errors


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
