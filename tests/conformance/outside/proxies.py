"""gRPC's interoperability cases through proxies: grpcio's client, a proxy, our server.

    grpc.aio (and grpc-go, where it is) --> nginx | HAProxy | nghttpx | Envoy | Caddy | Traefik --> our server

Each proxy speaks HTTP/2 in plain text on both sides.  What it needs to be told is written when it is started.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import grpc.aio

from tests.conformance.interop_cases import CASES, COMPRESSION_CASES, Case, empty_unary
from tests.conformance.outside import interop
from tests.conformance.outside.finding import Outcome, find, missing
from tests.conformance.outside.listening import listening

CASE_S = 30
START_TRIES = 100
BETWEEN_TRIES_S = 0.1

Configure = Callable[[Path, int, int], Sequence[str]]
"""From a directory to write to, the port to listen on and our server's port to the program's arguments."""


def nginx(directory: Path, port: int, ours: int) -> Sequence[str]:
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(f"""
        {user}
        daemon off;
        pid {directory}/pid;
        error_log stderr;
        events {{}}
        http {{
            access_log off;
            {temporary}
            server {{
                listen 127.0.0.1:{port} http2;
                client_max_body_size 0;
                location / {{ grpc_pass grpc://127.0.0.1:{ours}; }}
            }}
        }}
    """)
    return ["-p", str(directory), "-c", str(config), "-e", "stderr"]


def haproxy(directory: Path, port: int, ours: int) -> Sequence[str]:
    config = directory / "haproxy.cfg"
    config.write_text(f"""
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend outside
    bind 127.0.0.1:{port} proto h2
    default_backend ours
backend ours
    server ours 127.0.0.1:{ours} proto h2
""")
    return ["-db", "-f", str(config)]


def nghttpx(directory: Path, port: int, ours: int) -> Sequence[str]:
    return [
        "--conf=/dev/null",
        f"--frontend=127.0.0.1,{port};no-tls",
        f"--backend=127.0.0.1,{ours};/;proto=h2",
    ]


def caddy(directory: Path, port: int, ours: int) -> Sequence[str]:
    config = directory / "Caddyfile"
    config.write_text(f"""
{{
    admin off
    auto_https off
    storage file_system {directory}
    servers {{
        protocols h1 h2 h2c
    }}
}}
http://127.0.0.1:{port} {{
    reverse_proxy h2c://127.0.0.1:{ours} {{
        flush_interval -1
    }}
}}
""")
    return ["run", "--config", str(config), "--adapter", "caddyfile"]


def traefik(directory: Path, port: int, ours: int) -> Sequence[str]:
    config = directory / "dynamic.yaml"
    service = {"loadBalancer": {"servers": [{"url": f"h2c://127.0.0.1:{ours}"}]}}
    router = {"rule": "PathPrefix(`/`)", "service": "ours", "entryPoints": ["outside"]}
    config.write_text(json.dumps({"http": {"routers": {"all": router}, "services": {"ours": service}}}))
    return [
        f"--entrypoints.outside.address=127.0.0.1:{port}",
        f"--providers.file.filename={config}",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]


def envoy(directory: Path, port: int, ours: int) -> Sequence[str]:
    extensions = "type.googleapis.com/envoy.extensions"
    options = "upstreams.http.v3.HttpProtocolOptions"

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    route = {"match": {"prefix": "/"}, "route": {"cluster": "ours", "timeout": "0s"}}
    router = {"@type": f"{extensions}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "HTTP2",
        "stat_prefix": "outside",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    listener = {
        "address": address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    cluster = {
        "name": "ours",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "ours",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ours)}}]}],
        },
        "typed_extension_protocol_options": {
            f"envoy.extensions.{options}": {
                "@type": f"{extensions}.{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return ["-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]


@attrs.frozen
class Proxy:
    """A program, the environment variable that says where it is, and how it is told what to do."""

    name: str
    variable: str
    configure: Configure


PROXIES = (
    Proxy("nginx", "TRIO_SERVE_NGINX", nginx),
    Proxy("haproxy", "TRIO_SERVE_HAPROXY", haproxy),
    Proxy("nghttpx", "TRIO_SERVE_NGHTTPX", nghttpx),
    Proxy("envoy", "TRIO_SERVE_ENVOY", envoy),
    # Caddy now and then sends a Trailers-Only answer, from any server, on as headers and an empty DATA with
    # END_STREAM: a status case may fail that passes the next time.
    Proxy("caddy", "TRIO_SERVE_CADDY", caddy),
    Proxy("traefik", "TRIO_SERVE_TRAEFIK", traefik),
)


def run(ours: int) -> Iterator[Outcome]:
    """A row for each proxy; ours is the port of our interoperability server."""
    for proxy in PROXIES:
        yield from _through(proxy, ours)


def _through(proxy: Proxy, ours: int) -> Iterator[Outcome]:
    against = f"our server through {proxy.name}"
    program = find(proxy.name, proxy.variable)
    if program is None:
        yield missing("grpc.aio client", against, proxy.name, proxy.variable)
        return
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        try:
            with listening(
                lambda port: [program, *proxy.configure(Path(directory), port, ours)], directory, log
            ) as port:
                yield asyncio.run(_grpc_aio(against, port))
                if find(*interop.GO_CLIENT) is not None:
                    yield attrs.evolve(interop.go_client(port), against=against)
        except RuntimeError:
            yield Outcome("grpc.aio client", against, failed=(f"{log.read_text(errors='replace')[-300:]}",))


async def _grpc_aio(against: str, port: int) -> Outcome:
    cases = CASES + COMPRESSION_CASES
    failed = []
    await _tried(empty_unary, port, START_TRIES)  # some accept before they know their routes
    for case in cases:
        problem = await _tried(case, port)
        if problem:
            failed.append(f"{case.__name__}: {problem}")
    return Outcome("grpc.aio client", against, len(cases) - len(failed), tuple(failed))


async def _tried(case: Case, port: int, tries: int = 1) -> str:
    """What was wrong the last time, if each time something was."""
    problem = ""
    for _ in range(tries):
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await asyncio.wait_for(case(channel), CASE_S)
            return ""
        except Exception as error:  # of any kind: the table says which
            problem = repr(error)
            await asyncio.sleep(BETWEEN_TRIES_S)
    return problem
