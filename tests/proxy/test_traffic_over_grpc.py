"""Traffic policy at the gRPC proxy, in memory: canary, sticky by a metadata key, shadows of each kind."""

import pathlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import trio_serve as serve
from trio_serve.grpc import RpcError, Status
from trio_serve.grpc.protos import load_protos
from trio_serve.serving.traffic_split import TrafficSplit
from trio_serve.testing import Service, serving

PROTO = load_protos(pathlib.Path(__file__).parent.parent / "grpc" / "echo.proto")
Note = PROTO.Note


class Seen(list[Any]):
    """What a deployment was sent; no plain list, which each replica would get a copy of."""


@serve.deployment(sync_methods="inline")
class Version:
    def __init__(self, name: str, seen: Seen | None = None) -> None:
        self.name = name
        self.seen = Seen() if seen is None else seen

    async def One(self, note: Any, grpc_context: Any) -> Any:
        self.seen.append((note.text, grpc_context.application(), grpc_context.time_remaining()))
        grpc_context.set_compression("gzip")
        grpc_context.set_trailing_metadata([("version", self.name)])
        note.text = self.name  # the message is its own
        return note

    async def Many(self, note: Any) -> AsyncIterator[Any]:
        self.seen.append(note.text)
        for number in range(3):
            yield Note(text=self.name, number=number)

    async def Sum(self, notes: Any) -> Any:
        return Note(text=self.name, number=sum([note.number async for note in notes]))


class Client:
    def __init__(self, service: Service) -> None:
        channel = service.channel()
        methods = {"request_serializer": Note.SerializeToString, "response_deserializer": Note.FromString}
        self.one = channel.unary_unary("/tests.server.Echo/One", **methods)
        self.many = channel.unary_stream("/tests.server.Echo/Many", **methods)
        self.sum = channel.stream_unary("/tests.server.Echo/Sum", **methods)


@asynccontextmanager
async def versions(seen: Seen | None = None) -> AsyncIterator[tuple[Service, Client]]:
    """``app``, and ``next`` beside it, which records in ``seen``."""
    async with serving(Version.bind("old"), services=[PROTO], name="app") as service:
        await service.instance.run(
            Version.bind("new", Seen() if seen is None else seen), name="next", route_prefix=None
        )
        yield service, Client(service)


def split_of(service: Service) -> TrafficSplit:
    split = service.instance.controller.applications["app"].traffic
    assert split is not None
    return split


async def test_a_canary_gets_its_share_and_one_user_one_version() -> None:
    async with versions() as (service, client):
        await service.instance.set_traffic("app", {"app": 0.5, "next": 0.5}, sticky="x-user")
        metadata = [("application", "app")]

        drawn = Counter([(await client.one(Note(), metadata=metadata)).text for _ in range(100)])
        by_user = {
            user: {(await client.one(Note(), metadata=[*metadata, ("x-user", user)])).text for _ in range(5)}
            for user in "abcdefghijklmnop"
        }

        assert set(drawn) == {"old", "new"}
        assert all(len(answers) == 1 for answers in by_user.values())
        assert set.union(*by_user.values()) == {"old", "new"}
        assert sum(split_of(service).chosen.values()) == 180


async def test_weights_change_while_calls_come_in_and_none_fails() -> None:
    async with versions() as (service, client):
        answers: Counter[str] = Counter()

        async def ask_on() -> None:
            while True:
                answers[(await client.one(Note(), metadata=[("application", "app")])).text] += 1
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask_on)
            for share in (0.2, 1.0, 0.0, 0.7):
                await service.instance.set_traffic("app", {"app": 1 - share, "next": share})
                await trio.sleep(0.2)
            await service.instance.delete("next")
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

        assert answers["old"] > 100
        assert answers["new"] > 100


async def test_a_shadow_has_a_message_and_a_context_of_its_own() -> None:
    seen = Seen()
    async with versions(seen) as (service, client):
        await service.instance.shadow_traffic("app", "next", 1.0)

        call = client.one(Note(text="hi"), metadata=[("application", "app")], timeout=5)

        assert (await call).text == "old"
        assert dict(await call.trailing_metadata())["version"] == "old"
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [("hi", "next", None)]
        assert split_of(service).shadows.succeeded == 1


async def test_a_call_that_is_refused_is_not_copied() -> None:
    """There is nothing to copy: of a refused call not even the message is read."""
    seen = Seen()
    async with versions(seen) as (service, client):

        @serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
        class Stuck:
            async def One(self, note: Any) -> Any:
                await trio.sleep(1)
                return note

        await service.instance.run(Stuck.bind(), name="stuck", route_prefix=None)
        await service.instance.shadow_traffic("stuck", "next", 1.0)
        refused = 0

        async def ask() -> None:
            nonlocal refused
            try:
                await client.one(Note(text="hi"), metadata=[("application", "stuck")])
            except RpcError as error:
                refused += error.status is Status.RESOURCE_EXHAUSTED

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)

        assert refused == 3
        assert [text for text, *_ in seen] == ["hi", "hi"]


async def test_streamed_replies_are_shadowed_and_streamed_requests_are_not() -> None:
    seen = Seen()
    async with versions(seen) as (service, client):
        await service.instance.shadow_traffic("app", "next", 1.0)
        metadata = [("application", "app")]

        replies = [note.number async for note in client.many(Note(text="hi"), metadata=metadata)]
        total = await client.sum(iter([Note(number=1), Note(number=2)]), metadata=metadata)
        await trio.testing.wait_all_tasks_blocked()

        assert (replies, total.number, total.text, seen) == ([0, 1, 2], 3, "old", ["hi"])
        shadows = split_of(service).shadows
        assert (shadows.succeeded, shadows.failed, shadows.dropped) == (1, 0, 1)


async def test_a_shadow_without_the_method_is_not_noticed() -> None:
    @serve.deployment
    async def has_no_methods() -> None: ...

    async with versions() as (service, client):
        await service.instance.run(has_no_methods.bind(), name="empty", route_prefix=None)
        await service.instance.shadow_traffic("app", "empty", 1.0)
        assert (await client.one(Note(), metadata=[("application", "app")])).text == "old"
        assert split_of(service).shadows.failed == 1


async def test_the_end_of_shadowing_and_of_a_split() -> None:
    seen = Seen()
    async with versions(seen) as (service, client):
        await service.instance.set_traffic("app", {"next": 1.0})
        await service.instance.shadow_traffic("app", "next", 1.0)
        await service.instance.set_traffic("app", {"app": 1.0})
        await service.instance.shadow_traffic("app", "next", 0)
        assert (await client.one(Note(), metadata=[("application", "app")])).text == "old"
        await trio.testing.wait_all_tasks_blocked()
        assert not seen


async def test_what_a_policy_did_is_exported() -> None:
    async with versions() as (service, client):
        await service.instance.set_traffic("app", {"next": 1.0})
        await service.instance.shadow_traffic("app", "app", 1.0)
        await client.one(Note(), metadata=[("application", "app")])
        await trio.testing.wait_all_tasks_blocked()

        lines = service.instance.metrics_text().splitlines()

        assert 'serve_traffic_requests{door="app",target="next"} 1.0' in lines
        assert 'serve_traffic_shadow_requests{door="app",result="succeeded"} 1.0' in lines
        assert 'serve_traffic_ongoing_shadow_requests{door="app"} 0.0' in lines
