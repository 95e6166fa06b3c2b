"""The benchmarks of overload and of hops work.  No time is judged here."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.overload import recovery_s

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_overload_prints_a_row_and_draws_its_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    name = "trio_serve, max_queued_requests=8"
    printed = run(
        *("benchmarks.overload", "--seconds", "0.3", "--loads", "3"), *("--only", name, "--plot", str(plot))
    )

    assert f"| {name} (" in printed
    assert "| 3x |" in printed
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_recovery_ends_with_the_last_bad_tenth_of_a_second() -> None:
    calls = [(k / 100, "OK") for k in range(100)]
    assert recovery_s(calls) == 0.0

    calls[23] = (0.23, "RESOURCE_EXHAUSTED")
    assert recovery_s(calls) == pytest.approx(0.3)


def test_hops_prints_its_table() -> None:
    assert "| 64 | " in run("benchmarks.hops", "--calls", "100")
