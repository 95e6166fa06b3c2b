"""The contract's promises on logs: fields inside replicas, access lines, files, settings of deployments."""

import json
import logging
import pathlib
from typing import Any

import httpx
import pytest

import trio_serve as serve
from tests.patience import PATIENCE_S
from trio_serve.grpc import methods_from, open_channel

pytestmark = pytest.mark.real_clock

PROTO = str(pathlib.Path(__file__).parent.parent.parent / "protos" / "helloworld.proto")
logger = logging.getLogger("trio_serve")


@serve.deployment(name="Greeter")
class Greeter:
    async def SayHello(self, message: Any) -> Any:
        logger.info("greeting %s", message.name)
        logger.debug("only for those who ask")
        return HELLO_REPLY(message=f"Hello {message.name}")

    def __call__(self, request: Any) -> str:
        logger.info("in a thread of its own")
        return "hi"


HELLO_REPLY: Any = None


@pytest.fixture(autouse=True)
def reply_type() -> None:
    global HELLO_REPLY
    (method,) = [each for each in methods_from(PROTO) if each.name == "SayHello"]
    HELLO_REPLY = method.reply_type


def lines_of(folder: pathlib.Path) -> list[str]:
    return (folder / "session_latest" / "logs" / "serve" / "serve.log").read_text().splitlines()


async def say_hello(port: int | None, name: str, request_id: str, application: str = "app1") -> None:
    (method,) = [each for each in methods_from(PROTO) if each.name == "SayHello"]
    assert method.request_type is not None
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = channel.unary_unary(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=HELLO_REPLY.FromString,
        )
        metadata = (("request_id", request_id), ("application", application))
        await stub(method.request_type(name=name), metadata=metadata)


async def test_records_in_a_replica_carry_their_request(tmp_path: pathlib.Path) -> None:
    """As JSON, from an async method over gRPC and from a thread over HTTP; then the proxies' own lines."""
    logs = {"logs_dir": str(tmp_path), "encoding": "JSON", "additional_log_standard_attrs": ["lineno"]}
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]}, http_options={"port": 0}, logging_config=logs
    ) as instance:
        await instance.run(Greeter.bind(), name="app1", route_prefix="/t")
        await say_hello(instance.grpc_port, "you", "id-1")
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            await client.get(f"http://127.0.0.1:{instance.http_port}/t?a=b", headers={"x-request-id": "id-2"})

    lines = {line["message"].rpartition(" ")[0]: line for line in map(json.loads, lines_of(tmp_path))}
    greeting, in_thread = lines["greeting"], lines["in a thread of its"]
    assert greeting["replica"].startswith("Greeter#")
    assert {name: greeting[name] for name in ("component", "application", "deployment", "request_id")} == {
        "component": "replica",
        "application": "app1",
        "deployment": "Greeter",
        "request_id": "id-1",
    }
    assert greeting["route"] == "/helloworld.Greeter/SayHello"
    assert isinstance(greeting["lineno"], int)
    assert (in_thread["request_id"], in_thread["route"], in_thread["replica"]) == (
        "id-2",
        "/t",
        greeting["replica"],
    )
    of_grpc, of_http = lines["/helloworld.Greeter/SayHello app1 OK"], lines["GET /t 200"]
    assert (of_grpc["component"], of_grpc["request_id"]) == ("proxy", "id-1")
    assert (of_http["component"], of_http["request_id"], of_http["application"]) == ("proxy", "id-2", "app1")


async def test_what_a_client_sends_stays_on_one_line(tmp_path: pathlib.Path) -> None:
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]},
        http_options={"port": 0},
        logging_config={"logs_dir": str(tmp_path)},
    ) as instance:
        await instance.run(Greeter.bind(), name="app1", route_prefix="/t")
        await say_hello(instance.grpc_port, "you\nINFO 2026 forged\x1b[2J", "id-1")
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            await client.get(f"http://127.0.0.1:{instance.http_port}/t%0AINFO%202026%20forged")

    lines = lines_of(tmp_path)
    assert not any(line.startswith("INFO 2026 forged") for line in lines)
    assert any(line.endswith(r"greeting you\nINFO 2026 forged\x1b[2J") for line in lines)
    assert any(r"GET /t\nINFO 2026 forged 404" in line for line in lines)


