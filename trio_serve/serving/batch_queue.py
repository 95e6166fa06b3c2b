"""Gathering calls into batches, and running them.

    call(a) ─┐                 ┌─ waiting ─┐  full, or the oldest has          ┌─> a's result
    call(b) ─┼─> the lane of ──┤  a, b, c  ├─ waited long enough, ─> function ─┼─> b's result
    call(c) ─┘   its model id  └───────────┘  and a place is free   ([a,b,c])  └─> c's result

One queue for each instance (or function) and replica, one lane for each multiplexed model id in it: a batch
never mixes models, and ``max_concurrent_batches`` is counted per lane, so that one model's batch does not
hold up another's.  While every place is taken, the next batch goes on filling.

A batch belongs to the replica, not to the caller that happened to complete it: it runs in the replica's
nursery.  A lane's task exists only while calls wait, a batch's only while it runs.  What waits is bounded
by the replica's ``max_ongoing_requests``, since each member is a request at work.
"""

from __future__ import annotations

import contextvars
import logging
from collections import ChainMap, OrderedDict
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import attrs
import trio

from trio_serve.serving.replica_scope import ReplicaScope, ReplicaStopped
from trio_serve.serving.shared_work import Failure, SharedWork, Waiter, part_cancelled

if TYPE_CHECKING:
    from trio_serve.serving.batching import Batched

log = logging.getLogger("trio_serve.serving")

Settings = ChainMap[str, Any]


@attrs.define
class BatchCounters:
    """What one batched function did for one instance; plain numbers for whoever exports metrics."""

    batches: int = 0
    items: int = 0
    errors: int = 0
    cancelled: int = 0
    wait_s: float = 0.0
    run_s: float = 0.0


