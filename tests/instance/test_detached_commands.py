"""The long-lived instance from the command line: a session, its mistakes, and kills at bad moments."""

import http.client
import os
import pathlib
import signal
import socket
import threading

import pytest
import yaml

from tests.instance.detached_instance import Machine, Running, wait_until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.real_clock

TWO = """\
applications:
  - {name: one, import_path: "shop:build", args: {word: %s}, route_prefix: /one}
  - {name: two, import_path: "shop:app", route_prefix: /two}
"""


# -- a session ---------------------------------------------------------------------------------------------


def test_a_session_from_start_to_shutdown(machine: Machine) -> None:
    running = machine.start()
    assert set(running.addresses) == {"http", "admin", "pid", "log"}

    deployed = machine.deploy(TWO % "Moin")
    assert (deployed.returncode, deployed.stdout, deployed.stderr) == (0, "one RUNNING\ntwo RUNNING\n", "")
    assert (running.get("/one"), running.get("/two")) == ((200, "Moin"), (200, "Hello"))

    status = yaml.safe_load(machine.run("status").stdout)
    assert status["proxies"] == {"http": "HEALTHY"}
    assert status["applications"]["one"]["deployments"]["Greeter"] == {
        "status": "HEALTHY",
        "status_trigger": "CONFIG_UPDATE_COMPLETED",
        "replica_states": {"RUNNING": 2},
        "message": "",
    }
    assert yaml.safe_load(machine.run("status", "-n", "two").stdout)["status"] == "RUNNING"
    (config,) = yaml.safe_load_all(machine.run("config", "--name", "one").stdout)
    assert config == yaml.safe_load(TWO % "Moin")["applications"][0]

    assert machine.run("delete", "one", "-y").returncode == 0
    assert running.get("/one")[0] == 404
    assert running.statuses() == {"two": "RUNNING"}

    assert machine.run("shutdown", "-y").returncode == 0
    assert not machine.state.is_owned()
    assert not pathlib.Path(machine.state.socket_path).exists()
    assert machine.start().statuses() == {}


