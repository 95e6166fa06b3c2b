"""An instance in a Trio program: what it opens, what it refuses at the door, and how it ends."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio

import trio_serve as serve
from trio_serve.instance.settings import Mistakes
from trio_serve.serving.status import ApplicationStatus, ProxyStatus

PROTO = "protos/helloworld.proto"


@serve.deployment(sync_methods="inline")
class Echo:
    def __init__(self, note: Callable[[str], None] = print) -> None:
        self.note = note

    async def __call__(self, text: str) -> str:
        return f"echo {text}"

    async def sleep(self, seconds: float) -> str:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.note("cancelled")
            raise
        self.note("finished")
        return "slept"


@serve.deployment(max_constructor_retry_count=1, sync_methods="inline")
class Broken:
    def __init__(self) -> None:
        raise LookupError("no model")

    async def __call__(self) -> None: ...


# -- running -------------------------------------------------------------------------------------------------


async def test_an_application_runs_until_the_block_ends() -> None:
    async with serve.open_instance() as instance:
        handle = await instance.run(Echo.bind(), name="app")

        assert await handle.remote("hi") == "echo hi"
        assert await instance.get_app_handle("app").remote("hi") == "echo hi"
        assert await instance.get_deployment_handle("Echo", "app").remote("hi") == "echo hi"
        assert instance.status().applications["app"].status is ApplicationStatus.RUNNING
        assert (instance.grpc_port, instance.http_port, instance.addresses) == (None, None, {})

    with pytest.raises(Exception, match=r"ended|unavailable|no application"):
        await handle.remote("hi")


async def test_several_run_at_once_and_are_listed_in_their_order() -> None:
    targets = [serve.RunTarget(Echo.bind(), f"app{n}", f"/{n}") for n in range(9)]

    async with serve.open_instance() as instance:
        handles = await instance.run_many(targets)

        assert list(instance.status().applications) == [f"app{n}" for n in range(9)]
        assert [handle.app_name for handle in handles] == [f"app{n}" for n in range(9)]


async def test_one_that_fails_does_not_keep_the_others_from_running() -> None:
    targets = [serve.RunTarget(Broken.bind(), "bad", "/bad"), serve.RunTarget(Echo.bind(), "good", "/good")]

    async with serve.open_instance() as instance:
        with pytest.raises(LookupError, match=r"^no model\n"):
            await instance.run_many(targets)

        assert await instance.get_app_handle("good").remote("hi") == "echo hi"
        assert instance.status().applications["bad"].status is ApplicationStatus.DEPLOY_FAILED


async def test_the_errors_of_several_come_in_a_group() -> None:
    targets = [serve.RunTarget(Broken.bind(), name, f"/{name}") for name in ("a", "b")]

    async with serve.open_instance() as instance:
        with pytest.raises(ExceptionGroup, match="2 of 2 applications did not start") as caught:
            await instance.run_many(targets)

    assert [type(error) for error in caught.value.exceptions] == [LookupError, LookupError]


async def test_options_given_for_a_deployment_stand_over_those_in_its_code() -> None:
    target = serve.RunTarget(Echo.bind(), deployment_options={"Echo": {"num_replicas": 3}})

    async with serve.open_instance() as instance:
        await instance.run_many([target])

        deployment = instance.status().applications["default"].deployments["Echo"]
        assert deployment.replica_states["RUNNING"] == 3


async def test_a_deleted_application_is_gone() -> None:
    async with serve.open_instance() as instance:
        await instance.run(Echo.bind())
        await instance.delete("default")

        assert dict(instance.status().applications) == {}
        with pytest.raises(KeyError, match="no application 'default' is deployed"):
            instance.get_app_handle("default")
        with pytest.raises(KeyError, match="no application 'default' is deployed"):
            await instance.delete("default")


async def test_code_of_a_replica_finds_the_other_deployments_of_its_application() -> None:
    @serve.deployment
    class Front:
        def __init__(self, echo: Any) -> None: ...

        async def __call__(self) -> Any:
            return await serve.get_deployment_handle("Echo").remote("from within")

    async with serve.open_instance() as instance:
        handle = await instance.run(Front.bind(Echo.bind()), name="app")

        assert await handle.remote() == "echo from within"


# -- at the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, told",
    [
        (Echo, r"got the deployment 'Echo'; bind it to make it an application: run\(Echo.bind\(...\)\)"),
        (Echo.func_or_class, "got the class Echo; it runs an application: decorate the class"),
        (Echo.func_or_class(), "got an object of Echo; it runs an application"),
        ("module:app", "got the text 'module:app'; import the application and pass it itself"),
        (None, "got an object of NoneType"),
    ],
)
async def test_what_is_no_application_is_refused(target: Any, told: str) -> None:
    async with serve.open_instance() as instance:
        with pytest.raises(TypeError, match=told):
            await instance.run(target)


async def test_a_bad_name_and_a_bad_prefix_are_told_together() -> None:
    async with serve.open_instance() as instance:
        with pytest.raises(Mistakes) as caught:
            await instance.run(Echo.bind(), name="", route_prefix="/a/{b}")

    assert str(caught.value).splitlines() == [
        "name: is empty; an application needs a name",
        "route_prefix: '/a/{b}' has '{'; a prefix takes no wildcards, "
        "the application routes what lies below it",
    ]


async def test_two_applications_do_not_share_a_prefix_but_one_keeps_its_own() -> None:
    async with serve.open_instance() as instance:
        await instance.run(Echo.bind(), name="one", route_prefix="/x")
        with pytest.raises(Mistakes, match=r"^route_prefix: '/x' is the prefix of 'one'; choose another"):
            await instance.run(Echo.bind(), name="two", route_prefix="/x")
        await instance.run(Echo.bind(), name="one", route_prefix="/x")
        await instance.run(Echo.bind(), name="two", route_prefix=None)


async def test_the_original_error_of_a_constructor_is_raised_and_alone() -> None:
    async with serve.open_instance() as instance:
        with pytest.raises(LookupError, match=r"^no model\n") as caught:
            await instance.run(Broken.bind())

    assert any("'Broken'" in note for note in caught.value.__notes__)


@pytest.mark.real_clock
async def test_bad_options_and_services_are_told_at_once_and_open_nothing() -> None:
    with pytest.raises(
        Mistakes, match=r"^grpc_options.prot: unknown key;.*\ngrpc_options.port: -1 is not in"
    ):
        async with serve.open_instance(grpc_options={"prot": 1, "port": -1}):
            raise AssertionError("it opened")
    with pytest.raises(Mistakes) as caught:
        options = {"port": 0, "grpc_servicer_functions": ["no.where", Echo], "protos": ["nope.proto"]}
        async with serve.open_instance(grpc_options=options):
            raise AssertionError("it opened")

    assert [str(mistake).split(":")[0] for mistake in caught.value.mistakes] == [
        "grpc_options.grpc_servicer_functions[0]",
        "grpc_options.grpc_servicer_functions[1]",
        "grpc_options.protos[0]",
    ]


@pytest.mark.real_clock
async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"port {port} on 127.0.0.1 is in use by another program; stop it or"
        ):
            async with serve.open_instance(grpc_options={"port": port, "protos": [PROTO]}):
                raise AssertionError("it opened")


@pytest.mark.real_clock
async def test_certificates_that_cannot_be_read_are_told() -> None:
    options = {"port": 0, "tls": {"cert": "nope.pem", "key": "nope.key"}}

    with pytest.raises(
        Mistakes, match=r"^grpc_options.tls: cannot serve TLS with nope.pem, nope.key: No such"
    ):
        async with serve.open_instance(grpc_options=options):
            raise AssertionError("it opened")


# -- the end -------------------------------------------------------------------------------------------------


async def test_leaving_the_block_lets_calls_finish() -> None:
    log: list[str] = []

    async with serve.open_instance() as instance:
        handle = await instance.run(Echo.bind(log.append))
        response = handle.sleep.remote(5)
        await trio.testing.wait_all_tasks_blocked()

    assert log == ["finished"]
    assert await response == "slept"


async def test_but_not_longer_than_their_graceful_timeout() -> None:
    log: list[str] = []

    async with serve.open_instance() as instance:
        handle = await instance.run(Echo.options(graceful_shutdown_timeout_s=3).bind(log.append))
        handle.sleep.remote(100)
        await trio.testing.wait_all_tasks_blocked()
        left_at = trio.current_time()

    assert log == ["cancelled"]
    # once for the queue and once for the replica
    assert 3 <= trio.current_time() - left_at <= 2 * 3


async def test_cancelling_the_block_cancels_at_once() -> None:
    log: list[str] = []

    with trio.move_on_after(1) as scope:
        async with serve.open_instance() as instance:
            handle = await instance.run(Echo.bind(log.append))
            handle.sleep.remote(100)
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert log == ["cancelled"]
    assert trio.current_time() == scope.deadline


async def test_an_error_leaves_the_block_as_it_was_raised_and_at_once() -> None:
    log: list[str] = []
    mine = KeyError("mine")

    began = trio.current_time()
    with pytest.raises(KeyError) as caught:
        async with serve.open_instance() as instance:
            handle = await instance.run(Echo.bind(log.append))
            handle.sleep.remote(100)
            await trio.testing.wait_all_tasks_blocked()
            raise mine

    assert caught.value is mine
    assert caught.value.__context__ is None
    assert log == ["cancelled"]
    assert trio.current_time() == began


async def test_a_group_that_the_block_raises_stays_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with serve.open_instance():
            raise ExceptionGroup("mine", [KeyError("one")])

    assert caught.value.message == "mine"


@pytest.mark.real_clock
async def test_a_drain_closes_the_port_and_is_told_by_the_status() -> None:
    async with serve.open_instance(grpc_options={"port": 0, "protos": [PROTO]}) as instance:
        assert instance.grpc_port
        assert instance.addresses == {"grpc": f"127.0.0.1:{instance.grpc_port}"}
        assert instance.status().proxies == {"grpc": ProxyStatus.HEALTHY}

        await instance.drain()

        assert instance.status().proxies == {"grpc": ProxyStatus.DRAINING}
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", instance.grpc_port)


# -- the same by the names of the package --------------------------------------------------------------------


async def test_the_names_of_the_package_are_about_the_instance_around() -> None:
    async with serve.open_instance() as instance:
        handle = await serve.run(Echo.bind(), name="app")
        assert await handle.remote("hi") == "echo hi"
        assert await serve.get_app_handle("app").remote("hi") == "echo hi"
        assert serve.status() == instance.status()
        (again,) = await serve.run_many([serve.RunTarget(Echo.bind(), "second", None)])
        assert await again.remote("hi") == "echo hi"
        await serve.delete("second")
        assert list(serve.status().applications) == ["app"]
        async with serve.open_instance() as inner:
            assert serve.status() == inner.status()
        assert serve.status() == instance.status()
        await serve.shutdown()
        assert dict(serve.status().applications) == {}

    with pytest.raises(
        RuntimeError, match=r"no instance is open in this Trio program; write `async with serve"
    ):
        await serve.run(Echo.bind())


async def test_a_blocking_run_stays_until_it_is_cancelled() -> None:
    async with serve.open_instance() as instance:
        with trio.move_on_after(10) as scope:
            await serve.run(Echo.bind(), blocking=True)
        assert scope.cancelled_caught
        assert list(instance.status().applications) == ["default"]


async def test_start_is_refused_in_a_trio_program() -> None:
    with pytest.raises(
        RuntimeError, match=r"start\(\) is for plain scripts; in Trio write `async with serve"
    ):
        serve.start()


async def test_an_application_is_served_from_a_nursery() -> None:
    log: list[str] = []

    async with trio.open_nursery() as nursery:
        handle = await nursery.start(serve.serve, Echo.bind(log.append))
        assert await handle.remote("hi") == "echo hi"
        handle.sleep.remote(100)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert log == ["cancelled"]


async def test_one_that_does_not_start_fails_the_start_with_its_own_error() -> None:
    with pytest.raises(LookupError, match="no model"):
        async with AloneNursery() as nursery:
            await nursery.start(serve.serve, Broken.bind())


class AloneNursery:
    """A nursery that raises what its body raised, outside a group."""

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        return await self._manager.__aenter__()

    async def __aexit__(self, *info: Any) -> bool:
        try:
            return bool(await self._manager.__aexit__(*info))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
