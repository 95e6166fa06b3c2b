"""What a load saw."""

from collections.abc import Sequence

import attrs


@attrs.frozen
class Load:
    """Calls (or messages, or MB: whatever the cell counts) in ``seconds``; latencies in ms, or NaN."""

    calls: float
    seconds: float
    p50_ms: float = float("nan")
    p99_ms: float = float("nan")

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] if ordered else float("nan")
