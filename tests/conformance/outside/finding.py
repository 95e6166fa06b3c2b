"""Where an outside tool is, and what came of it."""

import os
import shutil

import attrs


@attrs.frozen
class Outcome:
    """One row of the table."""

    tool: str
    against: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: str = ""
    """Why nothing was run."""


def find(name: str, variable: str) -> str | None:
    """The path in the environment's ``variable``, or of ``name`` on PATH."""
    return os.environ.get(variable) or shutil.which(name)


def missing(tool: str, against: str, name: str, variable: str) -> Outcome:
    return Outcome(tool, against, skipped=f"no {name} on PATH, and {variable} is not set")
