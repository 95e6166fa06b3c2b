"""``python -m benchmarks``: every server, every cell, interleaved; tables to stdout, the plot to a file.

    repeat 1: server A all cells, server B all cells, ...    repeat 2: ...    medians

The peers are measured in the same run, because figures of two days differ by a quarter and their ratios do
not.  Progress goes to stderr.
"""

import argparse
import contextlib
import platform
import sys
from collections import defaultdict
from pathlib import Path

import attrs

from benchmarks import cells, client_cells, growth, http_cells, memory, observing, plot, table
from benchmarks.load import golang
from benchmarks.processes import ServerProcess
from benchmarks.schema import generated_modules
from benchmarks.servers.roster import OURS, Server, roster

PARTS = ("servers", "clients", "http", "memory", "growth", "observing")


def main() -> None:
    options = _options()
    with contextlib.ExitStack() as stack:
        stack.enter_context(generated_modules())
        go = stack.enter_context(golang.programs()) if golang.available() and not options.quick else None
        servers = [server for server in roster(go) if not options.only or server.name in options.only]
        run = Run(servers, cells.cells(go), options)
        print(_heading(options, go))
        bars = run.servers() if "servers" in options.parts else {}
        if "clients" in options.parts:
            run.clients()
        if "http" in options.parts:
            run.http()
        if "memory" in options.parts:
            run.memory()
        if "observing" in options.parts:
            run.observing()
        lines = run.growth() if "growth" in options.parts else []
    if options.plot is not None:
        options.plot.write_text(plot.svg(bars, ("same requests", "changing"), lines))


@attrs.define
class Run:
    """The parts of a run, each printing its table."""

    chosen: list[Server]
    cells: list[cells.Cell]
    options: argparse.Namespace

    def servers(self) -> dict[str, list[float]]:
        """Print the table; the bars of the plot."""
        repeats: dict[tuple[str, str], list[cells.Measured]] = defaultdict(list)
        for repeat in range(self.options.repeats):
            for server in self.chosen:
                _progress(f"repeat {repeat + 1}: {server.name}")
                with ServerProcess(server.command) as process:
                    for cell in self.cells:
                        repeats[server.name, cell.name].append(cell.measure(process, self.options.seconds))
        results = {
            server.name: {cell.name: table.median(repeats[server.name, cell.name]) for cell in self.cells}
            for server in self.chosen
        }
        print(table.servers_table(self.cells, results), end="\n\n")
        nothing = cells.Measured(*[float("nan")] * 4)
        return {
            name: [by_cell.get(cell, nothing).cpu_us for cell in ("unary, 64", "real client, 64")]
            for name, by_cell in results.items()
        }

    def clients(self) -> None:
        """Print the table of clients, all calling the last server of the roster."""
        known = client_cells.clients()
        repeats: dict[str, list[cells.Measured]] = defaultdict(list)
        fastest = self.chosen[-1] if self.chosen[-1].name == "grpc-go" else self.chosen[0]
        with client_cells.Opposite(fastest.command) as server:
            for repeat in range(self.options.repeats):
                for client in known:
                    _progress(f"repeat {repeat + 1}: client {client.name}")
                    repeats[client.name].append(client.measure(server.port, self.options.seconds))
        print(f"Clients, calling {fastest.name}:\n")
        print(table.clients_table({name: table.median(of) for name, of in repeats.items()}), end="\n\n")

    def http(self) -> None:
        """Print the table of HTTP servers; one that is not installed gets a row that says so."""
        only = self.options.only
        chosen = [one for one in http_cells.servers() if not only or one.server.name in only]
        repeats: dict[tuple[str, str], list[cells.Measured]] = defaultdict(list)
        for repeat in range(self.options.repeats):
            for one in chosen:
                if not one.server.available:
                    continue
                _progress(f"repeat {repeat + 1}: {one.row}")
                with ServerProcess(one.server.command) as process:
                    for cell in one.cells():
                        repeats[one.row, cell.name].append(cell.measure(process, self.options.seconds))
        results: dict[str, dict[str, cells.Measured]] = {one.row: {} for one in chosen}
        for (row, cell_name), measured in repeats.items():
            results[row][cell_name] = table.median(measured)
        if chosen:
            print("HTTP/1.1, the same answer:\n")
            print(table.servers_table(chosen[0].cells(), results), end="\n\n")
            print(f"{http_cells.INGRESS}, CPU against {http_cells.ratios(results)}", end="\n\n")

    def memory(self) -> None:
        connections = 20 if self.options.quick else memory.CONNECTIONS
        results = {}
        for server in self.chosen:
            _progress(f"memory: {server.name}")
            # A server that refuses so many is not left out of the other tables for it.
            with contextlib.suppress(OSError):
                results[server.name] = memory.resting(server.command, connections)
        print(table.memory_table(results), end="\n\n")

    def observing(self) -> None:
        _progress("observing")
        print("Logs and metrics, each step by itself:\n\n| step | µs |\n|---|---|")
        for what, cost_us in observing.costs(self.options.seconds / 5):
            print(f"| {what} | {cost_us:.2f} |")
        print()

    def growth(self) -> list[growth.Line]:
        ours = next((server for server in self.chosen if server.name == OURS), None)
        cell = next((cell for cell in self.cells if cell.name == "unary, 64"), self.cells[0])
        if ours is None:
            return []
        _progress("growth")
        largest = 1 if self.options.quick else 10_000
        lines = list(growth.lines(ours.command, cell, self.options.seconds, largest))
        for line in lines:
            points = ", ".join(f"{count:,}: {cpu:.1f}" for count, cpu in line.points)
            print(f"{line.name}, CPU µs a call ({cell.name}): {points}", end="\n\n")
        return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a cell is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", help="a server's name; more than once for several")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", type=Path, help="where to write the SVG")
    parser.add_argument("--quick", action="store_true", help="some seconds, to see that the code works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.repeats = 0.05, 1
    return options


def _heading(options: argparse.Namespace, go: Path | None) -> str:
    return (
        f"{options.repeats} interleaved repeats of {options.seconds} s a cell, medians; one core for what is "
        f"measured, one for the load; Python {platform.python_version()}, {platform.machine()}.  Cells: "
        "units a second / CPU µs a unit of the measured process [p50/p99 ms].  Real client: "
        f"{cells.real_client(go)}, each call with a deadline, a request id and metadata of its own.\n"
    )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
