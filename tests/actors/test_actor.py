"""What an actor promises to those who deliver to it."""

import contextvars
import sys
from typing import Any

import outcome
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.actors.recording import envelope, running
from trio_serve.actors import (
    Actor,
    ActorStopped,
    CallCancelled,
    DeadlinePassed,
    Envelope,
    HandlerExited,
    Mailbox,
    MailboxFull,
)


async def echo(e: Envelope) -> Any:
    return e.message


async def sleeper(e: Envelope) -> Any:
    await trio.sleep(e.message)
    return e.message


async def test_what_serve_returns_is_the_answer() -> None:
    async with running(echo) as actor:
        e, reply = envelope("hello")
        actor.deliver(e)
        assert await reply.wait() == "hello"
        assert e.ended
        assert actor.ongoing == 0


async def test_no_more_than_max_ongoing_are_at_work_and_the_rest_waits_in_order() -> None:
    at_work = 0
    most = 0
    order: list[int] = []

    async def serve(e: Envelope) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        order.append(e.message)
        await trio.sleep(1)
        at_work -= 1

    async with running(serve, max_ongoing=3, capacity=100) as actor:
        replies = []
        for number in range(20):
            e, reply = envelope(number)
            actor.deliver(e)
            replies.append(reply)
        assert len(actor.mailbox) == 17
        for reply in replies:
            await reply.wait()
    assert most == 3
    # Three begin in one scheduler turn, in an order that Trio shuffles on purpose.
    assert [sorted(order[n : n + 3]) for n in range(0, 18, 3)] == [[n, n + 1, n + 2] for n in range(0, 18, 3)]


