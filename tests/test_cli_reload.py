"""``trio-serve run --reload``: each edit is served, a broken one is not, and no call is lost on the way."""

import os
import pathlib
import signal
import socket

import pytest

from tests.shell import Served, Shell
from tests.test_cli import GREETER, SHOP, helloworld, shell, waiting_call

__all__ = ["helloworld", "shell"]  # fixtures

pytestmark = pytest.mark.real_clock


def next_version(served: Served) -> str:
    """Wait until the version after an edit serves, and the one before it no more; the address."""
    stopped = served.log.count("-- stopped")
    address = served.read_address()
    served.wait_until(lambda: served.log.count("-- stopped") > stopped)
    return address


def edit(shell: Shell, name: str, old: str, new: str) -> None:
    path = shell.folder / name
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_an_edit_is_served_in_place_of_what_was_and_a_call_in_flight_finishes(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER, "--reload") as served:
        before = served.address
        call = waiting_call(shell, served, "sleeper")

        edit(shell, "shop.py", '"Hello"', '"Hallo"')
        assert next_version(served) == before

        assert call.result()[2:] == b"Hello sleeper"
        assert served.greeting("you") == "Hallo you"
        assert "shop.py: starting the new version" in served.log
        assert served.stop() == 0


def test_a_broken_edit_keeps_the_last_good_version_and_says_why(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER, "--reload") as served:
        edit(shell, "shop.py", "app = ", "1 / 0\napp = ")
        served.wait_for_log("the version before it serves on")
        assert "ZeroDivisionError: division by zero" in served.log
        assert served.greeting("you") == "Hello you"

        edit(shell, "shop.py", "1 / 0", "WORD = 1")
        next_version(served)
        assert served.greeting("you") == "Hello you"


def test_the_configuration_is_code_too(shell: Shell) -> None:
    config = shell.folder / "config.yaml"
    config.write_text(
        "grpc_options: {port: 0, grpc_servicer_functions: [" + GREETER[-1] + "]}\n"
        "applications: [{import_path: shop:build, args: {word: Hello}}]\n"
    )

    with shell.serving("config.yaml", "--reload") as served:
        edit(shell, "config.yaml", "word: Hello", "wort: {Hello")
        served.wait_for_log("config.yaml:2:")
        served.wait_for_log("the version before it serves on")
        assert served.greeting("you") == "Hello you"

        edit(shell, "config.yaml", "wort: {Hello", "word: Moin")
        next_version(served)
        assert served.greeting("you") == "Moin you"


def test_an_edit_that_names_a_port_in_use_keeps_the_last_good_version(shell: Shell) -> None:
    config = shell.folder / "config.yaml"
    config.write_text(
        "grpc_options: {port: 0, grpc_servicer_functions: [" + GREETER[-1] + "]}\n"
        "applications: [{import_path: shop:app}]\n"
    )

    with socket.socket() as other, shell.serving("config.yaml", "--reload") as served:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        edit(shell, "config.yaml", "port: 0", f"port: {port}")
        served.wait_for_log(f"port {port} on 127.0.0.1 is in use by another program")
        served.wait_for_log("the version before it serves on")
        assert served.greeting("you") == "Hello you"


def test_protos_are_code_too(shell: Shell, helloworld: pathlib.Path) -> None:
    """A service that comes in by an edit of the .proto file is served after it."""
    source = pathlib.Path(__file__).parent.parent / "protos" / "helloworld.proto"
    (shell.folder / "api").mkdir()
    (shell.folder / "api" / "hello.proto").write_text(
        source.read_text().replace("rpc SayHello(", "rpc SayNothing(")
    )

    arguments = ["shop:app", "--grpc-port", "0", "--proto", "api/hello.proto", "--reload"]
    with shell.serving(*arguments) as served:
        assert served.greet("you").code().name == "UNIMPLEMENTED"

        edit(shell, "api/hello.proto", "rpc SayNothing(", "rpc SayHello(")
        next_version(served)
        assert served.greeting("you") == "Hello you"


def test_it_waits_for_an_edit_when_the_first_version_does_not_start(shell: Shell) -> None:
    (shell.folder / "shop.py").write_text("1 / 0\n")

    with shell.serving("shop:app", *GREETER, "--reload", wait=False) as served:
        served.wait_for_log("it does not start, for the reason above; waiting for an edit")

        (shell.folder / "shop.py").write_text(SHOP)
        served.read_address()
        assert served.greeting("you") == "Hello you"


def test_a_signal_drains_and_a_second_one_cuts(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER, "--reload") as served:
        call = waiting_call(shell, served, "for ever")

        served.process.send_signal(signal.SIGINT)
        served.wait_for_log("draining, 1 call in flight")
        assert served.stop(signal.SIGINT) == 0

        assert call.exception() is not None
        assert "cutting off 1 call in flight" in served.log


def test_what_serves_does_not_outlive_a_supervisor_that_was_killed(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER, "--reload") as served:
        child = child_of(served)

        served.stop(signal.SIGKILL)

        served.wait_until(lambda: not os.path.exists(f"/proc/{child}/cmdline") or is_dead(child))
        assert "the supervisor has gone: stopping" in served.log


def test_an_end_by_itself_is_told_and_the_next_edit_is_served(shell: Shell) -> None:
    with shell.serving("shop:app", *GREETER, "--reload") as served:
        os.kill(child_of(served), signal.SIGKILL)
        served.wait_for_log("the serving process ended with exit code -9; waiting for an edit")

        edit(shell, "shop.py", '"Hello"', '"Moin"')
        served.read_address()
        assert served.greeting("you") == "Moin you"


def child_of(served: Served) -> int:
    threads = pathlib.Path(f"/proc/{served.process.pid}/task").glob("*/children")
    (child,) = [child for thread in threads for child in thread.read_text().split()]
    return int(child)


def is_dead(pid: int) -> bool:
    """Gone, or waiting for somebody to ask for its exit code."""
    return ") Z " in pathlib.Path(f"/proc/{pid}/stat").read_text()
