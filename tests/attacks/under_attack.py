"""The server process and what an attack cost it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.attacks.attacker import Attacker

REPOSITORY = Path(__file__).resolve().parent.parent.parent
AFTERMATH_S = 0.3  # an attack is watched a little longer than it lasts
SOAK = bool(os.environ.get("TRIO_SERVE_SOAK"))
MIB = 1024 * 1024


def size(quick: int, soak: int) -> int:
    """How much of an attack this run makes."""
    return soak if SOAK else quick


@attrs.define
class Cost:
    """Peak resident memory over what the server had before, and what the probe saw meanwhile."""

    peak_bytes: int = 0
    probe_calls: int = 0
    probe_errors: list[str] = attrs.field(factory=list)
    probe_p99_ms: float = 0.0
    probe_slowest_ms: float = 0.0

    def __str__(self) -> str:
        return (
            f"peak {self.peak_bytes / MIB:.2f} MiB; probe: {self.probe_calls} calls, "
            f"{len(self.probe_errors)} errors, p99 {self.probe_p99_ms:.1f} ms, "
            f"slowest {self.probe_slowest_ms:.1f} ms"
        )


class Victim:
    """A server process."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log_path = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.attacks.victim", *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=REPOSITORY,
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[1])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    def cpu_s(self) -> float:
        """CPU time that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def attacker(self, window: int = 65_535) -> Attacker:
        """A new connection whose preface and SETTINGS have been exchanged."""
        return Attacker(self.port, window)

    def produced(self) -> int:
        """Messages that Flood has made so far."""
        with self.attacker() as asking:
            message = asking.call("Produced").message
        number, shift = 0, 0
        for octet in message[1:]:  # a varint in field 1
            number |= (octet & 0x7F) << shift
            shift += 7
        return number

    @contextlib.contextmanager
    def observed(self, name: str) -> Iterator[Cost]:
        """Run an attack inside; the cost is filled in when it is over, and printed.

        The server is called once before, so that what it loads lazily is not counted.
        """
        with self.attacker() as first:
            assert first.call("Hello").status == 0
        cost = Cost()
        before = self._memory("VmRSS")
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5): reset the peak
        with self._probing(cost):
            yield cost
        cost.peak_bytes = self._memory("VmHWM") - before
        print(f"\n{name}: {cost}")

    @contextlib.contextmanager
    def _probing(self, cost: Cost) -> Iterator[None]:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.probe", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        ) as probe:
            assert probe.stdout is not None and probe.stdin is not None
            first = probe.stdout.readline()
            try:
                yield
                time.sleep(AFTERMATH_S)
            finally:
                probe.stdin.close()
                seen = json.loads(probe.stdout.readline() if first == "calling\n" else first)
                cost.probe_calls, cost.probe_errors = seen["calls"], seen["errors"]
                cost.probe_p99_ms, cost.probe_slowest_ms = seen["p99_ms"], seen["slowest_ms"]

    def _memory(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None, "the server has ended"
        return int(found[1]) * 1024
