"""Scripts and the long-lived instance: who outlives whom, kills at bad moments, and code that changes."""

import os
import pathlib
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.instance.detached_instance import Machine, Running, a_machine, wait_until
from trio_serve.instance.far_deployment import ASK, CALL, STREAM
from trio_serve.instance.far_instance import Asked

pytestmark = pytest.mark.real_clock

GREETER = """
@serve.deployment(num_replicas=2)
class Greeter:
    def __init__(self, word):
        self.word = word
    async def __call__(self, request):
        return f"{self.word} from version %s"
"""


def greeter(version: int, *lines: str) -> str:
    """A script that connects, has a class of its own, and does what the ``lines`` say."""
    return "\n".join(("serve.start(detached=True)", GREETER % version, *lines))


def running_as(*names: str) -> list[str]:
    return [f"serve.run(Greeter.bind('hi'), name='{name}', route_prefix='/{name}')" for name in names]


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[Machine]:
    with a_machine(tmp_path) as machine:
        yield machine


# -- who outlives whom ---------------------------------------------------------------------------------------


def test_one_script_starts_it_another_finds_it_and_a_third_ends_it(machine: Machine) -> None:
    machine.run_script(greeter(1, *running_as("greeter")))
    running = machine.found()
    assert running.get("/greeter") == (200, "hi from version 1")

    printed = machine.run_script(
        """
        client = serve.start(detached=True)   # finds it
        print(list(serve.status().applications), type(client).__name__)
        """,
        project="elsewhere",
    )
    assert printed == "['greeter'] Client\n"
    own = machine.run_script(
        """
        @serve.deployment
        def mine(request): return "mine"
        serve.start(http_options={"port": 0})
        serve.run(mine.bind(), name="mine", route_prefix="/mine")
        print(list(serve.status().applications))
        """
    )
    assert own == "['mine']\n"
    assert running.statuses() == {"greeter": "RUNNING"}
    (application,) = running.client.details()["applications"].values()
    assert application["source"] == "imperative"
    began = os.stat(machine.state.socket_path).st_mtime
    for replica in application["deployments"]["Greeter"]["replicas"]:
        assert began - 1 <= replica["start_time_s"] <= time.time()

    machine.run_script("serve.connect().shutdown()", project="elsewhere")
    assert not machine.state.is_owned()
    assert {path.name for path in machine.state.path.iterdir() if not path.name.startswith("session_")} == {
        *("lock", "output.log")
    }


def test_two_scripts_that_start_it_at_once_get_the_same_one(machine: Machine) -> None:
    scripts = [machine.script("serve.start(detached=True); print(serve.http_port())") for _ in range(2)]

    printed = {script.communicate()[0] for script in scripts}

    assert [script.returncode for script in scripts] == [0, 0]
    assert printed == {machine.found().addresses["http"].rpartition(":")[2] + "\n"}


