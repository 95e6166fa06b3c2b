"""Configurations and command lines that are nearly right: each a mutation, drawn from a seed, of a good one.

    a good file ──> its data: deleted, renamed, retyped, doubled, swapped, nested deep ──> YAML
                                                       its text: cut, flipped, repeated ──> bytes

Knows nothing of what reads them.
"""

import copy
import functools
import pathlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import yaml

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"

EVERY_KEY = """\
proxy_location: EveryNode
http_options: {host: 127.0.0.1, port: 8000, root_path: /api, request_timeout_s: 5, keep_alive_timeout_s: 90,
  drain_timeout_s: 1, cors_origins: ["https://shop.example"]}
grpc_options: {port: 9000, host: 127.0.0.1, request_timeout_s: 2.5, enable_reflection: true,
  message_bytes_max: 4194304, max_connection_age_s: 60, expose_tracebacks: false, drain_timeout_s: 1,
  keepalive: {time_s: 60, timeout_s: 20, interval_min_s: 10}, faults: {seed: 1, reset_share: 0.1}}
metrics_options: {port: 8080, ray_prefix: true}
logging_config: {encoding: JSON, log_level: INFO, enable_access_log: true,
  additional_log_standard_attrs: [name]}
applications:
  - name: one
    route_prefix: /one
    import_path: shop:build
    args: {word: Moin, size: 3}
    runtime_env: {env_vars: {THREADS: "4"}, working_dir: "."}
    logging_config: {log_level: DEBUG}
    traffic: {weights: {one: 0.9, two: 0.1}, sticky: x-user, shadow: {two: 0.5}}
    deployments:
      - {name: Greeter, num_replicas: 2, max_queued_requests: 100, user_config: {a: 1}}
  - name: two
    route_prefix: /two
    import_path: shop:app
    deployments:
      - name: Greeter
        autoscaling_config: {min_replicas: 1, max_replicas: 4, target_ongoing_requests: 2, upscale_delay_s: 3}
        graceful_shutdown_timeout_s: 20
        health_check_period_s: 10
        ray_actor_options: {num_cpus: 0.5}
"""

ODD_TEXTS = [
    *("", " ", "~", "null", "-", "--", "0", "/", "/..", "a/", "a:b:c", "a b", "*", "{}", "${HOME}", "%s%n"),
    *("\0", "\n", "\r\n", "\t", "\x1b[31m", "\u2028", "\ufeff", "é", "e\u0301", "\U0001f600", "x" * 5_000),
    *("shop", "shop:", ":app", "shop:app", "shop.app", "..shop:app", "127.0.0.1", "::1", "EveryNode", "auto"),
]
ODD_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 65_536, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308),
    *(float("inf"), float("-inf"), float("nan"), b"\xff\xfe", [], {}, [None], {"": None}, [[]], *ODD_TEXTS),
]
ODD_KEYS = ["", "naem", "NAME", "port ", "host", "name", "__class__", "<<", "1", 1, None, True, 1.5]

Path = tuple[Any, ...]


@functools.cache
def good_texts() -> tuple[bytes, ...]:
    """Every configuration file of the examples, and one in which every key stands."""
    return EVERY_KEY.encode(), *(path.read_bytes() for path in sorted(EXAMPLES.rglob("*.yaml")))


@functools.cache
def _data_of(text: bytes) -> Any:
    return yaml.safe_load(text)


def mutated_text(random: Random) -> bytes:
    """The bytes of a file, mutated once to thrice."""
    data = copy.deepcopy(_data_of(random.choice(good_texts())))
    for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
        random.choice(_OF_DATA)(random, data)
    text = yaml.dump(data, allow_unicode=random.random() < 0.5, sort_keys=False).encode(
        "utf-8", "surrogatepass"
    )
    if random.random() < 0.35:
        text = random.choice(_OF_TEXT)(random, text)
    return text


# -- of its data -------------------------------------------------------------------------------------------


