"""``trio-serve run --non-blocking``: return as soon as it serves, and let it serve on without this terminal.

The process left behind writes its log to a file, and stops at SIGTERM as one in the foreground does.

Knows nothing of what is served.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
from typing import BinaryIO

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
        return leave_behind(argv, output, log)


def leave_behind(argv: list[str], output: BinaryIO, log: pathlib.Path) -> int:
    """Start ``trio-serve`` with ``argv`` in a session of its own, and wait until it serves; the exit code.

    What it prints goes to the end of ``output``.  Addresses, pid and ``log`` are told on stdout; where it
    ends without serving, what it has printed goes to stderr.
    """
    begins_at = output.seek(0, os.SEEK_END)
    ready, child_ready = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_serve", *argv, "--blocking", f"--ready-fd={child_ready}"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(child_ready,),
        start_new_session=True,
    )
    os.close(child_ready)
    with os.fdopen(ready) as reading:
        *addresses, serves = reading.read().split("\n")[:-1] or [""]
    if not serves:
        code = process.wait()
        output.seek(begins_at)
        sys.stderr.write(output.read().decode("utf-8", "replace"))
        return code
    for line in (*addresses, f"pid {process.pid}", f"log {log}"):
        print(line)
    return STOPPED


def _new_log(logs_dir: str | None) -> pathlib.Path:
    """An empty file for one run's log, in ``logs_dir`` or in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = pathlib.Path(logs_dir or os.path.join(state, "trio-serve"))
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="run-", suffix=".log", dir=folder)
    os.close(handle)
    return pathlib.Path(name)
