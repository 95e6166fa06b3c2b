"""The pure parts of autoscaling: options, the look-back window, the formula and the delays."""

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_serve.serving.autoscaling import (
    AutoscalingConfig,
    AutoscalingConfigError,
    Decision,
    LoadWindow,
    Streak,
    decide,
    wanted_replicas,
)

# --- options -------------------------------------------------------------------------------------


def test_the_defaults_are_rays() -> None:
    config = AutoscalingConfig()

    assert attrs.asdict(config) == {
        "min_replicas": 1,
        "initial_replicas": None,
        "max_replicas": 1,
        "target_ongoing_requests": 2,
        "metrics_interval_s": 10.0,
        "look_back_period_s": 30.0,
        "upscaling_factor": None,
        "downscaling_factor": None,
        "upscale_delay_s": 30.0,
        "downscale_delay_s": 600.0,
        "downscale_to_zero_delay_s": None,
        "aggregation_function": "mean",
        "smoothing_factor": None,
        "upscale_smoothing_factor": None,
        "downscale_smoothing_factor": None,
    }
    assert (config.up_factor, config.down_factor) == (1, 1)


def test_auto_means_one_to_a_hundred_unless_told_otherwise() -> None:
    assert AutoscalingConfig.auto() == AutoscalingConfig(min_replicas=1, max_replicas=100)
    assert AutoscalingConfig.auto({"max_replicas": 7}).max_replicas == 7
    assert AutoscalingConfig.auto({"min_replicas": 3}).max_replicas == 100


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(AutoscalingConfigError) as caught:
        AutoscalingConfig.from_mapping(
            {
                "min_replicas": -1,
                "max_replicas": 0,
                "initial_replicas": 1.5,
                "target_ongoing_requests": 0,
                "look_back_period_s": "30",
                "upscale_delay_s": -2,
                "upscaling_factor": True,
                "downscale_delay_s": None,
                "aggregation_function": "median",
                "max_replica": 3,
            }
        )

    problems = caught.value.problems
    assert len(problems) == 10
    for name, problem in zip(
        ["min_replicas=-1", "initial_replicas=1.5", "max_replicas=0", "target_ongoing_requests=0"],
        problems,
        strict=False,
    ):
        assert problem.startswith(name)
    text = str(caught.value)
    for part in (
        "look_back_period_s='30'",
        "upscale_delay_s=-2 must be a number of 0 or more",
        "upscaling_factor=True must be a number over 0",
        "downscale_delay_s=None",
        "aggregation_function='median' must be one of mean, max, min",
        "no option 'max_replica'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is below min_replicas=3"),
        (
            {"initial_replicas": 5, "max_replicas": 4},
            "initial_replicas=5 is not between min_replicas=1 and max_replicas=4",
        ),
        ({"initial_replicas": 0}, "initial_replicas=0 is not between min_replicas=1 and max_replicas=1"),
        ({"look_back_period_s": math.nan}, "look_back_period_s=nan must be a number over 0"),
        ({"look_back_period_s": 10**400}, f"look_back_period_s={10**400} must be a number over 0"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="autoscaling_config: ") as caught:
        AutoscalingConfig(**options)

    assert isinstance(caught.value, AutoscalingConfigError)
    assert caught.value.problems == (problem,)


def test_older_names_of_the_factors_are_understood_and_newer_ones_win() -> None:
    both = AutoscalingConfig(smoothing_factor=0.5)
    older = AutoscalingConfig(smoothing_factor=0.5, upscale_smoothing_factor=2, downscale_smoothing_factor=3)
    newer = AutoscalingConfig(
        upscale_smoothing_factor=2, upscaling_factor=4, downscale_smoothing_factor=3, downscaling_factor=5
    )

    assert (both.up_factor, both.down_factor) == (0.5, 0.5)
    assert (older.up_factor, older.down_factor) == (2, 3)
    assert (newer.up_factor, newer.down_factor) == (4, 5)


def test_what_a_deployment_begins_with() -> None:
    plain = AutoscalingConfig(min_replicas=2, max_replicas=8)

    assert plain.first_target() == 2
    assert attrs.evolve(plain, initial_replicas=5).first_target() == 5
    assert plain.first_target(running=6) == 6
    assert plain.first_target(running=60) == 8
    assert AutoscalingConfig(min_replicas=0).first_target() == 0


