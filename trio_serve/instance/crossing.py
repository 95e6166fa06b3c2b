"""From a thread into the Trio run of an instance, and back with what came of it.

Knows nothing of which instance, or of what is called there.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from trio_serve.instance.instance import Instance

Result = TypeVar("Result")


def from_outside(instance: Instance, act: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call ``act`` in the thread of ``instance``, and wait for what it returns or raises."""
    return trio.from_thread.run(act, *args, trio_token=instance.trio_token)


def in_its_thread(instance: Instance, act: Callable[..., Result], *args: Any) -> Result:
    """As `from_outside`, for what does not wait; from within a Trio program it is just called."""
    if trio.lowlevel.in_trio_run():
        return act(*args)
    return trio.from_thread.run_sync(act, *args, trio_token=instance.trio_token)
