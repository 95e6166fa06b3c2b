"""Work that computes for long takes turns with everybody else on the loop."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.actors.recording import envelope, running
from trio_serve.actors import LONG_S, Actor, CallCancelled, Envelope

COMPUTING_S = 0.005


def compute(seconds: float = COMPUTING_S) -> None:
    """Hold the loop: the clock goes on, and no other task does."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


def timed(
    work: Callable[[Envelope], Awaitable[Any]],
) -> tuple[Callable[[Envelope], Awaitable[Any]], list[Actor]]:
    """``work`` as a replica runs it: what took long is told to the actor, which the list will hold."""
    actors: list[Actor] = []

    async def serve(e: Envelope) -> Any:
        began = trio.current_time()
        result = await work(e)
        if trio.current_time() - began > LONG_S:
            actors[0].turns.took_long()
        return result

    return serve, actors


async def longest_turn(during: trio.Event) -> float:
    """The longest time between two looks of a task that looks every turn."""
    longest = 0.0
    while not during.is_set():
        before = trio.current_time()
        await trio.lowlevel.checkpoint()
        longest = max(longest, trio.current_time() - before)
    return longest


async def test_no_two_long_computations_share_a_turn() -> None:
    """Five at work and five more in the mailbox: whoever reads a socket waits for one of them, never two."""

    async def work(e: Envelope) -> None:
        compute()

    serve, actors = timed(work)
    async with running(serve, max_ongoing=5) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, [None])  # the first tells that they compute

        done = trio.Event()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                assert await longest_turn(done) < 1.5 * COMPUTING_S

            nursery.start_soon(watch)
            await deliver_and_wait(actor, [None])
            await deliver_and_wait(actor, 10 * [None])
            done.set()


async def deliver_and_wait(actor: Actor, messages: list[Any]) -> None:
    replies = []
    for message in messages:
        e, reply = envelope(message)
        actor.deliver(e)
        replies.append(reply)
    for reply in replies:
        await reply.wait()


async def test_those_that_give_way_go_in_the_order_in_which_they_came() -> None:
    order: list[int] = []

    async def work(e: Envelope) -> None:
        order.append(e.message)
        compute(COMPUTING_S if e.message >= 0 else 0.0)

    serve, actors = timed(work)
    async with running(serve, max_ongoing=8) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, 8 * [-1])  # so many workers are there, and parked
        await deliver_and_wait(actor, [0])
        for number in range(1, 8):
            actor.deliver(envelope(number)[0])
            await trio.lowlevel.checkpoint()
        await actor.wait_idle()

    assert order[8:] == list(range(8))


async def test_short_work_behind_a_long_one_is_soon_let_go() -> None:
    """Sixty-four wait: 1, 2, 4, ... begin at once, not each in a turn of its own."""
    turns = 0

    async def work(e: Envelope) -> None:
        if e.message == "long":
            compute()

    serve, actors = timed(work)
    async with running(serve, max_ongoing=64) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, 64 * ["short"])  # so many workers are there, and parked
        await deliver_and_wait(actor, ["long"])
        replies = []
        for _ in range(64):
            e, reply = envelope("short")
            actor.deliver(e)
            replies.append(reply)
        while any(reply.answer is None for reply in replies):
            turns += 1
            await trio.lowlevel.checkpoint()

        assert turns <= 2 * 7 + 4
        await wait_all_tasks_blocked()
        assert not actor.turns.held


async def test_work_that_waits_holds_nobody_up() -> None:
    """It took long, but the loop was free meanwhile."""

    async def work(e: Envelope) -> None:
        await trio.sleep(1)

    serve, actors = timed(work)
    async with running(serve) as actor:
        actors.append(actor)
        e, reply = envelope()
        actor.deliver(e)
        await reply.wait()

        assert not actor.turns.held


async def test_one_that_is_cancelled_while_it_gives_way_is_never_begun() -> None:
    begun: list[str] = []

    async def work(e: Envelope) -> None:
        begun.append(e.message)
        compute()

    serve, actors = timed(work)
    async with running(serve, max_ongoing=3) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, ["first"])
        given_up, reply = envelope("given up")
        actor.deliver(given_up)
        actor.deliver(envelope("second")[0])
        await trio.lowlevel.checkpoint()
        assert actor.turns.held

        given_up.cancel(CallCancelled("no longer wanted"))
        assert isinstance(reply.error, CallCancelled)
        await actor.wait_idle()

    assert begun == ["first", "second"]


async def test_one_whose_deadline_passes_while_it_gives_way_is_never_begun() -> None:
    begun: list[str] = []

    async def work(e: Envelope) -> None:
        begun.append(e.message)
        compute()

    serve, actors = timed(work)
    async with running(serve, max_ongoing=3) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, ["first"])
        actor.deliver(envelope("second")[0])
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        actor.deliver(envelope("too late", deadline=trio.current_time() + 0.5 * COMPUTING_S)[0])
        await actor.wait_idle()

    assert begun == ["first", "second"]


async def test_an_actor_that_is_killed_takes_those_that_give_way_with_it() -> None:
    async def work(e: Envelope) -> None:
        compute()

    serve, actors = timed(work)
    async with running(serve, max_ongoing=3) as actor:
        actors.append(actor)
        await deliver_and_wait(actor, ["first"])
        waiting = [envelope() for _ in range(2)]
        for e, _ in waiting:
            actor.deliver(e)
        await trio.lowlevel.checkpoint()
        turns = actor.turns
        await actor.stop()

    assert all(reply.answer is not None for _, reply in waiting)
    await wait_all_tasks_blocked()
    assert not turns.held
