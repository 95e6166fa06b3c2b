"""The programs that people have at hand: curl, nghttp, grpcurl, grpc-js, k6."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conformance.outside.finding import Outcome, find, missing
from tests.conformance.schema import PROTO, SimpleRequest

EMPTY_CALL = "/grpc.testing.TestService/EmptyCall"
GRPC_JS = "TRIO_SERVE_GRPC_JS"
"""A directory whose node_modules has @grpc/grpc-js and @grpc/proto-loader."""

Check = tuple[str, Sequence[str], Callable[[str], bool]]
"""A name, a command, and whether its output is right."""


def curl(port: int) -> Outcome:
    program = find("curl", "TRIO_SERVE_CURL")
    if program is None:
        return missing("curl", "our server", "curl", "TRIO_SERVE_CURL")
    address = f"http://127.0.0.1:{port}"
    h2c = [program, "-s", "-i", "--max-time", "10", "--http2-prior-knowledge"]
    call = [*h2c, "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"]
    return _run(
        "curl",
        [
            ("GET is answered 415", [*h2c, f"{address}/"], lambda out: out.startswith("HTTP/2 415")),
            (
                "a POST of bad framing ends with a status",
                [*call, "x", address + EMPTY_CALL],
                lambda out: "grpc-status: " in out and "grpc-status: 0" not in out,
            ),
            (
                "an unknown method",
                [*call, "", f"{address}/no.Such/Method"],
                lambda out: "grpc-status: 12" in out,
            ),
        ],
    )


def nghttp(port: int, scratch: Path) -> Outcome:
    program = find("nghttp", "TRIO_SERVE_NGHTTP")
    if program is None:
        return missing("nghttp", "our server", "nghttp", "TRIO_SERVE_NGHTTP")
    body = scratch / "empty-message"
    body.write_bytes(bytes(5))
    address = f"http://127.0.0.1:{port}"
    call = [
        program,
        "-v",
        "-t",
        "10",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "-d",
        str(body),
    ]
    return _run(
        "nghttp",
        [
            ("GET", [program, "-v", "-t", "10", f"{address}/"], lambda out: ":status: 415" in out),
            ("a unary call", [*call, address + EMPTY_CALL], lambda out: "grpc-status: 0" in out),
            (
                "padding",
                [*call, "-b", "100", address + EMPTY_CALL],
                lambda out: "grpc-status: 0" in out,
            ),
        ],
    )


def grpcurl(port: int) -> Outcome:
    program = find("grpcurl", "TRIO_SERVE_GRPCURL")
    if program is None:
        return missing("grpcurl", "our server", "grpcurl", "TRIO_SERVE_GRPCURL")
    address = f"127.0.0.1:{port}"
    plain = [program, "-plaintext", "-max-time", "10"]
    request = json.dumps({"response_size": 9})
    stream = json.dumps({"response_parameters": [{"size": 3}, {"size": 4}]})
    service = "grpc.testing.TestService"
    return _run(
        "grpcurl",
        [
            ("list, by reflection", [*plain, address, "list"], lambda out: service in out),
            ("describe", [*plain, address, "describe", service], lambda out: "FullDuplexCall" in out),
            (
                "unary",
                [*plain, "-d", request, address, f"{service}/UnaryCall"],
                lambda out: "AAAAAAAAAAAA" in out,
            ),
            (
                "server-streaming",
                [*plain, "-d", stream, address, f"{service}/StreamingOutputCall"],
                lambda out: out.count("body") == 2,
            ),
            ("health", [*plain, address, "grpc.health.v1.Health/Check"], lambda out: "SERVING" in out),
            (
                "gzip",
                [*plain, "-H", "grpc-accept-encoding: gzip", "-d", request, address, f"{service}/UnaryCall"],
                lambda out: "AAAAAAAAAAAA" in out,
            ),
        ],
    )


def grpc_js(port: int) -> Outcome:
    program = find("node", "TRIO_SERVE_NODE")
    if program is None or GRPC_JS not in os.environ:
        return Outcome("grpc-js", "our server", skipped=f"no node, or {GRPC_JS} is not set")
    script = Path(__file__).with_name("grpc_js_client.js")
    assert SimpleRequest.DESCRIPTOR.full_name == "grpc.testing.SimpleRequest"
    environment = os.environ | {"NODE_PATH": str(Path(os.environ[GRPC_JS], "node_modules"))}
    command = [program, str(script), str(PROTO), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    results = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    failed = tuple(f"{case}: {result}" for case, result in results.items() if result != "ok")
    if done.returncode:
        failed += (done.stderr[-300:],)
    return Outcome("grpc-js", "our server", sum(result == "ok" for result in results.values()), failed)


def k6(port: int) -> Outcome:
    program = find("k6", "TRIO_SERVE_K6")
    if program is None:
        return missing("k6", "our server", "k6", "TRIO_SERVE_K6")
    script = Path(__file__).with_name("k6_client.js")
    command = [program, "run", "--no-usage-report", "-e", f"ADDRESS=127.0.0.1:{port}", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    counts = re.findall(r"checks_(?:succeeded|failed)\S*: \S+ +(\d+) out of", done.stdout)
    if done.returncode or len(counts) != 2:
        return Outcome("k6", "our server", failed=((done.stdout + done.stderr)[-300:],))
    return Outcome("k6", "our server", int(counts[0]), ("a check",) * int(counts[1]))


def _run(tool: str, checks: Sequence[Check]) -> Outcome:
    failed = []
    for name, command, right in checks:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30)
        if not right(done.stdout):
            failed.append(f"{name}: {(done.stdout + done.stderr)[-200:]!r}")
    return Outcome(tool, "our server", len(checks) - len(failed), tuple(failed))
