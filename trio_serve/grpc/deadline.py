"""The deadline that calls inherit.

    handler of a served call              outgoing call
    current_deadline = 12.5  ──────────>  min(its own timeout, 12.5, the surrounding cancel scopes')

Whoever starts a handler sets ``current_deadline`` in the handler's context.  All times are
``trio.current_time()``, so a virtual clock governs them.
Knows nothing of calls.
"""

from __future__ import annotations

import contextvars
import math

import trio

__all__ = ["current_deadline", "inherited_deadline"]

current_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("current_deadline", default=math.inf)
"""When the served call around this code must be over (``trio.current_time()``; ``inf`` for no limit)."""


def inherited_deadline() -> float:
    """The earlier of the served call's deadline and the surrounding cancel scopes' (``inf`` for none)."""
    served, scopes = current_deadline.get(), trio.current_effective_deadline()
    return served if served < scopes else scopes
