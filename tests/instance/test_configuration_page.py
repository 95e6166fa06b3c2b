"""docs/configuration.md has every key with its default, every key for clusters, and every option."""

import re
from typing import Any

import attrs
import click
import pytest
import yaml

from trio_serve.cli import main
from trio_serve.instance import config_file, options, traffic_settings
from trio_serve.serving.options import OPTION_NAMES

from ..document import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text()
SECTIONS: dict[str, type] = {
    "The top": config_file.ServeConfig,
    "applications": config_file.ApplicationConfig,
    "runtime_env": config_file.RuntimeEnv,
    "traffic": traffic_settings.TrafficSettings,
    "http_options": options.HTTPOptions,
    "grpc_options": options.gRPCOptions,
    "tls": options.TLSOptions,
    "keepalive": options.KeepaliveOptions,
    "faults": options.FaultOptions,
    "logging_config": options.LoggingConfig,
    "metrics_options": options.MetricsOptions,
}


def section(heading: str) -> str:
    return re.split(r"^#+ ", PAGE.partition(f"\n### {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def documented(heading: str) -> dict[str, Any]:
    """The default of each key that the section's table has."""
    found = {}
    for keys, default in re.findall(r"^\| (`[^|]+) \| ([^|]*) \|", section(heading), re.MULTILINE):
        for key in re.findall(r"`(\w+)`", keys):
            found[key] = yaml.safe_load(default.strip("`"))
    return found


def defaults(cls: type) -> dict[str, Any]:
    """The default of each setting, as a file would write it."""
    found = {}
    for field in attrs.fields(cls):
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()  # type: ignore[union-attr]
        elif default is attrs.NOTHING:
            default = "required"
        elif attrs.has(type(default)):
            default = {}
        found[field.name] = default
    return found


@pytest.mark.parametrize("heading, cls", SECTIONS.items(), ids=SECTIONS)
def test_every_key_stands_there_with_its_default(heading: str, cls: type) -> None:
    assert documented(heading) == defaults(cls)


def test_every_key_that_only_a_cluster_honours_stands_there() -> None:
    named = set(re.findall(r"`(\w+)`", section("What only a cluster can do")))

    assert {key for keys in config_file._CLUSTER_ONLY.values() for key in keys} <= named


@pytest.mark.parametrize("name, command", main.commands.items(), ids=main.commands)
def test_every_option_of_every_command_stands_there(name: str, command: click.Command) -> None:
    shown = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]

    assert {option for param in shown for option in param.opts if f"`{option}" not in PAGE} == set()
    assert name in PAGE


def test_every_option_of_a_deployment_stands_in_the_page_about_serving() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    ours_alone = {"is_backend"}  # set by the API of backends, and by nobody else
    for_clusters = {name for name in OPTION_NAMES if name.startswith("placement_group_")}

    assert {name for name in OPTION_NAMES if f"`{name}`" not in page} == ours_alone | for_clusters
