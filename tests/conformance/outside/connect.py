"""Connect's conformance suite, gRPC and gRPC-Web: it drives our server and client through adapters."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.outside.finding import Outcome, find, missing
from tests.conformance.running import REPOSITORY

RUNNER = ("connectconformance", "TRIO_SERVE_CONNECT_CONFORMANCE")
PROTOS = "TRIO_SERVE_CONNECT_PROTOS"
"""The directory that holds connectrpc/conformance/v1/service.proto."""

FEATURES = """
features:
  versions: [HTTP_VERSION_2]
  protocols: [PROTOCOL_GRPC]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_DEFLATE]
  supportsTls: true
  supportsTlsClientCerts: true
"""


WEB_FEATURES = """
features:
  versions: [HTTP_VERSION_1]
  protocols: [PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_DEFLATE]
  streamTypes: [STREAM_TYPE_UNARY, STREAM_TYPE_SERVER_STREAM]
  supportsTls: false
"""
"""Browsers stream no requests."""


def server() -> Outcome:
    return _run("gRPC", FEATURES, "our server", "server", "connect_server")


def web_server() -> Outcome:
    return _run("gRPC-Web", WEB_FEATURES, "our HTTP port", "server", "connect_server")


def client() -> Outcome:
    return _run("gRPC", FEATURES, "our client", "client", "connect_client")


def _run(spoken: str, wanted: str, against: str, mode: str, adapter: str) -> Outcome:
    tool = f"Connect conformance, {spoken}"
    program = find(*RUNNER)
    if program is None:
        return missing(tool, against, *RUNNER)
    if PROTOS not in os.environ:
        return Outcome(tool, against, skipped=f"{PROTOS} is not set")
    with tempfile.TemporaryDirectory() as directory:
        features = Path(directory, "features.yaml")
        features.write_text(wanted)
        done = subprocess.run(
            [
                *(program, "--mode", mode, "--conf", str(features), "--max-servers", "2", "--"),
                *(sys.executable, "-m", f"tests.conformance.{adapter}"),
            ],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=600,
        )
    text = done.stdout + done.stderr
    counts = re.search(r"(\d+) passed, (\d+) failed", text)
    if counts is None:
        return Outcome(tool, against, failed=(text[-500:],))
    failed = tuple(" ".join(found.split()) for found in re.findall(r"^FAILED: (.*\n.*)", text, re.MULTILINE))
    return Outcome(tool, against, int(counts[1]), failed[: int(counts[2])])
