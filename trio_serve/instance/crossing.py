"""From a thread into a Trio run, and back with what came of it.

Knows nothing of what runs there.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import trio


def in_thread_of(token: trio.lowlevel.TrioToken, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``act``, async or not, in the Trio thread of ``token``; wait for what it returns or raises.

    Raises:
        RuntimeError: in a Trio task, which would wait for itself.
    """
    enter = trio.from_thread.run if inspect.iscoroutinefunction(act) else trio.from_thread.run_sync
    return enter(partial(act, *args, **kwargs), trio_token=token)
