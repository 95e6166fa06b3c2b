"""``traffic:`` in the configuration file: what loads, and what is refused with its place."""

import pathlib

import pytest

import trio_serve as serve
from trio_serve.instance.config_file import ConfigFileError, read_config_file
from trio_serve.serving.traffic import TrafficPolicy

TWO = """\
applications:
  - name: app
    import_path: a:b
    traffic:
{traffic}
  - name: app-canary
    import_path: a:c
    route_prefix: null
"""


def read(folder: pathlib.Path, *traffic: str) -> TrafficPolicy | None:
    path = folder / "config.yaml"
    path.write_text(TWO.format(traffic="\n".join(f"      {line}" for line in traffic)))
    app = read_config_file(str(path)).config.applications[0]
    return None if app.traffic is None else app.traffic.policy(app.name)


def test_a_split_with_a_sticky_key_and_a_shadow(tmp_path: pathlib.Path) -> None:
    policy = read(
        tmp_path,
        "weights: {app: 0.9, app-canary: 0.1}",
        "sticky: X-User",
        "shadow: {app-canary: 0.25}",
        "shadow_calls_max: 5",
    )
    assert policy == TrafficPolicy({"app": 0.9, "app-canary": 0.1}, "x-user", {"app-canary": 0.25}, 5)


def test_without_weights_the_application_answers_everything(tmp_path: pathlib.Path) -> None:
    policy = read(tmp_path, "shadow: {app-canary: 1}")
    assert policy == TrafficPolicy({"app": 1.0}, shadows={"app-canary": 1})


def test_every_mistake_is_told_with_its_place(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigFileError) as raised:
        read(
            tmp_path,
            "weights: {app: 0.5, app-canary: 0.4}",
            "shadow: {app-canary: 2}",
            "sticky: ''",
            "stiky: x",
        )
    lines = [line.partition("config.yaml:")[2] for line in raised.value.lines]
    assert lines == [
        "5:16: applications[0].traffic.weights: "
        "weights must sum to 1, and 'app': 0.5 + 'app-canary': 0.4 is 0.9",
        "6:28: applications[0].traffic.shadow.app-canary: 2 is not a number from 0 to 1",
        "7:15: applications[0].traffic.sticky: is empty",
        "8:7: applications[0].traffic.stiky: unknown key; did you mean 'sticky'? known are weights, sticky, "
        "shadow, shadow_calls_max",
    ]


def test_targets_that_the_file_does_not_have_are_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigFileError) as raised:
        read(tmp_path, "weights: {app: 0.9, app-canari: 0.1}", "shadow: {other: 1}")
    first, second = raised.value.lines
    assert first.endswith(
        "there is no application 'app-canari'; did you mean 'app-canary'? there are app, app-canary"
    )
    assert "applications[0].traffic.shadow.other: there is no application 'other'" in second


@serve.deployment
async def answer() -> str:
    return "yes"


async def test_traffic_goes_into_force_when_all_are_running() -> None:
    async with serve.open_instance() as instance:
        policy = TrafficPolicy({"app": 0.5, "canary": 0.5}, "x-user")
        await instance.run_many(
            [
                serve.RunTarget(answer.bind(), "app", traffic=policy),
                serve.RunTarget(answer.bind(), "canary", route_prefix=None),
            ]
        )
        assert instance.controller.policy_of("app") == policy


async def test_what_cannot_be_followed_changes_nothing() -> None:
    async with serve.open_instance() as instance:
        await instance.run(answer.bind(), name="app")
        with pytest.raises(KeyError, match="no application 'nope' is deployed; there are: app"):
            await instance.set_traffic("app", {"app": 0.5, "nope": 0.5})
        with pytest.raises(KeyError, match="no application 'nope' is deployed"):
            await instance.set_traffic("nope", {"app": 1.0})
        with pytest.raises(ValueError, match="weights must sum to 1"):
            await instance.set_traffic("app", {"app": 0.5})
        with pytest.raises(ValueError, match="the proportion 2 of 'app'"):
            await instance.shadow_traffic("app", "app", 2)
        assert instance.controller.applications["app"].traffic is None
