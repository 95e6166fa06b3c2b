"""The stack trace that a client gets to see: the user's frames, in a size that trailers can carry.

What a client learns of a server by an error is kept small on purpose: frames of this package and of Trio say
nothing about the user's mistake and are left out, a file is named relative to the place that it was imported
from, and what is too long is cut in the middle, so that the exception itself (the last line) always survives.

Knows nothing of gRPC, and of calls only their exception.
"""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TRACE_BYTES_MAX = 4096
"""What the details of a failed call may take.  Clients refuse large trailers: grpcio from 8 KiB on."""

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CUT = "\n  [... {} bytes left out ...]\n"


def user_stack_trace(exception: BaseException, bytes_max: int = TRACE_BYTES_MAX) -> str:
    """Tell ``exception``, with its causes, as ``traceback`` does, in at most ``bytes_max`` bytes of UTF-8."""
    trace = traceback.TracebackException.from_exception(exception, compact=True)
    _keep_users_frames(trace)
    text = "".join(trace.format()).rstrip("\n")
    return cut_in_the_middle(_ANSI.sub("", text), bytes_max)


def last_line(exception: BaseException) -> str:
    """The exception in one line, as the last line of its trace: ``ValueError: no such picture``."""
    text = "".join(traceback.format_exception_only(exception)).strip()
    return text.splitlines()[-1] if text else type(exception).__name__


def cut_in_the_middle(text: str, bytes_max: int) -> str:
    """Shorten ``text`` to ``bytes_max`` bytes of UTF-8: head and end stay, the end gets the larger share."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    room = bytes_max - len(_CUT.format(len(encoded)))
    head = encoded[: room // 3].decode(errors="ignore")
    end = encoded[len(encoded) - (room - room // 3) :].decode(errors="ignore")
    left_out = len(encoded) - len(head.encode()) - len(end.encode())
    return head + _CUT.format(left_out) + end


def _keep_users_frames(trace: traceback.TracebackException) -> None:
    """Drop our frames and rename files, in ``trace`` and in all that it was caused by or groups."""
    for part in _all_parts(trace):
        users = [frame for frame in part.stack if not _is_plumbing(frame.filename)]
        part.stack = traceback.StackSummary.from_list(
            [
                traceback.FrameSummary(
                    _as_imported(frame.filename), frame.lineno, frame.name, lookup_line=False, line=frame.line
                )
                for frame in users
            ]
        )


def _all_parts(trace: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting = [trace]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += [linked for linked in (part.__cause__, part.__context__) if linked is not None]
        waiting += part.exceptions or []


@cache
def _plumbing() -> tuple[str, ...]:
    """Folders whose frames tell a user nothing: this package, and what drives its coroutines."""
    import outcome
    import trio

    folders = [Path(__file__).parent.parent, Path(trio.__file__).parent, Path(outcome.__file__).parent]
    return tuple(f"{folder}{os.sep}" for folder in folders)


def _is_plumbing(filename: str) -> bool:
    return filename.startswith(_plumbing())


def _as_imported(filename: str) -> str:
    """``filename`` relative to the import path that holds it, or its bare name where none does."""
    if not os.path.isabs(filename):
        return filename
    roots = [os.path.abspath(entry or os.curdir) + os.sep for entry in sys.path]
    holders = [root for root in roots if filename.startswith(root)]
    if not holders:
        return os.path.basename(filename)
    return filename[len(max(holders, key=len)) :]
