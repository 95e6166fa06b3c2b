"""What each client program does around its calls: take arguments, time, and tell.

PROGRAM PORT --in-flight 64 --seconds 1  >  {"calls": ..., "seconds": ..., "cpu_us": ..., "p50_ms": ..., ...}
"""

import argparse
import json
import time

from benchmarks.load.result import percentile


class Timing:
    """Latencies of the calls, and the process's own CPU time meanwhile."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("port", type=int)
        parser.add_argument("--in-flight", type=int, default=64)
        parser.add_argument("--seconds", type=float, default=1)
        parser.add_argument("--uvloop", action="store_true")
        self.arguments = parser.parse_args()
        self.address = f"127.0.0.1:{self.arguments.port}"
        self.latencies: list[float] = []

    def start(self) -> None:
        """Call once connected and warm."""
        self.latencies.clear()
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self.until = self._began + self.arguments.seconds

    def report(self) -> None:
        cpu, seconds = time.process_time() - self._cpu, time.perf_counter() - self._began
        calls = len(self.latencies)
        ordered = sorted(1000 * latency for latency in self.latencies)
        seen = {"calls": calls, "seconds": seconds, "cpu_us": cpu / calls * 1e6}
        print(json.dumps(seen | {"p50_ms": percentile(ordered, 0.5), "p99_ms": percentile(ordered, 0.99)}))
