"""Options: Ray's defaults, dict or object, and every mistake at once with its path."""

from typing import Any

import attrs
import pytest

from trio_serve.config import HTTPOptions, KeepaliveOptions, LoggingConfig, TLSOptions, gRPCOptions
from trio_serve.instance.options import options_from
from trio_serve.instance.settings import Mistakes


def mistakes_in(cls: type, value: Any) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        options_from(cls, value, "given")
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_defaults_are_rays_and_the_doors_are_on_loopback() -> None:
    grpc, http = gRPCOptions(), HTTPOptions()

    assert (grpc.port, grpc.grpc_servicer_functions, grpc.request_timeout_s) == (9000, [], None)
    assert (grpc.enable_reflection, grpc.host, grpc.message_bytes_max) == (True, "127.0.0.1", 4 * 1024 * 1024)
    assert grpc.expose_tracebacks
    assert (http.host, http.port, http.root_path) == ("127.0.0.1", 8000, "")
    assert (http.request_timeout_s, http.keep_alive_timeout_s) == (None, 90)
    assert LoggingConfig() == LoggingConfig("TEXT", "INFO", None, True, [])


def test_a_dict_and_an_object_are_the_same() -> None:
    as_dict = {"port": 0, "tls": {"cert": "a.pem", "key": "a.key"}, "keepalive": {"time_s": 60}}

    assert options_from(gRPCOptions, as_dict, "grpc_options") == gRPCOptions(
        port=0, tls=TLSOptions("a.pem", "a.key"), keepalive=KeepaliveOptions(time_s=60.0)
    )
    given = gRPCOptions(port=1)
    assert options_from(gRPCOptions, given, "grpc_options") is given


def test_a_number_larger_than_every_float_is_no_duration() -> None:
    (mistake,) = mistakes_in(gRPCOptions, {"request_timeout_s": 10**400})

    assert mistake.startswith("given.request_timeout_s: 1000")
    assert mistake.endswith("... is not a duration; give seconds above 0")


def test_every_mistake_is_told_at_once() -> None:
    value = {
        "prot": 1,
        "port": 65536,
        "tls": {"cert": 3, "ca": "x"},
        "protos": ["ok.proto", 5],
        "request_timeout_s": 0,
        "enable_reflection": "yes",
        "message_bytes_max": True,
    }

    assert mistakes_in(gRPCOptions, value) == [
        "given.prot: unknown key; did you mean 'protos'? known are " + ", ".join(names(gRPCOptions)),
        "given.port: 65536 is not in 0 to 65535",
        "given.request_timeout_s: 0 is not a duration; give seconds above 0",
        "given.enable_reflection: 'yes' is neither true nor false",
        "given.tls.ca: unknown key; known are cert, key, client_ca",
        "given.tls: 'key' is missing",
        "given.tls.cert: 3 is not a text; put it in quotes",
        "given.protos[1]: 5 is not a text; put it in quotes",
        "given.message_bytes_max: True is not a whole number",
    ]


def test_an_object_is_checked_when_it_is_made() -> None:
    with pytest.raises(Mistakes, match=r"^host: is empty\nport: '80' is not a whole number$"):
        HTTPOptions(host="", port="80")  # type: ignore[arg-type]


def test_options_are_frozen_and_their_default_lists_are_their_own() -> None:
    options = gRPCOptions()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.port = 1  # type: ignore[misc]
    assert options.grpc_servicer_functions is not gRPCOptions().grpc_servicer_functions


@pytest.mark.parametrize("level, name", [(10, "DEBUG"), ("warning", "WARNING"), ("ERROR", "ERROR")])
def test_a_log_level_is_a_name_or_a_number(level: Any, name: str) -> None:
    assert LoggingConfig(log_level=level).log_level == name


@pytest.mark.parametrize(
    "cls, value, mistake",
    [
        (LoggingConfig, {"log_level": 11}, "given.log_level: 'Level 11' is not one of DEBUG, INFO, "),
        (LoggingConfig, {"encoding": "xml"}, "given.encoding: 'xml' is not one of TEXT, JSON"),
        (HTTPOptions, {"ssl_keyfile": "k"}, "given: ssl_keyfile and ssl_certfile go together; "),
        (HTTPOptions, {"root_path": "api"}, "given.root_path: 'api' does not begin with '/'"),
        (HTTPOptions, {"keep_alive_timeout_s": float("nan")}, "given.keep_alive_timeout_s: nan is not a "),
        (HTTPOptions, [], "given: [] is not a mapping; its keys would be host, port, "),
        (
            gRPCOptions,
            {"grpc_servicer_functions": "m.f"},
            "given.grpc_servicer_functions: 'm.f' is not a list",
        ),
        (gRPCOptions, {"grpc_servicer_functions": [""]}, "given.grpc_servicer_functions[0]: is empty"),
    ],
)
def test_bad_values_are_refused_with_their_path(cls: type, value: Any, mistake: str) -> None:
    (told,) = mistakes_in(cls, value)

    assert told.startswith(mistake)


def names(cls: type) -> list[str]:
    return [field.name for field in attrs.fields(cls)]
