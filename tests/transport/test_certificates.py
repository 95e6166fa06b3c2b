"""Certificates renewed while calls go on, and clients who are sent away, each with one line in the log."""

import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.listener import Accepting, open_listeners, server_tls

pytestmark = pytest.mark.real_clock

NAME = "localhost"


class Files:
    """The server's files, as an operator replaces them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.client_ca = (
            str(folder / name) for name in ("server.pem", "server.key", "clients.pem")
        )
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(self.client_ca)
        self.authority = self.renew()

    def renew(self) -> trustme.CA:
        """A new certificate and key, of a new authority, which is returned."""
        authority = trustme.CA()
        issued = authority.issue_cert(NAME)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)
        return authority

    def put_key(self, key: bytes | None) -> bytes:
        """Replace the key, or take it away; what it was."""
        path = Path(self.key)
        old = path.read_bytes()
        path.unlink() if key is None else path.write_bytes(key)
        return old


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def echoing(tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that sends back what it gets."""

    async def echo(byte_stream: ByteStream) -> None:
        try:
            while data := await byte_stream.receive_some(1024):
                await byte_stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # a client that goes without a word
        finally:
            await byte_stream.aclose()

    (listener,) = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        with listener:
            nursery.start_soon(Accepting(echo, tls=tls).accept_from, listener, nursery)
            yield listener.getsockname()[1]
            nursery.cancel_scope.cancel()


Stream = trio.SSLStream[trio.SocketStream]


async def connected(port: int, authority: trustme.CA, certificate: trustme.LeafCert | None = None) -> Stream:
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        certificate.configure_cert(context)
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    return trio.SSLStream(plain, context, server_hostname=NAME, https_compatible=True)


async def answers(stream: Stream) -> bool:
    """Whether the server is there; raises when it, or its certificate, is not to be trusted."""
    await stream.send_all(b"?")
    return await stream.receive_some(1) == b"?"


async def served(port: int, authority: trustme.CA, certificate: trustme.LeafCert | None = None) -> bool:
    stream = await connected(port, authority, certificate)
    try:
        return await answers(stream)
    except (trio.BrokenResourceError, ssl.SSLError):
        return False
    finally:
        await trio.aclose_forcefully(stream)


def told(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


async def test_a_renewed_certificate_is_used_at_once_and_open_connections_go_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = files.authority
    async with echoing(server_tls(files.certificate, files.key)) as port:
        before = await connected(port, first)
        assert await answers(before)
        second = files.renew()

        assert await served(port, second)
        assert not await served(port, first)
        assert await served(port, second)
        assert await answers(before)
        await trio.aclose_forcefully(before)
    assert told(caplog, "new connections use them") == 1


async def test_files_that_are_wrong_leave_the_old_ones_in_use(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate is replaced before its key is: at that moment they do not fit."""
    key = files.put_key(b"")
    files.put_key(key)
    async with echoing(server_tls(files.certificate, files.key)) as port:
        second = files.renew()
        new_key = files.put_key(key)
        for _ in range(3):
            assert await served(port, files.authority)
        assert told(caplog, "cannot be used, the old ones stay") == 1

        files.put_key(new_key)
        assert await served(port, second)
        files.put_key(None)
        assert await served(port, second)
    assert told(caplog, "cannot be used, the old ones stay") == 2


async def test_a_replaced_client_authority_lets_in_its_own_clients_and_no_others(files: Files) -> None:
    tls = server_tls(files.certificate, files.key, files.client_ca)
    ours, theirs = files.clients, trustme.CA()
    async with echoing(tls) as port:
        assert await served(port, files.authority, ours.issue_cert("client@example.org"))
        assert not await served(port, files.authority, theirs.issue_cert("client@example.org"))
        theirs.cert_pem.write_to_path(files.client_ca)

        assert await served(port, files.authority, theirs.issue_cert("client@example.org"))
        assert not await served(port, files.authority, ours.issue_cert("client@example.org"))


LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("who", ["nobody", "a stranger", "somebody whose time is over"])
async def test_a_client_without_a_valid_certificate_is_sent_away_with_one_line(
    files: Files, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    caplog.set_level(logging.INFO)
    certificate = {
        "nobody": lambda: None,
        "a stranger": lambda: trustme.CA().issue_cert("client@example.org"),
        "somebody whose time is over": lambda: files.clients.issue_cert(
            "client@example.org", not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1)
        ),
    }[who]()
    async with echoing(server_tls(files.certificate, files.key, files.client_ca)) as port:
        assert not await served(port, files.authority, certificate)
        assert await served(port, files.authority, files.clients.issue_cert("client@example.org"))
    assert told(caplog, "TLS handshake with ipv4:127.0.0.1:") == 1
    assert all(record.exc_info is None for record in caplog.records)
