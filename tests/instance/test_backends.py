"""Backends and endpoints in Trio: what they are made of, how they change, and what they refuse."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import trio_serve as serve
from trio_serve.instance.client import Client


def echo(request: Any) -> Any:
    return request.data


async def tag_of(request: Any) -> str:
    return serve.get_replica_context().backend_tag


class Adder:
    def __init__(self, increment: int) -> None:
        self.increment = increment

    def reconfigure(self, config: dict[str, int]) -> None:
        self.increment = config["increment"]

    async def __call__(self, request: Any) -> int:
        return int(request.query_params["to"]) + self.increment

    async def describe(self) -> str:
        return f"adds {self.increment}"


@asynccontextmanager
async def a_client() -> AsyncIterator[Client]:
    async with serve.open_instance():
        yield serve.connect()


async def test_a_class_with_its_arguments_and_one_of_its_other_methods() -> None:
    async with a_client() as client:
        await client.create_backend("adder", Adder, 3)
        await client.create_endpoint("add", backend="adder")
        handle = client.get_handle("add")

        assert await handle.remote(to=4) == 7
        assert await handle.options("describe").remote() == "adds 3"


async def test_code_by_its_import_path() -> None:
    async with a_client() as client:
        await client.create_backend("adder", f"{__name__}.Adder", 1)
        await client.create_endpoint("add", backend="adder")
        assert await client.get_handle("add").remote(to=1) == 2


async def test_what_a_handle_gives_is_a_request() -> None:
    async def look(request: Any) -> list[Any]:
        return [
            *(await request.json(), await request.body(), request.data, request.query_params),
            *(request.method, request.headers),
        ]

    async with a_client() as client:
        await client.create_backend("look", look)
        await client.create_endpoint("look", backend="look")
        handle = client.get_handle("look").options(http_method="POST", http_headers={"X-User": "ann"})
        assert await handle.remote({"a": 1}, q="x") == [
            *({"a": 1}, {"a": 1}, {"a": 1}, {"q": "x"}),
            *("POST", {"x-user": "ann"}),
        ]
        with pytest.raises(TypeError, match=r"request.json\(\) needs a dict, and the handle was given str"):
            await handle.remote("text")


async def test_a_backend_that_accepts_batches() -> None:
    """Size and wait are the backend's config, also when that changes while it serves."""
    sizes: list[int] = []

    @serve.accept_batch
    async def double(requests: list[Any]) -> list[Any]:
        sizes.append(len(requests))
        return [request.data * 2 for request in requests]

    async with a_client() as client:
        await client.create_backend("double", double, config={"max_batch_size": 4, "batch_wait_timeout": 5})
        await client.create_endpoint("double", backend="double")
        handle = client.get_handle("double")

        assert [await each for each in [handle.remote(number) for number in range(4)]] == [0, 2, 4, 6]
        begun = trio.current_time()
        assert await handle.remote(1) == 2
        assert trio.current_time() - begun == 5
        await client.update_backend_config("double", {"max_batch_size": 2, "batch_wait_timeout": 0.5})
        assert [await each for each in [handle.remote(number) for number in range(4)]] == [0, 2, 4, 6]
        assert sizes == [4, 1, 2, 2]


async def test_a_class_whose_call_accepts_batches() -> None:
    class Doubles:
        @serve.accept_batch
        async def __call__(self, requests: list[Any]) -> list[Any]:
            return [(request.data * 2, len(requests)) for request in requests]

    async with a_client() as client:
        await client.create_backend("double", Doubles, config=serve.BackendConfig(max_batch_size=3))
        await client.create_endpoint("double", backend="double")
        handle = client.get_handle("double")
        assert [await each for each in [handle.remote(number) for number in range(3)]] == [
            (0, 3),
            (2, 3),
            (4, 3),
        ]


async def test_a_new_config_is_in_force_without_a_restart() -> None:
    async with a_client() as client:
        await client.create_backend("adder", Adder, 1)
        await client.create_endpoint("add", backend="adder")
        await client.update_backend_config("adder", {"user_config": {"increment": 10}, "num_replicas": 2})
        assert await client.get_handle("add").remote(to=1) == 11
        assert client.list_backends() == {
            "adder": serve.BackendConfig(num_replicas=2, user_config={"increment": 10})
        }


async def test_traffic_between_backends_and_a_shadow() -> None:
    copied: list[Any] = []

    async def record(request: Any) -> None:
        copied.append(request.data)

    async with a_client() as client:
        for tag in ("one", "two"):
            await client.create_backend(tag, tag_of)
        await client.create_backend("shadow", record)
        await client.create_endpoint("end", backend="one", route="/e", methods=["get", "POST"])
        await client.set_traffic("end", {"one": 0.5, "two": 0.5}, sticky="x-user")
        await client.shadow_traffic("end", "shadow", 1.0)
        handle = client.get_handle("end")

        answers = Counter([await handle.remote(number) for number in range(100)])
        sticky = handle.options(http_headers={"X-User": "ann"})
        by_user = {await sticky.remote("ann") for _ in range(10)}
        await trio.testing.wait_all_tasks_blocked()

        assert set(answers) == {"one", "two"}
        assert len(by_user) == 1
        assert sorted(copied, key=str)[:2] == [0, 1]
        assert client.list_endpoints() == {
            "end": {
                "route": "/e",
                "methods": ["GET", "POST"],
                "traffic": {"one": 0.5, "two": 0.5},
                "shadows": {"shadow": 1.0},
            }
        }


