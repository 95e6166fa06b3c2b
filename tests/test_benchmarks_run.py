"""The benchmark's code works: every part runs for a moment.  No time is judged here."""

import subprocess
import sys
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

from benchmarks import plot
from benchmarks.cells import Cell, Measured
from benchmarks.growth import Line, growing, lines
from benchmarks.load import h2load
from benchmarks.process_tree import ServerTree, is_alive
from benchmarks.processes import ServerProcess, python
from benchmarks.turns import Point, in_turn
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"


ONLY = ("trio_serve.grpc", "grpc.aio", "trio_serve, FastAPI ingress", "FastAPI on hypercorn, Trio")
"""Our servers and one peer of each."""


def printed_by(part: str, *options: str) -> str:
    """What the benchmark prints when it measures each cell of one part once."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--parts", part, *options]
    for name in ONLY:
        command += ["--only", name]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("clients", ["Calling ", "| trio_serve.grpc"]),
        ("http", ["| trio_serve, FastAPI ingress |", "CPU against FastAPI on hypercorn, Trio: "]),
        ("memory", ["| trio_serve.grpc |", "| grpc.aio |"]),
        ("growth", ["| open streams |", "| open connections |", "| registered methods |"]),
        ("observing", ["| metrics: a call at its proxy |"]),
    ],
)
def test_each_part_of_the_benchmark_prints_its_table(part: str, rows: list[str]) -> None:
    printed = printed_by(part)

    assert [row for row in rows if row not in printed] == []


def test_the_benchmark_writes_its_page_and_draws_its_plot(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "plot.svg"

    printed = printed_by("servers", "--page", str(page), "--plot", str(picture))

    assert "| trio_serve.grpc |" in printed
    assert page.read_text() + "\n" == printed
    assert "](plot.svg)" in printed
    assert "grpc.aio" in drawn(picture.read_text())


def drawn(picture: str) -> str:
    return "\n".join(ElementTree.fromstring(picture).itertext())


def test_the_plot_tells_servers_units_colours_and_how_to_repeat_it() -> None:
    bars = {"trio_serve.grpc": [30.0, 60.0], "peer": [300.0, float("nan")]}
    grown = [Line("open streams", ((1, 41.0), (10_000, 42.0)))]

    picture = plot.draw(bars, grown, "make bench")

    words = drawn(picture)
    for word in ("trio_serve.grpc", "peer", "µs", *plot.BAR_NAMES, "open streams", "10,000", "make bench"):
        assert word in words
    rectangles = ElementTree.fromstring(picture).iter(f"{SVG}rect")
    _, once, twice, tenfold = [float(one.attrib["width"]) for one in rectangles if one.get("x") == "130.0"]
    assert twice / once == pytest.approx(2, rel=0.01)
    assert tenfold / once == pytest.approx(10, rel=0.01)


def test_what_is_compared_is_measured_in_turn_and_the_medians_taken() -> None:
    """What slows the machine for one round is in none of them."""
    asked: list[str] = []

    def point(name: str, *costs: float) -> Point:
        left = iter(costs)

        def measure() -> Measured:
            asked.append(name)
            return Measured(1000.0, next(left), 1.0, 2.0)

        return measure

    medians = in_turn("both", {"ours": point("ours", 30, 90, 31), "theirs": point("theirs", 60, 99, 62)}, 3)

    assert {name: measured.cpu_us for name, measured in medians.items()} == {"ours": 31, "theirs": 62}
    assert asked == ["ours", "theirs"] * 3


def test_growth_stands_ready_with_as_many_as_it_says() -> None:
    """Each server is asked once a round, and has its idle streams and connections then."""
    descriptors: dict[int, int] = {}

    class Count:
        def measure(self, server: ServerProcess, seconds: float) -> Measured:
            descriptors[server.port] = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
            return Measured(1.0, 30.0, 1.0, 1.0)

    of_connections = growing(python("benchmarks.servers.trio_serve_grpc"), [])[:2]
    found = lines(of_connections, cast(Cell, Count()), 0.1, rounds=1, largest=10)

    assert [line.name for line in found] == ["open streams", "open connections"]
    assert all([count for count, _ in line.points] == [1, 10] for line in found)
    on_streams, on_connections = [b - a for a, b in zip(*[iter(descriptors.values())] * 2, strict=True)]
    assert (on_streams, on_connections) == (9, 9)  # ten streams are on ten connections


@pytest.mark.skipif(not h2load.available(), reason="h2load (Debian: nghttp2-client) is not here")
def test_the_benchmark_beside_ray_prints_our_row() -> None:
    """Without an interpreter that has Ray, ours is the only one."""
    command = [sys.executable, "-m", "benchmarks.beside_ray", "--seconds", "0.05"]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)

    assert done.returncode == 0, done.stderr
    of_calls, of_the_whole = [line for line in done.stdout.splitlines() if line.startswith("| trio_serve |")]
    assert of_calls.count(" / ") == 3
    assert of_the_whole.endswith("| 1.0 |")


def test_a_tree_of_processes_counts_the_children_and_ends_with_them() -> None:
    program = (
        "import subprocess, sys, time\n"
        "import signal; signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit()))\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('ready', child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )

    with ServerTree([sys.executable, "-c", program]) as tree:
        child = tree.port  # what it printed
        pids = tree.pids()
        resident = tree.resident_bytes()

    assert pids == [tree.pid, child]
    assert resident > 2_000_000
    assert not is_alive(child)