def _places(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield (*path, step)
        yield from _places(item, (*path, step))


def _a_place(random: Random, data: Any) -> tuple[Any, Any]:
    """Some container in ``data``, and a key or index of it."""
    places = list(_places(data)) or [()]
    path = random.choice(places)
    container = data
    for step in path[:-1]:
        container = container[step]
    return (container, path[-1]) if path else ({"": data}, "")


def _odd_value(random: Random) -> Any:
    """A new one: what is put into it by a later mutation must not be in the next file, too."""
    return copy.deepcopy(random.choice(ODD_VALUES))


def _delete(random: Random, data: Any) -> None:
    container, step = _a_place(random, data)
    del container[step]


def _retype(random: Random, data: Any) -> None:
    container, step = _a_place(random, data)
    container[step] = _odd_value(random)


def _add(random: Random, data: Any) -> None:
    container, step = _a_place(random, data)
    if isinstance(container, list):
        container.insert(step, _odd_value(random))
    else:
        container[random.choice(ODD_KEYS)] = _odd_value(random)


def _rename(random: Random, data: Any) -> None:
    container, step = _a_place(random, data)
    if isinstance(container, dict):
        container[random.choice(ODD_KEYS)] = container.pop(step)


def _double(random: Random, data: Any) -> None:
    """The same application, name or route twice."""
    container, step = _a_place(random, data)
    if isinstance(container, list):
        container.append(copy.deepcopy(container[step]))
    else:
        other, its = _a_place(random, data)
        other[its] = copy.deepcopy(container[step])


def _nest(random: Random, data: Any) -> None:
    container, step = _a_place(random, data)
    for _ in range(random.choice([1, 2, 20, 90])):
        container[step] = [container[step]] if random.random() < 0.5 else {"name": container[step]}


_OF_DATA: list[Callable[[Random, Any], None]] = [_delete, _retype, _retype, _add, _rename, _double, _nest]


# -- of its text -------------------------------------------------------------------------------------------


def _cut(random: Random, text: bytes) -> bytes:
    return text[: random.randrange(len(text) + 1)]


def _flip(random: Random, text: bytes) -> bytes:
    octets = bytearray(text[:20_000])
    for _ in range(random.choice([1, 1, 5, 50])):
        octets[random.randrange(len(octets))] = random.randrange(256)
    return bytes(octets)


def _repeat_a_line(random: Random, text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    place = random.randrange(len(lines))
    return b"".join([*lines[:place], lines[place], *lines[place:]])


def _insert(random: Random, text: bytes) -> bytes:
    place = random.randrange(len(text) + 1)
    return text[:place] + random.choice(_PIECES) + text[place:]


def _recode(random: Random, text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode(
        random.choice(["utf-16", "utf-32", "latin-1", "utf-7"]), "replace"
    )


def _bomb(random: Random, text: bytes) -> bytes:
    """Aliases of aliases: a few lines that stand for more values than there is memory."""
    levels = b"".join(
        b"a%d: &a%d [%s]\n" % (k, k, b", ".join([b"*a%d" % (k - 1)] * 9) or b"x")
        for k in range(1, random.randrange(2, 12))
    )
    return b"a0: &a0 [x]\n" + levels + text


def _nest_text(random: Random, text: bytes) -> bytes:
    return text + b"deep: " + random.choice([b"[", b"{a: ", b"- "]) * random.choice([10, 1000, 20_000])


_PIECES = [
    *(
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\n---\n",
        b"\n...\n",
        b"&a ",
        b"*a",
        b"<<: *a",
        b"? ",
    ),
    *(
        b"!!python/object/apply:os.system ['true']",
        b"!!binary ",
        b"!x ",
        b"|",
        b">",
        b"'",
        b'"',
        b"{",
        b"[",
        b"%",
    ),
]
_OF_TEXT: list[Callable[[Random, bytes], bytes]] = [
    *(_cut, _flip, _repeat_a_line, _insert, _recode) * 4,
    _bomb,
    _nest_text,
]


# -- command lines -----------------------------------------------------------------------------------------

_OPTIONS = [
    *("--app-dir", "--host", "--port", "--grpc-port", "--metrics-export-port", "--grpc-servicer-functions"),
    *("--proto", "--name", "--route-prefix", "--state-dir", "--admin-port", "-n", "-o", "--prot", "-x", "--"),
]
_ODD_ARGUMENTS = ["-1", "8000", "99999", "9" * 5000, "1e3", "word=x", "word="]
_COMMANDS = ["run", "deploy", "build", "status", "config", "delete", "start", "shutdown", "rnu", ""]


def mutated_command_line(random: Random) -> list[str]:
    """A command and its arguments, as a shell would pass them on; ``run`` most of the time."""
    command = random.choice(["run", "run", "run", *_COMMANDS])
    targets = ["shop:app", "shop:build", "shop:nope", "config.yaml", "nope.yaml", random.choice(ODD_TEXTS)]
    arguments = [random.choice(targets)] if random.random() < 0.9 else []
    for _ in range(random.randrange(4)):
        arguments.insert(random.randrange(len(arguments) + 1), random.choice(_OPTIONS))
        if random.random() < 0.85:
            arguments.append(
                random.choice([*ODD_TEXTS, "-1", "8000", "99999", "9" * 5000, "1e3", "word=x", "word="])
            )
    return [command, *(each.replace("\0", "") for each in arguments)]
