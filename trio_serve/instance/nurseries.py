"""A nursery whose single error comes out as it is.

Who opens an instance, or runs one, has a nursery below that is none of their business: the error of their own
block must reach them as they raised it, and not in a group.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """As `trio.open_nursery`, but a group of one error is unwrapped, one level deep."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # `raise` has put the group there, which holds the error itself
