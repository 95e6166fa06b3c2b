"""Too many of something that is fine by itself: streams, half-open connections, stalled handshakes."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from benchmarks.load import frames
from tests.attacks.attacker import REFUSED_STREAM
from tests.attacks.under_attack import MIB, SOAK, Victim, size
from tests.patience import PATIENCE_S

HANDSHAKE_TIMEOUT_S = 10 if SOAK else 1


def test_a_stream_over_the_limit_is_refused_alone(victim: Victim) -> None:
    """The first hundred go on; each one more is reset with REFUSED_STREAM."""
    count = 900
    with victim.observed("streams over the limit") as cost, victim.attacker() as attacker:
        attacker.flood(b"".join(attacker.headers("Hold") for _ in range(count)))
        assert attacker.ping()

    assert len(attacker.seen.resets) == count - 100
    assert set(attacker.seen.resets.values()) == {REFUSED_STREAM}
    assert cost.peak_bytes <= 8 * MIB
    assert not cost.probe_errors


def test_a_crowd_of_streams_on_one_connection_is_bounded(victim: Victim) -> None:
    """Streams are opened without end; refused ones leave nothing behind, or the connection is closed."""
    with victim.observed("crowd of streams") as cost, victim.attacker() as attacker:
        attacker.flood(b"".join(attacker.headers("Hold") for _ in range(size(10_000, 100_000))))

    assert cost.peak_bytes <= 8 * MIB
    assert not cost.probe_errors


SHORT_HANDSHAKES = ("--handshake-timeout-s", str(HANDSHAKE_TIMEOUT_S))


@pytest.mark.parametrize("victim", [SHORT_HANDSHAKES], indirect=True)
@pytest.mark.parametrize("said", [b"", frames.PREFACE[:10]], ids=["nothing", "half a preface"])
def test_connections_that_never_finish_their_preface_are_closed(victim: Victim, said: bytes) -> None:
    """A thousand of them (300 in the short run), each silent in the end."""
    with victim.observed("half-open connections") as cost, contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(size(300, 1000)):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", victim.port)))
            one.sendall(said)
            crowd.append(one)
        assert all(closes(one) for one in crowd)

    assert cost.peak_bytes <= 16 * MIB
    assert not cost.probe_errors


@pytest.mark.parametrize("victim", [SHORT_HANDSHAKES], indirect=True)
def test_one_octet_at_a_time_does_not_stretch_the_handshake(victim: Victim) -> None:
    """The time counts from the connection's start, not from the last octet; there are many of them."""
    octets = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, bytes(600))
    with socket.create_connection(("127.0.0.1", victim.port)) as slow:
        slow.settimeout(HANDSHAKE_TIMEOUT_S / 8)
        assert any(closes_after(slow, bytes([octet])) for octet in octets)


def closes_after(connection: socket.socket, octet: bytes) -> bool:
    """Send ``octet``, and wait for a moment whether the server has closed."""
    try:
        connection.sendall(octet)
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass  # a reset is an end, too
    return True


@pytest.fixture
def tls_victim(tmp_path: Path) -> Iterator[Victim]:
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    server = Victim(tmp_path / "log", "--certificate", str(pem), *SHORT_HANDSHAKES)
    with contextlib.closing(server):
        yield server


def test_stalled_tls_handshakes_are_closed(tls_victim: Victim) -> None:
    """Some say nothing, some half a ClientHello; one that means it is served meanwhile."""
    with contextlib.ExitStack() as stack:
        crowd = []
        for k in range(size(100, 1000)):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", tls_victim.port)))
            one.sendall(b"" if k % 2 else b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            crowd.append(one)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", tls_victim.port)))
        with context.wrap_socket(plain, server_hostname="localhost") as honest:
            honest.sendall(frames.opening())
            assert honest.recv(9)[3] == frames.SETTINGS
        assert all(closes(one) for one in crowd)

    assert tls_victim.running
    assert "Traceback" not in tls_victim.log


def closes(connection: socket.socket) -> bool:
    """True when the server closes, as it must; raises TimeoutError otherwise."""
    connection.settimeout(PATIENCE_S)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass  # a reset is an end, too
    return True
