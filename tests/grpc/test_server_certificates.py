"""A server whose certificate is renewed under load loses no call."""

import ssl
from pathlib import Path

import pytest
import trio
import trustme

from tests.grpc.echo import Echo, Note, grpcio, serving
from trio_serve.grpc import open_channel, server_tls

CALLERS, RENEWALS = 4, 5

pytestmark = pytest.mark.real_clock


async def test_no_call_fails_while_the_certificate_is_renewed(tmp_path: Path) -> None:
    """Some callers stay on one connection, and one makes a new one for each call."""
    authority = trustme.CA()
    pem = tmp_path / "server.pem"

    def renew() -> None:
        """As an operator does it who knows how: the complete file takes the old one's place."""
        new = tmp_path / "new.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(new))
        new.rename(pem)

    renew()
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    tls = server_tls(str(pem), str(pem))
    calls = 0

    async def call(channel: object) -> None:
        nonlocal calls
        assert (await grpcio.EchoStub(channel).One(Note(number=1))).number == 1
        calls += 1

    async def stay(target: str) -> None:
        async with open_channel(target, tls=context) as channel:
            while True:
                await call(channel)

    async with trio.open_nursery() as nursery:
        server = serving(Echo())
        port = await nursery.start(lambda task_status: server.serve(port=0, tls=tls, task_status=task_status))
        target = f"localhost:{port}"
        for _ in range(CALLERS):
            nursery.start_soon(stay, target)
        for _ in range(RENEWALS):
            renew()
            for _ in range(3):
                async with open_channel(target, tls=context) as channel:
                    await call(channel)
        nursery.cancel_scope.cancel()
    assert calls > CALLERS + 3 * RENEWALS
