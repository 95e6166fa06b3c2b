"""``trio-serve run --non-blocking``: return as soon as it serves, and let it serve on without this terminal.

The process left behind writes its log to a file, and stops at SIGTERM as one in the foreground does.

Knows nothing of what is served.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

import attrs

from trio_serve.instance.foreground import MISTAKEN, STOPPED
from trio_serve.instance.plan import CommandLine, plan_of


def run_in_background(given: CommandLine, argv: list[str]) -> int:
    """Start what the command line ``argv``, read as ``given``, asks for; the exit code.

    Returns when it serves, or when it ended without: then its log is written to stderr.
    """
    try:
        plan = plan_of(given)
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISTAKEN
    log = _new_log(plan.logging_config.logs_dir)
    with log.open("w+b") as output:
        return told_where(lambda: leave_behind(argv, output), log)


def told_where(start: Callable[[], "LeftBehind"], log: pathlib.Path) -> int:
    """Start a process, and tell on stdout where it is, or on stderr why it is not; the exit code."""
    try:
        left = start()
    except DidNotStart as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for line in (*left.addresses, f"pid {left.pid}", f"log {log}"):
        print(line)
    return STOPPED


@attrs.frozen
class LeftBehind:
    """A process that serves: its open ports, a line for each, and its pid."""

    addresses: list[str]
    pid: int


class DidNotStart(RuntimeError):
    """The process ended without serving; the text is what it has printed."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def leave_behind(argv: Sequence[str], output: BinaryIO, options: bytes = b"") -> LeftBehind:
    """Start ``trio-serve`` with ``argv`` in a session of its own, and wait until it serves.

    What it prints goes to the end of ``output``; it can read ``options`` from its ``--options-fd``.

    Raises:
        DidNotStart
    """
    begins_at = output.seek(0, os.SEEK_END)
    ready, child_ready = os.pipe()
    child_options, given = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trio_serve", *argv, "--blocking", f"--ready-fd={child_ready}"),
            *([f"--options-fd={child_options}"] if options else []),
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(child_ready, child_options),
        start_new_session=True,
    )
    os.close(child_ready)
    os.close(child_options)
    with contextlib.suppress(BrokenPipeError), os.fdopen(given, "wb") as writing:
        writing.write(options)
    with os.fdopen(ready) as reading:
        *addresses, serves = reading.read().split("\n")[:-1] or [""]
    if serves:
        return LeftBehind(addresses, process.pid)
    code = process.wait()
    output.seek(begins_at)
    raise DidNotStart(output.read().decode("utf-8", "replace").rstrip("\n"), code)


def _new_log(logs_dir: str | None) -> pathlib.Path:
    """An empty file for one run's log, in ``logs_dir`` or in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = pathlib.Path(logs_dir or os.path.join(state, "trio-serve"))
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="run-", suffix=".log", dir=folder)
    os.close(handle)
    return pathlib.Path(name)
