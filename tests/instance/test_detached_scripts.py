"""Scripts and the long-lived instance: who outlives whom, and kills at bad moments."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from tests.instance.detached_instance import Machine, greeter, running_as, wait_until

pytestmark = pytest.mark.real_clock

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
