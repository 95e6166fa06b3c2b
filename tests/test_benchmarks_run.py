"""The benchmark's code works: every part runs for a moment.  No time is judged here."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.load import h2load
from benchmarks.process_tree import ServerTree, is_alive

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_benchmark_prints_its_tables_and_draws_its_plot(tmp_path: Path) -> None:
    """Our servers and one peer of each, every cell once."""
    plot = tmp_path / "plot.svg"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--plot", str(plot)]
    command += [
        "--only",
        "trio_serve.grpc",
        "--only",
        "grpc.aio",
        "--only",
        "trio_serve, FastAPI ingress",
        "--only",
        "FastAPI on hypercorn, Trio",
        "--parts",
        "servers",
        "clients",
        "http",
        "memory",
        "growth",
        "observing",
    ]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    for row in (
        "| trio_serve.grpc |",
        "| grpc.aio |",
        "| trio_serve, FastAPI ingress |",
        "CPU against FastAPI on hypercorn, Trio: ",
        "open streams",
        "open connections",
        "registered methods",
        "| metrics: a call at its proxy |",
    ):
        assert row in done.stdout
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.skipif(not h2load.available(), reason="h2load (Debian: nghttp2-client) is not here")
def test_the_benchmark_beside_ray_prints_our_row() -> None:
    """Without an interpreter that has Ray, ours is the only one."""
    command = [sys.executable, "-m", "benchmarks.beside_ray", "--seconds", "0.05"]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)

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
