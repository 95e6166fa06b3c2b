"""What a run is to serve: the command line over the file over the defaults."""

import pathlib
from typing import Any

import pytest

from trio_serve.instance.config_file import ConfigFileError
from trio_serve.instance.plan import CommandLine, ServePlan, plan_of
from trio_serve.instance.settings import Mistake, Mistakes

CONFIG = """\
grpc_options: {port: 9100, host: 127.0.0.2, grpc_servicer_functions: [m.add_A_to_server], protos: [a.proto]}
http_options: {port: 8100}
applications:
  - {name: one, route_prefix: /one, import_path: shop:app, runtime_env: {working_dir: src}}
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "config.yaml").write_text(CONFIG)
    return tmp_path


def plan(target: str, **given: Any) -> ServePlan:
    return plan_of(CommandLine(target, **given))


def mistakes_in(target: str, **given: Any) -> str:
    with pytest.raises(Mistakes) as caught:
        plan(target, **given)
    return str(caught.value)


def test_an_import_path_is_one_application_with_the_options_given(folder: pathlib.Path) -> None:
    made = plan(
        "shop:build",
        args={"size": "3"},
        name="shop",
        route_prefix="/shop",
        host="0.0.0.0",
        port=0,
        grpc_port=1234,
        protos=("p/shop.proto",),
        app_dir="src",
    )

    (app,) = made.applications
    assert (app.import_path, app.args, app.name, app.route_prefix) == (
        "shop:build",
        {"size": "3"},
        "shop",
        "/shop",
    )
    assert made.grpc_options and made.http_options
    assert (made.grpc_options.host, made.grpc_options.port) == ("0.0.0.0", 1234)
    assert made.grpc_options.protos == [str(folder / "p/shop.proto")]
    assert (made.http_options.host, made.http_options.port) == ("0.0.0.0", 0)
    assert made.import_folders == ["src"]


def test_no_grpc_proxy_without_a_service_and_none_at_all_where_they_are_disabled(
    folder: pathlib.Path,
) -> None:
    assert plan("shop:app").grpc_options is None
    assert plan("shop:app").http_options is not None
    assert plan("shop:app", grpc_servicer_functions=("m:f",)).grpc_options is not None

    (folder / "none.yaml").write_text("proxy_location: Disabled\n" + CONFIG)
    made = plan("none.yaml")
    assert (made.http_options, made.grpc_options) == (None, None)


def test_a_file_is_taken_as_it_is(folder: pathlib.Path) -> None:
    made = plan("etc/config.yaml")

    assert made.grpc_options and made.http_options
    assert (made.grpc_options.port, made.grpc_options.host, made.http_options.port) == (
        9100,
        "127.0.0.2",
        8100,
    )
    assert made.grpc_options.protos == [str(folder / "etc" / "a.proto")]
    assert made.import_folders == [".", str(folder / "etc"), str(folder / "etc" / "src")]


def test_the_command_line_stands_over_the_file(folder: pathlib.Path) -> None:
    made = plan(
        "etc/config.yaml",
        grpc_port=1,
        host="h",
        name="two",
        route_prefix="/2",
        grpc_servicer_functions=("m:f",),
    )

    assert made.grpc_options and made.http_options
    assert (made.grpc_options.port, made.grpc_options.host) == (1, "h")
    assert made.grpc_options.grpc_servicer_functions == ["m:f"]
    assert (made.http_options.port, made.http_options.host) == (8100, "h")
    (app,) = made.applications
    assert (app.name, app.route_prefix, app.import_path) == ("two", "/2", "shop:app")


def test_mistakes_of_the_command_line_are_told_by_option_all_at_once(folder: pathlib.Path) -> None:
    told = mistakes_in("shop", name="", route_prefix="shop", port=-1, grpc_port=65536)

    assert told.splitlines() == [
        "MODULE:APP: 'shop' names no attribute; write 'module:attribute'",
        "--name: is empty; an application needs a name",
        "--route-prefix: 'shop' does not begin with '/'; write '/shop'",
        "--port: -1 is not in 0 to 65535",
        "--grpc-port: 65536 is not in 0 to 65535",
    ]


def test_and_so_they_are_over_a_file(folder: pathlib.Path) -> None:
    told = mistakes_in("etc/config.yaml", route_prefix="/shop/", port=-1, grpc_port=65536)

    assert told.splitlines() == [
        "--route-prefix: '/shop/' ends with '/'; write '/shop'",
        "--port: -1 is not in 0 to 65535",
        "--grpc-port: 65536 is not in 0 to 65535",
    ]


def test_what_is_for_one_application_does_not_go_with_a_file_of_two(folder: pathlib.Path) -> None:
    (folder / "two.yaml").write_text(
        "applications: [{name: a, import_path: m:a}, {name: b, import_path: m:b, route_prefix: /b}]"
    )

    assert mistakes_in("two.yaml", name="c") == "--name: two.yaml has 2 applications, and this is for one"
    assert mistakes_in("two.yaml", args={"k": "v"}) == (
        "k=v: a file has its own 'args:'; key=value goes with an import path"
    )


def test_later_mistakes_are_told_where_the_plan_came_from(folder: pathlib.Path) -> None:
    mistake = Mistake(("applications", 0, "import_path"), "no module 'shop'")

    of_file = plan("etc/config.yaml").error([mistake])
    of_path = plan("shop:app").error([mistake])

    assert isinstance(of_file, ConfigFileError)
    assert of_file.lines == ["etc/config.yaml:4:50: applications[0].import_path: no module 'shop'"]
    assert str(of_path) == "no module 'shop'"
