"""The code of every document and example runs as it stands, used as a newcomer would; see `document`."""

import collections
import os
import pathlib
import re
import subprocess
import sys

import pytest

from .document import ROOT
from .patience import PATIENCE_S

ELSEWHERE = {
    "docs/api.md": "test_api_reference.py",  # is made from the docstrings
    "docs/testing.md": "testing_kit/test_recipes.py",  # is a file of tests
}
DOCUMENTS = [
    str(path.relative_to(ROOT))
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in ELSEWHERE])
def test_its_code_runs_as_it_stands(document: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.document", document],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("TRIO_SERVE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout


def anchors_of(path: pathlib.Path) -> set[str]:
    """What a page's headings can be linked by, as GitHub makes it: the second of a name has a number."""
    times: collections.Counter[str] = collections.Counter()
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{times[anchor]}" if times[anchor] else anchor)
        times[anchor] += 1
    return anchors


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [name for name in DOCUMENTS if name.startswith("docs/") and f"]({name})" not in readme] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    for name, anchor in LINK.findall(page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor[1:] in anchors_of(target), f"{name}{anchor}"
