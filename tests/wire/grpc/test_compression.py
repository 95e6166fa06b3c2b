import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from grpclib.exceptions import GRPCError
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import ACCEPT_ENCODING, Status, accepted, compressor, decompressor

Code = Callable[[bytes], bytes]

ENCODERS: dict[str, Code] = {"gzip": gzip.compress, "deflate": zlib.compress}
DECODERS: dict[str, Code] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@settings(deadline=None)
@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
def test_what_we_compress_the_standard_library_inflates_and_the_reverse(
    message: bytes, encoding: str
) -> None:
    compress, decompress = compressor(encoding), decompressor(encoding)
    assert compress is not None and decompress is not None

    assert DECODERS[encoding](compress(message)) == message
    assert decompress(ENCODERS[encoding](message), 2000) == message


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_long_message_is_inflated_step_by_step(encoding: str) -> None:
    decompress = decompressor(encoding)
    assert decompress is not None

    for message in (random.Random(1).randbytes(300_000), bytes(300_000)):
        assert decompress(ENCODERS[encoding](message), 300_000) == message


def test_identity_needs_nothing() -> None:
    assert compressor("identity") is None
    assert decompressor("identity") is None


@pytest.mark.parametrize("make", [compressor, decompressor])
def test_an_unknown_encoding_is_a_value_error_that_names_the_known(make: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="'br'; there are identity, gzip, deflate"):
        make("br")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_message_may_inflate_to_the_limit_and_no_byte_further(encoding: str) -> None:
    decompress = decompressor(encoding)
    assert decompress is not None

    assert decompress(ENCODERS[encoding](b"x" * 100), 100) == b"x" * 100
    with pytest.raises(GRPCError, match="inflates to more than message_bytes_max=100") as caught:
        decompress(ENCODERS[encoding](b"x" * 101), 100)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_inflates_to_the_limit_only(encoding: str) -> None:
    """64 MiB of zeros in 64 KiB; the limit is 1 MiB."""
    decompress = decompressor(encoding)
    assert decompress is not None
    bomb = ENCODERS[encoding](bytes(64 << 20))

    tracemalloc.start()
    with pytest.raises(GRPCError):
        decompress(bomb, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data + bytes(100_000),
        lambda data: b"",
        lambda data: b"no",
    ],
)
def test_what_is_not_exactly_one_compressed_message_is_internal(encoding: str, spoil: Code) -> None:
    decompress = decompressor(encoding)
    assert decompress is not None

    with pytest.raises(GRPCError) as caught:
        decompress(spoil(ENCODERS[encoding](b"message")), 100)

    assert caught.value.status is Status.INTERNAL


def test_a_peer_is_sent_only_what_it_accepts() -> None:
    assert ACCEPT_ENCODING == b"identity,gzip,deflate"
    assert accepted("identity", ())
    assert accepted("gzip", ("identity", "gzip"))
    assert not accepted("gzip", ("identity", "deflate"))
