"""Traffic policy as arithmetic: shares, stickiness, and what a policy refuses."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from trio_serve.serving.traffic import TrafficError, TrafficPolicy

KEYS = [f"user-{number}" for number in range(4000)]


def test_each_target_gets_its_share() -> None:
    policy = TrafficPolicy({"app": 0.9, "canary": 0.1})
    random = Random(7)

    chosen = Counter(policy.choose(None, random) for _ in range(20_000))

    assert chosen["canary"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert set(chosen) == {"app", "canary"}


def test_a_target_of_weight_0_is_never_chosen() -> None:
    policy = TrafficPolicy({"app": 1, "canary": 0})
    assert {policy.choose(key, Random(1)) for key in [None, *KEYS[:50]]} == {"app"}


def test_one_key_has_one_target_whatever_is_drawn_and_in_whatever_order_targets_stand() -> None:
    one = TrafficPolicy({"a": 0.5, "b": 0.3, "c": 0.2}, sticky="x-user")
    other = TrafficPolicy({"c": 0.2, "a": 0.5, "b": 0.3}, sticky="X-User")

    for key in KEYS[:200]:
        assert one.choose(key, Random(1)) == one.choose(key, Random(2)) == other.choose(key, Random(3))
    assert other.sticky == "x-user"


def test_keys_spread_by_the_weights() -> None:
    policy = TrafficPolicy({"a": 0.6, "b": 0.3, "c": 0.1}, sticky="k")
    chosen = Counter(policy.choose(key, Random(0)) for key in KEYS)
    assert [chosen[name] / len(KEYS) for name in "abc"] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_a_choice_is_the_same_in_every_process_and_version() -> None:
    policy = TrafficPolicy({"app": 0.5, "canary": 0.5}, sticky="k")
    assert [policy.choose(key, Random(0)) for key in ("ann", "bob", "cleo", "dan")] == [
        *("app", "canary", "app", "app"),
    ]


def test_growing_a_canary_takes_nobody_from_it() -> None:
    """Only users of the old version move, and only as many as the change asks for."""
    before = TrafficPolicy({"app": 0.9, "canary": 0.1}, sticky="k")
    after = TrafficPolicy({"app": 0.7, "canary": 0.3}, sticky="k")

    moved = Counter(
        (before.choose(key, Random(0)), after.choose(key, Random(0)))
        for key in KEYS
        if before.choose(key, Random(0)) != after.choose(key, Random(0))
    )

    assert set(moved) == {("app", "canary")}
    assert moved["app", "canary"] / len(KEYS) == pytest.approx(0.2, abs=0.03)


def test_the_share_of_one_that_is_gone_falls_to_the_others() -> None:
    policy = TrafficPolicy({"a": 0.5, "b": 0.25, "c": 0.25})
    random = Random(5)

    chosen = Counter(policy.choose(None, random, {"a"}) for _ in range(4000))

    assert chosen["b"] / 4000 == pytest.approx(0.5, abs=0.05)
    assert chosen["a"] == 0
    assert policy.choose(None, random, {"a", "b", "c"}) is None


def test_a_sticky_key_moves_only_when_its_own_target_is_gone() -> None:
    policy = TrafficPolicy({"a": 0.5, "b": 0.25, "c": 0.25}, sticky="k")
    for key in KEYS[:300]:
        chosen = policy.choose(key, Random(0))
        if chosen != "a":
            assert policy.choose(key, Random(0), {"a"}) == chosen


def test_shadows_are_drawn_one_by_one_and_end_at_0() -> None:
    policy = TrafficPolicy({"app": 1.0}).with_shadow("next", 0.25).with_shadow("all", 1.0)
    random = Random(3)

    drawn = Counter(name for _ in range(4000) for name in policy.shadows_of_one(random))

    assert drawn["all"] == 4000
    assert drawn["next"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert policy.with_shadow("next", 0).shadows == {"all": 1.0}
    assert policy.targets == ("app", "next", "all")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": {}}, "must give the share of at least one target"),
        ({"weights": ["app"]}, r"weights=\['app'\] must give the share"),
        ({"weights": {"a": 0.5, "b": 0.4}}, r"weights must sum to 1, and 'a': 0.5 \+ 'b': 0.4 is 0.9"),
        ({"weights": {"a": 1.5, "b": -0.5}}, "the weight -0.5 of 'b' is not a number from 0 to 1"),
        ({"weights": {"a": 10**400}}, f"the weight {10**400} of 'a' is not a number from 0 to 1"),
        ({"weights": {"a": "1"}}, "the weight '1' of 'a'"),
        ({"weights": {"a": True}}, "the weight True of 'a'"),
        ({"weights": {"a": float("nan")}}, "the weight nan of 'a'"),
        ({"weights": {"": 1}}, "not by ''"),
        ({"weights": {"a": 1}, "sticky": ""}, "sticky='' must name"),
        ({"weights": {"a": 1}, "shadows": {"b": 1.1}}, "the proportion 1.1 of 'b'"),
        ({"weights": {"a": 1}, "shadow_calls_max": 0}, "shadow_calls_max=0 must be"),
    ],
)
def test_a_policy_that_cannot_be_followed_says_why(options: dict[str, Any], text: str) -> None:
    with pytest.raises(TrafficError, match=text):
        TrafficPolicy(**options)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(TrafficError) as raised:
        TrafficPolicy({"a": 0.5}, sticky=3, shadows={"b": 2}, shadow_calls_max=-1)  # type: ignore[arg-type]
    assert len(raised.value.problems) == 4
