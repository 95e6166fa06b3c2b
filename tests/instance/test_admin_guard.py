"""Who may speak to the admin API over TCP."""

import pytest

from trio_serve.instance.admin_guard import Guard

TOKEN = "correct horse battery"


def refused(guard: Guard, *headers: tuple[bytes, bytes]) -> int | None:
    refusal = guard.refusal({"type": "http", "headers": list(headers)})
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1:8265",
        b"localhost:8265",
        b"LOCALHOST",
        b"127.0.0.1",
        b"[::1]:8265",
        b"[::1]",
        b"127.8.8.8:1",
    ],
)
def test_without_a_token_this_machine_may(host: bytes) -> None:
    assert refused(Guard(), (b"host", host)) is None


@pytest.mark.parametrize(
    "host",
    [b"evil.example:8265", b"127.0.0.1.evil.example", b"localhost:8265@evil", b"", b"10.0.0.1:8265", b"\xff"],
)
def test_a_name_that_was_bound_to_this_machine_may_not(host: bytes) -> None:
    assert refused(Guard(), (b"host", host)) == 403


def test_no_host_and_two_hosts_may_not() -> None:
    assert refused(Guard()) == 403
    assert refused(Guard(), (b"host", b"localhost"), (b"host", b"localhost")) == 403


@pytest.mark.parametrize(
    "origin", [b"http://evil.example", b"null", b"http://localhost:3000", b"https://localhost:1"]
)
def test_a_web_page_from_elsewhere_may_not(origin: bytes) -> None:
    host = (b"host", b"localhost:8265")
    assert refused(Guard(), host, (b"origin", origin)) == 403
    assert (
        refused(Guard(TOKEN), host, (b"authorization", b"Bearer " + TOKEN.encode()), (b"origin", origin))
        == 403
    )
    assert refused(Guard(), host, (b"origin", b"http://localhost:8265")) is None


@pytest.mark.parametrize(
    "given, status",
    [
        (b"Bearer " + TOKEN.encode(), None),
        (b"bearer " + TOKEN.encode(), None),
        (b"Bearer " + TOKEN.encode()[:-1], 401),
        (b"Bearer ", 401),
        (b"", 401),
        (b"Basic " + TOKEN.encode(), 401),
        (TOKEN.encode(), 401),
        (b"Bearer \xff\xfe", 401),
    ],
)
def test_with_a_token_only_its_bearer_may_whatever_the_host(given: bytes, status: int | None) -> None:
    assert refused(Guard(TOKEN), (b"host", b"serve.example"), (b"authorization", given)) == status


def test_without_the_token_nobody_may() -> None:
    good = (b"authorization", b"Bearer " + TOKEN.encode())
    assert refused(Guard(TOKEN), (b"host", b"localhost")) == 401
    assert refused(Guard(TOKEN), good, good) == 401


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(Guard(TOKEN))
