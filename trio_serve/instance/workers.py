"""``trio-serve run --workers N``: N processes of the same application behind the same ports.

    this process ── listening sockets ──> worker 1, worker 2, ... each accepts from them
                └── supervisor: a worker that ends, or is stopped, is replaced; the others serve on

This process imports nothing of the user's.  All workers wait on one queue of connections in the kernel, so
that a busy or a stopped one takes none; with a queue each (SO_REUSEPORT) its share would wait with it.  A
connection stays with the worker that took it.  Each worker has replicas, queues and metrics of its own.

Exit codes: those of `foreground`; a mistake is told by the first worker, before the others start.

Knows nothing of what is served.
"""

import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from trio_serve.actors.restarting import RestartIntensity
from trio_serve.actors.supervisor import Death, Supervisor
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.foreground import FAILED, MISTAKEN, STOPPED, announce
from trio_serve.instance.plan import CommandLine, ServePlan, plan_of
from trio_serve.instance.proxies import address_of
from trio_serve.instance.serving_process import ServingProcess, SharedListeners, start_serving
from trio_serve.observe.logs import open_logs
from trio_serve.transport.listener import open_listeners

logger = logging.getLogger("trio_serve.workers")

LOOK_EACH_S = 0.25
STOPPED_LOOKS_MAX = 3
"""So often in a row may a worker be seen stopped; a debugger, or Ctrl-Z and fg, stop it for no look."""
RESTARTS_A_MINUTE = 5
"""Of each worker; beyond it, the next attempt waits until the minute is over."""


def run_with_workers(given: CommandLine, argv: Sequence[str], workers: int, ready_fd: int | None) -> int:
    """Serve what ``argv``, read as ``given``, asks for until a signal says stop; the exit code."""
    try:
        plan = plan_of(given)
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISTAKEN
    with open_logs(plan.logging_config, files=False):
        return trio.run(_Workers(argv, workers, ready_fd).serve, plan)


class WorkerEnded(Exception):
    """A worker's process has ended: ``code`` is how, a signal's number below zero."""

    def __init__(self, number: int, pid: int, code: int) -> None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"worker {number} (pid {pid}) {how}")
        self.code = code


class Worker:
    """One process, from its start to its end."""

    def __init__(self, number: int, start: Callable[[], Awaitable[ServingProcess]]) -> None:
        self.number = number
        self.exit_code = STOPPED
        self._start = start
        self._serving: ServingProcess | None = None

    @property
    def pid(self) -> int:
        return 0 if self._serving is None else self._serving.process.pid

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live; raises WorkerEnded at the process's end, however it came."""
        self._serving = serving = await self._start()
        try:
            if await serving.serves():
                task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill_if_stopped, serving)
                self.exit_code = await serving.process.wait()
                nursery.cancel_scope.cancel()
        finally:
            await serving.aclose()
        raise WorkerEnded(self.number, self.pid, self.exit_code)

    async def _kill_if_stopped(self, serving: ServingProcess) -> None:
        looks = 0
        while looks < STOPPED_LOOKS_MAX:
            await trio.sleep(LOOK_EACH_S)
            looks = looks + 1 if serving.is_stopped() else 0
        logger.error("worker %d (pid %d) was stopped by a signal: killing it", self.number, self.pid)
        serving.process.kill()

    async def stop(self) -> None:
        """Let it finish its calls, and wait for its end."""
        if self._serving is not None:
            await self._serving.stop()

    def cut(self) -> None:
        """Have it cut off its calls, after it was told to stop."""
        if self._serving is not None:
            self._serving.process.terminate()


