"""examples/backends: each script runs to its end, and the file loads and splits the traffic."""

import re
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S
from trio_serve.instance.loading import load_applications
from trio_serve.instance.plan import CommandLine, plan_of
from trio_serve.serving.traffic import TrafficPolicy

from .conftest import ROOT

BACKENDS = ROOT / "examples" / "backends"


def output_of(script: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BACKENDS / script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real_clock
def test_backends_of_the_older_document() -> None:
    text = output_of("counter.py")
    assert '{"count":1,"by":"counter:v1"}' in text
    assert "{'count': 2, 'by': 'counter:v1'}" in text
    (by_v2,) = re.findall(r"answered by v2: (\d+) of 50", text)
    assert 5 < int(by_v2) < 45


@pytest.mark.real_clock
def test_a_canary_that_grows() -> None:
    lines = output_of("canary.py").splitlines()
    assert lines[0] == "  0% to the canary: {'version 1': 100}"
    assert lines[3] == "100% to the canary: {'version 2': 100}"


def test_the_file() -> None:
    targets = load_applications(plan_of(CommandLine(str(BACKENDS / "config.yaml"))))
    assert [(target.name, target.route_prefix) for target in targets] == [
        ("shop", "/"),
        ("shop-canary", None),
    ]
    assert targets[0].traffic == TrafficPolicy(
        {"shop": 0.9, "shop-canary": 0.1}, "x-user", {"shop-canary": 0.05}
    )
