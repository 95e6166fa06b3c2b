"""``trio-serve run --workers``: several processes behind one port, and what one's end costs the others."""

import http.client
import os
import pathlib
import re
import signal

import grpc
import pytest

from tests.patience import PATIENCE_S
from tests.shell import Served, Shell
from tests.test_cli import GREETER, helloworld

__all__ = ["helloworld"]  # a fixture

pytestmark = pytest.mark.real_clock

WHO = """\
import os
import time
import trio
import trio_serve as serve
from helloworld_pb2 import HelloReply

@serve.deployment
class Who:
    async def SayHello(self, request):
        if request.name in ("stay", "block"):
            open(f"in-{os.getpid()}", "w").close()
        if request.name == "stay":
            await trio.sleep_forever()
        if request.name == "block":  # the whole worker: it takes no connection meanwhile
            time.sleep(3600)
        if request.name == "die":
            os._exit(3)
        if request.name == "sleeper":
            open("arrived", "w").close()
            await trio.sleep(0.5)
        return HelloReply(message=str(os.getpid()))

@serve.deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self):
        raise LookupError("there is no model.bin")

app = Who.bind()
broken = Broken.bind()
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path, helloworld: pathlib.Path) -> Shell:
    (tmp_path / "who.py").write_text(WHO)
    return Shell(tmp_path, [helloworld])


def workers(served: Served) -> dict[int, int]:
    """The pid of each worker that serves, or has served until now, by its number."""
    found = re.findall(r"worker (\d+) \(pid (\d+)\) serves", served.log)
    return {int(number): int(pid) for number, pid in found}


def worker_with(shell: Shell, served: Served, name: str) -> tuple[grpc.Future, int, int]:
    """A call that is within a worker: itself, the pid of that one, and of the other one."""
    call = served.greet(name)
    served.wait_until(lambda: bool(list(shell.folder.glob("in-*"))))
    (arrived,) = shell.folder.glob("in-*")
    pid = int(arrived.name.removeprefix("in-"))
    (other,) = set(workers(served).values()) - {pid}
    return call, pid, other


def wait_for_another(served: Served, gone: int) -> None:
    served.wait_until(lambda: len(re.findall(r"worker \d \(pid \d+\) serves", served.log)) == 3)
    assert gone not in workers(served).values()


def test_the_workers_share_a_port_and_a_signal_drains_them_all(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        assert workers(served).keys() == {1, 2}
        assert int(served.greeting("you")) in workers(served).values()
        call = served.greet("sleeper")
        served.wait_until((shell.folder / "arrived").exists)

        assert served.stop() == 0

        assert int(call.result()[2:]) in workers(served).values()
        assert served.process.stdout is not None
        assert re.fullmatch(r"http 127.0.0.1:\d+\n", served.process.stdout.read())  # and grpc before it, once
        assert "Traceback" not in served.log


def test_a_busy_worker_takes_no_connection_from_the_others(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        _, busy, other = worker_with(shell, served, "block")

        assert {int(served.greeting("you")) for _ in range(10)} == {other}
        os.kill(busy, signal.SIGKILL)  # it would not notice that the others end


def test_only_the_calls_within_a_killed_worker_fail_and_another_takes_its_place(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        call, victim, other = worker_with(shell, served, "block")
        staying = served.greet("stay")  # the blocked worker cannot have taken it
        served.wait_until((shell.folder / f"in-{other}").exists)

        os.kill(victim, signal.SIGKILL)

        assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
        wait_for_another(served, victim)
        assert f"(pid {victim}) was ended by SIGKILL; another one starts in 0.1 s" in served.log
        assert int(served.greeting("you")) in workers(served).values()
        assert not staying.done()
        staying.cancel()  # else its worker would drain for half a minute


def test_a_worker_that_was_stopped_is_replaced_and_the_others_answer_meanwhile(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        call, victim, other = worker_with(shell, served, "stay")

        os.kill(victim, signal.SIGSTOP)

        assert served.greeting("you")
        assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
        wait_for_another(served, victim)
        assert f"(pid {victim}) was stopped by a signal: killing it" in served.log
        assert other in workers(served).values()


def test_code_that_ends_its_process_is_told_and_the_service_goes_on(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        assert served.greet("die").exception() is not None

        served.wait_for_log("ended with exit code 3; another one starts in 0.1 s")
        assert served.greeting("you")


def test_a_second_signal_cuts_off_what_is_left(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        call, _, _ = worker_with(shell, served, "stay")
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_log("SIGTERM: draining, 1 call in flight")

        assert served.stop(signal.SIGTERM) == 1

        assert call.exception() is not None
        assert "SIGTERM again: cutting off 1 call in flight" in served.log


def test_workers_do_not_outlive_what_keeps_them(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2") as served:
        pids = workers(served).values()

        served.stop(signal.SIGKILL)

        served.wait_until(lambda: not any(_is_alive(pid) for pid in pids))


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    "target, code, told",
    [
        ("who:nope", 2, "'who:nope': module 'who' has no attribute 'nope'\n"),
        ("who:broken", 1, "application 'default': deployment 'Broken': LookupError: there is no model.bin\n"),
    ],
)
def test_what_is_wrong_with_all_is_told_once(shell: Shell, target: str, code: int, told: str) -> None:
    run = shell.run("run", target, *GREETER, "--workers", "3")

    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.count(told) == 1
    assert "trio_serve/" not in run.stderr


def test_each_worker_has_metrics_of_its_own(shell: Shell) -> None:
    with shell.serving("who:app", *GREETER, "--workers", "2", "--metrics-export-port", "0") as served:
        assert served.greeting("you")
        assert served.process.stdout is not None
        lines = [served.process.stdout.readline().split() for _ in range(3)]
        ports = [address for name, address in lines if name == "metrics"]

        handled = 0.0
        for address in ports:
            connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            found = re.search(r'^grpc_server_handled_total\{.*grpc_code="OK".*SayHello.* (\S+)$', text, re.M)
            handled += float(found[1]) if found else 0

    assert len(set(ports)) == 2
    assert handled == 1.0


def test_several_workers_and_reload_do_not_go_together(shell: Shell) -> None:
    run = shell.run("run", "who:app", "--workers", "2", "--reload")

    assert run.returncode == 2
    assert "--reload is for one process; it goes with --workers 1" in run.stderr
