"""Calling ``__del__`` at a chosen moment, and only then.

A served object says goodbye when its replica stops, in the place where its other methods run, and its
``__del__`` may be ``async``.  Python would call the same method again when it frees the object.
"""

from typing import Any


def has_finalizer(instance: object) -> bool:
    """Whether the object's class defines ``__del__``."""
    return callable(getattr(type(instance), "__del__", None))


def disarm_finalizer(instance: Any) -> None:
    """Keep Python from calling ``__del__`` when it frees ``instance``."""
    own = type(instance)
    try:
        # A subclass of the same layout, whose only difference is that it does nothing at the end.
        instance.__class__ = type(own.__name__, (own,), {"__slots__": (), "__del__": lambda self: None})
    except TypeError:
        pass  # a layout that allows no such change; then Python calls it once more
