"""A script that is connected to a long-lived instance: the names of the package, calls, errors, backends."""

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import trio_serve as serve
from tests.instance.detached_instance import PATIENCE_S, a_machine, wait_until
from trio_serve.actors import CallCancelled, DeadlinePassed
from trio_serve.instance import parcels
from trio_serve.instance.client import Client
from trio_serve.instance.settings import Mistakes
from trio_serve.serving.errors import CannotCross, DeploymentUnavailable, MethodNotFound

pytestmark = pytest.mark.real_clock


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """This very process is the script."""
    with a_machine(tmp_path_factory.mktemp("machine")) as machine, pytest.MonkeyPatch.context() as patch:
        machine.start()
        patch.setenv("TRIO_SERVE_STATE_DIR", str(machine.state.path))
        client = serve.connect()
        yield client
        serve.shutdown()
        assert not machine.state.is_owned()


@pytest.fixture
def again(client: Client) -> Iterator[Client]:
    """Nothing is left of the test."""
    yield client
    for endpoint in client.list_endpoints():
        client.delete_endpoint(endpoint)
    for name in serve.status().applications:
        serve.delete(name)


def note(path: str) -> None:
    pathlib.Path(path).touch()


class NotSold(LookupError):
    def __init__(self, what: str, shop: str) -> None:
        super().__init__(f"{shop} sells no {what}")
        self.what = what


@serve.deployment(max_ongoing_requests=20)
class Shop:
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    async def __call__(self, name: str) -> str:
        return f"{self.greeting} {name}"

    def buy(self, what: str) -> None:
        raise NotSold(what, "this shop")

    def bell(self) -> Any:
        return threading.Lock()

    async def count(self, to: int) -> Any:
        for number in range(to):
            yield number
        raise NotSold("more", "this shop")

    async def endless(self, marker: str) -> None:
        note(f"{marker}.began")
        try:
            await trio.sleep_forever()
        finally:
            note(f"{marker}.ended")

    async def forever(self, marker: str) -> Any:
        try:
            while True:
                yield "item"
        finally:
            note(f"{marker}.ended")

    async def of_another(self, handle: Any, name: str) -> str:
        return "another says " + str(await handle.remote(name))

    async def request_id(self) -> str:
        from trio_serve.serving.request_context import current_request

        request = current_request()
        assert request is not None
        return request.request_id


@serve.deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self) -> None:
        raise NotSold("anything", "a broken shop")

    def __call__(self) -> None: ...


@pytest.mark.usefixtures("again")
def test_the_names_of_the_package_act_on_it() -> None:
    handle = serve.run(Shop.bind(), name="shop", route_prefix="/shop")
    assert handle.remote("you").result(PATIENCE_S) == "hello you"
    one, two = serve.run_many([serve.RunTarget(Shop.bind(f"I am {n}"), f"s{n}", f"/s{n}") for n in range(2)])
    assert [each.remote("").result(PATIENCE_S) for each in (one, two)] == ["I am 0 ", "I am 1 "]
    assert serve.get_app_handle("shop").remote("x").result(PATIENCE_S) == "hello x"
    assert serve.get_deployment_handle("Shop", "s1").remote("").result(PATIENCE_S) == "I am 1 "

    status = serve.status()
    assert {name: (app.status, app.route_prefix) for name, app in status.applications.items()} == {
        name: ("RUNNING", f"/{name}") for name in ("shop", "s0", "s1")
    }
    assert status.proxies == {"http": "HEALTHY"}
    assert serve.http_port() and serve.grpc_port() is None

    serve.delete("shop")
    assert list(serve.status().applications) == ["s0", "s1"]
    with pytest.raises(DeploymentUnavailable, match="no application of this name"):
        handle.remote("you").result(PATIENCE_S)


@pytest.mark.usefixtures("again")
def test_errors_arrive_as_they_were_raised() -> None:
    with pytest.raises(NotSold, match="a broken shop sells no anything"):
        serve.run(Broken.bind())
    with pytest.raises(KeyError, match="no application 'nope' is deployed"):
        serve.delete("nope")
    with pytest.raises(Mistakes, match=r"^route_prefix: 'x' does not begin with '/'"):
        serve.run(Shop.bind(), route_prefix="x")
    handle = serve.run(Shop.bind())
    with pytest.raises(Mistakes, match="route_prefix: '/' is the prefix of 'default'"):
        serve.run(Shop.bind(), name="other")

    with pytest.raises(NotSold, match="this shop sells no eggs") as caught:
        handle.buy.remote("eggs").result(PATIENCE_S)
    assert caught.value.what == "eggs"
    assert "raise NotSold" in caught.value.__notes__[0]
    with pytest.raises(MethodNotFound, match="has no method 'sell'"):
        handle.sell.remote().result(PATIENCE_S)
    with pytest.raises(CannotCross, match="a value of type lock cannot be sent"):
        handle.bell.remote().result(PATIENCE_S)
    with pytest.raises(CannotCross, match="a value of type tuple cannot be sent"):
        handle.remote(threading.Lock()).result(PATIENCE_S)
    assert handle.remote("still here").result(PATIENCE_S) == "hello still here"


