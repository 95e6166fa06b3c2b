"""``trio-serve run`` where things go wrong around it: nobody reads its output, its log cannot be written, it
is suspended, signals come by the hundred."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import IO

import pytest

from tests.patience import PATIENCE_S

pytestmark = pytest.mark.real_clock

SHOP = """\
import trio
import trio_serve as serve

@serve.deployment
class Greeter:
    async def __call__(self, request):
        if "wait" in str(request.url):
            open("waiting", "w").close()
            await trio.sleep_forever()
        return "hello"

app = Greeter.bind()
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@contextlib.contextmanager
def serving(
    folder: pathlib.Path, stderr: IO[bytes] | int, *, shell: str = "", stdout: IO[bytes] | int | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """``trio-serve run`` with what ``shell`` does to its descriptors."""
    command = f"exec {sys.executable} -m trio_serve run shop:app --port 0 {shell}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRIO_SERVE_")}
    server = subprocess.Popen(
        ["sh", "-c", command], cwd=folder, stdout=stdout, stderr=stderr, env=environment
    )
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def address(told: pathlib.Path) -> str:
    """Where HTTP is served, once the file says so."""
    until = time.monotonic() + PATIENCE_S
    while (found := re.search(r"http (127\.0\.0\.1:\d+)", told.read_text())) is None:
        assert time.monotonic() < until, told.read_text()
        time.sleep(0.05)
    return found[1]


def get(where: str) -> bytes:
    with urllib.request.urlopen(f"http://{where}/", timeout=PATIENCE_S) as answer:
        octets: bytes = answer.read()
    return octets


def end(server: "subprocess.Popen[bytes]") -> int:
    server.send_signal(signal.SIGTERM)
    return server.wait(PATIENCE_S)


@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"], ids=["closed", "disk full"])
def test_stdout_that_cannot_be_written_ends_no_service(folder: pathlib.Path, stdout: str) -> None:
    log = folder / "log"
    with log.open("wb") as stderr, serving(folder, stderr, shell=stdout) as server:
        assert get(address(log)) == b"hello"
        assert end(server) == 0
    assert "Traceback" not in log.read_text()


def test_a_reader_of_stdout_that_has_gone_ends_no_service(folder: pathlib.Path) -> None:
    """As with ``trio-serve run ... | head -1``."""
    log = folder / "log"
    with log.open("wb") as stderr, serving(folder, stderr, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.close()
        assert get(address(log)) == b"hello"
        assert end(server) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("log", ["2>&-", "2>/dev/full"], ids=["closed", "disk full"])
def test_a_log_that_cannot_be_written_ends_no_service(folder: pathlib.Path, log: str) -> None:
    said = folder / "said"
    with said.open("wb") as stdout, serving(folder, subprocess.DEVNULL, shell=log, stdout=stdout) as server:
        where = address(said)
        assert [get(where) for _ in range(20)] == 20 * [b"hello"]
        assert end(server) == 0


def test_a_server_that_was_suspended_goes_on(folder: pathlib.Path) -> None:
    log = folder / "log"
    with log.open("wb") as stderr, serving(folder, stderr, stdout=subprocess.DEVNULL) as server:
        where = address(log)
        assert get(where) == b"hello"
        server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)
        time.sleep(1.5)
        server.send_signal(signal.SIGCONT)
        assert get(where) == b"hello"
        assert end(server) == 0


def test_a_storm_of_signals_ends_it_once_and_cleanly(folder: pathlib.Path) -> None:
    """The first drains, the second cuts off what is left, and the rest change nothing."""
    log = folder / "log"
    with log.open("wb") as stderr, serving(folder, stderr, stdout=subprocess.DEVNULL) as server:
        where = address(log)
        host, port = where.split(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"GET /?wait HTTP/1.1\r\nHost: x\r\n\r\n")
            until = time.monotonic() + PATIENCE_S
            while not (folder / "waiting").exists() and time.monotonic() < until:
                time.sleep(0.02)
            while server.poll() is None and time.monotonic() < until:
                server.send_signal(signal.SIGTERM)
                time.sleep(0.001)
            assert server.wait(PATIENCE_S) == 1
    told = log.read_text()
    assert told.count("SIGTERM") == 2
    assert "Traceback" not in told


def test_signals_that_mean_nothing_change_nothing(folder: pathlib.Path) -> None:
    log = folder / "log"
    with log.open("wb") as stderr, serving(folder, stderr, stdout=subprocess.DEVNULL) as server:
        where = address(log)
        for _ in range(300):
            for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT, signal.SIGPIPE):
                os.kill(server.pid, number)
        assert get(where) == b"hello"
        assert end(server) == 0