def test_the_options_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        AutoscalingConfig().max_replicas = 3  # type: ignore[misc]


# --- window --------------------------------------------------------------------------------------


def test_a_sample_weighs_as_long_as_it_held() -> None:
    window = LoadWindow(30)
    window.record(0, 0)
    window.record(10, 6)

    assert window.aggregate(10) == 0
    assert window.aggregate(20) == 3
    assert (window.aggregate(20, "max"), window.aggregate(20, "min")) == (6, 0)
    assert window.aggregate(30) == 4
    assert window.aggregate(40) == 6, "what is 30 s old has left the window"


def test_a_window_without_records_is_empty() -> None:
    assert LoadWindow(30).aggregate(5) == 0


samples = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), min_size=1, max_size=30)


@given(samples, st.integers(1, 40), st.integers(0, 20))
def test_the_mean_is_the_integral_over_the_window(
    steps: list[tuple[int, int]], period: int, after: int
) -> None:
    """Whole seconds, so that the integral can be told second by second."""
    window, now, history = LoadWindow(period), 0, []
    for gap, load in steps:
        now += gap
        window.record(now, load)
        history.append((now, load))
    end = now + after
    start = max(history[0][0], end - period)

    def held(second: int) -> int:
        return [load for time, load in history if time <= second][-1]

    expected = history[-1][1] if end == start else sum(map(held, range(start, end))) / (end - start)
    assert window.aggregate(end) == pytest.approx(expected)


@given(samples)
def test_memory_is_bounded_by_the_period(steps: list[tuple[int, int]]) -> None:
    window, now = LoadWindow(10), 0
    for gap, load in steps:
        now += max(gap, 1)
        window.record(now, load)

    assert len(window._samples) <= 11


# --- formula -------------------------------------------------------------------------------------

wide = AutoscalingConfig(min_replicas=0, max_replicas=1000, target_ongoing_requests=2)


@pytest.mark.parametrize(
    ("requests", "running", "factors", "expected"),
    [
        (10, 5, (1, 1), 5),
        (11, 5, (1, 1), 6),
        (100, 1, (1, 1), 50),
        (100, 10, (0.5, 1), 30),
        (12, 5, (0.1, 1), 6),
        (20, 5, (2, 1), 15),
        (0, 5, (1, 1), 0),
        (0, 10, (1, 0.5), 5),
        (0, 5, (1, 10), 0),
        (8, 5, (1, 0.1), 4),
        (9.5, 5, (1, 0.1), 5),
        (20.0000000001, 10, (1, 1), 10),
    ],
)
def test_the_formula(requests: float, running: int, factors: tuple[float, float], expected: int) -> None:
    up, down = factors
    config = attrs.evolve(wide, upscaling_factor=up, downscaling_factor=down)

    assert wanted_replicas(config, requests, running) == expected


def test_a_small_factor_still_reaches_zero() -> None:
    config, running, steps = attrs.evolve(wide, downscaling_factor=0.2), 5, 0
    while running:
        running, steps = wanted_replicas(config, 0, running), steps + 1

    assert steps == 5


@given(st.floats(0, 1e6), st.integers(0, 50), st.integers(0, 40), st.integers(1, 40), st.floats(0.01, 10))
def test_the_bounds_always_hold(requests: float, running: int, least: int, more: int, factor: float) -> None:
    config = AutoscalingConfig(min_replicas=least, max_replicas=least + more, smoothing_factor=factor)

    assert least <= wanted_replicas(config, requests, running) <= least + more


# --- delays --------------------------------------------------------------------------------------

patient = AutoscalingConfig(
    min_replicas=0, max_replicas=10, target_ongoing_requests=1, upscale_delay_s=30, downscale_delay_s=600
)


def at(now: float, requests: int, target: int, streak: Streak | None = None, **more: Any) -> Decision:
    options: dict[str, Any] = {"config": patient, "load": requests, "running": target, **more}
    config = options.pop("config")
    return decide(config, now=now, requests=requests, target=target, streak=streak, **options)


def test_more_replicas_come_when_wanted_for_the_whole_delay() -> None:
    first = at(100, 4, 1)
    early = at(129.9, 4, 1, first.streak)
    late = at(130, 5, 1, early.streak)

    assert first == early == Decision(1, Streak(up=True, since=100), due=130)
    assert late == Decision(5), "the newest wish counts, and the next delay starts anew"


