"""The admin API of an instance: what it answers to good and bad requests, over its socket and over TCP."""

import http.client
import json
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.instance.detached_instance import Machine, Running, a_machine
from tests.patience import PATIENCE_S
from trio_serve.instance.admin_api import BODY_BYTES_MAX

pytestmark = pytest.mark.real_clock

APPLICATIONS = "/api/serve/applications/"
GOOD = {"applications": [{"name": "one", "import_path": "shop:build", "args": {"word": "Moin"}}]}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with a_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="module")
def running(machine: Machine) -> Running:
    return machine.start("--admin-port", "0")


def over_tcp(running: Running, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(running.addresses["admin-http"], timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_is_put_is_told_in_rays_schema(running: Running, machine: Machine) -> None:
    status, body = running.admin(
        "PUT",
        f"{APPLICATIONS}?folder={machine.folder}",
        json.dumps(GOOD).encode(),
        content_type="application/json",
    )
    assert (status, json.loads(body)) == (200, {"warnings": []})
    details = running.client.wait_until_settled()

    assert running.get("/") == (200, "Moin")
    assert details["proxies"]["http"]["status"] == "HEALTHY"
    one = details["applications"]["one"]
    assert (one["status"], one["route_prefix"], one["source"]) == ("RUNNING", "/", "declarative")
    assert one["deployed_app_config"] == GOOD["applications"][0]
    deployment = one["deployments"]["Greeter"]
    assert (deployment["status"], deployment["target_num_replicas"]) == ("HEALTHY", 2)
    assert [replica["state"] for replica in deployment["replicas"]] == ["RUNNING", "RUNNING"]
    assert deployment["deployment_config"]["max_ongoing_requests"] == 5


def test_all_that_is_wrong_is_told_at_once_and_nothing_changes(running: Running) -> None:
    running.put(GOOD)
    running.client.wait_until_settled()
    bad: dict[str, Any] = {
        "hots": 1,
        "http_options": {"port": "high"},
        "applications": [
            {"import_path": "app"},
            {"name": "b", "import_path": "shop:app", "route_prefix": "b"},
        ],
    }

    status, text = running.put(bad)

    assert status == 400
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "hots",
        "applications[0].import_path",
        "applications[1].route_prefix",
        "http_options.port",
    ]
    assert running.statuses() == {"one": "RUNNING"}


@pytest.mark.parametrize(
    "body, told",
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"\xff\xfe\xff", "the body is no JSON"),
        (b"[" * 200_000, "nests too deeply"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": "\\ud800"}', "the body is no JSON"),
        (b'{"a": %s}' % (b"9" * 5000), "the body is no JSON"),
        (b"[]", "is not a mapping"),
        (b'{"applications": []}', "applications: is empty"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(running: Running, body: bytes, told: str) -> None:
    status, text = running.admin("PUT", APPLICATIONS, body)

    assert status == 400
    assert told in text.decode()


def test_yaml_is_read_where_it_is_said_to_be_yaml(running: Running) -> None:
    yaml = {"content_type": "application/yaml"}

    status, text = running.admin("PUT", APPLICATIONS, b"a: 1\na: 2\n", **yaml)
    assert (status, "2:1: " in text.decode()) == (400, True)
    status, text = running.admin("PUT", APPLICATIONS, b"a: &a [*a]", **yaml)
    assert status == 400


def test_a_body_over_the_limit_is_refused_at_once_and_a_chunked_one_when_it_gets_there(
    running: Running,
) -> None:
    status, text = running.admin("PUT", APPLICATIONS, b" " * (BODY_BYTES_MAX + 1))
    assert (status, str(BODY_BYTES_MAX) in text.decode()) == (413, True)

    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(PATIENCE_S)
        raw.connect(running.state.socket_path)
        raw.sendall(f"PUT {APPLICATIONS} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(20):
                raw.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        except OSError:
            pass  # it has stopped reading
        assert raw.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nope", 404),
        ("POST", APPLICATIONS, 405),
        ("GET", "/api/serve/shutdown", 405),
        ("GET", f"{APPLICATIONS}one", 405),
        ("DELETE", f"{APPLICATIONS}nope", 404),
        ("PUT", f"{APPLICATIONS}?folder=relative", 400),
        ("PUT", f"{APPLICATIONS}?nope=/x", 400),
        ("PUT", f"{APPLICATIONS}?%ff", 400),
        ("HEAD", APPLICATIONS, 200),
        ("GET", "/api/ray/version", 200),
        ("GET", "/metrics", 200),
    ],
)
def test_each_path_has_its_methods(running: Running, method: str, path: str, status: int) -> None:
    assert running.admin(method, path, json.dumps(GOOD).encode() if method == "PUT" else b"")[0] == status


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_configuration_whatsoever_is_the_instances_fault(running: Running, data: st.DataObject) -> None:
    """Documents near a good one, with anything anywhere; none is deployed, as no import path is right."""
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(
        [
            "name",
            "route_prefix",
            "args",
            "runtime_env",
            "deployments",
            "logging_config",
            "traffic",
            "import_path",
        ]
    )
    options = st.sampled_from(
        ["http_options", "grpc_options", "logging_config", "proxy_location", "metrics_options"]
    )
    document = {
        **data.draw(st.dictionaries(options, anything, max_size=3)),
        "applications": data.draw(
            st.lists(st.dictionaries(keys, anything, max_size=4), max_size=3) | anything
        ),
        "no_such_key": 1,
    }

    status, _ = running.put(document)

    assert status == 400


def test_over_tcp_pages_and_other_names_are_refused_and_the_log_warns(running: Running) -> None:
    assert over_tcp(running, "GET", APPLICATIONS)[0] == 200
    assert over_tcp(running, "GET", APPLICATIONS, Host="evil.example")[0] == 403
    assert over_tcp(running, "DELETE", APPLICATIONS, Origin="http://evil.example")[0] == 403
    assert "without a token" in running.state.log_path.read_text()


def test_over_tcp_with_a_token_only_its_bearer_may(tmp_path: pathlib.Path) -> None:
    with a_machine(tmp_path) as machine:
        token = "correct horse battery"
        running = machine.start("--admin-port", "0", "--admin-host", "0.0.0.0", "--admin-token", token)

        assert over_tcp(running, "GET", APPLICATIONS)[0] == 401
        assert over_tcp(running, "GET", APPLICATIONS, Authorization="Bearer wrong")[0] == 401
        assert over_tcp(running, "GET", APPLICATIONS, Authorization=f"Bearer {token}", Host="a.b")[0] == 200
        assert running.client.details()["applications"] == {}  # nobody asks on the socket
        assert token not in running.state.log_path.read_text()


@pytest.mark.parametrize(
    "options, told",
    [
        (["--admin-port", "0", "--admin-host", "0.0.0.0"], "it needs --admin-token"),
        (
            ["--admin-port", "0", "--admin-token", "short"],
            "--admin-token: it needs 16 ASCII characters or more",
        ),
        (["--admin-host", "127.0.0.1"], "--admin-host: it goes with --admin-port"),
        (["--admin-port", "70000"], "--admin-port: 70000 is not in 0 to 65535"),
        (["--grpc-port", "70000"], "port: 70000 is not in 0 to 65535"),
    ],
)
def test_a_door_that_would_be_too_open_is_not_opened(
    tmp_path: pathlib.Path, options: list[str], told: str
) -> None:
    run = Machine(tmp_path).run("start", *options)

    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr
    assert "Traceback" not in run.stderr