async def test_workers_are_reused() -> None:
    """A thousand calls, two at a time: never more than three tasks serve them."""
    tasks: set[trio.lowlevel.Task] = set()

    async def serve(e: Envelope) -> None:
        tasks.add(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()

    async with running(serve, max_ongoing=2, capacity=None) as actor:
        for _ in range(1000):
            actor.deliver(envelope()[0])
        await actor.wait_idle()
    assert len(tasks) <= 3


async def test_a_full_mailbox_refuses_at_once() -> None:
    async with running(sleeper, max_ongoing=1, capacity=1) as actor:
        actor.deliver(envelope(1)[0])
        actor.deliver(envelope(1)[0])
        with pytest.raises(MailboxFull, match="1 envelopes are waiting, all that capacity=1 allows"):
            actor.deliver(envelope(1)[0])
        await actor.wait_idle()


async def test_each_call_has_its_own_context() -> None:
    """Also when one worker serves them all, and from the first step of a new worker on."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[tuple[str, str]] = []

    async def serve(e: Envelope) -> None:
        before = name.get()
        name.set("changed by the handler")
        await trio.lowlevel.checkpoint()
        seen.append((before, name.get()))

    async with running(serve, capacity=None) as actor:
        name.set("deliverer")
        for number in range(3):
            e, reply = envelope()
            e.context.run(name.set, f"call {number}")
            actor.deliver(e)
        await reply.wait()
        await actor.wait_idle()
        assert name.get() == "deliverer"
    assert seen == [(f"call {n}", "changed by the handler") for n in range(3)]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), ValueError("no"), BaseException("odd")])
async def test_nothing_that_a_handler_raises_ends_the_actor(error: BaseException) -> None:
    async def serve(e: Envelope) -> Any:
        if e.message == "bad":
            raise error
        return "fine"

    async with running(serve) as actor:
        bad, refused = envelope("bad")
        actor.deliver(bad)
        good, reply = envelope("good")
        actor.deliver(good)
        assert await reply.wait() == "fine"
    if isinstance(error, Exception):
        assert refused.error is error
    else:
        assert isinstance(refused.error, HandlerExited)
        assert refused.error.__cause__ is error


async def test_a_recursion_error_is_one_calls_error() -> None:
    async def serve(e: Envelope) -> Any:
        def deeper() -> None:
            deeper()

        if e.message:
            deeper()

    limit = sys.getrecursionlimit()
    async with running(serve) as actor:
        for message in (True, False):
            e, reply = envelope(message)
            actor.deliver(e)
            if message:
                with pytest.raises(RecursionError):
                    await reply.wait()
            else:
                await reply.wait()
    assert sys.getrecursionlimit() == limit


async def test_a_group_of_one_error_arrives_as_that_error_with_its_cause() -> None:
    async def serve(e: Envelope) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)

    async def fail() -> None:
        raise KeyError("inner") from ValueError("cause")

    async with running(serve) as actor:
        e, reply = envelope()
        actor.deliver(e)
        with pytest.raises(KeyError, match="inner") as caught:
            await reply.wait()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_keyboard_interrupt_is_not_a_handlers_error() -> None:
    async def serve(e: Envelope) -> None:
        raise KeyboardInterrupt

    actor = Actor("actor", serve, 1, Mailbox(1))
    e, reply = envelope()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(actor.run)
            actor.deliver(e)
    assert caught.group_contains(KeyboardInterrupt)
    assert isinstance(reply.error, ActorStopped)


# -- cancellation --------------------------------------------------------------------------------------


async def test_a_queued_envelope_that_was_cancelled_is_never_served() -> None:
    served: list[str] = []

    async def serve(e: Envelope) -> None:
        served.append(e.message)
        await trio.sleep(1)

    async with running(serve, capacity=1) as actor:
        actor.deliver(envelope("first")[0])
        waiting, reply = envelope("second")
        actor.deliver(waiting)
        waiting.cancel(CallCancelled("gone"))
        assert reply.error.args == ("gone",)
        assert waiting.ended
        actor.deliver(envelope("third")[0])  # its place was free at once
        await actor.wait_idle()
    assert served == ["first", "third"]


async def test_an_envelope_cancelled_between_delivery_and_start_is_never_served() -> None:
    """Cancelled in the same scheduler turn, for an idle worker and for a new one."""
    served: list[str] = []

    async def serve(e: Envelope) -> None:
        served.append(e.message)

    async with running(serve, max_ongoing=2) as actor:
        for name in ("new worker", "idle worker"):
            e, _ = envelope(name)
            actor.deliver(e)
            e.cancel(CallCancelled("gone"))
            await actor.wait_idle()
            assert e.ended
            ok, reply = envelope("ok")
            actor.deliver(ok)
            await reply.wait()
    assert served == ["ok", "ok"]


async def test_cancelling_work_answers_at_once_and_frees_the_slot_when_it_has_ended() -> None:
    async def serve(e: Envelope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True):
                await trio.sleep(2)

    async with running(serve) as actor:
        e, reply = envelope()
        actor.deliver(e)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        e.cancel(CallCancelled("gone"))
        assert reply.at == begun
        assert actor.ongoing == 1
        await actor.wait_idle()
        assert trio.current_time() == begun + 2


async def test_a_worker_serves_on_after_a_cancel() -> None:
    async with running(sleeper) as actor:
        for _ in range(3):
            e, _ = envelope(10)
            actor.deliver(e)
            await wait_all_tasks_blocked()
            e.cancel(CallCancelled("gone"))
            fine, reply = envelope(0)
            actor.deliver(fine)
            assert await reply.wait() == 0


async def test_a_cancel_that_comes_as_the_handler_returns_does_not_hit_the_next_call() -> None:
    async def serve(e: Envelope) -> Any:
        if e.message == "cancels itself":
            e.cancel(CallCancelled("gone"))
        else:
            await trio.lowlevel.checkpoint()
        return e.message

    async with running(serve) as actor:
        first, refused = envelope("cancels itself")
        second, reply = envelope("second")
        actor.deliver(first)
        actor.deliver(second)
        assert await reply.wait() == "second"
    assert isinstance(refused.error, CallCancelled)


async def test_the_deadline_runs_at_work_and_is_seen_by_the_work() -> None:
    deadlines: list[float] = []

    async def serve(e: Envelope) -> None:
        deadlines.append(trio.current_effective_deadline())
        await trio.sleep(e.message)

    async with running(serve) as actor:
        begun = trio.current_time()
        late, refused = envelope(10, deadline=begun + 3)
        actor.deliver(late)
        with pytest.raises(DeadlinePassed):
            await refused.wait()
        assert trio.current_time() == begun + 3
        # The next call on the same worker has no deadline left over from this one.
        free, reply = envelope(10)
        actor.deliver(free)
        await reply.wait()
        timely, reply = envelope(1, deadline=trio.current_time() + 2)
        actor.deliver(timely)
        await reply.wait()
        await trio.sleep(5)
        last, reply = envelope(10)
        actor.deliver(last)
        await reply.wait()
    assert deadlines[0] == begun + 3
    assert deadlines[1] > begun + 3000


async def test_a_deadline_that_the_sender_watches_is_seen_by_the_work_and_left_to_the_sender() -> None:
    """Trio's own timer would have ended the first call at 3; the sender never cancels it."""
    deadlines: list[float] = []

    async def serve(e: Envelope) -> None:
        await trio.sleep(e.message)
        deadlines.append(trio.current_effective_deadline())

    async with running(serve) as actor:
        begun = trio.current_time()
        watched, reply = envelope(10, deadline=begun + 3)
        watched.watched = True
        actor.deliver(watched)
        await reply.wait()
        assert trio.current_time() == begun + 10
        free, reply = envelope(10)  # on the same worker
        actor.deliver(free)
        await reply.wait()
    assert deadlines[0] == begun + 3
    assert deadlines[1] > begun + 3000


async def test_the_deadline_runs_in_the_queue() -> None:
    async with running(sleeper) as actor:
        begun = trio.current_time()
        actor.deliver(envelope(10)[0])
        late, refused = envelope(0, deadline=begun + 3)
        actor.deliver(late)
        with pytest.raises(DeadlinePassed):
            await refused.wait()
        assert trio.current_time() == begun + 3
        assert len(actor.mailbox) == 0


async def test_an_envelope_that_is_late_on_arrival_is_never_served() -> None:
    served: list[Envelope] = []

    async def serve(e: Envelope) -> None:
        served.append(e)

    async with running(serve) as actor:
        e, reply = envelope(deadline=trio.current_time())
        actor.deliver(e)
        with pytest.raises(DeadlinePassed):
            await reply.wait()
    assert served == []


# -- the tree ------------------------------------------------------------------------------------------


async def test_an_answer_cancels_the_children_and_ends_after_them() -> None:
    async def serve(e: Envelope) -> Any:
        if e.message == "parent":
            child, _ = envelope("child", parent=e)
            other.deliver(child)
            await trio.sleep(1)
            return "done"
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(9, shield=True):
                await trio.sleep(4)

    async with running(serve) as actor, running(serve) as other:
        begun = trio.current_time()
        e, reply = envelope("parent")
        actor.deliver(e)
        assert await reply.wait() == "done"
        assert reply.at == begun + 1
        assert not e.ended
        assert (actor.ongoing, other.ongoing) == (1, 1)
        await actor.wait_idle()
        assert trio.current_time() == begun + 5
        assert e.ended


async def test_one_cancel_sweeps_a_tree_deeper_than_the_stack() -> None:
    depth = 3 * sys.getrecursionlimit()
    root, _ = envelope()
    tree = [root]
    for _ in range(depth):
        child, _ = envelope(parent=tree[-1])
        tree.append(child)
    root.cancel(CallCancelled("gone"))
    assert all(e.answered for e in tree)
    tree[-1].release()
    for e in reversed(tree[:-1]):
        e.release()
    assert root.ended


async def test_a_cancelled_parent_sees_cancelled_and_not_its_childs_error() -> None:
    seen: list[BaseException] = []

    async def serve(e: Envelope) -> None:
        if e.message == "child":
            await trio.sleep_forever()
        child, reply = envelope("child", parent=e)
        other.deliver(child)
        try:
            await reply.wait()
        except BaseException as error:
            seen.append(error)
            raise

    async with running(serve) as actor, running(serve) as other:
        e, _ = envelope("parent")
        actor.deliver(e)
        await wait_all_tasks_blocked()
        e.cancel(CallCancelled("gone"))
        await actor.wait_idle()
        await other.wait_idle()
    assert [type(error) for error in seen] == [trio.Cancelled]


# -- several actors, one mailbox; stopping ---------------------------------------------------------------


async def test_what_a_dead_actor_had_not_received_is_taken_by_its_sibling() -> None:
    mailbox = Mailbox(100)
    first = Actor("first", sleeper, 1, mailbox)
    second = Actor("second", sleeper, 1, mailbox)
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        await nursery.start(second.run)
        calls = [envelope(1) for _ in range(10)]
        for actor, (e, _) in zip([first, second] * 5, calls, strict=True):
            actor.deliver(e)
        await wait_all_tasks_blocked()
        await first.stop()
        assert isinstance(calls[0][1].error, ActorStopped)
        for _, reply in calls[1:]:
            assert await reply.wait() == 1
        await second.stop()


async def test_stop_waits_for_the_grace_and_then_cancels() -> None:
    actor = Actor("actor", sleeper, 2, Mailbox(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        short, answered = envelope(3)
        long, cut = envelope(30)
        actor.deliver(short)
        actor.deliver(long)
        begun = trio.current_time()
        await actor.stop(grace_s=10)
        assert trio.current_time() == begun + 10
    assert answered.answer == outcome.Value(3)
    assert isinstance(cut.error, ActorStopped)


async def test_stop_returns_as_soon_as_nothing_is_at_work() -> None:
    actor = Actor("actor", sleeper, 2, Mailbox(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        actor.deliver(envelope(3)[0])
        begun = trio.current_time()
        await actor.stop(grace_s=1000)
        assert trio.current_time() == begun + 3


async def test_code_that_cancels_its_actor_kills_it_loudly_and_all_is_answered() -> None:
    async def serve(e: Envelope) -> None:
        if e.message == "kill":
            nursery = trio.lowlevel.current_task().parent_nursery
            assert nursery is not None
            nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    actor = Actor("actor", serve, 2, Mailbox(1))
    innocent, cut = envelope("innocent")
    killer, killed = envelope("kill")
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with pytest.raises(ActorStopped, match="cancelled from within"):
                await actor.run()

        nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        actor.deliver(innocent)
        actor.deliver(killer)
    assert isinstance(cut.error, ActorStopped)
    assert isinstance(killed.error, ActorStopped)
    assert actor.ongoing == 0


async def test_what_is_delivered_as_an_actor_is_being_cancelled_stays_in_the_mailbox() -> None:
    """From outside its nursery, with an idle worker, in the same moment."""
    mailbox = Mailbox(10)
    dying = Actor("dying", echo, 2, mailbox)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                await inner.start(dying.run)
                first, reply = envelope("first")
                dying.deliver(first)
                await reply.wait()
                await wait_all_tasks_blocked()
                scope.cancel()
                second, reply = envelope("second")
                dying.deliver(second)
        assert len(mailbox) == 1
        sibling = Actor("sibling", echo, 2, mailbox)
        await nursery.start(sibling.run)
        assert await reply.wait() == "second"
        await sibling.stop()


async def test_nothing_is_left_after_many_calls_of_every_fate() -> None:
    """No reference from the actor to an envelope that has ended, nor a deadline left over."""
    async with running(sleeper, max_ongoing=7, capacity=50) as actor:
        for number in range(3000):
            deadline = trio.current_time() + 1.5 if number % 3 else trio.current_time() + 1000
            e, _ = envelope(number % 4, deadline=deadline)
            try:
                actor.deliver(e)
            except MailboxFull:
                await trio.sleep(1)
            if number % 5 == 0:
                e.cancel(CallCancelled("gone"))
        await actor.wait_idle()
        assert actor.ongoing == 0
        assert len(actor.mailbox) == 0
        assert len(actor.mailbox._deadlines) <= 128
        assert len(actor._idle) <= 8
