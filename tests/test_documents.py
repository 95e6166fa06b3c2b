"""Every document's code runs as it stands there, used as a newcomer would: `document` tells how."""

import os
import pathlib
import subprocess
import sys

import pytest

from .document import ROOT

ELSEWHERE = {
    "docs/api.md": "test_api_reference.py",  # is made from the docstrings
    "docs/testing.md": "testing_kit/test_recipes.py",  # is a file of tests
}
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in ELSEWHERE])
def test_its_code_runs_as_it_stands(document: str, tmp_path: pathlib.Path) -> None:
    own = {key: value for key, value in os.environ.items() if not key.startswith("TRIO_SERVE_")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.document", str(ROOT / document)],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout
