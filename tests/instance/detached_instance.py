"""A long-lived instance in a process of its own, and the ways to speak to it."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.patience import PATIENCE_S
from tests.shell import Shell
from trio_serve.instance.admin_client import AdminClient
from trio_serve.instance.state_directory import StateDirectory

SHOP = """\
import pathlib
import time
import trio
import trio_serve as serve

HERE = pathlib.Path(__file__).parent

@serve.deployment(num_replicas=2)
class Greeter:
    def __init__(self, word="Hello"):
        self.word = word

    async def __call__(self, request):
        if "sleep" in request.query_params:
            (HERE / "arrived").touch()
            await trio.sleep(0.7)
        return self.word

@serve.deployment(max_constructor_retry_count=1)
class Slow:
    def __init__(self):
        (HERE / "constructing").touch()
        while not (HERE / "go on").exists():
            time.sleep(0.01)

    async def __call__(self, request):
        return "slow"

@serve.deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self):
        raise LookupError("there is no model.bin")

app = Greeter.bind()
slow = Slow.bind()
broken = Broken.bind()

def build(args):
    if "broken" in args:
        return Broken.bind()
    return Greeter.bind(args["word"])
"""

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


class Running:
    """An instance: ``addresses`` by name, and its process."""

    def __init__(self, state: StateDirectory, addresses: dict[str, str]) -> None:
        self.state = state
        self.addresses = addresses
        self.client = AdminClient(state)

    @property
    def pid(self) -> int:
        return int(self.addresses["pid"])

    def get(self, path: str) -> tuple[int, str]:
        """What the HTTP proxy answers."""
        connection = http.client.HTTPConnection(self.addresses["http"], timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def statuses(self) -> dict[str, str]:
        return {name: app["status"] for name, app in self.client.details()["applications"].items()}

    def admin(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """What the admin socket answers to bytes of any kind."""
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(PATIENCE_S)
            raw.connect(self.state.socket_path)
            request = (
                f"{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{head}\r\n"
            )
            raw.sendall(request.encode() + body)
            response = http.client.HTTPResponse(raw, method=method)
            response.begin()
            return response.status, response.read()

    def put(self, config: Any) -> tuple[int, str]:
        status, body = self.admin("PUT", "/api/serve/applications/", json.dumps(config).encode())
        return status, body.decode()


class Machine(Shell):
    """Starts instances whose state lies in ``folder/state``."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder, [folder])
        self.state = StateDirectory(folder / "state")
        self._environment["TRIO_SERVE_STATE_DIR"] = str(self.state.path)
        (folder / "shop.py").write_text(SHOP)
        self._scripts: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> Running:
        run = self.run("start", *options)
        assert run.returncode == 0, run.stderr
        return Running(self.state, dict(line.split(" ", 1) for line in run.stdout.splitlines()))

    def write(self, text: str) -> str:
        (self.folder / "config.yaml").write_text(text)
        return "config.yaml"

    def deploy(self, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("deploy", self.write(text), *options)

    def popen(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "trio_serve", *arguments], cwd=self.folder, env=self._environment
        )

    def found(self) -> Running:
        """The instance that somebody else has started."""
        client = AdminClient(self.state)
        (started,) = re.findall("serves on (.*)", self.state.log_path.read_text())
        addresses = dict(each.split(" ", 1) for each in started.split(" and "))
        assert client.details()
        return Running(self.state, {**addresses, "pid": (self.state.path / "lock").read_text()})

    def script(self, text: str, project: str = "project", *, stdin: bool = False) -> "subprocess.Popen[str]":
        """Start a script of its own project: a folder that is its working directory, and nothing of ours."""
        folder = self.folder / project
        folder.mkdir(exist_ok=True)
        path = folder / f"script{len(list(folder.glob('script*')))}.py"
        path.write_text("import trio_serve as serve\n" + textwrap.dedent(text))
        environment = {name: value for name, value in self._environment.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [sys.executable, path.name],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._scripts.append(process)
        return process

    def run_script(self, text: str, project: str = "project") -> str:
        """Run a script to its end, which is to be a good one; what it has printed."""
        process = self.script(text, project)
        printed, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        return printed

    def end_scripts(self) -> None:
        for process in self._scripts:
            process.kill()
            process.communicate()

    def kill(self) -> None:
        """Kill whatever instance is there, as the kernel does when memory is short, and wait for its end."""
        if self.state.is_owned():
            os.kill(int((self.state.path / "lock").read_text()), signal.SIGKILL)
        wait_until(lambda: not self.state.is_owned())


@contextlib.contextmanager
def a_machine(folder: pathlib.Path) -> Iterator[Machine]:
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.end_scripts()
        machine.kill()


def wait_until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.01)
