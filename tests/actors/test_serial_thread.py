"""One job at a time, in a thread of its own; cancelled jobs never begin or are left to their end."""

import threading
import time

import pytest
import trio

from tests.actors.recording import envelope
from trio_serve.actors import DeadlinePassed, SerialThread


async def test_jobs_run_one_at_a_time_in_one_thread_and_in_order() -> None:
    thread = SerialThread("worker")
    log: list[tuple[str, int, int]] = []

    def job(number: int) -> int:
        log.append(("begin", number, threading.get_ident()))
        time.sleep(0.001)
        log.append(("end", number, threading.get_ident()))
        return number

    results: list[int] = []

    async def run(number: int) -> None:
        results.append(await thread.run(lambda: job(number)))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(run, number)
    thread.close()
    await thread.join()
    assert sorted(results) == list(range(10))
    for begin, end in zip(log[::2], log[1::2], strict=True):
        assert (begin[0], end[0]) == ("begin", "end")
        assert begin[1:] == end[1:]
    assert {ident for _, _, ident in log} != {threading.get_ident()}
    assert len({ident for _, _, ident in log}) == 1


async def test_errors_of_every_kind_come_back() -> None:
    thread = SerialThread("worker")

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await thread.run(leave)
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert await thread.run(lambda: 7) == 7
    thread.close()
    await thread.join()


async def test_virtual_time_waits_for_the_thread() -> None:
    """A tenth of a real second of computing costs no virtual time, so the timeout does not strike."""
    thread = SerialThread("worker")
    begun = trio.current_time()
    with trio.fail_after(1):
        await thread.run(lambda: time.sleep(0.1))
    assert trio.current_time() == begun
    thread.close()
    await thread.join()
    await trio.sleep(100)  # and afterwards it jumps again


async def test_virtual_time_runs_again_after_a_withdrawn_job() -> None:
    thread = SerialThread("worker")
    release = threading.Event()

    async def cancel_when_queued(scope: trio.CancelScope) -> None:
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, release.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_queued, scope)
            await thread.run(lambda: None)
        release.set()
    await trio.sleep(100)
    thread.close()
    await thread.join()


@pytest.mark.real_clock
async def test_a_job_cancelled_before_its_turn_never_begins() -> None:
    thread = SerialThread("worker")
    release = threading.Event()
    begun: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, release.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.02) as scope:
            await thread.run(lambda: begun.append("second"))
        assert scope.cancelled_caught
        release.set()
    await thread.run(lambda: begun.append("third"))
    assert begun == ["third"]
    thread.close()
    await thread.join()


@pytest.mark.real_clock
async def test_a_job_cancelled_at_work_lets_its_task_go_and_holds_its_envelope() -> None:
    thread = SerialThread("worker")
    release = threading.Event()
    e, _ = envelope()
    with trio.move_on_after(0.02) as scope:
        await thread.run(release.wait, e)
    assert scope.cancelled_caught
    e.release()  # the work's own hold
    ended = [e.ended]
    release.set()
    await thread.run(lambda: None)
    ended.append(e.ended)
    assert ended == [False, True]
    thread.close()
    await thread.join()


async def test_a_job_does_not_begin_past_its_deadline_though_the_loop_is_held_up() -> None:
    """The loop cannot withdraw the job, because it has no turn before the thread comes to it."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    thread = SerialThread("worker")
    release, begun, closed = threading.Event(), threading.Event(), threading.Event()
    late, _ = envelope(deadline=trio.current_time() + 1)
    refused: list[str] = []

    async def wait_in_vain() -> None:
        with pytest.raises(DeadlinePassed) as caught:
            await thread.run(begun.set, late)
        refused.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, release.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_in_vain)
        await trio.testing.wait_all_tasks_blocked()
        thread.run_unattended(closed.set, late)
        clock.jump(2)
        release.set()
        assert closed.wait(10)  # the loop stands still, and the thread has gone through all of its jobs

    assert not begun.is_set()
    assert refused == ["the deadline passed while the call waited for the thread"]
    thread.close()
    await thread.join()


async def test_a_closed_thread_refuses() -> None:
    thread = SerialThread("worker")
    thread.close()
    with pytest.raises(RuntimeError, match="'worker' is closed"):
        await thread.run(lambda: None)
    await thread.join()


async def test_no_thread_is_left() -> None:
    before = threading.active_count()
    for _ in range(20):
        thread = SerialThread("worker")
        await thread.run(lambda: None)
        thread.close()
        await thread.join()
    assert threading.active_count() == before