async def test_a_backend_goes_when_no_endpoint_uses_it() -> None:
    async with a_client() as client:
        await client.create_backend("one", tag_of)
        await client.create_backend("two", tag_of)
        await client.create_endpoint("end", backend="one")
        await client.set_traffic("end", {"two": 1.0})
        await client.delete_backend("one")
        with pytest.raises(ValueError, match="backend 'two' is used by endpoint 'end'"):
            await client.delete_backend("two")
        await client.delete_endpoint("end")
        await client.delete_backend("two")
        assert (client.list_backends(), client.list_endpoints()) == ({}, {})


async def test_force_cuts_calls_off() -> None:
    async def hang(request: Any) -> None:
        await trio.sleep_forever()

    async with a_client() as client:
        await client.create_backend("hang", hang)
        await client.create_endpoint("end", backend="hang")
        call = client.get_handle("end").remote()
        await trio.testing.wait_all_tasks_blocked()
        await client.delete_endpoint("end")
        begun = trio.current_time()
        await client.delete_backend("hang", force=True)
        assert trio.current_time() - begun < 1
        with pytest.raises(Exception, match="hang"):
            await call


async def test_a_backend_that_does_not_start_leaves_nothing_behind() -> None:
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no model")

        def __call__(self, request: Any) -> None: ...

    async with a_client() as client:
        with pytest.raises(LookupError, match="no model"):
            await client.create_backend("broken", Broken)
        assert client.list_backends() == {}
        await client.create_backend("broken", echo)


async def test_what_is_refused_names_the_thing() -> None:
    async with a_client() as client:
        backend, endpoint = client.create_backend, client.create_endpoint
        await backend("one", tag_of)
        await endpoint("end", backend="one", route="/e")
        refused: list[tuple[Any, type[Exception], str]] = [
            (
                lambda: backend("one", echo),
                ValueError,
                "application 'one' already",
            ),
            (lambda: backend("", echo), ValueError, "the name '' of a backend"),
            (lambda: backend("x", 3), TypeError, "backend 'x': .* and got 3 of type int"),
            (lambda: backend("x", "no.such"), ValueError, "'no.such'"),
            (
                lambda: backend("x", Adder),
                TypeError,
                "missing a required argument: 'increment'",
            ),
            (
                lambda: backend("x", echo, config=3),
                TypeError,
                "must be a BackendConfig or a dict",
            ),
            (lambda: backend("x", echo, config={"a": 1}), ValueError, "config.a: unknown key"),
            (
                lambda: backend("x", echo, config={"max_batch_size": 2}),
                ValueError,
                "'x' has max_batch_size=2, but its code takes one request at a time",
            ),
            (
                lambda: backend("x", echo, config={"user_config": 2}),
                ValueError,
                "'x' has a user_config, but no 'reconfigure",
            ),
            (lambda: endpoint("end", backend="one"), ValueError, "an endpoint 'end' already"),
            (
                lambda: endpoint("x", backend="nope"),
                KeyError,
                "no backend 'nope'; there are: one",
            ),
            (
                lambda: endpoint("x", backend="one", route="/e"),
                ValueError,
                "'/e' is that of 'end'",
            ),
            (
                lambda: endpoint("x", backend="one", route="e"),
                ValueError,
                "does not begin with '/'",
            ),
            (lambda: endpoint("x", backend="one", methods="GET"), TypeError, "methods='GET'"),
            (
                lambda: endpoint("x", backend="one", methods=["GOT"]),
                ValueError,
                "'GOT' is no HTTP",
            ),
            (lambda: client.set_traffic("end", {"one": 0.4}), ValueError, "must sum to 1, and 'one': 0.4"),
            (lambda: client.set_traffic("end", {"nope": 1}), KeyError, "'nope'"),
            (lambda: client.set_traffic("nope", {"one": 1}), KeyError, "'nope'"),
            (lambda: client.shadow_traffic("end", "one", 1.5), ValueError, "the proportion 1.5 of 'one'"),
            (lambda: client.update_backend_config("nope", {}), KeyError, "no backend 'nope'"),
            (lambda: client.update_backend_config("one", {"num_replicas": 0}), ValueError, "num_replicas: 0"),
            (lambda: client.delete_backend("nope"), KeyError, "no backend 'nope'"),
            (lambda: client.delete_endpoint("nope"), KeyError, "no endpoint 'nope'"),
        ]
        for act, kind, text in refused:
            with pytest.raises(kind, match=text):
                await act()
        with pytest.raises(KeyError, match="no endpoint 'nope'"):
            client.get_handle("nope")
        with pytest.raises(KeyError, match="no endpoint 'later'"):
            client.get_handle("later", missing_ok=True).remote()
        with pytest.raises(TypeError, match="marks a function or a method"):
            serve.accept_batch(Adder)
        assert list(client.list_backends()) == ["one"]


async def test_nothing_of_them_is_left_after_a_shutdown() -> None:
    async with serve.open_instance() as instance:
        client = serve.connect()
        await client.create_backend("one", tag_of)
        await client.create_endpoint("end", backend="one")
        await instance.shutdown()
        assert (client.list_backends(), client.list_endpoints()) == ({}, {})