class _Workers:
    def __init__(self, argv: Sequence[str], number: int, ready_fd: int | None) -> None:
        self._argv = argv
        self._number = number
        self._ready_fd = ready_fd
        self._listeners = SharedListeners()
        self._metrics: list[list[socket.socket]] = []
        self._supervisor: Supervisor[Worker] = Supervisor(
            self, intensity=RestartIntensity(restarts_max=RESTARTS_A_MINUTE * number)
        )
        self._asked = trio.CancelScope()
        self._failed: WorkerEnded | None = None

    async def serve(self, plan: ServePlan) -> int:
        """Serve until told to stop; the exit code."""
        try:
            await self._listen(plan)
            with errors_alone():
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._obey_signals)
                    await nursery.start(self._supervisor.run)
                    with self._asked:
                        await self._start_all()
                        await trio.sleep_forever()
                    code = await self._stop_all()
                    nursery.cancel_scope.cancel()
        except WorkerEnded as error:
            return error.code if error.code in (FAILED, MISTAKEN) else FAILED
        except OSError as error:  # a port is in use
            print(error.strerror or error, file=sys.stderr)
            return FAILED
        finally:
            self._close_listeners()
        logger.info("stopped")
        return code

    async def _listen(self, plan: ServePlan) -> None:
        await self._listeners.listen_for(attrs.evolve(plan, metrics_options=None))
        metrics = plan.metrics_options
        for index in range(0 if metrics is None else self._number):
            assert metrics is not None
            port = metrics.port + index if metrics.port else 0
            self._metrics.append(await open_listeners(metrics.host, port))

    def _close_listeners(self) -> None:
        self._listeners.close()
        for listener in (each for listeners in self._metrics for each in listeners):
            listener.close()

    async def _start_all(self) -> None:
        """The first one alone: what is wrong is wrong with all, and told once."""
        began = trio.current_time()
        await self._start_one(1)
        async with trio.open_nursery() as nursery:
            for number in range(2, self._number + 1):
                nursery.start_soon(self._start_one, number)
        if self._failed is not None:
            raise self._failed
        addresses = [(name, address_of(sockets)) for name, sockets in self._listeners.sockets.items()]
        addresses += [("metrics", address_of(sockets)) for sockets in self._metrics]
        announce(addresses, self._ready_fd)
        places = " and ".join(f"{name} {address}" for name, address in addresses)
        took_s = trio.current_time() - began
        logger.info("%d workers serve on %s, started in %.2f s", self._number, places, took_s)

    async def _start_one(self, number: int) -> None:
        if self._failed is not None:
            return
        try:
            await self._supervisor.start(lambda: Worker(number, lambda: self._start(number)))
        except WorkerEnded as error:
            self._failed = error

    async def _start(self, number: int) -> ServingProcess:
        listening = self._listeners.fds()
        if self._metrics:
            listening["metrics"] = [listener.fileno() for listener in self._metrics[number - 1]]
        return await start_serving([*self._argv, "--workers=1", f"--worker={number}"], listening)

    async def _stop_all(self) -> int:
        """Drain all at the same time; 1 when one of them did not end well."""
        serving = [worker.child for worker in self._supervisor.children if worker.ready]
        async with trio.open_nursery() as nursery:
            for worker in self._supervisor.children:
                nursery.start_soon(self._supervisor.stop, worker)
            self._close_listeners()
        return STOPPED if all(worker.exit_code == STOPPED for worker in serving) else FAILED

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arriving:
            task_status.started()
            async for number in arriving:
                if self._asked.cancel_called:
                    logger.warning("%s again: cutting off what is left", signal.Signals(number).name)
                    for worker in self._supervisor.children:
                        worker.child.cut()
                else:
                    logger.info("%s: draining the workers", signal.Signals(number).name)
                    self._asked.cancel()

    # What the supervisor tells.

    def child_ready(self, worker: Worker) -> None:
        logger.info("worker %d (pid %d) serves", worker.number, worker.pid)

    def child_died(self, worker: Worker, death: Death) -> None:
        too_often = f", for it was {death.failures} times in a row" if death.exhausted else ""
        logger.error("%s; another one starts in %.1f s%s", death.error, death.retry_in_s, too_often)
