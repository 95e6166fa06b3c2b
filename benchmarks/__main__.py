"""``python -m benchmarks``: every server, every cell, interleaved; the tables as a page, and the plot.

    repeat 1: cell 1 of all servers, cell 2 of all servers, ...    repeat 2: ...    medians

The peers are measured in the same run, because figures of two days differ by a quarter and their ratios do
not.  Progress goes to stderr.
"""

import argparse
import contextlib
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs

from benchmarks import cells, client_cells, growth, http_cells, memory, observing, plot, table
from benchmarks.load import golang
from benchmarks.processes import ServerProcess, allow_descriptors
from benchmarks.schema import generated_modules
from benchmarks.servers.roster import OURS, OURS_WHOLE, Server, roster
from benchmarks.turns import in_turn

DESCRIPTORS = 4096  # the connections of all points of growth, with room to spare
SLICES = 5  # of a repeat, for growth: more medians of shorter measurements


def main() -> None:
    options = _options()
    allow_descriptors(DESCRIPTORS)
    page = []

    def say(text: str) -> None:
        page.append(text)
        print(text, flush=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(generated_modules())
        go = stack.enter_context(golang.programs()) if golang.available() and not options.quick else None
        there = roster(go)
        servers = [server for server in there if not options.only or server.name in options.only]
        run = Run(servers, client_cells.opposite(there), cells.cells(go), options)
        say(f"# Speed and memory\n\n{_picture(options)}{_source(options)}.\n\n{_legend(go)}\n")
        for name in options.parts:
            title, part = PARTS[name]
            say(f"## {title}\n\n{part(run)}\n")
    if options.page is not None:
        options.page.write_text("\n".join(page))
    if options.plot is not None:
        options.plot.write_text(plot.draw(run.bars, run.lines, _source(options)))


@attrs.define
class Run:
    """The parts of a run, each a table; two of them leave what is drawn."""

    chosen: list[Server]
    opposite: Server
    cells: list[cells.Cell]
    options: argparse.Namespace
    bars: dict[str, list[float]] = attrs.field(factory=dict)
    lines: list[growth.Line] = attrs.field(factory=list)

    def servers(self) -> str:
        seconds = self.options.seconds
        with contextlib.ExitStack() as stack:
            standing = {
                server.name: stack.enter_context(ServerProcess(server.command)) for server in self.chosen
            }
            points = {
                (name, cell.name): partial(cell.measure, process, seconds)
                for cell in self.cells
                for name, process in standing.items()
            }
            medians = in_turn("servers", points, self.options.repeats)
        nothing = cells.Measured(*[float("nan")] * 4)
        self.bars = {
            name: [medians.get((name, cell), nothing).cpu_us for cell in ("unary, 64", "real client, 64")]
            for name in standing
        }
        return table.servers_table(self.cells, _rows(medians))

    def clients(self) -> str:
        """All call the same server, whichever were chosen."""
        with client_cells.Opposite(self.opposite.command) as server:
            points = {
                client.name: partial(client.measure, server.port, self.options.seconds)
                for client in client_cells.clients()
            }
            medians = in_turn("clients", points, self.options.repeats)
        return f"Calling {self.opposite.name}:\n\n{table.clients_table(medians)}"

    def http(self) -> str:
        """One that is not installed gets a row that says so."""
        only = self.options.only
        chosen = [one for one in http_cells.servers() if not only or one.server.name in only]
        if not chosen:
            return "None chosen."
        with contextlib.ExitStack() as stack:
            standing = [
                (one, stack.enter_context(ServerProcess(one.server.command)))
                for one in chosen
                if one.server.available
            ]
            points = {
                (one.row, cell.name): partial(cell.measure, process, self.options.seconds)
                for connections in http_cells.CONNECTIONS
                for one, process in standing
                for cell in [one.cell(connections)]
            }
            medians = in_turn("HTTP servers", points, self.options.repeats)
        nothing: dict[str, dict[str, cells.Measured]] = {one.row: {} for one in chosen}
        results = nothing | _rows(medians)
        rows = table.servers_table([chosen[0].cell(count) for count in http_cells.CONNECTIONS], results)
        return f"{rows}\n\n{http_cells.INGRESS}, CPU against {http_cells.ratios(results)}"

    def memory(self) -> str:
        connections = 20 if self.options.quick else memory.CONNECTIONS
        results = {}
        for server in self.chosen:
            _progress(f"memory: {server.name}")
            # A server that refuses so many is not left out of the other tables for it.
            with contextlib.suppress(OSError):
                results[server.name] = memory.resting(server.command, connections)
        return table.memory_table(results)

    def observing(self) -> str:
        _progress("observing")
        costs = observing.costs(self.options.seconds / 5)
        return table.markdown(["step", "µs"], [[what, f"{cost_us:.2f}"] for what, cost_us in costs])

    def growth(self) -> str:
        cell = next((cell for cell in self.cells if cell.name == "unary, 64"), self.cells[0])
        slices, largest = (1, 1) if self.options.quick else (SLICES, 10_000)
        commands = {server.name: server.command for server in roster(None)}
        chosen = growth.growing(commands[OURS], commands[OURS_WHOLE])
        seconds, rounds = self.options.seconds / slices, slices * self.options.repeats
        self.lines = growth.lines(chosen, cell, seconds, rounds, largest)
        return f"CPU µs a call of {OURS} ({cell.name}):\n\n{table.lines_table(self.lines)}"


PARTS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "servers": ("gRPC servers", Run.servers),
    "clients": ("gRPC clients", Run.clients),
    "http": ("HTTP/1.1, the same answer", Run.http),
    "memory": ("Memory", Run.memory),
    "growth": ("As more is open", Run.growth),
    "observing": ("Logs and metrics, each step by itself", Run.observing),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a cell is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", help="a server's name; more than once for several")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--page", type=Path, help="where to write the tables, too")
    parser.add_argument("--plot", type=Path, help="where to write the SVG")
    parser.add_argument("--quick", action="store_true", help="some seconds, to see that the code works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.repeats = 0.05, 1
    return options


def _picture(options: argparse.Namespace) -> str:
    if options.page is None or options.plot is None:
        return ""
    return f"![CPU a call, and as more is open]({os.path.relpath(options.plot, options.page.parent)})\n\n"


def _source(options: argparse.Namespace) -> str:
    return (
        f"make bench: medians of {options.repeats} interleaved repeats of {options.seconds:g} s; "
        "one core for what is measured, one for the load; "
        f"Python {platform.python_version()}, {platform.machine()}"
    )


def _legend(go: Path | None) -> str:
    return (
        "Cells: units a second / CPU µs a unit of the measured process, and [p50/p99 ms] where the load\n"
        f'looks at single calls. "Real client" is {cells.real_client(go)}, each call with a deadline, a\n'
        "request id and metadata of its own; the other loads send the same bytes again and again, the best\n"
        "case for every server. `trio_serve.grpc` is the gRPC server by itself, `trio_serve` the whole way\n"
        "through application, queue and replica."
    )


def _rows(medians: Mapping[tuple[str, str], cells.Measured]) -> dict[str, dict[str, cells.Measured]]:
    """By server and cell, from both together."""
    rows: dict[str, dict[str, cells.Measured]] = defaultdict(dict)
    for (server, cell), measured in medians.items():
        rows[server][cell] = measured
    return rows


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