def test_what_is_not_in_the_file_goes_and_what_has_not_changed_keeps_its_replicas(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(TWO % "Moin")

    def replicas(name: str) -> list[str]:
        deployment = running.client.details()["applications"][name]["deployments"]["Greeter"]
        return [replica["replica_id"] for replica in deployment["replicas"]]

    two = replicas("two")
    machine.deploy(TWO % "Servus")
    assert (running.get("/one"), replicas("two")) == ((200, "Servus"), two)

    deployed = machine.deploy('applications: [{name: two, import_path: "shop:app", route_prefix: /two}]\n')
    assert deployed.stdout == "two RUNNING\n"
    assert running.statuses() == {"two": "RUNNING"}
    assert replicas("two") == two


@pytest.mark.parametrize("broken", ["import_path: shop:nope", "import_path: shop:build, args: {broken: 1}"])
def test_what_fails_keeps_its_old_version_and_says_why(machine: Machine, broken: str) -> None:
    running = machine.start()
    machine.deploy(TWO % "Moin")

    deployed = machine.deploy(f"applications: [{{name: one, {broken}, route_prefix: /one}}]\n")

    assert deployed.returncode == 1
    assert deployed.stdout == "one DEPLOY_FAILED\n"
    assert deployed.stderr.startswith("application 'one': ")
    assert "trio_serve/" not in deployed.stderr
    assert running.get("/one") == (200, "Moin")
    assert machine.deploy(TWO % "Moin").returncode == 0


def test_a_file_with_mistakes_is_told_with_its_places_and_exit_code_2(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(TWO % "Moin")

    deployed = machine.deploy("applications:\n  - import_path: app\n    route_prefix: one\n")

    assert deployed.returncode == 2
    assert [line.split(" ")[0] for line in deployed.stderr.splitlines()] == [
        "config.yaml:2:18:",
        "config.yaml:3:19:",
    ]
    assert running.statuses() == {"one": "RUNNING", "two": "RUNNING"}


def test_commands_without_an_instance_say_how_to_start_one(machine: Machine) -> None:
    config = machine.write(TWO % "Moin")
    for command in (["status"], ["config"], ["delete", "one", "-y"], ["shutdown", "-y"], ["deploy", config]):
        run = machine.run(*command)

        assert (run.returncode, run.stdout) == (1, "")
        assert (
            run.stderr == f"no instance is running in {machine.state.path}; `trio-serve start` starts one\n"
        )


def test_an_application_that_is_not_there_is_told(machine: Machine) -> None:
    machine.start()

    assert machine.run("status", "-n", "x").stderr == "there is no application 'x'; there are: none\n"
    deleted = machine.run("delete", "x", "-y")
    assert (deleted.returncode, deleted.stderr) == (2, "no application 'x' is wanted; there are: none\n")


def test_a_second_instance_is_refused_and_the_first_serves_on(machine: Machine) -> None:
    running = machine.start()

    second = machine.run("start")

    assert second.returncode == 1
    assert f"already (process {running.pid}); `trio-serve shutdown` ends it" in second.stderr
    assert running.statuses() == {}


def test_a_port_in_use_is_told(machine: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        run = machine.run("start", "--port", str(port))

    assert run.returncode == 1
    assert run.stderr.startswith(f"port {port} on 127.0.0.1 is in use by another program; ")
    assert "Traceback" not in run.stderr


def test_a_call_in_flight_finishes_when_all_is_shut_down(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(TWO % "Moin")
    answers: list[tuple[int, str]] = []
    caller = threading.Thread(target=lambda: answers.append(running.get("/one?sleep")))
    caller.start()
    wait_until((machine.folder / "arrived").exists)

    running.client.shut_down()  # sooner than a command could be there

    caller.join()
    assert answers == [(200, "Moin")]


def test_a_configuration_that_names_services_opens_the_grpc_proxy(machine: Machine) -> None:
    running = machine.start("--grpc-port", "0")
    (machine.folder / "echo.proto").write_text(
        'syntax = "proto3";\npackage echo;\nmessage Text { string text = 1; }\n'
        "service Echo { rpc Say(Text) returns (Text); }\n"
    )

    deployed = machine.deploy("grpc_options: {protos: [echo.proto]}\n" + TWO % "Moin")

    assert (deployed.returncode, deployed.stderr) == (0, "")
    assert running.client.details()["proxies"].keys() == {"http", "grpc"}
    again = machine.deploy("http_options: {root_path: /x}\n" + TWO % "Moin")
    assert "warning: http_options: what is open already keeps its options" in again.stderr


# -- kills -------------------------------------------------------------------------------------------------


def test_an_instance_that_was_killed_comes_back_with_its_applications(machine: Machine) -> None:
    machine.start()
    machine.deploy(TWO % "Moin")
    machine.kill()

    running = machine.start()

    assert running.statuses() == {"one": "RUNNING", "two": "RUNNING"}
    assert (running.get("/one"), running.get("/two")) == ((200, "Moin"), (200, "Hello"))


def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_it(machine: Machine) -> None:
    machine.start()
    machine.deploy('applications: [{name: s, import_path: "shop:slow"}]\n', "--no-wait")
    wait_until((machine.folder / "constructing").exists)
    machine.kill()
    (machine.folder / "go on").touch()

    running = machine.start()

    assert running.get("/") == (200, "slow")


def test_a_desired_state_that_is_broken_is_set_aside_and_told(machine: Machine) -> None:
    machine.state.make()
    machine.state.write_desired_state("{config: [")

    running = machine.start()

    assert running.statuses() == {}
    assert "what ran here before is not restored" in running.state.log_path.read_text()
    assert (machine.state.path / "desired.broken").read_text() == "{config: ["


def test_a_client_that_is_killed_while_it_waits_leaves_the_deployment_going_on(machine: Machine) -> None:
    running = machine.start()
    waiting = machine.popen("deploy", machine.write('applications: [{name: s, import_path: "shop:slow"}]\n'))
    wait_until((machine.folder / "constructing").exists)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    assert running.statuses() == {"s": "DEPLOYING"}

    (machine.folder / "go on").touch()

    running.client.wait_until_settled()
    assert running.get("/") == (200, "slow")


def test_a_newer_deploy_replaces_one_that_does_not_get_done(machine: Machine) -> None:
    running = machine.start()
    machine.deploy('applications: [{name: one, import_path: "shop:slow", route_prefix: /one}]\n', "--no-wait")
    wait_until((machine.folder / "constructing").exists)

    newer = machine.deploy(TWO % "Moin")  # nobody has let the constructor go on

    assert newer.returncode == 0
    assert running.get("/one") == (200, "Moin")


def test_a_client_that_leaves_in_the_middle_of_its_configuration_changes_nothing(machine: Machine) -> None:
    running = machine.start()
    machine.deploy(TWO % "Moin")
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(running.state.socket_path)
            raw.sendall(b"PUT /api/serve/applications/ HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n{")

    assert running.statuses() == {"one": "RUNNING", "two": "RUNNING"}


def test_redeploying_again_and_again_under_load_costs_no_call(machine: Machine) -> None:
    """Two clients call without a break while the code's arguments, and with them all replicas, change."""
    running = machine.start()
    machine.deploy(TWO % "Moin")
    done = threading.Event()
    answers: list[tuple[int, str]] = []

    def call_again_and_again() -> None:
        connection = http.client.HTTPConnection(running.addresses["http"], timeout=PATIENCE_S)
        while not done.is_set():
            connection.request("GET", "/one")
            response = connection.getresponse()
            answers.append((response.status, response.read().decode()))
        connection.close()

    callers = [threading.Thread(target=call_again_and_again) for _ in range(2)]
    for caller in callers:
        caller.start()
    words = [f"word{number}" for number in range(20)]
    for word in words:
        running.client.deploy((TWO % word).encode(), os.fspath(machine.folder))
        running.client.wait_until_settled()
        assert running.get("/one") == (200, word)
    done.set()
    for caller in callers:
        caller.join()

    assert {status for status, _ in answers} == {200}
    assert len({word for _, word in answers}) > len(words) / 2
    assert list(dict.fromkeys(word for _, word in answers if word in words)) == sorted(
        {word for _, word in answers if word in words}, key=words.index
    )


def test_sigterm_drains_and_the_next_instance_goes_on(machine: Machine) -> None:
    blocking = machine.popen("start", "--blocking")
    wait_until(lambda: pathlib.Path(machine.state.socket_path).exists())
    machine.deploy(TWO % "Moin")
    blocking.send_signal(signal.SIGTERM)

    assert blocking.wait(PATIENCE_S) == 0
    assert isinstance(machine.start(), Running)
    assert yaml.safe_load(machine.run("status", "-n", "one").stdout)["status"] == "RUNNING"