class Member(Waiter):
    """One call's place in a batch, queued or running."""

    __slots__ = ("arguments", "arrived", "context", "instance", "lane")

    def __init__(self, instance: object | None, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.instance = instance
        self.arguments = arguments
        self.context = contextvars.copy_context()
        self.arrived = trio.current_time()
        self.lane: Lane

    def fail(self, failure: Failure) -> None:
        """Let the caller raise an error, if it still waits."""
        self.answer(failure)

    def leave(self) -> bool:
        """The caller is gone: out of the queue at once, or one less to answer."""
        if self.work is None:
            self.lane.remove(self)
        return super().leave()


class BatchQueue:
    """The lanes of one instance."""

    __slots__ = ("__weakref__", "batched", "counters", "lanes", "scope", "settings")

    def __init__(self, batched: Batched, settings: Settings, scope: ReplicaScope) -> None:
        self.batched = batched
        self.settings = settings
        self.scope = scope
        self.counters = BatchCounters()
        self.lanes: dict[str, Lane] = {}
        self._warn_of_batches_that_never_fill()

    @property
    def waiting(self) -> int:
        """Calls that are not in a batch yet."""
        return sum(len(lane.waiting) for lane in self.lanes.values())

    def join(self, member: Member) -> None:
        """Put a call into the lane of its model id.

        Raises:
            RuntimeError: ``batch_size_fn`` measures the item alone as more than a batch may hold.
            ReplicaStopped: the replica is no longer there.
        """
        model_id = self.scope.requests.model_id()
        lane = self.lanes.get(model_id)
        if lane is None:
            lane = self.lanes[model_id] = Lane(self, model_id)
            self.batched.lanes.add(lane)
        try:
            lane.join(member)
        finally:
            lane.retire_if_idle()

    async def aclose(self) -> None:
        """Nothing to let go of: the tasks end with the replica's nursery, and answer their callers then."""

    def _warn_of_batches_that_never_fill(self) -> None:
        at_once = self.scope.max_ongoing_requests
        size, places = self.settings["max_batch_size"], self.settings["max_concurrent_batches"]
        if self.batched.batch_size_fn is None and at_once is not None and at_once < size * places:
            log.warning(
                "%s: batches of max_batch_size=%d, max_concurrent_batches=%d at a time, cannot all fill with "
                "max_ongoing_requests=%d; raise it to %d",
                self.batched.__qualname__,
                size,
                places,
                at_once,
                size * places,
            )


class Lane:
    """The calls of one instance and model id, oldest first, and how many batches of theirs run."""

    __slots__ = (
        "__weakref__",
        "_changed",
        "_full",
        "_max_size",
        "_wait_s",
        "_working",
        "model_id",
        "queue",
        "running",
        "waiting",
    )

    def __init__(self, queue: BatchQueue, model_id: str) -> None:
        self.queue = queue
        self.model_id = model_id
        self.waiting: OrderedDict[Member, None] = OrderedDict()
        self.running = 0
        self._working = False
        self._full = False
        self._changed = trio.Event()
        self._open_batch()

    # -- the waiting -----------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        member.lane = self
        if not self.waiting:
            self._open_batch()
        if not self._full:
            self._full = self._would_fill(member)
        if not self._working:
            self.queue.scope.start_soon(self._work)
            self._working = True
        self.waiting[member] = None
        if self._full:
            self._changed.set()

    def remove(self, member: Member) -> None:
        oldest = next(iter(self.waiting))
        del self.waiting[member]
        self._full = self._measure_all()
        if member is oldest:
            self._changed.set()

    def look_again(self) -> None:
        """A setting has changed."""
        self._changed.set()

    def retire_if_idle(self) -> None:
        """Forget a lane that has nothing to do, so that model ids do not pile up."""
        if not self._working and not self.running and not self.waiting:
            self.queue.lanes.pop(self.model_id, None)

    def _open_batch(self) -> None:
        """A new batch begins to fill, with the settings of this moment."""
        self._max_size: int = self.queue.settings["max_batch_size"]
        self._wait_s: float = self.queue.settings["batch_wait_timeout_s"]
        self._full = self._measure_all()

    def _measure_all(self) -> bool:
        try:
            return self._measure(self.waiting) >= self._max_size
        except Exception:
            return True  # whose fault it is comes out when the batch is taken

    def _would_fill(self, member: Member) -> bool:
        if self.queue.batched.batch_size_fn is None:
            return len(self.waiting) + 1 >= self._max_size
        alone = self._measure([member])
        if alone > self._max_size:
            raise RuntimeError(
                f"{self.queue.batched.__qualname__}: batch_size_fn measures this item alone as {alone}, "
                f"over max_batch_size={self._max_size}; raise max_batch_size, or send smaller items"
            )
        return self._measure([*self.waiting, member]) >= self._max_size

    def _measure(self, members: Sequence[Member] | Mapping[Member, None]) -> int:
        size_fn = self.queue.batched.batch_size_fn
        if size_fn is None or not members:
            return len(members)
        return size_fn([member.arguments[0] for member in members])

    # -- the lane's task -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Turn what waits into batches; ends when nothing waits."""
        try:
            while self.waiting:
                await self._until_a_place_is_free()
                await self._until_full_or_late()
                if members := self._take():
                    self._start(members)
        finally:
            self._working = False
            self._abandon()
            self.retire_if_idle()

    async def _until_a_place_is_free(self) -> None:
        while self.waiting and self.running >= self.queue.settings["max_concurrent_batches"]:
            await self._until_changed()

    async def _until_full_or_late(self) -> None:
        while self.waiting and not self._full:
            late = next(iter(self.waiting)).arrived + self._wait_s
            if trio.current_time() >= late:
                return
            with trio.move_on_at(late):
                await self._until_changed()

    async def _until_changed(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    def _take(self) -> list[Member]:
        """The oldest members that fit into one batch."""
        members: list[Member] = []
        while self.waiting:
            member = next(iter(self.waiting))
            try:
                # One alone always goes, or a smaller max_batch_size set meanwhile would hold it for ever.
                if members and self._measure([*members, member]) > self._max_size:
                    break
            except Exception as error:
                member.fail(Failure(error))
            else:
                members.append(member)
            del self.waiting[member]
            if len(members) >= self._max_size and self.queue.batched.batch_size_fn is None:
                break
        self._open_batch()
        return members

    def _start(self, members: list[Member]) -> None:
        batch = Batch(self, members)
        self.running += 1
        try:
            # User's own context variables are the oldest member's; the request's are replaced in ``run``.
            members[0].context.run(self.queue.scope.start_soon, batch.run)
        except BaseException as error:
            batch.end(Failure(error))

    def _abandon(self) -> None:
        """Answer who still waits, because the replica is gone; nobody does otherwise."""
        if self.waiting:
            failure = Failure(_stopped(self.queue))
            for member in self.waiting:
                member.fail(failure)
            self.waiting.clear()

    def batch_ended(self) -> None:
        """A place is free."""
        self.running -= 1
        self._changed.set()
        self.retire_if_idle()


class Batch:
    """Members that are answered by one call of the function."""

    __slots__ = ("lane", "members", "work")

    def __init__(self, lane: Lane, members: list[Member]) -> None:
        self.lane = lane
        self.members = members
        self.work = SharedWork()
        self.work.wanted_by = len(members)
        for member in members:
            member.work = self.work

    async def run(self) -> None:
        """Call the function and answer every member; lets out nothing but ``Cancelled``."""
        queue, started = self.lane.queue, trio.current_time()
        queue.counters.batches += 1
        queue.counters.items += len(self.members)
        queue.counters.wait_s += sum(started - member.arrived for member in self.members)
        try:
            queue.scope.requests.enter_shared([member.context for member in self.members])
            with self.work.cancel_scope:
                await self._call(queue)
        finally:
            queue.counters.run_s += trio.current_time() - started
            queue.counters.cancelled += self.work.cancel_scope.cancelled_caught
            self.end(Failure(_stopped(queue)))

    async def _call(self, queue: BatchQueue) -> None:
        if not self.work.wanted_by:
            return
        try:
            await queue.batched.run(self.members, self.work)
        except BaseException as error:
            # Whatever it is, each member raises it as if the function had been its own.
            cancelled, rest = part_cancelled(error)
            if rest is not None:
                self._fail(queue, rest)
            del rest  # its traceback holds this frame
            if cancelled is not None:
                raise cancelled from None

    def _fail(self, queue: BatchQueue, error: BaseException) -> None:
        queue.counters.errors += 1
        failure = Failure(error)
        for member in self.members:
            member.fail(failure)

    def end(self, unanswered: Failure) -> None:
        """Nothing runs any more; whoever has no answer gets this one."""
        for member in self.members:
            member.fail(unanswered)
        self.lane.batch_ended()
        self.work.finish()


def one_for_each(name: str, results: Any, members: Sequence[Member]) -> Sequence[Any]:
    """``results`` if they are one for each member.

    Raises:
        TypeError: they are no list.
        ValueError: they are too few or too many.
    """
    if isinstance(results, str | bytes | Mapping | Set) or not hasattr(results, "__len__"):
        raise TypeError(
            f"{name} gave a {type(results).__name__} for a batch of {len(members)}; "
            f"a batch function gives a list with one result for each item"
        )
    if len(results) != len(members):
        raise ValueError(
            f"{name} got a list of {len(members)} and gave a list of {len(results)}; "
            f"a batch function gives one result for each item"
        )
    checked: Sequence[Any] = results
    return checked


def _stopped(queue: BatchQueue) -> ReplicaStopped:
    return ReplicaStopped(
        f"{queue.scope.name} stopped before {queue.batched.__qualname__} had answered its batch"
    )
