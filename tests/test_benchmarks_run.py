"""The benchmark's code works: every part runs for a moment.  No time is judged here."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

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
