"""grpc-go, where a Go toolchain and Debian's golang-google-grpc-dev are: the real client, and a peer.

Without them the rest of the comparison is made all the same.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load.result import Load
from benchmarks.processes import LOAD_CORE, pinned

SOURCES = Path(__file__).resolve().parent.parent / "go"
LIBRARIES = Path(os.environ.get("TRIO_SERVE_BENCHMARK_GOPATH", "/usr/share/gocode"))


def available() -> bool:
    return shutil.which("go") is not None and (LIBRARIES / "src/google.golang.org/grpc").is_dir()


@contextlib.contextmanager
def programs() -> Iterator[Path]:
    """Build both programs; the directory with ``server`` and ``load`` is gone afterwards."""
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(LIBRARIES),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="trio-serve-benchmarks-go-") as directory:
        for name in ("server", "load"):
            subprocess.run(
                ["go", "build", "-o", f"{directory}/{name}", str(SOURCES / f"{name}.go")],
                check=True,
                env=environment,
                cwd=directory,
            )
        yield Path(directory)


def run(program: Path, port: int, work: str, *, in_flight: int, seconds: float) -> Load:
    """Calls for ``seconds``, each with its own deadline, request id and metadata.

    Raises:
        RuntimeError: a call failed.
    """
    command = [str(program), "-address", f"127.0.0.1:{port}", "-work", work]
    command += ["-in-flight", str(in_flight), "-seconds", str(seconds)]
    with pinned(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"the Go client ended with code {done.returncode}: {done.stderr}")
    seen = json.loads(done.stdout)
    if seen["failed"]:
        raise RuntimeError(f"{seen['failed']} calls of the Go client failed: {done.stderr}")
    return Load(seen["calls"], seen["seconds"], seen["p50_ms"], seen["p99_ms"])
