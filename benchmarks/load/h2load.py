"""h2load: every request the same bytes, so header caches hit as often as they ever will.  The best case.

    | 0 | length | message |      POSTed as the body

It counts HTTP 200 as success, so the size of what came back is checked too: a refused call has no message.
"""

import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.load.result import Load, percentile
from benchmarks.processes import LOAD_CORE, pinned

WINDOW_BITS = 30
CALIBRATION_S = 0.2


def available() -> bool:
    return shutil.which("h2load") is not None


def run(
    port: int,
    path: str,
    message: bytes,
    *,
    calls: int,
    in_flight: int = 1,
    connections: int = 1,
    reply_bytes_min: int = 1,
) -> Load:
    """``calls`` calls; returns when all have been answered.

    Raises:
        RuntimeError: not every call was answered with at least ``reply_bytes_min`` octets of DATA.
    """
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory, "body"), Path(directory, "log")
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        command = [
            *(
                "h2load",
                "-n",
                str(calls),
                "-c",
                str(connections),
                "-m",
                str(math.ceil(in_flight / connections)),
            ),
            *("-w", str(WINDOW_BITS), "-W", str(WINDOW_BITS), "-d", str(body), "--log-file", str(log)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "application: default"),
            f"http://127.0.0.1:{port}{path}",
        ]
        with pinned(LOAD_CORE):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return _read(done.stdout + done.stderr, log, calls, reply_bytes_min)


def _read(report: str, log: Path, calls: int, reply_bytes_min: int) -> Load:
    finished = re.search(r"finished in ([\d.]+)(us|ms|s),", report)
    succeeded = re.search(r"(\d+) succeeded", report)
    data = re.search(r"\((\d+)\) data", report)
    if not (finished and succeeded and data) or int(succeeded[1]) != calls:
        raise RuntimeError(f"h2load: not all of {calls} calls were answered:\n{report}")
    if int(data[1]) < calls * reply_bytes_min:
        raise RuntimeError(f"h2load: {calls} replies of {data[1]} octets together are errors:\n{report}")
    seconds = float(finished[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[finished[2]]
    latencies = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
    return Load(calls, seconds, percentile(latencies, 0.5), percentile(latencies, 0.99))
