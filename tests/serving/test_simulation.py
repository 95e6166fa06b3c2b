"""Whole applications under random loads, cancels, deadlines, crashes and changes, in virtual time.

    seed ──> a graph of deployments ──> requests, each a tree of calls planned in advance
        └──> cancels, timeouts, crashes, updates, scaling, at random moments

Methods of all four kinds, with sync ones on the loop or in threads, which take turns with it
(``turn_taking``); batches and models that several requests share.

What must hold, whatever happens:

1. every call is answered exactly once, and none waits forever;
2. nothing that a request started, in a task, a thread or a batch, still runs once the request has ended;
3. ``max_ongoing_requests`` and ``max_queued_requests`` are never exceeded;
4. a call that was cancelled, or whose deadline passed, in the queue never runs;
5. an answer is never later than its deadline, but for the time in which the loop was held up;
6. in the end nothing is left: no call, no task, no timer, no thread.

A failing run prints its seed; the same seed runs the same way again.  More seeds:

    TRIO_SERVE_SEEDS=0-9999 python -m pytest tests/serving/test_simulation.py
"""

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from math import inf
from random import Random
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.serving.turn_taking import spend, take_turns
from trio_serve.actors import Envelope
from trio_serve.serving.application import Application
from trio_serve.serving.batching import batch
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.multiplexing import multiplexed
from trio_serve.serving.replies import StreamReply, UnaryReply
from trio_serve.serving.request_context import current_request

REQUESTS = 120
SPAN_S = 60.0
ROUNDING_S = 1e-9


def seeds() -> list[int]:
    first, _, last = os.environ.get("TRIO_SERVE_SEEDS", "0-24").partition("-")
    return list(range(int(first), int(last or first) + 1))


