"""Stack traces as the person sees them whose code it was: from their first frame on.

What leads there (this package, Trio, the import system) says nothing of their mistake.  Where no frame is
theirs the mistake is ours, and the trace stays whole.
"""

import importlib
import os
from types import TracebackType

import outcome
import trio

_FOLDERS = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    for file in (os.path.dirname(__file__), trio.__file__, outcome.__file__)
)
_IMPORT_SYSTEM = "<frozen importlib"


def from_their_first_frame(trace: TracebackType | None) -> TracebackType | None:
    """``trace`` without the frames of machinery at its head, unless nothing else is in it."""
    return their_part(trace) or trace


def their_part(trace: TracebackType | None) -> TracebackType | None:
    """``trace`` without the frames of machinery at its head; None when nothing else is in it."""
    theirs = trace
    while theirs is not None and _is_machinery(theirs.tb_frame.f_code.co_filename):
        theirs = theirs.tb_next
    return theirs


def _is_machinery(filename: str) -> bool:
    return filename.startswith((*_FOLDERS, _IMPORT_SYSTEM)) or filename == importlib.__file__
