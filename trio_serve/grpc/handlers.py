"""How a handler is run: each cardinality, async or in a thread, in grpcio's manner or in grpclib's.

    run = runner_of(method, threads)      once, when the method is registered
    await run(call)                       for each call, in a worker of the server's actor

Async generators are stepped, never drained ahead: the next message is asked for when the client has room
for it. What a thread does cannot be cancelled; its call is answered at its deadline all the same, and keeps
its place among the running handlers until the thread is done.

Source: grpcio's and grpclib's conventions for servicers.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import trio

from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.call_ended import CallEnded
from trio_serve.grpc.context import CallContext, ServicerContext, ServicerStream, ThreadServicerContext
from trio_serve.grpc.inbox import EndOfStream
from trio_serve.grpc.methods import Method

Run = Callable[[ServerCall], Awaitable[None]]


def runner_of(method: Method, threads: trio.CapacityLimiter) -> Run:
    """How to run ``method.handler`` for one call; sync handlers share ``threads``.

    Raises:
        ValueError: the method has no handler.
    """
    handler = method.handler
    if handler is None:
        raise ValueError(f"{method.path} has no handler; register it with a dispatch function")
    if method.takes_stream:
        return _stream_runner(handler)
    requests, replies = method.cardinality.value
    if inspect.isasyncgenfunction(_innermost(handler)):
        return _generator_runner(handler, requests)
    if inspect.iscoroutinefunction(_innermost(handler)):
        return _coroutine_runner(handler, requests, replies)
    return _thread_runner(handler, requests, replies, threads)


def _innermost(handler: Any) -> Any:
    """The function that decides whether ``handler`` is async."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not inspect.isroutine(handler) and callable(handler):
        return handler.__call__
    return handler


def _stream_runner(handler: Callable[..., Any]) -> Run:
    async def run(call: ServerCall) -> None:
        stream = ServicerStream(call)
        try:
            await handler(stream)
        except CallEnded:
            if not call.over:
                raise
        stream.end()

    return run


def _coroutine_runner(handler: Callable[..., Any], requests: bool, replies: bool) -> Run:
    async def run(call: ServerCall) -> None:
        context = ServicerContext(call)
        try:
            reply = await handler(call if requests else call.request, context)
            if replies:
                context.end()  # the messages went through context.write()
            else:
                context.answer(reply)
        except Exception as error:
            context.end_as_set(error)
            raise
        finally:
            if context.callbacks is not None:
                context.ended()

    return run


def _generator_runner(handler: Callable[..., Any], requests: bool) -> Run:
    async def run(call: ServerCall) -> None:
        # All in this one frame: each coroutine, or context manager, that an open stream waits in costs it
        # some 250 bytes.
        context = ServicerContext(call)
        try:
            messages = handler(call if requests else call.request, context)
            try:
                async for message in messages:
                    await call.send_message(message)
                    del message  # it may be large, and the next one long in coming
            finally:
                await messages.aclose()
            context.end()
        except Exception as error:
            context.end_as_set(error)
            raise
        finally:
            if context.callbacks is not None:
                context.ended()

    return run


async def _send_each(call: ServerCall, messages: AsyncIterator[Any]) -> None:
    async for message in messages:
        await call.send_message(message)
        del message


def _thread_runner(
    handler: Callable[..., Any], requests: bool, replies: bool, threads: trio.CapacityLimiter
) -> Run:
    async def run(call: ServerCall) -> None:
        context = ThreadServicerContext(call)
        request = _RequestsInThread(call) if requests else call.request
        try:
            result = await trio.to_thread.run_sync(handler, request, context, limiter=threads)
            await _answer_from_thread(call, context, result, replies, threads)
        except Exception as error:
            context.end_as_set(error)
            raise
        finally:
            if context.callbacks is not None:
                context.ended()

    return run


async def _answer_from_thread(
    call: ServerCall, context: CallContext, result: Any, replies: bool, threads: trio.CapacityLimiter
) -> None:
    if inspect.isawaitable(result):
        result = await result  # a plain function that wraps an async one, as decorators are
    if not replies:
        context.answer(result)
    elif hasattr(result, "__aiter__"):
        await _send_each(call, result)
        context.end()
    else:
        await _send_each(call, _step_in_threads(iter(result), threads))
        context.end()


async def _step_in_threads(messages: Iterator[Any], threads: trio.CapacityLimiter) -> AsyncIterator[Any]:
    try:
        while True:
            message = await trio.to_thread.run_sync(next, messages, _NO_MORE, limiter=threads)
            if message is _NO_MORE:
                return
            yield message
    finally:
        close = getattr(messages, "close", None)
        if close is not None:
            with trio.CancelScope(shield=True):  # bounded by the generator's own cleanup
                await trio.to_thread.run_sync(close, limiter=threads)


_NO_MORE = object()


class _RequestsInThread:
    """The request messages of a streaming call, for a handler that runs in a thread."""

    __slots__ = ("_call",)

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def __iter__(self) -> "_RequestsInThread":
        return self

    def __next__(self) -> Any:
        try:
            return trio.from_thread.run(self._call.receive_message)
        except EndOfStream:
            raise StopIteration from None
