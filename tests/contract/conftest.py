"""What the contract's tests share: the guide's stubs, a served instance, and a client that is not ours."""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
GUIDE = ROOT / "examples" / "grpc_guide"
SERVICERS = [
    "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server",
    "user_defined_protos_pb2_grpc.add_ImageClassificationServiceServicer_to_server",
]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A folder, on ``sys.path``, with the guide's generated code, made by grpcio-tools as the guide says."""
    folder = tmp_path_factory.mktemp("stubs")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos")),
            *(f"--python_out={folder}", f"--grpc_python_out={folder}", "user_defined_protos.proto"),
        ],
        check=True,
    )
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def guide_path(stubs: pathlib.Path) -> Iterator[pathlib.Path]:
    """The guide's folder on ``sys.path``, so that its modules import as its users import them."""
    sys.path.insert(0, str(GUIDE))
    yield GUIDE
    sys.path.remove(str(GUIDE))