def shuffle_by(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio shuffles tasks on purpose; here by the seed."""
    from trio._core import _run

    monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    _run._r.seed(seed)  # type: ignore[attr-defined]


@attrs.frozen
class Plan:
    """What one call does: ``steps`` are ("sleep", s), ("call", how, deployment, Plan), ("raise",), ..."""

    steps: tuple[tuple[Any, ...], ...]
    sync: bool

    @property
    def method(self) -> str:
        return "compute" if self.sync else "run"

    @property
    def stream(self) -> str:
        return "produce" if self.sync else "items"


def plan(random: Random, below: int, depth: int) -> Plan:
    """A plan for a deployment that may call those numbered under ``below``."""
    steps: list[tuple[Any, ...]] = []
    for _ in range(random.randint(0, 3)):
        what = random.random()
        if what < 0.35 or not below or depth > 4:
            steps.append(("sleep", random.choice([0.0, 0.01, 0.5, 2.0, 10.0])))
        elif what < 0.86:
            how = random.choice(["await", "await", "forget", "timeout", "argument", "stream", "together"])
            target = random.randrange(below)
            steps.append(("call", how, target, plan(random, target, depth + 1), random.uniform(0.01, 5)))
        elif what < 0.89:
            steps.append(("batch", random.choice([0.0, 0.5, 3.0])))
        elif what < 0.92:
            steps.append(("model", random.choice("abcd")))
        elif what < 0.95:
            steps.append(("shield", random.uniform(0.01, 1)))
        elif what < 0.98:
            steps.append(("raise",))
        elif what < 0.985:
            steps.append(("kill",))
        elif what < 0.995:
            steps.append(("block", random.uniform(0.1, 3)))
        else:
            steps.append(("exit",))
    return Plan(tuple(steps), sync=random.random() < 0.4)


ancestors: ContextVar[tuple[Envelope, ...]] = ContextVar("ancestors", default=())
"""The calls that led to this one, as the test itself has noted them, and this one."""


class Observer:
    """Sees every call from inside and checks the invariants as it goes."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.controller: Controller
        self.replies: dict[int, list[Any]] = {}
        self.began: list[tuple[float, str]] = []
        self.at_work: dict[str, int] = {}
        self.broken: list[str] = []
        self.held_up_until = -inf

    def must(self, holds: bool, what: str) -> None:
        """Note a broken promise: raised within a call, it would only be that call's error."""
        if not holds:
            self.broken.append(f"at {self.clock.current_time():.3f}: {what}")

    def begin(self) -> Envelope:
        request = current_request()
        assert request is not None
        assert request.envelope is not None
        assert request.replica is not None
        envelope = request.envelope
        self.must(not envelope.answered, "a call that had its answer already was started")
        self.must(self.clock.current_time() < envelope.deadline, "a call was started past its deadline")
        tag, actor = request.replica.tag, request.replica.actor
        self.at_work[tag] = self.at_work.get(tag, 0) + 1
        self.must(self.at_work[tag] <= actor.ongoing, f"{tag} counts fewer calls than are at work")
        self.must(actor.ongoing <= actor.max_ongoing, f"{tag} has more at work than max_ongoing_requests")
        self.began.append((self.clock.current_time(), tag))
        ancestors.set((*ancestors.get(), envelope))
        self.check(envelope)
        return envelope

    def end(self) -> None:
        request = current_request()
        assert request is not None
        assert request.replica is not None
        self.at_work[request.replica.tag] -= 1

    def spend(self, seconds: float) -> None:
        """Let the plain function that is at work take so long."""
        if spend(seconds, self.clock):
            self.held_up_until = self.clock.current_time()

    def check(self, envelope: Envelope) -> None:
        """To be called while a call is at work."""
        for each in ancestors.get():
            self.must(not each.ended, "a call runs on though a request that started it has ended")
            told = envelope.answered or not each.answered
            self.must(told, "a request was answered, but a call that it started was not taken back")
        for application in self.controller.applications.values():
            for fleet in application.fleets.values():
                capacity = fleet.state.mailbox.capacity
                waiting = len(fleet.state.mailbox)
                self.must(capacity is None or waiting <= capacity, "more wait than max_queued_requests")


def make_application(random: Random, shape: Random, observer: Observer) -> Application:
    """Deployments 0 .. n-1, each with handles to those before it; the last is the ingress.

    ``shape`` draws the limits, which stay the same over all versions.
    """

    class Node:
        def __init__(self, version: int, *inner: Any) -> None:
            self.inner = inner
            self.models = 0
            if random.random() < 0.1:
                raise OSError("a bad moment to start")

        async def run(self, what: Plan, argument: Any = None) -> int:
            envelope = observer.begin()
            try:
                for step in what.steps:
                    await self.step(step)
                    observer.check(envelope)
                return 1
            finally:
                observer.end()

        async def items(self, what: Plan) -> AsyncIterator[int]:
            envelope = observer.begin()
            try:
                for step in what.steps:
                    yield 1
                    observer.check(envelope)
                    await self.step(step)
            finally:
                observer.end()

        def compute(self, what: Plan, argument: Any = None) -> int:
            envelope = observer.begin()
            try:
                for step in what.steps:
                    self.sync_step(step)
                    observer.check(envelope)
                return 1
            finally:
                observer.end()

        def produce(self, what: Plan) -> Iterator[int]:
            envelope = observer.begin()
            try:
                for step in what.steps:
                    yield 1
                    observer.check(envelope)
                    self.sync_step(step)
            finally:
                observer.end()

        def quick(self, argument: Any = None) -> int:
            observer.begin()
            observer.end()
            return 1

        @batch(max_batch_size=3, batch_wait_timeout_s=0.1)
        async def together(self, members: list[tuple[Envelope, float]]) -> list[int]:
            for _, seconds in members:
                await trio.sleep(seconds)
                wanted = any(not envelope.ended for envelope, _ in members)
                observer.must(wanted, "a batch runs on though all of its members have ended")
            return [1] * len(members)

        @multiplexed(max_num_models_per_replica=2)
        async def model(self, model_id: str) -> "Model":
            self.models += 1
            observer.must(self.models <= 2, "more models than max_num_models_per_replica")
            try:
                await trio.sleep(0.3)
            except trio.Cancelled:
                self.models -= 1
                raise
            return Model(self)

        async def step(self, step: tuple[Any, ...]) -> None:
            match step:
                case ("sleep", seconds):
                    await trio.sleep(seconds)
                case ("shield", seconds):
                    with trio.CancelScope(shield=True):
                        await trio.sleep(seconds)
                case ("block", seconds):
                    observer.spend(seconds)
                case ("batch", seconds):
                    request = current_request()
                    assert request is not None
                    await self.together((request.envelope, seconds))
                case ("model", model_id):
                    await self.model(model_id)
                case ("raise",):
                    raise ValueError("planned")
                case ("exit",):
                    raise SystemExit("planned")
                case ("kill",):
                    task = trio.lowlevel.current_task()
                    assert task.parent_nursery is not None
                    task.parent_nursery.cancel_scope.cancel()
                case ("call", how, target, what, seconds):
                    await self.call(how, self.inner[target], what, seconds)

        def sync_step(self, step: tuple[Any, ...]) -> None:
            match step:
                case ("sleep" | "shield" | "block", seconds):
                    observer.spend(min(seconds, 3))
                case ("raise",):
                    raise ValueError("planned")
                case ("exit",):
                    raise SystemExit("planned")
                case ("call", how, target, what, seconds):
                    self.sync_call(how, self.inner[target], what, seconds)

        def sync_call(self, how: str, handle: Any, what: Plan, seconds: float) -> None:
            one = handle.options(method_name=what.method)
            try:
                if how == "forget":
                    one.remote(what)
                elif how == "timeout":
                    one.options(timeout_s=seconds).remote(what).result()
                elif how == "argument":
                    handle.quick.remote(one.remote(what)).result()
                elif how == "stream":
                    for count, _ in enumerate(
                        handle.options(stream=True, method_name=what.stream).remote(what)
                    ):
                        if count > 2 * seconds:
                            break
                else:
                    one.remote(what).result()
            except Exception:  # on the loop all but "forget" is refused
                if seconds > 4:
                    raise

        async def call(self, how: str, handle: Any, what: Plan, seconds: float) -> None:
            one = handle.options(method_name=what.method)
            try:
                if how == "forget":
                    one.remote(what)
                elif how == "timeout":
                    await one.options(timeout_s=seconds).remote(what)
                elif how == "argument":
                    await handle.quick.remote(one.remote(what))
                elif how == "stream":
                    count = 0
                    async for _ in handle.options(stream=True, method_name=what.stream).remote(what):
                        count += 1
                        if count > 2 * seconds:
                            break
                elif how == "together":
                    async with trio.open_nursery() as nursery:
                        for _ in range(2):
                            nursery.start_soon(self.call, "await", handle, what, seconds)
                        with trio.move_on_after(seconds):
                            await one.remote(what)
                else:
                    await one.remote(what)
            except Exception:
                if seconds > 4:
                    raise

    class Model:
        def __init__(self, node: Node) -> None:
            self.node = node

        def __del__(self) -> None:
            self.node.models -= 1

    def bind(version: int) -> Application:
        nodes: list[Application] = []
        count = 5
        for number in range(count):
            options = deployment(
                name=f"node{number}",
                num_replicas=shape.randint(1, 3),
                max_ongoing_requests=shape.choice([1, 2, 5]),
                max_queued_requests=shape.choice([1, 5, 50]),
                sync_methods=shape.choice(["thread", "thread", "inline"]),
                graceful_shutdown_timeout_s=5,
                max_constructor_retry_count=100,
            )
            nodes.append(options(Node).bind(version, *nodes))
        return nodes[-1]

    return bind(random.randrange(10**6))


class Simulation:
    def __init__(self, seed: int, controller: Controller, observer: Observer) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.controller = controller
        self.observer = observer
        self.fates: dict[str, int] = {}

    async def run(self) -> None:
        await self.deploy()
        async with trio.open_nursery() as nursery:
            for _ in range(REQUESTS):
                at, what = self.random.uniform(0, SPAN_S), plan(self.random, 4, 0)
                timeout_s = self.random.choice([None, None, self.random.uniform(0.1, 20)])
                give_up_s = self.random.choice([inf, inf, self.random.uniform(0.1, 20)])
                cancel_s = self.random.choice([None, None, None, self.random.uniform(0, 5)])
                nursery.start_soon(self.request, at, what, timeout_s, give_up_s, cancel_s)
            for _ in range(3):
                nursery.start_soon(self.scale, self.random.uniform(0, SPAN_S))
            nursery.start_soon(self.redeploy, self.random.uniform(0, SPAN_S))

    async def deploy(self) -> None:
        while True:
            try:
                await self.controller.deploy(make_application(self.random, Random(self.seed), self.observer))
                return
            except OSError:
                await trio.sleep(1)

    async def redeploy(self, at: float) -> None:
        await trio.sleep(at)
        await self.deploy()

    async def scale(self, at: float) -> None:
        await trio.sleep(at)
        application = self.controller.applications["default"]
        if application.fleets:
            fleet = self.random.choice(list(application.fleets.values()))
            fleet.set_target_replicas(self.random.randint(1, 4))

    async def request(
        self, at: float, what: Plan, timeout_s: float | None, give_up_s: float, cancel_s: float | None
    ) -> None:
        await trio.sleep(at)
        app = self.controller.get_app_handle("default")
        handle = app.options(method_name=what.method, timeout_s=timeout_s)
        begun = trio.current_time()
        response = handle.remote(what)
        fate = "gave up"
        try:
            with trio.move_on_after(give_up_s):
                if cancel_s is not None:
                    await trio.sleep(cancel_s)
                    response.cancel()
                await response
                fate = "answered"
        except Exception as error:
            fate = type(error).__name__
        # The clock jumps by the time that is left, so it may arrive a rounding error past the deadline.
        latest = max(begun + max(timeout_s or inf, cancel_s or 0), self.observer.held_up_until) + ROUNDING_S
        self.observer.must(trio.current_time() <= latest, "an answer came later than its deadline")
        self.fates[fate] = self.fates.get(fate, 0) + 1


def watch_answers(monkeypatch: pytest.MonkeyPatch, observer: Observer) -> None:
    """Count the answers of each reply that is made."""
    for kind in (UnaryReply, StreamReply):

        def make(self: Any, init: Any = kind.__init__) -> None:
            init(self)
            observer.replies[id(self)] = [self, 0]

        def finish(self: Any, finish: Any = kind._finish) -> None:
            observer.replies[id(self)][1] += 1
            finish(self)

        monkeypatch.setattr(kind, "__init__", make)
        monkeypatch.setattr(kind, "_finish", finish)


@pytest.mark.parametrize("seed", seeds())
async def test_the_invariants_hold(
    seed: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    print(f"seed {seed}: TRIO_SERVE_SEEDS={seed} replays it")
    caplog.set_level("CRITICAL")
    await simulate(seed, monkeypatch)


def test_a_seed_runs_the_same_way_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    runs = []
    for _ in range(2):
        with monkeypatch.context() as patched:
            observer = trio.run(simulate, 7, patched, clock=MockClock(autojump_threshold=0))
            runs.append(observer.began)
    assert runs[0] == runs[1]
    assert len(runs[0]) > REQUESTS / 2


async def simulate(seed: int, monkeypatch: pytest.MonkeyPatch) -> Observer:
    """One whole run, and what must hold in it."""
    shuffle_by(seed, monkeypatch)
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    observer = Observer(clock)
    watch_answers(monkeypatch, observer)
    take_turns(monkeypatch)
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with open_controller(random=Random(seed)) as controller:
        observer.controller = controller
        simulation = Simulation(seed, controller, observer)
        await simulation.run()
        # Nobody asks any more: within the longest plan, all must have ended by itself.
        await trio.sleep(300)
        await wait_all_tasks_blocked()
        for application in controller.applications.values():
            for fleet in application.fleets.values():
                assert fleet.load() == 0
                assert len(fleet.state.mailbox._deadlines) <= 128
        assert observer.broken == []
        assert set(observer.at_work.values()) <= {0}
    await trio.sleep(100)  # a thread that a kill left behind ends when its job does
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("node")]
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 3600 - 1000
    answers = [count for _, count in observer.replies.values()]
    assert set(answers) == {1}, "a call was answered more than once, or never"
    assert len(answers) >= REQUESTS
    assert simulation.fates.get("answered", 0) > 0
    return observer
