"""Describing a deployment: decorator, options, bind; and everything that is refused at once."""

from typing import Any

import pytest

from trio_serve.serving.application import Application
from trio_serve.serving.autoscaling import AutoscalingConfig
from trio_serve.serving.deployment import Deployment, deployment
from trio_serve.serving.options import OptionsError


class Plain:
    def __init__(self, model: str, size: int = 1) -> None:
        self.model = model


class Configured(Plain):
    def reconfigure(self, config: Any) -> None: ...


def test_defaults_are_rays_but_for_the_bound_of_the_queue() -> None:
    options = deployment(Plain).deployment_options
    assert options.name == "Plain"
    assert options.num_replicas == 1
    assert options.max_ongoing_requests == 5
    assert options.max_queued_requests == 10_000
    assert options.graceful_shutdown_wait_loop_s == 2
    assert options.graceful_shutdown_timeout_s == 20
    assert options.health_check_period_s == 10
    assert options.health_check_timeout_s == 30
    assert options.max_constructor_retry_count == 20
    assert options.autoscaling_config is None
    assert options.user_config is None


def test_with_and_without_arguments_on_classes_and_functions() -> None:
    @deployment
    class A: ...

    @deployment(name="other", num_replicas=2)
    class B: ...

    @deployment
    def f() -> None: ...

    @deployment()
    async def g() -> None: ...

    assert [each.name for each in (A, B, f, g)] == ["A", "other", "f", "g"]
    assert all(isinstance(each, Deployment) for each in (A, B, f, g))
    assert B.num_replicas == 2


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        deployment(  # type: ignore[call-overload]
            num_replicas=0,
            max_ongoing_requests=-1,
            max_queued_requests=0,
            graceful_shutdown_timeout_s=-1,
            health_check_period_s=0,
            num_replica=3,
            sync_methods="fast",
        )
    assert len(caught.value.problems) == 7
    assert str(caught.value).startswith("@deployment: ")
    assert "num_replicas=0 must be a whole number of 1 or more" in str(caught.value)
    assert "there is no option 'num_replica'; did you mean 'num_replicas'?" in str(caught.value)
    assert "max_queued_requests=0 must be a whole number of 1 or more, or -1 for no limit" in str(
        caught.value
    )
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [True, "2", float("nan"), float("inf"), 10**400])
def test_seconds_are_a_finite_number(value: Any) -> None:
    with pytest.raises(ValueError, match="graceful_shutdown_timeout_s"):
        deployment(graceful_shutdown_timeout_s=value)(Plain)


@pytest.mark.parametrize("value", [True, 1.5, "2", -1])
def test_num_replicas_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="num_replicas"):
        deployment(num_replicas=value)(Plain)


def test_auto_means_rays_range() -> None:
    config = deployment(num_replicas="auto")(Plain).deployment_options.autoscaling_config
    assert config is not None
    assert (config.min_replicas, config.max_replicas) == (1, 100)


def test_a_number_of_replicas_and_a_range_contradict_each_other() -> None:
    with pytest.raises(OptionsError, match="contradict each other"):
        deployment(num_replicas=2, autoscaling_config={"max_replicas": 3})(Plain)
    scaled = deployment(autoscaling_config=AutoscalingConfig(max_replicas=3))(Plain)
    assert scaled.options(num_replicas=2).deployment_options.autoscaling_config is None


def test_the_ranges_own_problems_are_among_the_others() -> None:
    with pytest.raises(OptionsError, match=r"autoscaling_config: max_replicas=1 is below min_replicas=3"):
        deployment(autoscaling_config={"min_replicas": 3})(Plain)


def test_options_changes_what_is_given_and_leaves_the_original_alone() -> None:
    first = deployment(max_ongoing_requests=7)(Plain)
    second = first.options(name="second", num_replicas=3)
    assert (second.name, second.num_replicas, second.max_ongoing_requests) == ("second", 3, 7)
    assert (first.name, first.num_replicas) == ("Plain", 1)
    with pytest.raises(OptionsError, match=r"Plain.options\(\): .*'nam'.*'name'"):
        first.options(nam="x")


def test_user_config_needs_somebody_to_take_it() -> None:
    assert deployment(user_config={"a": 1})(Configured).user_config == {"a": 1}
    with pytest.raises(OptionsError, match=r"Plain has no 'reconfigure\(self, config\)'"):
        deployment(user_config={"a": 1})(Plain)
    with pytest.raises(OptionsError, match="reconfigure"):
        deployment(Plain).options(user_config=3)


def test_bind_takes_what_the_constructor_takes_and_says_so_at_once() -> None:
    bound = deployment(Plain)
    assert isinstance(bound.bind("m", size=3), Application)
    with pytest.raises(TypeError, match=r"Plain.bind\(\): missing a required argument: 'model'"):
        bound.bind()
    with pytest.raises(TypeError, match=r"Plain.bind\(\): got an unexpected keyword argument 'siz'"):
        bound.bind("m", siz=3)


def test_a_function_has_no_constructor() -> None:
    @deployment
    def f() -> None: ...

    f.bind()
    with pytest.raises(TypeError, match=r"f is a function and has no constructor"):
        f.bind(1)


def test_a_deployment_in_place_of_an_application_is_refused() -> None:
    inner = deployment(Plain)

    @deployment
    class Outer:
        def __init__(self, inner: Any) -> None: ...

    with pytest.raises(
        TypeError, match=r"'Plain', which has no arguments yet; bind it too: Plain.bind\(...\)"
    ):
        Outer.bind(inner)
    with pytest.raises(TypeError, match=r"argument 'inner' of Outer.bind"):
        Outer.bind(inner=inner)


def test_a_deployment_is_not_called() -> None:
    with pytest.raises(TypeError, match=r"write Plain.bind\(...\) .* Plain.func_or_class\(...\)"):
        deployment(Plain)("m")


def test_what_is_neither_class_nor_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"of type int; it decorates a class or a function"):
        deployment(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="of type Plain"):
        deployment(Plain("m"))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"Plain is a deployment already; change it with Plain.options"):
        deployment(deployment(Plain))


def test_names_that_tags_and_logs_cannot_carry_are_refused() -> None:
    for name in ("", "a#b", "a\nb", 3):
        with pytest.raises(OptionsError, match="name="):
            deployment(name=name)(Plain)  # type: ignore[call-overload]


def test_an_application_says_what_to_do_with_it() -> None:
    with pytest.raises(AttributeError, match="is not running and cannot be called"):
        deployment(Plain).bind("m").remote  # noqa: B018
