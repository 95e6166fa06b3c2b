"""An application whose one method takes 5 ms of CPU: what the overload benchmark loads.

    python -m benchmarks.servers.overloaded [--queue N] [--threads]

The request's name is the call's deadline (time.monotonic(), one clock for all processes of a machine); an
empty name asks how many calls were begun after theirs.  ``--threads``: the method is a plain ``def``.
"""

import argparse
from typing import Any

import trio

import trio_serve as serve
from benchmarks.schema import PROTO
from benchmarks.servers.hard_work import HardWork
from trio_serve.grpc import methods_from

HelloReply: Any = {method.name: method for method in methods_from(str(PROTO))}["SayHello"].reply_type


class Busy:
    def __init__(self) -> None:
        self.work = HardWork()

    async def SayHello(self, request: Any) -> Any:
        return HelloReply(message=self.work.do(request.name))


class BusyInThread:
    def __init__(self) -> None:
        self.work = HardWork()

    def SayHello(self, request: Any) -> Any:
        return HelloReply(message=self.work.do(request.name))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", type=int, help="max_queued_requests; all other options are the defaults")
    parser.add_argument("--threads", action="store_true")
    arguments = parser.parse_args()
    options = {} if arguments.queue is None else {"max_queued_requests": arguments.queue}
    application = serve.deployment(**options)(BusyInThread if arguments.threads else Busy).bind()
    async with serve.open_instance(grpc_options={"port": 0, "protos": [str(PROTO)]}) as instance:
        await instance.run(application)
        print("ready", instance.grpc_port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
