"""The benchmarks of overload and of hops work.  No time is judged here."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.lines_plot import Panel
from benchmarks.overload import Outcome, median, picture, recovery_s
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_overload_prints_a_row_and_draws_its_picture(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    name = "trio_serve, max_queued_requests=8"
    printed = run(
        *("benchmarks.overload", "--seconds", "0.3", "--onset", "0.2", "--loads", "3", "--runs", "2"),
        *("--only", name, "--plot", str(plot)),
    )

    assert f"| {name} (" in printed
    assert printed.count("| 3x |") == 1
    assert name in "".join(ElementTree.parse(plot).getroot().itertext())


def test_the_row_of_several_runs_has_the_median_of_each_column() -> None:
    def outcome(goodput: float, late: int) -> Outcome:
        return Outcome(200.0, goodput, 5.0, 50.0, 500.0, late, 0, 0.1, 1.0, 0.5)

    assert median([outcome(0.9, 7), outcome(0.5, 9), outcome(0.8, 1)]) == outcome(0.8, 7)


def test_the_picture_has_both_panels_every_server_and_the_aim() -> None:
    ours = Outcome(200.0, 0.95, 5.0, 60.0, 500.0, 0, 0, 0.0, 1.0, 0.5)
    theirs = Outcome(200.0, 0.2, 0.0, 5000.0, 990.0, 300, 250, 1.5, 1.0, 0.5)

    root = ElementTree.fromstring(picture({"ours": {2.0: ours, 10.0: ours}, "theirs": {2.0: theirs}}))

    panels = root.findall(f"{SVG}g")
    assert len(panels) == 2
    for panel in panels:
        aim, *curves = panel.findall(f"{SVG}polyline")
        assert len(aim.attrib["points"].split()) == 2  # at 2 and 10 times the peak, as those were measured
        assert [len(curve.attrib["points"].split()) for curve in curves] == [2, 1]
        assert len(panel.findall(f"{SVG}circle")) == 3
    text = "".join(root.itertext())
    assert "ours" in text
    assert "theirs" in text
    assert "10x" in text


def test_the_better_figure_is_drawn_higher_and_what_is_off_the_scale_at_its_edge() -> None:
    shares = Panel("share", [], ticks=(0, 50, 100))
    times = Panel("time", [], ticks=(10, 100, 1000), logarithmic=True)

    assert shares.height(100) < shares.height(50) < shares.height(0)
    assert times.height(100) == pytest.approx((times.height(10) + times.height(1000)) / 2)
    assert times.height(5000) == times.height(1000)
    assert times.height(0.0) == times.height(10)


def test_recovery_ends_with_the_last_bad_tenth_of_a_second() -> None:
    calls = [(k / 100, "OK") for k in range(100)]
    assert recovery_s(calls) == 0.0

    calls[23] = (0.23, "RESOURCE_EXHAUSTED")
    assert recovery_s(calls) == pytest.approx(0.3)


def test_hops_prints_its_table() -> None:
    assert "| 64 | " in run("benchmarks.hops", "--calls", "100")
