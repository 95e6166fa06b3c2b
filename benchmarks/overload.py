"""``python -m benchmarks.overload``: what a server still does when it is asked for more than it can.

    peak     a handful of callers that wait for their answers
    onset    1, 2, 5, 10 times the peak, whether it is answered or not; every call has 1 s
    load     the same for longer: what is measured
    after    0.8 of the peak again: how soon all is well

A handler takes 5 ms; server on one core, load on the other; grpc.aio in the same run.  Goodput is what was
answered OK in time, as a share of the peak.  The onset has a column of its own: a queue takes it for a burst,
which it is for, so those calls wait longer.  The last columns say how much of its core the server got: with
less than all of it, others were at work there, and the row tells little; and how busy the client was, whose
own delays are counted as the server's.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks import lines_plot
from benchmarks.load.result import percentile
from benchmarks.processes import LOAD_CORE, REPOSITORY, ServerProcess, pinned, python
from benchmarks.schema import generated_modules

LOADS = (1, 2, 5, 10)
ONSET_S = 4.0
AFTER_LOAD, AFTER_S, WINDOW_S = 0.8, 1.5, 0.1

SERVERS = {
    "trio_serve": ("overloaded",),
    "trio_serve, max_queued_requests=8": ("overloaded", "--queue", "8"),
    "grpc.aio": ("overloaded_aio",),
}


@attrs.frozen
class Outcome:
    """What one load came to; shares of the peak, milliseconds, seconds, calls."""

    peak: float
    goodput: float
    refused_p99_ms: float
    admitted_p99_ms: float
    onset_p99_ms: float
    late: float
    expired: float
    recovery_s: float
    core: float
    client_core: float


Outcomes = Mapping[float, Outcome]
"""By load."""


def main() -> None:
    options = _options()
    names = options.only or list(SERVERS)
    print(
        f"5 ms of CPU a call, deadline 1 s, {options.seconds:g} s a load after {options.onset:g} s of onset, "
        f"one core for the server; medians of {options.runs}.  Late: ended with DEADLINE_EXCEEDED.\n"
    )
    head = [
        *("server", "load", "goodput, % of peak", "refused p99, ms", "admitted p99, ms", "in the onset, ms"),
        *("late", "expired, yet begun", "95 % again after, s", "core, %", "client's, %"),
    ]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    results = {}
    with generated_modules():
        for name in names:
            runs = [measure_all(name, options) for _ in range(options.runs)]
            results[name] = {load: median([run[load] for run in runs]) for load in options.loads}
            for load, outcome in results[name].items():
                print(_row(name, load, outcome), flush=True)
    if options.plot is not None:
        options.plot.write_text(picture(results))


def measure_all(name: str, options: argparse.Namespace) -> Outcomes:
    """All loads on one new server."""
    program, *arguments = SERVERS[name]
    with ServerProcess(python(f"benchmarks.servers.{program}", *arguments)) as server:
        peak = max(_client(server.port, "--peak", str(options.seconds / 2))["peak"] for _ in range(2))
        return {load: measure(server, peak, load, options.onset, options.seconds) for load in options.loads}


def measure(server: ServerProcess, peak: float, load: float, onset: float, seconds: float) -> Outcome:
    """Load the server so many times its peak for so long, and see how it gets over that."""
    end = onset + seconds
    rates = [f"{load * peak}:{end}", f"{AFTER_LOAD * peak}:{AFTER_S}"]
    before = server.cpu_seconds()
    seen = _client(server.port, "--rates", *rates)
    core = (server.cpu_seconds() - before) / (end + AFTER_LOAD * AFTER_S)
    calls = [call for call in seen["calls"] if onset <= call[0] < end]
    # What is answered counts when it is answered: the queue's last second belongs to no steady state.
    good = sum(1 for at, status, took in seen["calls"] if status == "OK" and onset <= at + took < end)
    return Outcome(
        peak=peak,
        goodput=good / seconds / peak,
        refused_p99_ms=_p99_ms(calls, "RESOURCE_EXHAUSTED"),
        admitted_p99_ms=_p99_ms(calls, "OK"),
        onset_p99_ms=_p99_ms([call for call in seen["calls"] if call[0] < onset], "OK"),
        late=sum(status == "DEADLINE_EXCEEDED" for _, status, _ in calls),
        expired=seen["expired"],
        recovery_s=recovery_s([(at - end, status) for at, status, _ in seen["calls"] if at >= end]),
        core=min(1.0, core),
        client_core=seen["core"],
    )


def recovery_s(calls: Sequence[tuple[float, str]]) -> float:
    """From when on at least 95 % of the calls sent in any tenth of a second are answered OK."""
    windows: dict[int, list[bool]] = {}
    for at, status in calls:
        windows.setdefault(int(at / WINDOW_S), []).append(status == "OK")
    bad = [window for window, good in windows.items() if sum(good) < 0.95 * len(good)]
    return (max(bad) + 1) * WINDOW_S if bad else 0.0


def median(outcomes: Sequence[Outcome]) -> Outcome:
    """The median of each figure by itself."""
    rows = [attrs.astuple(outcome) for outcome in outcomes]
    return Outcome(*(statistics.median(column) for column in zip(*rows, strict=True)))


def picture(results: Mapping[str, Outcomes]) -> str:
    """Goodput and latency over the load, with what this project aims at."""

    def curves(figure: str, times: float = 1.0) -> list[lines_plot.Curve]:
        return [
            (name, [(load, times * getattr(outcome, figure)) for load, outcome in outcomes.items()])
            for name, outcomes in results.items()
        ]

    return lines_plot.draw(
        [
            lines_plot.Panel(
                "Answered in time, % of the peak",
                curves("goodput", 100),
                ticks=(0, 25, 50, 75, 100),
                aim=((2.0, 95.0), (5.0, 90.0), (10.0, 80.0)),
            ),
            lines_plot.Panel(
                "99 % of the answers within, ms",
                curves("admitted_p99_ms"),
                ticks=(10, 30, 100, 300, 1000),
                aim=((2.0, 100.0), (5.0, 100.0), (10.0, 100.0)),
                logarithmic=True,
            ),
        ]
    )


def _p99_ms(calls: Sequence[tuple[float, str, float]], status: str) -> float:
    """Of those that ended so; 0 when there are none."""
    return percentile(sorted(1000 * took for _, of, took in calls if of == status) or [0.0], 0.99)


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


def _row(name: str, load: float, seen: Outcome) -> str:
    cells = (
        f"{name} ({seen.peak:.0f}/s)",
        f"{load:g}x",
        f"{100 * seen.goodput:.0f}",
        f"{seen.refused_p99_ms:.1f}" if seen.refused_p99_ms else "-",
        f"{seen.admitted_p99_ms:.0f}",
        f"{seen.onset_p99_ms:.0f}",
        f"{seen.late:.0f}",
        f"{seen.expired:.0f}",
        f"{seen.recovery_s:.1f}",
        f"{100 * seen.core:.0f}",
        f"{100 * seen.client_core:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load is measured")
    parser.add_argument("--onset", type=float, default=ONSET_S, help="for how long it is there before that")
    parser.add_argument("--runs", type=int, default=1, help="medians of so many")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--only", action="append", choices=SERVERS, help="one server, or several")
    parser.add_argument("--plot", type=Path, help="where to write the SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
