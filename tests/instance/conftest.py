"""A machine for a test: it has no long-lived instance yet, and none afterwards."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.instance.detached_instance import Machine, a_machine


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[Machine]:
    with a_machine(tmp_path) as machine:
        yield machine
