"""Plain scripts: an instance in a background thread, synchronous names, and an end with the script."""

import contextlib
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import IO

import pytest

import trio_serve as serve
from tests.patience import PATIENCE_S
from trio_serve.instance.settings import Mistakes

pytestmark = pytest.mark.real_clock

ROOT = pathlib.Path(__file__).parent.parent.parent
PROTO = str(ROOT / "protos" / "helloworld.proto")


@serve.deployment
class Echo:
    def __call__(self, text: str) -> str:
        return f"echo {text}"

    def whose(self) -> object:
        return serve.get_app_handle("app")


@serve.deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self) -> None:
        raise LookupError("no model")

    def __call__(self) -> None: ...


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """The instance is gone after the test, its thread too."""
    try:
        yield
    finally:
        serve.shutdown()
    assert [thread.name for thread in threading.enumerate() if thread.name == "trio_serve"] == []


@pytest.mark.usefixtures("nothing_left")
def test_every_name_is_synchronous() -> None:
    handle = serve.run(Echo.bind(), name="app", route_prefix="/app")
    assert handle.remote("hi").result(timeout_s=10) == "echo hi"
    assert serve.get_app_handle("app").remote("hi").result(timeout_s=10) == "echo hi"
    assert serve.get_deployment_handle("Echo", "app").remote("hi").result(timeout_s=10) == "echo hi"
    assert serve.status().applications["app"].status == "RUNNING"

    (again,) = serve.run_many([serve.RunTarget(Echo.bind(), "second", None)])
    assert again.remote("hi").result(timeout_s=10) == "echo hi"
    serve.delete("app")
    assert list(serve.status().applications) == ["second"]

    serve.shutdown()
    with pytest.raises(RuntimeError, match=r"no instance is running in this program; serve.start\(\) or"):
        serve.status()


@pytest.mark.usefixtures("nothing_left")
def test_start_opens_the_proxies_and_a_second_one_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    serve.start(grpc_options={"port": 0, "protos": [PROTO]})
    port = serve.grpc_port()
    assert port

    serve.start(grpc_options={"port": 1, "protos": [PROTO]})

    assert serve.grpc_port() == port
    assert "an instance is running already, the options of start() do not change it" in caplog.text


@pytest.mark.usefixtures("nothing_left")
def test_no_proxy_opens_where_none_is_wanted() -> None:
    serve.start(proxy_location="Disabled", grpc_options={"port": 0, "protos": [PROTO]})

    assert serve.grpc_port() is None


@pytest.mark.usefixtures("nothing_left")
def test_code_in_a_thread_of_a_replica_finds_the_instance() -> None:
    handle = serve.run(Echo.bind(), name="app")

    assert handle.whose.remote().result(timeout_s=10).app_name == "app"


@pytest.mark.usefixtures("nothing_left")
def test_errors_are_raised_in_the_script_as_they_are() -> None:
    with pytest.raises(Mistakes, match=r"^grpc_options.port: -1 is not in 0 to 65535$"):
        serve.start(grpc_options={"port": -1})
    with pytest.raises(
        Mistakes, match=r"^grpc_options.grpc_servicer_functions\[0\]: 'no.where': there is no"
    ):
        serve.start(grpc_options={"port": 0, "grpc_servicer_functions": ["no.where"]})
    with pytest.raises(RuntimeError, match="no instance is running"):
        serve.status()  # what failed has left nothing behind

    with pytest.raises(LookupError, match="no model"):
        serve.run(Broken.bind())
    with pytest.raises(TypeError, match="got the deployment 'Echo'"):
        serve.run(Echo)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no application 'nope' is deployed"):
        serve.delete("nope")


def test_shutdown_without_an_instance_does_nothing() -> None:
    serve.shutdown()


# -- scripts of their own ------------------------------------------------------------------------------------

HEAD = """
import sys, time, threading
import trio_serve as serve

@serve.deployment
class Echo:
    def __call__(self, text):
        return f"echo {text}"
    async def slow(self):
        import trio
        print("at work", flush=True)
        at_work.set()
        await trio.sleep(0.5)
        print("worked", flush=True)
    async def endless(self):
        import trio
        print("at work", flush=True)
        await trio.sleep_forever()

at_work = threading.Event()
"""

PORT_0 = "serve.start(http_options={'port': 0})\n"
"""A fixed port may be another program's."""


def script(body: str) -> list[str]:
    return [sys.executable, "-c", HEAD + textwrap.dedent(body)]


def run(body: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        script(body), capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, check=False
    )


def test_the_instance_is_gone_when_the_script_ends() -> None:
    ended = run(
        PORT_0 + "serve.run(Echo.bind()); print(serve.get_app_handle('default').remote('hi').result())"
    )

    assert (ended.returncode, ended.stdout) == (0, "echo hi\n")
    assert "Traceback" not in ended.stderr


def test_and_when_it_ends_with_an_error() -> None:
    ended = run(PORT_0 + "serve.run(Echo.bind()); raise KeyError('mine')")

    assert ended.returncode == 1
    assert ended.stderr.endswith("KeyError: 'mine'\n")
    assert ended.stderr.count("Traceback") == 1


def test_calls_in_flight_at_the_end_of_the_script_finish() -> None:
    ended = run(PORT_0 + "response = serve.run(Echo.bind()).slow.remote(); at_work.wait()")

    assert (ended.returncode, ended.stdout) == (0, "at work\nworked\n")


@contextlib.contextmanager
def blocking(body: str) -> "Iterator[subprocess.Popen[str]]":
    """A script in its blocking run, with the calls in flight that ``body`` made."""
    process = subprocess.Popen(
        script(
            PORT_0
            + body
            + "serve.run(Echo.bind(), name='second', route_prefix='/second', blocking=True)\nprint('after')"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    try:
        read_until(process.stdout, "at work")
        read_until(process.stderr, "serving until SIGINT or SIGTERM")
        yield process
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def read_until(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    for line in stream:
        if text in line:
            return
    raise AssertionError(f"{text!r} was not written")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_blocking_run_ends_with_a_signal_which_drains(number: signal.Signals) -> None:
    with blocking("response = serve.run(Echo.bind()).slow.remote()\n") as process:
        process.send_signal(number)
        rest, errors = process.communicate()

    assert (process.returncode, rest) == (0, "worked\nafter\n")
    assert f"{number.name}: finishing the calls in flight; again to cut them off" in errors
    assert "Traceback" not in errors


def test_a_second_signal_cuts_it_short() -> None:
    with blocking("response = serve.run(Echo.bind()).endless.remote()\n") as process:
        process.send_signal(signal.SIGTERM)
        read_until(process.stderr, "again to cut them off")
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate()

    assert (process.returncode, rest) == (0, "after\n")
    assert "cutting off what is still in flight" in errors
    assert "Traceback" not in errors


def test_the_scripts_own_logging_stands() -> None:
    ended = run(
        "import logging; logging.basicConfig(format='mine: %(message)s', level=20)\n"
        + PORT_0
        + "serve.run(Echo.bind()); logging.getLogger('trio_serve.x').info('hello')"
    )

    assert "mine: hello" in ended.stderr
    assert "INFO 20" not in ended.stderr
