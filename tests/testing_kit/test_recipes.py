"""The guide's recipes, taken from docs/testing.md as they stand, run as a user's test file."""

import pytest

from ..document import ROOT, blocks_of

pytest_plugins = ["pytester"]
RECIPES = [block.code for block in blocks_of(ROOT / "docs" / "testing.md") if block.language == "python"]

HELLOWORLD = """
from trio_serve.grpc.protos import load_protos
helloworld_pb2 = load_protos({proto!r})
HelloRequest, HelloReply = helloworld_pb2.HelloRequest, helloworld_pb2.HelloReply

class GreeterStub:
    def __init__(self, channel):
        self.SayHello = channel.unary_unary(
            "/helloworld.Greeter/SayHello",
            request_serializer=HelloRequest.SerializeToString,
            response_deserializer=HelloReply.FromString,
        )
"""


@pytest.mark.real_clock
def test_each_recipe_runs(pytester) -> None:
    pytester.makepyfile(helloworld=HELLOWORLD.format(proto=str(ROOT / "protos" / "helloworld.proto")))
    pytester.makepyfile(test_recipes="\n\n".join(RECIPES))

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")

    result.assert_outcomes(passed=10)
    assert len(RECIPES) == 11
