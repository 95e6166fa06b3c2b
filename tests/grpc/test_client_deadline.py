"""Which deadline an outgoing call inherits."""

import math

import trio

from trio_serve.grpc.deadline import current_deadline, inherited_deadline


async def test_the_deadline_inherited_is_the_earlier_of_the_call_and_the_scope() -> None:
    assert inherited_deadline() == 3600  # the bound of every test, from conftest
    token = current_deadline.set(20)
    assert inherited_deadline() == 20
    with trio.CancelScope(deadline=10):
        assert inherited_deadline() == 10
        await trio.lowlevel.checkpoint()
    current_deadline.reset(token)
    assert current_deadline.get() == math.inf
