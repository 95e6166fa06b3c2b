"""Calls at a given rate, whether the earlier ones have been answered or not.

    PROGRAM PORT --peak 1                        the most that the server does, four in flight for so long
    PROGRAM PORT --rates 400:2 180:2             400 calls/s for 2 s, then 180 calls/s for 2 s

    >  {"peak": ...}  or  {"calls": [[sent at, "OK", latency], ...], "expired": ..., "core": ...}

Every call has a deadline of 1 s, and carries it as its name; so many channels that no server's limit of
streams a connection holds any call back.  ``expired``: how many calls the server began after their deadline.
``core``: how much of one processor the client itself was at work; near 1 the latencies are its own.
"""

import argparse
import asyncio
import itertools
import json
import time

import greeter_pb2 as pb2
import greeter_pb2_grpc
import grpc.aio

DEADLINE_S = 1.0
CHANNELS = 4
PEAK_IN_FLIGHT = 4


async def main(arguments: argparse.Namespace) -> dict[str, object]:
    local = [("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{arguments.port}"
    channels = [grpc.aio.insecure_channel(target, options=local) for _ in range(CHANNELS)]
    stubs = [greeter_pb2_grpc.GreeterStub(channel) for channel in channels]
    try:
        for stub in stubs:
            await stub.SayHello(pb2.HelloRequest())
        if arguments.peak:
            return {"peak": await peak(stubs, arguments.peak)}
        before = await expired(stubs[0])
        began, at_work = time.monotonic(), time.process_time()
        calls = await run(stubs, arguments.rates)
        core = (time.process_time() - at_work) / (time.monotonic() - began)
        return {"calls": calls, "expired": await expired(stubs[0]) - before, "core": core}
    finally:
        for channel in channels:
            await channel.close()


async def expired(stub: greeter_pb2_grpc.GreeterStub) -> int:
    return int((await stub.SayHello(pb2.HelloRequest(), wait_for_ready=True)).message)


async def peak(stubs: list[greeter_pb2_grpc.GreeterStub], seconds: float) -> float:
    until = time.monotonic() + seconds
    answered = 0

    async def caller(stub: greeter_pb2_grpc.GreeterStub) -> None:
        nonlocal answered
        while time.monotonic() < until:
            await stub.SayHello(pb2.HelloRequest(name=str(until + 10)))
            answered += 1

    began = time.monotonic()
    await asyncio.gather(*(caller(stub) for stub in stubs[:PEAK_IN_FLIGHT]))
    return answered / (time.monotonic() - began)


async def run(stubs: list[greeter_pb2_grpc.GreeterStub], rates: list[str]) -> list[list[object]]:
    calls: list[list[object]] = []
    began = time.monotonic()

    async def call(stub: greeter_pb2_grpc.GreeterStub) -> None:
        sent = time.monotonic()
        status = "OK"
        try:
            await stub.SayHello(pb2.HelloRequest(name=str(sent + DEADLINE_S)), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        calls.append([sent - began, status, time.monotonic() - sent])

    turn = itertools.cycle(stubs)
    begins = began
    tasks = set()
    for text in rates:
        rate, seconds = map(float, text.split(":"))
        for k in range(int(rate * seconds)):
            wait = begins + k / rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(call(next(turn)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        begins += seconds
    await asyncio.gather(*tasks)
    return calls


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--peak", type=float, default=0)
    parser.add_argument("--rates", nargs="+", default=[])
    print(json.dumps(asyncio.run(main(parser.parse_args()))))
