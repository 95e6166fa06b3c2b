"""Seeded scheduling: the order of tasks that are ready at once is drawn from a seed, and so can be had again.

    seed 7:  ready tasks {a, b, c}  -->  b, a, c    each time
    seed 8:  ready tasks {a, b, c}  -->  c, a, b    each time

Correct programs do not depend on that order, and races do: `shake` runs a test under many seeds, and a
failure tells its seed.

Trio has no public way to do this.  It shuffles each batch of ready tasks with a `random.Random` of its own
when a flag is set that exists for Hypothesis; `trio._core._run._hypothesis_plugin_setup` sets it, and
Hypothesis seeds the object through `register_random`.  We use the same flag and the same object, for the
length of a block.  Nothing outside this module touches them.

What stays free: threads, sockets and the real clock.  With the memory transport and a virtual clock there are
none of these, and a run is the same down to each switch of tasks.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from trio._core import _run as trio_run

SEED_MAX = 2**32

seed_in_force: ContextVar[int | None] = ContextVar("trio_serve.testing.seed", default=None)
"""The seed of the block that this code runs in; who draws something for a test draws it from this."""


@contextmanager
def seeded_scheduling(seed: int | None = None) -> Iterator[int]:
    """Draw the order of ready tasks from ``seed`` within the block; gives the seed, a new one for None.

    It may be entered before ``trio.run`` or in a task.  An exception that leaves the block carries the
    seed as a note.  All Trio runs of the process share it, so use it in one at a time.
    """
    if seed is None:
        seed = secrets.randbelow(SEED_MAX)
    flag, state = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final, for all but Hypothesis
    trio_run._r.seed(seed)
    outside = seed_in_force.set(seed)
    try:
        yield seed
    except BaseException as error:
        error.add_note(f"scheduling seed: {seed}")
        raise
    finally:
        seed_in_force.reset(outside)
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = flag  # type: ignore[misc]
        trio_run._r.setstate(state)


def shake(async_fn: Callable[..., Awaitable[Any]], *args: Any, seeds: int | Iterable[int] = 100) -> None:
    """Run a test in virtual time once for each seed; ``seeds`` counts them from 0, or lists them.

    Raises:
        Exception: the first failure, with a note that tells its seed.
    """
    from trio_serve.testing.virtual_time import run_in_virtual_time

    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        run_in_virtual_time(async_fn, *args, seed=seed)
