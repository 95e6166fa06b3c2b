"""``trio-serve run``, in processes of its own: exit codes, signals, messages, and what answers."""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import grpc
import pytest

from tests.ports import free_port
from tests.shell import Served, Shell

pytestmark = pytest.mark.real_clock

ROOT = pathlib.Path(__file__).parent.parent
GREETER = [
    "--grpc-port",
    "0",
    "--grpc-servicer-functions",
    "helloworld_pb2_grpc.add_GreeterServicer_to_server",
]

SHOP = """\
import os
import time
import trio
import trio_serve as serve
from helloworld_pb2 import HelloReply, HelloRequest

@serve.deployment
class Greeter:
    def __init__(self, word="Hello"):
        self.word = word

    async def SayHello(self, request: HelloRequest) -> HelloReply:
        if request.name == "sleeper":
            open("arrived", "w").close()
            await trio.sleep(0.5)
        if request.name == "for ever":
            open("arrived", "w").close()
            await trio.sleep_forever()
        return HelloReply(message=f"{self.word} {request.name}")

@serve.deployment
class Broken:
    def __init__(self):
        self.open_the_model("model.bin")

    def open_the_model(self, name):
        raise LookupError(f"there is no {name}")

app = Greeter.bind()
broken = Broken.options(max_constructor_retry_count=1).bind()
not_bound = Greeter

def build(args):
    return Greeter.bind(args["word"])

def from_environment(args):
    return Greeter.bind(os.environ["WORD"])
"""


