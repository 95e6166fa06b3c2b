"""When to restart: how long to wait, and how often is too often.  Pure arithmetic on times.

*Restart intensity* is OTP's: more than ``restarts_max`` restarts within ``period_s`` seconds is not bad
luck but a crash loop.  OTP then ends the supervisor; here it says how long to leave the child alone, so that
a cause that goes away (a database that was down) is found gone, at a price that stays bounded.

Source: Erlang/OTP, supervisor behaviour, "Maximum Restart Intensity".
"""

from collections import deque

from attrs import frozen


@frozen
class Backoff:
    """Pauses in seconds that grow from ``first_s`` by ``factor`` up to ``longest_s``."""

    first_s: float = 0.05
    factor: float = 2.0
    longest_s: float = 10.0

    def pause_s(self, failures: int) -> float:
        """The pause after the so-manieth failure in a row, counted from 1."""
        return float(min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 64)))


class RestartIntensity:
    """Counts restarts in a sliding window."""

    def __init__(self, restarts_max: int = 5, period_s: float = 60.0) -> None:
        self.restarts_max = restarts_max
        self.period_s = period_s
        self._restarts: deque[float] = deque(maxlen=max(1, restarts_max))

    def record(self, now: float) -> None:
        """A restart happens at ``now`` (seconds)."""
        self._restarts.append(now)

    def wait_s(self, now: float) -> float:
        """Seconds until one more restart stays within the intensity; 0.0 when it does already."""
        if len(self._restarts) < self.restarts_max:
            return 0.0
        return max(0.0, self._restarts[0] + self.period_s - now)
