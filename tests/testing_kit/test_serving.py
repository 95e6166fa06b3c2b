"""The kit's core: an application through real gRPC bytes, in memory, in virtual time."""

import pytest
import trio

import trio_serve as serve
from trio_serve.grpc import RpcError, Status
from trio_serve.grpc.protos import load_protos
from trio_serve.testing import serving

from ..contract.conftest import ROOT

PROTO = load_protos(ROOT / "protos" / "helloworld.proto")


class GreeterStub:
    def __init__(self, channel):
        self.SayHello = channel.unary_unary(
            "/helloworld.Greeter/SayHello",
            request_serializer=PROTO.HelloRequest.SerializeToString,
            response_deserializer=PROTO.HelloReply.FromString,
        )


@serve.deployment
class Ranker:
    def __init__(self, model: str) -> None:
        raise OSError(f"{model} is not on this machine")

    def rank(self, name: str) -> str:
        return "the real one"


@serve.deployment
class Greeter:
    def __init__(self, ranker=None):
        self._ranker = ranker

    async def SayHello(self, request):
        if request.name == "slow":
            await trio.sleep(1800)
        rank = "" if self._ranker is None else await self._ranker.rank.remote(request.name)
        return PROTO.HelloReply(message=f"Hello {request.name}{rank}")


async def test_a_call_goes_through_the_real_path() -> None:
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        stub = GreeterStub(service.channel())
        call = stub.SayHello(PROTO.HelloRequest(name="you"), metadata=[("request_id", "7")])

        assert (await call).message == "Hello you"
        assert dict(await call.trailing_metadata())["request_id"] == "7"


async def test_half_an_hour_passes_in_no_time() -> None:
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        begun = trio.current_time()
        reply = await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="slow"))

    assert reply.message == "Hello slow"
    assert trio.current_time() - begun == pytest.approx(1800)


async def test_a_deadline_is_exact() -> None:
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        begun = trio.current_time()
        with pytest.raises(RpcError) as info:
            await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="slow"), timeout=2.5)

        assert info.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() - begun == pytest.approx(2.5, abs=0.001)


async def test_a_fake_stands_in_for_a_deployment_that_cannot_start_here() -> None:
    class FakeRanker:
        def rank(self, name: str) -> str:
            return f", ranked {len(name)}"

    app = Greeter.bind(Ranker.bind("large.bin"))

    async with serving(app, services=[PROTO], overrides={"Ranker": FakeRanker}) as service:
        reply = await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="you"))
        alone = await service.handle_to("Ranker").rank.remote("abcd")

    assert reply.message == "Hello you, ranked 3"
    assert alone == ", ranked 4"


async def test_a_fake_object_can_be_asked_afterwards() -> None:
    class RecordingRanker:
        def __init__(self):
            self.names = []

        def rank(self, name: str) -> str:
            self.names.append(name)
            return ""

    fake = RecordingRanker()
    app = Greeter.bind(Ranker.bind("large.bin"))

    async with serving(app, services=[PROTO], overrides={"Ranker": fake}) as service:
        await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="you"))

    assert fake.names == ["you"]


async def test_a_fake_for_nobody_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="no deployment 'Rankr' to replace; did you mean 'Ranker'"):
        async with serving(Greeter.bind(Ranker.bind("x")), overrides={"Rankr": object()}):
            pass


async def test_the_users_assertion_comes_out_as_it_was() -> None:
    with pytest.raises(AssertionError, match=r"^mine$"):
        async with serving(Greeter.bind(), services=[PROTO]):
            raise AssertionError("mine")


async def test_a_constructors_error_comes_out_as_it_was() -> None:
    with pytest.raises(OSError, match=r"large\.bin is not on this machine"):
        async with serving(Greeter.bind(Ranker.options(max_constructor_retry_count=1).bind("large.bin"))):
            pass


async def test_nothing_is_left_behind() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living

    async with serving(Greeter.bind(), services=[PROTO]) as service:
        await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="you"))
    await trio.testing.wait_all_tasks_blocked()

    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_an_update_takes_the_place_of_the_application() -> None:
    @serve.deployment(name="Greeter")
    class Newer:
        async def SayHello(self, request):
            return PROTO.HelloReply(message="newer")

    async with serving(Greeter.bind(), services=[PROTO]) as service:
        await service.update(Newer.bind())
        reply = await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name="you"))

    assert reply.message == "newer"