@pytest.mark.usefixtures("again")
def test_a_stream_comes_item_by_item_and_ends_as_it_ended_there(tmp_path: pathlib.Path) -> None:
    handle = serve.run(Shop.bind()).options(stream=True)
    counting = handle.count.remote(3)
    assert [next(counting) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(NotSold, match="sells no more"):
        next(counting)

    stream = handle.forever.remote(str(tmp_path / "stream"))
    assert next(stream) == "item"
    del stream
    wait_until((tmp_path / "stream.ended").exists)


@pytest.mark.usefixtures("again")
def test_a_call_that_is_cancelled_or_late_is_cancelled_there(tmp_path: pathlib.Path) -> None:
    handle = serve.run(Shop.bind())
    cancelled = handle.endless.remote(str(tmp_path / "cancelled"))
    wait_until((tmp_path / "cancelled.began").exists)
    cancelled.cancel()
    with pytest.raises(CallCancelled):
        cancelled.result(PATIENCE_S)
    wait_until((tmp_path / "cancelled.ended").exists)

    with pytest.raises(DeadlinePassed):
        handle.options(timeout_s=0.3).endless.remote(str(tmp_path / "late")).result(PATIENCE_S)
    wait_until((tmp_path / "late.ended").exists)


@pytest.mark.usefixtures("again")
def test_responses_and_handles_are_arguments_as_in_one_process() -> None:
    handle = serve.run(Shop.bind())
    other = serve.run(Shop.bind("bye"), name="other", route_prefix=None)

    assert handle.remote(other.remote("you")).result(PATIENCE_S) == "hello bye you"
    assert handle.of_another.remote(other, "you").result(PATIENCE_S) == "another says bye you"
    named = handle.request_id.remote()
    assert named.result(PATIENCE_S) == named.request_id


@pytest.mark.usefixtures("again")
def test_many_calls_are_under_way_at_once_from_many_threads() -> None:
    handle = serve.run(Shop.bind())
    answers: list[str] = []

    def call() -> None:
        responses = [handle.remote(str(number)) for number in range(100)]
        answers.extend(response.result(PATIENCE_S) for response in responses)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == sorted(f"hello {number}" for number in range(100) for _ in range(4))


@pytest.mark.usefixtures("again")
def test_what_is_too_large_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = serve.run(Shop.bind())
    assert len(handle.remote("x" * 10_000_000).result(PATIENCE_S)) == 10_000_006

    monkeypatch.setattr(parcels, "PARCEL_BYTES_MAX", 1000)
    for attempt in (
        lambda: handle.remote("x" * 2000).result(PATIENCE_S),
        lambda: serve.run(Shop.bind("x" * 2000)),
    ):
        with pytest.raises(CannotCross, match="bytes are to be sent, and 1000 is all"):
            attempt()


def adder(request: Any) -> int:
    return int(request.query_params["to"]) + 1


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def reconfigure(self, config: dict[str, int]) -> None:
        self.factor = config["factor"]

    def __call__(self, request: Any) -> int:
        return int(request.query_params["to"]) * self.factor

    def describe(self, request: Any) -> str:
        return f"times {self.factor}"


def test_backends_endpoints_and_traffic_of_the_older_document(again: Client) -> None:
    again.create_backend("adder", adder)
    again.create_backend("multiplier", Multiplier, 5, config={"num_replicas": 2})
    again.create_backend("by path", f"{__name__}.Multiplier", 7)
    serve.create_endpoint("compute", backend="adder", route="/compute", methods=["GET", "POST"])

    handle = serve.get_handle("compute")
    assert handle.remote(to=10).result(PATIENCE_S) == 11
    again.set_traffic("compute", {"multiplier": 1.0}, sticky="x-user")
    assert handle.remote(to=10).result(PATIENCE_S) == 50
    assert handle.options("describe").remote().result(PATIENCE_S) == "times 5"
    serve.update_backend_config("multiplier", {"user_config": {"factor": 6}})
    assert handle.remote(to=10).result(PATIENCE_S) == 60
    assert serve.get_backend_config("multiplier") == serve.BackendConfig(
        num_replicas=2, user_config={"factor": 6}
    )
    again.set_traffic("compute", {"by path": 1.0})
    again.shadow_traffic("compute", "adder", 0.5)
    assert handle.remote(to=10).result(PATIENCE_S) == 70
    assert list(serve.list_backends()) == ["adder", "multiplier", "by path"]
    assert serve.list_endpoints() == {
        "compute": {
            "route": "/compute",
            "methods": ["GET", "POST"],
            "traffic": {"by path": 1.0},
            "shadows": {"adder": 0.5},
        }
    }
    again.delete_backend("multiplier", force=True)

    with pytest.raises(ValueError, match="there is a backend or an application 'adder' already"):
        again.create_backend("adder", adder)
    with pytest.raises(ValueError, match="is used by endpoint 'compute'"):
        again.delete_backend("by path")
    with pytest.raises(KeyError, match="there is no endpoint 'nope'; there are: compute"):
        again.get_handle("nope")
    later = again.get_handle("nope", missing_ok=True)
    with pytest.raises(KeyError, match="there is no endpoint 'nope'"):
        later.remote().result(PATIENCE_S)


async def test_it_is_for_plain_scripts(client: Client) -> None:
    with pytest.raises(RuntimeError, match="no instance is open in this Trio program"):
        serve.connect()