def test_an_instance_that_does_not_start_says_why_in_the_script(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        script = machine.script(
            f"serve.start(detached=True, grpc_options={{'port': {port}, 'protos': ['no.proto']}})"
        )
        errors = script.communicate()[1]

    assert script.returncode == 1
    assert errors.splitlines()[-1].startswith(
        "trio_serve.instance.background.DidNotStart: grpc_options.protos[0]"
    )


def test_options_that_come_too_late_are_told_and_the_grpc_proxy_opens(machine: Machine) -> None:
    running = machine.start()
    (machine.folder / "echo.proto").write_text(
        'syntax = "proto3";\npackage echo;\nmessage Text { string text = 1; }\n'
        "service Echo { rpc Say(Text) returns (Text); }\n"
    )
    script = machine.script(
        f"""
        grpc_options = {{"port": 0, "protos": ["{machine.folder}/echo.proto"]}}
        http_options = {{"root_path": "/x"}}
        serve.start(
            detached=True, grpc_options=grpc_options, http_options=http_options, metrics_options={{}}
        )
        print(serve.grpc_port() is not None)
        """
    )
    printed, warnings = script.communicate()

    assert printed == "True\n"
    later = "these come into force when the instance is started again"
    assert warnings.splitlines() == [
        f"http_options: what is open already keeps its options; {later}",
        f"metrics_options: nothing is open for them; {later}",
    ]
    assert running.client.details()["proxies"].keys() == {"http", "grpc"}


def test_it_ends_with_the_process_that_it_was_told_to_end_with(machine: Machine) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    machine.start("--end-with-pid", str(parent.pid))
    assert machine.state.is_owned()

    parent.kill()
    wait_until(lambda: not machine.state.is_owned())
    parent.wait()
    assert parent.stdin is not None
    parent.stdin.close()


# -- kills ---------------------------------------------------------------------------------------------------


def test_what_scripts_deployed_survives_a_kill_of_the_instance(machine: Machine) -> None:
    """Code of ``__main__``, code by import path, backends with a changed config, endpoints and traffic."""
    of_today = """
serve.run(Greeter.bind("ho"), name="gone", route_prefix="/gone")
serve.run(Greeter.bind("ho"), name="canary", route_prefix=None)
serve.set_traffic("greeter", {"greeter": 1.0}, sticky="x-user")
serve.shadow_traffic("greeter", "canary", 0.25)
serve.delete("gone")
"""
    of_before = """
class Counter:
    def __init__(self, start): self.value = start
    def __call__(self, request):
        self.value += 1
        return str(self.value)
client = serve.connect()
client.create_backend("counter", Counter, 10)
client.create_backend("shop", "shop.Greeter.func_or_class", "by path")
client.update_backend_config("counter", {"max_concurrent_queries": 3})
client.update_backend_config("counter", {"num_replicas": 2})
client.create_endpoint("count", backend="counter", route="/count")
client.create_endpoint("gone", backend="counter")
client.set_traffic("count", {"shop": 1.0})
client.delete_endpoint("gone")
"""
    machine.run_script(greeter(1, *running_as("greeter"), of_today, of_before), project=".")
    assert stat.S_IMODE(machine.state.scripted_path.stat().st_mode) == 0o600
    machine.kill()

    running = machine.start()

    assert running.statuses() == dict.fromkeys(("greeter", "canary", "counter", "shop"), "RUNNING")
    assert running.get("/greeter") == (200, "hi from version 1")
    assert running.get("/count") == (200, "by path")
    printed = machine.run_script(
        """
        client = serve.connect()
        print(client.get_backend_config("counter").num_replicas)
        print(client.get_backend_config("counter").max_concurrent_queries)
        print(client.list_endpoints())
        """
    )
    assert printed.splitlines() == [
        *("2", "3"),
        "{'count': {'route': '/count', 'methods': ['GET'], 'traffic': {'shop': 1.0}, 'shadows': {}}}",
    ]


def test_what_cannot_be_restored_is_told_and_does_not_keep_the_rest(machine: Machine) -> None:
    (machine.folder / "other.py").write_text(
        "import trio_serve as serve\n@serve.deployment\ndef mine(request): return 'mine'\n"
    )
    machine.run_script(
        """
        serve.start(detached=True)
        import shop, other
        serve.run(other.mine.bind(), name="other", route_prefix="/other")
        serve.run(shop.app, name="shop", route_prefix="/shop")
        """,
        project=".",
    )
    machine.kill()
    (machine.folder / "other.py").unlink()

    running = machine.start()

    assert running.statuses() == {"shop": "RUNNING", "other": "DEPLOY_FAILED"}
    told = running.client.details()["applications"]["other"]["message"]
    assert told.startswith("not restored, and tried again at the next start: ")
    assert told.endswith("No module named 'other'")
    assert "application other: not restored: " in running.state.log_path.read_text()

    machine.run_script("serve.connect(); serve.delete('other')")

    assert running.statuses() == {"shop": "RUNNING"}


def test_a_state_of_scripts_that_is_broken_is_set_aside(machine: Machine) -> None:
    machine.state.make()
    machine.state.write_scripted(b"no pickle")

    running = machine.start()

    assert running.statuses() == {}
    assert "what scripts deployed here is not restored" in running.state.log_path.read_text()
    assert (machine.state.path / "scripted.broken").read_bytes() == b"no pickle"


SLOW = """
    import pathlib, time
    serve.connect()
    @serve.deployment
    class Slow:
        def __init__(self):
            pathlib.Path("{here}/constructing").touch()
            while not pathlib.Path("{here}/go on").exists():
                time.sleep(0.01)
        def __call__(self, request):
            return "slow"
    serve.run(Slow.bind(), name="{name}", route_prefix="/{name}")
"""


@pytest.mark.parametrize("name", ["one", "new"])
def test_a_script_that_is_killed_while_it_deploys_leaves_all_as_it_was(machine: Machine, name: str) -> None:
    running = machine.start()
    machine.run_script(greeter(1, *running_as("one")))
    script = machine.script(SLOW.format(here=machine.folder, name=name))
    wait_until((machine.folder / "constructing").exists)
    assert running.get("/one") == (200, "hi from version 1")

    script.send_signal(signal.SIGKILL)
    script.wait()
    (machine.folder / "go on").touch()

    def is_as_before() -> bool:
        statuses = running.statuses()
        return set(statuses) == {"one"} and statuses["one"] != "DEPLOYING"

    wait_until(is_as_before)
    assert running.get("/one") == (200, "hi from version 1")
    machine.run_script(greeter(2, *running_as("one")))
    assert running.get("/one") == (200, "hi from version 2")
    machine.kill()
    assert machine.start().get("/one") == (200, "hi from version 2")


def test_the_calls_of_a_script_that_is_killed_end_with_it(machine: Machine) -> None:
    machine.start()
    script = machine.script(
        f"""
        import pathlib
        serve.connect()
        @serve.deployment
        class Sleeper:
            async def __call__(self):
                import trio
                pathlib.Path("{machine.folder}/began").touch()
                try:
                    await trio.sleep_forever()
                finally:
                    pathlib.Path("{machine.folder}/ended").touch()
        serve.run(Sleeper.bind()).remote().result()
        """
    )
    wait_until((machine.folder / "began").exists)

    script.send_signal(signal.SIGKILL)

    wait_until((machine.folder / "ended").exists)


def test_a_script_sees_that_the_instance_was_killed_and_finds_the_next_one(machine: Machine) -> None:
    machine.start()
    script = machine.script(
        """
        import sys
        from trio_serve.serving.errors import ServeError
        serve.connect()
        @serve.deployment
        class Sleeper:
            async def __call__(self):
                import trio
                await trio.sleep_forever()
            def awake(self):
                return "awake"
        handle = serve.run(Sleeper.bind())
        response = handle.remote()
        print(handle.awake.remote().result(), flush=True)
        try:
            response.result()
        except ServeError as error:
            print(type(error).__name__, flush=True)
        sys.stdin.readline()
        try:
            serve.status()
        except RuntimeError as error:
            print(error, flush=True)
        sys.stdin.readline()
        while True:
            try:
                print(handle.awake.remote().result(), flush=True)
                break
            except ServeError:
                pass
        """,
        stdin=True,
    )
    assert script.stdout is not None
    assert script.stdin is not None
    assert script.stdout.readline() == "awake\n"
    machine.kill()
    assert script.stdout.readline() == "InstanceEnded\n"
    script.stdin.write("it is dead\n")  # before that, its sockets may be gone and its lock still there
    script.stdin.flush()
    assert script.stdout.readline().startswith(f"no instance is running in {machine.state.path}; `trio-serve")
    machine.start()
    assert script.communicate("go on\n")[0] == "awake\n"


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
            channel.unary_unary(method)(request, timeout=10)
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
        raw.settimeout(10)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n"
        raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        line = raw.makefile("rb").readline()
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1") else 400


def test_the_socket_of_somebody_else_is_not_spoken_to(machine: Machine) -> None:
    running: Running = machine.start()
    script = machine.script("import os\nos.geteuid = lambda: 4711\nserve.connect()")

    assert "belongs to another user (uid " in script.communicate()[1]
    assert running.statuses() == {}
