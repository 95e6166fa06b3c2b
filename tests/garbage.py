"""What a stretch of code leaves to the garbage collector, apart from what was there before."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_to_the_collector(*kinds: type) -> Iterator[list[object]]:
    """The collector is off within; then the list has the objects of ``kinds`` made there and still alive."""
    left: list[object] = []
    gc.collect()
    earlier = [each for each in gc.get_objects() if type(each) in kinds]  # kept, so that no id is used again
    known = {id(each) for each in earlier}
    gc.disable()
    try:
        yield left
        left += [each for each in gc.get_objects() if type(each) in kinds and id(each) not in known]
    finally:
        gc.enable()
