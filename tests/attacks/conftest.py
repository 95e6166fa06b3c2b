"""A server process for each test: the peak of its memory is that attack's alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.under_attack import Victim


@pytest.fixture
def victim(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Victim]:
    """The server; afterwards it must be alive, serve a call, and have logged no traceback."""
    server = Victim(tmp_path / "log", *getattr(request, "param", ()))
    try:
        yield server
        assert server.running
        with server.attacker() as afterwards:
            assert afterwards.call("Hello").status == 0
        assert "Traceback" not in server.log
    finally:
        server.close()
