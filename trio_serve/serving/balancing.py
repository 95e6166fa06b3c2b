"""Which replica gets a call: the less busy of two drawn at random, but first one that has its model.

Two random choices keep the longest queue exponentially shorter than one would, at a price that does not grow
with the number of replicas.  Only a replica with room is ever chosen; with none, the call waits in the
deployment's mailbox for the first that has.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
Pure: it waits for nothing and changes nothing but the state of its random generator.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What balancing knows of a replica."""

    @property
    def ongoing(self) -> int: ...

    @property
    def has_room(self) -> bool: ...

    @property
    def model_ids(self) -> frozenset[str]: ...


R = TypeVar("R", bound=Candidate)


def choose(replicas: Sequence[R], random: Random, model_id: str = "") -> R | None:
    """A replica with room for one more call, or None.

    With a ``model_id``, the least busy of those that have that model and room.
    """
    if model_id:
        having = [replica for replica in replicas if model_id in replica.model_ids and replica.has_room]
        if having:
            return min(having, key=_ongoing)
    count = len(replicas)
    if count == 1:
        return replicas[0] if replicas[0].has_room else None
    if count == 0:
        return None
    # random() times count is several times cheaper than sample(); the tiny bias is of no account here.
    first = int(random.random() * count)
    second = int(random.random() * (count - 1))
    if second >= first:
        second += 1
    a, b = replicas[first], replicas[second]
    if b.ongoing < a.ongoing:
        a, b = b, a
    if a.has_room:
        return a
    if b.has_room:  # fewer slots in all, so busier by count and yet with room
        return b
    return min((replica for replica in replicas if replica.has_room), key=_ongoing, default=None)


def _ongoing(replica: Candidate) -> int:
    return replica.ongoing
