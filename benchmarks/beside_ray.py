"""``python -m benchmarks.beside_ray``: the same application file here and on Ray Serve, in one run.

    trio_serve                    one process
    Ray Serve                     as it comes
    Ray Serve, tuned              its throughput-optimized flags, called directly at the replica's own port

Each may use all cores; the load is on one.  Ray is started for each row of its own, and ended with it.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import attrs

from benchmarks import cells, table
from benchmarks.load import h2load
from benchmarks.memory import call_once
from benchmarks.process_tree import ServerTree
from benchmarks.processes import REPOSITORY, python
from benchmarks.schema import generated_modules

PROGRAM = "benchmarks.servers.either_engine"
IN_FLIGHT = (1, 16, 64)
TUNED = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": "40000",
}


@attrs.frozen
class Engine:
    """A row: its name, and how its program is started."""

    name: str
    interpreter: str = sys.executable
    environment: dict[str, str] = attrs.field(factory=dict)

    @property
    def command(self) -> list[str]:
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        variables = {"PYTHONPATH": path, **self.environment}
        program = [self.interpreter, *python(PROGRAM)[1:]]
        return ["env", *(f"{name}={value}" for name, value in variables.items()), *program]


@attrs.frozen
class Whole:
    """What an engine costs by being there."""

    first_answer_s: float
    memory_mb: float
    processes: int
    hop_us: float


def engines(ray_python: str | None) -> list[Engine]:
    ours = Engine("trio_serve")
    if ray_python is None:
        return [ours]
    on_ray = {"TRIO_SERVE_ENGINE": "ray", "RAY_raylet_start_wait_time_s": "180"}
    return [
        ours,
        Engine("Ray Serve", ray_python, on_ray),
        Engine("Ray Serve, tuned", ray_python, {**on_ray, **TUNED}),
    ]


def measure(
    engine: Engine, columns: list[cells.Cell], seconds: float
) -> tuple[dict[str, cells.Measured], Whole]:
    """Raises RuntimeError and OSError: the engine did not start, or does not answer."""
    began = time.perf_counter()
    with ServerTree(engine.command) as server:
        call_once(server.port)
        first_answer_s = time.perf_counter() - began
        memory_mb, processes = server.resident_bytes() / 1e6, len(server.pids())
        measured = {cell.name: cell.measure(server, seconds) for cell in columns}
        os.kill(server.pid, signal.SIGUSR1)
        hop_us = float(server.line().removeprefix("hop "))
    return measured, Whole(first_answer_s, memory_mb, processes, hop_us)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.beside_ray", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--ray-python", type=Path, help="the interpreter of an environment that has ray[serve]"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a cell is measured")
    options = parser.parse_args()
    if not h2load.available():
        sys.exit("h2load (Debian: nghttp2-client) is not here, and nothing else asks all engines the same")
    columns = [cell for cell in cells.cells(None) if cell.name in {_column(each) for each in IN_FLIGHT}]
    results, whole = {}, {}
    with generated_modules():
        for engine in engines(None if options.ray_python is None else str(options.ray_python.absolute())):
            print(engine.name, file=sys.stderr, flush=True)
            try:
                results[engine.name], whole[engine.name] = measure(engine, columns, options.seconds)
            except (RuntimeError, OSError) as error:
                print(f"{engine.name} is left out: {error}", file=sys.stderr)
    print("Unary gRPC: calls a second / CPU µs a call, of all processes together [p50/p99 ms]\n")
    print(table.servers_table(columns, results), end="\n\n")
    print(_whole_table(whole))


def _column(in_flight: int) -> str:
    return "unary, 1 in flight" if in_flight == 1 else f"unary, {in_flight}"


def _whole_table(whole: dict[str, Whole]) -> str:
    head = ["engine", "first answer, s", "memory, MB", "processes", "a handle-to-handle hop, µs", "x ours"]
    ours = next(iter(whole.values())).hop_us
    rows = [
        [
            name,
            f"{each.first_answer_s:.2f}",
            f"{each.memory_mb:.0f}",
            str(each.processes),
            f"{each.hop_us:.0f}",
            f"{each.hop_us / ours:.1f}",
        ]
        for name, each in whole.items()
    ]
    return table.markdown(head, rows)


if __name__ == "__main__":
    main()
