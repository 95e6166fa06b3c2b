"""Backoff and restart intensity are arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from trio_serve.actors import Backoff, RestartIntensity


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.1, factor=2, longest_s=1)
    assert [backoff.pause_s(n) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
    assert backoff.pause_s(10**9) == 1


@given(
    st.lists(st.floats(0, 10), max_size=60),
    st.integers(1, 6),
    st.floats(0.1, 20),
)
def test_never_more_than_restarts_max_in_any_period(gaps: list[float], most: int, period_s: float) -> None:
    """A supervisor that obeys ``wait_s`` never restarts more often than the intensity says."""
    intensity = RestartIntensity(most, period_s)
    now = 0.0
    restarts: list[float] = []
    for gap in gaps:
        now += gap
        now += intensity.wait_s(now)
        intensity.record(now)
        restarts.append(now)
    for number, first in enumerate(restarts[: max(0, len(restarts) - most)]):
        assert restarts[number + most] - first >= period_s * (1 - 1e-9)
