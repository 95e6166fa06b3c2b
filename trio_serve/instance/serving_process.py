"""A process that serves for one that does not: who keeps it shares its listening sockets.

    keeper ── SharedListeners ──┐ listening sockets
                                ├──> ServingProcess: trio-serve run ...
              lifeline ─────────┤      reads its end: the keeper has gone, however it went
              ready    <────────┘      writes: it serves

A connection that comes in while one process ends and the next one starts waits in the kernel.

Knows nothing of when a process is started, and of what it serves.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from itertools import chain

import attrs
import trio

from trio_serve.instance.plan import ServePlan
from trio_serve.transport.listener import open_listeners


@attrs.define(eq=False)
class ServingProcess:
    """One process that serves, or is on its way to; made by `start_serving`."""

    process: trio.Process
    _ready: trio.abc.ReceiveStream
    _lifeline: int

    async def serves(self) -> bool:
        """Wait until it serves, or has ended without."""
        return bool(await self._ready.receive_some(1))

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP and the like), and none has let it go on."""
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            return found is not None
        return False

    async def stop(self) -> None:
        """Let it finish its calls, and wait for its end; cancelled, it is killed."""
        try:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Kill it if it lives, and let go of it."""
        if self._lifeline == -1:
            return
        os.close(self._lifeline)
        self._lifeline = -1
        if self.process.returncode is None:
            self.process.kill()
        await trio.aclose_forcefully(self._ready)


async def start_serving(
    argv: Sequence[str], listening: Mapping[str, Sequence[int]], environment: Mapping[str, str] | None = None
) -> ServingProcess:
    """Start ``trio-serve`` with ``argv`` on the sockets ``listening``, file descriptors by proxy."""
    ready, child_ready = os.pipe()
    child_lifeline, lifeline = os.pipe()
    try:
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-m", "trio_serve", *argv, "--blocking"),
                *(f"--ready-fd={child_ready}", f"--lifeline-fd={child_lifeline}"),
                *(f"--{proxy}-listener-fd={fd}" for proxy, fds in listening.items() for fd in fds),
            ],
            pass_fds=(child_ready, child_lifeline, *chain(*listening.values())),
            env={**os.environ, **(environment or {})},
        )
    finally:
        os.close(child_ready)
        os.close(child_lifeline)
    return ServingProcess(process, trio.lowlevel.FdStream(ready), lifeline)


class SharedListeners:
    """The listening sockets of one plan, and of those that come after it."""

    def __init__(self) -> None:
        self.sockets: dict[str, list[socket.socket]] = {}
        self._addresses: dict[str, tuple[str, int]] = {}

    async def listen_for(self, plan: ServePlan) -> None:
        """Listen where ``plan`` says, if that is not where we do; raises OSError when a port is in use."""
        wanted = {"grpc": plan.grpc_options, "http": plan.http_options, "metrics": plan.metrics_options}
        for proxy, options in wanted.items():
            address = None if options is None else (options.host, options.port)
            if address != self._addresses.get(proxy):
                listeners = [] if address is None else await open_listeners(*address)
                self._close(proxy)
                if address is not None:
                    self.sockets[proxy], self._addresses[proxy] = listeners, address

    def fds(self) -> dict[str, list[int]]:
        """The listening sockets of each proxy, as file descriptors."""
        return {
            proxy: [listener.fileno() for listener in listeners] for proxy, listeners in self.sockets.items()
        }

    def close(self) -> None:
        for proxy in list(self.sockets):
            self._close(proxy)

    def _close(self, proxy: str) -> None:
        self._addresses.pop(proxy, None)
        for listener in self.sockets.pop(proxy, []):
            listener.close()
