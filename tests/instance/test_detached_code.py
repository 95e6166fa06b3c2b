"""Code that scripts bring to the long-lived instance: that changes, beside a configuration, and from whom."""

import os
import pickle
import socket
import stat
import threading
from typing import Any

import grpc
import pytest

from tests.instance.detached_instance import Machine, Running, greeter, running_as, wait_until
from tests.patience import PATIENCE_S
from trio_serve.instance.far_deployment import ASK, CALL, STREAM
from trio_serve.instance.far_instance import Asked

pytestmark = pytest.mark.real_clock

# -- code that changes ---------------------------------------------------------------------------------------


def test_a_new_version_from_a_script_costs_no_call(machine: Machine) -> None:
    running = machine.start()
    machine.run_script(greeter(0, *running_as("one")))
    done = threading.Event()
    answers: list[tuple[int, str]] = []

    def call_again_and_again() -> None:
        while not done.is_set():
            answers.append(running.get("/one"))

    caller = threading.Thread(target=call_again_and_again)
    caller.start()
    for version in (1, 2, 3):
        machine.run_script(greeter(version, *running_as("one")))
        assert running.get("/one") == (200, f"hi from version {version}")
    done.set()
    caller.join()

    assert {status for status, _ in answers} == {200}
    assert list(dict.fromkeys(answers)) == [(200, f"hi from version {version}") for version in range(4)]


def test_code_by_import_path_comes_from_the_scripts_own_folder_and_is_read_anew(machine: Machine) -> None:
    """Two projects have a module of the same name; one is edited, and its script run again."""
    running = machine.start()
    module = "import trio_serve as serve\n@serve.deployment\ndef app(request):\n    return '{}'\n"
    script = "import app\nserve.connect()\nserve.run(app.app.bind(), name='{0}', route_prefix='/{0}')"
    for project in ("left", "right"):
        (machine.folder / project).mkdir()
        (machine.folder / project / "app.py").write_text(module.format(project))
        machine.run_script(script.format(project), project)
    assert (running.get("/left"), running.get("/right")) == ((200, "left"), (200, "right"))

    (machine.folder / "left" / "app.py").write_text(module.format("LEFT"))
    machine.run_script(script.format("left"), "left")

    assert (running.get("/left"), running.get("/right")) == ((200, "LEFT"), (200, "right"))


# -- beside a configuration ----------------------------------------------------------------------------------

CONFIG = """\
applications:
  - {name: one, import_path: "shop:app", route_prefix: /one}
"""


def test_applications_of_scripts_stand_beside_those_of_a_configuration(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(CONFIG)
    refused = machine.script(greeter(1, *running_as("one")))
    assert "name: 'one' comes from a configuration; change it there" in refused.communicate()[1]
    machine.run_script(greeter(1, *running_as("two")))

    taken = machine.deploy(CONFIG.replace("/one", "/two"))
    assert (taken.returncode, taken.stderr) == (
        2,
        "applications[0].route_prefix: '/two' is the prefix of 'two'; choose another, or null to have none "
        "over HTTP\n",
    )
    assert machine.deploy(CONFIG.replace("/one", "/ONE")).returncode == 0
    assert running.statuses() == {"one": "RUNNING", "two": "RUNNING"}

    assert machine.deploy(CONFIG.replace("name: one", "name: two")).returncode == 0  # takes it over
    assert running.statuses() == {"two": "RUNNING"}
    assert running.get("/one") == (200, "Hello")
    machine.kill()
    running = machine.start()
    assert (running.statuses(), running.get("/one")) == ({"two": "RUNNING"}, (200, "Hello"))


def test_the_commands_delete_what_scripts_deployed(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(CONFIG)
    machine.run_script(greeter(1, *running_as("two", "three")))

    assert machine.run("delete", "two", "-y").returncode == 0
    assert running.statuses() == {"one": "RUNNING", "three": "RUNNING"}
    machine.run_script("serve.connect(); serve.delete('one')")
    assert running.statuses() == {"three": "RUNNING"}
    running.admin("DELETE", "/api/serve/applications/")
    wait_until(lambda: running.statuses() == {})
    machine.kill()
    assert machine.start().statuses() == {}


def test_a_configuration_that_is_deployed_again_brings_the_code_that_was_edited(machine: Machine) -> None:
    running = machine.start()
    (machine.folder / "words.py").write_text("WORD = 'first'\n")
    (machine.folder / "talker.py").write_text(
        "import trio_serve as serve\nfrom words import WORD\n"
        "@serve.deployment\ndef talk(request): return WORD\napp = talk.bind()\n"
    )
    config = CONFIG + '  - {name: two, import_path: "talker:app", route_prefix: /two}\n'

    def replicas(name: str) -> list[str]:
        (deployment,) = running.client.details()["applications"][name]["deployments"].values()
        return [replica["replica_id"] for replica in deployment["replicas"]]

    machine.deploy(config)
    one, two = replicas("one"), replicas("two")
    machine.deploy(config)
    assert (replicas("one"), replicas("two")) == (one, two)

    (machine.folder / "words.py").write_text("WORD = 'newer'\n")
    machine.deploy(config)
    assert running.get("/two") == (200, "newer")
    assert replicas("one") == one

    (machine.folder / "words.py").write_text("WORD = \n")
    broken = machine.deploy(config)
    assert (broken.returncode, broken.stdout) == (1, "one RUNNING\ntwo DEPLOY_FAILED\n")
    assert "SyntaxError" in broken.stderr
    assert running.get("/two") == (200, "newer")


# -- who may send code ---------------------------------------------------------------------------------------


class Intruder:
    """Whoever unpickles it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self._mark,)


def test_no_port_takes_pickles(machine: Machine) -> None:
    """The same bytes do work on the owner's socket, or the silence of the ports would mean nothing."""
    proto = machine.folder / "echo.proto"
    proto.write_text(
        'syntax = "proto3";\npackage echo;\nmessage T {}\nservice Echo { rpc Say(T) returns (T); }\n'
    )
    running = machine.start("--admin-port", "0", "--grpc-port", "0", "--proto", str(proto))
    mark = machine.folder / "mark"
    request = pickle.dumps(Asked("status", (), pickle.dumps(Intruder(str(mark)))))
    ports = [running.addresses[name] for name in ("http", "grpc", "admin-http")]

    for address in ports:
        for method in (ASK, CALL, STREAM):
            assert called(address, method, request) is not grpc.StatusCode.OK
            assert posted(address, method, request) >= 400
        posted(address, "/api/serve/applications/", request)
    posted(f"unix:{machine.state.socket_path}", ASK, request)
    assert not mark.exists()

    called(f"unix:{machine.state.code_socket_path}", ASK, request)
    assert mark.exists()
    assert stat.S_IMODE(os.stat(machine.state.code_socket_path).st_mode) == 0o600


def called(address: str, method: str, request: bytes) -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(method)(request, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return,attr-defined]
    return grpc.StatusCode.OK


def posted(address: str, path: str, body: bytes) -> int:
    if address.startswith("unix:"):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(address.removeprefix("unix:"))
    else:
        host, port = address.split(":")
        raw = socket.create_connection((host, int(port)))
    with raw:
        raw.settimeout(PATIENCE_S)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n"
        raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        line = raw.makefile("rb").readline()
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1") else 400


def test_the_socket_of_somebody_else_is_not_spoken_to(machine: Machine) -> None:
    running: Running = machine.start()
    script = machine.script("import os\nos.geteuid = lambda: 4711\nserve.connect()")

    assert "belongs to another user (uid " in script.communicate()[1]
    assert running.statuses() == {}
