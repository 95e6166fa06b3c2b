"""One application file for both engines: Ray Serve where ``TRIO_SERVE_ENGINE=ray``, trio_serve where not.

    python -m benchmarks.servers.either_engine      prints "ready PORT", and serves Greeter over gRPC
                                        SIGUSR1     prints "hop MICROSECONDS" of a handle-to-handle hop
                                        SIGTERM     ends it

A hop is the slope from a chain without one to a chain of ``HOPS``, one call at a time, by the wall clock,
measured by a deployment, so that the way into the engine does not count.
"""

import logging
import os
import signal
import socket
import time
from typing import Any

from greeter_pb2 import HelloReply

import trio_serve as serve

ON_RAY = os.environ.get("TRIO_SERVE_ENGINE") == "ray"
HOPS = 5
RUNS = 5
SERVICE = "greeter_pb2_grpc.add_GreeterServicer_to_server"


@serve.deployment(max_ongoing_requests=20_000)
class Greeter:
    async def SayHello(self, request: Any) -> Any:
        return HelloReply(message=f"Hello, {request.name}!")


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Chain:
    """Adds one, and hands the number on."""

    def __init__(self, following: Any = None) -> None:
        self.following = following

    async def step(self, number: int) -> int:
        if self.following is None:
            return number
        answer: int = await self.following.step.remote(number + 1)
        return answer


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Caller:
    def __init__(self, nearest: Any, farthest: Any) -> None:
        self.chains = {0: nearest, HOPS: farthest}

    async def hop_us(self, calls: int) -> float:
        """Microseconds that one hop more takes, from the best of some runs."""
        took = {}
        for hops, chain in self.chains.items():
            await self._calls_us(chain, hops, calls // 5 + 1)
            took[hops] = min([await self._calls_us(chain, hops, calls) for _ in range(RUNS)])
        return (took[HOPS] - took[0]) / HOPS

    async def _calls_us(self, chain: Any, hops: int, calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            assert await chain.step.remote(0) == hops
        return (time.perf_counter() - began) / calls * 1e6


def chain(name: str, hops: int) -> Any:
    following = None
    for number in range(hops + 1):
        following = Chain.options(name=f"{name}-{number}").bind(following)
    return following


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start() -> int:
    """Start the engine that the environment names; the port to call."""
    if ON_RAY:
        import ray

        # A script's handles need a loop of their own; Ray's processes go without, where they are told to.
        os.environ.pop("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", None)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    port = free_port()
    serve.start(
        http_options={"port": free_port(), "host": "127.0.0.1"},
        grpc_options={"port": port, "grpc_servicer_functions": [SERVICE]},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    serve.run(Greeter.bind())
    first = os.environ.get("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT")
    return port if first is None else listening(range(int(first), int(first) + 20))


def listening(ports: range) -> int:
    """The first of ``ports`` that something listens on: a replica of Ray's, which chooses it."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return port
    raise OSError(f"nothing listens in {ports}")


def measure_hop() -> float:
    serve.delete("default")
    caller = Caller.bind(chain("nearest", 0), chain("farthest", HOPS))
    hop_us: float = serve.run(caller, route_prefix=None).hop_us.remote(100 if ON_RAY else 1000).result()
    return hop_us


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, lambda *_: None)  # it ends the pause
    try:
        print("ready", start(), flush=True)
        signal.pause()
        print("hop", measure_hop(), flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()


if __name__ == "__main__":
    main()
