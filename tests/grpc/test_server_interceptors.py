"""Interceptors: around each handler, in order, in its own context."""

import contextvars
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.grpc.echo import MANY, ONE, Echo, Note, serving
from tests.grpc.raw_client import connected

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_they_run_in_order_around_the_handler_and_their_context_reaches_it() -> None:
    story: list[str] = []

    class Telling(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            story.append(f"handler for {who.get()}")
            return request

        async def Many(self, request: Any, context: Any) -> Any:
            story.append(f"stream for {who.get()}")
            yield request

    async def first(call: Any, proceed: Any) -> None:
        story.append("first")
        who.set(str(dict(call.metadata)["user"]))
        await proceed(call)
        story.append(f"first sees {call.status.name}")

    async def second(call: Any, proceed: Any) -> None:
        story.append("second")
        await proceed(call)
        story.append("second done")

    async with connected(serving(Telling(), interceptors=[first, second])) as client:
        await (await client.call(ONE, Note(), metadata=(("user", "ada"),))).done()
        assert story == ["first", "second", "handler for ada", "second done", "first sees OK"]
        story.clear()
        await (await client.call(MANY, Note(), metadata=(("user", "bob"),))).done()
        assert story[2] == "stream for bob"
    assert who.get() == "nobody"


async def test_one_may_answer_itself() -> None:
    async def bouncer(call: Any, proceed: Any) -> None:
        if "token" not in dict(call.metadata):
            call.finish(Status.UNAUTHENTICATED, "no token")
            return
        await proceed(call)

    async with connected(serving(Echo(), interceptors=[bouncer])) as client:
        refused = await client.call(ONE, Note())
        assert (await refused.done())[:2] == (Status.UNAUTHENTICATED, "no token")
        let_in = await client.call(ONE, Note(), metadata=(("token", "x"),))
        assert (await let_in.done()).status is Status.OK


async def test_one_sees_what_the_handler_raises_and_may_make_another_error_of_it() -> None:
    class Failing(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            raise KeyError("x")

    async def translate(call: Any, proceed: Any) -> None:
        try:
            await proceed(call)
        except KeyError as error:
            raise GRPCError(Status.NOT_FOUND, str(error)) from error

    async with connected(serving(Failing(), interceptors=[translate])) as client:
        call = await client.call(ONE, Note())
        assert (await call.done())[:2] == (Status.NOT_FOUND, "'x'")


async def test_one_that_neither_proceeds_nor_answers_ends_the_call_all_the_same() -> None:
    async def lazy(call: Any, proceed: Any) -> None: ...

    async with connected(serving(Echo(), interceptors=[lazy])) as client:
        call = await client.call(ONE, Note())
        assert (await call.done()).status is Status.UNKNOWN
