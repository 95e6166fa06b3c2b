"""Five milliseconds of CPU, and a note of those that were spent for nothing."""

import time

WORK_S = 0.005


class HardWork:
    """Counts the work that was begun when its deadline had passed."""

    def __init__(self) -> None:
        self._expired = 0

    def do(self, deadline: str) -> str:
        """Work for a call with this deadline; or, for none, tell the count."""
        if not deadline:
            return str(self._expired)
        self._expired += time.monotonic() > float(deadline)
        until = time.perf_counter() + WORK_S
        while time.perf_counter() < until:
            pass
        return "done"
