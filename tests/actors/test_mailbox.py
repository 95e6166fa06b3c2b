"""The mailbox's bound, order and forgetting."""

import pytest
import trio

from tests.actors.recording import envelope
from trio_serve.actors import CallCancelled, DeadlinePassed, Mailbox, MailboxClosed, MailboxFull


async def test_first_in_first_out_and_no_more_than_capacity() -> None:
    mailbox = Mailbox(2, "letters")
    first, second, third = (envelope()[0] for _ in range(3))
    mailbox.put_nowait(first)
    mailbox.put_nowait(second)
    with pytest.raises(MailboxFull, match="letters: 2 envelopes are waiting, all that capacity=2 allows"):
        mailbox.put_nowait(third)
    assert not third.answered
    assert [mailbox.take_nowait(), mailbox.take_nowait(), mailbox.take_nowait()] == [first, second, None]


async def test_no_capacity_means_no_limit() -> None:
    mailbox = Mailbox(None)
    for _ in range(1000):
        mailbox.put_nowait(envelope()[0])
    assert len(mailbox) == 1000


async def test_what_has_expired_is_dropped_before_anything_is_refused() -> None:
    mailbox = Mailbox(1)
    late, reply = envelope(deadline=trio.current_time() + 1)
    mailbox.put_nowait(late)
    await trio.sleep(1)
    mailbox.put_nowait(envelope()[0])
    assert isinstance(reply.error, DeadlinePassed)
    assert late.ended


async def test_what_has_expired_is_never_taken() -> None:
    mailbox = Mailbox(2)
    late, reply = envelope(deadline=trio.current_time() + 1)
    timely, _ = envelope(deadline=trio.current_time() + 10)
    mailbox.put_nowait(late)
    mailbox.put_nowait(timely)
    await trio.sleep(1)
    assert mailbox.take_nowait() is timely
    assert isinstance(reply.error, DeadlinePassed)


async def test_each_expires_in_its_own_moment() -> None:
    """Deadlines in any order, also one earlier than all that were known."""
    mailbox = Mailbox(None)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.expire)
        replies = []
        for seconds in (5, 3, 9, 1, 7):
            await trio.testing.wait_all_tasks_blocked()
            e, reply = envelope(deadline=begun + seconds)
            mailbox.put_nowait(e)
            replies.append((seconds, reply))
        for seconds, reply in replies:
            with pytest.raises(DeadlinePassed):
                await reply.wait()
            assert reply.at == begun + seconds
        nursery.cancel_scope.cancel()


async def test_a_closed_mailbox_keeps_what_it_has_and_refuses_with_the_reason() -> None:
    mailbox = Mailbox(2, "letters")
    kept, _ = envelope()
    mailbox.put_nowait(kept)
    mailbox.close(RuntimeError("moved away"))
    with pytest.raises(MailboxClosed, match="letters is closed: moved away"):
        mailbox.put_nowait(envelope()[0])
    assert mailbox.take_nowait() is kept


async def test_answer_all_leaves_nobody_waiting() -> None:
    mailbox = Mailbox(None)
    calls = [envelope() for _ in range(5)]
    for e, _ in calls:
        mailbox.put_nowait(e)
    mailbox.answer_all(CallCancelled("nobody is left"))
    assert len(mailbox) == 0
    assert all(isinstance(reply.error, CallCancelled) and e.ended for e, reply in calls)


async def test_the_deadlines_of_envelopes_long_gone_are_forgotten() -> None:
    mailbox = Mailbox(None)
    for _ in range(10_000):
        mailbox.put_nowait(envelope(deadline=trio.current_time() + 3000)[0])
        mailbox.take_nowait()
    assert len(mailbox._deadlines) < 200
