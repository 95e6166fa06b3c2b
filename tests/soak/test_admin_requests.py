"""Requests of any kind to the admin API: every answer is the client's fault or a success, never ours.

300 by default, 10,000 with ``TRIO_SERVE_SOAK=1``, over TCP, each from a seed that a failure names.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from random import Random
from urllib.parse import quote

import pytest
import yaml

from tests.instance.detached_instance import Running, a_machine
from tests.soak.mutations import ODD_TEXTS, mutated_text
from trio_serve.instance.admin_api import BODY_BYTES_MAX

pytestmark = pytest.mark.real_clock

NUMBER = 10_000 if os.environ.get("TRIO_SERVE_SOAK") else 300
TOKEN = "correct-horse-battery"
APPLICATIONS = "/api/serve/applications/"

METHODS = [
    "GET",
    "GET",
    "PUT",
    "PUT",
    "PUT",
    "DELETE",
    "HEAD",
    "POST",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "get",
    "X" * 200,
]
PATHS = [
    *(
        APPLICATIONS,
        APPLICATIONS,
        APPLICATIONS.rstrip("/"),
        f"{APPLICATIONS}one",
        "/api/ray/version",
        "/metrics",
    ),
    *(
        "/",
        "//",
        "*",
        "/api/serve/applications/../shutdown",
        "/api/serve/shutdown/",
        "/" + "a" * 5000,
        "/%ff%00",
    ),
]
QUERIES = [
    "",
    "",
    "",
    "?",
    "?folder=/tmp",
    "?folder=x",
    "?folder=/%00",
    "?import_folder=/a&import_folder=/b",
    "?%ff",
    "?x",
]
HEADERS = [
    *(
        "Content-Type: application/json",
        "Content-Type: application/yaml",
        "Content-Type: \xff",
        "Accept: text/html",
    ),
    *(
        "Expect: 100-continue",
        "Transfer-Encoding: chunked",
        "Content-Length: 1",
        "Content-Length: -1",
        "A: b\x00c",
    ),
    *("Connection: upgrade\r\nUpgrade: h2c", "Connection: upgrade\r\nUpgrade: websocket", "X" * 9000 + ": y"),
    *(
        "Origin: http://evil.example",
        "Origin: null",
        "Host: evil.example",
        "Cookie: " + "a=b; " * 500,
        "bad header",
    ),
]


def request_of(random: Random, host: str, authorization: str | None) -> bytes:
    """One request as bytes; asked to be the last on its connection."""
    target = random.choice(PATHS) + random.choice(QUERIES)
    if random.random() < 0.1:
        target = APPLICATIONS + quote(random.choice(ODD_TEXTS), safe="")[:4000]
    body = b""
    if random.random() < 0.6:
        body = mutated_text(random)
        if random.random() < 0.5:
            body = _as_json(body)
    lines = [f"{random.choice(METHODS)} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    lines += random.sample(HEADERS, random.choice([0, 0, 1, 1, 2]))
    if body:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if random.random() < 0.05:
        head = head[: random.randrange(len(head))] + bytes([random.randrange(256)])
    return head + body


def _as_json(text: bytes) -> bytes:
    """The same as JSON; or as it is, if it is no YAML any more, or if its aliases make it endless."""
    parts, length = [], 0
    try:
        for part in json.JSONEncoder(default=str).iterencode(yaml.safe_load(text)):
            parts.append(part)
            length += len(part)
            if length > BODY_BYTES_MAX:
                return text
    except Exception:
        return text
    return "".join(parts).encode()


def statuses(address: str, request: bytes, patience_s: float = 0.2) -> list[int]:
    """The status of each answer until the server closes, or has waited so long for more than there is."""
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), 30) as connection:
        try:
            connection.sendall(request)
            connection.settimeout(patience_s)
            while octets := connection.recv(65536):
                received += octets
        except OSError:
            pass  # it had read enough
    return [int(found) for found in re.findall(rb"^HTTP/1\.1 (\d{3}) ", received, re.MULTILINE)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with a_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine.start("--admin-port", "0", "--admin-token", TOKEN, "--grpc-port", "0")


def test_no_request_is_the_instances_fault(running: Running) -> None:
    address = running.addresses["admin-http"]
    seen: set[int] = set()
    for seed in range(NUMBER):
        answers = statuses(address, request_of(Random(seed), address, f"Bearer {TOKEN}"))

        assert all(status < 500 for status in answers), seed
        seen.update(answers)
    assert {200, 400, 404, 405} <= seen
    assert running.client.details()
    assert " failed\n" not in running.state.log_path.read_text()


@pytest.mark.parametrize("authorization", [None, "Bearer wrong-horse-battery", f"Basic {TOKEN}", "Bearer"])
def test_without_the_token_nothing_is_read_or_done(running: Running, authorization: str | None) -> None:
    address = running.addresses["admin-http"]
    before = running.client.wait_until_settled()["applications"].keys()
    for seed in range(NUMBER // 10):
        answers = statuses(address, request_of(Random(seed), address, authorization))

        assert set(answers) <= {100, 400, 401, 403, 431}, seed
    assert running.client.details()["applications"].keys() == before


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_of_a_body_is_exact(running: Running, over: int) -> None:
    address = running.addresses["admin-http"]
    body = b" " * (BODY_BYTES_MAX + over)
    head = f"PUT {APPLICATIONS} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Connection: close\r\n"

    answers = statuses(address, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, patience_s=30)

    assert answers == [413 if over else 400]
