"""``greeter.proto`` as Python modules, made anew by grpcio-tools in a directory that the run throws away.

The programs of a run find it through PYTHONPATH.  Servers that need no generated code read the
``.proto`` itself.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROTO = Path(__file__).with_name("greeter.proto")


@contextlib.contextmanager
def generated_modules() -> Iterator[None]:
    """Programs started inside can import ``greeter_pb2``, ``greeter_pb2_grpc`` and ``greeter_grpc``."""
    with tempfile.TemporaryDirectory(prefix="trio-serve-benchmarks-") as directory:
        plugin = Path(sys.executable).with_name("protoc-gen-grpclib_python")
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}"),
                *(f"--python_out={directory}", f"--grpc_python_out={directory}"),
                *(f"--plugin=protoc-gen-grpclib_python={plugin}", f"--grpclib_python_out={directory}"),
                PROTO.name,
            ],
            check=True,
        )
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = directory if not before else f"{directory}{os.pathsep}{before}"
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
