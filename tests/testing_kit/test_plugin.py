"""The plugin, as other people's test suites use it: each of these runs pytest in a process of its own."""

import sys

import pytest

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.real_clock

APP = """
import pytest, trio, trio_serve as serve
from trio_serve.grpc.protos import load_protos

PROTO = load_protos({proto!r})

@serve.deployment
class Greeter:
    async def SayHello(self, request):
        await trio.sleep(float(request.name))
        return PROTO.HelloReply(message="Hello " + request.name)

def say_hello(channel):
    return channel.unary_unary(
        "/helloworld.Greeter/SayHello",
        request_serializer=PROTO.HelloRequest.SerializeToString,
        response_deserializer=PROTO.HelloReply.FromString,
    )

async def greeting(serving, name="1800"):
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        reply = await say_hello(service.channel())(PROTO.HelloRequest(name=name))
        return reply.message
"""


@pytest.fixture
def suite(pytester):
    """Makes test files of these texts, by name, runs them in one process, and gives the result."""
    from ..contract.conftest import ROOT

    pytester.makepyfile(app=APP.format(proto=str(ROOT / "protos" / "helloworld.proto")))

    def run(**texts):
        pytester.makepyfile(**{f"test_{name}": text for name, text in texts.items()})
        return pytester.runpytest_subprocess("-p", "no:cacheprovider")

    return run


WITH_EACH_RUNNER = {
    "pytest_trio": """
        import pytest
        from app import greeting

        @pytest.mark.trio
        async def test_it(serving, autojump_clock):
            assert await greeting(serving) == "Hello 1800"
        """,
    "anyio": """
        import pytest
        from trio.testing import MockClock
        from app import greeting

        @pytest.fixture
        def anyio_backend():
            return "trio", {"clock": MockClock(autojump_threshold=0)}

        @pytest.mark.anyio
        async def test_it(serving):
            assert await greeting(serving) == "Hello 1800"
        """,
    "plain_trio": """
        import trio
        from app import greeting

        def test_it(serving):
            assert trio.run(greeting, serving, "0.01") == "Hello 0.01"
        """,
    "run_in_virtual_time": """
        from trio_serve.testing import run_in_virtual_time
        from app import greeting

        def test_it(serving):
            assert run_in_virtual_time(greeting, serving) == "Hello 1800"
        """,
    "grpcio": """
        import grpc
        from app import PROTO, Greeter, say_hello

        def test_it(serving_in_thread):
            service = serving_in_thread(Greeter.bind(), services=[PROTO])
            with grpc.insecure_channel(service.target) as channel:
                assert say_hello(channel)(PROTO.HelloRequest(name="0.01")).message == "Hello 0.01"
            assert service.handle.SayHello.remote(PROTO.HelloRequest(name="0")).result().message == "Hello 0"
        """,
    "grpc_aio": """
        import asyncio, grpc.aio
        from app import PROTO, Greeter, say_hello

        async def call(target):
            async with grpc.aio.insecure_channel(target) as channel:
                return await say_hello(channel)(PROTO.HelloRequest(name="0.01"))

        def test_it(serving_in_thread):
            service = serving_in_thread(Greeter.bind(), services=[PROTO])
            assert asyncio.run(call(service.target)).message == "Hello 0.01"
        """,
    "instance_and_channel": """
        import trio
        from app import PROTO, Greeter, say_hello

        async def call(serving_instance, serving_channel):
            options = {"port": 0, "grpc_servicer_functions": [PROTO]}
            async with serving_instance(grpc_options=options) as instance:
                await instance.run(Greeter.bind())
                async with serving_channel(instance.addresses["grpc"]) as channel:
                    return await say_hello(channel)(PROTO.HelloRequest(name="0"))

        def test_it(serving_instance, serving_channel):
            assert trio.run(call, serving_instance, serving_channel).message == "Hello 0"
        """,
}


def test_the_fixtures_work_with_each_runner(suite) -> None:
    suite(**WITH_EACH_RUNNER).assert_outcomes(passed=len(WITH_EACH_RUNNER))


FAILING = """
import pytest
from app import PROTO, Greeter

@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.mark.{mark}
async def test_it(serving):
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        assert service.name == "{mark}"
"""
A_GROUP_OF_THEIRS = """
def test_it():
    raise ExceptionGroup("theirs", [ValueError()])
"""
IN_A_THREAD = """
import threading
from app import PROTO, Greeter

def test_one(serving_in_thread):
    serving_in_thread(Greeter.bind(), services=[PROTO])
    assert False, "mine"

def test_two():
    assert [thread.name for thread in threading.enumerate() if thread.name == "trio_serve"] == []
"""


def test_a_failure_shows_the_users_assertion_and_nothing_is_left_behind(suite) -> None:
    """Of the groups, the one that a test raises itself is shown; those of the runners' nurseries are not."""
    result = suite(
        a=FAILING.format(mark="trio"), b=FAILING.format(mark="anyio"), c=A_GROUP_OF_THEIRS, d=IN_A_THREAD
    )

    result.assert_outcomes(failed=4, passed=1)
    lines = result.stdout.str()
    assert "AssertionError: assert 'default' == 'trio'" in lines
    assert "AssertionError: assert 'default' == 'anyio'" in lines
    assert "AssertionError: mine" in lines
    assert "ExceptionGroup: theirs" in lines
    assert "unhandled errors in a" not in lines.lower()


def test_the_plugin_costs_nothing_where_it_is_not_used(pytester) -> None:
    """No import of ours but the plugin, none of Trio, no fixture that sets itself up, no option added."""
    pytester.makepyfile("""
        import sys

        def test_it(request):
            ours = {name for name in sys.modules if name.split(".")[0] in ("trio_serve", "trio", "grpclib")}
            assert ours == {"trio_serve", "trio_serve.testing", "trio_serve.testing.plugin"}
            assert not {name for name in request.fixturenames if "serv" in name}
    """)

    others = ["-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest"]
    pytester.runpytest_subprocess(*others, "-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_package_names_the_plugin_for_pytest_to_find() -> None:
    from importlib.metadata import entry_points

    (found,) = [each for each in entry_points(group="pytest11") if each.name == "trio_serve"]
    assert found.value == "trio_serve.testing.plugin"
    assert sys.modules[found.value]
