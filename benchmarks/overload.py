"""``python -m benchmarks.overload``: what a server still does when it is asked for more than it can.

    peak     a handful of callers that wait for their answers
    load     1, 2, 5, 10 times the peak, whether it is answered or not; every call has 1 s
    after    0.8 of the peak again: how soon all is well

A handler takes 5 ms; server on one core, load on the other; grpc.aio in the same run.  Goodput is what was
answered OK in time, as a share of the peak; the plot shows it over the load.  The last column says how much
of its core the server got: with less than all of it, others were at work there, and the row tells little.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks import lines_plot
from benchmarks.load.result import percentile
from benchmarks.processes import LOAD_CORE, REPOSITORY, ServerProcess, pinned, python
from benchmarks.schema import generated_modules

LOADS = (1, 2, 5, 10)
AFTER_LOAD, AFTER_S, WINDOW_S = 0.8, 1.5, 0.1

SERVERS = {
    "trio_serve, max_queued_requests=8": ("overloaded", "--queue", "8"),
    "trio_serve, default queue": ("overloaded",),
    "grpc.aio": ("overloaded_aio",),
}


@attrs.frozen
class Outcome:
    """What one load came to; shares of the peak, milliseconds, seconds."""

    goodput: float
    refused_p99_ms: float
    admitted_p99_ms: float
    late: int
    expired: int
    recovery_s: float
    core: float


def main() -> None:
    options = _options()
    print(
        f"5 ms of CPU a call, deadline 1 s, {options.seconds:g} s a load, one core for the server.  "
        "Late: calls that ended with DEADLINE_EXCEEDED.\n"
    )
    head = [
        *("server", "load", "goodput, % of peak", "refused p99, ms", "admitted p99, ms", "late"),
        *("expired, yet begun", "95 % again after, s", "core, %"),
    ]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    curves = []
    with generated_modules():
        for name in options.only or SERVERS:
            points = []
            with ServerProcess(python(*_program(name))) as server:
                peak = max(_client(server.port, "--peak", str(options.seconds / 2))["peak"] for _ in range(2))
                for load in options.loads:
                    outcome = measure(server, peak, load, options.seconds)
                    points.append((float(load), 100 * outcome.goodput))
                    print(_row(name, peak, load, outcome), flush=True)
            curves.append((name, points))
    if options.plot is not None:
        options.plot.write_text(lines_plot.svg("Goodput, % of the peak, over the load", curves))


def measure(server: ServerProcess, peak: float, load: float, seconds: float) -> Outcome:
    """Load the server so many times its peak for so long, and see how it gets over that."""
    rates = [f"{load * peak}:{seconds}", f"{AFTER_LOAD * peak}:{AFTER_S}"]
    before = server.cpu_seconds()
    seen = _client(server.port, "--rates", *rates)
    core = (server.cpu_seconds() - before) / (seconds + AFTER_LOAD * AFTER_S)
    calls = [call for call in seen["calls"] if call[0] < seconds]
    # What is answered counts when it is answered: the queue's last second belongs to no steady state.
    good = sum(1 for at, status, took in seen["calls"] if status == "OK" and at + took < seconds)

    def p99(status: str) -> float:
        return percentile(sorted(1000 * took for _, of, took in calls if of == status) or [0.0], 0.99)

    return Outcome(
        goodput=good / seconds / peak,
        refused_p99_ms=p99("RESOURCE_EXHAUSTED"),
        admitted_p99_ms=p99("OK"),
        late=sum(status == "DEADLINE_EXCEEDED" for _, status, _ in calls),
        expired=seen["expired"],
        recovery_s=recovery_s([(at - seconds, status) for at, status, _ in seen["calls"] if at >= seconds]),
        core=core,
    )


def recovery_s(calls: Sequence[tuple[float, str]]) -> float:
    """From when on at least 95 % of the calls sent in any tenth of a second are answered OK."""
    windows: dict[int, list[bool]] = {}
    for at, status in calls:
        windows.setdefault(int(at / WINDOW_S), []).append(status == "OK")
    bad = [window for window, good in windows.items() if sum(good) < 0.95 * len(good)]
    return (max(bad) + 1) * WINDOW_S if bad else 0.0


def _client(port: int, *arguments: str) -> dict[str, Any]:
    with pinned(LOAD_CORE):
        done = subprocess.run(
            python("benchmarks.clients.open_loop", str(port), *arguments),
            stdout=subprocess.PIPE,
            check=True,
            cwd=REPOSITORY,
        )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _program(name: str) -> tuple[str, ...]:
    program, *arguments = SERVERS[name]
    return (f"benchmarks.servers.{program}", *arguments)


def _row(name: str, peak: float, load: float, seen: Outcome) -> str:
    cells = (
        f"{name} ({peak:.0f}/s)",
        f"{load:g}x",
        f"{100 * seen.goodput:.0f}",
        f"{seen.refused_p99_ms:.1f}" if seen.refused_p99_ms else "-",
        f"{seen.admitted_p99_ms:.0f}",
        str(seen.late),
        str(seen.expired),
        f"{seen.recovery_s:.1f}",
        f"{100 * min(1.0, seen.core):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--only", action="append", choices=SERVERS, help="one server, or several")
    parser.add_argument("--plot", type=Path, help="where to write the SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
