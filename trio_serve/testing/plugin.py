"""The pytest plugin: fixtures that hand out factories.

    serving             async with serving(app, services=[...]) as service        in memory, no port
    serving_instance    async with serving_instance(grpc_options={...}) as i      an instance
    serving_channel     async with serving_channel(target) as channel             our client
    serving_in_thread   service = serving_in_thread(app, services=[...])          a port, for any client

None of them opens anything before it is called, so none cares what runs the test: pytest-trio, anyio's
plugin, ``trio.run``, ``run_in_virtual_time``, asyncio or nothing at all.

The plugin changes nothing where it is not used: no fixture is automatic, no option or setting is added or
changed, and nothing but pytest is imported before a test asks for a fixture.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_serve.testing.in_thread import ThreadService


@pytest.fixture
def serving() -> Any:
    """`trio_serve.testing.serving`: an application in memory, for the length of an ``async with``."""
    from trio_serve.testing.service import serving

    return serving


@pytest.fixture
def serving_instance() -> Any:
    """`trio_serve.open_instance`: an instance for the length of an ``async with``."""
    from trio_serve.instance.instance import open_instance

    return open_instance


@pytest.fixture
def serving_channel() -> Any:
    """`trio_serve.grpc.open_channel`: a channel, for the length of an ``async with``."""
    from trio_serve.grpc.channel import open_channel

    return open_channel


@pytest.fixture
def serving_in_thread() -> Iterator[Any]:
    """`trio_serve.testing.serving_in_thread`, called like a function: what it opened ends with the test."""
    from trio_serve.testing.in_thread import serving_in_thread

    with ExitStack() as opened:

        def serve_in_thread(*args: Any, **kwargs: Any) -> "ThreadService":
            return opened.enter_context(serving_in_thread(*args, **kwargs))

        yield serve_in_thread


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Unwrap the one error that a runner has put into groups, where our fixtures are used."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        if _OURS.isdisjoint(pyfuncitem.fixturenames):
            raise
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


_OURS = {"serving", "serving_channel", "serving_in_thread", "serving_instance"}
