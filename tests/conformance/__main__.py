"""``python -m tests.conformance``: our server and client against what outside tools are here, in one table.

A tool that is not on PATH, nor where its environment variable says, is skipped with the reason.  Exits with 1
when a case failed.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trustme

from tests.conformance.outside import bad_server, connect, everyday, h2spec, interop, proxies
from tests.conformance.outside.finding import Outcome
from tests.conformance.running import interop_server

SHOWN = 20
"""Failures told in words, a tool."""


def outcomes(scratch: Path) -> Iterator[Outcome]:
    with interop_server("trio_serve") as port:
        yield h2spec.run(port, tls=False)
        yield interop.go_client(port)
        yield interop.python_client(port)
        yield everyday.curl(port)
        yield everyday.nghttp(port, scratch)
        yield everyday.grpcurl(port)
        yield everyday.grpc_js(port)
        yield everyday.k6(port)
        yield from proxies.run(port)
    certificate = scratch / "server.pem"
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with interop_server("trio_serve", "--certificate", str(certificate)) as port:
        yield h2spec.run(port, tls=True)
    yield interop.go_server()
    yield interop.python_server()
    with interop_server("grpc.aio") as port:
        yield interop.grpc_aio_server(port)
    yield bad_server.run()
    yield connect.server()
    yield connect.web_server()
    yield connect.client()


def main() -> int:
    failed = 0
    print("| tool | against | cases | passed | not run because |\n| --- | --- | --- | --- | --- |")
    details = []
    with tempfile.TemporaryDirectory() as scratch:
        for outcome in outcomes(Path(scratch)):
            cases = outcome.passed + len(outcome.failed)
            counts = ("", "") if outcome.skipped else (str(cases), str(outcome.passed))
            row = (outcome.tool, outcome.against, *counts, outcome.skipped)
            print("| " + " | ".join(row) + " |", flush=True)
            details += [f"{outcome.tool}, {outcome.against}: {text}" for text in outcome.failed[:SHOWN]]
            failed += len(outcome.failed)
    for detail in details:
        print(detail)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