@pytest.fixture(scope="session")
def helloworld(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the code that grpcio-tools generates for helloworld.proto."""
    folder = tmp_path_factory.mktemp("helloworld")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos")),
            *(f"--python_out={folder}", f"--grpc_python_out={folder}", "helloworld.proto"),
        ],
        check=True,
    )
    return folder


@pytest.fixture
def shell(tmp_path: pathlib.Path, helloworld: pathlib.Path) -> Shell:
    (tmp_path / "shop.py").write_text(SHOP)
    return Shell(tmp_path, [helloworld])


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def config(shell: Shell, text: str) -> str:
    (shell.folder / "config.yaml").write_text(textwrap.dedent(text))
    return "config.yaml"


def waiting_call(shell: Shell, served: Served, name: str) -> grpc.Future:
    """A call that is being served."""
    call = served.greet(name)
    served.wait_until(lambda: (shell.folder / "arrived").exists())
    return call


# -- serving -----------------------------------------------------------------------------------------------


def test_an_application_is_served_and_a_signal_ends_it_cleanly(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER) as served:
        assert re.fullmatch(r"127\.0\.0\.1:\d+", served.address)
        assert served.greeting("you") == "Hello you"
        assert served.stop() == 0

        assert served.process.stdout is not None
        assert re.fullmatch(r"http 127.0.0.1:\d+\n", served.process.stdout.read())
        assert re.search(rf"INFO .* -- serving 'default' on grpc {served.address} and http ", served.log)
        assert "SIGTERM: draining, 0 calls in flight" in served.log
        assert "Traceback" not in served.log


def test_a_proto_file_is_enough_to_serve(shell: Shell) -> None:
    proto = str(ROOT / "protos" / "helloworld.proto")

    with shell.serving("shop:app", "--grpc-port", "0", "--proto", proto) as served:
        assert served.greeting("you") == "Hello you"
        assert served.stop(signal.SIGINT) == 0


def test_a_builder_gets_key_value_arguments(shell: Shell) -> None:
    with shell.serving("shop:build", "word=Moin", *GREETER) as served:
        assert served.greeting("you") == "Moin you"


def test_the_command_line_stands_over_the_environment_over_the_file(shell: Shell, used_port: int) -> None:
    file = config(
        shell,
        f"""\
        grpc_options:
          port: {used_port}
          grpc_servicer_functions: [no_such.module]
        applications:
          - import_path: shop:from_environment
            runtime_env: {{env_vars: {{WORD: Servus}}}}
        """,
    )
    servicers = {"TRIO_SERVE_GRPC_SERVICER_FUNCTIONS": GREETER[-1]}

    with shell.serving(file, "--grpc-port", "0", TRIO_SERVE_GRPC_PORT=str(used_port), **servicers) as served:
        assert served.greeting("you") == "Servus you"
    with shell.serving(file, TRIO_SERVE_GRPC_PORT="0", **servicers) as served:
        assert served.greeting("you") == "Servus you"


def test_a_file_finds_the_modules_beside_it_and_sets_options_of_deployments(shell: Shell) -> None:
    folder = shell.folder / "etc"
    folder.mkdir()
    (shell.folder / "shop.py").rename(folder / "shop.py")
    (folder / "config.yaml").write_text(
        "grpc_options: {port: 0, grpc_servicer_functions: [" + GREETER[-1] + "]}\n"
        "applications: [{import_path: shop:app, deployments: [{name: Greeter, num_replicas: 2}]}]\n"
    )

    with shell.serving("etc/config.yaml") as served:
        assert served.greeting("you") == "Hello you"
        assert "'default' Greeter: HEALTHY, 2 RUNNING" in served.log


def test_who_comes_before_it_serves_waits_for_the_answer(shell: Shell, used_port: int) -> None:
    """The port is open while the model is loaded; the call is answered when that is done."""
    (shell.folder / "slow.py").write_text(
        SHOP.replace("self.word = word", "open('loading', 'w'); time.sleep(1); self.word = word")
    )
    port = free_port()

    with shell.serving("slow:app", *GREETER, "--grpc-port", str(port), wait=False) as served:
        served.wait_until(lambda: (shell.folder / "loading").exists())
        with socket.create_connection(("127.0.0.1", port)):
            pass  # it listens
        served.address = f"127.0.0.1:{port}"
        assert served.greeting("early") == "Hello early"
        assert re.search(
            r"'default' Greeter: .*1 STARTING; Greeter#\w+ waits for its constructor\n", served.log
        )


# -- the end -----------------------------------------------------------------------------------------------


def test_a_call_in_flight_finishes_before_the_end(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER) as served:
        call = waiting_call(shell, served, "sleeper")

        assert served.stop() == 0

        assert call.result()[2:] == b"Hello sleeper"
        assert "draining, 1 call in flight" in served.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_off_what_is_left_and_says_so(shell: Shell, second: signal.Signals) -> None:
    with shell.serving("shop:app", *GREETER) as served:
        call = waiting_call(shell, served, "for ever")
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_log("SIGTERM: draining")

        assert served.stop(second) == 1

        assert isinstance(call.exception(), grpc.RpcError)
        cut = "1 call in flight (1 /helloworld.Greeter/SayHello)"
        assert f"{second.name} again: cutting off {cut}\n" in served.log
        assert "Traceback" not in served.log


def test_a_signal_while_it_starts_ends_it_cleanly(shell: Shell) -> None:
    (shell.folder / "slow.py").write_text(SHOP + "open('importing', 'w')\ntime.sleep(30)\n")

    with shell.serving("slow:app", *GREETER, wait=False) as served:
        served.wait_until(lambda: (shell.folder / "importing").exists())
        assert served.stop() == 0

        assert served.log == "stopped before anything was served\n"


# -- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["shop:nope"], "'shop:nope': module 'shop' has no attribute 'nope'\n"),
        (
            ["nowhere:app"],
            "'nowhere:app': there is no module 'nowhere', to take 'app' from, on sys.path, which begins with",
        ),
        (["shop.py"], "MODULE:APP: 'shop.py' is a file; write module and attribute, as in 'shop:app'\n"),
        (
            ["shop:not_bound"],
            "'shop:not_bound' is a deployment; bind its arguments to make it an application: ",
        ),
        (["shop"], "MODULE:APP: 'shop' names no attribute; write 'module:attribute'\n"),
        (["shop:app", "word=Moin"], "'shop:app' is an application and takes no arguments, but got word; "),
        (["shop:app", "--grpc-port", "99999"], "--grpc-port: 99999 is not in 0 to 65535\n"),
        (
            ["shop:app", "--route-prefix", "shop/"],
            "--route-prefix: 'shop/' does not begin with '/'; write '/shop'",
        ),
        (["nope.yaml"], "nope.yaml: cannot be read: No such file or directory\n"),
        (
            ["shop:app", "--proto", "nope.proto", *GREETER, "--grpc-servicer-functions", "nope.add"],
            "'nope.add': there is no module 'nope', to take 'add' from, on sys.path, which",
        ),
    ],
)
def test_a_mistake_is_told_in_its_own_words_with_exit_code_2(
    shell: Shell, arguments: list[str], told: str
) -> None:
    run = shell.run("run", *arguments)

    assert run.returncode == 2
    assert run.stderr.startswith(told)
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["shop:app", "word"], "Error: 'word' is no KEY=VALUE"),
        (["shop:app", "a=1", "a=2"], "Error: 'a' is given twice, as '1' and as '2'"),
        (["shop:app", "--grpc-port", "high"], "'high' is not a valid integer"),
        (["shop:app", "--reload", "--non-blocking"], "Error: --reload needs a terminal"),
        (["shop:app", "--prot", "8000"], "No such option"),
    ],
)
def test_a_command_line_that_cannot_be_read_has_exit_code_2(
    shell: Shell, arguments: list[str], told: str
) -> None:
    run = shell.run("run", *arguments)

    assert run.returncode == 2
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_all_mistakes_of_a_file_are_told_with_their_places(shell: Shell) -> None:
    file = config(
        shell,
        """\
        grpc_options:
          port: high
        applications:
          - name: one
            import_path: app
            route_prefix: one
        """,
    )

    run = shell.run("run", file)

    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "config.yaml:2:9: grpc_options.port: 'high' is not a whole number",
        "config.yaml:5:18: applications[0].import_path: 'app' names no attribute; write 'module:attribute'",
        "config.yaml:6:19: applications[0].route_prefix: 'one' does not begin with '/'; write '/one'",
    ]


def test_and_so_are_those_that_only_the_code_shows(shell: Shell) -> None:
    file = config(
        shell,
        """\
        applications:
          - {name: one, import_path: shop:app, route_prefix: /1, deployments: [{name: Greater}]}
          - {name: two, import_path: shop:ap, route_prefix: /2, runtime_env: {env_vars: {A: x}}}
          - {name: three, import_path: shop:app, route_prefix: /3, runtime_env: {env_vars: {A: y}}}
        """,
    )

    run = shell.run("run", file)

    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "config.yaml:2:79: applications[0].deployments[0].name: there is no deployment 'Greater'; "
        "did you mean 'Greeter'? the application has Greeter",
        "config.yaml:3:30: applications[1].import_path: 'shop:ap': module 'shop' has no attribute 'ap'; "
        "did you mean 'app'?",
        "config.yaml:4:88: applications[2].runtime_env.env_vars.A: 'y' here and 'x' in 'two'; the "
        "applications share one process, whose environment can hold only one of them",
    ]


def test_services_that_are_not_there_are_told_with_their_places(shell: Shell) -> None:
    file = config(
        shell,
        """\
        grpc_options:
          grpc_servicer_functions:
            - nope.add
            - shop:app
          protos: [nope.proto]
        applications: [{import_path: shop:app}]
        """,
    )

    run = shell.run("run", file)

    assert run.returncode == 2
    first, second, third = run.stderr.splitlines()
    assert first.startswith(
        "config.yaml:3:7: grpc_options.grpc_servicer_functions[0]: 'nope.add': there is no"
    )
    assert second.startswith("config.yaml:4:7: grpc_options.grpc_servicer_functions[1]: 'shop:app'")
    assert third.startswith("config.yaml:5:12: grpc_options.protos[0]: ")


def test_a_port_in_use_is_told_before_anything_is_deployed(shell: Shell, used_port: int) -> None:
    run = shell.run("run", "shop:broken", *GREETER, "--grpc-port", str(used_port))

    assert run.returncode == 1
    assert run.stderr == (
        f"port {used_port} on 127.0.0.1 is in use by another program; "
        "stop it or choose another port (port 0 takes a free one)\n"
    )


def test_what_a_module_raises_is_shown_with_its_own_frames_only(shell: Shell) -> None:
    (shell.folder / "bad.py").write_text("import shop\n\ndef load():\n    return 1 / 0\n\nload()\n")

    run = shell.run("run", "bad:app")

    assert run.returncode == 1
    assert run.stderr == textwrap.dedent(
        """\
        importing module 'bad' failed: ZeroDivisionError: division by zero

        Traceback (most recent call last):
          File "bad.py", line 6, in <module>
            load()
          File "bad.py", line 4, in load
            return 1 / 0
        ZeroDivisionError: division by zero
        """
    )


def test_a_constructor_that_raises_is_shown_with_its_own_frames_only(shell: Shell) -> None:
    run = shell.run("run", "shop:broken", "--name", "shop", *GREETER)

    assert run.returncode == 1
    assert run.stderr.endswith(
        textwrap.dedent(
            """\
            application 'shop': deployment 'Broken': LookupError: there is no model.bin

            Traceback (most recent call last):
              File "shop.py", line 24, in __init__
                self.open_the_model("model.bin")
              File "shop.py", line 27, in open_the_model
                raise LookupError(f"there is no {name}")
            LookupError: there is no model.bin
            Raised by the constructor of deployment 'Broken' of application 'shop', which was tried 1 times.
            """
        )
    )
    assert "trio_serve/" not in run.stderr
    assert run.stdout == ""


# -- without a terminal ------------------------------------------------------------------------------------


def test_in_the_background_it_returns_when_it_serves(shell: Shell, tmp_path: pathlib.Path) -> None:
    run = shell.run("run", "shop:app", *GREETER, "--non-blocking", XDG_STATE_HOME=str(tmp_path / "state"))

    assert run.returncode == 0, run.stderr
    told = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    try:
        with grpc.insecure_channel(told["grpc"]) as channel:
            assert channel.unary_unary("/helloworld.Greeter/SayHello")(b"\n\x03you")[2:] == b"Hello you"
        log = pathlib.Path(told["log"])
        assert log.parent == tmp_path / "state" / "trio-serve"
        assert "serving 'default'" in log.read_text()
    finally:
        signal_process(int(told["pid"]), signal.SIGTERM)


def test_in_the_background_what_does_not_start_is_told_here(shell: Shell, tmp_path: pathlib.Path) -> None:
    run = shell.run("run", "shop:broken", "--non-blocking", XDG_STATE_HOME=str(tmp_path / "state"))

    assert run.returncode == 1
    assert run.stdout == ""
    assert "application 'default': deployment 'Broken': LookupError: there is no model.bin\n" in run.stderr


def signal_process(pid: int, number: int) -> None:
    import os

    os.kill(pid, number)


# -- the package -------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_of_weight() -> None:
    program = (
        "import sys, trio_serve, trio_serve.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert set(loaded.split()) & {"trio", "google", "grpc", "grpclib", "attrs", "yaml", "hypercorn"} == set()
