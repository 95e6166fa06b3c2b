"""The command line as a person uses it: ``trio-serve`` in a process of its own, and grpcio to call it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import grpc

from tests.patience import PATIENCE_S


class Shell:
    """Runs ``trio-serve`` in ``folder``, with nothing of ours in the environment but what is given."""

    def __init__(self, folder: pathlib.Path, import_folders: list[pathlib.Path]) -> None:
        self.folder = folder
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIO_SERVE_")}
        self._environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(map(str, import_folders)),
            "TRIO_SERVE_PORT": "0",  # of the HTTP proxy, which is always open
            "TRIO_SERVE_END_WITH_PID": str(os.getpid()),  # a test run that is killed leaves no instance
        }

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run to the end; for what is not expected to serve."""
        return subprocess.run(
            [sys.executable, "-m", "trio_serve", *arguments],
            cwd=self.folder,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @contextlib.contextmanager
    def serving(self, *arguments: str, wait: bool = True, **environment: str) -> Iterator["Served"]:
        """Serve for the length of the block; killed at its end when the test has not stopped it."""
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "trio_serve", "run", *arguments],
                cwd=self.folder,
                env={**self._environment, **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            served = Served(process, errors)
            try:
                if wait:
                    served.read_address()
                yield served
            finally:
                process.kill()
                process.communicate()
                served.close()


class Served:
    """One server process."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self.process = process
        self.address = ""
        self._errors = errors
        self._channels: list[grpc.Channel] = []

    def read_address(self) -> str:
        """The address of the gRPC proxy, as the process tells it when it serves."""
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith("grpc "):
            assert line, self.log
        self.address = line.removeprefix("grpc ").strip()
        return self.address

    @property
    def log(self) -> str:
        """What it has written to stderr until now."""
        self._errors.seek(0)
        return self._errors.read()

    def wait_for_log(self, text: str) -> None:
        self.wait_until(lambda: text in self.log)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < give_up, self.log
            time.sleep(0.01)

    def greet(self, name: str) -> Any:
        """Call ``SayHello`` on a connection of its own: a future of the greeting."""
        channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        say_hello = channel.unary_unary("/helloworld.Greeter/SayHello")
        field = bytes([0x0A, len(name)]) + name.encode()
        return say_hello.future(field, timeout=PATIENCE_S, wait_for_ready=True)

    def greeting(self, name: str) -> str:
        return str(self.greet(name).result()[2:].decode())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