async def test_calls_that_reach_no_deployment_have_their_line_too(tmp_path: pathlib.Path) -> None:
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]}, logging_config={"logs_dir": str(tmp_path)}
    ) as instance:
        await instance.run(Greeter.bind(), name="app1")
        async with open_channel(f"127.0.0.1:{instance.grpc_port}") as channel:
            for path in ("/no.Such/Method", "/helloworld.Greeter/SayHello"):
                call = channel.unary_unary(
                    path, request_serializer=lambda data: data, response_deserializer=bytes
                )
                with pytest.raises(Exception, match=r"not found|not available|Not found"):
                    await call(b"", metadata=(("application", "nope"), ("request_id", "id-3")))

    access = [line.partition(" -- ") for line in lines_of(tmp_path) if " proxy " in line]
    assert [line.rpartition(" ")[0] for _, _, line in access] == [
        "/no.Such/Method - UNIMPLEMENTED",
        "/helloworld.Greeter/SayHello nope NOT_FOUND",
    ]
    assert all(head.endswith(" proxy id-3") for head, _, _ in access)


async def test_the_access_log_can_be_switched_off(tmp_path: pathlib.Path) -> None:
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]},
        logging_config={"logs_dir": str(tmp_path), "enable_access_log": False},
    ) as instance:
        await instance.run(Greeter.bind(), name="app1")
        await say_hello(instance.grpc_port, "you", "id-1")

    assert [line.partition(" -- ")[2] for line in lines_of(tmp_path)] == ["greeting you"]


async def test_a_deployment_has_its_own_level_and_form(tmp_path: pathlib.Path) -> None:
    """One application logs at DEBUG and as JSON, the other as the instance does."""
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]},
        logging_config={"logs_dir": str(tmp_path), "enable_access_log": False},
    ) as instance:
        await instance.run(Greeter.bind(), name="app1", route_prefix=None)
        talkative = Greeter.options(logging_config={"log_level": "DEBUG", "encoding": "JSON"})
        await instance.run(talkative.bind(), name="app2", route_prefix=None)
        await instance.run(
            Greeter.bind(), name="app3", route_prefix=None, logging_config={"log_level": "ERROR"}
        )
        for application in ("app1", "app2", "app3"):
            await say_hello(instance.grpc_port, application, "id", application)

    first, *others = lines_of(tmp_path)
    assert first.endswith(" id -- greeting app1")
    assert [json.loads(line)["message"] for line in others] == ["greeting app2", "only for those who ask"]


async def test_one_application_can_do_without_access_lines(tmp_path: pathlib.Path) -> None:
    async with serve.open_instance(
        grpc_options={"port": 0, "protos": [PROTO]}, logging_config={"logs_dir": str(tmp_path)}
    ) as instance:
        await instance.run(Greeter.bind(), name="app1", route_prefix=None)
        await instance.run(
            Greeter.bind(), name="app2", route_prefix=None, logging_config={"enable_access_log": False}
        )
        for application in ("app1", "app2"):
            await say_hello(instance.grpc_port, application, "id", application)

    access = [line for line in lines_of(tmp_path) if " proxy " in line]
    assert [line.rpartition(" ")[0].partition(" -- ")[2] for line in access] == [
        "/helloworld.Greeter/SayHello app1 OK"
    ]


async def test_log_settings_that_cannot_be_are_refused_before_anything_runs() -> None:
    async with serve.open_instance() as instance:
        with pytest.raises(ValueError, match=r"deployment 'Greeter': logging_config\.encoding: 'xml' is not"):
            await instance.run(Greeter.options(logging_config={"encoding": "xml"}).bind(), name="app1")

        assert instance.status().applications == {}


async def test_a_backends_lines_have_the_form_of_the_document(tmp_path: pathlib.Path) -> None:
    """So that its LogQL query ``|= "backend=my_backend"`` finds them."""
    async with serve.open_instance(
        http_options={"port": 0}, logging_config={"logs_dir": str(tmp_path), "enable_access_log": False}
    ) as instance:
        backend = Greeter.options(name="my_backend", is_backend=True)
        await instance.run(backend.bind(), name="app1", route_prefix="/counter")
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            await client.get(f"http://127.0.0.1:{instance.http_port}/counter")

    (line,) = lines_of(tmp_path)
    assert line.startswith("(pid=")
    assert " INFO -- in a thread of its own component=serve backend=my_backend replica=my_backend#" in line
