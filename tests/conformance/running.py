"""Programs that print ``ready PORT``."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def interop_server(on: str, *arguments: str) -> Iterator[int]:
    """Our interoperability service on ``trio_serve`` or on ``grpc.aio``; its port."""
    command = [sys.executable, "-m", "tests.conformance.interop_server", on, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline().split()[1])
        finally:
            server.kill()
