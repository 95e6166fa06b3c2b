import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_serve.wire.grpc import decode_timeout, encode_timeout


@pytest.mark.parametrize(
    "seconds, encoded",
    [
        (1, b"1000000u"),
        (0.1, b"100000u"),
        (10.9, b"10900000u"),
        (99.999999, b"99999999u"),
        (100, b"100000m"),
        (1e-9, b"1n"),
        (1e-12, b"1n"),
        (1.5e-9, b"2n"),
        (0, b"1n"),
        (-3, b"1n"),
        (99999.9999, b"100000S"),
        (86400 * 365, b"31536000S"),
        (1e8, b"1666667M"),
        (1e30, b"99999999H"),
    ],
)
def test_a_timeout_is_sent_in_the_finest_unit_that_fits_eight_digits(seconds: float, encoded: bytes) -> None:
    assert encode_timeout(seconds) == encoded


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan])
def test_no_timeout_at_all_is_not_encoded(seconds: float) -> None:
    with pytest.raises(ValueError, match="leave it out"):
        encode_timeout(seconds)


@settings(deadline=None)
@given(st.floats(min_value=1e-9, max_value=99_999_999 * 3600))
def test_a_timeout_is_rounded_up_and_hardly(seconds: float) -> None:
    """The server must not give up before the caller; the price of eight digits is a little more."""
    encoded = encode_timeout(seconds)

    assert 2 <= len(encoded) <= 9
    read = decode_timeout(encoded)
    assert read >= seconds * (1 - 1e-15)
    assert read <= seconds * (1 + 1.01e-6 * 60) + 1e-9


@pytest.mark.parametrize(
    "value, seconds",
    [(b"0n", 0), (b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"00000001S", 1)],
)
def test_every_unit_is_read(value: bytes, seconds: float) -> None:
    assert decode_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"S",
        b"1",
        b"1s",
        b"-1S",
        b"+1S",
        b" 1S",
        b"1 S",
        b"1.5S",
        b"123456789n",
        b"1Sm",
        b"\xb2S",
        b"1_0S",
        b"1S\n",
    ],
)
def test_a_malformed_timeout_is_an_error_that_shows_it(value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed grpc-timeout"):
        decode_timeout(value)


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_any_bytes_are_a_timeout_or_a_value_error(value: bytes) -> None:
    try:
        assert decode_timeout(value) >= 0
    except ValueError:
        pass