def test_fewer_replicas_wait_for_their_own_delay() -> None:
    first = at(0, 2, 8)

    assert first.due == 600
    assert at(599, 2, 8, first.streak).target == 8
    assert at(600, 2, 8, first.streak) == Decision(2)


def test_one_decision_the_other_way_starts_the_delay_anew() -> None:
    up = at(0, 4, 1)
    down = at(29, 0, 1, up.streak)
    again = at(30, 4, 1, down.streak)

    assert down.streak == Streak(up=False, since=29)
    assert again == Decision(1, Streak(up=True, since=30), due=60)


def test_one_contented_decision_starts_the_delay_anew() -> None:
    up = at(0, 4, 2)
    content = at(29, 2, 2, up.streak)

    assert content == Decision(2)
    assert at(30, 4, 2, content.streak).due == 60


def test_many_go_to_one_before_the_last_may_go() -> None:
    down = at(0, 0, 5)
    one = at(600, 0, 5, down.streak)
    last = at(600, 0, 1, one.streak)

    assert one == Decision(1)
    assert last.due == 1200
    assert at(1200, 0, 1, last.streak) == Decision(0)


def test_the_last_replica_has_a_delay_of_its_own() -> None:
    config = attrs.evolve(patient, downscale_to_zero_delay_s=60)

    assert at(0, 0, 5, config=config).due == 600
    assert at(0, 0, 1, config=config).due == 60


def test_the_last_replica_stays_while_it_holds_a_request() -> None:
    """The request came this moment: the average does not know it yet."""
    down = at(0, 0, 1)

    assert at(600, 0, 1, down.streak, load=1) == Decision(1)


def test_a_request_that_finds_no_replica_is_not_made_to_wait() -> None:
    eager = attrs.evolve(patient, upscaling_factor=3)

    assert at(0, 1, 0) == Decision(1)
    assert at(0, 1, 0, config=eager) == Decision(3)
    assert at(0, 0, 0) == Decision(0)
    assert at(0, 0, 0, config=attrs.evolve(eager, upscaling_factor=50), load=1) == Decision(10)


def test_replicas_on_their_way_are_not_asked_for_twice() -> None:
    assert at(0, 9, 4, running=0) == Decision(4)
    assert at(0, 4, 4, running=1) == Decision(4)


def test_a_burst_that_is_over_before_its_replicas_started_does_not_stop_them_early() -> None:
    assert at(0, 2, 8, running=2).target == 8


def test_new_bounds_are_obeyed_at_once() -> None:
    narrow = attrs.evolve(patient, min_replicas=2, max_replicas=3)

    assert at(0, 9, 5, config=narrow) == Decision(3)
    assert at(0, 0, 1, config=narrow) == Decision(2)


def test_with_no_delay_the_load_is_followed_at_once() -> None:
    config = attrs.evolve(patient, upscale_delay_s=0, downscale_delay_s=0)

    assert at(0, 7, 1, config=config) == Decision(7)
    assert at(0, 1, 7, config=config) == Decision(1)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=12),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_the_delays_are_those_of_counted_decisions(
    phases: list[tuple[int, int]], up_delay: int, down_delay: int, zero_delay: int
) -> None:
    """Against another way to say it: one decision a second, acted upon when more than ``delay`` agree."""
    config = attrs.evolve(
        patient,
        upscale_delay_s=up_delay,
        downscale_delay_s=down_delay,
        downscale_to_zero_delay_s=zero_delay,
    )
    target, streak = 3, None
    counted_target, count = 3, 0
    loads = [load for load, seconds in phases for _ in range(seconds)]
    for now, load in enumerate(loads):
        decision = decide(
            config, now=now, requests=load, load=load, running=target, target=target, streak=streak
        )
        target, streak = decision.target, decision.streak

        wish = min(load, 10)
        if counted_target == 0:
            counted_target, count = (1 if load else 0), 0
        elif wish == counted_target:
            count = 0
        elif wish > counted_target:
            count = max(count, 0) + 1
            if count > up_delay:
                counted_target, count = wish, 0
        else:
            count = min(count, 0) - 1
            if -count > (zero_delay if counted_target == 1 else down_delay):
                counted_target, count = wish if counted_target == 1 else max(wish, 1), 0

        assert target == counted_target
