"""One error comes out of a nursery as it went in, and not in a group.

Who opens an instance has nurseries below that are none of their business: the error of their own block must
reach them as they raised it.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_alone() -> Iterator[None]:
    """Unwrap a group of one error that leaves the block, one level deep; put it around a nursery."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # `raise` has put the group there, which holds the error itself
